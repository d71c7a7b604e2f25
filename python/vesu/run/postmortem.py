"""How a run ended, why, where it stood and what it leaves: ``post_mortem.json`` (R41).

Everything is read from the run's folder, so that a run that was killed, and could say nothing, is examined by the same
code as one that finished.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vesu.data.storage import write_json_atomic
from vesu.errors import ArgumentError, DataError, EvidenceError, FileError
from vesu.ledger import LedgerReport, verify
from vesu.run.folder import MARK
from vesu.run.history import Event, History, read_history

__all__ = ["POST_MORTEM", "Cause", "examine", "write_postmortem"]

Cause: TypeAlias = Literal["finished", "stopped", "failed", "killed", "running"]

POST_MORTEM = "post_mortem.json"
FORMAT = 1

FULL_DISK_BYTES = 64 << 20
"""A disk with less room than this may be what ended a run."""

ALERTS = (
    "STALL_SUSPECTED",
    "MEMORY_ALERT",
    "PROGRESS_INTEGRITY_ALERT",
    "PHASE_BUDGET_OVERRUN",
    "CHECKPOINT_FAILED",
    "CHECKPOINT_REFUSED",
    "CHECKPOINT_PUBLISH_FAILED",
    "CACHE_CORRUPT",
    "CACHE_FAILED",
    "LEDGER_TAIL_TRUNCATED",
    "GPU_FALLBACK_DETECTED",
    "OUT_OF_MEMORY_SMALLER_BATCH",
    "DISTILLATION_TEACHER_FAILED",
    "STUDENT_STEP_SKIPPED",
)
"""Events of trouble that a run can live through."""


def write_postmortem(
    folder: Path,
    *,
    cause: Cause | None = None,
    reason: str | None = None,
    history: History | None = None,
    checked: LedgerReport | None = None,
) -> dict[str, Any]:
    """Write ``post_mortem.json`` into a run folder.

    Parameters
    ----------
    folder : path
        The run's, with its ``events.jsonl`` flushed.
    cause : {"finished", "stopped", "failed"}, optional
        How this session ends, where the run itself knows; by default as :func:`examine` finds it.
    reason : str, optional
        What stopped it, or the error's type and message; by default from the log.
    history : History, optional
        The folder's log where it was read already.
    checked : LedgerReport, optional
        Where the log was verified already.

    Returns
    -------
    dict
        What was written, see :func:`examine`.

    Raises
    ------
    ArgumentError
        An unknown cause.
    DataError, FileError
        See :func:`examine`; the file cannot be written.

    Notes
    -----
    Requirement R41.
    """
    if cause is not None and cause not in get_args(Cause):
        raise ArgumentError(f"cause: got {cause!r}; accepted: one of {get_args(Cause)}")
    found = examine(folder, cause=cause, reason=reason, history=history, checked=checked)
    write_json_atomic(folder / POST_MORTEM, found)
    return found


def examine(
    folder: str | Path,
    *,
    cause: Cause | None = None,
    reason: str | None = None,
    history: History | None = None,
    checked: LedgerReport | None = None,
) -> dict[str, Any]:
    """Find out from its folder how a run ended; changes nothing there.

    Parameters
    ----------
    folder : path
        A run folder with an ``events.jsonl``, its last line torn perhaps, without a ``summary.json`` perhaps.
    cause, reason, history, checked
        As for :func:`write_postmortem`.

    Returns
    -------
    dict
        - ``cause``: finished, stopped, failed, killed (the log breaks off and no process holds the folder) or running;
          ``reason``, and ``suspects``: of a killed run, what the evidence speaks for, with that evidence;
        - ``blocking_point``: phase, cursor, last iteration, last event and its time; None for a finished run;
        - ``reached_pct``: the last true progress, 0 to 100; ``elapsed_s`` over all sessions;
        - ``goes_on_from``: the newest checkpoint in the folder, as its manifest says (unverified);
        - ``submission``: whether the zip is there and is the recorded one; ``masks`` written of ``tests``;
        - ``alerts``: how often each trouble was met; ``ledger``: whether the log verifies, its length and root.

    Raises
    ------
    DataError
        No folder, or none with a log.
    FileError
        The log cannot be read.

    Notes
    -----
    Requirement R41.

    Examples
    --------
    >>> import tempfile
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START"), log.emit("PHASE_START", phase="fit")
    ...     found = examine(folder)  # nothing tells of an end: killed
    >>> found["cause"], found["blocking_point"]["phase"], found["reached_pct"]
    ('killed', 'fit', 0.0)
    """
    folder = Path(folder)
    log = folder / "events.jsonl"
    if not log.is_file():
        raise DataError(f"folder: got {folder}, without events.jsonl; accepted: the folder of a run")
    history = history or read_history(log)
    ending = cause or _ending(folder, history)
    return {
        "format": FORMAT,
        "run_id": history.run_id,
        "cause": ending,
        "reason": reason or _reason(history, ending),
        "suspects": list(_suspects(folder, history)) if ending == "killed" else [],
        "blocking_point": None if ending == "finished" else _blocking_point(history),
        "reached_pct": _progress(history.position, "global_progress_reel") or 0.0,
        "train_reached_pct": _progress(history.position, "train_progress_reel") or 0.0,
        "remaining_estimate_s": _progress(history.position, "remaining_estimate_s"),
        "elapsed_s": history.elapsed_s,
        "sessions": [
            {"number": each.number, "status": each.status or "broken off", "elapsed_s": each.elapsed_s}
            for each in history.sessions
        ],
        "goes_on_from": None if ending == "finished" else _checkpoint(folder),
        "submission": _submission(folder, history),
        "masks": len(list((folder / "masks").glob("*.tif"))),
        "tests": history.newest.get("INVENTORY", {}).get("tests"),
        "alerts": {name: history.counts[name] for name in ALERTS if name in history.counts},
        "memory": _memory(history),
        "ledger": _ledger(log, history, checked),
    }


def _ending(folder: Path, history: History) -> Cause:
    status = history.status
    if status in ("finished", "stopped", "failed"):
        return status  # type: ignore[return-value]  # narrowed by the comparison, which mypy does not see
    return "running" if _held(folder) else "killed"


def _held(folder: Path) -> bool:
    """Whether a process has the folder claimed: its lock goes when it dies, however it dies."""
    try:
        with (folder / MARK).open("rb") as mark:
            fcntl.flock(mark.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False


def _reason(history: History, ending: Cause) -> str | None:
    """In words: what stopped or broke the run, as the log has it."""
    if ending == "killed":
        return "the log breaks off: killed, or the machine went down"
    ends = history.sessions[-1].ends if history.sessions else ()
    for event in reversed(ends):
        if event["event"] == "RUN_FAILED":
            return f"{event.get('error')}: {event.get('message')}"
        if event["event"] == "RUN_STOPPED":
            return str(event.get("reason"))
    return None


def _blocking_point(history: History) -> dict[str, Any]:
    """Where it stood: the phase that was open, and the last that is known from within it."""
    phase, position, last = history.open_phase, history.position or {}, history.last or {}
    iteration = history.iterations.last
    in_fit = phase is not None and phase.name == "fit" and iteration is not None
    return {
        "phase": None if phase is None else phase.name,
        "phase_after": history.phases[-1].name if phase is None and history.phases else None,
        "seconds_in_phase": None if phase is None else phase.seconds,
        "cursor": position.get("cursor"),
        "last_iteration": dict(zip(("epoch", "candidate", "iter"), iteration or (), strict=False)) if in_fit else None,
        "last_event": last.get("event"),
        "last_event_seq": last.get("seq"),
        "last_event_ts_ns": last.get("ts_ns"),
    }


def _suspects(folder: Path, history: History) -> Iterator[dict[str, Any]]:
    """What the evidence speaks for, where nobody could say why; none of it proves anything."""
    stopping = history.newest.get("RUN_STOPPING")
    if stopping is not None and _ours(history, stopping):
        yield {"suspect": "it was told to stop, and ended before that was done", "evidence": _evidence(stopping)}
    memory = history.newest.get("MEMORY_ALERT")
    if memory is not None and memory.get("level") != "ok" and _ours(history, memory):
        yield {"suspect": "memory ran out", "evidence": _evidence(memory)}
    stall, cleared = history.newest.get("STALL_SUSPECTED"), history.newest.get("STALL_CLEARED")
    over = stall is not None and cleared is not None and cleared["seq"] > stall["seq"]
    if stall is not None and not over and _ours(history, stall):
        yield {"suspect": "it was stuck, and somebody ended it", "evidence": _evidence(stall)}
    limit_s = (history.start.get("config") or {}).get("time", {}).get("limit_s")
    session_s = history.sessions[-1].elapsed_s if history.sessions else 0.0
    if limit_s and session_s >= 0.95 * limit_s:
        yield {"suspect": "the platform's time limit", "evidence": {"session_s": session_s, "limit_s": limit_s}}
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < FULL_DISK_BYTES:
            yield {"suspect": "the disk is full", "evidence": {"free_bytes_now": free}}


def _ours(history: History, event: Event) -> bool:
    """Whether the event is the last session's."""
    return bool(event["seq"] > history.start.get("seq", -1))


def _evidence(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("hash", "prev", "run_id")}


def _progress(position: Event | None, name: str) -> float | None:
    value = (position or {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint as its manifest describes it; loading it will verify it."""
    for path in sorted((folder / "checkpoints").glob("ckpt-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            manifest = json.loads((path / "ckpt_manifest.json").read_bytes())
            if isinstance(manifest, dict):
                names = ("kind", "phase", "epoch", "candidate_index", "iter", "max_iter", "ts_ns")
                return {"name": path.name, **{name: manifest.get(name) for name in names}}
    return None


def _submission(folder: Path, history: History) -> dict[str, Any]:
    """The zip that lies there, against the newest digest in the log."""
    recorded = [
        event
        for name in ("SAFE_SUBMISSION_WRITTEN", "SUBMISSION_WRITTEN")
        if (event := history.newest.get(name)) is not None
    ]
    newest: Mapping[str, Any] = max(recorded, key=lambda event: event["seq"], default={})
    try:
        with (folder / "submission.zip").open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return {"present": False, "sha256": None, "as_recorded": None}
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(folder / "submission.zip")) from error
    expected = newest.get("sha256")
    return {"present": True, "sha256": sha256, "as_recorded": None if expected is None else sha256 == expected}


def _memory(history: History) -> dict[str, Any] | None:
    """The last look at the memory."""
    found = history.newest.get("MEMORY_HEALTH")
    return None if found is None else {name: found.get(name) for name in ("peak_rss_bytes", "used_fraction", "gpus")}


def _ledger(log: Path, history: History, checked: LedgerReport | None) -> dict[str, Any]:
    try:
        report = checked or verify(log)
    except EvidenceError as error:
        return {"verifies": False, "problem": str(error), "entries": history.records, "root": None}
    return {
        "verifies": True,
        "problem": None,
        "entries": report.entries,
        "root": report.root,
        "torn_bytes": report.torn_bytes,
    }
