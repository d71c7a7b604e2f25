"""The time governor: what the session's time is spent on, when to accelerate, and when to stop (R33).

The session's time is its limit. From it come off a margin, and a reserve for what is still to come after the search,
segmenting and packaging; what is left is the deadline, at which the run saves its state and turns to the submission.
Acceleration never touches the grid, the iterations or the log (R50-R52): its actions are those that the run
registered, and each is an event.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from vesu.config import TimeConfig
from vesu.errors import ArgumentError
from vesu.run.clock import SessionClock
from vesu.run.weights import PHASES

__all__ = ["Emit", "Governor"]

Emit: TypeAlias = Callable[..., object]
"""As :meth:`vesu.run.events.EventLog.emit`: a name and fields."""

#: Phases that the reserve is for, in order.
RESERVED = ("segment", "package")

#: The reserve holds so many times what the reserved phases are expected to take.
RESERVE_FACTOR = 1.5

#: The reserve is at most this part of the session: segmenting goes on in the next session too, and a session must
#: get somewhere.
RESERVE_PART = 0.5

NINE_HOURS_S = 32_400.0


class Governor:
    """Budgets, deadline and acceleration of one session; safe to use from several threads.

    Parameters
    ----------
    emit : callable
        Gets each event: ``emit(name, **fields)``.
    config : TimeConfig
        Limit, margin, and the expected end beyond which the run accelerates.
    clock : SessionClock
        How long the session has lasted.

    Notes
    -----
    Requirement R33: ``TIME_BUDGET_STATE`` at each plan, change of phase and change of state, ``PHASE_BUDGET_OVERRUN``
    once a phase, ``RUNTIME_BUDGET_HEARTBEAT`` at each :meth:`observe`, ``RUNTIME_ACCELERATION_MODE_ON`` with an event
    ``RUNTIME_ACCELERATION_ACTION`` for each action, ``RUNTIME_BUDGET_FINAL`` with the KPIs.

    Examples
    --------
    >>> events = []
    >>> governor = Governor(lambda name, **_: events.append(name), TimeConfig(limit_s=3600.0), SessionClock())
    >>> governor.plan({"fit": 1000.0, "segment": 200.0, "package": 40.0})
    >>> governor.reserve_s
    360.0
    >>> with governor.phase("fit"):
    ...     governor.observe(1200.0, (900.0, 1600.0))
    ...     governor.must_stop()
    False
    >>> events[0], events[-1]
    ('TIME_BUDGET_STATE', 'TIME_BUDGET_STATE')
    """

    def __init__(self, emit: Emit, config: TimeConfig, clock: SessionClock) -> None:
        self._emit = emit
        self._config = config
        self._clock = clock
        self._lock = threading.RLock()
        self._left_s: dict[str, float] = {}
        self._budgets: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._overrun: set[str] = set()
        self._phase: str | None = None
        self._phase_began = 0.0
        self._state = "on_time"
        self._accelerating = False
        self._waiting: list[tuple[str, Callable[[], object]]] = []
        self._applied: list[str] = []

    # -- plan ------------------------------------------------------------------------------------------------------

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Give each phase its budget: what it is expected to cost, stretched or cut to the session's time.

        Parameters
        ----------
        expected_s : mapping of str to float
            Seconds that each phase of this session is expected to take; may be given again when known better.

        Raises
        ------
        ArgumentError
            An unknown phase, or seconds that are negative or not finite.
        """
        for name, seconds in expected_s.items():
            if name not in PHASES or not (math.isfinite(seconds) and seconds >= 0):
                raise ArgumentError(
                    f"expected_s: got {seconds!r} for {name!r}; accepted: seconds of {', '.join(PHASES)}"
                )
        with self._lock:
            self._left_s = dict(expected_s)
            free_s = max(self._end_s() - self._clock.session_s(), 0.0)
            expected = math.fsum(expected_s.values())
            self._budgets = _budgets(expected_s, free_s)
            self._log_state("planned", expected_s=expected, fits_in_session=expected <= free_s)

    @property
    def reserve_s(self) -> float:
        """Seconds kept for the reserved phases that have not begun."""
        with self._lock:
            waiting = RESERVED if self._phase not in RESERVED else RESERVED[RESERVED.index(self._phase) + 1 :]
            needed = math.fsum(self._left_s.get(name, 0.0) for name in waiting)
            return min(RESERVE_FACTOR * needed, RESERVE_PART * self._end_s())

    def seconds_left(self) -> float:
        """Seconds until the deadline: limit less margin, reserve and what the session has used; may be negative."""
        with self._lock:
            return self._end_s() - self.reserve_s - self._clock.session_s()

    def must_stop(self) -> bool:
        """Whether the deadline has passed. Never while packaging: to stop there would save nothing."""
        with self._lock:
            return self._phase != "package" and self.seconds_left() <= 0.0

    def _end_s(self) -> float:
        """When all must be done, in seconds after the session's start."""
        limit_s = self._config.limit_s
        return math.inf if limit_s is None else limit_s - self._config.margin_s

    # -- phases ----------------------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Run one phase on its budget; its time counts however it ends.

        Raises
        ------
        ArgumentError
            An unknown phase, or one inside another.
        """
        with self._lock:
            if name not in PHASES or self._phase is not None:
                accepted = f"{', '.join(PHASES)}, one by one"
                raise ArgumentError(f"phase: got {name!r} within {self._phase!r}; accepted: {accepted}")
        try:  # at once, since a request to stop may come at any instruction
            with self._lock:
                self._phase, self._phase_began = name, self._clock.session_s()
                self._log_state("phase_begun")
            yield
        finally:
            with self._lock:
                self._check_budget()
                self._spent[name] = self._spent.get(name, 0.0) + self._in_phase_s()
                self._left_s[name] = 0.0
                self._phase = None
                self._log_state("phase_ended")

    def _in_phase_s(self) -> float:
        return self._clock.session_s() - self._phase_began if self._phase is not None else 0.0

    def _check_budget(self) -> None:
        name = self._phase
        if name is None or name in self._overrun or name not in self._budgets:
            return
        spent_s = self._spent.get(name, 0.0) + self._in_phase_s()
        if spent_s > self._budgets[name]:
            self._overrun.add(name)
            self._emit("PHASE_BUDGET_OVERRUN", phase=name, spent_s=spent_s, budget_s=self._budgets[name])

    # -- on each heartbeat -----------------------------------------------------------------------------------------

    def observe(
        self, eta_s: float, band: tuple[float, float] | None = None, *, left_s: Mapping[str, float] | None = None
    ) -> None:
        """Take in how long the run is expected to take from here; log it, and accelerate when that is too long.

        Parameters
        ----------
        eta_s : float
            Expected seconds from now to the end of the run.
        band : (float, float), optional
            Its lower and upper ends.
        left_s : mapping of str to float, optional
            Expected seconds still to come of each phase; the reserve follows them.
        """
        with self._lock:
            if left_s is not None:
                self._left_s.update(left_s)
            self._check_budget()
            session_s = self._clock.session_s()
            low_s, high_s = band or (eta_s, eta_s)
            self._emit(
                "RUNTIME_BUDGET_HEARTBEAT",
                phase=self._phase,
                elapsed_session_s=session_s,
                elapsed_total_s=self._clock.total_s(),
                eta_s=eta_s,
                eta_low_s=low_s,
                eta_high_s=high_s,
                expected_end_s=session_s + eta_s,
                seconds_left=_number(self.seconds_left()),
                reserve_s=self.reserve_s,
            )
            self._set_state(session_s, eta_s, high_s)
            if not self._accelerating and session_s + eta_s > self._config.accelerate_eta_s:
                self._accelerate(session_s + eta_s)
            elif self._accelerating:
                self._apply_waiting()

    def _set_state(self, session_s: float, eta_s: float, high_s: float) -> None:
        end_s = self._end_s()
        state = "over" if session_s + eta_s > end_s else "tight" if session_s + high_s > end_s else "on_time"
        if state != self._state:
            self._state = state
            self._log_state("changed")

    def _log_state(self, change: str, **more: Any) -> None:
        self._emit(
            "TIME_BUDGET_STATE",
            change=change,
            state=self._state,
            phase=self._phase,
            limit_s=self._config.limit_s,
            margin_s=self._config.margin_s,
            reserve_s=self.reserve_s,
            elapsed_session_s=self._clock.session_s(),
            elapsed_total_s=self._clock.total_s(),
            seconds_left=_number(self.seconds_left()),
            budget_s={name: _number(seconds) for name, seconds in self._budgets.items()},
            spent_s=dict(self._spent),
            **more,
        )

    # -- acceleration ----------------------------------------------------------------------------------------------

    def register_action(self, name: str, action: Callable[[], object]) -> None:
        """Something that makes the run faster and changes no result, to be done once when time gets short.

        Parameters
        ----------
        name : str
            As it stands in ``acceleration_actions_applied``.
        action : callable
            Called without arguments from the thread that observes; what it returns stands in the event. One that
            returns False had nothing to do and does not count as applied.
        """
        with self._lock:
            self._waiting.append((name, action))

    @property
    def accelerating(self) -> bool:
        """Whether the acceleration mode is on; it stays on."""
        with self._lock:
            return self._accelerating

    def _accelerate(self, expected_end_s: float) -> None:
        self._accelerating = True
        self._apply_waiting()
        self._emit(
            "RUNTIME_ACCELERATION_MODE_ON",
            expected_end_s=expected_end_s,
            accelerate_eta_s=self._config.accelerate_eta_s,
            acceleration_actions_applied=list(self._applied),
        )

    def _apply_waiting(self) -> None:
        while self._waiting:
            name, action = self._waiting.pop(0)
            try:
                answer = action()
            except Exception as error:  # noqa: BLE001  # an optional speed-up must not end the run
                self._emit(
                    "RUNTIME_ACCELERATION_ACTION", action=name, applied=False, error=f"{type(error).__name__}: {error}"
                )
                continue
            if answer is not False:
                self._applied.append(name)
            self._emit("RUNTIME_ACCELERATION_ACTION", action=name, applied=answer is not False)

    # -- the end ---------------------------------------------------------------------------------------------------

    def final(self) -> dict[str, Any]:
        """Log ``RUNTIME_BUDGET_FINAL``; returns its fields, the KPIs among them.

        ``elapsed_total_h`` counts all sessions; ``runtime_margin_to_9h`` (hours) is this session's, for the platform's
        limit is a session's.
        """
        with self._lock:
            session_s, limit_s = self._clock.session_s(), self._config.limit_s
            found = {
                "elapsed_total_h": self._clock.total_s() / 3600,
                "elapsed_session_h": session_s / 3600,
                "runtime_margin_to_9h": (NINE_HOURS_S - session_s) / 3600,
                "runtime_margin_to_limit_h": None if limit_s is None else (limit_s - session_s) / 3600,
                "acceleration_actions_applied": list(self._applied),
                "budget_s": {name: _number(seconds) for name, seconds in self._budgets.items()},
                "spent_s": dict(self._spent),
                "overrun": sorted(self._overrun),
            }
            self._emit("RUNTIME_BUDGET_FINAL", **found)
            return found


def _budgets(expected_s: Mapping[str, float], free_s: float) -> dict[str, float]:
    """The free time, shared by expected cost; where it is short, the reserved phases keep their reserve."""
    expected = math.fsum(expected_s.values())
    stretch = dict.fromkeys(expected_s, free_s / expected if expected > 0 else math.inf)
    reserve_s = RESERVE_FACTOR * math.fsum(expected_s.get(name, 0.0) for name in RESERVED)
    others = expected - reserve_s / RESERVE_FACTOR
    if free_s < RESERVE_FACTOR * expected and others > 0:
        kept_s = min(reserve_s, RESERVE_PART * free_s)
        for name in expected_s:
            stretch[name] = kept_s * RESERVE_FACTOR / reserve_s if name in RESERVED else (free_s - kept_s) / others
    return {name: seconds * stretch[name] for name, seconds in expected_s.items() if seconds > 0}


def _number(seconds: float) -> float | None:
    """Without a limit there is no number of seconds left."""
    return seconds if math.isfinite(seconds) else None
