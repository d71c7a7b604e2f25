"""The slices of a volume as small JPEG pictures, sized so that the whole page keeps within its budget."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.report.extras import optional
from vesu.report.views import View

PROBABILITY_MAP = "magma"
UNCERTAINTY_MAP = "viridis"
OVERLAY = (255, 122, 69)
BUDGET_BYTES = 7 * 2**19  # of JPEG, the slices of all volumes together; it is a third more in base64
MAX_SIDE = 640
"""No picture is larger, in pixels: a panel is at most half as wide on the page."""
SIZES = (
    (1.0, 88), (1.0, 80), (1.0, 70), (0.75, 80), (0.75, 70), (0.6, 75), (0.5, 75), (0.4, 75), (0.3, 70), (0.2, 70),
    (0.1, 60), (0.05, 50),
)  # fmt: skip
"""Scale and JPEG quality, tried in this order until the pictures fit."""
AXIS_NAMES = {"z": ("y", "x"), "y": ("z", "x"), "x": ("z", "y")}

RGB: TypeAlias = NDArray[np.uint8]
Jpeg: TypeAlias = tuple[bytes, int, int]
"""Bytes, width, height."""


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows, its text alternative, its data address and its size in pixels."""

    title: str
    alt: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """The pictures of one slice: CT, probability, mask, and uncertainty where it was measured."""

    axis: str
    index: int
    down: str
    across: str
    surface: float
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Gallery:
    """The rows of every pictured volume, and at what scale the slices are shown to fit the budget (1: as stored)."""

    rows: tuple[tuple[Row, ...], ...]
    uncertainty_top: tuple[float | None, ...]
    scale: float


def make_gallery(volumes: Sequence[tuple[str, Sequence[View]]], *, budget_bytes: int = BUDGET_BYTES) -> Gallery:
    """Draw all slices at the largest size at which all pictures together fit the budget.

    Parameters
    ----------
    volumes
        Pairs (volume id, views).
    budget_bytes
        Bytes of JPEG for all of them.
    """
    tops = tuple(_top(views) for _, views in volumes)
    drawn = [
        image for (_, views), top in zip(volumes, tops, strict=True) for view in views for image in _images(view, top)
    ]
    encoded, scale = fitted(drawn, budget_bytes)
    pictures = iter(encoded)
    rows = tuple(
        tuple(
            _row(volume_id, view, [next(pictures) for _ in range(3 if view.uncertainty is None else 4)])
            for view in views
        )
        for volume_id, views in volumes
    )
    return Gallery(rows, tops, scale)


def gradient(name: str, stops: int = 9) -> str:
    """A colour map as the stops of a CSS gradient."""
    colours = optional("matplotlib").colormaps[name](np.linspace(0, 1, stops), bytes=True)
    return ", ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in colours)


def _top(views: Sequence[View]) -> float | None:
    """The top of the uncertainty scale, one for all slices of a volume; None where none was measured.

    The 99.5th percentile: a few voxels at the volume's faces would else leave all others dark.
    """
    measured = [view.uncertainty for view in views if view.uncertainty is not None]
    if views and not measured:
        return None
    finite = [uncertainty[np.isfinite(uncertainty)] for uncertainty in measured]
    return max((float(np.percentile(values, 99.5)) for values in finite if values.size), default=0.0)


def _images(view: View, uncertainty_top: float | None) -> tuple[RGB, ...]:
    grey = stretch(view.volume)
    images = (
        np.repeat(grey[..., None], 3, axis=2),
        coloured(view.probability, 1.0, PROBABILITY_MAP),
        overlay(grey, view.mask),
    )
    if view.uncertainty is None or uncertainty_top is None:
        return images
    return (*images, coloured(view.uncertainty, uncertainty_top, UNCERTAINTY_MAP))


def stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Contrast between the slice's 0.5th and 99.5th percentile; a constant slice is mid-grey."""
    data = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = np.percentile(data, (0.5, 99.5))
    if high <= low:
        return np.full(data.shape, 128, dtype=np.uint8)
    grey: NDArray[np.uint8] = (np.clip((data - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return grey


def coloured(values: NDArray[np.float32], top: float, name: str) -> RGB:
    """Values from 0 to ``top`` in a colour map's colours."""
    scaled = np.clip(np.nan_to_num(values, posinf=top, neginf=0.0) / (top or 1.0), 0, 1)
    rgba = np.asarray(optional("matplotlib").colormaps[name](scaled, bytes=True), np.uint8)
    return np.ascontiguousarray(rgba[..., :3])


def overlay(grey: NDArray[np.uint8], mask: NDArray[np.bool_], tint: float = 0.5) -> RGB:
    """The slice with the mask tinted, and its outline (mask voxels with a neighbour outside) at full strength."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    strength = np.where(mask & ~inside, 0.9, np.where(mask, tint, 0.0))[..., None]
    blended: RGB = (grey[..., None] * (1 - strength) + np.array(OVERLAY) * strength).astype(np.uint8)
    return blended


def fitted(images: Sequence[RGB], budget_bytes: int) -> tuple[list[Jpeg], float]:
    """All pictures as JPEG, at the best size and quality of :data:`SIZES` at which they fit; and that size."""
    encoded: list[Jpeg] = []
    scale = 1.0
    images = [resized(image, 1.0) for image in images]
    for scale, quality in SIZES:
        encoded = [encode(image, scale, quality) for image in images]
        if sum(len(data) for data, _, _ in encoded) <= budget_bytes:
            break
    return encoded, scale


def resized(image: RGB, scale: float) -> RGB:
    """The picture at a scale, no side longer than :data:`MAX_SIDE`."""
    scale = min(scale, MAX_SIDE / max(image.shape[:2]))
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    library = optional("PIL.Image")
    small = library.fromarray(np.ascontiguousarray(image)).resize((width, height), library.Resampling.BOX)
    return np.asarray(small, np.uint8)


def encode(image: RGB, scale: float = 1.0, quality: int = 88) -> Jpeg:
    """JPEG bytes, width and height."""
    image = resized(image, scale)
    buffer = io.BytesIO()
    picture = optional("PIL.Image").fromarray(np.ascontiguousarray(image))
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue(), image.shape[1], image.shape[0]


def _row(volume_id: str, view: View, images: Sequence[Jpeg]) -> Row:
    down, across = AXIS_NAMES[view.axis]
    surface = float(view.mask.mean())
    finite = view.probability[np.isfinite(view.probability)]
    mean = f": mean {float(finite.mean()):.3f}" if finite.size else ""
    where = f"volume {volume_id}, slice {view.axis} = {view.index}"
    titles = (
        ("CT", f"CT of {where}"),
        ("Probability", f"Predicted surface probability in {where}{mean}"),
        ("Mask on CT", f"CT of {where} with the predicted surface outlined: {surface:.2%} of the slice"),
        ("Uncertainty", f"Spread of the best candidates' probabilities in {where}"),
    )
    # Without an uncertainty there is one picture less.
    panels = tuple(panel(title, alt, image) for (title, alt), image in zip(titles, images, strict=False))
    return Row(view.axis, view.index, down, across, surface, panels)


def panel(title: str, alt: str, image: Jpeg) -> Panel:
    """A picture from its JPEG bytes, width and height."""
    data, width, height = image
    return Panel(title, alt, "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii"), width, height)
