"""Median, dilation, erosion, opening and closing, of masks and of float32 volumes."""

import operator
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.volume.arguments import Mask

Radius: TypeAlias = int | tuple[int, int, int]
Shape: TypeAlias = Literal["ball", "box"]

_MAX_RADIUS = 2**20
_ACCEPTED = f"0 to {_MAX_RADIUS}, one number or one for each of (z, y, x)"


def _radii(radius: Any) -> tuple[int, int, int]:
    """`radius` as three, or an error that says what is accepted."""
    given = tuple(radius) if isinstance(radius, (tuple, list, np.ndarray)) else (radius,) * 3
    try:
        z, y, x = map(operator.index, given)
    except (TypeError, ValueError):
        raise ArgumentError(f"radius: got {radius!r}; accepted: {_ACCEPTED}") from None
    if not all(0 <= r <= _MAX_RADIUS for r in (z, y, x)):
        raise ArgumentError(f"radius: got {radius!r}; accepted: {_ACCEPTED}")
    return z, y, x


def _shape(shape: Any) -> str:
    if shape not in ("ball", "box"):
        raise ArgumentError(f"shape: got {shape!r}; accepted: 'ball' or 'box'")
    return str(shape)


@overload
def median(volume: Mask, *, n_threads: int | None = None) -> NDArray[np.uint8]: ...
@overload
def median(volume: NDArray[np.float32], *, n_threads: int | None = None) -> NDArray[np.float32]: ...
def median(volume: Mask | NDArray[np.float32], *, n_threads: int | None = None) -> NDArray[Any]:
    """Median of the 3x3x3 neighbourhood of every voxel; beyond the faces the outermost voxels repeat.

    Parameters
    ----------
    volume : ndarray of uint8, bool or float32, shape (z, y, x)
        A mask (non-zero is foreground) or numbers, infinities included, NaN not. At most 2**32 - 1 voxels.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray, shape (z, y, x)
        Of a mask: uint8, 1 where at least 14 of the 27 voxels are foreground, else 0. Of float32: float32.

    Raises
    ------
    ArgumentError
        Another dtype or number of axes; an axis of length 0; too many voxels; NaN (the message gives their number
        and the first one's place).

    Notes
    -----
    `scipy.ndimage.median_filter(volume, 3, mode="nearest")`. A mask is counted 64 voxels at a time by adders on
    bit planes; numbers pass a network that sorts the nine values of a column once for the three medians that need
    them. Memory: the output, and some slices or rows a thread. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> mask = np.zeros((3, 3, 3), dtype=np.uint8)
    >>> mask[1, 1, 1] = 1
    >>> int(vesu.volume.median(mask).sum())
    0
    >>> vesu.volume.median(np.array([[[1.0, 9.0, 2.0, 3.0]]], dtype=np.float32)).tolist()
    [[[1.0, 2.0, 3.0, 3.0]]]
    """
    return _core.median(volume, n_threads)


@overload
def dilation(volume: Mask, radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...) -> NDArray[np.uint8]: ...
@overload
def dilation(
    volume: NDArray[np.float32], radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...
) -> NDArray[np.float32]: ...
def dilation(
    volume: Mask | NDArray[np.float32], radius: Radius, shape: Shape = "ball", *, n_threads: int | None = None
) -> NDArray[Any]:
    """Dilate: the largest value under the structuring element.

    Parameters
    ----------
    volume : ndarray of uint8, bool or float32, shape (z, y, x)
        A mask (non-zero is foreground) or numbers, infinities included, NaN not. At most 2**32 - 1 voxels.
    radius : int or (int, int, int)
        In voxels, one for all axes or one each for (z, y, x), 0 to 2**20. 0: no reach along that axis. A radius
        beyond the axis is allowed.
    shape : {"ball", "box"}
        The offsets (z, y, x) with ``(z / rz)**2 + (y / ry)**2 + (x / rx)**2 <= 1``, computed in whole numbers, or
        those with ``|z| <= rz``, ``|y| <= ry`` and ``|x| <= rx``.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray, shape (z, y, x)
        Of a mask: uint8, 0 or 1. Of float32: float32.

    Raises
    ------
    ArgumentError
        A radius or shape that is not accepted; another dtype or number of axes; an axis of length 0; too many
        voxels; NaN (the message gives their number and the first one's place).

    Notes
    -----
    Voxels outside the volume are ignored. `scipy.ndimage.binary_dilation(volume, structure)`, and
    `scipy.ndimage.grey_dilation(volume, footprint=structure, mode="constant", cval=-inf)`. Each row is widened once
    for every width that a row of the element has, and the widened rows are joined over the element's offsets in
    (z, y), 64 voxels a word for masks; a box goes axis by axis in a number of steps that grows with the logarithm
    of the radius. Numbers pass all dilations and erosions of an operation in one walk: each slice is joined to the
    sections of the element once, and what lies between stays in the cache. Of zeros of either sign that meet, either
    may stay.

    Memory for a mask: the output and up to 0.3 of it (rows are packed in whole words of 64 voxels). For float32: the
    output, and in each thread a band of rows of at most 16 MiB; where an element or a row is too large for that, one
    volume more for a box, opening or closing. Where the code goes volume by volume (masks, and numbers by such
    elements), each thread holds a tile of (16 + 2.5 rz) slices by (8 + 2.5 ry) rows or 256 KiB, whichever is larger.
    Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> row = np.array([[[0, 0, 0, 1, 0, 0]]], dtype=np.uint8)
    >>> vesu.volume.dilation(row, (0, 0, 2)).tolist()
    [[[0, 1, 1, 1, 1, 1]]]
    """
    return _core.morphology(volume, "dilation", _radii(radius), _shape(shape), n_threads)


@overload
def erosion(volume: Mask, radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...) -> NDArray[np.uint8]: ...
@overload
def erosion(
    volume: NDArray[np.float32], radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...
) -> NDArray[np.float32]: ...
def erosion(
    volume: Mask | NDArray[np.float32], radius: Radius, shape: Shape = "ball", *, n_threads: int | None = None
) -> NDArray[Any]:
    """Erode: the smallest value under the structuring element.

    Parameters
    ----------
    volume, radius, shape, n_threads
        As in :func:`dilation`.

    Returns
    -------
    ndarray, shape (z, y, x)
        As in :func:`dilation`.

    Raises
    ------
    ArgumentError
        As in :func:`dilation`.

    Notes
    -----
    Voxels outside the volume are ignored, so a mask that fills the volume stays.
    `scipy.ndimage.binary_erosion(volume, structure, border_value=1)`, and
    `scipy.ndimage.grey_erosion(volume, footprint=structure, mode="constant", cval=inf)`. Memory as in
    :func:`dilation`. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> row = np.array([[[1, 1, 1, 0, 1, 1]]], dtype=np.uint8)
    >>> vesu.volume.erosion(row, (0, 0, 1)).tolist()
    [[[1, 1, 0, 0, 0, 1]]]
    """
    return _core.morphology(volume, "erosion", _radii(radius), _shape(shape), n_threads)


@overload
def opening(volume: Mask, radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...) -> NDArray[np.uint8]: ...
@overload
def opening(
    volume: NDArray[np.float32], radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...
) -> NDArray[np.float32]: ...
def opening(
    volume: Mask | NDArray[np.float32], radius: Radius, shape: Shape = "ball", *, n_threads: int | None = None
) -> NDArray[Any]:
    """Open: erode, then dilate. Removes what the structuring element does not fit into.

    Parameters
    ----------
    volume, radius, shape, n_threads
        As in :func:`dilation`.

    Returns
    -------
    ndarray, shape (z, y, x)
        As in :func:`dilation`; nowhere above `volume`.

    Raises
    ------
    ArgumentError
        As in :func:`dilation`.

    Notes
    -----
    As voxels outside the volume are ignored in both halves, opening again changes nothing, and opening a mask is
    closing its complement. `scipy.ndimage.binary_opening` counts what lies outside as background in the erosion
    and so differs near the faces. Memory as in :func:`dilation`. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> row = np.array([[[0, 1, 0, 1, 1, 1]]], dtype=np.uint8)
    >>> vesu.volume.opening(row, (0, 0, 1)).tolist()
    [[[0, 0, 0, 1, 1, 1]]]
    """
    return _core.morphology(volume, "opening", _radii(radius), _shape(shape), n_threads)


@overload
def closing(volume: Mask, radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...) -> NDArray[np.uint8]: ...
@overload
def closing(
    volume: NDArray[np.float32], radius: Radius, shape: Shape = ..., *, n_threads: int | None = ...
) -> NDArray[np.float32]: ...
def closing(
    volume: Mask | NDArray[np.float32], radius: Radius, shape: Shape = "ball", *, n_threads: int | None = None
) -> NDArray[Any]:
    """Close: dilate, then erode. Fills what the structuring element does not fit into.

    Parameters
    ----------
    volume, radius, shape, n_threads
        As in :func:`dilation`.

    Returns
    -------
    ndarray, shape (z, y, x)
        As in :func:`dilation`; nowhere below `volume`.

    Raises
    ------
    ArgumentError
        As in :func:`dilation`.

    Notes
    -----
    As voxels outside the volume are ignored in both halves, closing again changes nothing, and closing a mask is
    opening its complement. `scipy.ndimage.binary_closing` erodes the mask from the volume's faces, unless it is
    padded by the radius first. Memory as in :func:`dilation`. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> row = np.array([[[1, 0, 1, 0, 0, 0]]], dtype=np.uint8)
    >>> vesu.volume.closing(row, (0, 0, 1)).tolist()
    [[[1, 1, 1, 0, 0, 0]]]
    """
    return _core.morphology(volume, "closing", _radii(radius), _shape(shape), n_threads)
