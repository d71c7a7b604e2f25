"""What `distill_real.py` is made of: a checkpoint on disk, thresholds and scores, the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import vesu
from vesu.data.storage import atomic_folder, new_file, remove_tree_atomic
from vesu.distill.values import TrainingVolume
from vesu.run import validation
from vesu.segmentation import SegmentConfig, Threshold, ThresholdRule

Probability: TypeAlias = NDArray[np.float32]
Answers: TypeAlias = Mapping[str, Probability]
"""Probabilities by volume id."""

SHARES = (0.02, 0.03, 0.045, 0.06, 0.08, 0.105, 0.135, 0.17)
"""Shares of the voxels above the thresholds that are tried: every model has its own scale, these have none."""


class Checkpoint:
    """The newest state of a training, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, parts: Mapping[str, bytes], cursor: object) -> None:
        """Write the state whole, then drop the older ones."""
        older = self._states()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_folder(self.folder / f"{int(older[-1].name) + 1 if older else 0:06d}") as folder:
            for name, data in parts.items():
                with new_file(folder / name) as file:
                    file.write(data)
        for state in older:
            remove_tree_atomic(state)

    def parts(self) -> dict[str, bytes] | None:
        """What was saved last; None if nothing was."""
        states = self._states()
        return {path.name: path.read_bytes() for path in states[-1].iterdir()} if states else None

    def _states(self) -> list[Path]:
        found = self.folder.glob("[0-9]*") if self.folder.is_dir() else ()
        return sorted(found)


@dataclass(frozen=True)
class Row:
    """One model's scores on one held-out volume."""

    held_out: str
    """The held-out label."""
    who: str
    volume: str
    threshold: float
    score: float
    topology: float
    surface: float
    voi: float
    f1: float
    f_beta: float
    density: float
    """Share of the labelled voxels that the mask holds."""


def sigmoid(logit: NDArray[np.float16]) -> Probability:
    """Probability of a logit."""
    wide = logit.astype(np.float32)
    return np.asarray(1 / (1 + np.exp(-wide)), np.float32)


def mask_of(probability: Probability, threshold: float) -> NDArray[np.uint8]:
    """The default ladder with this threshold."""
    rule = ThresholdRule("fixed", threshold)
    steps = [Threshold(rule=rule) if isinstance(step, Threshold) else step for step in SegmentConfig().steps]
    return vesu.segment(probability, SegmentConfig(steps=tuple(steps))).mask


def choose_threshold(answers: Answers, volumes: Sequence[TrainingVolume]) -> float:
    """The threshold with the best mean of the competition's score over labelled volumes."""
    pooled = np.concatenate([answers[volume.volume_id].ravel() for volume in volumes])
    tried = sorted({float(np.clip(np.quantile(pooled, 1 - share), 1e-6, 1 - 1e-6)) for share in SHARES})

    def mean_score(threshold: float) -> float:
        masks = [(mask_of(answers[volume.volume_id], threshold), labelled(volume)) for volume in volumes]
        return float(np.mean([vesu.score(mask, label).score for mask, label in masks]))

    return max(tried, key=mean_score)


def rows_of(
    held_out: str, who: str, answers: Answers, threshold: float, volumes: Sequence[TrainingVolume]
) -> list[Row]:
    """Scores of one model on the held-out volumes."""
    rows = []
    for volume in volumes:
        label = labelled(volume)
        mask = mask_of(answers[volume.volume_id], threshold)
        report, found = vesu.score(mask, label), validation.scores(mask, label)
        terms = (report.score, report.topology.score, report.surface.score, report.voi.score)
        density = float(mask[label != 2].mean())
        rows.append(Row(held_out, who, volume.volume_id, threshold, *terms, found["f1"], found["f_beta"], density))
    return rows


def labelled(volume: TrainingVolume) -> NDArray[np.uint8]:
    """Its label, which must be there."""
    assert volume.label is not None
    return volume.label


FIGURES = ("score", "topology", "surface", "voi", "f1", "f_beta", "density")


def means_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each model and held-out label: means over the volumes; 'teachers, mean of' over the teachers too."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.held_out, row.who), []).append(row)
        if row.who.startswith("teacher "):
            groups.setdefault((row.held_out, "mean of the teachers"), []).append(row)
    means = []
    for (held_out, who), members in groups.items():
        figures = {name: float(np.mean([getattr(row, name) for row in members])) for name in FIGURES}
        means.append({"held_out": held_out, "who": who, "n": len(members), **figures})
    return means


def markdown(means: Sequence[Mapping[str, Any]]) -> str:
    """The table of the docs."""
    lines = [f"| held out | who | {' | '.join(FIGURES)} |", f"|{'---|' * (len(FIGURES) + 2)}"]
    for row in means:
        figures = " | ".join(f"{row[name]:.3f}" for name in FIGURES)
        lines.append(f"| {row['held_out']} | {row['who']} | {figures} |")
    return "\n".join(lines)
