"""A run folder as frozen, typed values. Nothing is invented: what the folder lacks is None or empty."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.errors import DataError, EvidenceError
from vesu.ledger import verify
from vesu.report import autotune, dashboard
from vesu.report.findings import Preflight, read_preflight
from vesu.report.gates import GATES_FILE, GateResults, read_gates
from vesu.report.guided import Guided, read_guided
from vesu.report.jsonfile import Node
from vesu.report.leaderboard import Candidate, read_leaderboard
from vesu.report.nonces import ENDING as NONCE_VIEWS
from vesu.report.student import ABLATION, Worth, read_ablation
from vesu.report.submission import Submission, read_submission
from vesu.report.summary import Summary, read_summary
from vesu.report.training import Events, read_events
from vesu.report.volumes import Volume, read_volume

RUN_FILES = (
    "summary.json", "config.json", "events.jsonl", "inventory.json", "preflight.json", "leaderboard.json",
    "failure.json", GATES_FILE, *dashboard.FILES,
)  # fmt: skip


@dataclass(frozen=True)
class LedgerCheck:
    """What verifying ``events.jsonl`` gave when the report was written; ``problem`` is why it does not hold."""

    entries: int | None
    root: str | None
    torn_bytes: int
    problem: str | None


@dataclass(frozen=True)
class Run:
    """Everything the report shows of one run folder; None marks a file that is not there."""

    folder: Path
    summary: Summary | None
    gates: GateResults | None
    submission: Submission | None
    config: Mapping[str, Any] | None
    inventory: Mapping[str, Any] | None
    preflight: Preflight | None
    leaderboard: tuple[Candidate, ...] | None
    volumes: tuple[Volume, ...]
    events: Events | None
    ledger: LedgerCheck | None
    failure: str | None
    marked_paths: tuple[Path, ...]
    """Slices of the validation volumes with their unmatched features."""
    student_paths: tuple[Path, ...]
    """Slices of the validation volumes with what teachers and student say."""
    nonce_paths: tuple[Path, ...]
    """Slices of the test volumes with their golden nonces."""
    ablation: tuple[Worth, ...]
    """What each teacher is worth; empty where no ablation was made."""
    guided: Guided | None
    """The phase that aligned the model to a reference; None without one."""
    dashboard: dashboard.Dashboard
    tuning: autotune.Tuning | None = None
    """What auto-tuning decided."""

    @property
    def name(self) -> str:
        """The run's id, by the summary or else by the log; of neither, the folder's name."""
        told = (self.summary and self.summary.run_id) or (self.events and self.events.timeline.run_id)
        return told or self.folder.resolve().name

    @property
    def ending(self) -> str | None:
        """How it ended: finished, stopped, failed, killed or running; None where nothing tells."""
        if self.failure is not None:
            return "failed"
        if self.summary is not None and self.summary.status is not None:
            return self.summary.status
        return self.dashboard.post_mortem.cause if self.dashboard.post_mortem is not None else None


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Parameters
    ----------
    folder
        As ``vesu run`` leaves it; every file in it is optional, but one at least must be there.

    Raises
    ------
    DataError
        Not a folder, or nothing of a run in it.
    FormatError
        A file with malformed JSON, or a field of the wrong type; the message names both.
    FileError
        A file that the operating system refuses to read.
    """
    if not folder.is_dir():
        raise DataError(f"run_folder: got {folder}; accepted: an existing folder written by `vesu run`")
    segments = sorted((folder / "segment").glob("*.json"))
    if not segments and not any((folder / name).exists() for name in RUN_FILES):
        raise DataError(f"run_folder: got {folder} with none of {', '.join(RUN_FILES)}; accepted: a run folder")
    leaderboard = read_leaderboard(folder / "leaderboard.json")
    events = read_events(folder / "events.jsonl", winner=leaderboard[0].candidate if leaderboard else None)
    summary = Node.read(folder / "summary.json")
    return Run(
        folder=folder,
        summary=None if summary is None else read_summary(summary),
        gates=read_gates(summary, folder),
        submission=read_submission(summary, events.written if events else None, folder),
        config=_object(folder / "config.json"),
        inventory=_object(folder / "inventory.json"),
        preflight=read_preflight(folder / "preflight.json"),
        leaderboard=leaderboard,
        volumes=tuple(map(read_volume, segments)),
        events=events,
        ledger=_check_ledger(folder / "events.jsonl"),
        failure=_failure(folder / "failure.json"),
        marked_paths=tuple(sorted((folder / "validation").glob("*.npz"))),
        student_paths=tuple(sorted((folder / "student_views").glob("*.npz"))),
        nonce_paths=tuple(sorted((folder / "segment").glob(f"*{NONCE_VIEWS}"))),
        ablation=read_ablation(folder / ABLATION),
        guided=read_guided(folder),
        dashboard=dashboard.read_dashboard(folder),
        tuning=autotune.read_tuning(folder / autotune.TRACE),
    )


def _check_ledger(path: Path) -> LedgerCheck | None:
    if not path.exists():
        return None
    try:
        found = verify(path)
    except EvidenceError as error:
        return LedgerCheck(None, None, 0, str(error))
    return LedgerCheck(found.entries, found.root, found.torn_bytes, None)


def _failure(path: Path) -> str | None:
    node = Node.read(path)
    return None if node is None else f"{node.text('error') or 'error'}: {node.text('message') or ''}"


def _object(path: Path) -> Mapping[str, Any] | None:
    node = Node.read(path)
    return None if node is None else node.values
