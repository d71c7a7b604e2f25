"""Slow, obvious references for median and morphology: SciPy with the border values that ignore what lies outside."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Radii = tuple[int, int, int]


def element(radius: Radii, shape: str) -> NDArray[np.bool_]:
    """The structuring element, offset by offset in exact fractions."""
    inside = np.zeros([2 * r + 1 for r in radius], bool)
    for index in product(*(range(n) for n in inside.shape)):
        offset = [i - r for i, r in zip(index, radius, strict=True)]
        terms = [Fraction(d, r) ** 2 for d, r in zip(offset, radius, strict=True) if r > 0]
        inside[index] = shape == "box" or sum(terms) <= 1
    return inside


def dilation(volume: NDArray[Any], radius: Radii, shape: str) -> NDArray[Any]:
    structure = element(radius, shape)
    if volume.dtype == np.float32:
        return ndimage.grey_dilation(volume, footprint=structure, mode="constant", cval=-np.inf)
    return ndimage.binary_dilation(volume, structure, border_value=0).astype(np.uint8)


def erosion(volume: NDArray[Any], radius: Radii, shape: str) -> NDArray[Any]:
    structure = element(radius, shape)
    if volume.dtype == np.float32:
        return ndimage.grey_erosion(volume, footprint=structure, mode="constant", cval=np.inf)
    return ndimage.binary_erosion(volume, structure, border_value=1).astype(np.uint8)


def opening(volume: NDArray[Any], radius: Radii, shape: str) -> NDArray[Any]:
    return dilation(erosion(volume, radius, shape), radius, shape)


def closing(volume: NDArray[Any], radius: Radii, shape: str) -> NDArray[Any]:
    return erosion(dilation(volume, radius, shape), radius, shape)


def median(volume: NDArray[Any]) -> NDArray[Any]:
    """By sorting the 27 values of every voxel."""
    padded = np.pad(volume, 1, mode="edge")
    around = [
        padded[z : z + volume.shape[0], y : y + volume.shape[1], x : x + volume.shape[2]]
        for z, y, x in product(range(3), repeat=3)
    ]
    return np.sort(np.stack(around), axis=0)[13]
