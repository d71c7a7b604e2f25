"""Is a probability what it says: expected calibration error, reliability diagram, and error against uncertainty (R17).

Counts are integers and probabilities are summed in units of 2^-32, so that parts measured one by one and added, in any
order, give the figures of the whole to the bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

__all__ = ["Calibration", "Reliability", "UncertaintyErrors", "measure_calibration", "reliability", "shift_prior"]

N_BINS = 15
MAX_BINS = 4096
N_GROUPS = 10
FINE_BINS = 2000
LARGEST_UNCERTAINTY = 0.5
"""The standard deviation of numbers in [0, 1] is no larger."""

_UNIT = 2.0**32
_CHUNK = 1 << 18  # voxels at a time: the temporaries stay in the cache


@dataclass(frozen=True, eq=False)
class Reliability:
    """Voxels by predicted probability, in bins of equal width; two of them add up to that of both data.

    Bin k of n holds k/n < p <= (k + 1)/n, and p = 0 stands in the first.

    Attributes
    ----------
    count, positive : int64, shape (n_bins,)
        Labelled voxels of each bin, and those of them whose label is 1.
    probability_units : uint64, shape (n_bins,)
        Sum of their probabilities in units of 2^-32.
    squared_error_units : int
        Sum of (p - y)^2 over all voxels in units of 2^-32.

    Examples
    --------
    >>> found = reliability(np.float32([0.1, 0.1, 0.9, 0.9]), np.uint8([0, 0, 1, 0]), n_bins=2)
    >>> found.frequency, round(found.ece, 6)
    (array([0. , 0.5]), 0.25)
    """

    count: NDArray[np.int64]
    positive: NDArray[np.int64]
    probability_units: NDArray[np.uint64]
    squared_error_units: int

    def __add__(self, other: "Reliability") -> "Reliability":
        if self.count.shape != other.count.shape:
            raise ArgumentError(f"n_bins: got {len(other.count)}; accepted: {len(self.count)}, as the other's")
        return Reliability(
            self.count + other.count,
            self.positive + other.positive,
            self.probability_units + other.probability_units,
            self.squared_error_units + other.squared_error_units,
        )

    @property
    def n(self) -> int:
        """Labelled voxels."""
        return int(self.count.sum())

    @property
    def density(self) -> float:
        """Share of label 1."""
        return int(self.positive.sum()) / self.n if self.n else float("nan")

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean probability of each bin; NaN where it is empty."""
        return _ratio(self.probability_units / _UNIT, self.count)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Share of label 1 in each bin ("accuracy" of the positive class); NaN where it is empty."""
        return _ratio(self.positive, self.count)

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over voxels of their bin's ``|frequency - confidence|``."""
        gap = np.abs(self.frequency - self.confidence)
        return float(np.nansum(gap * self.count) / self.n) if self.n else float("nan")

    @property
    def max_error(self) -> float:
        """Maximum calibration error: the largest ``|frequency - confidence|`` of a bin that is not empty."""
        gap = np.abs(self.frequency - self.confidence)
        return float(np.nanmax(gap)) if self.n else float("nan")

    @property
    def brier(self) -> float:
        """Mean of (p - y)^2."""
        return self.squared_error_units / _UNIT / self.n if self.n else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values; an empty bin's confidence and frequency are None."""
        n_bins = len(self.count)
        columns = zip(self.count.tolist(), _plain(self.confidence), _plain(self.frequency), strict=True)
        return {
            "ece": self.ece,
            "max_error": self.max_error,
            "brier": self.brier,
            "bins": [
                {"low": k / n_bins, "high": (k + 1) / n_bins, "count": n, "confidence": p, "frequency": y}
                for k, (n, p, y) in enumerate(columns)
            ],
        }


@dataclass(frozen=True, eq=False)
class UncertaintyErrors:
    """Voxels and wrong calls by uncertainty, in fine bins of equal width over [0, 0.5]; two of them add up.

    Attributes
    ----------
    count, wrong : int64, shape (2000,)
        Labelled voxels, and those of them where (p >= threshold) is not the label.
    """

    count: NDArray[np.int64]
    wrong: NDArray[np.int64]

    def __add__(self, other: "UncertaintyErrors") -> "UncertaintyErrors":
        return UncertaintyErrors(self.count + other.count, self.wrong + other.wrong)

    @property
    def error_rate(self) -> float:
        """Share of wrong calls."""
        n = int(self.count.sum())
        return int(self.wrong.sum()) / n if n else float("nan")

    @property
    def auroc(self) -> float:
        """Probability that a wrong call is less certain than a right one, ties counted half; 0.5 says nothing."""
        right = self.count - self.wrong
        below = np.cumsum(right) - right
        pairs = float(self.wrong.sum()) * float(right.sum())
        return float((self.wrong * (below + 0.5 * right)).sum() / pairs) if pairs else float("nan")

    def groups(self, n_groups: int = N_GROUPS) -> list[dict[str, float]]:
        """At most ``n_groups`` stretches of uncertainty that hold about as many voxels each, the surest first."""
        total = np.cumsum(self.count)
        if total[-1] == 0:
            return []
        marks = np.searchsorted(total, total[-1] * np.arange(1, n_groups + 1) / n_groups) + 1
        stops = np.unique(np.minimum(marks, len(total)))
        starts = np.concatenate([[0], stops[:-1]])
        width = LARGEST_UNCERTAINTY / len(total)
        return [
            {
                "low": float(start * width),
                "high": float(stop * width),
                "voxels": int(self.count[start:stop].sum()),
                "error_rate": float(self.wrong[start:stop].sum() / self.count[start:stop].sum()),
            }
            for start, stop in zip(starts, stops, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What :func:`measure_calibration` found; two of the same settings add up."""

    raw: Reliability
    corrected: Reliability
    """After :func:`shift_prior` from ``prior`` to ``density``."""
    uncertainty: UncertaintyErrors
    prior: float
    density: float
    threshold: float

    def __add__(self, other: "Calibration") -> "Calibration":
        mine, its = ((each.prior, each.density, each.threshold) for each in (self, other))
        if mine != its:
            raise ArgumentError(f"prior, density, threshold: got {its}; accepted: {mine}, as the other's")
        return Calibration(
            self.raw + other.raw, self.corrected + other.corrected, self.uncertainty + other.uncertainty, *mine
        )

    def to_json(self) -> dict[str, Any]:
        """The entry ``validation.calibration`` of a run's summary."""
        return {
            "voxels": self.raw.n,
            "training_prior": self.prior,
            "density": self.density,
            "raw": self.raw.to_json(),
            "corrected": self.corrected.to_json(),
            "uncertainty": {
                "threshold": self.threshold,
                "error_rate": self.uncertainty.error_rate,
                "auroc": _plain(np.array([self.uncertainty.auroc]))[0],
                "groups": self.uncertainty.groups(),
            },
        }


def reliability(probability: NDArray[np.float32], label: NDArray[np.uint8], n_bins: int = N_BINS) -> Reliability:
    """Compare predicted probabilities of class 1 with how often the label is 1.

    Parameters
    ----------
    probability : float32, any shape
        In [0, 1].
    label : uint8, the same shape
        0, 1, and 2 for unlabelled, which counts nowhere.
    n_bins : int
        Bins of equal width, 1 to 4096.

    Returns
    -------
    Reliability

    Raises
    ------
    ArgumentError
        Wrong dtypes, shapes that differ, NaN or probabilities outside [0, 1], other labels.

    Notes
    -----
    R17. With B_k the voxels of bin k, N their number in all, and MCE the largest term without its weight::

        ECE = sum_k |B_k| / N * |mean of y over B_k - mean of p over B_k|

    (Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo,
    Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017: there for the predicted class,
    here for class 1).

    Examples
    --------
    >>> found = reliability(np.full(10, 0.2, np.float32), (np.arange(10) < 2).astype(np.uint8))
    >>> round(found.ece, 6), round(found.brier, 6)
    (0.0, 0.16)
    """
    _check(probability, label)
    if isinstance(n_bins, bool) or not isinstance(n_bins, int) or not 1 <= n_bins <= MAX_BINS:
        raise ArgumentError(f"n_bins: got {n_bins!r}; accepted: an integer, 1 to {MAX_BINS}")
    found = _no_reliability(n_bins)
    for p, y in _labelled(label, probability):
        found += _reliability_of(p, y, n_bins)
    return found


def measure_calibration(
    probability: NDArray[np.float32],
    uncertainty: NDArray[np.float32],
    label: NDArray[np.uint8],
    *,
    prior: float,
    density: float,
    threshold: float,
) -> Calibration:
    """All that a run reports of one volume's calibration; add the volumes' results.

    Parameters
    ----------
    probability, uncertainty : float32, shape (z, y, x)
        Mean and standard deviation over the ensemble.
    label : uint8, shape (z, y, x)
        0, 1, and 2 for unlabelled.
    prior : float
        Share of class 1 in what the model was trained on, in (0, 1): about 0.5 after class-balanced sampling.
    density : float
        Share of class 1 that the corrected probability assumes instead, in [0, 1].
    threshold : float
        Above it a voxel is called surface, for the error rate by uncertainty.

    Returns
    -------
    Calibration

    Raises
    ------
    ArgumentError
        As :func:`reliability`; an uncertainty outside [0, 0.5]; a prior or density out of range.

    Examples
    --------
    >>> p = np.float32([0.2, 0.7, 0.9, 0.6])
    >>> u = np.float32([0.1, 0.3, 0.05, 0.4])
    >>> y = np.uint8([0, 0, 1, 2])
    >>> found = measure_calibration(p, u, y, prior=0.5, density=1 / 3, threshold=0.5)
    >>> found.raw.n, found.uncertainty.auroc, found.corrected.ece < found.raw.ece
    (3, 1.0, True)
    """
    _check(probability, label)
    if uncertainty.shape != label.shape or uncertainty.dtype != np.float32:
        got = f"shape {uncertainty.shape} of {uncertainty.dtype}"
        raise ArgumentError(f"uncertainty: got {got}; accepted: float32 of the label's shape {label.shape}")
    if not (uncertainty.min(initial=0) >= 0 and uncertainty.max(initial=0) <= LARGEST_UNCERTAINTY * (1 + 1e-6)):
        raise ArgumentError("uncertainty: got NaN or values outside [0, 0.5]; accepted: standard deviations")
    _check_shares(prior, density)
    raw, corrected = _no_reliability(N_BINS), _no_reliability(N_BINS)
    count, wrong = np.zeros(FINE_BINS, np.int64), np.zeros(FINE_BINS, np.int64)
    for p, y, u in _labelled(label, probability, uncertainty):
        raw += _reliability_of(p, y, N_BINS)
        corrected += _reliability_of(shift_prior(p, prior, density), y, N_BINS)
        fine = np.minimum(u * (FINE_BINS / LARGEST_UNCERTAINTY), FINE_BINS - 1).astype(np.int64)
        count += np.bincount(fine, minlength=FINE_BINS)
        wrong += np.bincount(fine[(p >= threshold) != (y == 1)], minlength=FINE_BINS)
    return Calibration(raw, corrected, UncertaintyErrors(count, wrong), prior, density, threshold)


def shift_prior(probability: NDArray[np.float32], prior: float, density: float) -> NDArray[np.float32]:
    """Probabilities for another share of class 1: their logit moves by logit(density) - logit(prior).

    Parameters
    ----------
    probability : float32, any shape
        Of a model trained where class 1 has share ``prior``.
    prior, density : float
        The share trained on, in (0, 1), and the one to assume, in [0, 1].

    Returns
    -------
    float32, the same shape

    Raises
    ------
    ArgumentError
        A share out of range.

    Notes
    -----
    Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, theorem 2. Exact where only the classes' shares
    differ. The order of the voxels stays.

    Examples
    --------
    >>> shift_prior(np.float32([0.0, 0.5, 1.0]), 0.5, 0.05)
    array([0.  , 0.05, 1.  ], dtype=float32)
    """
    _check_shares(prior, density)
    p = probability.astype(np.float64)
    for_surface, for_background = p * (density / prior), (1 - p) * ((1 - density) / (1 - prior))
    whole = for_surface + for_background
    # A certain call that the new share rules out has no weight on either side: it stays what it was.
    return np.divide(for_surface, whole, out=p, where=whole > 0).astype(np.float32)


def _reliability_of(p: NDArray[np.float32], y: NDArray[np.uint8], n_bins: int) -> Reliability:
    exact = p.astype(np.float64)
    at = np.maximum(np.ceil(exact * n_bins).astype(np.int64) - 1, 0)
    surface = y == 1
    units = np.rint(exact * _UNIT)  # whole numbers below 2^53 in all: their float64 sums are exact
    squares = np.rint((exact - surface) ** 2 * _UNIT)
    return Reliability(
        np.bincount(at, minlength=n_bins),
        np.bincount(at[surface], minlength=n_bins),
        np.bincount(at, units, minlength=n_bins).astype(np.uint64),
        int(squares.sum()),
    )


def _no_reliability(n_bins: int) -> Reliability:
    empty = np.zeros(n_bins, np.int64)
    return Reliability(empty, empty, empty.astype(np.uint64), 0)


def _labelled(label: NDArray[np.uint8], *others: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Chunks of the labelled voxels: the first of ``others``, the label, the rest."""
    flat = [array.reshape(-1) for array in (others[0], label, *others[1:])]
    for first in range(0, label.size, _CHUNK):
        parts = [array[first : first + _CHUNK] for array in flat]
        keep = parts[1] != 2
        yield tuple(part[keep] for part in parts)


def _check(probability: NDArray[np.float32], label: NDArray[np.uint8]) -> None:
    for name, array, dtype in (("probability", probability, np.float32), ("label", label, np.uint8)):
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentError(f"{name}: got {got}; accepted: a numpy array of {np.dtype(dtype)}")
    if probability.shape != label.shape:
        raise ArgumentError(f"label: got shape {label.shape}; accepted: the probability's, {probability.shape}")
    if not (probability.min(initial=0) >= 0 and probability.max(initial=0) <= 1):
        raise ArgumentError("probability: got NaN or values outside [0, 1]; accepted: numbers in [0, 1]")
    if label.max(initial=0) > 2:
        raise ArgumentError(f"label: got {label.max()}; accepted: 0, 1 and 2 (unlabelled)")


def _check_shares(prior: float, density: float) -> None:
    if not 0 < prior < 1:
        raise ArgumentError(f"prior: got {prior}; accepted: a share in (0, 1)")
    if not 0 <= density <= 1:
        raise ArgumentError(f"density: got {density}; accepted: a share in [0, 1]")


def _ratio(sums: NDArray[Any], count: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0)
    return ratio


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
