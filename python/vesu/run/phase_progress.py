"""The running phase: how a stage says what it has done."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vesu.errors import ArgumentError
from vesu.run.events import IterationLike
from vesu.run.weights import PhaseState

__all__ = ["FitProgress", "PhaseProgress", "postfix", "units_at"]


class _Run(Protocol):
    """As much of a :class:`vesu.run.progress.Progress` as a running phase needs."""

    def report(self, state: PhaseState, units: float, *, more: bool = False) -> None: ...

    def report_cursor(self, state: PhaseState, units: float, cursor: Mapping[str, Any]) -> None: ...

    def explain(self, state: PhaseState, reason: str) -> None: ...

    def resize(self, state: PhaseState, total_units: float) -> None: ...


class PhaseProgress:
    """The running phase, as :meth:`Progress.phase` hands it out."""

    def __init__(self, progress: _Run, state: PhaseState) -> None:
        self._progress = progress
        self._state = state

    @property
    def fraction(self) -> float:
        """Part of the phase that is done, 0 to 1."""
        return self._state.fraction

    def advance(self, units: float = 1.0) -> None:
        """``units`` more are done; beyond the announced total the number stands still and an alert is logged."""
        self._progress.report(self._state, units, more=True)

    def set(self, fraction: float) -> None:
        """This part of the phase, 0 to 1, is done; a smaller one than before changes nothing and is an alert.

        Raises
        ------
        ArgumentError
            Not between 0 and 1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ArgumentError(f"fraction: got {fraction!r}; accepted: 0 to 1")
        self._progress.report(self._state, fraction * self._state.total_units)

    def finish(self, reason: str) -> None:
        """The phase ends before its announced work for a good reason (convergence): no alert at its end."""
        self._progress.explain(self._state, reason)


class FitProgress(PhaseProgress):
    """The running phase ``fit``, as :meth:`Progress.fit` hands it out; its units are iterations of one candidate."""

    def __init__(self, progress: _Run, state: PhaseState, n_candidates: Sequence[int], max_iter: int) -> None:
        super().__init__(progress, state)
        self._n_candidates, self._max_iter = n_candidates, max_iter

    def announce(self, n_candidates: Sequence[int]) -> None:
        """The candidates of each epoch are others than announced, for the grid has grown: the work still to do grows.

        Raises
        ------
        ArgumentError
            Another number of epochs.
        """
        if len(n_candidates) != len(self._n_candidates):
            got, accepted = f"{len(n_candidates)} counts", f"one for each of {len(self._n_candidates)} epochs"
            raise ArgumentError(f"n_candidates: got {got}; accepted: {accepted}")
        self._n_candidates = tuple(n_candidates)
        self._progress.resize(self._state, sum(n_candidates) * self._max_iter)

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
        done = units_at(self._n_candidates, iterations, epoch, candidate_first, candidate_last, iteration)
        self._progress.report_cursor(self._state, done, cursor)

    def on_record(self, record: IterationLike, epoch: int) -> None:
        """:meth:`at`, from what the search reports after an iteration (``record.iteration`` counts from 1)."""
        self.at(
            epoch=epoch,
            candidate_first=int(record.candidate_first),
            candidate_last=int(record.candidate_last),
            iteration=int(record.iteration),
        )


def units_at(
    n_candidates: Sequence[int], max_iter: int, epoch: int, candidate_first: int, candidate_last: int, iteration: int
) -> int:
    """Iterations of single candidates that are done where this cursor stands."""
    before = sum(n_candidates[:epoch]) + candidate_first
    return before * max_iter + (candidate_last - candidate_first + 1) * iteration


def postfix(snapshot: Mapping[str, Any]) -> str:
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
        f"cursor=[{where}] remaining_estimate_s={snapshot['remaining_estimate_s']:.0f} "
        f"({snapshot['remaining_low_s']:.0f} to {snapshot['remaining_high_s']:.0f})"
    )
