"""Connected components, dust, hysteresis."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.volume.arguments import Mask, real, whole

_ACCEPTED = "6, 18 or 26"


def connected_components(
    mask: Mask, connectivity: int = 26, *, n_threads: int | None = None
) -> tuple[NDArray[np.uint32], int]:
    """Label the connected components of a mask.

    Parameters
    ----------
    mask : ndarray of uint8 or bool, shape (z, y, x)
        Non-zero is foreground. At most 2**32 - 1 voxels.
    connectivity : {26, 18, 6}
        Neighbours of a voxel: sharing a face (6), a face or edge (18), a face, edge or corner (26).
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    labels : ndarray of uint32, shape (z, y, x)
        0 for background; components are numbered from 1 by first appearance in C order, as
        `scipy.ndimage.label` does.
    n_components : int

    Raises
    ------
    ArgumentError
        Another dtype, number of axes or connectivity; an axis of length 0; too many voxels.

    Notes
    -----
    Union-find over runs of foreground, found 64 voxels at a time; at 18 and 26 two and four rows are joined to one
    before. After He, Chao, Suzuki (IEEE Trans. Image Process. 17, 2008), and the block-based scans of Grana,
    Borghesani, Cucchiara (ibid. 19, 2010). `scipy.ndimage.label` and `cc3d.connected_components` do the same.
    Memory beyond the result: about 0.3 bytes a voxel (rows padded to 64 voxels) and 4 bytes a run and a component.
    Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> mask = np.array([[[1, 0, 1, 1, 0, 0, 1]]], dtype=np.uint8)
    >>> labels, n = vesu.volume.connected_components(mask)
    >>> labels[0, 0].tolist(), n
    ([1, 0, 2, 2, 0, 0, 3], 3)
    """
    return _core.connected_components(mask, whole("connectivity", connectivity, _ACCEPTED), n_threads)


def connected_components_multilabel(
    labels: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.bool_],
    connectivity: int = 26,
    *,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint32], int]:
    """Label the connected components of a volume of labels: voxels of different values never join.

    Parameters
    ----------
    labels : ndarray of uint8, uint16, uint32 or bool, shape (z, y, x)
        0 is background. At most 2**32 - 1 voxels.
    connectivity, n_threads
        As in :func:`connected_components`.

    Returns
    -------
    components : ndarray of uint32, shape (z, y, x)
        0 for background; components are numbered from 1 by first appearance in C order.
    n_components : int

    Raises
    ------
    ArgumentError
        Another dtype, number of axes or connectivity; an axis of length 0; too many voxels.

    Notes
    -----
    `cc3d.connected_components` does the same for multi-label input. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> labels = np.array([[[1, 1, 2, 2, 0, 2, 1]]], dtype=np.uint8)
    >>> components, n = vesu.volume.connected_components_multilabel(labels)
    >>> components[0, 0].tolist(), n
    ([1, 1, 2, 2, 0, 3, 4], 4)
    """
    return _core.connected_components_multilabel(labels, whole("connectivity", connectivity, _ACCEPTED), n_threads)


@dataclass(frozen=True)
class ComponentStats:
    """Statistics of components; entry i belongs to label i + 1.

    Attributes
    ----------
    sizes : ndarray of int64, shape (n,)
        Voxels.
    bounding_boxes : ndarray of int64, shape (n, 3, 2)
        Per axis (z, y, x) the half-open range [start, stop), in voxels.
    touches_border : ndarray of bool, shape (n,)
        Whether the component has a voxel on one of the volume's six faces.
    """

    sizes: NDArray[np.int64]
    bounding_boxes: NDArray[np.int64]
    touches_border: NDArray[np.bool_]


def component_stats(mask: Mask, connectivity: int = 26, *, n_threads: int | None = None) -> ComponentStats:
    """Sizes, bounding boxes and border contact of each connected component, without making a label volume.

    Parameters
    ----------
    mask, connectivity, n_threads
        As in :func:`connected_components`.

    Returns
    -------
    ComponentStats
        In the order of :func:`connected_components`' labels.

    Raises
    ------
    ArgumentError
        As in :func:`connected_components`.

    Notes
    -----
    `cc3d.statistics` and `scipy.ndimage.find_objects` give the same of a label volume. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> mask = np.zeros((4, 4, 4), np.uint8)
    >>> mask[1, 1:3, 2] = mask[3, 3, 3] = 1
    >>> stats = vesu.volume.component_stats(mask, connectivity=6)
    >>> stats.sizes.tolist(), stats.touches_border.tolist()
    ([2, 1], [False, True])
    >>> stats.bounding_boxes[0].tolist()
    [[1, 2], [1, 3], [2, 3]]
    """
    return ComponentStats(*_core.component_stats(mask, whole("connectivity", connectivity, _ACCEPTED), n_threads))


def component_sizes(mask: Mask, connectivity: int = 26, *, n_threads: int | None = None) -> NDArray[np.int64]:
    """Voxels of each connected component, without making a label volume.

    Parameters
    ----------
    mask, connectivity, n_threads
        As in :func:`connected_components`.

    Returns
    -------
    ndarray of int64, shape (n_components,)
        Entry i is the size, in voxels, of the component that :func:`connected_components` labels i + 1.

    Raises
    ------
    ArgumentError
        As in :func:`connected_components`.

    Notes
    -----
    Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> vesu.volume.component_sizes(np.array([[[1, 0, 1, 1]]], dtype=np.uint8)).tolist()
    [1, 2]
    """
    return _core.component_sizes(mask, whole("connectivity", connectivity, _ACCEPTED), n_threads)


def remove_dust(
    mask: Mask,
    min_voxels: int,
    connectivity: int = 26,
    *,
    keep_largest: int | None = None,
    spare_border: bool = False,
    n_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Remove small components.

    Parameters
    ----------
    mask, connectivity, n_threads
        As in :func:`connected_components`.
    min_voxels : int
        Components of strictly fewer voxels go, as in `cc3d.dust`; 0 and 1 remove nothing.
    keep_largest : int, optional
        Of the components that have `min_voxels`, only so many largest stay. Of equally large ones those stay that
        appear first in C order. None keeps all.
    spare_border : bool
        Components with a voxel on one of the volume's six faces stay whatever their size (the volume's edge may have
        cut them), and do not count towards `keep_largest`.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1.

    Raises
    ------
    ArgumentError
        As in :func:`connected_components`, or `min_voxels` or `keep_largest` negative.

    Notes
    -----
    `cc3d.dust`, and with `keep_largest` `cc3d.largest_k`, do the same. Memory beyond the result: as for
    :func:`connected_components`. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> mask = np.array([[[1, 0, 1, 1]]], dtype=np.uint8)
    >>> vesu.volume.remove_dust(mask, min_voxels=2).tolist()
    [[[0, 0, 1, 1]]]
    """
    return remove_dust_counted(
        mask, min_voxels, connectivity, keep_largest=keep_largest, spare_border=spare_border, n_threads=n_threads
    )[0]


def remove_dust_counted(
    mask: Mask,
    min_voxels: int,
    connectivity: int = 26,
    *,
    keep_largest: int | None = None,
    spare_border: bool = False,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint8], int, int]:
    """:func:`remove_dust`, with the number of components before and the number of those removed.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> vesu.volume.remove_dust_counted(np.array([[[1, 0, 1, 1]]], dtype=np.uint8), 2)[1:]
    (2, 1)
    """
    min_voxels = whole("min_voxels", min_voxels, "0 or more")
    connectivity = whole("connectivity", connectivity, _ACCEPTED)
    if keep_largest is not None:
        keep_largest = whole("keep_largest", keep_largest, "0 or more, or None for all")
    return _core.remove_dust(mask, min_voxels, connectivity, keep_largest, bool(spare_border), n_threads)


def hysteresis(
    probability: NDArray[np.float32],
    low: float,
    high: float,
    connectivity: int = 26,
    *,
    n_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Threshold with hysteresis: weak voxels stay where they hang together with a strong one.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1].
    low, high : float
        Weak voxels have ``probability >= low``, strong ones ``probability >= high``; rounded to float32.
        ``0 <= low <= high <= 1``; the float32 next above 1 is accepted too, and no voxel reaches it.
    connectivity, n_threads
        As in :func:`connected_components`.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        1 in those components of weak voxels that hold at least one strong voxel, else 0.

    Raises
    ------
    ArgumentError
        A threshold out of range or `low` above `high`; a probability that is NaN or outside [0, 1] (the
        message gives their number and the first one's place); else as in :func:`connected_components`.

    Notes
    -----
    `skimage.filters.apply_hysteresis_threshold` does the same with ``>`` in place of ``>=``. With ``>=``,
    a threshold that is a quantile of the volume keeps the voxels that lie on it. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> p = np.array([[[0.4, 0.9, 0.1, 0.4, 0.4]]], dtype=np.float32)
    >>> vesu.volume.hysteresis(p, low=0.3, high=0.8).tolist()
    [[[1, 1, 0, 0, 0]]]
    """
    return hysteresis_counted(probability, low, high, connectivity, n_threads=n_threads)[0]


def hysteresis_counted(
    probability: NDArray[np.float32],
    low: float,
    high: float,
    connectivity: int = 26,
    *,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint8], int, int]:
    """:func:`hysteresis`, with the number of weak components and the number of those kept.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> p = np.array([[[0.4, 0.9, 0.1, 0.4, 0.4]]], dtype=np.float32)
    >>> vesu.volume.hysteresis_counted(p, low=0.3, high=0.8)[1:]
    (2, 1)
    """
    low, high = real("low", low), real("high", high)
    return _core.hysteresis(probability, low, high, whole("connectivity", connectivity, _ACCEPTED), n_threads)

