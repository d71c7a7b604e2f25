"""The end of a session: its summary, the seal of its log, and what a reader looks at first."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vesu import _core
from vesu.data.discover import Inventory
from vesu.data.storage import write_json_atomic
from vesu.errors import EvidenceError, VesuError
from vesu.ledger import verify
from vesu.run.checkpoint import write_results_zip
from vesu.run.events import EventLog
from vesu.run.gates.closing import write_verdict
from vesu.run.history import read_history
from vesu.run.opening import RESULTS_ZIP
from vesu.run.outputs import submission_entry
from vesu.run.postmortem import write_postmortem
from vesu.run.profile import write_profile
from vesu.run.progress import PHASES
from vesu.run.result import RunResult
from vesu.run.session import Session
from vesu.submission import SubmissionReport

__all__ = ["record_failure", "seal", "summarise"]

DRAIN_S = 60.0
"""How long the end of a session waits for its last checkpoint to be published."""


def record_failure(folder: Path, log: EventLog, error: BaseException) -> None:
    """Leave the cause beside the log; the original error is what the caller sees, whatever happens here."""
    with suppress(VesuError):  # a full disk, likely the cause itself
        log.emit("RUN_FAILED", error=type(error).__name__, message=str(error))
        log.sync()
        write_verdict(folder, log)
        write_json_atomic(folder / "failure.json", {"error": type(error).__name__, "message": str(error)})
        write_postmortem(folder, cause="failed", reason=f"{type(error).__name__}: {error}")


def summarise(
    session: Session,
    inventory: Inventory,
    expected_s: Mapping[str, float],
    status: str,
    submission: SubmissionReport,
    verdict: Mapping[str, Any],
) -> dict[str, Any]:
    """What `summary.json` says of every run, however it ended."""
    planned = sum(expected_s.values())
    seconds = session.state.seconds
    return {
        "run_id": session.log.run_id,
        "version": _core.__version__,
        "git_sha": session.git_sha,
        "status": status,
        "tag": session.config.tag,
        "pipeline": session.config.pipeline,
        "seed": session.config.seed,
        "started_ns": str(session.started_ns),
        "elapsed_s": session.time.total_s(),
        "phases": [
            {"name": name, "seconds": seconds[name], "weight": expected_s[name] / planned}
            for name in PHASES
            if name in seconds and expected_s[name] > 0
        ],
        "machine": session.machine,
        "inventory": {
            "pairs": len(inventory.pairs),
            "tests": len(inventory.tests),
            "orphans": len(inventory.orphan_images) + len(inventory.orphan_labels),
        },
        "submission": submission_entry(submission),
        "go_no_go": dict(verdict),
    }


def seal(session: Session, summary: dict[str, Any], submission: SubmissionReport, deferred: str | None) -> RunResult:
    """Close the log's account of this session, check the file, and write what a reader looks at first.

    ``deferred`` says why the report was put off, if it was.
    """
    log = session.log
    log.emit("RUN_END", status=summary["status"], elapsed_s=summary["elapsed_s"], submission_sha256=submission.sha256)
    log.sync()
    checked = verify(log.path)
    if (checked.entries, checked.root) != (log.size, log.root):
        raise EvidenceError(f"{log.path}: the file is not what this run wrote")
    summary["ledger"] = {"entries": checked.entries, "root": checked.root}
    write_json_atomic(session.folder / "summary.json", summary)
    history = read_history(log.path)
    write_profile(session.folder, history=history)
    write_postmortem(session.folder, history=history, checked=checked)
    session.store.drain(DRAIN_S)
    result = RunResult(session.folder, submission, summary, *_report(session.folder, deferred))
    write_results_zip(session.folder / RESULTS_ZIP, session.folder)
    return result


def _report(folder: Path, deferred: str | None) -> tuple[Path | None, str | None]:
    if deferred is not None:
        return None, deferred
    try:
        from vesu.report import write_report

        return write_report(folder), None
    except Exception as error:  # noqa: BLE001  # the run is whole and sealed: a picture must not fail it
        return None, f"{type(error).__name__}: {error}"
