"""All volumes at a glance: a contact sheet, and which of many volumes are pictured in full."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vesu.report.npzfile import open_npz
from vesu.report.pictures import RGB, Jpeg, Panel, fitted, overlay, panel, resized, stretch
from vesu.report.views import check_layers
from vesu.report.volumes import Volume

BUDGET_BYTES = 5 * 2**17  # of JPEG, all thumbnails together
SIDE = 112
"""Pixels of a thumbnail's longer side: a dozen of them stand in a row on a large screen, three on a phone."""
MAX_THUMBNAILS = 240


@dataclass(frozen=True)
class Thumbnail:
    """One volume on the sheet; without a picture where no slices were stored."""

    volume: Volume
    picture: Panel | None


def by_density(volumes: Sequence[Volume]) -> list[Volume]:
    """From the sparsest to the densest mask, those of unknown density first: what went wrong stands at an end."""
    return sorted(volumes, key=lambda each: -1.0 if each.ink_ratio_global is None else each.ink_ratio_global)


def spread(volumes: Sequence[Volume], count: int) -> list[Volume]:
    """So many volumes, evenly from the sparsest to the densest, both ends among them; all of them if they are no more.

    Examples
    --------
    >>> spread([], 3)
    []
    """
    if len(volumes) <= count:
        return list(volumes)
    ranked = by_density(volumes)
    places: NDArray[np.int64] = np.linspace(0, len(ranked) - 1, count).round().astype(np.int64)
    return [ranked[place] for place in places]


def contact_sheet(volumes: Sequence[Volume], *, budget_bytes: int = BUDGET_BYTES) -> tuple[Thumbnail, ...]:
    """A thumbnail a volume, by density: the mask on the CT in the z slice that the run stored.

    Raises
    ------
    FormatError
        A malformed file of slices, by its name.
    """
    shown = by_density(spread(volumes, MAX_THUMBNAILS))
    drawn = [_thumbnail(volume.views_path) for volume in shown]
    pictures = iter(fitted([image for image in drawn if image is not None], budget_bytes)[0])
    return tuple(
        Thumbnail(volume, None if image is None else _panel(volume, next(pictures)))
        for volume, image in zip(shown, drawn, strict=True)
    )


def _thumbnail(path: Path) -> RGB | None:
    with open_npz(path) as archive:
        if archive is None or not archive.has("z_index"):
            return None
        layers = check_layers(archive, "z", ("volume", "mask"))
    image = overlay(stretch(layers["volume"]), layers["mask"] != 0, tint=0.9)  # so small, a thin sheet must stand out
    return resized(image, SIDE / max(image.shape[:2]))


def _panel(volume: Volume, picture: Jpeg) -> Panel:
    share = "" if volume.ink_ratio_global is None else f", {volume.ink_ratio_global:.2%} of the volume"
    return panel(volume.volume_id, f"Predicted surface on a slice of volume {volume.volume_id}{share}", picture)
