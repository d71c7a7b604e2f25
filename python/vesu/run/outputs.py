"""The files of the run folder that the report reads: diagnostics, views, and the summary's parts."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.storage import atomic_write
from vesu.segmentation import Segmentation, StepReport
from vesu.submission import SubmissionReport

__all__ = ["StepSlices", "diagnostics_entry", "finite", "printable", "submission_entry", "write_views"]


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
