"""Reading a log: its records, its verification, its tree heads."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu import _core
from vesu.errors import ArgumentError, EvidenceError, FileError
from vesu.ledger.heads import DEFAULT_ORIGIN, TreeHead, check_origin
from vesu.notebook import facts, instant

__all__ = [
    "LedgerReport",
    "canonical_json",
    "checkpoint",
    "describe",
    "iter_events",
    "root_at",
    "tree_head",
    "verify",
]


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

    def _repr_html_(self) -> str:
        torn = f"{self.torn_bytes:,} bytes of a torn last record; everything before it holds" if self.torn_bytes else ""
        entries = {
            "records": self.entries,
            "Merkle root": self.root,
            "hash of the last": self.head,
            "from": instant(self.first_ts_ns),
            "to": instant(self.last_ts_ns),
        }
        return facts("Log that holds together", entries, notes=[torn])


def verify(path: str | os.PathLike[str]) -> LedgerReport:
    """Check every record of a log: canonical text, number, time, hash, link to the record before.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file. It is only read; time is linear in its length, memory that of a MiB of
        records, or of one that is longer. Records are checked on all threads.

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
    >>> from vesu.ledger import LedgerWriter
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
    return LedgerReport(**_core.ledger_verify(str(as_path(path))))


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
    file_path = as_path(path)
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


def root_at(path: str | os.PathLike[str], size: int) -> str:
    """Merkle tree head over the first `size` records of a log, hexadecimal.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file. Its first `size` records are verified; what stands behind them is not read.
    size : int
        Number of records; 0 for the empty tree.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    ArgumentError
        The log has fewer records.
    EvidenceError
        Damage among those records; the message names the first that does not hold.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R38. Memory is that of a MiB of records, or of one that is longer.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.ledger import LedgerWriter
    >>> with tempfile.TemporaryDirectory() as folder, LedgerWriter(Path(folder, "log")) as ledger:
    ...     _ = ledger.append("RUN_START")
    ...     before = ledger.root
    ...     _ = ledger.append("RUN_END")
    ...     ledger.root_at(1) == before != ledger.root
    True
    """
    return _core.ledger_tree_head_at(str(as_path(path)), size)[1]


def checkpoint(path: str | os.PathLike[str], size: int | None = None, *, origin: str = DEFAULT_ORIGIN) -> str:
    """The tree head over a log's first `size` records, or all, as C2SP tlog-checkpoint text.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file.
    size : int, optional
        Number of records; all by default. Those are verified; a torn last record does not count.
    origin : str
        Which log this is: one line, not empty.

    Returns
    -------
    str
        Three lines: origin, number of records, root in base64.

    Raises
    ------
    ArgumentError
        The log has fewer records, or the origin cannot be one line.
    EvidenceError
        Damage among those records.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R38. ``vesu ledger head`` prints this text.
    """
    check_origin(origin)
    return TreeHead(origin, *_core.ledger_tree_head_at(str(as_path(path)), size)).checkpoint()


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path of an argument."""
    try:
        return Path(path)
    except TypeError as error:
        raise ArgumentError(f"path: got {type(path).__name__}; accepted: a str or os.PathLike") from error


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"record {number}: not JSON ({path}): {error}") from error
    if not isinstance(event, dict):
        raise EvidenceError(f"record {number}: not a JSON object ({path})")
    return event
