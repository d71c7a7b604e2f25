"""The guided phase as the run left it: figures before and after on voxels kept out, and slices of them (R24)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.report.jsonfile import Node
from vesu.report.npzfile import open_npz
from vesu.report.pictures import AXIS_NAMES, RGB, Panel, fitted, panel, stretch
from vesu.report.views import check_layers, read_index

__all__ = ["Guided", "GuidedView", "draw_guided_views", "read_guided", "read_guided_views"]

DELTA_FILE, FOLDER = "v3_competitor_guided_delta.json", "guided"
BUDGET_BYTES = 2**19
LAYERS = ("volume", "reference", "before", "after")
BOTH, OURS, THEIRS = (240, 236, 226), (255, 122, 69), (64, 156, 255)
"""Surface in both, in the mask alone, in the reference alone."""
MEASURES = {"iou": "IoU", "dice": "Dice", "density_gap": "Density gap"}
TRUE_MEASURES = {"score": "Score", "f1": "F1", "f_beta": "F-beta 0.5", "iou": "IoU"}


@dataclass(frozen=True)
class Guided:
    """``v3_competitor_guided_delta.json``."""

    volume_id: str
    state: str | None
    reason: str | None
    target: str | None
    model_in_use: str | None
    reference: str | None
    voxels_fit: int | None
    voxels_held_out: int | None
    split: str | None
    """Where the part that judged lies, in words."""
    rows: tuple[tuple[str, float | None, float | None, float | None], ...]
    """Measure, before, after, and the difference."""
    true_rows: tuple[tuple[str, float | None, float | None], ...]
    """The same on true labels, where the aligned model is in use."""


def read_guided(folder: Path) -> Guided | None:
    """What a run folder says of the phase; None where there was none.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names file and field.
    """
    node = Node.read(folder / DELTA_FILE)
    if node is None:
        return None
    before, after, delta = (node.mapping_of_numbers(name) for name in ("before", "after", "delta"))
    true = node.child("true_labels") or Node({}, node.where)
    true_before, true_after = (true.mapping_of_numbers(name) for name in ("before", "after"))
    reference = node.child("reference") or Node({}, node.where)
    return Guided(
        volume_id=node.text("volume_id") or "(no id)",
        state=node.text("state"),
        reason=node.text("reason"),
        target=node.text("target"),
        model_in_use=node.text("model_in_use"),
        reference=reference.text("path"),
        voxels_fit=node.integer("voxels_fit"),
        voxels_held_out=node.integer("voxels_held_out"),
        split=_in_words(node.child("split")),
        rows=tuple(
            (words, before.get(name), after.get(name), delta.get(name)) for name, words in MEASURES.items() if before
        ),
        true_rows=tuple(
            (words, true_before.get(name), true_after.get(name))
            for name, words in TRUE_MEASURES.items()
            if name in true_after
        ),
    )


def _in_words(split: Node | None) -> str | None:
    if split is None:
        return None
    axis, margin = split.text("axis"), split.integer("margin")
    held_out, fit = (split.numbers(name) for name in ("held_out", "fit"))
    if axis is None or margin is None or len(held_out) != 2 or len(fit) != 2:
        return None
    judged, aligned = (f"{axis} from {first:g} to {last - 1:g}" for first, last in (held_out, fit))
    return f"judged on {judged}, aligned to {aligned}, {margin} slices between them in neither"


@dataclass(frozen=True)
class GuidedView:
    """One slice of the part that judged, all layers of one 2-D shape."""

    axis: str
    index: int
    layers: Mapping[str, NDArray[Any]]


def read_guided_views(folder: Path, volume_id: str) -> tuple[GuidedView, ...]:
    """The slices of ``guided/ID.npz``, in the order z, y, x; no file means none.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    names = {path.stem: path for path in (folder / FOLDER).glob("*.npz")}
    if volume_id not in names:
        return ()
    with open_npz(names[volume_id]) as archive:
        if archive is None:
            return ()
        return tuple(
            GuidedView(axis, read_index(archive, f"{axis}_index"), check_layers(archive, axis, LAYERS))
            for axis in AXIS_NAMES
            if archive.has(f"{axis}_index")
        )


def draw_guided_views(
    volume_id: str, views: Sequence[GuidedView], *, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[Panel, ...], ...]:
    """Of each slice the mask before and after beside the reference: what both have, what one has alone."""
    pictures = iter(
        fitted([_picture(view, moment) for view in views for moment in ("before", "after")], budget_bytes)[0]
    )
    return tuple(
        tuple(_panel(volume_id, view, moment, next(pictures)) for moment in ("before", "after")) for view in views
    )


def swatches() -> list[tuple[str, str]]:
    """What the colours mean: colour, words."""
    words = ("mask and reference", "mask only", "reference only")
    return [
        ("#{:02x}{:02x}{:02x}".format(*colour), each) for colour, each in zip((BOTH, OURS, THEIRS), words, strict=True)
    ]


def _picture(view: GuidedView, moment: str) -> RGB:
    ours, theirs = view.layers[moment] == 1, view.layers["reference"] == 1
    image = np.repeat((stretch(view.layers["volume"]) // 2)[..., None], 3, axis=2)  # dark: the colours stand out
    for where, colour in ((ours & theirs, BOTH), (ours & ~theirs, OURS), (theirs & ~ours, THEIRS)):
        image[where] = colour
    return image


def _panel(volume_id: str, view: GuidedView, moment: str, image: Any) -> Panel:
    down, across = AXIS_NAMES[view.axis]
    title = f"{moment.title()}: {view.axis} = {view.index}"
    alt = f"Mask {moment} the guided phase beside the reference, {view.axis} = {view.index} of volume {volume_id}"
    return panel(title, f"{alt}, {down} down, {across} across", image)
