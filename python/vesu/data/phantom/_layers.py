"""Coordinates along and across the sheets of a label volume: where a voxel lies between the labelled surfaces."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vesu.data.phantom._fields import Float32, gaussian_blur, slabs

_FAR = 200
"""Distances are cut here (voxels): 200^2 + 2 * 200 still fits 16 bits."""

_HALF_LABEL = 1.1
"""From the middle of a three-voxel label to its outermost voxel's centre, less rounding."""


class LayerFrame(NamedTuple):
    """The directions that a volume's sheets share, found from its labelled surface."""

    axis: NDArray[np.float64]
    """(3,) unit vector that the sheets contain everywhere: the scroll's axis."""
    normal: NDArray[np.float64]
    """(3,) unit vector across the sheets where they are nearly plane."""
    centre: NDArray[np.float64] | None
    """(3,) a point of the scroll's axis where the sheets curve around it, else None."""
    radius: float
    """Mean distance from the centre (voxels); 1 without one."""


class Layers(NamedTuple):
    """What :func:`find_layers` finds."""

    depth: Float32
    """Signed distance from the nearest labelled surface (voxels), positive on the papyrus side (away from the axis)."""
    frame: LayerFrame


def find_layers(surface: NDArray[np.bool_]) -> Layers:
    """Signed depth and common directions of the sheets in a mask of the labelled surface.

    The sign comes from one reference field for the whole volume: away from the axis that best fits the normals,
    or the mean normal where the sheets are nearly plane. A sheet that folds back on itself changes side.
    """
    if not surface.any():
        flat = LayerFrame(np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), None, 1.0)
        _, _, depth = sheet_coordinates(flat, surface.shape, (0, surface.shape[0]))
        return Layers(np.ascontiguousarray(np.broadcast_to(depth, surface.shape)), flat)
    distance = distance_to(surface)
    smooth = gaussian_blur(distance, 2.0)
    frame = _fit_frame(smooth)
    depth = np.where(distance > 0, distance + np.float32(_HALF_LABEL), np.float32(0))
    for start, stop in slabs(len(depth)):
        depth[start:stop] *= _side(smooth, frame, start, stop)
    near = (distance < 5).astype(np.float32)
    # Sub-voxel depth through the label; further out the two sides of the midway surface must not mix.
    weight = gaussian_blur(near, 1.2)
    blurred = gaussian_blur(depth * near, 1.2)
    np.divide(blurred, weight, out=depth, where=near > 0)
    return Layers(depth, frame)


def distance_to(mask: NDArray[np.bool_]) -> Float32:
    """Euclidean distance of every voxel to the nearest true one, at most 200 (exact, three separable passes)."""
    steps = np.where(mask, np.uint16(0), np.uint16(_FAR))
    for z in range(1, len(steps)):
        np.minimum(steps[z], steps[z - 1] + np.uint16(1), out=steps[z])
    for z in range(len(steps) - 2, -1, -1):
        np.minimum(steps[z], steps[z + 1] + np.uint16(1), out=steps[z])
    out = np.empty(mask.shape, np.float32)
    for z, plane in enumerate(steps):
        squared = plane * plane
        _erode_by_parabola(squared)
        _erode_by_parabola(squared.T)
        np.sqrt(np.minimum(squared, np.uint16(_FAR**2)), out=out[z], dtype=np.float32)
    return out


def _erode_by_parabola(squared: NDArray[np.uint16]) -> None:
    """In place, ``min over k of squared[i + k] + k^2`` along the first axis, as a chain of steps 1, 3, 5, ..."""
    for step in range(1, _FAR + 1):
        cost = np.uint16(2 * step - 1)
        from_below, from_above = squared[:-1] + cost, squared[1:] + cost
        if not ((from_below < squared[1:]).any() or (from_above < squared[:-1]).any()):
            return
        np.minimum(squared[1:], from_below, out=squared[1:])
        np.minimum(squared[:-1], from_above, out=squared[:-1])


def _fit_frame(smooth: Float32) -> LayerFrame:
    """Axis and reference field from the normals of a smoothed distance."""
    points, normals = _sample_normals(smooth)
    if len(points) < 8:
        return LayerFrame(np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), None, 1.0)
    vectors = np.linalg.eigh(normals.T @ normals)[1]
    axis, normal = _canonical(vectors[:, 0]), _canonical(vectors[:, 2])
    across = np.eye(3) - np.outer(axis, axis)
    flat = normals @ across
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    # The point nearest to all normal lines, in the plane across the axis: sum of (I - n n') (c - x) = 0.
    projectors = np.eye(3) - flat[:, :, None] * flat[:, None, :]
    matrix = projectors.mean(0) + 1e-4 * np.eye(3)
    centre = np.linalg.solve(matrix, (projectors @ points[:, :, None]).mean(0)[:, 0] + 1e-4 * points.mean(0))
    outward = (points - centre) @ across
    radii = np.linalg.norm(outward, axis=1)
    radial = np.abs((flat * outward).sum(1) / np.maximum(radii, 1e-6)).mean()
    plane = np.abs(flat @ normal).mean()
    if radial > plane + 0.02:
        return LayerFrame(axis, normal, centre, float(max(radii.mean(), 1.0)))
    return LayerFrame(axis, normal, None, 1.0)


def _sample_normals(smooth: Float32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (n, 3) and unit gradients (n, 3) on a coarse grid, ridges and midway surfaces left out."""
    step = max(2, min(smooth.shape) // 24)
    grids = [np.arange(1, n - 1, step) for n in smooth.shape]
    z, y, x = (g.ravel() for g in np.meshgrid(*grids, indexing="ij"))
    gradient = np.stack(
        [
            smooth[z + 1, y, x] - smooth[z - 1, y, x],
            smooth[z, y + 1, x] - smooth[z, y - 1, x],
            smooth[z, y, x + 1] - smooth[z, y, x - 1],
        ],
        axis=1,
    ).astype(np.float64)
    length = np.linalg.norm(gradient, axis=1)
    keep = length > 1.2  # of at most 2: two voxels apart
    return np.stack([z, y, x], axis=1)[keep].astype(np.float64), gradient[keep] / length[keep, None]


def _canonical(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector or its opposite, its largest component positive: eigenvectors have no sign of their own."""
    return np.asarray(vector * np.sign(vector[np.argmax(np.abs(vector))]))


def _side(smooth: Float32, frame: LayerFrame, start: int, stop: int) -> Float32:
    """+1 beyond the nearest surface as seen along the reference field, -1 before it, for a slab."""
    lo, hi = max(start - 1, 0), min(stop + 1, len(smooth))
    block = smooth[lo:hi]
    own = slice(start - lo, stop - lo)
    along = np.gradient(block, axis=0)[own] if hi - lo > 1 else np.zeros_like(block)
    up, right = (
        np.gradient(block[own], axis=axis) if block.shape[axis] > 1 else np.zeros_like(block[own]) for axis in (1, 2)
    )
    if frame.centre is None:
        z, y, x = (np.float32(n) for n in frame.normal)
        dot = z * along + y * up + x * right
    else:
        position = _positions(smooth.shape, (start, stop), frame.centre)
        height = sum(np.float32(a) * p for a, p in zip(frame.axis, position, strict=True))
        dot = sum(
            g * (p - np.float32(a) * height) for g, p, a in zip((along, up, right), position, frame.axis, strict=True)
        )
    return np.where(dot < 0, np.float32(-1), np.float32(1))


def _positions(shape: tuple[int, ...], planes: tuple[int, int], origin: NDArray[np.float64]) -> list[Float32]:
    """Broadcastable z, y, x of a slab's voxels from an origin (voxels)."""
    ranges = [planes, (0, shape[1]), (0, shape[2])]
    flat = [(np.arange(lo, hi) - o).astype(np.float32) for (lo, hi), o in zip(ranges, origin, strict=True)]
    return [flat[0][:, None, None], flat[1][:, None], flat[2]]


def sheet_coordinates(
    frame: LayerFrame, shape: tuple[int, ...], planes: tuple[int, int]
) -> tuple[Float32, Float32, Float32]:
    """Along the axis, around it, and across the sheets: three broadcastable coordinates of a slab (voxels)."""

    def project(direction: NDArray[np.float64], position: list[Float32]) -> Float32:
        return np.asarray(sum(np.float32(d) * p for d, p in zip(direction, position, strict=True)), np.float32)

    tangent = np.cross(frame.normal, frame.axis)
    position = _positions(shape, planes, np.zeros(3) if frame.centre is None else frame.centre)
    along, around, across = (project(d, position) for d in (frame.axis, tangent, frame.normal))
    if frame.centre is not None:
        around, across = np.float32(frame.radius) * np.arctan2(around, across), np.hypot(around, across)
    return along, np.asarray(around, np.float32), np.asarray(across, np.float32)
