"""How much of the run's own thread goes into logging and into files; what is left of a phase is computation."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from vesu.data.cache import ArrayCache, PutStatus
from vesu.run.clock import Clock

__all__ = ["Kind", "StopWatch", "TimedCache"]

Kind: TypeAlias = Literal["logging", "io"]


class StopWatch:
    """Seconds spent on logging and on I/O by the thread that made the watch.

    Parameters
    ----------
    clock : Clock, optional
        For tests.

    Notes
    -----
    Requirement R41. Times are exclusive: an event that is logged while a file is read counts as logging only, so the
    kinds never add up to more than what went by. Other threads (heartbeat, progress) run beside the computation and
    are not counted: what they do costs the run no time of its own.

    Examples
    --------
    >>> from vesu.run.stopwatch import StopWatch
    >>> watch = StopWatch()
    >>> with watch.measure("io"):
    ...     pass
    >>> sorted(watch.lap())
    ['io_s', 'logging_s']
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._thread = threading.get_ident()
        self._seconds: dict[Kind, float] = {"logging": 0.0, "io": 0.0}
        self._lapped = dict(self._seconds)
        self._inside_s = 0.0

    @contextmanager
    def measure(self, kind: Kind) -> Iterator[None]:
        """Count the body's time under `kind`, less what a measure inside it counts."""
        if threading.get_ident() != self._thread:
            yield
            return
        start, outer_inside_s, self._inside_s = self._clock.monotonic(), self._inside_s, 0.0
        try:
            yield
        finally:
            spent_s = self._clock.monotonic() - start
            self._seconds[kind] += spent_s - self._inside_s
            self._inside_s = outer_inside_s + spent_s

    def seconds(self) -> dict[str, float]:
        """``logging_s`` and ``io_s`` since the watch was made."""
        return {f"{kind}_s": spent_s for kind, spent_s in self._seconds.items()}

    def lap(self) -> dict[str, float]:
        """``logging_s`` and ``io_s`` since the last lap: the fields of a ``PHASE_END``."""
        lap = {f"{kind}_s": spent_s - self._lapped[kind] for kind, spent_s in self._seconds.items()}
        self._lapped = dict(self._seconds)
        return lap


class TimedCache(ArrayCache):
    """A cache whose reading and writing counts as I/O; what it is asked to compute does not."""

    def __init__(self, *arguments: Any, watch: StopWatch, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._watch = watch

    def get(self, key: str, *, mmap: bool = False) -> dict[str, NDArray[Any]] | None:
        """:meth:`ArrayCache.get`, measured."""
        with self._watch.measure("io"):
            return super().get(key, mmap=mmap)

    def _store(self, key: str, arrays: Mapping[str, NDArray[Any]], *, dear: bool) -> PutStatus:
        with self._watch.measure("io"):
            return super()._store(key, arrays, dear=dear)
