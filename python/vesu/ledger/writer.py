"""Writing a log."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.ledger.heads import DEFAULT_ORIGIN, TreeHead, check_origin
from vesu.ledger.reader import as_path, root_at

__all__ = ["LedgerWriter"]


class LedgerWriter:
    """Append records to a log; safe to use from several threads.

    An existing log is verified first and its chain goes on. A torn last record (a crash while it was written) is cut
    off, and a ``LEDGER_TAIL_TRUNCATED`` record with its length and SHA-256 says so.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file; made if missing. One writer at a time may have it open.
    durable : (int, str), optional
        A size and tree head that a :meth:`sync` covered, as a checkpoint holds them. A log that does not begin with
        that tree is refused; damage behind it is cut off like a torn record: a power cut may lose pages that no sync
        had covered, and keep later ones.

    Raises
    ------
    EvidenceError
        The existing log is damaged before its last record, or before the end of ``durable``; the message names the
        record.
    FileError
        The file cannot be opened, is no regular file, or another writer has it open.

    Notes
    -----
    Requirements R38 and R51. :meth:`append` accepts a record into a buffer of some 256 KiB, which is handed to the
    system when it is full or, at the next append, a second old. :meth:`flush` hands it over now: the records then
    survive the death of this process. :meth:`sync` makes them durable: they then survive the death of the machine. One
    fsync serves all records before it, and all threads that wait for it (group commit).

    An append that raises (a full disk) accepted nothing, and what was accepted before stays in the buffer, to be
    written by a later flush once there is room. After a failed fsync the writer refuses further work: open the log
    again. A child made by ``fork`` cannot write to its parent's log.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "events.jsonl")
    >>> with LedgerWriter(path) as ledger:
    ...     ledger.append("RUN_START", {"seed": 7})
    ...     ledger.append("LOSS", {"loss": float("nan")})
    0
    1
    >>> from vesu.ledger import iter_events, verify
    >>> verify(path).entries
    2
    >>> [(event["event"], event.get("nonfinite")) for event in iter_events(path)]
    [('RUN_START', None), ('LOSS', ['loss'])]
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str], *, durable: tuple[int, str] | None = None) -> None:
        self._path = as_path(path)
        self._log = _core.ledger_open(str(self._path), durable)

    def append(self, name: str, fields: Mapping[str, Any] | None = None, *, ts_ns: int | None = None) -> int:
        """Append one record.

        Parameters
        ----------
        name : str
            The event's name, not empty.
        fields : mapping of str, optional
            The record's own members: str, int, float, bool, None, list, tuple, dict with str keys, numpy scalars; at
            most 32 levels deep and 4 MiB as JSON.
        ts_ns : int, optional
            Nanoseconds since 1970; the system's time by default. One before the last record's is raised to that.

        Returns
        -------
        int
            The record's number, from 0.

        Raises
        ------
        ArgumentError
            A value that JSON cannot hold (the message names its key path), a reserved field name, too deep, too large.
        FileError
            The buffer was full and could not be written; the record was not accepted.
        """
        return self._log.append(name, fields if isinstance(fields, dict) else dict(fields or {}), ts_ns)

    def append_many(self, events: Iterable[tuple[str, Mapping[str, Any]]], *, ts_ns: int | None = None) -> int:
        """Append records in order with one time, all or none; returns the first one's number.

        Raises as :meth:`append` does.
        """
        return self._log.append_many([(name, dict(fields)) for name, fields in events], ts_ns)

    def append_iterations(
        self,
        name: str,
        *,
        iteration: int,
        max_iter: int,
        candidate_first: int,
        loss: ArrayLike,
        gradient_norm: ArrayLike,
        nonzero: ArrayLike,
        common: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
    ) -> int:
        """Append one record per candidate of an iteration, all or none; returns the first one's number.

        Each record has the fields ``candidate``, ``iter``, ``max_iter``, ``loss``, ``grad_norm``, ``nonzero``.

        Parameters
        ----------
        name : str
            The event's name.
        iteration, max_iter : int
            The iteration and how many there will be.
        candidate_first : int
            The candidate of the arrays' first entry.
        loss, gradient_norm : array_like of float64, shape (n_candidates,)
            Values of each candidate.
        nonzero : array_like of int64, shape (n_candidates,)
            Non-zero weights of each candidate.
        common : mapping, optional
            Fields that every record gets besides.
        ts_ns : int, optional
            As in :meth:`append`.

        Raises
        ------
        ArgumentError
            Arrays of unequal length or of a wrong type; else as :meth:`append`.
        """
        return self._log.append_iterations(
            name,
            iteration,
            max_iter,
            candidate_first,
            np.asarray(loss, dtype=np.float64),
            np.asarray(gradient_norm, dtype=np.float64),
            np.asarray(nonzero, dtype=np.int64),
            dict(common or {}),
            ts_ns,
        )

    def append_table(
        self,
        name: str,
        columns: Mapping[str, ArrayLike],
        *,
        common: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
    ) -> int:
        """Append one record per row of a table of numbers, all or none; returns the first one's number.

        Parameters
        ----------
        name : str
            The event's name.
        columns : mapping of str to array_like of numbers, shape (n_rows,)
            Values of each field, whole numbers as int64, others as float64.
        common : mapping, optional
            Fields that every record gets besides.
        ts_ns : int, optional
            As in :meth:`append`.

        Raises
        ------
        ArgumentError
            Columns of unequal length, without a row, or of a wrong type; else as :meth:`append`.
        """
        numbers = {key: _numbers(key, values) for key, values in columns.items()}
        return self._log.append_table(name, numbers, dict(common or {}), ts_ns)

    def flush(self) -> None:
        """Hand every accepted record to the system; raises FileError, and may then be called again."""
        self._log.flush()

    def sync(self) -> None:
        """Flush and fsync: on return every accepted record is durable. Raises FileError.

        Where nothing came since the last fsync there is nothing to do: threads that waited for one are served by it.
        """
        self._log.sync()

    def checkpoint(self, origin: str = DEFAULT_ORIGIN) -> str:
        """The tree head over all records as C2SP tlog-checkpoint text, after a :meth:`sync`.

        What the text covers is durable: no crash can make the log shorter than a tree head that was handed out.

        Parameters
        ----------
        origin : str
            Which log this is: one line, not empty.

        Returns
        -------
        str
            Three lines: origin, number of records, root in base64. There is no signature line.

        Raises
        ------
        ArgumentError
            The origin is empty, of several lines or has control characters.
        FileError
            The sync failed.

        Notes
        -----
        Requirements R36 and R38: a checkpoint manifest and the standard output carry this text. The name is the
        format's; it has nothing to do with a run's checkpoint folders.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder, LedgerWriter(Path(folder, "log")) as ledger:
        ...     print(ledger.checkpoint(), end="")
        vesu/run
        0
        47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
        """
        check_origin(origin)
        return TreeHead(origin, *self._log.durable_tree_head()).checkpoint()

    def root_at(self, size: int) -> str:
        """Merkle tree head over the first `size` records, hexadecimal: see :func:`vesu.ledger.root_at`.

        So a run that goes on can show that its log still begins with what a checkpoint's manifest says. The records
        are flushed and the file is read up to there.
        """
        if not self.closed:
            self.flush()
        return root_at(self._path, size)

    def close(self) -> None:
        """Sync and close; twice is once. Raises FileError, and the log then stays open with nothing lost."""
        self._log.close()

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._path

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has succeeded."""
        return self._log.closed

    @property
    def size(self) -> int:
        """Number of records, those still in the buffer included."""
        return self._log.size

    @property
    def root(self) -> str:
        """Merkle tree head over all records, hexadecimal."""
        return self._log.root

    @property
    def head(self) -> str:
        """Hash of the last record, hexadecimal; 64 zeros before the first."""
        return self._log.head

    @property
    def torn_bytes(self) -> int:
        """Bytes of a torn last record that opening cut off."""
        return self._log.torn_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """A column as the log holds numbers."""
    array = np.asarray(values)
    wide = {"i": np.int64, "u": np.int64, "f": np.float64}.get(array.dtype.kind)
    if wide is None or array.ndim != 1 or array.size == 0:
        got = f"{array.dtype} of shape {array.shape} for {name!r}"
        raise ArgumentError(f"columns: got {got}; accepted: one whole number or float a row, a row at least")
    return array.astype(wide)
