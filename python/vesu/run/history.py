"""What a run's event log says about it, read once: sessions, phases, the search's iterations, the last known place.

A run has one log over all its sessions (processes). Nothing here verifies the chain (:func:`vesu.ledger.verify`
does); a log is read as far as it can be read, since a run that was killed or damaged is the one to learn about.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vesu.errors import FileError

__all__ = ["Event", "History", "Iterations", "PhaseSpan", "Session", "events_named", "read_history"]

Event: TypeAlias = Mapping[str, Any]

SESSION_STARTS = ("RUN_START", "RUN_RESUMED")
SESSION_ENDS = {"RUN_END": "finished", "RUN_STOPPED": "stopped", "RUN_FAILED": "failed"}
"""The last events with the status that they give (``RUN_END`` may name another); without one a session was killed."""

BETWEEN_SESSIONS = {"LEDGER_TAIL_TRUNCATED", "LATEST_VALID_CKPT", "CHECKPOINT_REFUSED", "CHECKPOINT_SOURCE"}
"""Logged while a session looks for what to go on from, before its first event: not in the time of the last one."""

# Members stand in the order of their names (RFC 8785), so the bulk of a log needs no JSON parser.
_ITERATION = re.compile(
    rb'\{"candidate":(\d+),"epoch":(\d+),"event":"TRAIN_ITERATION","grad_norm":[^,]*,"hash":"\w{64}","iter":(\d+),'
)


@dataclass(frozen=True)
class PhaseSpan:
    """One phase in one session."""

    name: str
    session: int
    started_ns: int
    seconds: float
    """Measured by the run where the phase ended, else from its start to the session's last record."""
    complete: bool
    logging_s: float | None
    io_s: float | None
    """Of these seconds; None where the run did not measure them."""


@dataclass(frozen=True)
class Session:
    """One process's part of the run."""

    number: int
    start: Event
    first_ns: int
    last_ns: int
    ends: tuple[Event, ...]
    """Of ``RUN_STOPPED``, ``RUN_FAILED``, ``RUN_END`` what came; nothing: it was killed, or still runs."""

    @property
    def status(self) -> str | None:
        """finished, stopped or failed; None where no event tells."""
        return str(self.ends[-1].get("status") or SESSION_ENDS[self.ends[-1]["event"]]) if self.ends else None

    @property
    def elapsed_s(self) -> float:
        """Between its first and last record; as the run measured it where that counts no other session."""
        measured = _number(self.ends[-1], "elapsed_s") if self.ends and self.number == 1 else None
        return (self.last_ns - self.first_ns) / 1e9 if measured is None else measured


@dataclass(frozen=True)
class Iterations:
    """The search's ``TRAIN_ITERATION`` records, counted."""

    records: int
    reached: Mapping[tuple[int, int], int]
    """The last iteration of each (epoch, candidate)."""
    last: tuple[int, int, int] | None
    """(epoch, candidate, iteration) of the newest record."""

    @property
    def distinct(self) -> int:
        """Without those that a later session computed again."""
        return sum(self.reached.values())

    def until(self, epoch: int) -> int:
        """Distinct iterations up to the end of this epoch."""
        return sum(reached for (each, _), reached in self.reached.items() if each <= epoch)


@dataclass(frozen=True)
class History:
    """A run's log, digested; :func:`read_history` makes it."""

    path: Path
    n_bytes: int
    records: int
    torn_bytes: int
    problem: str | None
    """Why reading ended before the end, if it did."""
    sessions: tuple[Session, ...]
    phases: tuple[PhaseSpan, ...]
    counts: Mapping[str, int]
    newest: Mapping[str, Event]
    """The newest event of each name, iterations excepted."""
    last: Event | None
    """The newest event of all, iterations excepted."""
    epochs: tuple[Event, ...]
    """``EPOCH_END`` of each epoch, the newest where one came twice."""
    position: Event | None
    """The newest event with ``global_progress_reel``."""
    samples: int | None
    """Training samples of the newest epoch."""
    checkpoint_s: float
    """Seconds that writing checkpoints took."""
    iterations: Iterations

    @property
    def run_id(self) -> str | None:
        """As the last session's first event has it."""
        return self.start.get("run_id")

    @property
    def start(self) -> Event:
        """The last session's first event; empty where there is none."""
        return self.sessions[-1].start if self.sessions else {}

    @property
    def status(self) -> str | None:
        """Of the last session; None where it was killed or still runs."""
        return self.sessions[-1].status if self.sessions else None

    @property
    def elapsed_s(self) -> float:
        """Over all sessions."""
        return sum(session.elapsed_s for session in self.sessions)

    @property
    def open_phase(self) -> PhaseSpan | None:
        """The phase that the last session began and did not end."""
        last = self.phases[-1] if self.phases else None
        return last if last and not last.complete and last.session == len(self.sessions) else None


def read_history(path: str | os.PathLike[str]) -> History:
    """Read a run's log, as far as it can be read.

    Parameters
    ----------
    path : path-like
        ``events.jsonl``; it may still be growing.

    Returns
    -------
    History
        A line that is no JSON ends the reading; ``problem`` names its record. A torn last line counts in
        ``torn_bytes`` only.

    Raises
    ------
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R41. One pass; memory holds one event of each name and one number for each epoch and candidate.

    Examples
    --------
    >>> import tempfile
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START"), log.emit("PHASE_START", phase="load")
    ...     history = read_history(Path(folder, "events.jsonl"))
    >>> history.status, history.open_phase.name, history.counts["PHASE_START"]
    (None, 'load', 1)
    """
    reader = _Reader()
    for number, line in enumerate(_lines(Path(path))):
        if not line.endswith(b"\n"):
            reader.torn_bytes = len(line)
        elif not reader.take(line):
            reader.problem = f"record {number}: not a JSON object"
            break
    return reader.history(Path(path))


def events_named(path: str | os.PathLike[str], names: Collection[str]) -> Iterator[Event]:
    """The events of these names in a log; the other records are not even parsed.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    mark = re.compile(b"|".join(re.escape(f'"event":"{name}"'.encode()) for name in names))
    for line in _lines(Path(path)):
        if mark.search(line):
            event = _parse(line)
            if event is not None and event.get("event") in names:
                yield event


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _number(event: Event, key: str) -> float | None:
    value = event.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class _Reader:
    """Takes the log line by line."""

    def __init__(self) -> None:
        self.n_bytes = self.records = self.torn_bytes = 0
        self.problem: str | None = None
        self._line = self._line_before = b""
        self._sessions: list[Session] = []
        self._first_ns = 0
        self._start: Event = {}
        self._ends: list[Event] = []
        self._phases: list[PhaseSpan] = []
        self._open: Event | None = None
        self._counts: Counter[str] = Counter()
        self._newest: dict[str, Event] = {}
        self._last: Event | None = None
        self._position: Event | None = None
        self._epochs: dict[int, Event] = {}
        self._samples: int | None = None
        self._checkpoint_s = 0.0
        self._iteration_records = 0
        self._last_iteration: tuple[bytes, bytes, int] | None = None
        self._reached: dict[tuple[bytes, bytes], int] = {}
        self._handlers: dict[str, Callable[[Event], None]] = {
            **dict.fromkeys(SESSION_STARTS, self._session),
            "PHASE_START": self._phase_start,
            "PHASE_END": self._phase_end,
            "EPOCH_START": self._epoch_start,
            "EPOCH_END": self._epoch_end,
            "CHECKPOINT_WRITTEN": self._checkpoint,
            **dict.fromkeys(SESSION_ENDS, self._ended),
        }

    def take(self, line: bytes) -> bool:
        """Count one whole line; False when it is no event."""
        found = _ITERATION.match(line)
        event = _parse(line) if found is None else None
        if found is None and event is None:
            return False
        self._line_before = self._line
        self._line = line
        self.records += 1
        self.n_bytes += len(line)
        if event is None:
            self._iteration(*found.groups())  # type: ignore[union-attr]  # one of the two is there
        else:
            self._event(event)
        return True

    def _iteration(self, candidate: bytes, epoch: bytes, iteration: bytes) -> None:
        key, number = (epoch, candidate), int(iteration)
        self._iteration_records += 1
        self._last_iteration = epoch, candidate, number
        self._reached[key] = max(number, self._reached.get(key, 0))

    def _event(self, event: Event) -> None:
        name = str(event.get("event"))
        if name == "TRAIN_ITERATION":
            self._iteration(*(str(event.get(key) or 0).encode() for key in ("candidate", "epoch", "iter")))
            return
        self._counts[name] += 1
        if name in BETWEEN_SESSIONS:
            self._line = self._line_before
        self._newest[name] = self._last = event
        if "global_progress_reel" in event:
            self._position = event
        if name in self._handlers:
            self._handlers[name](event)

    def _session(self, event: Event) -> None:
        self._close_session()
        self._start, self._first_ns, self._ends = event, _ts_ns(event), []

    def _ended(self, event: Event) -> None:
        self._ends.append(event)

    def _close_session(self) -> None:
        self._close_phase(None)
        if self._start:
            self._sessions.append(
                Session(len(self._sessions) + 1, self._start, self._first_ns, self._ended_ns(), tuple(self._ends))
            )

    def _phase_start(self, event: Event) -> None:
        self._close_phase(None)
        self._open = event

    def _phase_end(self, event: Event) -> None:
        self._close_phase(event)

    def _close_phase(self, end: Event | None) -> None:
        if self._open is None:
            return
        started_ns = _ts_ns(self._open)
        measured = None if end is None else _number(end, "seconds")
        self._phases.append(
            PhaseSpan(
                name=str(self._open.get("phase")),
                session=len(self._sessions) + 1,
                started_ns=started_ns,
                seconds=max(0, self._ended_ns() - started_ns) / 1e9 if measured is None else measured,
                complete=end is not None,
                logging_s=None if end is None else _number(end, "logging_s"),
                io_s=None if end is None else _number(end, "io_s"),
            )
        )
        self._open = None

    def _ended_ns(self) -> int:
        """Time of the record before this one: what is closed by a record ended there at the latest."""
        return _ts_ns(_parse(self._line_before) or {})

    def _epoch_start(self, event: Event) -> None:
        samples = event.get("samples")
        self._samples = samples if isinstance(samples, int) else None

    def _epoch_end(self, event: Event) -> None:
        self._epochs[int(event.get("epoch") or 0)] = event

    def _checkpoint(self, event: Event) -> None:
        self._checkpoint_s += _number(event, "seconds") or 0.0

    def history(self, path: Path) -> History:
        self._line_before = self._line
        self._close_session()
        last = self._last_iteration
        iterations = Iterations(
            records=self._iteration_records,
            reached={(int(epoch), int(candidate)): reached for (epoch, candidate), reached in self._reached.items()},
            last=None if last is None else (int(last[0]), int(last[1]), last[2]),
        )
        if iterations.records:
            self._counts["TRAIN_ITERATION"] = iterations.records
        return History(
            path=path,
            n_bytes=self.n_bytes,
            records=self.records,
            torn_bytes=self.torn_bytes,
            problem=self.problem,
            sessions=tuple(self._sessions),
            phases=tuple(self._phases),
            counts=dict(sorted(self._counts.items())),
            newest=self._newest,
            last=self._last,
            epochs=tuple(self._epochs[epoch] for epoch in sorted(self._epochs)),
            position=self._position,
            samples=self._samples,
            checkpoint_s=self._checkpoint_s,
            iterations=iterations,
        )


def _ts_ns(event: Event) -> int:
    try:
        return int(event["ts_ns"])
    except (KeyError, TypeError, ValueError):
        return 0
