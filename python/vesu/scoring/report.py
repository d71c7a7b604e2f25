"""What a score is made of: one report a volume, and the summary of many."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.notebook import counted, table

__all__ = ["DimensionScore", "ScoreReport", "ScoreSummary", "SurfaceScore", "TopologyScore", "VoiScore"]

TERM_WEIGHTS = {"topology": 0.30, "surface": 0.35, "voi": 0.35}
DIMENSION_WEIGHTS = (0.34, 0.33, 0.33)
DIMENSION_NAMES = ("components", "tunnels", "cavities")


@dataclass(frozen=True)
class DimensionScore:
    """Betti matching in one dimension, summed over the octants.

    Attributes
    ----------
    matched, predicted, label : int
        Features matched (m), of the prediction (p), of the label (g).
    f1 : float or None
        ``2 m / (p + g)``; ``0.5 / (p + 0.5)`` where the label has none; None where neither has any, and then the
        dimension does not count.
    """

    matched: int
    predicted: int
    label: int
    f1: float | None

    @classmethod
    def of(cls, matched: int, predicted: int, label: int) -> "DimensionScore":
        if predicted + label == 0:
            return cls(matched, predicted, label, None)
        f1 = 2 * matched / (predicted + label) if label else 0.5 / (predicted + 0.5)
        return cls(matched, predicted, label, f1)


@dataclass(frozen=True)
class TopologyScore:
    """Attributes: ``score`` in [0, 1]; ``dimensions`` 0 (components), 1 (tunnels), 2 (cavities)."""

    score: float
    dimensions: tuple[DimensionScore, DimensionScore, DimensionScore]

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> "TopologyScore":
        zero, one, two = (DimensionScore.of(*map(int, row)) for row in counts)
        active = [(w, d.f1) for w, d in zip(DIMENSION_WEIGHTS, (zero, one, two), strict=True) if d.f1 is not None]
        weight = sum(w for w, _ in active)
        return cls(sum(w * f1 for w, f1 in active) / weight if active else 1.0, (zero, one, two))


@dataclass(frozen=True)
class SurfaceScore:
    """Surface Dice and the areas it is made of.

    Attributes
    ----------
    score : float
        ``(prediction_within + label_within) / (prediction_area + label_area)``; 1 when both masks are empty, 0 when
        one is.
    prediction_area, label_area : float
        Areas of the surfaces, in the square of the spacing's unit.
    prediction_within, label_within : float
        Of these, what lies within the tolerance of the other surface.
    """

    score: float
    prediction_area: float
    prediction_within: float
    label_area: float
    label_within: float


@dataclass(frozen=True)
class VoiScore:
    """Variation of information between the 26-connected components.

    Attributes
    ----------
    score : float
        ``1 / (1 + alpha * total)``.
    split : float
        H(prediction | label), in bits: label components that the prediction cuts or misses in part.
    merge : float
        H(label | prediction), in bits: label components that the prediction joins, or voxels it adds.
    total : float
        ``split + merge``.
    prediction_components, label_components : int
    """

    score: float
    split: float
    merge: float
    total: float
    prediction_components: int
    label_components: int


@dataclass(frozen=True)
class ScoreReport:
    """One volume's score, term by term; ``str()`` gives a table.

    Attributes
    ----------
    score : float
        ``0.30 topology + 0.35 surface + 0.35 voi``, in [0, 1].
    topology : TopologyScore
    surface : SurfaceScore
    voi : VoiScore
    timings_s : mapping of str to float
        Seconds for ``"masks"`` (checks and foregrounds), each term, and in ``"total"``.
    """

    score: float
    topology: TopologyScore
    surface: SurfaceScore
    voi: VoiScore
    timings_s: Mapping[str, float]

    @property
    def terms(self) -> dict[str, float]:
        """Each term's score, in [0, 1]."""
        return {"topology": self.topology.score, "surface": self.surface.score, "voi": self.voi.score}

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    def _repr_html_(self) -> str:
        topology, surface, voi = self.topology, self.surface, self.voi
        area = f"{surface.prediction_within:.1f} of {surface.prediction_area:.1f} predicted near the label, "
        area += f"{surface.label_within:.1f} of {surface.label_area:.1f} the other way round"
        bits = f"split {voi.split:.3f} + merge {voi.merge:.3f} bits; "
        bits += f"{voi.prediction_components} components, {voi.label_components} in the label"
        rows: list[tuple[Any, ...]] = [("topology", TERM_WEIGHTS["topology"], topology.score, "")]
        for name, each in zip(DIMENSION_NAMES, topology.dimensions, strict=True):
            counts = f"matched {each.matched} of {each.predicted} predicted, {each.label} in the label"
            rows.append((f"· {name}", None, each.f1, counts))
        rows += [
            ("surface Dice", TERM_WEIGHTS["surface"], surface.score, area),
            ("VOI", TERM_WEIGHTS["voi"], voi.score, bits),
        ]
        return table(f"Score {self.score:.4f}", ["term", "weight", "score", "made of"], rows)

    def __str__(self) -> str:
        def line(name: str, weight: float, value: float, detail: str) -> str:
            return f"{name:<14}{weight:>6.2f}  {value:.6f}  {detail}".rstrip()

        topology, surface, voi = self.topology, self.surface, self.voi
        lines = [f"{'term':<14}weight  score", line("topology", TERM_WEIGHTS["topology"], topology.score, "")]
        for name, weight, d in zip(DIMENSION_NAMES, DIMENSION_WEIGHTS, topology.dimensions, strict=True):
            counts = f"matched {d.matched} of {d.predicted} predicted, {d.label} in the label"
            value = "does not count" if d.f1 is None else f"{d.f1:.6f}"
            lines.append(f"  {name:<12}{weight:>6.2f}  {value}  {counts}")
        near = f"prediction {surface.prediction_within:.1f} of {surface.prediction_area:.1f} within the tolerance"
        near += f", label {surface.label_within:.1f} of {surface.label_area:.1f}"
        parts = f"split {voi.split:.6f} + merge {voi.merge:.6f} = {voi.total:.6f} bits"
        parts += f"; {voi.prediction_components} components against {voi.label_components}"
        lines.append(line("surface Dice", TERM_WEIGHTS["surface"], surface.score, near))
        lines.append(line("VOI", TERM_WEIGHTS["voi"], voi.score, parts))
        lines.append(line("score", 1.0, self.score, f"in {self.timings_s['total']:.2f} s"))
        return "\n".join(lines)


@dataclass(frozen=True)
class ScoreSummary:
    """Many volumes' scores.

    Attributes
    ----------
    score : float
        Mean of the volumes' scores: the leaderboard's number.
    topology, surface, voi : float
        Means of the terms.
    reports : mapping of str to ScoreReport
        By volume id, in ascending order.
    labels_without_prediction : tuple of str
        Ids in the labels' folder that no prediction was given for; they count nowhere.
    """

    score: float
    topology: float
    surface: float
    voi: float
    reports: Mapping[str, ScoreReport]
    labels_without_prediction: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    def _repr_html_(self) -> str:
        rows: list[tuple[Any, ...]] = [(name, *each.terms.values(), each.score) for name, each in self.reports.items()]
        missing = len(self.labels_without_prediction)
        return table(
            f"Mean score {self.score:.4f} of {counted(len(self.reports), 'volume')}",
            ["volume", "topology", "surface Dice", "VOI", "score"],
            [("mean", self.topology, self.surface, self.voi, self.score), *rows],
            notes=[f"{counted(missing, 'label')} without a prediction" if missing else ""],
        )

    def __str__(self) -> str:
        width = max(len("volume"), *map(len, self.reports))
        lines = [f"{'volume':<{width}}  topology   surface       VOI     score"]
        rows = {name: (*report.terms.values(), report.score) for name, report in self.reports.items()}
        rows["mean"] = (self.topology, self.surface, self.voi, self.score)
        lines += [f"{name:<{width}}  " + "  ".join(f"{value:8.6f}" for value in row) for name, row in rows.items()]
        return "\n".join(lines)
