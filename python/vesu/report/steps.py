"""What each step of the ladder changed in the middle slice (``segment/ID_steps.npz``), read and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FormatError
from vesu.report.npzfile import open_npz
from vesu.report.pictures import RGB, Jpeg, Panel, fitted, panel, stretch

ADDED, REMOVED, KEPT = (46, 204, 113), (214, 51, 132), (240, 236, 226)
BUDGET_BYTES = 3 * 2**18  # of JPEG, all volumes together
MAX_STEPS = 32


@dataclass(frozen=True)
class StepSlices:
    """The CT of one z slice, (y, x), and the mask in it before the first step and after each: (n_steps + 1, y, x)."""

    index: int
    volume: NDArray[Any]
    masks: NDArray[np.bool_]


def read_step_slices(path: Path) -> StepSlices | None:
    """The slices of one volume; no file means none.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    with open_npz(path) as archive:
        if archive is None:
            return None
        index, image, masks = (archive.array(name) for name in ("index", "volume", "masks"))
    if index.size != 1 or index.dtype.kind not in "iu":
        raise FormatError(f"{path}: index: got {index.dtype} {index.shape}; accepted: one whole number")
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "biuf":
        raise FormatError(f"{path}: volume: got {image.dtype} {image.shape}; accepted: a 2-D array of numbers")
    fits = masks.ndim == 3 and masks.shape[1:] == image.shape and 2 <= masks.shape[0] <= MAX_STEPS + 1
    if not fits or masks.dtype.kind not in "biu":
        raise FormatError(
            f"{path}: masks: got {masks.dtype} {masks.shape}; accepted: 2 to {MAX_STEPS + 1} masks of {image.shape}"
        )
    return StepSlices(int(index.reshape(())), image, masks != 0)


def draw_steps(
    volumes: Sequence[tuple[str, Sequence[str], StepSlices | None]], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[Panel, ...], ...]:
    """One picture a step: what it kept of the mask, what it added, what it removed.

    Parameters
    ----------
    volumes
        Volume id, names of the steps, slices. Names that do not fit the slices' number are left out.
    budget_bytes
        Bytes of JPEG for all of them; larger pictures are reduced.
    """
    drawn = [
        step_picture(slices, number)
        for _, _, slices in volumes
        if slices is not None
        for number in range(len(slices.masks) - 1)
    ]
    pictures = iter(fitted(drawn, budget_bytes)[0])
    return tuple(
        ()
        if slices is None
        else tuple(_panel(volume_id, names, slices, n, next(pictures)) for n in range(len(slices.masks) - 1))
        for volume_id, names, slices in volumes
    )


def step_picture(slices: StepSlices, number: int) -> RGB:
    """The slice with what a step kept, added and removed in its colours, on the darkened CT."""
    before, after = slices.masks[number], slices.masks[number + 1]
    image = np.repeat((stretch(slices.volume) // 2)[..., None], 3, axis=2)  # dark, so that the colours stand out
    image[before & after] = KEPT
    image[after & ~before] = ADDED
    image[before & ~after] = REMOVED
    return image


def _panel(volume_id: str, names: Sequence[str], slices: StepSlices, number: int, image: Jpeg) -> Panel:
    before, after = slices.masks[number], slices.masks[number + 1]
    added, removed = int((after & ~before).sum()), int((before & ~after).sum())
    name = names[number] if number < len(names) else f"step {number + 1}"
    counts = f"{added} voxels added, {removed} removed" if added or removed else "no change"
    alt = f"Step {number + 1}, {name}, in volume {volume_id}, slice z = {slices.index}: {counts}"
    return panel(f"{number + 1}. {name}: {counts}", alt, image)
