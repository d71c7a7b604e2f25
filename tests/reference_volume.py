"""Slow, obvious references for the volume kernels: SciPy and plain NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RANK = {6: 1, 18: 2, 26: 3}


def structure(connectivity: int) -> NDArray[Any]:
    return ndimage.generate_binary_structure(3, RANK[connectivity])


def labels(mask: NDArray[Any], connectivity: int) -> tuple[NDArray[Any], int]:
    """SciPy's labels, renumbered by first appearance in C order (SciPy promises no order)."""
    found, n = ndimage.label(mask != 0, structure(connectivity))
    values, first = np.unique(found, return_index=True)
    order = values[values > 0][np.argsort(first[values > 0])]
    renumbered = np.zeros(n + 1, np.uint32)
    renumbered[order] = np.arange(1, n + 1)
    return renumbered[found], n


def remove_dust(mask: NDArray[Any], min_voxels: int, connectivity: int) -> NDArray[np.uint8]:
    found, n = ndimage.label(mask != 0, structure(connectivity))
    keep = np.bincount(found.ravel(), minlength=n + 1) >= min_voxels
    keep[0] = False
    return keep[found].astype(np.uint8)


def choose_dust(
    mask: NDArray[Any], min_voxels: int, connectivity: int, keep_largest: int | None, spare_border: bool
) -> tuple[NDArray[np.uint8], int]:
    """The mask without dust and the number of components removed, one component after the other."""
    found, n = labels(mask, connectivity)
    sizes = {label: int(np.count_nonzero(found == label)) for label in range(1, n + 1)}
    spared = set(np.concatenate([found.take([0, -1], axis).ravel() for axis in range(3)]).tolist()) - {0}
    if not spare_border:
        spared = set()
    rest = [label for label, size in sizes.items() if size >= min_voxels and label not in spared]
    rest.sort(key=lambda label: (-sizes[label], label))
    kept = spared.union(rest if keep_largest is None else rest[:keep_largest])
    return np.isin(found, list(kept)).astype(np.uint8), n - len(kept)


def multilabel(volume: NDArray[Any], connectivity: int) -> tuple[NDArray[Any], int]:
    """One value after the other, then renumbered by first appearance in C order."""
    together, n = np.zeros(volume.shape, np.int64), 0
    for value in np.unique(volume[volume != 0]):
        found, count = ndimage.label(volume == value, structure(connectivity))
        together[found > 0] = found[found > 0] + n
        n += count
    values, first = np.unique(together, return_index=True)
    order = values[values > 0][np.argsort(first[values > 0])]
    renumbered = np.zeros(n + 1, np.uint32)
    renumbered[order] = np.arange(1, n + 1)
    return renumbered[together], n


def fill_holes(mask: NDArray[Any], connectivity: int) -> tuple[NDArray[np.uint8], int]:
    """The filled mask and the number of cavities."""
    filled = ndimage.binary_fill_holes(mask != 0, structure(connectivity))
    cavities = ndimage.label(filled & (mask == 0), structure(connectivity))[1]
    return filled.astype(np.uint8), cavities


def hysteresis(probability: NDArray[Any], low: float, high: float, connectivity: int) -> NDArray[np.uint8]:
    found, n = ndimage.label(probability >= np.float32(low), structure(connectivity))
    keep = np.zeros(n + 1, bool)
    keep[found[probability >= np.float32(high)]] = True
    keep[0] = False
    return keep[found].astype(np.uint8)


def smooth_z(volume: NDArray[np.float32], radius: int) -> NDArray[np.float64]:
    """In float64, by gathering the clamped slices one by one."""
    total = np.zeros(volume.shape)
    for step in range(-radius, radius + 1):
        total += volume[np.clip(np.arange(volume.shape[0]) + step, 0, volume.shape[0] - 1)]
    return total / (2 * radius + 1)


def f_score(mask: NDArray[Any], label: NDArray[Any], beta: float) -> float:
    """F-beta over the voxels that are labelled; 1 where both are empty."""
    m, t = (mask != 0)[label != 2], (label == 1)[label != 2]
    weighted = (1 + beta**2) * np.sum(m & t)
    whole = weighted + beta**2 * np.sum(~m & t) + np.sum(m & ~t)
    return float(weighted / whole) if whole else 1.0
