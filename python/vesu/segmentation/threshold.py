"""Thresholds per volume: a rule that turns a volume's own probabilities into thresholds (R28).

A rule has one number, `value`, and a mode that says what it means:

- ``"fixed"``: the threshold itself, the same for every volume;
- ``"quantile"``: the lowest threshold that at most a share ``1 - value`` of the voxels reaches;
- ``"ratio"``: the threshold lies just above the point ``value`` of the way from the volume's median probability
  (its background) to its 99th percentile (its surest voxels), so it follows a volume that the model rates lower
  or higher as a whole;
- ``"density"``: the fixed threshold, moved no further than needed for the share of voxels that reach it to lie within
  `density_range`.

All but the first work on a histogram of 4096 bins. Their thresholds are bin edges, which float32 holds exactly, so
what a fit counts is what the threshold does. A volume of one constant probability shows no surface: they put the
threshold just above that constant and nothing passes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError

Mode: TypeAlias = Literal["fixed", "quantile", "ratio", "density"]

N_BINS = 4096

_ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
_MEDIAN, _PEAK = 0.5, 0.99


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of one volume, float32 values, for :func:`vesu.volume.hysteresis`.

    Examples
    --------
    >>> Thresholds(low=0.25, high=0.5)
    Thresholds(low=0.25, high=0.5)
    """

    low: float
    high: float


@dataclass(frozen=True)
class ThresholdRule:
    """How a volume's thresholds follow from its probabilities.

    Parameters
    ----------
    mode : {"quantile", "ratio", "fixed", "density"}
        What `value` means; see the module's text.
    value : float
        In [0, 1]. The default suits labels of which about 6 % is surface; better fit it.
    low_factor : float
        In (0, 1]: the low threshold of the hysteresis is this times the high one; 1 is a plain threshold.
    density_range : (float, float), optional
        For the mode "density", and only for it: the least and the largest share of voxels at or above the high
        threshold. A clamp, so it should come from a fit (R28).

    Raises
    ------
    ArgumentError
        An unknown mode or a number out of range; a density range without its mode, or the mode without a range.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    >>> ThresholdRule("quantile", 0.9, low_factor=0.5).thresholds(p)
    Thresholds(low=0.449..., high=0.899...)
    >>> ThresholdRule("density", 0.5, 1.0, density_range=(0.04, 0.2)).thresholds(p).high  # 0.5 would let half in
    0.799...
    """

    mode: Mode = "quantile"
    value: float = 0.94
    low_factor: float = 0.85
    density_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ArgumentError(f"mode: got {self.mode!r}; accepted: one of {get_args(Mode)}")
        if not is_number(self.value) or not 0 <= self.value <= 1:
            raise ArgumentError(f"value: got {self.value!r}; accepted: a number in [0, 1]")
        if not is_number(self.low_factor) or not 0 < self.low_factor <= 1:
            raise ArgumentError(f"low_factor: got {self.low_factor!r}; accepted: a number in (0, 1]")
        if (self.mode == "density") != (self.density_range is not None):
            raise ArgumentError(
                f"density_range: got {self.density_range!r} for mode {self.mode!r}; accepted: a range for the mode "
                "'density', and for no other"
            )
        if self.density_range is not None:
            object.__setattr__(self, "density_range", checked_range(self.density_range))

    def thresholds(self, probability: NDArray[np.float32], *, n_threads: int | None = None) -> Thresholds:
        """Thresholds for one volume.

        Parameters
        ----------
        probability : ndarray of float32, shape (z, y, x)
            In [0, 1], smoothed already if it will be.
        n_threads : int, optional
            Threads; None takes all cores.

        Returns
        -------
        Thresholds

        Raises
        ------
        ArgumentError
            NaN or probabilities outside [0, 1]; another dtype or number of axes.
        """
        above = above_edges(_core.probability_histogram(probability, None, N_BINS, n_threads)).sum(axis=0)
        if self.mode == "fixed":
            high = self.value
        else:
            high = _edge(int(edges_of(self.mode, self.value, above, self.density_range)))
        return Thresholds(low=float(np.float32(self.low_factor * high)), high=float(np.float32(high)))


def rule_from(values: Mapping[str, Any]) -> ThresholdRule:
    """A threshold rule from a table of its parameters."""
    known = tuple(each.name for each in fields(ThresholdRule))
    for key in values:
        if key not in known:
            raise ArgumentError(f"threshold.rule.{key}: no such parameter; accepted: {', '.join(known)}")
    try:
        given: dict[str, Any] = {key: None if value == "none" else value for key, value in values.items()}
        return ThresholdRule(**given)
    except ArgumentError as error:
        raise ArgumentError(f"threshold.rule.{error}") from None


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, which a bool is not."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def checked_range(limits: Any) -> tuple[float, float]:
    """A pair of shares as floats (a list when read back from a file).

    Raises
    ------
    ArgumentError
        Not ``0 <= low <= high <= 1``.
    """
    pair = tuple(limits) if isinstance(limits, list | tuple) else ()
    if len(pair) != 2 or not all(map(is_number, pair)) or not 0 <= pair[0] <= pair[1] <= 1:
        raise ArgumentError(f"density_range: got {limits!r}; accepted: 0 <= low <= high <= 1")
    return float(pair[0]), float(pair[1])


def above_edges(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels at or above each edge, by label value: (3, N_BINS + 2); the last edge is above 1."""
    above = np.zeros((histogram.shape[0], N_BINS + 2), np.int64)
    above[:, :-1] = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above


def edges_of(
    mode: str, values: Any, above: NDArray[np.int64], density_range: tuple[float, float] | None = None
) -> NDArray[np.intp]:
    """The edge that each value of a mode stands for in a volume with these counts at or above each edge."""
    levels = np.asarray(values, dtype=np.float64)
    if mode == "quantile":
        return _lowest_edge(above, 1 - levels)
    if mode == "ratio":
        low, peak = (_percentile_bin(above, share) for share in (_MEDIAN, _PEAK))
        return (low + levels * (peak - low)).astype(np.intp) + 1
    nearest = np.asarray(np.rint(levels * N_BINS), dtype=np.intp)
    if density_range is None:
        return nearest
    # No edge at all may fall inside a narrow range: then the mask is the one below it.
    lowest = _lowest_edge(above, density_range[1])
    highest = np.maximum(_highest_edge(above, density_range[0]), lowest)
    return np.asarray(np.clip(nearest, lowest, highest), dtype=np.intp)


def _edge(k: int) -> float:
    return k / N_BINS if k <= N_BINS else _ABOVE_ONE


def _lowest_edge(above: NDArray[np.int64], share: Any) -> NDArray[np.intp]:
    """The lowest edge that at most this share of the voxels reaches."""
    allowed = share * above[0] * (1 + 1e-12)  # 1 - 0.9 is a hair under 0.1
    return np.asarray(np.searchsorted(-above, -allowed, side="left"))


def _highest_edge(above: NDArray[np.int64], share: float) -> NDArray[np.intp]:
    """The highest edge that at least this share of the voxels reaches."""
    return np.asarray(np.searchsorted(-above, -share * above[0] * (1 - 1e-12), side="right")) - 1


def _percentile_bin(above: NDArray[np.int64], share: float) -> int:
    """The bin in which the given share of the voxels, counted from below, is reached."""
    return int(np.searchsorted(above[0] - above[1:], share * above[0], side="left"))
