"""Slow, obvious references for the score's terms, and the generated pairs that the known answers belong to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import variation_of_information

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]

# Areas inside a 2x2x2 cube of unit voxels, by what the (at most four) inner corners look like: their number, then how
# many of their pairs share an edge. Chain and tripod are told apart by the corners' degrees.
R2, R3 = np.sqrt(2), np.sqrt(3)
UNIT_AREAS = {
    (1, 0): R3 / 8,
    (2, 1): R2 / 2,
    (2, 0): R3 / 4,
    (3, 2): 0.5 + 3 * R3 / 8,
    (3, 1): R2 / 2 + R3 / 8,
    (3, 0): 3 * R3 / 8,
    (4, 4): 1.0,
    (4, 2): 0.0,  # two kinds, see unit_area
    (4, 0): R3 / 2,
}


def unit_area(code: int) -> float:
    """Area for bit ``4 z + 2 y + x`` of `code` being the corner (z, y, x)."""
    inside = [c for c in range(8) if code >> c & 1]
    if len(inside) > 4:
        inside = [c for c in range(8) if c not in inside]
    degrees = [sum((a ^ b) in (1, 2, 4) for b in inside) for a in inside]
    edges = sum(degrees) // 2
    if not inside:
        return 0.0
    if (len(inside), edges) == (4, 2):
        return R2 if max(degrees) == 1 else 0.5 + 3 * R3 / 8 + R3 / 8  # two edges apart, or three in a face and one
    if (len(inside), edges) == (4, 3):
        return 3 * R3 / 4 if max(degrees) == 3 else R3 / 2 + 2 * R2 / 4
    return float(UNIT_AREAS[len(inside), edges])


def codes(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Code of the eight voxels around every corner of the voxel grid; outside is background."""
    padded = np.pad(np.asarray(mask != 0, np.int64), 1)
    z, y, x = (n - 1 for n in padded.shape)
    cubes = [padded[dz : dz + z, dy : dy + y, dx : dx + x] for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)]
    return sum((cube << bit for bit, cube in enumerate(cubes)), np.zeros((z, y, x), np.int64))


def surface_dice(
    prediction: NDArray[Any], label: NDArray[Any], tolerance: float, spacing: Any = (1, 1, 1), areas: Any = None
) -> float:
    table = np.array([unit_area(code) for code in range(256)] if areas is None else areas)
    if not prediction.any() and not label.any():
        return 1.0
    if not prediction.any() or not label.any():
        return 0.0
    both = [codes(prediction), codes(label)]
    elements = [(code > 0) & (code < 255) for code in both]
    total = within = 0.0
    for code, own, other in ((both[0], *elements), (both[1], *elements[::-1])):
        near = ndimage.distance_transform_edt(~other, sampling=spacing) <= tolerance
        total += table[code[own]].sum()
        within += table[code[own & near]].sum()
    return float(within / total)


def entropies(prediction: NDArray[Any], label: NDArray[Any]) -> tuple[float, float]:
    """Split and merge in bits: scikit-image's, of SciPy's components on the union of the foregrounds."""
    union = (prediction != 0) | (label != 0)
    if not union.any():
        return 0.0, 0.0
    corners = np.ones((3, 3, 3))
    labelled, predicted = (ndimage.label(mask != 0, corners)[0][union] for mask in (label, prediction))
    split, merge = variation_of_information(labelled, predicted)
    return float(split), float(merge)


def pair(seed: int) -> Pair:
    """The generated pair number `seed`: (prediction, label)."""
    rng = np.random.default_rng([2026, seed])
    shape = tuple(int(n) for n in rng.integers(1, [30, 34, 70]))
    make = KINDS[seed % len(KINDS)]
    prediction, label = make(rng, shape)
    assert prediction.shape == label.shape == shape
    return prediction, label


def _noise(rng: np.random.Generator, shape: Any) -> Pair:
    density = rng.choice([0.02, 0.1, 0.3, 0.5, 0.9])
    return rng.random(shape) < density, rng.random(shape) < density


def _blobs(rng: np.random.Generator, shape: Any) -> Pair:
    smooth = ndimage.gaussian_filter(rng.random(shape), 1.5)
    change = ndimage.gaussian_filter(rng.random(shape), 1.0)
    return smooth + 0.3 * change > np.median(smooth + 0.3 * change), smooth > np.median(smooth)


def _sheets(rng: np.random.Generator, shape: Any) -> Pair:
    z, y, x = np.indices(shape)
    height = z + 2 * np.sin(y / 7 + rng.random()) + 2 * np.sin(x / 11)
    label = height % 9 < 2
    moved = (height + rng.normal(0, 0.8)) % 9 < rng.choice([1.5, 2, 3])
    holes = ndimage.gaussian_filter(rng.random(shape), 1.2) > 0.53
    merges = ndimage.gaussian_filter(rng.random(shape), 1.2) > 0.55
    return (moved & ~holes) | merges, label


def _shifted(rng: np.random.Generator, shape: Any) -> Pair:
    label = _sheets(rng, shape)[1]
    return np.roll(label, rng.integers(-4, 5, 3), (0, 1, 2)), label


def _cavities(rng: np.random.Generator, shape: Any) -> Pair:
    label = np.ones(shape, bool)
    prediction = label & (rng.random(shape) > 0.01)
    return prediction, label & (rng.random(shape) > 0.003)


def _nearly_empty(rng: np.random.Generator, shape: Any) -> Pair:
    masks = [np.zeros(shape, bool), np.zeros(shape, bool)]
    for mask in masks[: int(rng.integers(0, 3))]:
        mask[tuple(rng.integers(0, shape))] = True
    return masks[0], masks[1]


KINDS = (_noise, _blobs, _sheets, _shifted, _cavities, _nearly_empty)
