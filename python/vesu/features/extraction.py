"""Feature channels of a volume, and their rows at sampled voxels (R07)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.features.checks import argument, describe, floats, integer, slices, strings

FAMILIES: tuple[str, ...] = tuple(_core.feature_families())
"""Names of all channel families, in channel order; each gives one channel a scale."""

DEFAULT_MAX_BYTES = 16 << 30


@dataclass(frozen=True)
class FeatureSpec:
    """Which channels to compute.

    Parameters
    ----------
    scales
        Standard deviations of the Gaussians in voxels, strictly ascending, each 0.3 to 16.
    normalise
        True: channels in units of the volume's standard deviation, counted from its mean (both taken over the
        whole volume; a constant volume has deviation 1). False: channels in the volume's own units.
    families
        Some of :data:`FAMILIES`. Channels always stand in the order of :data:`FAMILIES`, then by scale.

    Attributes
    ----------
    names : tuple of str
        One name a channel, such as ``"sheetness_s2"``.
    halo : int
        How far in voxels a channel looks along each axis.
    version : int
        Rises whenever the same input gives other bits; part of a cache key.

    Raises
    ------
    ArgumentError
        A scale or family out of the accepted ones.

    Examples
    --------
    >>> spec = FeatureSpec(scales=(1, 2), families=("gradient", "intensity"))
    >>> spec.names
    ('intensity_s1', 'intensity_s2', 'gradient_s1', 'gradient_s2')
    >>> len(FeatureSpec().names), FeatureSpec().halo
    (27, 33)
    """

    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    normalise: bool = True
    families: tuple[str, ...] = FAMILIES
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    halo: int = field(init=False, repr=False, compare=False)

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", floats("scales", self.scales))
        object.__setattr__(self, "families", strings("families", self.families))
        names, halo = _core.feature_plan(list(self.scales), list(self.families))
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "halo", halo)


@dataclass(frozen=True, eq=False)
class FeatureVolume:
    """Channels of a volume, or of some of its slices.

    Attributes
    ----------
    values : ndarray of float32, shape (n_features, z, y, x)
    names : tuple of str
        One name a channel.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, np.ndarray) or self.values.ndim != 4:
            raise argument("values", describe(self.values), "a 4-D float32 array (n_features, z, y, x)")
        if len(self.names) != self.values.shape[0]:
            raise argument("names", f"{len(self.names)} names", f"{self.values.shape[0]}, one a channel")


def extract_features(
    volume: NDArray[Any],
    spec: FeatureSpec | None = None,
    *,
    z_range: tuple[int, int] | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    n_threads: int | None = None,
) -> FeatureVolume:
    """Multi-scale sheet features of a volume.

    Parameters
    ----------
    volume : ndarray of uint8, uint16 or float32, shape (z, y, x)
        Any layout; copied if it is not C-contiguous. Float volumes must be finite.
    spec
        Channels to compute; default ``FeatureSpec()``: 27 channels at scales 1, 2 and 4 voxels.
    z_range
        ``(first, last + 1)``: return these slices only, with the bits that the whole extraction gives them, so
        that a large volume can be streamed. Statistics still come from the whole volume.
    max_bytes
        Refuse, before allocating, when output and scratch together need more.
    n_threads
        Threads; None: ``VESU_NUM_THREADS``, else all cores. The bits do not depend on it.

    Returns
    -------
    FeatureVolume
        ``values`` float32, shape (n_features, z, y, x).

    Raises
    ------
    ArgumentError
        Wrong dtype or shape, non-finite values (with their count and the first one's position), empty ``z_range``.
    MemoryLimitError
        More than ``max_bytes`` needed.

    Notes
    -----
    Requirement R07. Gaussians are finite filters of radius ``int(4 * sigma + 0.5)`` with clamped edges, as
    ``scipy.ndimage.gaussian_filter(mode="nearest", truncate=4.0)``; derivatives are central differences of the
    smoothed volume. Arithmetic is single precision without fused multiply-add (eigenvalues in double precision):
    the same bits on any number of threads and on any processor. Memory: 4 bytes a voxel and channel of output,
    plus scratch for 32 slices and their halo (about 160 MB for 320 x 320 slices at the default scales).

    Examples
    --------
    >>> import numpy as np
    >>> volume = np.zeros((8, 16, 16), np.uint8)
    >>> volume[:, 8] = 200  # a bright sheet across y
    >>> features = extract_features(volume, FeatureSpec(scales=(1,)))
    >>> features.values.shape
    (9, 8, 16, 16)
    >>> sheetness = features.values[features.names.index("sheetness_s1")]
    >>> [int(at) for at in np.unique(sheetness.argmax(axis=1))]
    [8]
    """
    spec = FeatureSpec() if spec is None else spec
    depth = volume.shape[0] if isinstance(volume, np.ndarray) and volume.ndim else 0
    values = _core.extract_features(
        volume,
        list(spec.scales),
        list(spec.families),
        spec.normalise,
        None if z_range is None else slices(z_range, depth),
        integer("max_bytes", max_bytes, 0, 2**63 - 1),
        n_threads,
    )
    return FeatureVolume(values, spec.names)


def gather(
    features: FeatureVolume, flat_index: NDArray[np.int64], *, n_threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Feature rows of sampled voxels.

    Parameters
    ----------
    features
        Channels of a whole volume.
    flat_index : ndarray of int64, shape (n,)
        Flat indices into (z, y, x), ascending (as :func:`vesu.data.sampling.sample_voxels` gives them).
    n_threads
        As in :func:`extract_features`.

    Returns
    -------
    x : ndarray of float32, shape (n, n_features)
        The channels at these voxels.
    g : ndarray of float32, shape (n, n_features)
        Length of each channel's spatial gradient there, per voxel: central differences, one-sided at the faces
        (``numpy.gradient``), 0 along an axis of one voxel.

    Raises
    ------
    ArgumentError
        An index out of range or out of order; a non-finite value found at one of the voxels.

    Notes
    -----
    Requirements R12, R16. Standardising x by (mean, std) divides g by the same std.

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4) * 3
    >>> x, g = gather(FeatureVolume(ramp, ("ramp",)), np.array([0, 2]))
    >>> x.ravel().tolist(), g.ravel().tolist()
    ([0.0, 6.0], [3.0, 3.0])
    """
    return _core.gather_features(features.values, flat_index, n_threads)
