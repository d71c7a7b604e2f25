"""The run's event log: the ledger with a run id and a clock."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import ArrayLike

from vesu.errors import ArgumentError
from vesu.ledger import LedgerWriter
from vesu.run.clock import Clock
from vesu.run.stopwatch import StopWatch

__all__ = ["EventLog", "IterationLike"]


class IterationLike(Protocol):
    """What the search reports after an iteration: one entry per candidate from ``candidate_first`` on."""

    @property
    def iteration(self) -> int: ...
    @property
    def max_iter(self) -> int: ...
    @property
    def loss(self) -> ArrayLike: ...
    @property
    def gradient_norm(self) -> ArrayLike: ...
    @property
    def nonzero(self) -> ArrayLike: ...
    @property
    def candidate_first(self) -> int: ...
    @property
    def candidate_last(self) -> int: ...


class EventLog:
    """A run's events, each with ``run_id``, appended to a ledger; safe to use from several threads.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file, opened as by :class:`vesu.ledger.LedgerWriter`: an existing one goes on.
    run_id : str
        Stands in every record, so that a log that several runs share tells them apart.
    clock : Clock, optional
        Where ``ts_ns`` comes from. Should it step back, the last record's time is repeated.
    watch : StopWatch, optional
        Counts the time that logging takes.
    durable : (int, str), optional
        See :class:`vesu.ledger.LedgerWriter`.

    Raises
    ------
    ArgumentError, EvidenceError, FileError
        See :class:`vesu.ledger.LedgerWriter`.

    Notes
    -----
    Requirements R34, R38, R51: nothing is sampled or thinned. :meth:`emit` hands its event to the system at once, so
    that ``tail -f`` shows it and a killed process loses none. Iteration records and tables, the bulk, ride along with
    the next event or heartbeat, or with a buffer that is full or a second old.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.ledger import iter_events
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START", seed=7)
    ...     [(e["event"], e["run_id"], e["seed"]) for e in iter_events(log.path)]
    [('RUN_START', 'demo', 7)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run_id: str,
        clock: Clock | None = None,
        watch: StopWatch | None = None,
        durable: tuple[int, str] | None = None,
    ) -> None:
        if not isinstance(run_id, str) or not run_id:
            raise ArgumentError(f"run_id: got {run_id!r}; accepted: a str that is not empty")
        self.run_id = run_id
        self._clock = clock or Clock()
        self.watch = watch or StopWatch()
        """What of the run's time goes into logging, and into files (R41)."""
        self._ledger = LedgerWriter(path, durable=durable)

    def emit(self, name: str, /, **fields: Any) -> int:
        """Append one event; returns its number in the log.

        Parameters
        ----------
        name : str
            The event's name, in capitals by custom.
        **fields
            See :meth:`vesu.ledger.LedgerWriter.append`; ``run_id`` is added.

        Raises
        ------
        ArgumentError
            A value that JSON cannot hold; the message names its key path.
        FileError
            The disk refused. When it did so before the event was accepted, nothing was; else a later flush writes it.
        """
        with self.watch.measure("logging"):
            sequence = self._ledger.append(name, {"run_id": self.run_id, **fields}, ts_ns=self._clock.ts_ns())
            self._ledger.flush()
            return sequence

    def emit_iterations(self, record: IterationLike, epoch: int) -> int:
        """Append one ``TRAIN_ITERATION`` per candidate of the record; returns the first one's number.

        Fields: ``epoch``, ``candidate``, ``iter``, ``max_iter``, ``loss``, ``grad_norm``, ``nonzero``.

        Raises
        ------
        ArgumentError, FileError
            See :meth:`vesu.ledger.LedgerWriter.append_iterations`.
        """
        with self.watch.measure("logging"):
            return self._ledger.append_iterations(
                "TRAIN_ITERATION",
                iteration=int(record.iteration),
                max_iter=int(record.max_iter),
                candidate_first=int(record.candidate_first),
                loss=record.loss,
                gradient_norm=record.gradient_norm,
                nonzero=record.nonzero,
                common={"run_id": self.run_id, "epoch": epoch},
                ts_ns=self._clock.ts_ns(),
            )

    def emit_table(self, name: str, columns: Mapping[str, ArrayLike], /, **common: Any) -> int:
        """Append one event per row of a table of numbers; returns the first one's number.

        Parameters
        ----------
        name : str
            The events' name.
        columns : mapping of str to array_like of numbers, shape (n_rows,)
            A field each.
        **common
            Fields of every event; ``run_id`` is added.

        Raises
        ------
        ArgumentError, FileError
            See :meth:`vesu.ledger.LedgerWriter.append_table`.
        """
        with self.watch.measure("logging"):
            fields = {"run_id": self.run_id, **common}
            return self._ledger.append_table(name, columns, common=fields, ts_ns=self._clock.ts_ns())

    def flush(self) -> None:
        """Hand every accepted event to the system. Raises FileError, and may then be called again."""
        self._ledger.flush()

    def sync(self) -> None:
        """Make every accepted event durable (fsync). Raises FileError."""
        with self.watch.measure("logging"):
            self._ledger.sync()

    def close(self) -> None:
        """Sync and close; :attr:`size` and :attr:`root` stay readable. Raises FileError."""
        self._ledger.close()

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._ledger.path

    @property
    def size(self) -> int:
        """Number of records in the log."""
        return self._ledger.size

    @property
    def root(self) -> str:
        """Merkle tree head, hexadecimal."""
        return self._ledger.root

    def tree_head(self) -> str:
        """The tree head as a C2SP checkpoint text, for manifests and standard output."""
        return self._ledger.checkpoint()

    def root_at(self, size: int) -> str:
        """The Merkle tree head when the log had ``size`` records. Raises ArgumentError beyond its size."""
        return self._ledger.root_at(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
