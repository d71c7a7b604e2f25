"""The arithmetic of progress: phases, weights, what is left and how sure that is. No clock, no log, no display."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vesu.errors import ArgumentError

__all__ = ["DEFAULT_SPREAD", "EARLIER", "PHASES", "PhaseState", "Plan", "Remaining"]

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

EARLIER = "earlier_sessions"
"""Stands among the weights of a resumed run for the work that earlier sessions did."""

DEFAULT_SPREAD = math.log(2.0)
"""How sure an expected cost is, as the standard deviation of its logarithm: a factor of 2 either way."""

#: Measured seconds count against this part of the plan's as prior evidence that the plan's speed was right.
PRIOR_PART = 0.1

#: A phase so many times cheaper than expected found its work done (a warm cache): it says nothing of the speed.
FOUND_DONE = 8.0

#: Steps of a phase differ from each other by about this part of their cost: what a few of them say of the whole.
STEP_VARIATION = 0.5

#: No estimate is surer than this.
LEAST_SPREAD = 0.03

#: Ends of the band, in standard deviations: four of five errors lie inside.
BAND_DEVIATIONS = 1.28

#: A step that is overdue is expected to take this part more of what it has taken.
OVERDUE_PART = 0.2

#: What an earlier session did is done again from the cache, at about this part of its cost.
AGAIN_PART = 0.1

#: Most that is ever shown before the last phase is done: two decimals must not round to 100.
NOT_YET = 0.9999

#: A phase never weighs nothing: the weights of the phases done must be able to hold the share already shown.
MIN_COST_S = 1e-6


@dataclass
class PhaseState:
    """One planned phase: what was expected of it, how much is done, what it cost."""

    name: str
    expected_s: float
    """Of this session: what an earlier one did is not in it."""
    spread: float = DEFAULT_SPREAD
    weight: float = 0.0
    total_units: float = 0.0
    done_units: float = 0.0
    start_units: float = 0.0
    """Units that earlier sessions did."""
    n_steps: float = 1.0
    """Steps in which the units are expected to come."""
    steps: int = 0
    started_at: float | None = None
    stepped_at: float = 0.0
    done: bool = False
    again: bool = False
    """An earlier session finished this phase; now it is only gone through again."""
    measured_s: float = 0.0
    reason: str | None = None

    @property
    def fraction(self) -> float:
        """P_i of the whole run: 1 when done, else the part of the announced units."""
        if self.done:
            return 1.0
        return self.done_units / self.total_units if self.total_units > 0 else 0.0

    @property
    def part(self) -> float:
        """P_i of this session: as :attr:`fraction`, less what earlier sessions did."""
        if self.done:
            return 1.0
        announced = self.total_units - self.start_units
        return (self.done_units - self.start_units) / announced if announced > 0 else 0.0

    @property
    def complete(self) -> bool:
        """Whether the announced work was done, or its end was explained."""
        return self.reason is not None or self.done_units >= self.total_units * (1 - 1e-9)

    @property
    def paced_s(self) -> float:
        """Seconds from the phase's start to its last step; 0 where they say nothing yet."""
        return self.stepped_at - self.started_at if self.started_at is not None and self.steps else 0.0

    def set_done(self, units: float, now: float | None = None) -> str | None:
        """Move to this many units done; returns what is wrong with that, having kept to the possible."""
        if not units >= self.done_units:
            return "progress of a phase went back"
        excess = units > self.total_units * (1 + 1e-9)
        if units > self.done_units and now is not None:
            self.steps += 1
            self.stepped_at = now
        self.done_units = min(units, self.total_units)
        return "more work than announced" if excess else None

    def estimate(self, speed: float) -> tuple[float, float]:
        """Expected seconds of the whole phase in this session, and the standard deviation of their logarithm.

        The plan's cost and the phase's own pace, each with the weight of its evidence: a lognormal prior, and steps
        that differ by :data:`STEP_VARIATION`.
        """
        planned_s, prior = max(self.expected_s * speed, MIN_COST_S), self.spread**-2
        if self.paced_s <= 0 or self.part <= 0:
            return planned_s, max(self.spread, LEAST_SPREAD)
        pace = self.steps / STEP_VARIATION**2
        paced_s = self.paced_s / self.part
        log_s = (pace * math.log(paced_s) + prior * math.log(planned_s)) / (pace + prior)
        return math.exp(log_s), max((pace + prior) ** -0.5, LEAST_SPREAD)

    def remaining(self, speed: float, now: float) -> tuple[float, float]:
        """Expected seconds until the phase ends, and the standard deviation of their logarithm."""
        if self.done:
            return 0.0, 0.0
        whole_s, spread = self.estimate(speed)
        left_s = whole_s * (1.0 - self.part)
        if self.started_at is None or self.part >= 1.0:
            return left_s, spread
        quiet_s = now - (self.stepped_at if self.steps else self.started_at)
        return max(left_s - quiet_s, OVERDUE_PART * quiet_s), spread


@dataclass(frozen=True)
class Remaining:
    """Seconds that the work still to do is expected to take: the estimate, and a band that holds four of five."""

    seconds: float
    low_s: float
    high_s: float


class Plan:
    """The planned phases of a session and their weights W_i, whose sum is 1.

    Parameters
    ----------
    expected_s : mapping of str to float
        Seconds that each phase of the whole run is expected to take.
    spreads : mapping of str to float, optional
        How sure each of them is; default :data:`DEFAULT_SPREAD`.
    earlier_s : mapping of str to float, optional
        Seconds that earlier sessions took for each phase.
    earlier_parts : mapping of str to float, optional
        The part of each phase's work that they did; default what those seconds are of the expected ones.
    earlier_shown : float
        The fraction of the whole run that was shown when the earlier session's state was saved.
    """

    def __init__(
        self,
        expected_s: Mapping[str, float],
        *,
        spreads: Mapping[str, float] | None = None,
        earlier_s: Mapping[str, float] | None = None,
        earlier_parts: Mapping[str, float] | None = None,
        earlier_shown: float = 0.0,
    ) -> None:
        _check("weights", expected_s, math.inf, "seconds, 0 or more")
        _check("spreads", spreads or {}, math.inf, "0 or more")
        _check("earlier_s", earlier_s or {}, math.inf, "seconds, 0 or more")
        _check("earlier_parts", earlier_parts or {}, 1.0, "0 to 1")
        if not 0.0 <= earlier_shown <= 1.0:
            raise ArgumentError(f"earlier_shown: got {earlier_shown!r}; accepted: 0 to 1")
        planned = [name for name in PHASES if expected_s.get(name, 0) > 0]
        if not planned:
            raise ArgumentError("weights: got no phase above 0; accepted: at least one")
        self.earlier_s = {name: float(seconds) for name, seconds in (earlier_s or {}).items() if seconds > 0}
        self.earlier_parts: dict[str, float] = {}
        self.states: dict[str, PhaseState] = {}
        for name in planned:
            whole_s, spent_s = float(expected_s[name]), self.earlier_s.get(name, 0.0)
            part = (earlier_parts or {}).get(name, min(spent_s / whole_s, 1.0))
            self.earlier_parts[name] = part
            # What is left, by the pace so far and by the plan, mixed by the part; or the whole again from the cache.
            left_s = spent_s * AGAIN_PART if part >= 1 else (1 - part) * (spent_s + (1 - part) * whole_s)
            spread = (spreads or {}).get(name, DEFAULT_SPREAD)
            self.states[name] = PhaseState(name, max(left_s, MIN_COST_S), max(spread, LEAST_SPREAD), again=part >= 1)
        self._earlier = PhaseState(EARLIER, math.fsum(self.earlier_s.values()), done=True)
        self._earlier.measured_s = self._earlier.expected_s
        self._set_weights(self._costs())
        if self.earlier_s:
            self._hold(earlier_shown)

    def weights(self) -> dict[str, float]:
        return {state.name: state.weight for state in self._weighted()}

    def fraction(self) -> float:
        """P = sum of W_i P_i; 1 when, and only when, every phase is done."""
        if all(state.done for state in self.states.values()):
            return 1.0
        return min(math.fsum(state.weight * state.part for state in self._weighted()), NOT_YET)

    def start(
        self, name: str, total_units: float, now: float, *, start_units: float = 0.0, n_steps: float | None = None
    ) -> PhaseState:
        state = self.states.get(name)
        if state is None:
            raise ArgumentError(f"phase: got {name!r}; accepted: a planned one ({', '.join(self.states)})")
        if state.started_at is not None:
            raise ArgumentError(f"phase: got {name!r} a second time; accepted: each phase once")
        if not (math.isfinite(total_units) and total_units >= 0):
            raise ArgumentError(f"total_units: got {total_units!r}; accepted: 0 or more")
        if not 0 <= start_units <= total_units:
            raise ArgumentError(f"done_units: got {start_units!r}; accepted: 0 to {total_units:g}")
        state.total_units, state.started_at = float(total_units), now
        state.start_units = state.done_units = float(start_units)
        state.n_steps = max(total_units - start_units if n_steps is None else n_steps, 1.0)
        return state

    def step(self, state: PhaseState, units: float, now: float) -> str | None:
        """Units are done: the weights follow the phase's own pace, the share shown is kept; returns what is wrong."""
        shown = self.fraction()
        problem = state.set_done(units, now)
        if state.paced_s > 0 and state.part < 1:
            self._calibrate(shown)
        return problem

    def resize(self, state: PhaseState, total_units: float) -> None:
        """Another amount of work than announced: its cost follows, the share shown is kept."""
        shown, announced = self.fraction(), state.total_units
        state.total_units = max(float(total_units), state.done_units)
        if announced > 0:
            state.expected_s *= state.total_units / announced
            state.n_steps = max(state.n_steps, 1.0)
        self._calibrate(shown)

    def finish(self, state: PhaseState, now: float) -> None:
        """The phase is done: take its measured cost in and calibrate the weights."""
        shown = math.fsum(each.weight * (1.0 if each is state else each.part) for each in self._weighted())
        state.measured_s = now - state.started_at if state.started_at is not None else 0.0
        state.done = True
        self._calibrate(shown)

    def speed_factor(self) -> float:
        """Measured over expected seconds of what is done, shrunk towards 1 by the prior; above 1 is slower."""
        prior_s = PRIOR_PART * math.fsum(state.expected_s for state in self.states.values())
        measured, expected = [prior_s], [prior_s]
        for state in self.states.values():
            seconds, planned_s = (
                (state.measured_s, state.expected_s) if state.done else (state.paced_s, state.expected_s * state.part)
            )
            if not state.again and seconds * FOUND_DONE > planned_s:
                measured.append(seconds)
                expected.append(planned_s)
        return math.fsum(measured) / math.fsum(expected)

    def remaining(self, now: float) -> Remaining:
        """What is left of the run; a running phase's own pace counts more the more of its steps are done."""
        speed = self.speed_factor()
        phases = [state.remaining(speed, now) for state in self.states.values()]
        # The phases' errors are taken to go together, as those of a slow machine do.
        low, high = (
            math.fsum(seconds * math.exp(way * BAND_DEVIATIONS * spread) for seconds, spread in phases)
            for way in (-1, 1)
        )
        return Remaining(math.fsum(seconds for seconds, _ in phases), low, high)

    def remaining_by_phase(self, now: float) -> dict[str, float]:
        """Expected seconds to come of each phase."""
        speed = self.speed_factor()
        return {name: state.remaining(speed, now)[0] for name, state in self.states.items()}

    def step_s(self, state: PhaseState) -> float:
        """Seconds that one step of a phase is expected to take."""
        if state.paced_s > 0:
            return state.paced_s / state.steps
        return state.expected_s * self.speed_factor() / state.n_steps

    # -- what other sessions and runs want to know -----------------------------------------------------------------

    def whole_costs(self) -> dict[str, float]:
        """Seconds that each finished phase took in all sessions; going through it again is not counted."""
        return {
            name: self.earlier_s.get(name, 0.0) + (0.0 if state.again else state.measured_s)
            for name, state in self.states.items()
            if state.done and state.reason is None
        }

    def done(self, now: float) -> dict[str, dict[str, float]]:
        """Seconds and parts of the work done in all sessions up to now, as the next session's plan takes them."""
        seconds, parts = dict(self.earlier_s), {}
        for name, state in self.states.items():
            begun = state.started_at is not None
            spent_s = state.measured_s if state.done else now - (state.started_at or 0.0) if begun else 0.0
            seconds[name] = seconds.get(name, 0.0) + spent_s
            parts[name] = 1.0 if state.again else state.fraction if begun else self.earlier_parts[name]
        return {"earlier_s": seconds, "earlier_parts": parts}

    # -- weights ---------------------------------------------------------------------------------------------------

    def _weighted(self) -> list[PhaseState]:
        return [*self.states.values(), *([self._earlier] if self.earlier_s else [])]

    def _costs(self) -> dict[str, float]:
        """What each phase costs in this session, as well as is known now."""
        speed, costs = self.speed_factor(), {}
        for state in self._weighted():
            running = state.started_at is not None and not state.done
            if state.done:
                seconds = state.measured_s
            elif running:
                seconds = state.paced_s + state.estimate(speed)[0] * (1.0 - state.part)
            else:
                seconds = state.expected_s * speed
            costs[state.name] = max(MIN_COST_S, seconds)
        return costs

    def _calibrate(self, shown: float) -> None:
        before = self.weights()
        self._set_weights(self._costs())
        if not self._hold(shown):
            for state in self._weighted():
                state.weight = before[state.name]

    def _hold(self, shown: float) -> bool:
        """Keep the share shown where the weights would take it back; False where they cannot."""
        states = self._weighted()
        done = math.fsum(state.weight for state in states if state.done)
        partial = math.fsum(state.weight * state.part for state in states if not state.done)
        left = math.fsum(state.weight for state in states if not state.done)
        if done + partial >= shown or left <= partial:
            return True
        if done <= 0:
            return False  # nothing is done that could carry the share
        # Find a, b with a*done + b*left = 1 and a*done + b*partial = shown: the sum of W_i P_i stays where it was.
        b = (1.0 - shown) / (left - partial)
        a = (1.0 - b * left) / done
        for state in states:
            state.weight *= a if state.done else b
        return True

    def _set_weights(self, cost: Mapping[str, float]) -> None:
        total = math.fsum(cost.values())
        for state in self._weighted():
            state.weight = cost[state.name] / total


def _check(label: str, values: Mapping[str, float], most: float, accepted: str) -> None:
    for name, value in values.items():
        if name not in PHASES:
            raise ArgumentError(f"{label}: got the phase {name!r}; accepted: {', '.join(PHASES)}")
        if not (math.isfinite(value) and 0 <= value <= most):
            raise ArgumentError(f"{label}: got {value!r} for {name!r}; accepted: {accepted}")
