"""A run folder as frozen, typed values. Nothing is invented: what the folder lacks is None or empty."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.errors import DataError, EvidenceError, FileError, FormatError
from vesu.ledger import verify
from vesu.report import dashboard
from vesu.report.calibration import Calibration, read_calibration
from vesu.report.jsonfile import Node, parse_json, read_bytes
from vesu.report.scores import TERMS, VolumeScore, read_volume_scores
from vesu.report.student import ABLATION, Student, Worth, read_ablation, read_student
from vesu.report.training import Events, read_events

RUN_FILES = (
    "summary.json", "config.json", "events.jsonl", "inventory.json", "preflight.json", "leaderboard.json",
    "failure.json", *dashboard.FILES,
)  # fmt: skip
STEP_COUNTS = (
    "voxels_before", "voxels_after", "voxels_added", "voxels_removed", "components", "tunnels", "cavities",
)  # fmt: skip
SCORES = ("f1", "f_beta", "iou", "precision", "recall", *TERMS)


@dataclass(frozen=True)
class Phase:
    """One phase of the run: seconds spent, and its weight in the progress formula (R34)."""

    name: str
    seconds: float | None
    weight: float | None


@dataclass(frozen=True)
class Validation:
    """Scores on held-out volumes, and those of the trivial baselines on the same."""

    volumes: tuple[str, ...]
    scores: Mapping[str, float]
    density_label: float | None
    density_mask: float | None
    baselines: Mapping[str, Mapping[str, float]]
    calibration: Calibration | None
    by_volume: Mapping[str, tuple[VolumeScore, ...]]
    """The competition's score: of the masks under ``""``, of the baselines under their names."""


@dataclass(frozen=True)
class Member:
    """One mask in the submission."""

    name: str
    shape: tuple[int, ...]
    ink_ratio: float | None


@dataclass(frozen=True)
class Submission:
    """The submission as recorded, and the digest of the file that lies in the folder now (None: no file)."""

    name: str
    sha256: str | None
    n_bytes: int | None
    members: tuple[Member, ...]
    sha256_now: str | None


@dataclass(frozen=True)
class LedgerHead:
    """Size and root of the event ledger when the summary was written."""

    entries: int | None
    root: str | None


@dataclass(frozen=True)
class LedgerCheck:
    """What verifying ``events.jsonl`` gave when the report was written; ``problem`` is why it does not hold."""

    entries: int | None
    root: str | None
    torn_bytes: int
    problem: str | None


@dataclass(frozen=True)
class Summary:
    """``summary.json``."""

    run_id: str | None
    version: str | None
    git_sha: str | None
    status: str | None
    pipeline: str | None
    seed: int | None
    started_ns: int | None
    elapsed_s: float | None
    phases: tuple[Phase, ...]
    machine: Mapping[str, Any]
    inventory: Mapping[str, Any]
    search: Mapping[str, Any]
    validation: Validation | None
    submission: Submission | None
    ledger: LedgerHead | None
    student: Student | None


@dataclass(frozen=True)
class Candidate:
    """One row of the leaderboard (R13)."""

    rank: int | None
    candidate: int | None
    neuron: int | None
    l1: float | None
    l2: float | None
    objective: float | None
    cross_entropy: float | None
    sparsity: float | None
    f1: float | None
    f_beta: float | None
    iou: float | None
    threshold: float | None
    n_nonzero: int | None
    diverged: bool | None


@dataclass(frozen=True)
class Step:
    """What one segmentation step changed."""

    name: str
    voxels_before: int | None
    voxels_after: int | None
    voxels_added: int | None
    voxels_removed: int | None
    components: int | None
    tunnels: int | None
    cavities: int | None


@dataclass(frozen=True)
class Volume:
    """One segmented volume: ``segment/ID.json``, and where its slices would be."""

    volume_id: str
    shape: tuple[int, ...]
    low: float | None
    high: float | None
    ink_ratio_global: float | None
    ink_ratio_by_slice: tuple[float, ...]
    percentiles: Mapping[str, float]
    density_warning: str | None
    steps: tuple[Step, ...]
    truth: Mapping[str, float]
    views_path: Path
    steps_path: Path


@dataclass(frozen=True)
class Finding:
    """One preflight finding (R02)."""

    code: str | None
    severity: str | None
    path: str | None
    message: str | None


@dataclass(frozen=True)
class Preflight:
    """``preflight.json``."""

    findings: tuple[Finding, ...]
    checked_pairs: int | None
    checked_tests: int | None
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """Everything the report shows of one run folder; None marks a file that is not there."""

    folder: Path
    summary: Summary | None
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
    ablation: tuple[Worth, ...]
    """What each teacher is worth; empty where no ablation was made."""
    dashboard: dashboard.Dashboard


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
    leaderboard = _leaderboard(folder / "leaderboard.json")
    winner = leaderboard[0].candidate if leaderboard else None
    return Run(
        folder=folder,
        summary=_summary(folder),
        config=_object(folder / "config.json"),
        inventory=_object(folder / "inventory.json"),
        preflight=_preflight(folder / "preflight.json"),
        leaderboard=leaderboard,
        volumes=tuple(_volume(path) for path in segments),
        events=read_events(folder / "events.jsonl", winner=winner),
        ledger=_check_ledger(folder / "events.jsonl"),
        failure=_failure(folder / "failure.json"),
        marked_paths=tuple(sorted((folder / "validation").glob("*.npz"))),
        student_paths=tuple(sorted((folder / "student_views").glob("*.npz"))),
        ablation=read_ablation(folder / ABLATION),
        dashboard=dashboard.read_dashboard(folder),
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


def _values(node: Node, key: str) -> Mapping[str, Any]:
    child = node.child(key)
    return {} if child is None else child.values


def _summary(folder: Path) -> Summary | None:
    node = Node.read(folder / "summary.json")
    if node is None:
        return None
    ledger = node.child("ledger")
    return Summary(
        run_id=node.text("run_id"),
        version=node.text("version"),
        git_sha=node.text("git_sha"),
        status=node.text("status"),
        pipeline=node.text("pipeline"),
        seed=node.integer("seed"),
        started_ns=node.integer("started_ns"),
        elapsed_s=node.number("elapsed_s"),
        phases=tuple(
            Phase(each.text("name") or "(no name)", each.number("seconds"), each.number("weight"))
            for each in node.children("phases")
        ),
        machine=_values(node, "machine"),
        inventory=_values(node, "inventory"),
        search=_values(node, "search"),
        validation=_validation(node.child("validation")),
        submission=_submission(node.child("submission"), folder),
        ledger=None if ledger is None else LedgerHead(ledger.integer("entries"), ledger.text("root")),
        student=read_student(node),
    )


def _scores(node: Node | None) -> dict[str, float]:
    """The numbers of an object, whatever their names: what a baseline was not scored on, it does not carry."""
    if node is None:
        return {}
    pairs = ((name, node.number(name)) for name, value in node.values.items() if isinstance(value, int | float))
    return {name: value for name, value in pairs if value is not None}


def _validation(node: Node | None) -> Validation | None:
    if node is None:
        return None
    scores = {name: node.number(name) for name in SCORES}
    baselines = node.child("baselines") or Node({}, node.where)
    rivals = {name: child for name in baselines.values if (child := baselines.child(name)) is not None}
    return Validation(
        volumes=node.texts("volumes"),
        scores={name: value for name, value in scores.items() if value is not None},
        density_label=node.number("density_label"),
        density_mask=node.number("density_mask"),
        baselines={name: _scores(baselines.child(name)) for name in baselines.values},
        calibration=read_calibration(node.child("calibration")),
        by_volume={name: read_volume_scores(each) for name, each in ({"": node} | rivals).items()},
    )


def _submission(node: Node | None, folder: Path) -> Submission | None:
    if node is None:
        return None
    # Only a file of that name in the run folder counts: a recorded path may be another machine's.
    name = Path(node.text("path") or "submission.zip").name
    return Submission(
        name=name,
        sha256=node.text("sha256"),
        n_bytes=node.integer("n_bytes"),
        members=tuple(
            Member(each.text("name") or "(no name)", _shape(each), each.number("ink_ratio"))
            for each in node.children("members")
        ),
        sha256_now=_sha256(folder / name),
    )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, ValueError):  # ValueError: no file can have such a name
        return None
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.numbers("shape"))


def _leaderboard(path: Path) -> tuple[Candidate, ...] | None:
    data = read_bytes(path)
    if data is None:
        return None
    rows = parse_json(data, str(path))
    if not isinstance(rows, list):
        raise FormatError(f"{path}: got {type(rows).__name__}; accepted: a list of rows")
    nodes = (Node(row, f"{path}: row {index}") for index, row in enumerate(rows))
    return tuple(sorted((_candidate(node) for node in nodes), key=_place))


def _place(row: Candidate) -> tuple[bool, int]:
    return row.rank is None, row.rank or 0


def _candidate(node: Node) -> Candidate:
    return Candidate(
        rank=node.integer("rank"),
        candidate=node.integer("candidate"),
        neuron=node.integer("neuron"),
        l1=node.number("l1"),
        l2=node.number("l2"),
        objective=node.number("objective"),
        cross_entropy=node.number("cross_entropy"),
        sparsity=node.number("sparsity"),
        f1=node.number("f1"),
        f_beta=node.number("f_beta"),
        iou=node.number("iou"),
        threshold=node.number("threshold"),
        n_nonzero=node.integer("n_nonzero"),
        diverged=node.flag("diverged"),
    )


def _volume(path: Path) -> Volume:
    node = Node.read(path)
    if node is None:
        raise DataError(f"{path}: vanished while the report was being written")
    thresholds = node.child("thresholds") or Node({}, node.where)
    return Volume(
        volume_id=node.text("volume_id") or path.stem,
        shape=_shape(node),
        low=thresholds.number("low"),
        high=thresholds.number("high"),
        ink_ratio_global=node.number("ink_ratio_global"),
        ink_ratio_by_slice=node.numbers("ink_ratio_by_slice"),
        density_warning=node.text("density_warning"),
        percentiles=node.mapping_of_numbers("probability_percentiles"),
        steps=tuple(
            Step(each.text("name") or "(no name)", **{key: each.integer(key) for key in STEP_COUNTS})
            for each in node.children("steps")
        ),
        truth=_scores(node.child("truth")),
        views_path=path.with_name(f"{path.stem}_views.npz"),
        steps_path=path.with_name(f"{path.stem}_steps.npz"),
    )


def _preflight(path: Path) -> Preflight | None:
    node = Node.read(path)
    if node is None:
        return None
    return Preflight(
        findings=tuple(
            Finding(each.text("code"), each.text("severity"), each.text("path"), each.text("message"))
            for each in node.children("findings")
        ),
        checked_pairs=node.integer("checked_pairs"),
        checked_tests=node.integer("checked_tests"),
        seconds=node.number("seconds"),
    )
