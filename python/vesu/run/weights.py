"""The arithmetic of progress: phases, their weights, calibration by measured cost. No clock, no log, no display."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vesu.errors import ArgumentError

__all__ = ["PHASES", "PhaseState", "Plan"]

#: The phases of a run, in order.
PHASES = (
    "discovery",
    "preflight",
    "load",
    "features",
    "train_data",
    "fit",
    "distillation",
    "segment",
    "package",
)

#: Measured seconds count against this part of the plan's as prior evidence that the plan's speed was right.
PRIOR_PART = 0.25

#: Most that is ever shown before the last phase is done: two decimals must not round to 100.
NOT_YET = 0.9999

#: A phase never weighs nothing: the weights of the phases done must be able to hold the share already shown.
MIN_COST_S = 1e-6


@dataclass
class PhaseState:
    """One planned phase: what was expected of it, how much is done, what it cost."""

    name: str
    expected_s: float
    weight: float = 0.0
    total_units: float = 0.0
    done_units: float = 0.0
    started_at: float | None = None
    done: bool = False
    measured_s: float = 0.0
    reason: str | None = None

    @property
    def fraction(self) -> float:
        """P_i: 1 when done, else the part of the announced units."""
        if self.done:
            return 1.0
        return self.done_units / self.total_units if self.total_units > 0 else 0.0

    @property
    def complete(self) -> bool:
        """Whether the announced work was done, or its end was explained."""
        return self.reason is not None or self.done_units >= self.total_units * (1 - 1e-9)

    def set_done(self, units: float) -> str | None:
        """Move to this many units done; returns what is wrong with that, having kept to the possible."""
        if not units >= self.done_units:
            return "progress of a phase went back"
        excess = units > self.total_units * (1 + 1e-9)
        self.done_units = min(units, self.total_units)
        return "more work than announced" if excess else None


class Plan:
    """The planned phases and their weights W_i, whose sum is 1."""

    def __init__(self, expected_s: Mapping[str, float]) -> None:
        for name, seconds in expected_s.items():
            if name not in PHASES:
                raise ArgumentError(f"weights: got the phase {name!r}; accepted: {', '.join(PHASES)}")
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ArgumentError(f"weights: got {seconds!r} for {name!r}; accepted: seconds, 0 or more")
        planned = [name for name in PHASES if expected_s.get(name, 0) > 0]
        if not planned:
            raise ArgumentError("weights: got no phase above 0; accepted: at least one")
        self.states = {name: PhaseState(name, float(expected_s[name])) for name in planned}
        self._set_weights({name: state.expected_s for name, state in self.states.items()})

    def weights(self) -> dict[str, float]:
        return {name: state.weight for name, state in self.states.items()}

    def fraction(self) -> float:
        """P = sum of W_i P_i; 1 when, and only when, every phase is done."""
        states = self.states.values()
        if all(state.done for state in states):
            return 1.0
        return min(math.fsum(state.weight * state.fraction for state in states), NOT_YET)

    def start(self, name: str, total_units: float, now: float) -> PhaseState:
        state = self.states.get(name)
        if state is None:
            raise ArgumentError(f"phase: got {name!r}; accepted: a planned one ({', '.join(self.states)})")
        if state.started_at is not None:
            raise ArgumentError(f"phase: got {name!r} a second time; accepted: each phase once")
        if not (math.isfinite(total_units) and total_units >= 0):
            raise ArgumentError(f"total_units: got {total_units!r}; accepted: 0 or more")
        state.total_units, state.started_at = float(total_units), now
        return state

    def finish(self, state: PhaseState, now: float) -> None:
        """The phase is done: take its measured cost in and calibrate the weights."""
        shown = math.fsum(other.weight * (1.0 if other is state else other.fraction) for other in self.states.values())
        state.measured_s = now - state.started_at if state.started_at is not None else 0.0
        state.done = True
        self._calibrate(shown)

    def speed_factor(self) -> float:
        """Measured over expected seconds of the phases done, shrunk towards 1 by the prior."""
        done = [state for state in self.states.values() if state.done]
        prior_s = PRIOR_PART * math.fsum(state.expected_s for state in self.states.values())
        measured_s = math.fsum(state.measured_s for state in done)
        return (measured_s + prior_s) / (math.fsum(state.expected_s for state in done) + prior_s)

    def remaining_s(self, now: float) -> float:
        """Expected seconds of what is left; a running phase's own pace counts more the further it is."""
        speed = self.speed_factor()
        remaining = []
        for state in self.states.values():
            left = 1.0 - state.fraction
            elapsed_s = now - state.started_at if state.started_at is not None else 0.0
            # left * (left * plan + fraction * (elapsed / fraction)): plan and own pace, mixed by the fraction.
            remaining.append(left * (left * state.expected_s * speed + elapsed_s * (state.fraction > 0)))
        return math.fsum(remaining)

    def _calibrate(self, shown: float) -> None:
        speed = self.speed_factor()
        cost = {
            name: max(MIN_COST_S, state.measured_s if state.done else state.expected_s * speed)
            for name, state in self.states.items()
        }
        self._set_weights(cost)
        states = self.states.values()
        done = math.fsum(state.weight for state in states if state.done)
        partial = math.fsum(state.weight * state.fraction for state in states if not state.done)
        left = math.fsum(state.weight for state in states if not state.done)
        if done + partial >= shown or left <= partial:
            return
        # Find a, b with a*done + b*left = 1 and a*done + b*partial = shown: the sum of W_i P_i stays where it was.
        b = (1.0 - shown) / (left - partial)
        a = (1.0 - b * left) / done
        for state in states:
            state.weight *= a if state.done else b

    def _set_weights(self, cost: Mapping[str, float]) -> None:
        total = math.fsum(cost.values())
        for name, state in self.states.items():
            state.weight = cost[name] / total
