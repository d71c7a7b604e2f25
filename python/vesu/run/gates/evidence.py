"""What the gates read: the verified log of a run folder, up to its tree head (R38, R44)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.data.jsonfiles import read_object_if_any
from vesu.errors import DataError, EvidenceError, FormatError
from vesu.ledger import root_at, verify
from vesu.run import compatibility
from vesu.run.history import Event, events_named

__all__ = ["ALL", "Evidence", "read_evidence", "require_heads"]

LOG = "events.jsonl"

STARTS = ("RUN_START", "RUN_RESUMED")

ELSEWHERE, CARRIED = "LEDGER_CONTINUED_ELSEWHERE", "EVIDENCE_CARRIED"

RETRAINED = "RESUME_PARTIAL_RETRAIN"

ALL = -1
"""As a beginning: every record counts."""


@dataclass(frozen=True)
class Evidence:
    """The records that the gates look at, in the log's order.

    Attributes
    ----------
    folder : Path
        The run's.
    entries, root : int, str
        The log's tree head: what was verified, and all that is read.
    events : tuple of dict
        Those of the names that were asked for.
    """

    folder: Path
    entries: int
    root: str
    events: tuple[Event, ...]

    @property
    def run_id(self) -> str | None:
        """Of the last session."""
        return self._start.get("run_id")

    @property
    def config(self) -> Mapping[str, Any]:
        """What the last session was asked for, as its first event has it."""
        config = self._start.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def session_began(self) -> int:
        """Number of the last session's first record."""
        return int(self._start.get("seq", ALL))

    @property
    def pipeline(self) -> str:
        """``vesu``, ``nx46`` or ``nx47``."""
        return str(self.config.get("pipeline", "vesu"))

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration; empty where the run knew none of that name."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}

    def named(self, *names: str, since: int = ALL) -> list[Event]:
        """The events of these names behind record ``since``."""
        return [event for event in self.events if event["event"] in names and event["seq"] > since]

    def newest(self, *names: str, since: int = ALL) -> Event | None:
        """The last of them."""
        found = self.named(*names, since=since)
        return found[-1] if found else None

    def carried(self, *names: str) -> list[Event]:
        """What a log that goes on from another one's checkpoint took over: it stands at its beginning, or nowhere."""
        if not self.named(ELSEWHERE) or self.named(ELSEWHERE)[0]["seq"] != 0:
            return []
        told = self.named(CARRIED)
        first = [event["record"] for place, event in enumerate(told, start=1) if event["seq"] == place]
        return [record for record in first if isinstance(record, dict) and record.get("event") in names]

    def retrained(self, *, student: bool = False) -> int:
        """The record from which on the masks' work, or the student's, was done anew; :data:`ALL` where never."""
        dropped = [
            event["seq"]
            for event in self.named(RETRAINED)
            if not (student and compatibility.student_stands(event.get("fields") or ()))
        ]
        return dropped[-1] if dropped else ALL

    @property
    def _start(self) -> Event:
        return self.newest(*STARTS) or {}


def read_evidence(folder: Path, names: Iterable[str]) -> Evidence:
    """Verify a run's log, then read the events of these names and those that tell sessions apart.

    Raises
    ------
    DataError
        No folder, or none with a log.
    EvidenceError
        A record of the log does not hold.
    FileError
        The log cannot be read.
    """
    log = folder / LOG
    if not log.is_file():
        raise DataError(f"run: got {folder}, without {LOG}; accepted: the folder of a run")
    checked = verify(log)
    wanted = frozenset((*STARTS, ELSEWHERE, CARRIED, RETRAINED, *names))
    events = tuple(event for event in events_named(log, wanted) if event["seq"] < checked.entries)
    return Evidence(folder, checked.entries, checked.root, events)


def require_heads(evidence: Evidence) -> None:
    """The log goes on from every tree head that the folder's own files kept of it.

    Raises
    ------
    EvidenceError
        It was cut, or written anew.
    """
    log = evidence.folder / LOG
    for name, entries, root in _kept_heads(evidence.folder):
        if entries > evidence.entries:
            raise EvidenceError(f"{name} knows {entries} records, the log has {evidence.entries}: its end is missing")
        if root_at(log, entries) != root:
            raise EvidenceError(f"{name} knows another log: the first {entries} records have another root")


def _kept_heads(folder: Path) -> Iterator[tuple[str, int, str]]:
    for name in ("summary.json", "go_no_go.json"):
        try:
            head = (read_object_if_any(folder / name) or {}).get("ledger")
        except FormatError:
            continue  # a damaged file says nothing about the log
        if isinstance(head, dict) and isinstance(head.get("entries"), int) and head["entries"] > 0:
            yield name, head["entries"], str(head.get("root"))
