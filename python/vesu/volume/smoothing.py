"""Smoothing along z."""

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.volume.arguments import whole


def smooth_z(volume: NDArray[np.float32], radius: int, *, n_threads: int | None = None) -> NDArray[np.float32]:
    """Moving mean along z.

    Parameters
    ----------
    volume : ndarray of float32, shape (z, y, x)
        Finite.
    radius : int
        The window has ``2 * radius + 1`` slices; 0 copies. Beyond the ends the first and the last slice
        repeat, so a radius beyond the axis is allowed. At most 2**23 - 1.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        Probabilities stay in [0, 1].

    Raises
    ------
    ArgumentError
        `radius` out of range; NaN or infinite voxels (with their number and the first one's place); another
        dtype or number of axes; an axis of length 0; more than 2**32 - 1 voxels.

    Notes
    -----
    `scipy.ndimage.uniform_filter1d(volume, 2 * radius + 1, axis=0, mode="nearest")`, with float32 sums in
    the order of z. Memory: the output. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> vesu.volume.smooth_z(np.array([[[0.0]], [[0.0]], [[1.5]]], dtype=np.float32), 1).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    return _core.smooth_z(volume, whole("radius", radius, "0 or more"), n_threads)
