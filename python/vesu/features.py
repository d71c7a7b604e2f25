"""3-D multi-scale sheet features of a CT volume, their rows at sampled voxels, and the selection of channels.

``docs/features.md`` has the formula of every channel.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu import _core
from vesu.errors import ArgumentError

FAMILIES: tuple[str, ...] = tuple(_core.feature_families())
"""Names of all channel families, in channel order; each gives one channel a scale."""

DEFAULT_MAX_BYTES = 16 << 30

T = TypeVar("T")


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
        object.__setattr__(self, "scales", _floats("scales", self.scales))
        object.__setattr__(self, "families", _strings("families", self.families))
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
            raise _argument("values", _describe(self.values), "a 4-D float32 array (n_features, z, y, x)")
        if len(self.names) != self.values.shape[0]:
            raise _argument("names", f"{len(self.names)} names", f"{self.values.shape[0]}, one a channel")


@dataclass(frozen=True)
class FeatureSelection:
    """Outcome of :func:`select_features`.

    Attributes
    ----------
    indices : tuple of int
        Columns kept, ascending.
    names : tuple of str
        Their names, in the same order.
    variances : tuple of float
        Variance of every column of the input, kept or not.
    dropped : tuple of (str, str)
        Name and reason of every column left out, in column order.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    variances: tuple[float, ...]
    dropped: tuple[tuple[str, str], ...]


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
        None if z_range is None else _z_range(z_range, depth),
        _integer("max_bytes", max_bytes, 0, 2**63 - 1),
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


def select_features(
    x: NDArray[np.float32],
    names: Sequence[str],
    *,
    y: ArrayLike | None = None,
    min_variance: float = 1e-8,
    max_correlation: float = 0.97,
    top_k: int | None = None,
    n_threads: int | None = None,
) -> FeatureSelection:
    """Choose channels by variance, with a correlation cut.

    1. A column whose variance is 0 or below ``min_variance`` is dropped.
    2. The others are ranked: by absolute correlation with ``y`` where ``y`` is given, else by variance; the higher
       first, equals by column order. (Variances compare columns as they come; with ``normalise=True`` these are all
       in units of the volume's own deviation.)
    3. In that order, a column is dropped when its absolute correlation with one already kept is at least
       ``max_correlation``, and everything after ``top_k`` kept columns is dropped.

    Parameters
    ----------
    x : ndarray of float32, shape (n_samples, n_features)
        Raw columns, as :func:`gather` gives them.
    names
        One name a column.
    y : array_like of shape (n_samples,), optional
        Labels or any finite target.
    min_variance, max_correlation
        Thresholds; ``max_correlation`` in (0, 1], where 1 drops exact copies only.
    top_k
        Keep at most so many; None keeps all that survive, 6 reproduces the historical runs.
    n_threads
        As in :func:`extract_features`.

    Returns
    -------
    FeatureSelection
        Kept columns in column order, and the reason of every dropped one.

    Raises
    ------
    ArgumentError
        NaN or infinity in ``x`` or ``y``, lengths that differ, thresholds out of range.

    Notes
    -----
    Requirement R08. Moments are population moments in double precision, folded in a fixed order: the outcome does
    not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    >>> x = np.stack([a, b, 2 * a, np.zeros_like(a)], axis=1)
    >>> selection = select_features(x, ["a", "b", "twice_a", "flat"])
    >>> selection.names
    ('b', 'twice_a')
    >>> selection.dropped
    (('a', 'correlation +1.000 with twice_a'), ('flat', 'variance 0 below 1e-08'))
    """
    names = _strings("names", names)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != len(names):
        raise _argument("x", _describe(x), f"a 2-D array of {len(names)} columns, one a name")
    table = x if y is None else np.column_stack([x, _target(y, len(x))])
    _, covariance = _core.feature_moments(table, n_threads)
    return _selection(covariance, names, y is not None, min_variance, max_correlation, top_k)


def select_features_of(
    parts: Callable[[], Iterable[tuple[NDArray[np.float32], ArrayLike]]],
    names: Sequence[str],
    *,
    min_variance: float = 1e-8,
    max_correlation: float = 0.97,
    top_k: int | None = None,
    n_threads: int | None = None,
) -> FeatureSelection:
    """:func:`select_features` of rows that come in parts and are never held together; the outcome is the same.

    Parameters
    ----------
    parts : callable
        Gives the parts ``(x, y)`` in their order; it is called twice.
    names, min_variance, max_correlation, top_k, n_threads
        As in :func:`select_features`.

    Returns
    -------
    FeatureSelection

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    >>> select_features_of(lambda: [(x[:30], x[:30, 0] > 0), (x[30:], x[30:, 0] > 0)], ["a", "b"]).names
    ('a', 'b')
    """
    names = _strings("names", names)

    def total(centre: list[float] | None) -> tuple[NDArray[np.float64], int]:
        shape = (len(names) + 1,) * (1 if centre is None else 2)
        sums, rest, n_rows = np.zeros(shape), np.empty((0, len(names) + 1), np.float32), 0
        for last, (x, y) in _marked(parts()):
            table = np.concatenate([rest, np.column_stack([x, _target(y, len(x))])])
            whole = len(table) if last else len(table) - len(table) % _core.FEATURE_MOMENT_CHUNK
            n_rows += whole
            rest = table[whole:]
            for chunk in _core.feature_moment_sums(table[:whole], centre, n_threads) if whole else ():
                sums += chunk
        return sums, n_rows

    sums, n_rows = total(None)
    products, _ = total((sums / n_rows).tolist())
    upper = products / n_rows
    covariance = np.triu(upper) + np.triu(upper, 1).T
    return _selection(covariance, names, True, min_variance, max_correlation, top_k)


def _marked(parts: Iterable[T]) -> Iterator[tuple[bool, T]]:
    """Each part, and before it whether it is the last."""
    held: list[T] = []
    for part in parts:
        if held:
            yield False, held.pop()
        held.append(part)
    if held:
        yield True, held.pop()


def _selection(
    covariance: NDArray[np.float64],
    names: Sequence[str],
    has_target: bool,
    min_variance: float,
    max_correlation: float,
    top_k: int | None,
) -> FeatureSelection:
    """Of the columns of these names, from their covariance, with that of a target behind them."""
    _check_number("min_variance", min_variance, 0.0, np.inf)
    _check_number("max_correlation", max_correlation, np.nextafter(0, 1), 1.0)
    limit = len(names) if top_k is None else _integer("top_k", top_k, 1, 2**31)
    variances = np.diag(covariance)[: len(names)]
    informative = [i for i, variance in enumerate(variances) if variance > 0 and variance >= min_variance]
    correlation = _correlation(covariance)
    merit = np.abs(correlation[: len(names), -1]) if has_target else variances
    criterion = "correlation with y" if has_target else "variance"

    reasons = {i: f"variance {variances[i]:.4g} below {min_variance:g}" for i in range(len(names))}
    kept: list[int] = []
    for i in sorted(informative, key=lambda i: -merit[i]):  # stable: equals stay in column order
        twin = next((j for j in kept if abs(correlation[i, j]) >= max_correlation), None)
        if twin is not None:
            reasons[i] = f"correlation {correlation[i, twin]:+.3f} with {names[twin]}"
        elif len(kept) == limit:
            reasons[i] = f"{criterion} {merit[i]:.4g} ranks after the first {limit}"
        else:
            kept.append(i)
    kept.sort()
    dropped = tuple((names[i], reasons[i]) for i in range(len(names)) if i not in kept)
    return FeatureSelection(tuple(kept), tuple(names[i] for i in kept), tuple(variances.tolist()), dropped)


def _correlation(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = np.sqrt(np.diag(covariance))
    deviation[deviation == 0] = np.inf  # a constant correlates with nothing
    # Rounding may leave exact copies a few units in the last place short of 1; do not let them escape a cut at 1.
    return np.asarray(np.round(covariance / deviation[:, None] / deviation[None, :], 12))


def _target(y: ArrayLike, n_rows: int) -> NDArray[np.float32]:
    given = np.asarray(y)
    if given.shape != (n_rows,) or given.dtype.kind not in "biuf":
        raise _argument("y", _describe(given), f"{n_rows} numbers, one a row of x")
    with np.errstate(over="ignore"):
        target = given.astype(np.float32)
    bad = ~np.isfinite(target)
    if bad.any():
        raise _argument("y", f"{bad.sum()} non-finite values, the first at {bad.argmax()}", "finite values only")
    return target


def _z_range(z_range: tuple[int, int], depth: int) -> tuple[int, int]:
    accepted = f"two integers (first, last + 1) with 0 <= first < last + 1 <= {depth}"
    try:
        first, end = (operator.index(bound) for bound in z_range)
    except (TypeError, ValueError):
        raise _argument("z_range", repr(z_range), accepted) from None
    if not 0 <= first < end <= depth:
        raise _argument("z_range", repr(z_range), accepted)
    return first, end


def _floats(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise _argument(name, repr(values), "a sequence of numbers") from None


def _strings(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise _argument(name, repr(values), "a sequence of strings")
    return tuple(values)


def _integer(name: str, value: int, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise _argument(name, repr(value), "an integer") from None
    if not least <= number <= most:
        raise _argument(name, repr(value), f"{least} to {most}")
    return number


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not isinstance(value, (int, float, np.floating)) or not least <= value <= most:
        raise _argument(name, repr(value), f"a number from {least:g} to {most:g}")


def _describe(value: object) -> str:
    return f"shape {value.shape}, dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _argument(name: str, got: str, accepted: str) -> ArgumentError:
    return ArgumentError(f"{name}: got {got}; accepted: {accepted}")


__all__ = [
    "DEFAULT_MAX_BYTES",
    "FAMILIES",
    "FeatureSelection",
    "FeatureSpec",
    "FeatureVolume",
    "extract_features",
    "gather",
    "select_features",
    "select_features_of",
]
