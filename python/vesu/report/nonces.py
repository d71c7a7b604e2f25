"""The golden nonces of the test volumes (``segment/ID_nonce_views.npz``), read and drawn (R31)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FormatError
from vesu.report.npzfile import Npz, open_npz
from vesu.report.pictures import AXIS_NAMES, RGB, Jpeg, Panel, fitted, panel, stretch
from vesu.report.unmatched import stamp
from vesu.report.views import check_layers, read_index

ENDING = "_nonce_views.npz"
BUDGET_BYTES = 2**19  # of JPEG, all volumes together
PICTURED = 4
MAX_MARKS = 20_000  # a run stores at most 300
MARK = (255, 214, 10)
_LEAST_PIXELS = 256
"""Smaller slices are drawn larger, so that a mark hides little of them."""


@dataclass(frozen=True)
class NonceView:
    """One slice, (down, across): the CT, and where the best nonces near it lie."""

    axis: str
    index: int
    volume: NDArray[Any]
    marks: NDArray[np.int64]


@dataclass(frozen=True)
class Nonces:
    """What one volume has of them, and the slices near which most of the best lie."""

    volume_id: str
    found: int
    best: int
    reach: int
    views: tuple[NonceView, ...]


def read_nonces(path: Path) -> Nonces:
    """One volume's file.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    with open_npz(path) as archive:
        if archive is None:
            raise FormatError(f"{path}: vanished while the report was being written")
        found, best, reach = (read_index(archive, name) for name in ("found", "best", "reach"))
        views = tuple(_view(archive, axis) for axis in AXIS_NAMES if archive.has(f"{axis}_index"))
    return Nonces(path.name.removesuffix(ENDING), found, best, reach, views)


def _view(archive: Npz, axis: str) -> NonceView:
    volume = check_layers(archive, axis, ("volume",))["volume"]
    marks = archive.array(f"{axis}_marks")
    if marks.ndim != 2 or marks.shape[1] != 2 or len(marks) > MAX_MARKS or marks.dtype.kind not in "iu":
        got = f"{marks.dtype} {marks.shape}"
        raise FormatError(f"{archive.path}: {axis}_marks: got {got}; accepted: up to {MAX_MARKS} rows of 2 pixels")
    if ((marks < 0) | (marks >= volume.shape)).any():
        raise FormatError(f"{archive.path}: {axis}_marks: got a pixel outside; accepted: those of {volume.shape}")
    return NonceView(axis, read_index(archive, f"{axis}_index"), volume, marks.astype(np.int64))


def draw_nonces(
    volumes: Sequence[Nonces], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[Nonces, tuple[Panel, ...]], ...]:
    """Each volume with one picture a slice; larger pictures are reduced until all fit the budget."""
    pictures = iter(fitted([_picture(view) for each in volumes for view in each.views], budget_bytes)[0])
    return tuple((each, tuple(_panel(each, view, next(pictures)) for view in each.views)) for each in volumes)


def _picture(view: NonceView) -> RGB:
    """The CT with a ring around each nonce: what it marks stays visible."""
    scale = max(1, round(_LEAST_PIXELS / max(view.volume.shape)))
    image: RGB = np.repeat(stretch(view.volume)[..., None], 3, axis=2).repeat(scale, axis=0).repeat(scale, axis=1)
    for down, across in view.marks.tolist():
        stamp(image, (down * scale + scale // 2, across * scale + scale // 2), 4, MARK, True)
    return image


def _panel(nonces: Nonces, view: NonceView, picture: Jpeg) -> Panel:
    down, across = AXIS_NAMES[view.axis]
    title = f"{view.axis} = {view.index}, {down} down, {across} across: {len(view.marks)} of the best {nonces.best}"
    alt = (
        f"Golden nonces within {nonces.reach} slices of {view.axis} = {view.index} in volume {nonces.volume_id}: "
        f"{len(view.marks)} marked"
    )
    return panel(title, alt, picture)
