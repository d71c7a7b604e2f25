"""What a run says of itself (``summary.json``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesu.report.calibration import Calibration, read_calibration
from vesu.report.jsonfile import Node
from vesu.report.scores import TERMS, VolumeScore, read_volume_scores
from vesu.report.student import Student, read_student

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
class LedgerHead:
    """Size and root of the event ledger when the summary was written."""

    entries: int | None
    root: str | None


@dataclass(frozen=True)
class Summary:
    """``summary.json``, but for the submission and the gates, which have other sources too."""

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
    ledger: LedgerHead | None
    student: Student | None

    @property
    def untrained(self) -> bool:
        """Whether a historical scorer made the masks, and nothing was trained."""
        return self.pipeline not in (None, "vesu") and self.student is None


def read_summary(node: Node) -> Summary:
    """The summary's fields.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    """
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
        machine=node.values_of("machine"),
        inventory=node.values_of("inventory"),
        search=node.values_of("search"),
        validation=_validation(node.child("validation")),
        ledger=None if ledger is None else LedgerHead(ledger.integer("entries"), ledger.text("root")),
        student=read_student(node.child("student")),
    )


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
        baselines={name: baselines.numbers_of(name) for name in baselines.values},
        calibration=read_calibration(node.child("calibration")),
        by_volume={name: read_volume_scores(each) for name, each in ({"": node} | rivals).items()},
    )
