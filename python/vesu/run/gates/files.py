"""Which V3 files a run was to leave, which are there, and whether the log knows of them (R54)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vesu.distill.transfer import ALIGNMENT_REPORT, MEMORY_MANIFEST
from vesu.run.coverage import COVERAGE_REPORT
from vesu.run.gates import nonces, phases, tuning
from vesu.run.gates.evidence import Evidence, read_evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed

__all__ = ["EVENTS", "V3_FILES", "FileEvidence", "files", "v3_files"]


@dataclass(frozen=True)
class _Kind:
    """What asks for a file, and the event without which it is only claimed."""

    asked: Callable[[Evidence], bool]
    event: str


def _searched(evidence: Evidence) -> bool:
    return evidence.pipeline == "vesu"


_KINDS = {
    MEMORY_MANIFEST: _Kind(phases.student_is_due, "DISTILLATION_END"),
    ALIGNMENT_REPORT: _Kind(phases.student_is_due, "DISTILLATION_END"),
    phases.COMPETITOR_FILE: _Kind(phases.guided_is_asked, "COMPETITOR_GUIDED_PHASE_DONE"),
    nonces.TIMELINE: _Kind(nonces.nonces_are_asked, nonces.FINAL),
    tuning.TRACE: _Kind(tuning.auto_tune_is_asked, tuning.DECISION),
    COVERAGE_REPORT: _Kind(_searched, "TRAIN_COVERAGE_FINAL"),
}

V3_FILES = tuple(_KINDS)
"""The history's file names that a run leaves which was asked for everything."""

EVENTS = tuple(sorted({kind.event for kind in _KINDS.values()} | set(phases.TOLD)))


@dataclass(frozen=True)
class FileEvidence:
    """One V3 file of a run folder.

    Attributes
    ----------
    name : str
        As the history has it.
    asked : bool
        Whether the run was asked for what it tells of.
    there : bool
        Whether it lies in the folder.
    logged : bool
        Whether the log holds the work that it tells of.
    """

    name: str
    asked: bool
    there: bool
    logged: bool

    @property
    def problem(self) -> str | None:
        """What is wrong with it, in words; None where nothing is."""
        if self.there and not self.logged:
            return f"{self.name} claims what the log does not know"
        if self.asked and not self.there:
            return f"{self.name} was asked for and is not there"
        return None


def v3_files(folder: str | Path) -> tuple[FileEvidence, ...]:
    """Which of :data:`V3_FILES` a run was to leave, and which it left.

    Parameters
    ----------
    folder : path
        A run folder.

    Returns
    -------
    tuple of FileEvidence
        One a name, those of phases that were not asked for too.

    Raises
    ------
    DataError
        Not the folder of a run.
    EvidenceError
        Its log does not verify.
    FileError
        It cannot be read.

    Notes
    -----
    Requirement R54. Asked is what the last session's first event says; what a run by default does (a student where
    teachers are present) counts as asked.

    Examples
    --------
    >>> import tempfile
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START", config={"pipeline": "vesu"})
    ...     [each.name for each in v3_files(folder) if each.asked]
    ['v3_train_coverage_report.json']
    """
    return _found(read_evidence(Path(folder), EVENTS))


def files(evidence: Evidence) -> Gate:
    """Every V3 file that was asked for is there, and none is there that the log does not know (R54)."""
    found = _found(evidence)
    problems = [each.problem for each in found if each.problem is not None]
    if problems:
        return failed("; ".join(problems))
    asked = [each.name for each in found if each.asked]
    return passed(f"all that was asked for: {', '.join(asked)}") if asked else not_applicable("none was asked for")


def _found(evidence: Evidence) -> tuple[FileEvidence, ...]:
    return tuple(
        FileEvidence(name, kind.asked(evidence), (evidence.folder / name).is_file(), _logged(evidence, name, kind))
        for name, kind in _KINDS.items()
    )


def _logged(evidence: Evidence, name: str, kind: _Kind) -> bool:
    if name == tuning.TRACE and kind.asked(evidence):
        return True  # of no decision is a trace too; its gate compares what it holds
    return bool(evidence.named(kind.event) or evidence.carried(kind.event))
