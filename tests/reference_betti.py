"""Betti matching by its definition, on tiny masks: five boundary matrices over GF(2), reduced column by column.

A mask is a sublevel filtration of the whole box: a cell is born at 0 if all its voxels are foreground, else at 1; cells
of one value come in order of (z, y, x, type). The comparison is the filtration of the union. For an image the columns
are in the comparison's order and the rows in the mask's.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int, int, int]
"""Lowest voxel (z, y, x) and type."""

SPANS: dict[int, list[tuple[int, int, int]]] = {
    0: [(0, 0, 0)],
    1: [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
    2: [(0, 1, 1), (1, 0, 1), (1, 1, 0)],
    3: [(1, 1, 1)],
}
"""By dimension and type: the axes along which a cell extends."""


Places = list[list[int]]


def betti_matching(prediction: NDArray[Any], label: NDArray[Any]) -> NDArray[np.int64]:
    """Rows: dimension; columns: matched, of the prediction, of the label."""
    counts = np.zeros((3, 3), np.int64)
    for dimension in range(3):
        own, matched = _own_and_matched(prediction, label, dimension)
        counts[dimension] = len(matched), len(own[0]), len(own[1])
    return counts


def unmatched(prediction: NDArray[Any], label: NDArray[Any]) -> list[list[Places]]:
    """Per mask and dimension a sorted list of (z, y, x): of a component and a tunnel the last voxel of the cell that
    bears it, of a cavity the first voxel of background in the cube that ends it.
    """
    masks = [prediction != 0, label != 0]
    places: list[list[Places]] = [[], []]
    for dimension in range(3):
        own, matched = _own_and_matched(prediction, label, dimension)
        for mask, pairs in enumerate(own):
            taken = {births[mask] for births in matched}
            rest = [(birth, death) for birth, death in pairs if birth not in taken]
            if dimension == 2:
                here = [_first_background(masks[mask], death) for _, death in rest]
            else:
                here = [_last_voxel(birth, dimension) for birth, _ in rest]
            places[mask].append(sorted(here))
    return places


def _own_and_matched(
    prediction: NDArray[Any], label: NDArray[Any], dimension: int
) -> tuple[list[list[tuple[Cell, Cell]]], list[tuple[Cell, Cell]]]:
    """(birth, death) of each mask's features; the two births of every match."""
    masks = [prediction != 0, label != 0]
    union = masks[0] | masks[1]
    own = [_lasting(_pairs(mask, mask, dimension), mask, dimension) for mask in masks]
    both = _lasting(_pairs(union, union, dimension), union, dimension)
    images = [{death: birth for birth, death in _pairs(mask, union, dimension)} for mask in masks]
    births = [{birth for birth, _ in pairs} for pairs in own]
    matched = []
    for _, death in both:
        first, second = images[0].get(death), images[1].get(death)
        if first is not None and second is not None and first in births[0] and second in births[1]:
            matched.append((first, second))
    return own, matched


def _last_voxel(cell: Cell, dimension: int) -> list[int]:
    z, y, x, kind = cell
    return [low + step for low, step in zip((z, y, x), SPANS[dimension][kind], strict=True)]


def _first_background(mask: NDArray[np.bool_], cube: Cell) -> list[int]:
    z, y, x, _ = cube
    within = np.argwhere(~mask[z : z + 2, y : y + 2, x : x + 2])[0]
    return [z + int(within[0]), y + int(within[1]), x + int(within[2])]


def _cells(shape: tuple[int, ...], dimension: int) -> list[Cell]:
    return [
        (z, y, x, kind)
        for kind, (dz, dy, dx) in enumerate(SPANS[dimension])
        for z, y, x in product(range(shape[0] - dz), range(shape[1] - dy), range(shape[2] - dx))
    ]


def _born(mask: NDArray[np.bool_], cell: Cell, dimension: int) -> int:
    z, y, x, kind = cell
    dz, dy, dx = SPANS[dimension][kind]
    return 0 if mask[z : z + dz + 1, y : y + dy + 1, x : x + dx + 1].all() else 1


def _order(mask: NDArray[np.bool_], dimension: int) -> list[Cell]:
    return sorted(_cells(mask.shape, dimension), key=lambda cell: (_born(mask, cell, dimension), cell))


def _rim(cell: Cell, dimension: int) -> list[Cell]:
    z, y, x, kind = cell
    span = SPANS[dimension][kind]
    faces = []
    for axis in range(3):
        if span[axis]:
            smaller = tuple(0 if other == axis else span[other] for other in range(3))
            face_kind = SPANS[dimension - 1].index(smaller)  # type: ignore[arg-type]
            faces.append((z, y, x, face_kind))
            faces.append((z + (axis == 0), y + (axis == 1), x + (axis == 2), face_kind))
    return faces


def _pairs(row_mask: NDArray[np.bool_], column_mask: NDArray[np.bool_], dimension: int) -> list[tuple[Cell, Cell]]:
    """(birth, death) of every column that does not vanish, whatever their values."""
    rows = _order(row_mask, dimension)
    place = {cell: i for i, cell in enumerate(rows)}
    owner: dict[int, int] = {}
    pairs = []
    for cell in _order(column_mask, dimension + 1):
        column = 0  # a set of rows as the bits of one integer
        for face in _rim(cell, dimension + 1):
            column ^= 1 << place[face]
        while column and column.bit_length() - 1 in owner:
            column ^= owner[column.bit_length() - 1]
        if column:
            pivot = column.bit_length() - 1
            owner[pivot] = column
            pairs.append((rows[pivot], cell))
    return pairs


def _lasting(pairs: list[tuple[Cell, Cell]], mask: NDArray[np.bool_], dimension: int) -> list[tuple[Cell, Cell]]:
    return [
        (birth, death) for birth, death in pairs if _born(mask, birth, dimension) < _born(mask, death, dimension + 1)
    ]


# ---- generated pairs, the same on every machine: NumPy's PCG64 and whole numbers only ----

KINDS = ("noise", "blobs", "sheets", "shells", "grown", "same", "porous", "empty", "full")


def generated_pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A prediction and a label that goes with it; kind, shape and noise follow from the seed."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    longest = (5, 14, 28)[seed // len(KINDS) % 3]
    shape = tuple(int(n) for n in rng.integers(1, longest + 1, 3))
    label = _label(kind, shape, rng)
    if kind == "noise":
        prediction = _some(shape, int(rng.integers(1, 20)), rng)
    elif kind == "grown":
        prediction = _grown(label)
    elif kind == "same":
        prediction = label.copy()
    else:
        prediction = _grown(label) if rng.integers(2) else label.copy()
    if kind not in ("noise", "same"):
        prediction ^= _some(shape, int(rng.choice([0, 0, 1, 3])), rng, of=40)
    if kind in ("empty", "full") and rng.integers(2):
        prediction, label = label, prediction
    return np.ascontiguousarray(prediction), np.ascontiguousarray(label)


def _some(shape: tuple[int, ...], share: int, rng: np.random.Generator, of: int = 20) -> NDArray[np.uint8]:
    """`share` in `of` voxels, by chance."""
    return (rng.integers(0, of, shape) < share).astype(np.uint8)


def _label(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    if kind == "empty":
        return np.zeros(shape, np.uint8)
    if kind == "full":
        return np.ones(shape, np.uint8)
    if kind == "porous":
        return 1 - _some(shape, int(rng.integers(1, 4)), rng, of=40)
    if kind == "sheets":
        a, b, c, period = (int(n) for n in rng.integers([1, -2, -2, 3], [3, 3, 3, 9]))
        sheet = (a * z + b * y + c * x) % period < 2
        holes = _grown(_some(shape, 1, rng, of=200)) != 0
        return np.asarray(sheet & ~holes, np.uint8)
    if kind == "shells":
        label = np.zeros(shape, np.uint8)
        for _ in range(3):
            centre = [int(rng.integers(0, n)) for n in shape]
            radius = int(rng.integers(2, 8))
            squared = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
            label |= ((squared <= radius**2) & (squared > (radius - 2) ** 2)).astype(np.uint8)
        return label
    if kind == "noise":
        return _some(shape, int(rng.integers(1, 20)), rng)
    field = rng.integers(0, 256, shape)
    for axis in (0, 1, 2, 0, 1, 2):
        field = field + np.roll(field, 1, axis)
    threshold = np.sort(field, axis=None)[field.size * int(rng.integers(3, 9)) // 10]
    return np.asarray(field >= threshold, np.uint8)


def _grown(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dilation by the six face neighbours."""
    grown = mask.copy()
    for axis in range(3):
        low, high = np.moveaxis(grown, axis, 0), np.moveaxis(mask, axis, 0)
        low[1:] |= high[:-1]
        low[:-1] |= high[1:]
    return grown


def small_pairs(count: int, seed: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pairs of 3x3x2 masks, the long axes turned round in order."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 3, 2), (3, 2, 3), (2, 3, 3)]
    bits = rng.integers(0, 1 << 18, (count, 2))
    return [(_unpacked(int(a), shapes[i % 3]), _unpacked(int(b), shapes[i % 3])) for i, (a, b) in enumerate(bits)]


def all_pairs_of_2x2x2_by_eights() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Every pair of 2x2x2 masks; 4x4x4 masks hold eight of them, one an octant."""
    masks = [_unpacked(bits, (2, 2, 2)) for bits in range(256)]
    for prediction in masks:
        for first in range(0, 256, 8):
            eight = np.stack(masks[first : first + 8]).reshape(2, 2, 2, 2, 2, 2)
            yield np.tile(prediction, (2, 2, 2)), eight.transpose(0, 3, 1, 4, 2, 5).reshape(4, 4, 4)


def _unpacked(bits: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    voxels = int(np.prod(shape))
    return (bits >> np.arange(voxels) & 1).astype(np.uint8).reshape(shape)
