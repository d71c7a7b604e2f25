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
