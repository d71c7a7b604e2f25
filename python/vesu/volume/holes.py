"""Filling of cavities."""

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.volume.arguments import Mask, whole


def fill_holes(mask: Mask, connectivity: int = 6, *, n_threads: int | None = None) -> NDArray[np.uint8]:
    """Fill the cavities of a mask: background that reaches none of the volume's faces becomes foreground.

    Parameters
    ----------
    mask : ndarray of uint8 or bool, shape (z, y, x)
        Non-zero is foreground. At most 2**32 - 1 voxels.
    connectivity : {6, 18, 26}
        Of the background: at 6 a shell that touches itself at edges and corners closes a cavity; at 26 it must touch
        itself at faces.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1. Filling it again changes nothing.

    Raises
    ------
    ArgumentError
        Another dtype, number of axes or connectivity; an axis of length 0; too many voxels.

    Notes
    -----
    `scipy.ndimage.binary_fill_holes` (whose `structure` is the background's connectivity) and `fill_voids.fill` do the
    same at 6. Memory beyond the result: about 0.3 bytes a voxel (rows padded to 64 voxels) and 4 bytes a run of
    background. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> shell = np.ones((3, 3, 3), np.uint8)
    >>> shell[1, 1, 1] = 0
    >>> int(vesu.volume.fill_holes(shell).sum())
    27
    """
    return fill_holes_counted(mask, connectivity, n_threads=n_threads)[0]


def fill_holes_counted(
    mask: Mask, connectivity: int = 6, *, n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """:func:`fill_holes`, with the number of cavities filled.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> shell = np.ones((3, 3, 5), np.uint8)
    >>> shell[1, 1, [1, 3]] = 0
    >>> vesu.volume.fill_holes_counted(shell)[1]
    2
    """
    return _core.fill_holes(mask, whole("connectivity", connectivity, "6, 18 or 26"), n_threads)
