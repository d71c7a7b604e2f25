"""All gates over one run folder: :func:`judge`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vesu.errors import MISPLACED, EvidenceError, VesuError
from vesu.ledger import TreeHead, root_at
from vesu.run.gates import files, nonces, outcome, phases, tuning
from vesu.run.gates.evidence import LOG, Evidence, read_evidence, require_heads
from vesu.run.gates.verdict import Gate, GateReport, failed, passed

__all__ = ["GO_NO_GO_FILE", "judge"]

GO_NO_GO_FILE = "go_no_go.json"

GATES: dict[str, Callable[[Evidence], Gate]] = {
    "distillation": phases.distillation,
    "competitor": phases.competitor,
    "coverage": phases.coverage,
    "nonces": nonces.nonces,
    "auto_tune": tuning.auto_tune,
    "files": files.files,
    "submission": outcome.submission,
    "score": outcome.score,
}

EVENTS = frozenset((*phases.EVENTS, *nonces.EVENTS, *tuning.EVENTS, *files.EVENTS, *outcome.EVENTS))


def judge(folder: str | Path, *, heads: Sequence[TreeHead] = ()) -> GateReport:
    """GO or NO-GO, from what the run's folder proves; changes nothing there.

    Parameters
    ----------
    folder : path
        The folder of a run: finished, stopped, failed, killed or still running.
    heads : sequence of TreeHead
        Tree heads of its log that were kept elsewhere: the log must go on from them.

    Returns
    -------
    GateReport
        One gate after another; a log that does not verify proves nothing, so that every gate fails.

    Raises
    ------
    DataError
        No folder, or none with a log.
    FileError
        The log cannot be read.

    Notes
    -----
    Requirements R44, R54. What was asked for is read from the last session's first event (``RUN_START``,
    ``RUN_RESUMED``). The log is verified first and read up to the tree head that this found; files count only where
    they say what the log says. The best recorded score is the one that the run looked up, as its log has it, so that
    the answer stays the same when better runs come.

    Examples
    --------
    >>> import tempfile
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START", config={"pipeline": "nx46"})
    ...         _ = log.emit("STUDENT_SKIPPED", reason="student.use is 'off'")
    ...         _ = log.emit("INVENTORY", pairs=0, tests=1)
    ...     report = judge(folder)
    >>> report.headline, report.gates["distillation"].state
    ('NO-GO: submission failed', 'not_applicable')
    """
    folder = Path(folder)
    try:
        evidence = read_evidence(folder, EVENTS)
        require_heads(evidence)
        _require(evidence, heads)
    except EvidenceError as error:
        nothing = failed("nothing is proved: the log does not hold")
        return GateReport({"ledger": failed(str(error)), **dict.fromkeys(GATES, nothing)})
    gates = {"ledger": passed("every record verifies, and the log goes on from every tree head that was kept")}
    gates |= {name: _asked(gate, evidence) for name, gate in GATES.items()}
    path = folder / outcome.ZIP
    sha256 = outcome.file_sha256(path) if path.is_file() else None
    return GateReport(gates, evidence.run_id, evidence.entries, evidence.root, sha256)


def _asked(gate: Callable[[Evidence], Gate], evidence: Evidence) -> Gate:
    """A gate's answer; evidence that it cannot read proves nothing."""
    try:
        return gate(evidence)
    except (VesuError, *MISPLACED) as error:
        return failed(f"the evidence cannot be read: {type(error).__name__}: {error}")


def _require(evidence: Evidence, heads: Sequence[TreeHead]) -> None:
    for head in heads:
        if head.size > evidence.entries:
            raise EvidenceError(f"the tree head is of {head.size} records, the log has {evidence.entries}")
        if root_at(evidence.folder / LOG, head.size) != head.root:
            raise EvidenceError(f"the tree head of size {head.size} is of another log")
