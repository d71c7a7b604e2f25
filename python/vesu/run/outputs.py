"""The files of the run folder that the report reads: diagnostics, views, and the summary's parts."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.storage import atomic_write
from vesu.distill.values import StudentPrediction, TrainingVolume
from vesu.run.validation import ScoredVolume
from vesu.scoring import UnmatchedFeatures
from vesu.segmentation import Segmentation, StepReport
from vesu.submission import SubmissionReport

__all__ = [
    "StepSlices",
    "diagnostics_entry",
    "finite",
    "printable",
    "submission_entry",
    "write_guided_views",
    "write_nonce_views",
    "write_student_views",
    "write_unmatched",
    "write_views",
]


def diagnostics_entry(volume_id: str, result: Segmentation) -> dict[str, Any]:
    """The content of ``segment/ID.json`` (R30)."""
    return {
        "volume_id": volume_id,
        "shape": list(result.mask.shape),
        "thresholds": {"low": result.thresholds.low, "high": result.thresholds.high},
        **result.diagnostics.to_json(),
        "steps": [step.to_json() for step in result.steps],  # their seconds are in the log, events that they are
        "truth": None,
    }


def write_views(
    path: Path,
    image: Any,
    probability: NDArray[np.float32],
    uncertainty: NDArray[np.float32] | None,
    result: Segmentation,
) -> None:
    """The slice richest in surface along each axis, for the report; no layer of an uncertainty that nobody measured."""
    views: dict[str, Any] = {}
    scaled = _as_uint8(image)
    for axis, name in enumerate("zyx"):
        others = tuple(other for other in range(3) if other != axis)
        index = int(result.mask.sum(axis=others).argmax())
        views[f"{name}_index"] = np.int64(index)
        views[f"{name}_volume"] = scaled.take(index, axis)
        views[f"{name}_probability"] = probability.take(index, axis)
        views[f"{name}_mask"] = result.mask.take(index, axis)
        if uncertainty is not None:
            views[f"{name}_uncertainty"] = uncertainty.take(index, axis)
    with atomic_write(path) as file:
        np.savez_compressed(file, **views)


def write_student_views(path: Path, volume: TrainingVolume, found: StudentPrediction) -> None:
    """``student_views/ID.npz``: what teachers and student say of a validation volume, along each axis one slice.

    For the axes z, y, x: ``z_index``, the slice richest in labelled surface; ``z_volume`` (the CT), ``z_label``,
    ``z_probability`` and ``z_uncertainty`` of the student, ``z_teachers`` (the mean probability) and
    ``z_disagreement`` of the teachers, all of one shape (down, across).
    """
    assert volume.label is not None and volume.soft is not None
    views: dict[str, Any] = {}
    surface = volume.label == 1
    for axis, name in enumerate("zyx"):
        index = int(surface.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        logit = volume.soft.mean_logit.take(index, axis).astype(np.float32)
        views[f"{name}_index"] = np.int64(index)
        views[f"{name}_volume"] = _as_uint8(volume.image).take(index, axis)
        views[f"{name}_label"] = volume.label.take(index, axis)
        views[f"{name}_probability"] = found.probability.take(index, axis)
        views[f"{name}_uncertainty"] = found.uncertainty.take(index, axis)
        views[f"{name}_teachers"] = 1 / (1 + np.exp(-logit))
        views[f"{name}_disagreement"] = volume.soft.disagreement.take(index, axis).astype(np.float32)
    with atomic_write(path) as file:
        np.savez_compressed(file, **views)


def write_guided_views(
    path: Path,
    image: Any,
    reference: NDArray[np.uint8],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    *,
    offset: tuple[int, int],
) -> None:
    """``guided/ID.npz``: along each axis the slice of the part kept out that is richest in the reference's surface.

    For the axes z, y, x: ``z_index`` (in the whole volume), ``z_volume`` (the CT), ``z_reference``, ``z_before`` and
    ``z_after`` (the masks), all of one shape (down, across). ``offset``: along which axis that part begins where.
    """
    views: dict[str, Any] = {}
    surface, scaled = reference == 1, _as_uint8(image)
    for axis, name in enumerate("zyx"):
        index = int(surface.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        views[f"{name}_index"] = np.int64(index + (offset[1] if axis == offset[0] else 0))
        layers = {"volume": scaled, "reference": reference, "before": before, "after": after}
        for layer, array in layers.items():
            views[f"{name}_{layer}"] = array.take(index, axis)
    with atomic_write(path) as file:
        np.savez_compressed(file, **views)


MARK_REACH = 4
"""A slice carries the marks of the features that lie up to so many slices off."""
MAX_MARKS = 250
"""Of each kind on a slice: more would hide what they mark."""


def write_unmatched(path: Path, scored: ScoredVolume) -> None:
    """``validation/ID.npz``: along each axis the slice near which most unmatched features lie, and where they lie.

    For the axes z, y, x: ``z_index``, ``z_volume`` (the CT), ``z_mask``, ``z_label``, all of one shape (down, across);
    ``z_marks``, int32 of shape (n, 4): side (0 the prediction's, 1 the label's), dimension, down, across; ``z_found``,
    how many there were before they were thinned; and ``reach``, how many slices off they lie at most.
    """
    places = _places(scored.unmatched)
    image = _as_uint8(scored.image)
    views: dict[str, Any] = {"reach": np.int64(MARK_REACH)}
    for axis, name in enumerate("zyx"):
        index = _busiest(places[:, 2 + axis], scored.label, axis)
        near = places[np.abs(places[:, 2 + axis] - index) <= MARK_REACH]
        views[f"{name}_index"] = np.int64(index)
        views[f"{name}_found"] = np.int64(len(near))
        views[f"{name}_marks"] = np.delete(_thinned(near), 2 + axis, axis=1).astype(np.int32)
        for layer, volume in (("volume", image), ("mask", scored.mask), ("label", scored.label)):
            views[f"{name}_{layer}"] = volume.take(index, axis).astype(np.uint8)
    with atomic_write(path) as file:
        np.savez_compressed(file, **views)


def _places(unmatched: UnmatchedFeatures) -> NDArray[np.int64]:
    """One row a feature: side, dimension, z, y, x."""
    rows = [
        np.insert(places, (0, 0), (side, dimension), axis=1)
        for side, sides in enumerate((unmatched.prediction, unmatched.label))
        for dimension, places in enumerate(sides.dimensions)
    ]
    return np.concatenate(rows)


def _busiest(positions: NDArray[np.int64], label: Any, axis: int) -> int:
    """The slice with most features within reach, the middle of equals; without any, the one richest in surface."""
    if not len(positions):
        others = tuple(other for other in range(3) if other != axis)
        return int((label == 1).sum(axis=others).argmax())
    by_slice = np.bincount(positions, minlength=label.shape[axis])
    padded = np.pad(by_slice, MARK_REACH)
    near = np.convolve(padded, np.ones(2 * MARK_REACH + 1, np.int64), mode="valid")
    best = np.flatnonzero(near == near.max())
    return int(best[len(best) // 2])


def _thinned(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `MAX_MARKS` of each side and dimension, spread evenly over them."""
    kinds = [places[(places[:, 0] == side) & (places[:, 1] == dimension)] for side in (0, 1) for dimension in (0, 1, 2)]
    return np.concatenate([kind[:: max(1, -(-len(kind) // MAX_MARKS))] for kind in kinds])


def write_nonce_views(path: Path, image: Any, best: NDArray[np.int64], found: int) -> None:
    """``segment/ID_nonce_views.npz``: along each axis the slice near which most of the best golden nonces lie (R31).

    For the axes z, y, x: ``z_index``, ``z_volume`` (the CT, (down, across)) and ``z_marks``, int32 of shape (n, 2):
    down, across of those within ``reach`` slices; ``best``, how many are looked at, and ``found``, how many there are.
    """
    counts = {"reach": MARK_REACH, "best": len(best), "found": found}
    views: dict[str, Any] = {name: np.int64(value) for name, value in counts.items()}
    scaled = _as_uint8(image)
    for axis, name in enumerate("zyx" if len(best) else ""):
        index = _busiest(best[:, axis], scaled, axis)
        near = best[np.abs(best[:, axis] - index) <= MARK_REACH]
        views[f"{name}_index"] = np.int64(index)
        views[f"{name}_volume"] = scaled.take(index, axis)
        views[f"{name}_marks"] = np.delete(near, axis, axis=1).astype(np.int32)
    with atomic_write(path) as file:
        np.savez_compressed(file, **views)


class StepSlices:
    """The middle z slice of a volume's mask before and after each step, for the report.

    Its `add` is what :func:`vesu.segment` calls ``on_step``.
    """

    def __init__(self, image: Any) -> None:
        self.index = image.shape[0] // 2
        self.volume = _as_uint8(image[self.index])
        self.masks: list[Any] = []

    def add(self, report: StepReport, before: Any, after: Any) -> None:
        """Keep a step's slice."""
        if not self.masks:
            self.masks.append(before[self.index].copy())
        self.masks.append(after[self.index].copy())

    def write(self, path: Path) -> None:
        """``ID_steps.npz``: the slice's index, the CT, and the masks, shape (n_steps + 1, y, x)."""
        with atomic_write(path) as file:
            np.savez_compressed(file, index=np.int64(self.index), volume=self.volume, masks=np.stack(self.masks))


def printable(path: Path) -> str:
    """The path as valid text, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _as_uint8(image: Any) -> Any:
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return ((image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}


def submission_entry(report: SubmissionReport) -> dict[str, Any]:
    return {
        "path": report.path.name,
        "sha256": report.sha256,
        "n_bytes": report.n_bytes,
        "members": [
            {"name": member.name, "shape": list(member.shape), "ink_ratio": member.ink_ratio}
            for member in report.members
        ],
    }
