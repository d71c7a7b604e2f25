"""Slices of a campaign's scoring volumes: the label, and beside it every variant's mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.campaign.compare import Comparison, VariantResult
from vesu.campaign.holdout import DATA, LABELS
from vesu.campaign.record import RunRecord
from vesu.data.discover import TEST_IMAGES
from vesu.data.volumes import read_volume
from vesu.errors import DataError, VesuError
from vesu.report.pictures import RGB, Panel, fitted, panel, stretch
from vesu.report.unmatched import BOTH, OURS, THEIRS

__all__ = ["LEGEND", "Pictured", "pictures"]

BUDGET_BYTES = 3 * 2**20
MAX_VOLUMES, MAX_VARIANTS = 3, 11
LEAST_SIDE = 240
"""Smaller slices are drawn larger, voxel by voxel."""
LEGEND = tuple(
    ("#{:02x}{:02x}{:02x}".format(*colour), words)
    for colour, words in zip((BOTH, OURS, THEIRS), ("both masks", "prediction only", "label only"), strict=True)
)


@dataclass(frozen=True)
class Pictured:
    """One volume's slice: the label first, then the variants."""

    volume_id: str
    index: int
    panels: tuple[Panel, ...]


def pictures(comparison: Comparison, out: Path) -> tuple[Pictured, ...]:
    """The first scoring volumes, by id, each in the z slice that is richest in labelled surface.

    A volume that cannot be read any more (its links lead elsewhere on this machine) is left out.
    """
    shown = _shown(comparison)
    drawn: list[tuple[str, int, list[tuple[str, str]], list[RGB]]] = []
    for volume_id in comparison.scored[:MAX_VOLUMES]:
        try:
            drawn.append(_drawn(volume_id, shown, out))
        except VesuError:
            continue
    encoded = iter(fitted([image for *_, images in drawn for image in images], BUDGET_BYTES)[0])
    return tuple(
        Pictured(volume_id, index, tuple(panel(title, alt, next(encoded)) for title, alt in titles))
        for volume_id, index, titles, _ in drawn
    )


def _shown(comparison: Comparison) -> list[VariantResult]:
    """Variants with a finished run: where there are too many, the baseline and what stands come first."""
    ahead = (comparison.matrix.baseline, comparison.standing)
    found = [each for each in comparison.results if each.finished]
    kept = sorted(found, key=lambda each: each.variant.id not in ahead)[:MAX_VARIANTS]
    return [each for each in found if each in kept]


def _drawn(
    volume_id: str, shown: Sequence[VariantResult], out: Path
) -> tuple[str, int, list[tuple[str, str]], list[RGB]]:
    image, label = read_volume(_image(out, volume_id)), read_volume(out / LABELS / f"{volume_id}.tif")
    index = int((label == 1).sum(axis=(1, 2)).argmax())
    grey, truth, known = stretch(image[index]), label[index] == 1, label[index] != 2
    where = f"volume {volume_id}, slice z = {index}"
    titles = [("CT and label", f"CT of {where} with the labelled surface")]
    images = [_coloured(grey, truth, truth)]
    for result, record, mask in _masks(shown, volume_id, out):
        title = f"{result.variant.id}: {record.volumes[volume_id]['score']:.3f}"
        titles.append((title, f"Mask of {result.variant.id}, seed {record.seed}, against the label in {where}"))
        images.append(_coloured(grey, (mask[index] != 0) & known, truth))
    return volume_id, index, titles, images


def _image(out: Path, volume_id: str) -> Path:
    found = [path for path in (out / DATA / TEST_IMAGES).glob("*") if path.stem == volume_id]
    if not found:
        raise DataError(f"{out / DATA}: holds no CT of {volume_id}")
    return found[0]


def _masks(
    shown: Sequence[VariantResult], volume_id: str, out: Path
) -> Iterator[tuple[VariantResult, RunRecord, NDArray[Any]]]:
    for result in shown:
        record = result.finished[0]
        folder = out / "runs" / record.id / f"seed-{record.seed}"
        yield result, record, read_volume(folder / "masks" / f"{volume_id}.tif")


def _coloured(grey: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> RGB:
    image = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for colour, where in ((BOTH, mask & truth), (OURS, mask & ~truth), (THEIRS, truth & ~mask)):
        image[where] = 0.2 * image[where] + 0.8 * np.array(colour, np.float32)
    factor = max(1, LEAST_SIDE // max(grey.shape))
    return np.ascontiguousarray(image.astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1))
