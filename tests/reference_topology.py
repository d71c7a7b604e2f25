"""Slow, obvious references: cells counted in NumPy, Betti numbers from SciPy's labels, the plug by search."""

from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FACES = ndimage.generate_binary_structure(3, 1)
CORNERS = ndimage.generate_binary_structure(3, 3)


def euler_numbers(masks: NDArray[Any], connectivity: int) -> NDArray[np.int64]:
    """Of each mask of a batch (n, z, y, x): full boxes (6), or cells that a closed cube touches (26), by kind."""
    padded = np.pad(masks != 0, ((0, 0), (1, 1), (1, 1), (1, 1)))
    combine = np.logical_and if connectivity == 6 else np.logical_or
    total = np.zeros(len(masks), np.int64)
    for long_axes in product((False, True), repeat=3):
        cells = padded
        for axis, long in enumerate(long_axes, start=1):
            if long:
                length = cells.shape[axis]
                cells = combine(cells.take(range(length - 1), axis), cells.take(range(1, length), axis))
        dimension = sum(long_axes) if connectivity == 6 else 3 - sum(long_axes)
        total += (-1) ** dimension * np.count_nonzero(cells, axis=(1, 2, 3))
    return total


def euler_number(mask: NDArray[Any], connectivity: int) -> int:
    return int(euler_numbers(mask[None], connectivity)[0])


def betti_numbers(mask: NDArray[Any], connectivity: int) -> tuple[int, int, int]:
    foreground, background = (FACES, CORNERS) if connectivity == 6 else (CORNERS, FACES)
    components = ndimage.label(mask != 0, foreground)[1]
    # One frame of background around the volume joins what reaches its faces.
    cavities = ndimage.label(np.pad(mask == 0, 1, constant_values=True), background)[1] - 1
    return components, components + cavities - euler_number(mask, connectivity), cavities


# ---- the plug ----

CORNER_PLACES = list(product((0, 1), repeat=3))


def connected_window(code: int) -> bool:
    """Whether the set corners of a 2x2x2 window are joined by faces."""
    window = np.array([code >> i & 1 for i in range(8)]).reshape(2, 2, 2)
    return bool(ndimage.label(window, FACES)[1] <= 1)


@lru_cache
def plug_table(union: bool = True) -> tuple[int, ...]:
    """For each window the voxels to add: the smallest sets that join it, all of them together or the first alone."""
    table = []
    for code in range(256):
        free = [i for i in range(8) if not code >> i & 1]
        added = 0
        for size in range(len(free) + 1):
            sets = [sum(1 << i for i in chosen) for chosen in combinations(free, size)]
            joining = [extra for extra in sets if connected_window(code | extra)]
            if joining:
                added = int(np.bitwise_or.reduce(joining)) if union else joining[0]
                break
        table.append(added)
    return tuple(table)


def window_codes(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Code of each 2x2x2 window that lies inside the volume or over its edge, one frame of background around it."""
    padded = np.pad(mask != 0, 1)
    nz, ny, nx = (n - 1 for n in padded.shape)
    codes = np.zeros((nz, ny, nx), np.uint8)
    for bit, (z, y, x) in enumerate(CORNER_PLACES):
        codes |= padded[z : z + nz, y : y + ny, x : x + nx].astype(np.uint8) << bit
    return codes


def plug_once(mask: NDArray[Any], union: bool = True) -> NDArray[np.uint8]:
    codes = window_codes(mask)
    additions = np.array(plug_table(union), np.uint8)[codes]
    plugged = np.pad(mask != 0, 1)
    nz, ny, nx = codes.shape
    for bit, (z, y, x) in enumerate(CORNER_PLACES):
        plugged[z : z + nz, y : y + ny, x : x + nx] |= (additions >> bit & 1).astype(bool)
    return plugged[1:-1, 1:-1, 1:-1].astype(np.uint8)


def plug_holes(mask: NDArray[Any], union: bool = True) -> tuple[NDArray[np.uint8], int]:
    """Passes until nothing changes; also how many changed something."""
    current, passes = (mask != 0).astype(np.uint8), 0
    while True:
        following = plug_once(current, union)
        if np.array_equal(following, current):
            return current, passes
        current, passes = following, passes + 1
