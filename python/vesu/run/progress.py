"""Real progress of a run: P = sum of W_i P_i over its phases, shown and logged as one and the same number.

How it stays true (requirement R34):

- ``weights`` are expected costs in seconds of the phases that this run plans; a phase left out or at 0 is not planned.
  W_i is a phase's share of the whole.
- As a phase gets on, its own pace takes the place of what was expected of it, the more of its steps are done; what is
  expected of the phases still to come is scaled by how much slower or faster this run has been so far (shrunk towards
  1 while little was measured). The weights follow, and ``PHASE_WEIGHT_CALIBRATION`` records old and new at the end of a
  phase, and in it when a weight has moved by a point.
- A percentage that was shown never goes back. Where the new weights would take it back, the share already shown is
  kept for the phases done, and what is left of the hundred is divided among the others by their expected cost: from
  there on the number moves more slowly, and it still reaches 100 when all is done, never before.
- Of a resumed run the work of earlier sessions counts as one more part, done, with the seconds that it took; the number
  goes on where the saved state was.
- The remaining time comes with a band, from how sure each cost is and how many steps have confirmed it.
- The number on display is read back at each refresh and compared with the computed one. A difference, work beyond a
  phase's announced total, and a phase that ends with announced work undone, each give a
  ``PROGRESS_INTEGRITY_ALERT``; the display is put right and the run goes on: a fault of the display is evidence to
  keep, no reason to lose nine hours of work.
- A thread logs ``GLOBAL_PROGRESS_REALTIME`` and ``HEARTBEAT`` every few seconds, however long a kernel runs.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from vesu.errors import ArgumentError, VesuError
from vesu.run.clock import Clock
from vesu.run.display import make_display
from vesu.run.events import EventLog
from vesu.run.heartbeat import Heartbeat, Ticker
from vesu.run.phase_progress import FitProgress, PhaseProgress, postfix, units_at
from vesu.run.weights import PHASES, PhaseState, Plan

__all__ = ["PHASES", "FitProgress", "PhaseProgress", "Progress"]

#: A shown percentage has two decimals; beyond this difference shown and computed are not the same number.
TOLERANCE = 0.005

#: PROGRESS_UPDATE is logged at each phase change and each time the whole run has moved by this many points.
UPDATE_POINTS = 1.0

#: Within a phase, weights that moved by this part since they were last recorded are recorded again.
CALIBRATION_PART = 0.01

#: R34 wants GLOBAL_PROGRESS_REALTIME at least this often.
MAX_INTERVAL_S = 15.0


class Progress:
    """Progress over the phases of one run; a context manager, safe to use from several threads.

    Parameters
    ----------
    log : EventLog
        Where the events go.
    weights : mapping of str to float
        Expected seconds of each planned phase, by name from :data:`PHASES`.
    display : {"auto", "tqdm", "none"}
        ``auto`` shows a tqdm bar in a terminal and in a notebook; without tqdm it shows none and logs
        ``PROGRESS_DISPLAY_UNAVAILABLE`` once.
    min_interval_s : float
        Seconds between two ``GLOBAL_PROGRESS_REALTIME`` and ``HEARTBEAT``, at most 15.
    clock : Clock, optional
        For tests.
    spreads : mapping of str to float, optional
        How sure the expected seconds are: the standard deviation of their logarithm (default: a factor of 2).
    earlier_s, earlier_parts, earlier_shown : optional
        What earlier sessions of this run did, as :meth:`state` gave it to the checkpoint: seconds of each phase, the
        part of its work that is done, and the percentage then shown. ``Progress(log, weights, **saved)``.
    stall_factor : float
        See :class:`vesu.run.heartbeat.Heartbeat`.

    Raises
    ------
    ArgumentError
        An unknown phase, a weight that is negative or not finite, no planned phase, a bad interval or display.

    Notes
    -----
    Requirement R34; see the module's text for the formula and its calibration. Every event carries
    ``global_progress_reel`` and ``train_progress_reel`` (percent), ``cursor``, ``remaining_estimate_s`` and its band
    ``remaining_low_s``, ``remaining_high_s``, which holds four of five.
    A failure of the thread's logging (a full disk) is raised by the next call in the run's own thread.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder, EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...     with Progress(log, {"load": 1, "features": 3}, display="none") as progress:
    ...         with progress.phase("load", total_units=4) as load:
    ...             load.advance(2)
    ...             print(load.fraction, 0 < progress.global_progress_reel < 50)
    0.5 True
    """

    def __init__(
        self,
        log: EventLog,
        weights: Mapping[str, float],
        *,
        display: Literal["auto", "tqdm", "none"] = "auto",
        min_interval_s: float = 5.0,
        clock: Clock | None = None,
        spreads: Mapping[str, float] | None = None,
        earlier_s: Mapping[str, float] | None = None,
        earlier_parts: Mapping[str, float] | None = None,
        earlier_shown: float = 0.0,
        stall_factor: float = 4.0,
    ) -> None:
        if not 0.0 < min_interval_s <= MAX_INTERVAL_S:
            raise ArgumentError(
                f"min_interval_s: got {min_interval_s!r}; accepted: above 0, at most {MAX_INTERVAL_S:g}"
            )
        self._log = log
        self._clock = clock or Clock()
        self._plan = Plan(
            weights,
            spreads=spreads,
            earlier_s=earlier_s,
            earlier_parts=earlier_parts,
            earlier_shown=earlier_shown / 100.0,
        )
        self._recorded = self._plan.weights()
        self.heartbeat = Heartbeat(log.emit, interval_s=min_interval_s, stall_factor=stall_factor, clock=clock)
        """Watches the running phase; ``heartbeat.around(...)`` names a long computation in it or beside it."""
        self._ticker = Ticker(self._tick, min_interval_s)
        self._listeners: list[Callable[[Mapping[str, Any]], object]] = []
        self._lock = threading.RLock()
        self._failure: Exception | None = None
        self._started = self._clock.monotonic()
        self._cursor: dict[str, Any] = {}
        self._shown = 0.0
        self._updated_at = 0.0
        self._display, problem = make_display(display)
        if problem:
            log.emit("PROGRESS_DISPLAY_UNAVAILABLE", reason=problem)

    # -- what is shown ---------------------------------------------------------------------------------------------

    @property
    def global_progress_reel(self) -> float:
        """Progress of the whole run in percent: 100 times the sum of W_i P_i."""
        with self._lock:
            computed = 100.0 * self._plan.fraction()
            # Rounding alone may put the sum a hair below what was shown; anything more is the integrity check's.
            return self._shown if 0.0 < self._shown - computed < 1e-9 else computed

    @property
    def train_progress_reel(self) -> float:
        """Progress of the phase ``fit`` in percent, from (epoch, candidate, iteration)."""
        with self._lock:
            state = self._plan.states.get("fit")
            if state is None:
                return 0.0
            return 100.0 * (state.fraction if state.started_at is not None else self._plan.earlier_parts["fit"])

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the run stands: phase, units done and in all; in ``fit`` also epoch, candidates and iteration."""
        with self._lock:
            return dict(self._cursor)

    @property
    def remaining_estimate_s(self) -> float:
        """Seconds that the work still to do is expected to take."""
        with self._lock:
            return self._plan.remaining(self._clock.monotonic()).seconds

    def remaining_by_phase(self) -> dict[str, float]:
        """Seconds that each phase is expected to take from here."""
        with self._lock:
            return self._plan.remaining_by_phase(self._clock.monotonic())

    @property
    def weights(self) -> dict[str, float]:
        """The W_i as they stand; their sum is 1."""
        with self._lock:
            return self._plan.weights()

    def phase_seconds(self) -> dict[str, float]:
        """Measured seconds of the phases that this session finished."""
        with self._lock:
            return {name: state.measured_s for name, state in self._plan.states.items() if state.done}

    def whole_costs(self) -> dict[str, float]:
        """Seconds that each finished phase took in all sessions, going through it again not counted; for the costs."""
        with self._lock:
            return self._plan.whole_costs()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the next session's number goes on: ``Progress(log, weights, **saved)``."""
        with self._lock:
            return {**self._plan.done(self._clock.monotonic()), "earlier_shown": self.global_progress_reel}

    def snapshot(self) -> dict[str, Any]:
        """The numbers that are always shown together, by their names."""
        with self._lock:
            remaining = self._plan.remaining(self._clock.monotonic())
            return {
                "global_progress_reel": self.global_progress_reel,
                "train_progress_reel": self.train_progress_reel,
                "cursor": self.cursor,
                "remaining_estimate_s": remaining.seconds,
                "remaining_low_s": remaining.low_s,
                "remaining_high_s": remaining.high_s,
            }

    # -- phases ----------------------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str, total_units: float, *, done_units: float = 0.0) -> Iterator[PhaseProgress]:
        """Run one phase; what it measures calibrates the weights when it ends.

        Parameters
        ----------
        name : str
            A planned phase that has not run yet.
        total_units : float
            Work in the phase, in units that cost about the same each; 0 when there is nothing to do.
        done_units : float
            Of these, what earlier sessions did.

        Raises
        ------
        ArgumentError
            A phase that is not planned or has run before; a bad total.
        """
        with self._run(name, total_units, start_units=done_units) as state:
            yield PhaseProgress(self, state)

    @contextmanager
    def fit(
        self,
        *,
        n_epochs: int,
        n_candidates: int | Sequence[int],
        max_iter: int,
        resume_from: Mapping[str, Any] | None = None,
    ) -> Iterator[FitProgress]:
        """Run the phase ``fit``, whose progress follows from (epoch, candidate, iteration).

        Parameters
        ----------
        n_epochs : int
            The most that may come; :meth:`PhaseProgress.finish` explains fewer.
        n_candidates : int or sequence of int
            Candidates of every epoch, or of each where the grid grows.
        max_iter : int
            Iterations of every candidate in each epoch.
        resume_from : mapping, optional
            Where an earlier session's search stood: ``epoch``, ``candidate_first``, ``candidate_index``, ``iter``.

        Raises
        ------
        ArgumentError
            As :meth:`phase`; a count below 1.
        """
        by_epoch = [n_candidates] * n_epochs if isinstance(n_candidates, int) else list(n_candidates)
        least = {"n_epochs": n_epochs, "n_candidates": min(by_epoch, default=1), "max_iter": max_iter}
        for label, count in least.items():
            if count < 1:
                raise ArgumentError(f"{label}: got {count!r}; accepted: at least 1")
        if len(by_epoch) != n_epochs:
            raise ArgumentError(
                f"n_candidates: got {len(by_epoch)} counts; accepted: one for each of {n_epochs} epochs"
            )
        keys = ("epoch", "candidate_first", "candidate_index", "iter")
        start = units_at(by_epoch, max_iter, *(int(resume_from[key]) for key in keys)) if resume_from else 0
        total = sum(by_epoch) * max_iter
        n_steps = n_epochs * max_iter * (1 - start / total)  # all candidates of an epoch advance together
        with self._run("fit", total, start_units=start, n_steps=n_steps) as state:
            yield FitProgress(self, state, by_epoch, max_iter)

    @contextmanager
    def _run(
        self, name: str, total_units: float, *, start_units: float, n_steps: float | None = None
    ) -> Iterator[PhaseState]:
        with self._lock:
            state = self._plan.start(
                name, total_units, self._clock.monotonic(), start_units=start_units, n_steps=n_steps
            )
            step_s = self._plan.step_s(state)
            self._moved(state, "started")
        try:
            with self.heartbeat.around(name, expected_s=step_s):
                yield state
        except BaseException:
            # What went wrong must reach the caller, even when the disk that refused it refuses this event too.
            with suppress(VesuError), self._lock:
                self._moved(state, "failed")
            raise
        with self._lock:
            self._end(state)

    def _end(self, state: PhaseState) -> None:
        if not state.complete:
            self._alert("a phase ended before its announced work", state)
        before = self._recorded
        self._plan.finish(state, self._clock.monotonic())
        self._moved(state, "finished")
        self._record_weights(state, before, state.measured_s)

    def _record_weights(self, state: PhaseState, before: Mapping[str, float], measured_s: float) -> None:
        self._recorded = self._plan.weights()
        self._log.emit(
            "PHASE_WEIGHT_CALIBRATION",
            phase=state.name,
            expected_s=state.expected_s,
            measured_s=measured_s,
            speed_factor=self._plan.speed_factor(),
            weights_before=before,
            weights_after=self._recorded,
            **self.snapshot(),
        )

    # -- reporting -------------------------------------------------------------------------------------------------

    def on_beat(self, listener: Callable[[Mapping[str, Any]], object]) -> None:
        """Have the thread call this with the :meth:`snapshot` at each beat: the time governor, the memory's monitor."""
        self._listeners.append(listener)

    def beat(self) -> None:
        """Log ``GLOBAL_PROGRESS_REALTIME`` and refresh the display; the thread calls this every few seconds."""
        with self._lock:
            self._refresh()
            elapsed_s = self._clock.monotonic() - self._started
            self._log.emit("GLOBAL_PROGRESS_REALTIME", elapsed_s=elapsed_s, **self.snapshot())

    def report(self, state: PhaseState, units: float, *, more: bool = False) -> None:
        """A running phase says how many units are done, or how many more."""
        with self._lock:
            self._step(state, state.done_units + units if more else units, {})

    def report_cursor(self, state: PhaseState, units: float, cursor: Mapping[str, Any]) -> None:
        """The search says where it stands: ``TRAIN_CURSOR``."""
        with self._lock:
            self._step(state, units, cursor)
            self._log.emit("TRAIN_CURSOR", **self.snapshot())

    def explain(self, state: PhaseState, reason: str) -> None:
        """A phase says why it ends before its announced work."""
        with self._lock:
            state.reason = reason

    def resize(self, state: PhaseState, total_units: float) -> None:
        """A running phase has more, or less, to do than announced; what was shown stays."""
        with self._lock:
            self._plan.resize(state, total_units)
            self._refresh()

    def _step(self, state: PhaseState, done_units: float, cursor: Mapping[str, Any]) -> None:
        problem = self._plan.step(state, done_units, self._clock.monotonic())
        if problem:
            self._alert(problem, state)
        self.heartbeat.step(self._plan.step_s(state))
        self._moved(state, cursor=cursor)
        now = self._plan.weights()
        if max(abs(now[name] - before) for name, before in self._recorded.items()) > CALIBRATION_PART:
            self._record_weights(state, self._recorded, state.paced_s)

    def _moved(self, state: PhaseState, change: str | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """After each step: raise what the thread met, move the cursor, refresh, log when due."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._cursor = {"phase": state.name, "done": state.done_units, "total": state.total_units, **(cursor or {})}
        shown = self._refresh()
        if change is not None or shown - self._updated_at >= UPDATE_POINTS:
            self._updated_at = shown
            detail = {"reason": state.reason} if state.reason else {}
            self._log.emit("PROGRESS_UPDATE", phase=state.name, state=change or "running", **detail, **self.snapshot())

    def _refresh(self) -> float:
        """Check that the display holds what was put there, then put the computed number there and check again."""
        self._check(self._display.shown(), self._shown, "the display was changed")
        computed = self.global_progress_reel
        if computed < self._shown:
            self._check(self._shown, computed, "the computed progress went back")
        self._shown = computed
        self._display.show(computed, postfix(self.snapshot()))
        self._check(self._display.shown(), computed, "shown is not computed")
        return computed

    def _check(self, shown: float, computed: float, reason: str) -> None:
        if abs(shown - computed) > TOLERANCE:
            self._log.emit("PROGRESS_INTEGRITY_ALERT", reason=reason, shown=shown, computed=computed)

    def _alert(self, reason: str, state: PhaseState) -> None:
        self._log.emit(
            "PROGRESS_INTEGRITY_ALERT",
            reason=reason,
            phase=state.name,
            done=state.done_units,
            total=state.total_units,
            shown=self._display.shown(),
            computed=self.global_progress_reel,
        )

    # -- the thread ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticker.stop()
        try:
            if error is None:
                self.beat()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._display.close()

    def _tick(self, late_s: float) -> None:
        """One beat of everything that beats; what fails is kept for the run's own thread, and the rest goes on."""
        beats: list[Callable[[], object]] = [self.beat, partial(self.heartbeat.beat, late_s)]
        beats += [partial(self._tell, listener) for listener in self._listeners]
        for beat in beats:
            try:
                beat()
            except Exception as failure:  # noqa: BLE001  # a full disk may get room: the next beat tries again
                self._failure = failure

    def _tell(self, listener: Callable[[Mapping[str, Any]], object]) -> None:
        listener(self.snapshot())
