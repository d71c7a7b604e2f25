"""Teachers and student as the run left them: figures from ``summary.json`` and the log, slices, charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.report.canvas import ACCENT, GRID, INK, SECOND, as_svg, drawing
from vesu.report.jsonfile import Node
from vesu.report.npzfile import Npz, open_npz
from vesu.report.pictures import (
    AXIS_NAMES,
    PROBABILITY_MAP,
    UNCERTAINTY_MAP,
    Jpeg,
    Panel,
    coloured,
    fitted,
    overlay,
    panel,
    stretch,
)
from vesu.report.views import check_layers, read_index

__all__ = [
    "ABLATION",
    "Curves",
    "CurvesReader",
    "Student",
    "StudentView",
    "Worth",
    "draw_student_views",
    "read_ablation",
    "read_student",
    "read_student_views",
    "student_charts",
]

ABLATION = "v3_teacher_ablation.json"
"""What :meth:`vesu.distill.ablation.AblationTable.to_json` gives, where somebody put it into the run folder."""

PICTURED = 4
BUDGET_BYTES = 2**19  # of JPEG, all volumes together
MAX_POINTS = 2000
N_PANELS = 5
LAYERS = ("volume", "label", "probability", "uncertainty", "teachers", "disagreement")


@dataclass(frozen=True)
class Teacher:
    """One teacher: what it is, and how often the log has it loaded."""

    name: str
    framework: str | None
    digest: str | None
    volumes: int | None
    from_cache: int | None


@dataclass(frozen=True)
class Student:
    """The entry ``student`` of ``summary.json``."""

    teachers: tuple[Teacher, ...]
    refused: tuple[tuple[str, str], ...]
    nominal: int | None
    kpis: Mapping[str, float]
    alignment: Mapping[str, float]
    """Mean agreement with the teachers by moment: before, distilled, final."""
    stages: tuple[str, ...]
    device: str | None
    weight: float | None
    """Of the student in the fusion."""
    reason: str | None
    held_out_score: float | None
    tried: tuple[tuple[float, float], ...]
    """Weights and the mean score of each."""
    scores: Mapping[str, float]
    measure: str | None


@dataclass(frozen=True)
class Worth:
    """What one teacher is worth, by an ablation (R21)."""

    teacher: str
    by_seed: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    kept: bool | None


@dataclass(frozen=True)
class Curves:
    """The training along its steps, those of all stages counted on from 1."""

    step: NDArray[np.int64]
    loss: NDArray[np.float64]
    stages: tuple[tuple[str, int], ...]
    """Name and first step of each."""
    validated: NDArray[np.int64]
    f_beta: NDArray[np.float64]


class CurvesReader:
    """Takes the events one by one; what a killed session did twice counts once."""

    def __init__(self) -> None:
        self._losses: dict[tuple[str, int], float] = {}
        self._scores: dict[tuple[str, int], float] = {}

    def take(self, name: str, node: Node) -> None:
        """One event; those that are none of the training change nothing."""
        if name not in ("DISTILLATION_LOSS_STEP", "STUDENT_VALIDATED"):
            return
        stage, step = node.text("stage"), node.integer("step")
        if stage is None or step is None:
            return
        if name == "STUDENT_VALIDATED":
            self._scores[stage, step] = _figure(node.number("f_beta"))
        else:
            terms = node.child("terms")
            self._losses[stage, step] = _figure(None if terms is None else terms.number("total"))

    def curves(self) -> Curves | None:
        """What was taken so far; None without a step."""
        if not self._losses:
            return None
        numbers = {key: number for number, key in enumerate(self._losses, start=1)}
        first: dict[str, int] = {}
        for (stage, _), number in numbers.items():
            first.setdefault(stage, number)
        scores = [(numbers[key], score) for key, score in self._scores.items() if key in numbers]
        return Curves(
            step=np.arange(1, len(numbers) + 1),
            loss=np.array(list(self._losses.values()), np.float64),
            stages=tuple(first.items()),
            validated=np.array([number for number, _ in scores], np.int64),
            f_beta=np.array([score for _, score in scores], np.float64),
        )


def read_student(node: Node | None) -> Student | None:
    """What ``summary.json`` says of it; None in a run that trained none.

    Raises
    ------
    FormatError
        A field of the wrong type, by its name.
    """
    if node is None:
        return None
    proof, fusion = (node.child(name) or Node({}, node.where) for name in ("proof", "fusion"))
    seen = {each.text("name"): each for each in proof.children("teachers")}
    return Student(
        teachers=tuple(_teacher(each, seen) for each in node.children("teachers")),
        refused=tuple((each.text("path") or "", each.text("reason") or "") for each in node.children("refused")),
        nominal=node.integer("nominal"),
        kpis=node.mapping_of_numbers("kpis"),
        alignment=node.mapping_of_numbers("alignment"),
        stages=node.texts("stages"),
        device=node.text("device"),
        weight=fusion.number("weight"),
        reason=fusion.text("reason"),
        held_out_score=fusion.number("held_out_score"),
        tried=_tried(fusion),
        scores=fusion.mapping_of_numbers("mean_scores"),
        measure=fusion.text("measure"),
    )


def _teacher(node: Node, seen: Mapping[str | None, Node]) -> Teacher:
    proof = seen.get(node.text("name"))
    return Teacher(
        name=node.text("name") or "(no name)",
        framework=node.text("framework"),
        digest=node.text("digest"),
        volumes=None if proof is None else len(proof.texts("volumes")),
        from_cache=None if proof is None else proof.integer("from_cache"),
    )


def _tried(fusion: Node) -> tuple[tuple[float, float], ...]:
    weights, rows = fusion.numbers("weights"), fusion.values.get("scores", [])
    if not isinstance(rows, list) or len(rows) != len(weights):
        return ()
    return tuple(
        (weight, float(np.mean(row)))
        for weight, row in zip(weights, rows, strict=True)
        if isinstance(row, list) and row and all(isinstance(value, int | float) for value in row)
    )


def _figure(value: float | None) -> float:
    return float("nan") if value is None else value


def read_ablation(path: Path) -> tuple[Worth, ...]:
    """The rows of a leave-one-teacher-out table; no file means none.

    Raises
    ------
    FormatError
        A malformed file, by its name.
    """
    node = Node.read(path)
    return () if node is None else tuple(map(_worth, node.children("rows")))


def _worth(row: Node) -> Worth:
    gain = row.child("gain") or Node({}, row.where)
    return Worth(
        teacher=row.text("teacher") or "(no name)",
        by_seed=gain.numbers("by_seed"),
        mean=gain.number("mean"),
        low=gain.number("low"),
        high=gain.number("high"),
        kept=row.flag("kept"),
    )


# ---- charts


def student_charts(student: Student | None, curves: Curves | None) -> dict[str, str]:
    """Loss by step, validation by step, score by weight: as many of them as there are figures for."""
    drawn = {}
    if curves is not None and np.isfinite(curves.loss).any():
        drawn["student_loss"] = _along_the_steps("student_loss", "Loss", curves, curves.step, curves.loss)
    if curves is not None and np.isfinite(curves.f_beta).any():
        drawn["student_score"] = _along_the_steps(
            "student_score", "F-beta 0.5 on the validation volumes", curves, curves.validated, curves.f_beta
        )
    if student is not None and len(student.tried) > 1:
        drawn["fusion"] = _fusion_chart(student)
    return drawn


def _along_the_steps(name: str, label: str, curves: Curves, step: NDArray[Any], values: NDArray[Any]) -> str:
    thin = slice(None, None, max(1, -(-len(step) // MAX_POINTS)))
    with drawing(230) as (figure, axes):
        axes.plot(step[thin], values[thin], color=ACCENT, linewidth=1.4, marker="o" if len(step) < 40 else None, ms=3)
        low, high = axes.get_ylim()
        for stage, first in curves.stages:
            axes.axvline(first, color=GRID, linewidth=0.8)
            axes.text(first, high, f" {stage}", va="top", fontsize=9, color=SECOND)
        axes.set_ylim(low, high)
        axes.margins(x=0)
        axes.set_xlabel("step")
        axes.set_title(label, loc="left", fontsize=10.5, color=INK)
        finite = values[np.isfinite(values)]
        return as_svg(figure, name, f"{label} over {len(curves.step)} steps: from {finite[0]:.4g} to {finite[-1]:.4g}")


def _fusion_chart(student: Student) -> str:
    weights, scores = np.array(student.tried).T
    with drawing(230) as (figure, axes):
        axes.plot(weights, scores, color=ACCENT, linewidth=1.4, marker="o", ms=3)
        if student.weight is not None:
            axes.axvline(student.weight, color=SECOND, linewidth=1.2, linestyle=(0, (3, 1.5)), label="chosen")
            axes.legend(loc="best", handlelength=1.4)
        axes.set_xlabel("student's weight (0: the search's ensemble alone)")
        axes.set_title("Score of the fusion", loc="left", fontsize=10.5, color=INK)
        return as_svg(figure, "fusion", f"Score by weight, best {scores.max():.4g} at {weights[scores.argmax()]:g}")


# ---- pictures


@dataclass(frozen=True)
class StudentView:
    """One slice across one axis of a validation volume, all layers of one 2-D shape."""

    axis: str
    index: int
    layers: Mapping[str, NDArray[Any]]


def read_student_views(path: Path) -> tuple[StudentView, ...]:
    """The slices of ``student_views/ID.npz``, in the order z, y, x; no file means none.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    with open_npz(path) as archive:
        if archive is None:
            return ()
        return tuple(_view(archive, axis) for axis in AXIS_NAMES if archive.has(f"{axis}_index"))


def _view(archive: Npz, axis: str) -> StudentView:
    return StudentView(axis, read_index(archive, f"{axis}_index"), check_layers(archive, axis, LAYERS))


def draw_student_views(
    volumes: Sequence[tuple[str, Sequence[StudentView]]], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[tuple[Panel, ...], ...], ...]:
    """Of each volume and slice: the label on the CT, teachers, their disagreement, student, its uncertainty."""
    pictures = iter(
        fitted([image for _, views in volumes for view in views for image in _images(view)], budget_bytes)[0]
    )
    return tuple(
        tuple(_panels(volume_id, view, [next(pictures) for _ in range(N_PANELS)]) for view in views)
        for volume_id, views in volumes
    )


def _images(view: StudentView) -> list[NDArray[np.uint8]]:
    layers, grey = view.layers, stretch(view.layers["volume"])
    tops = {name: _top(layers[name]) for name in ("disagreement", "uncertainty")}
    return [
        overlay(grey, layers["label"] == 1),
        coloured(layers["teachers"].astype(np.float32), 1.0, PROBABILITY_MAP),
        coloured(layers["disagreement"].astype(np.float32), tops["disagreement"], UNCERTAINTY_MAP),
        coloured(layers["probability"].astype(np.float32), 1.0, PROBABILITY_MAP),
        coloured(layers["uncertainty"].astype(np.float32), tops["uncertainty"], UNCERTAINTY_MAP),
    ]


def _top(values: NDArray[Any]) -> float:
    """The top of a colour scale: the 99.5th percentile, for a few voxels would else leave all others dark."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, 99.5)) if finite.size else 0.0


def _panels(volume_id: str, view: StudentView, images: Sequence[Jpeg]) -> tuple[Panel, ...]:
    down, across = AXIS_NAMES[view.axis]
    where = f"{view.axis} = {view.index} of volume {volume_id}, {down} down, {across} across"
    scales = [f"{_top(view.layers[name]):.3f}" for name in ("disagreement", "uncertainty")]
    titles = (
        "Label on CT",
        "Teachers' mean probability",
        f"Teachers' disagreement, 0 to {scales[0]} bit",
        "Student's probability",
        f"Student's uncertainty, 0 to {scales[1]}",
    )
    return tuple(panel(title, f"{title}: {where}", image) for title, image in zip(titles, images, strict=True))
