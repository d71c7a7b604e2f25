"""The medial surface of a label, by which skeleton recall asks for whole sheets; numpy only (R19)."""

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

__all__ = ["medial_surface", "tubed_skeleton"]

SURFACE, UNLABELLED = 1, 2
SMOOTHING = 2
"""Radius (voxels) of the cube over which thickness is averaged before the axes are compared."""

LONGEST = 500
"""Runs from here on count alike, so that the sum over 5 x 5 x 5 of them fits 16 bits."""


def medial_surface(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of every sheet, one or two voxels thick.

    A sheet is a height map over the plane that it lies closest to. Along the axis across that plane the label makes
    short runs, and the middles of the runs are the middle of the sheet. So each voxel takes the axis along which
    the runs around it are shortest, and stays if it is the middle of its own run, or one of the two of an even one.

    Parameters
    ----------
    label : ndarray of uint8, shape (z, y, x)
        1 is surface, 2 is unlabelled.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1, within the label's surface.

    Raises
    ------
    ArgumentError
        Another dtype or number of axes.

    Notes
    -----
    R19. Thinning that keeps topology (Lee, Kashyap, Chu 1994) shrinks a sheet without holes to lines, and a sheet's
    ends with it; Kirchhoff et al. (arXiv 2404.03010) thin tubes, and sheets slice by slice, which loses those that lie
    in the slices. This treats all directions alike. To be taken of whole volumes: a patch's faces cut runs. Where a
    sheet's nearest axis changes, its two middles may lie a voxel apart, which :func:`tubed_skeleton` closes. Time is
    linear; memory about 16 bytes a voxel. The result has no dependence on threads or machine.

    Examples
    --------
    >>> label = np.zeros((5, 4, 4), np.uint8)
    >>> label[1:4] = 1
    >>> medial_surface(label)[:, 0, 0].tolist()
    [0, 0, 1, 0, 0]
    """
    _check(label)
    thinnest = np.full(label.shape, np.iinfo(np.uint16).max, np.uint16)
    medial = np.zeros(label.shape, bool)
    for axis in range(3):
        length, middle = _runs(label, axis)
        thickness = _box_sum(length)  # a mean over as many voxels for each axis
        better = thickness < thinnest
        np.copyto(thinnest, thickness, where=better)
        np.copyto(medial, middle, where=better)
    return medial.astype(np.uint8)


def tubed_skeleton(label: NDArray[np.uint8], *, radius: int = 1) -> NDArray[np.uint8]:
    """The label's medial surface, thickened by ``radius`` voxels within the label.

    Parameters
    ----------
    label : ndarray of uint8, shape (z, y, x)
        1 is surface, 2 is unlabelled.
    radius : int
        Chebyshev radius of the thickening (voxels), 0 to 16.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1: where skeleton recall counts.

    Raises
    ------
    ArgumentError
        Another dtype or number of axes; a radius out of range.

    Notes
    -----
    R19; the tube of Kirchhoff et al. (arXiv 2404.03010). A sheet thinner than the tube is in it whole.

    Examples
    --------
    >>> label = np.zeros((7, 4, 4), np.uint8)
    >>> label[1:6] = 1
    >>> tubed_skeleton(label)[:, 0, 0].tolist()
    [0, 0, 1, 1, 1, 0, 0]
    """
    if not 0 <= radius <= 16:
        raise ArgumentError(f"radius: got {radius}; accepted: 0 to 16 voxels")
    near = medial_surface(label).astype(bool)
    for axis in range(3):
        grown = near.copy()
        for shift in range(1, min(radius, label.shape[axis] - 1) + 1):
            ahead, behind = _slices(axis, slice(shift, None)), _slices(axis, slice(None, -shift))
            grown[ahead] |= near[behind]
            grown[behind] |= near[ahead]
        near = grown
    tube: NDArray[np.uint8] = (near & (label == SURFACE)).astype(np.uint8)
    return tube


def _runs(label: NDArray[np.uint8], axis: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Length of each surface voxel's run along ``axis`` (0 elsewhere), and whether the voxel is the run's middle.

    A run that ends at a face or at an unlabelled voxel may go on there: each such end doubles its length.
    """
    before, cut_before = _run_up_to(label, axis)
    after, cut_after = (np.flip(part, axis) for part in _run_up_to(np.flip(label, axis), axis))
    surface = label == SURFACE
    length = np.minimum(before + after - 1, LONGEST) << (cut_before + cut_after)
    counted: NDArray[np.uint16] = (np.minimum(length, LONGEST) * surface).astype(np.uint16)
    return counted, surface & (np.abs(before - after) <= 1)


def _run_up_to(label: NDArray[np.uint8], axis: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """How many voxels of a voxel's run lie up to it, itself included; 1 where the run begins at something unknown."""
    whole = np.int16 if label.shape[axis] < 1 << 14 else np.int32
    place = np.arange(label.shape[axis], dtype=whole).reshape(_shape_along(axis))
    # The place of the last gap, and in the lowest bit whether it is unknown; before the volume there is an unknown one.
    gap = np.where(label == SURFACE, whole(-1), 2 * place + (label == UNLABELLED))
    last_gap = np.maximum.accumulate(gap, axis)
    return place - (last_gap >> 1), last_gap & 1


def _box_sum(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Sum over the cube of radius ``SMOOTHING``, cut at the faces."""
    for axis in range(3):
        total = values.copy()
        for shift in range(1, min(SMOOTHING, values.shape[axis] - 1) + 1):
            ahead, behind = _slices(axis, slice(shift, None)), _slices(axis, slice(None, -shift))
            total[ahead] += values[behind]
            total[behind] += values[ahead]
        values = total
    return values


def _slices(axis: int, which: slice) -> tuple[slice, ...]:
    return tuple(which if a == axis else slice(None) for a in range(3))


def _shape_along(axis: int) -> tuple[int, ...]:
    return tuple(-1 if a == axis else 1 for a in range(3))


def _check(label: NDArray[np.uint8]) -> None:
    if label.ndim != 3 or label.dtype != np.uint8:
        raise ArgumentError(f"label: got {label.dtype} of shape {label.shape}; accepted: uint8 (z, y, x)")
