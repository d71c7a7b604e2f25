"""The event ledger: an append-only log whose every record can be checked.

A log is a text file of JSON lines. Each line is the canonical JSON (RFC 8785) of one record:

``event``, ``seq`` (from 0), ``ts_ns`` (nanoseconds since 1970, a decimal string), the caller's fields,
``prev`` and ``hash``, and ``nonfinite`` where it applies. With *body* the canonical JSON of the record without its
``hash`` member:

- ``hash`` is SHA-256(body) in hexadecimal; the next record's ``prev`` repeats it; the first ``prev`` is 64 zeros;
- the record's leaf in the Merkle tree of RFC 9162 is SHA-256(0x00 || body); ``root`` is that tree's head.

Values: an integer beyond 2^53 is written as a decimal string; a number that is not finite is written as ``null`` and
its field is named in ``nonfinite`` (dotted for a nested field; an array counts as one field).

A chain shows that nothing before its end was changed. That nothing was cut off the end is shown by comparing
:attr:`LedgerReport.entries` and :attr:`LedgerReport.root` with values kept elsewhere (a run's ``summary.json``).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from vesu import _core
from vesu.errors import ArgumentError, EvidenceError, FileError

__all__ = ["LedgerReport", "LedgerWriter", "canonical_json", "describe", "iter_events", "tree_head", "verify"]


class LedgerWriter:
    """Append records to a log; safe to use from several threads.

    An existing log is verified first and its chain goes on. A torn last record (a crash while it was written) is cut
    off, and a ``LEDGER_TAIL_TRUNCATED`` record with its length and SHA-256 says so.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file; made if missing. One writer at a time may have it open.

    Raises
    ------
    EvidenceError
        The existing log is damaged before its last record; the message names the record.
    FileError
        The file cannot be opened, is no regular file, or another writer has it open.

    Notes
    -----
    Requirements R38 (first form) and R51. :meth:`append` accepts a record into a buffer of some 256 KiB, which is
    handed to the system when it is full or, at the next append, a second old. :meth:`flush` hands it over now: the
    records then survive the death of this process. :meth:`sync` makes them durable: they then survive the death of the
    machine. An append that raises (a full disk) accepted nothing, and what was accepted before stays in the buffer, to
    be written by a later flush once there is room. After a failed fsync the writer refuses further work: open the log
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
    >>> verify(path).entries
    2
    >>> [(event["event"], event.get("nonfinite")) for event in iter_events(path)]
    [('RUN_START', None), ('LOSS', ['loss'])]
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _as_path(path)
        self._log = _core.ledger_open(str(self._path))

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

    def flush(self) -> None:
        """Hand every accepted record to the system; raises FileError, and may then be called again."""
        self._log.flush()

    def sync(self) -> None:
        """Flush and fsync: on return every accepted record is durable. Raises FileError."""
        self._log.sync()

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


@dataclass(frozen=True)
class LedgerReport:
    """What a log that holds together amounts to; see :func:`verify`.

    Attributes
    ----------
    entries : int
        Number of records.
    root : str
        Merkle tree head (RFC 9162, SHA-256), hexadecimal.
    head : str
        Hash of the last record, hexadecimal.
    first_ts_ns, last_ts_ns : int or None
        Times of the first and last record, nanoseconds since 1970; None for an empty log.
    torn_bytes : int
        Bytes behind the last line feed: what a crash left of a record that was being written.
    """

    entries: int
    root: str
    head: str
    first_ts_ns: int | None
    last_ts_ns: int | None
    torn_bytes: int


def verify(path: str | os.PathLike[str]) -> LedgerReport:
    """Check every record of a log: canonical text, number, time, hash, link to the record before.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file. It is only read; time is linear in its length, memory that of one record.

    Returns
    -------
    LedgerReport
        A torn last record is reported there; its bytes count for nothing else.

    Raises
    ------
    EvidenceError
        Damage; the message names the first record that does not hold, counted from 0.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R38. Ctrl-C is answered.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "events.jsonl")
    ...     with LedgerWriter(path) as ledger:
    ...         _ = ledger.append("RUN_START")
    ...     _ = path.write_text(path.read_text().replace("START", "STOP"))
    ...     verify(path)
    Traceback (most recent call last):
    ...
    vesu.errors.EvidenceError: record 0: its content does not match its hash (...)
    """
    return LedgerReport(**_core.ledger_verify(str(_as_path(path))))


def describe(report: LedgerReport) -> str:
    """The report as the lines that ``vesu ledger verify`` prints.

    Examples
    --------
    >>> print(describe(LedgerReport(0, "e3b0", "0000", None, None, 12)))
    entries     0
    root        e3b0
    head        0000
    first_ts_ns -
    last_ts_ns  -
    torn_bytes  12 (a crash left part of a record; everything before it holds)
    """
    rows = [
        ("entries", str(report.entries)),
        ("root", report.root),
        ("head", report.head),
        ("first_ts_ns", "-" if report.first_ts_ns is None else str(report.first_ts_ns)),
        ("last_ts_ns", "-" if report.last_ts_ns is None else str(report.last_ts_ns)),
        (
            "torn_bytes",
            f"{report.torn_bytes} (a crash left part of a record; everything before it holds)"
            if report.torn_bytes
            else "0",
        ),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in rows)


def iter_events(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read a log's records one by one, without verifying them.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file; it may still be growing. A torn last record is left out.

    Yields
    ------
    dict
        One record with all its members, those of the ledger included.

    Raises
    ------
    EvidenceError
        A line that is no JSON object; the message names the record, counted from 0.
    FileError
        The file cannot be read.
    """
    file_path = _as_path(path)
    try:
        with file_path.open("rb") as lines:
            for number, line in enumerate(lines):
                if line.endswith(b"\n"):
                    yield _parse(line, number, file_path)
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(file_path)) from error


def canonical_json(value: Any) -> bytes:
    """The canonical JSON (RFC 8785) of a value: one byte string for one value, whatever its dicts' order.

    Parameters
    ----------
    value : str, int, float, bool, None, list, tuple, dict with str keys, numpy scalar
        At most 32 levels deep and 4 MiB. Integers beyond 2^53 become decimal strings.

    Returns
    -------
    bytes
        UTF-8 text.

    Raises
    ------
    ArgumentError
        Any other type (the message names its key path) or a number that is not finite.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [1e21, None]})
    b'{"a":[1e+21,null],"b":1}'
    """
    return _core.ledger_canonical(value)


def tree_head(entries: Iterable[bytes]) -> str:
    """Merkle tree head (RFC 9162 section 2.1, SHA-256) of byte strings, hexadecimal.

    Examples
    --------
    >>> tree_head([])  # SHA-256 of nothing
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return _core.ledger_tree_head(list(entries))


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"record {number}: not JSON ({path}): {error}") from error
    if not isinstance(event, dict):
        raise EvidenceError(f"record {number}: not a JSON object ({path})")
    return event


def _as_path(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path)
    except TypeError as error:
        raise ArgumentError(f"path: got {type(path).__name__}; accepted: a str or os.PathLike") from error
