"""Where features have no partner (``validation/ID.npz``), read and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FormatError
from vesu.report.npzfile import Npz, open_npz
from vesu.report.pictures import AXIS_NAMES, RGB, Jpeg, Panel, fitted, panel, stretch
from vesu.report.scores import DIMENSIONS

BUDGET_BYTES = 2**19  # of JPEG, all volumes together
PICTURED = 4
MAX_MARKS = 20_000  # a run stores at most 1500
AXES = ("z", "y", "x")

BOTH, OURS, THEIRS = (166, 160, 148), (46, 108, 176), (58, 140, 84)
MARKS = ((255, 122, 69), (255, 214, 10), (236, 72, 214))
"""Colours of components, tunnels, cavities."""
_LEAST_PIXELS = 256
"""Smaller slices are drawn larger, so that a mark hides little of them."""


@dataclass(frozen=True)
class Marked:
    """One slice, (down, across): CT, mask, label; `marks` (n, 4): side, dimension, down, across, of `found` in all."""

    axis: str
    index: int
    reach: int
    volume: NDArray[Any]
    mask: NDArray[Any]
    label: NDArray[Any]
    marks: NDArray[Any]
    found: int


def read_marked(path: Path) -> tuple[Marked, ...]:
    """The marked slices of one volume, in the order z, y, x; no file means none.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    with open_npz(path) as archive:
        if archive is None:
            return ()
        return tuple(_marked(archive, axis) for axis in AXES if archive.has(f"{axis}_index"))


def _marked(archive: Npz, axis: str) -> Marked:
    layers = {name: archive.array(f"{axis}_{name}") for name in ("volume", "mask", "label")}
    shape = layers["volume"].shape
    for name, array in layers.items():
        if array.ndim != 2 or array.size == 0 or array.shape != shape or array.dtype.kind not in "bu":
            raise FormatError(
                f"{archive.path}: {axis}_{name}: got {array.dtype} {array.shape}; accepted: bytes, 2-D as {shape}"
            )
    return Marked(
        axis=axis,
        index=_number(archive, f"{axis}_index"),
        reach=_number(archive, "reach"),
        marks=_marks(archive, f"{axis}_marks", shape),
        found=_number(archive, f"{axis}_found"),
        **layers,
    )


def _number(archive: Npz, name: str) -> int:
    array = archive.array(name)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise FormatError(f"{archive.path}: {name}: got {array.dtype} {array.shape}; accepted: one whole number")
    return int(array.reshape(()))


def _marks(archive: Npz, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    marks = archive.array(name)
    if marks.ndim != 2 or marks.shape[1] != 4 or len(marks) > MAX_MARKS or marks.dtype.kind not in "iu":
        got = f"{marks.dtype} {marks.shape}"
        raise FormatError(f"{archive.path}: {name}: got {got}; accepted: up to {MAX_MARKS} rows of 4 whole numbers")
    beyond = (marks < 0) | (marks >= (2, len(DIMENSIONS), *shape))
    if beyond.any():
        row = marks[beyond.any(axis=1)][0].tolist()
        accepted = f"side 0 or 1, dimension 0 to 2, a pixel of {shape}"
        raise FormatError(f"{archive.path}: {name}: got {row}; accepted: {accepted}")
    return marks.astype(np.int64)


def draw_marked(
    volumes: Sequence[tuple[str, Sequence[Marked]]], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[Panel, ...], ...]:
    """One picture a slice, with the marks of its unmatched features.

    Parameters
    ----------
    volumes
        Pairs (volume id, marked slices).
    budget_bytes
        Bytes of JPEG for all of them; larger pictures are reduced.
    """
    pictures = iter(fitted([marked_picture(view) for _, views in volumes for view in views], budget_bytes)[0])
    return tuple(tuple(_panel(volume_id, view, next(pictures)) for view in views) for volume_id, views in volumes)


def marked_picture(view: Marked) -> RGB:
    """The darkened CT with both masks in their colours, and the marks: discs the prediction's, rings the label's."""
    image = np.repeat((stretch(view.volume) // 2)[..., None], 3, axis=2)
    ours, theirs = view.mask != 0, view.label == 1
    image[ours & theirs] = BOTH
    image[ours & ~theirs & (view.label != 2)] = OURS
    image[theirs & ~ours] = THEIRS
    scale = max(1, round(_LEAST_PIXELS / max(image.shape[:2])))
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    radius = max(4, round(max(image.shape[:2]) / 80))
    for side, dimension, down, across in view.marks.tolist():
        stamp(image, (down * scale + scale // 2, across * scale + scale // 2), radius, MARKS[dimension], side == 1)
    return image


def stamp(image: RGB, centre: tuple[int, int], radius: int, colour: tuple[int, int, int], is_ring: bool) -> None:
    """A disc or a ring with a black rim, as far as it lies within the picture."""
    reach = radius + 1
    rows, columns = (
        np.arange(max(0, at - reach), min(size, at + reach + 1))
        for at, size in zip(centre, image.shape[:2], strict=True)
    )
    away = np.hypot(rows[:, None] - centre[0], columns[None] - centre[1])
    window = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inner = radius - 2 if is_ring else -1
    window[(away <= reach) & (away >= inner - 1)] = 0
    window[(away <= radius) & (away > inner)] = colour


def _panel(volume_id: str, view: Marked, image: Jpeg) -> Panel:
    down, across = AXIS_NAMES[view.axis]
    counts = [
        f"{words} {np.count_nonzero((view.marks[:, 0] == side) & (view.marks[:, 1] == dimension))} {kind}"
        for side, words in ((0, "prediction:"), (1, "label:"))
        for dimension, kind in enumerate(DIMENSIONS)
    ]
    fewer = "" if view.found == len(view.marks) else f" ({len(view.marks)} of {view.found} marked)"
    title = f"{view.axis} = {view.index}, {down} down, {across} across: {view.found} unmatched{fewer}"
    alt = f"Unmatched features within {view.reach} slices of {view.axis} = {view.index} in volume {volume_id}, marked: "
    return panel(title, alt + ", ".join(counts), image)
