"""The height-map patch, slow and obvious: dictionaries of columns, exact fractions, whole-mask topology."""

import heapq
from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import reference_topology as topology
import reference_volume

Column: TypeAlias = tuple[int, int]
Layer: TypeAlias = dict[Column, tuple[int, int]]
Voxel: TypeAlias = tuple[int, ...]

PLANES = {0: (1, 2), 1: (0, 2), 2: (0, 1)}


def columns_of(sheet: NDArray[np.bool_], axis: int) -> dict[Column, list[tuple[int, int]]]:
    """Runs (first, last) along `axis` of every column that has any."""
    found: dict[Column, list[tuple[int, int]]] = {}
    for u, v, height in np.argwhere(sheet.transpose(*PLANES[axis], axis)).tolist():
        runs = found.setdefault((u, v), [])
        if runs and runs[-1][1] == height - 1:
            runs[-1] = (runs[-1][0], height)
        else:
            runs.append((height, height))
    return found


def layers_of(sheet: NDArray[np.bool_], axis: int) -> list[Layer]:
    columns = columns_of(sheet, axis)
    # In the order in which C order meets the runs' first voxels.
    runs = [(column, run) for column, stack in columns.items() for run in stack]

    def place(item: tuple[Column, tuple[int, int]]) -> Voxel:
        return voxel(item[0], item[1][0], axis)

    runs.sort(key=place)
    number = {run: i for i, run in enumerate(runs)}
    free, layers = set(number), []
    for seed in runs:
        if seed not in free:
            continue
        layer: Layer = {}
        frontier = [(0, number[seed])]
        while frontier:
            _, i = heapq.heappop(frontier)
            (u, v), (low, high) = runs[i]
            if runs[i] not in free or (u, v) in layer:
                continue
            free.remove(runs[i])
            layer[u, v] = (low, high)
            for column in ((u - 1, v), (u, v - 1), (u, v + 1), (u + 1, v)):
                for other in columns.get(column, []):
                    if (column, other) in free and other[0] <= high and low <= other[1]:
                        step = abs(other[0] - low) + abs(other[1] - high)
                        heapq.heappush(frontier, (step, number[column, other]))
        layers.append(layer)
    return layers


def voxel(column: Column, height: int, axis: int) -> Voxel:
    place = [0, 0, 0]
    place[PLANES[axis][0]], place[PLANES[axis][1]], place[axis] = *column, height
    return tuple(place)


def near(columns: Iterable[Column], reach: int) -> list[Column]:
    steps = range(-reach, reach + 1)
    return sorted({(u + du, v + dv) for u, v in columns for du in steps for dv in steps})


def box(layer: Layer) -> tuple[range, range]:
    us, vs = zip(*layer, strict=True)
    return range(min(us), max(us) + 1), range(min(vs), max(vs) + 1)


def gaps_of(layer: Layer) -> list[list[Column]]:
    rows, columns = box(layer)
    missing = np.array([[(u, v) not in layer for v in columns] for u in rows])
    labels, n = topology.ndimage.label(missing, np.ones((3, 3)))
    border = set(labels[[0, -1]].ravel()) | set(labels[:, [0, -1]].ravel())
    return [
        [(int(u) + rows.start, int(v) + columns.start) for u, v in np.argwhere(labels == label)]
        for label in range(1, n + 1)
        if label not in border
    ]


def span(layer: Layer, column: Column, axis: int, gap: set[Column]) -> Any:
    """(steps, run) of the nearest known columns before and after, or None where the map ends first."""
    limits, ends = box(layer)[axis], []
    for sign in (-1, 1):
        at, steps = list(column), 0
        while True:
            at[axis] += sign
            steps += 1
            if at[axis] not in limits:
                return None
            if tuple(at) in layer and tuple(at) not in gap:
                ends.append((steps, layer[at[0], at[1]]))
                break
    return ends


def widened(layer: Layer, gap: list[Column]) -> list[Column]:
    rows, columns = box(layer)
    known = sorted(layer[c][1] - layer[c][0] + 1 for c in near(gap, 6) if c in layer)
    usual = known[3 * len(known) // 4]
    wide = set(gap)
    for _ in range(usual):
        stubs = [
            (u, v)
            for u, v in near(wide, 1)
            if (u, v) in layer
            and u in rows[1:-1]
            and v in columns[1:-1]
            and 4 * (layer[u, v][1] - layer[u, v][0] + 1) < 3 * usual
        ]
        wide |= set(stubs)
    return sorted(wide)


def residual(layer: Layer, gap: list[Column]) -> float:
    ring = [c for c in near(gap, 2) if c in layer and c not in set(gap)]
    design = np.array([(u, v, 1) for u, v in ring], float)
    middles = np.array([sum(layer[c]) / 2 for c in ring])
    fitted = design @ np.linalg.lstsq(design, middles, rcond=None)[0]
    return float(np.sqrt(np.mean((middles - fitted) ** 2)))


def interpolated(layer: Layer, column: Column, gap: set[Column], end: int) -> Fraction | None:
    """Bottom (0) or top (1) between the edges, the two directions weighted by 1 / distance."""
    total, weights = Fraction(0), Fraction(0)
    for axis in (0, 1):
        ends = span(layer, column, axis, gap)
        if ends is not None:
            (before, start), (after, stop) = ends
            weight = Fraction(1, min(before, after))
            total += weight * Fraction(start[end] * after + stop[end] * before, before + after)
            weights += weight
    return total / weights if weights else None


def fill_of(layer: Layer, gap: list[Column], max_gap: int, max_residual: float) -> Layer | None:
    for column in gap:
        widths = [ends[0][0] + ends[1][0] - 1 for axis in (0, 1) if (ends := span(layer, column, axis, set(gap)))]
        if not widths or min(widths) > max_gap:
            return None
    wide = widened(layer, gap)
    if residual(layer, wide) > max_residual:
        return None
    fill = {}
    for column in wide:
        low, high = (interpolated(layer, column, set(wide), end) for end in (0, 1))
        if low is None or high is None:
            return None
        fill[column] = (ceil(low - Fraction(1, 2)), floor(high + Fraction(1, 2)))
    return fill


def window(voxels: Iterable[Voxel], reach: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    places = np.array(list(voxels))
    return tuple(
        slice(max(int(places[:, k].min()) - reach, 0), min(int(places[:, k].max()) + reach + 1, shape[k]))
        for k in range(3)
    )


def accepted(labels: NDArray[Any], label: int, fill: Layer, axis: int) -> NDArray[np.bool_] | None:
    """The voxels to add, plugged against the sheet, if they touch nothing else and close a tunnel."""
    wanted = {voxel(column, h, axis) for column, (low, high) in fill.items() for h in range(low, high + 1)}
    added = np.zeros(labels.shape, bool)
    added[tuple(np.array(sorted(wanted)).T)] = True
    added &= labels != label
    other = (labels != 0) & (labels != label)
    if not added.any() or (topology.ndimage.binary_dilation(added, topology.CORNERS) & other).any():
        return None
    view = window(map(tuple, np.argwhere(added)), 3, labels.shape)
    plugged = np.zeros(labels.shape, bool)
    plugged[view] = topology.plug_holes(((labels != 0) | added)[view])[0] != 0
    added |= plugged & (labels == 0) & topology.ndimage.binary_dilation(added, topology.CORNERS)
    if (topology.ndimage.binary_dilation(added, topology.CORNERS) & other).any():
        return None
    before, after = labels != 0, (labels != 0) | added
    if topology.euler_number(after, 6) <= topology.euler_number(before, 6):
        return None
    pieces, n = topology.ndimage.label(after[view], topology.FACES)
    return added if set(pieces[before[view]]) >= set(range(1, n + 1)) else None


def patch_sheets(
    mask: NDArray[Any], *, connectivity: int, min_voxels: int, max_gap: int, max_residual: float
) -> NDArray[np.uint8]:
    """Without the last look at cavities: compare where there are none to close."""
    labels, n = reference_volume.labels(mask, connectivity)
    sheets = [label for label in range(1, n + 1) if np.count_nonzero(labels == label) >= min_voxels]
    axes = {label: sorted(range(3), key=lambda axis: -len(columns_of(labels == label, axis))) for label in sheets}
    for rank in range(3):
        fills = {
            label: [
                fill
                for layer in layers_of(labels == label, axes[label][rank])
                if len(layer) >= 8
                for gap in gaps_of(layer)
                if (fill := fill_of(layer, gap, max_gap, max_residual)) is not None
            ]
            for label in sheets
        }
        for label in sheets:
            for fill in fills[label]:
                added = accepted(labels, label, fill, axes[label][rank])
                if added is not None:
                    labels[added] = label
    return (labels != 0).astype(np.uint8)
