"""Real progress of a run: P = sum of W_i P_i over its phases, shown and logged as one and the same number.

How it stays true (requirement R34):

- ``weights`` are expected costs in seconds of the phases that this run plans; a phase left out or at 0 is not planned.
  W_i is a phase's share of the whole.
- When a phase ends, its measured seconds take the place of the expected ones, and what is expected of the phases
  still to come is scaled by how much slower or faster this run has been so far (shrunk towards 1 while little was
  measured). The weights follow, and ``PHASE_WEIGHT_CALIBRATION`` records old and new.
- A percentage that was shown never goes back. Where the new weights would take it back, the share already shown is
  kept for the phases done, and what is left of the hundred is divided among the others by their expected cost: from
  there on the number moves more slowly, and it still reaches 100 when all is done, never before.
- The number on display is read back at each refresh and compared with the computed one. A difference, work beyond a
  phase's announced total, and a phase that ends with announced work undone, each give a
  ``PROGRESS_INTEGRITY_ALERT``; the display is put right and the run goes on: a fault of the display is evidence to
  keep, no reason to lose nine hours of work.
- A thread logs ``GLOBAL_PROGRESS_REALTIME`` every few seconds, however long a kernel runs.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, Self

from vesu.errors import ArgumentError, VesuError
from vesu.run.clock import Clock
from vesu.run.display import make_display
from vesu.run.events import EventLog, IterationLike
from vesu.run.weights import PHASES, PhaseState, Plan

__all__ = ["PHASES", "FitProgress", "PhaseProgress", "Progress"]

#: A shown percentage has two decimals; beyond this difference shown and computed are not the same number.
TOLERANCE = 0.005

#: PROGRESS_UPDATE is logged at each phase change and each time the whole run has moved by this many points.
UPDATE_POINTS = 1.0

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
        Seconds between two ``GLOBAL_PROGRESS_REALTIME``, at most 15.
    clock : Clock, optional
        For tests.

    Raises
    ------
    ArgumentError
        An unknown phase, a weight that is negative or not finite, no planned phase, a bad interval or display.

    Notes
    -----
    Requirement R34; see the module's text for the formula and its calibration. Every event carries
    ``global_progress_reel`` and ``train_progress_reel`` (percent), ``cursor`` and ``remaining_estimate_s``.
    A failure of the thread's logging (a full disk) is raised by the next call in the run's own thread.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.run.events import EventLog, IterationLike
    >>> with tempfile.TemporaryDirectory() as folder, EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...     with Progress(log, {"load": 1, "features": 3}, display="none") as progress:
    ...         with progress.phase("load", total_units=4) as load:
    ...             load.advance(2)
    ...             print(progress.global_progress_reel)
    12.5
    """

    def __init__(
        self,
        log: EventLog,
        weights: Mapping[str, float],
        *,
        display: Literal["auto", "tqdm", "none"] = "auto",
        min_interval_s: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        if not 0.0 < min_interval_s <= MAX_INTERVAL_S:
            raise ArgumentError(
                f"min_interval_s: got {min_interval_s!r}; accepted: above 0, at most {MAX_INTERVAL_S:g}"
            )
        self._log = log
        self._clock = clock or Clock()
        self._plan = Plan(weights)
        self._interval_s = min_interval_s
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: VesuError | None = None
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
            return 100.0 * state.fraction if state else 0.0

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the run stands: phase, units done and in all; in ``fit`` also epoch, candidates and iteration."""
        with self._lock:
            return dict(self._cursor)

    @property
    def remaining_estimate_s(self) -> float:
        """Seconds that the work still to do is expected to take."""
        with self._lock:
            return self._plan.remaining_s(self._clock.monotonic())

    @property
    def weights(self) -> dict[str, float]:
        """The W_i as they stand; their sum is 1."""
        with self._lock:
            return self._plan.weights()

    def phase_seconds(self) -> dict[str, float]:
        """Measured seconds of the phases that are done."""
        with self._lock:
            return {name: state.measured_s for name, state in self._plan.states.items() if state.done}

    def snapshot(self) -> dict[str, Any]:
        """The four numbers that are always shown together, by their names."""
        with self._lock:
            return {
                "global_progress_reel": self.global_progress_reel,
                "train_progress_reel": self.train_progress_reel,
                "cursor": self.cursor,
                "remaining_estimate_s": self.remaining_estimate_s,
            }

    # -- phases ----------------------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str, total_units: float) -> Iterator["PhaseProgress"]:
        """Run one phase; what it measures calibrates the weights when it ends.

        Parameters
        ----------
        name : str
            A planned phase that has not run yet.
        total_units : float
            Work in the phase, in units that cost about the same each; 0 when there is nothing to do.

        Raises
        ------
        ArgumentError
            A phase that is not planned or has run before; a bad total.
        """
        with self._run(name, total_units) as state:
            yield PhaseProgress(self, state)

    @contextmanager
    def fit(self, *, n_epochs: int, n_candidates: int | Sequence[int], max_iter: int) -> Iterator["FitProgress"]:
        """Run the phase ``fit``, whose progress follows from (epoch, candidate, iteration).

        Parameters
        ----------
        n_epochs : int
            The most that may come; :meth:`PhaseProgress.finish` explains fewer.
        n_candidates : int or sequence of int
            Candidates of every epoch, or of each where the grid grows.
        max_iter : int
            Iterations of every candidate in each epoch.

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
        with self._run("fit", sum(by_epoch) * max_iter) as state:
            yield FitProgress(self, state, by_epoch, max_iter)

    @contextmanager
    def _run(self, name: str, total_units: float) -> Iterator[PhaseState]:
        with self._lock:
            state = self._plan.start(name, total_units, self._clock.monotonic())
            self._moved(state, "started")
        try:
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
        before = self._plan.weights()
        self._plan.finish(state, self._clock.monotonic())
        self._moved(state, "finished")
        self._log.emit(
            "PHASE_WEIGHT_CALIBRATION",
            phase=state.name,
            expected_s=state.expected_s,
            measured_s=state.measured_s,
            speed_factor=self._plan.speed_factor(),
            weights_before=before,
            weights_after=self._plan.weights(),
            **self.snapshot(),
        )

    # -- reporting -------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Log ``GLOBAL_PROGRESS_REALTIME`` and refresh the display; the thread calls this every few seconds."""
        with self._lock:
            self._refresh()
            elapsed_s = self._clock.monotonic() - self._started
            self._log.emit("GLOBAL_PROGRESS_REALTIME", elapsed_s=elapsed_s, **self.snapshot())

    def _step(self, state: PhaseState, done_units: float, cursor: Mapping[str, Any]) -> None:
        problem = state.set_done(done_units)
        if problem:
            self._alert(problem, state)
        self._moved(state, cursor=cursor)

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
        self._display.show(computed, _postfix(self.snapshot()))
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
        self._thread = threading.Thread(target=self._beat_until_stopped, name="vesu-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if error is None:
                self.beat()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._display.close()

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.beat()
            except VesuError as failure:
                # Kept for the run's own thread; the next beat tries again (a disk may get room).
                self._failure = failure


class PhaseProgress:
    """The running phase, as :meth:`Progress.phase` hands it out."""

    def __init__(self, progress: Progress, state: PhaseState) -> None:
        self._progress = progress
        self._state = state

    @property
    def fraction(self) -> float:
        """Part of the phase that is done, 0 to 1."""
        return self._state.fraction

    def advance(self, units: float = 1.0) -> None:
        """``units`` more are done; beyond the announced total the number stands still and an alert is logged."""
        with self._progress._lock:
            self._progress._step(self._state, self._state.done_units + units, {})

    def set(self, fraction: float) -> None:
        """This part of the phase, 0 to 1, is done; a smaller one than before changes nothing and is an alert.

        Raises
        ------
        ArgumentError
            Not between 0 and 1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ArgumentError(f"fraction: got {fraction!r}; accepted: 0 to 1")
        with self._progress._lock:
            self._progress._step(self._state, fraction * self._state.total_units, {})

    def finish(self, reason: str) -> None:
        """The phase ends before its announced work for a good reason (convergence): no alert at its end."""
        with self._progress._lock:
            self._state.reason = reason


class FitProgress(PhaseProgress):
    """The running phase ``fit``, as :meth:`Progress.fit` hands it out; its units are iterations of one candidate."""

    def __init__(self, progress: Progress, state: PhaseState, n_candidates: Sequence[int], max_iter: int) -> None:
        super().__init__(progress, state)
        self._n_candidates, self._max_iter = n_candidates, max_iter

    def at(self, *, epoch: int, candidate_first: int, candidate_last: int, iteration: int) -> None:
        """Move to (epoch, candidate, iteration) and log ``TRAIN_CURSOR``.

        Parameters
        ----------
        epoch : int
            From 0.
        candidate_first, candidate_last : int
            The block that advances together, from 0, both counted; blocks run one after the other in an epoch.
        iteration : int
            Iterations that the block has done in this epoch, 1 to ``max_iter``.

        Raises
        ------
        ArgumentError
            Outside the announced counts.
        """
        n_epochs, iterations = len(self._n_candidates), self._max_iter
        n = self._n_candidates[epoch] if 0 <= epoch < n_epochs else 0
        if not (0 <= candidate_first <= candidate_last < n and 0 <= iteration <= iterations):
            got = f"epoch {epoch}, candidates {candidate_first} to {candidate_last}, iteration {iteration}"
            limits = f"{n_epochs} epochs, {max(self._n_candidates)} candidates, {iterations} iterations"
            raise ArgumentError(f"cursor: got {got}; accepted: within {limits}")
        cursor = {
            "epoch": epoch,
            "candidate_first": candidate_first,
            "candidate_index": candidate_last,
            "candidate_total": n,
            "iter": iteration,
            "max_iter": iterations,
        }
        before = sum(self._n_candidates[:epoch]) + candidate_first
        done = before * iterations + (candidate_last - candidate_first + 1) * iteration
        with self._progress._lock:
            self._progress._step(self._state, done, cursor)
            self._progress._log.emit("TRAIN_CURSOR", **self._progress.snapshot())

    def on_record(self, record: IterationLike, epoch: int) -> None:
        """:meth:`at`, from what the search reports after an iteration (``record.iteration`` counts from 1)."""
        self.at(
            epoch=epoch,
            candidate_first=int(record.candidate_first),
            candidate_last=int(record.candidate_last),
            iteration=int(record.iteration),
        )


def _postfix(snapshot: Mapping[str, Any]) -> str:
    cursor = snapshot["cursor"]
    if "iter" in cursor:
        where = (
            f"epoch {cursor['epoch']} candidates {cursor['candidate_first']}-{cursor['candidate_index']} "
            f"iter {cursor['iter']}/{cursor['max_iter']}"
        )
    elif cursor:
        where = f"{cursor['phase']} {cursor['done']:g}/{cursor['total']:g}"
    else:
        where = "start"
    return (
        f"global_progress_reel={snapshot['global_progress_reel']:.2f}% "
        f"train_progress_reel={snapshot['train_progress_reel']:.2f}% "
        f"cursor=[{where}] remaining_estimate_s={snapshot['remaining_estimate_s']:.0f}"
    )
