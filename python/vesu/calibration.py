"""Thresholds per volume: a rule that turns a volume's own probabilities into thresholds, and its fit.

A rule has one number, `value`, and a mode that says what it means (R28):

- ``"fixed"``: the threshold itself, the same for every volume;
- ``"quantile"``: the lowest threshold that at most a share ``1 - value`` of the voxels reaches;
- ``"ratio"``: the threshold lies just above the point ``value`` of the way from the volume's median probability
  (its background) to its 99th percentile (its surest voxels), so it follows a volume that the model rates lower
  or higher as a whole.

The last two work on a histogram of 4096 bins. Their thresholds are bin edges, which float32 holds exactly, so what
the fit counts is what the threshold does. A volume of one constant probability shows no surface: both put the
threshold just above that constant and nothing passes.

The rule is fitted on labelled volumes by their mean F score. The density of the mask is an outcome, never forced.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError, DataError
from vesu.volume import hysteresis, smooth_z

Mode: TypeAlias = Literal["fixed", "quantile", "ratio"]
Metric: TypeAlias = Literal["f_beta", "f1"]

N_BINS = 4096
BETA = 0.5
"""Weight of recall against precision in F-beta; below 1, precision counts more."""

_BETA_OF: dict[str, float] = {"f_beta": BETA, "f1": 1.0}
_ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
_MEDIAN, _PEAK = 0.5, 0.99
# Values that the fit tries. Shares of foreground step by 1.5 %, the rest by bins or half per cents.
_GRID: dict[str, NDArray[np.float64]] = {
    "fixed": np.arange(1, N_BINS + 1) / N_BINS,
    "quantile": np.round(1 - np.geomspace(0.5, 0.0005, 460), 6),
    "ratio": np.arange(1, 201) / 200,
}


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
    mode : {"quantile", "ratio", "fixed"}
        What `value` means; see the module's text.
    value : float
        In [0, 1]. The default suits labels of which about 6 % is surface; better fit it.
    low_factor : float
        In (0, 1]: the low threshold of the hysteresis is this times the high one; 1 is a plain threshold.

    Raises
    ------
    ArgumentError
        An unknown mode or a number out of range.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    >>> ThresholdRule("quantile", 0.9, low_factor=0.5).thresholds(p)
    Thresholds(low=0.449..., high=0.899...)
    """

    mode: Mode = "quantile"
    value: float = 0.94
    low_factor: float = 0.85

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ArgumentError(f"mode: got {self.mode!r}; accepted: one of {get_args(Mode)}")
        if not _is_number(self.value) or not 0 <= self.value <= 1:
            raise ArgumentError(f"value: got {self.value!r}; accepted: a number in [0, 1]")
        if not _is_number(self.low_factor) or not 0 < self.low_factor <= 1:
            raise ArgumentError(f"low_factor: got {self.low_factor!r}; accepted: a number in (0, 1]")

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
        above = _above(_core.probability_histogram(probability, None, N_BINS, n_threads)).sum(axis=0)
        high = self.value if self.mode == "fixed" else _edge(int(_bins(self.mode, self.value, above)))
        return Thresholds(low=float(np.float32(self.low_factor * high)), high=float(np.float32(high)))


@dataclass(frozen=True)
class RuleScore:
    """A rule's F score on each labelled volume, and their mean.

    Examples
    --------
    >>> RuleScore(ThresholdRule("fixed", 0.5), score=0.75, by_volume=(0.7, 0.8)).score
    0.75
    """

    rule: ThresholdRule
    score: float
    by_volume: tuple[float, ...]


def fit_threshold_rule(
    probabilities: Iterable[NDArray[np.float32]], labels: Iterable[NDArray[np.uint8]], **options: Any
) -> ThresholdRule:
    """The rule that serves labelled volumes best: the first of :func:`compare_threshold_rules`.

    Parameters
    ----------
    probabilities, labels, **options
        As in :func:`compare_threshold_rules`.

    Returns
    -------
    ThresholdRule

    Raises
    ------
    ArgumentError, DataError
        As in :func:`compare_threshold_rules`.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((4, 8, 8), dtype=np.uint8)
    >>> label[:, 2] = 1
    >>> probability = np.where(label == 1, 0.7, 0.2).astype(np.float32)
    >>> fit_threshold_rule([probability], [label], modes=["fixed"])
    ThresholdRule(mode='fixed', value=0.449..., low_factor=1.0)
    """
    return compare_threshold_rules(probabilities, labels, **options)[0].rule


def compare_threshold_rules(
    probabilities: Iterable[NDArray[np.float32]],
    labels: Iterable[NDArray[np.uint8]],
    *,
    metric: Metric = "f_beta",
    modes: Sequence[Mode] = ("quantile", "ratio", "fixed"),
    low_factors: Sequence[float] = (0.85, 0.7, 0.5),
    tolerance: float = 1e-3,
    smooth_z_radius: int = 1,
    connectivity: int = 26,
    n_threads: int | None = None,
) -> tuple[RuleScore, ...]:
    """Fit each mode on labelled volumes, then hysteresis on the best one.

    Parameters
    ----------
    probabilities : iterable of ndarray of float32, each (z, y, x)
        As the model gives them, in [0, 1].
    labels : iterable of ndarray of uint8, each (z, y, x)
        0 background, 1 surface, 2 unlabelled (counts nowhere).
    metric : {"f_beta", "f1"}
        The F score whose mean over the volumes is maximised; F-beta with beta 0.5.
    modes : sequence of {"quantile", "ratio", "fixed"}
        Modes to try. Of those within `tolerance` of the best, the first one listed wins, which is why the
        modes that look at each volume stand before the global one.
    low_factors : sequence of float
        Hysteresis to try on the winner, with its own value and two stricter ones; it must beat the plain
        threshold by more than `tolerance`. Empty: plain thresholds only.
    tolerance : float
        Difference in score that counts as none.
    smooth_z_radius, connectivity
        What :func:`vesu.segment` will do with the probabilities before and in the threshold.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    tuple of RuleScore
        The chosen rule first; then the others, one a mode, by falling score.

    Raises
    ------
    ArgumentError
        Unequal numbers of volumes; shapes that differ; NaN or values outside [0, 1]; labels other than 0, 1, 2;
        an option out of range.
    DataError
        No volume; a label of 2 throughout; no surface voxel in any label; constant probabilities everywhere.

    Notes
    -----
    One histogram a volume holds all that a scan of thresholds needs; the scan is exact at its 4096 edges. Where
    many neighbouring values share the best score, the middle one is taken. The scores are in-sample: one number is
    fitted. Requirements R28 and R13.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> label = (rng.random((8, 16, 16)) < 0.1).astype(np.uint8)
    >>> probability = (0.5 * label + 0.5 * rng.random(label.shape)).astype(np.float32)
    >>> [score.rule.mode for score in compare_threshold_rules([probability], [label], smooth_z_radius=0)]
    ['quantile', 'fixed', 'ratio']
    """
    beta = _check_options(metric, modes, low_factors, tolerance)
    volumes = _Volumes(list(probabilities), list(labels), smooth_z_radius, n_threads)
    profiles = [_Profile.of(histogram, beta, i) for i, histogram in enumerate(volumes.histograms())]
    _check_informative(profiles)
    plain = [_best_of_mode(mode, profiles) for mode in modes]
    best = max(score.score for score in plain)
    winner = next(score for score in plain if score.score >= best - tolerance)
    others = sorted((score for score in plain if score is not winner), key=lambda score: -score.score)
    refined = _best_hysteresis(winner.rule, volumes, low_factors, beta, connectivity)
    if refined is not None and refined.score > winner.score + tolerance:
        return refined, winner, *others
    return winner, *others


def f_score(tp: Any, fp: Any, fn: Any, beta: float) -> Any:
    """F-beta of counts (numbers or arrays): 1 where mask and label are both empty.

    Examples
    --------
    >>> float(f_score(tp=8, fp=2, fn=2, beta=1.0))
    0.8
    """
    weighted = (1 + beta**2) * np.asarray(tp, np.float64)
    whole = weighted + beta**2 * np.asarray(fn) + np.asarray(fp)
    return np.where(whole > 0, weighted / np.where(whole > 0, whole, 1), 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _above(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels at or above each edge, by label value: (3, N_BINS + 2); the last edge is above 1."""
    above = np.zeros((histogram.shape[0], N_BINS + 2), np.int64)
    above[:, :-1] = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above


def _edge(k: int) -> float:
    return k / N_BINS if k <= N_BINS else _ABOVE_ONE


def _bins(mode: str, values: Any, above: NDArray[np.int64]) -> NDArray[np.intp]:
    """The edge that each value of a mode stands for in a volume with these counts."""
    levels = np.asarray(values, dtype=np.float64)
    if mode == "quantile":
        allowed = (1 - levels) * above[0] * (1 + 1e-12)  # 1 - 0.9 is a hair under 0.1
        return np.asarray(np.searchsorted(-above, -allowed, side="left"))
    if mode == "ratio":
        low, peak = (_percentile_bin(above, share) for share in (_MEDIAN, _PEAK))
        return (low + levels * (peak - low)).astype(np.intp) + 1
    return np.asarray(np.rint(levels * N_BINS), dtype=np.intp)


def _percentile_bin(above: NDArray[np.int64], share: float) -> int:
    """The bin in which the given share of the voxels, counted from below, is reached."""
    return int(np.searchsorted(above[0] - above[1:], share * above[0], side="left"))


@dataclass(frozen=True)
class _Volumes:
    """Labelled volumes, smoothed one at a time."""

    probabilities: list[NDArray[np.float32]]
    labels: list[NDArray[np.uint8]]
    radius: int
    n_threads: int | None

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.labels):
            got = f"{len(self.labels)} for {len(self.probabilities)} probabilities"
            raise ArgumentError(f"labels: got {got}; accepted: one a volume")
        if not self.labels:
            raise DataError("probabilities: got no volume; accepted: at least one labelled volume")

    def smoothed(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for probability, label in zip(self.probabilities, self.labels, strict=True):
            yield smooth_z(probability, self.radius, n_threads=self.n_threads), label

    def histograms(self) -> Iterator[NDArray[np.int64]]:
        for probability in self.probabilities:  # smoothing could hide a value outside [0, 1]
            _core.probability_histogram(probability, None, 1, self.n_threads)
        for probability, label in self.smoothed():
            yield _core.probability_histogram(probability, label, N_BINS, self.n_threads)


@dataclass(frozen=True)
class _Profile:
    """What a scan needs of one volume: voxels at or above each edge, and the score of each edge as threshold."""

    above: NDArray[np.int64]
    score: NDArray[np.float64]
    has_surface: bool
    is_constant: bool

    @classmethod
    def of(cls, histogram: NDArray[np.int64], beta: float, index: int) -> "_Profile":
        by_class = _above(histogram)
        background, surface = by_class[0], by_class[1]
        if background[0] + surface[0] == 0:
            raise DataError(f"labels[{index}]: got 2 (unlabelled) in every voxel; accepted: some voxels of 0 or 1")
        score = f_score(tp=surface, fp=background, fn=surface[0] - surface, beta=beta)
        is_constant = bool(np.count_nonzero(histogram.sum(axis=0)) == 1)
        return cls(by_class.sum(axis=0), score, bool(surface[0] > 0), is_constant)


def _check_options(metric: str, modes: Sequence[str], low_factors: Sequence[float], tolerance: float) -> float:
    if metric not in _BETA_OF:
        raise ArgumentError(f"metric: got {metric!r}; accepted: one of {tuple(_BETA_OF)}")
    if isinstance(modes, str) or not modes or not set(modes) <= set(_GRID):
        raise ArgumentError(f"modes: got {modes!r}; accepted: some of {get_args(Mode)}")
    if not all(_is_number(factor) and 0 < factor <= 1 for factor in low_factors):
        raise ArgumentError(f"low_factors: got {low_factors!r}; accepted: numbers in (0, 1]")
    if not _is_number(tolerance) or tolerance < 0:
        raise ArgumentError(f"tolerance: got {tolerance!r}; accepted: 0 or more")
    return _BETA_OF[metric]


def _check_informative(profiles: list[_Profile]) -> None:
    if not any(profile.has_surface for profile in profiles):
        raise DataError("labels: got no surface voxel (1) in any volume; accepted: at least one")
    if all(profile.is_constant for profile in profiles):
        raise DataError(
            f"probabilities: got the same value throughout each volume (to 1/{N_BINS}); accepted: values that differ"
        )


def _best_of_mode(mode: Mode, profiles: list[_Profile]) -> RuleScore:
    grid = _GRID[mode]
    scores = np.stack([profile.score[_bins(mode, grid, profile.above)] for profile in profiles])
    best = _middle_of_plateau(scores.mean(axis=0))
    rule = ThresholdRule(mode, float(grid[best]), low_factor=1.0)
    return RuleScore(rule, float(scores[:, best].mean()), tuple(scores[:, best].tolist()))


def _middle_of_plateau(scores: NDArray[np.float64]) -> int:
    """The middle of the first stretch of maximal scores: furthest from where the score falls."""
    first = int(scores.argmax())
    lower = np.flatnonzero(scores[first:] < scores[first])
    length = int(lower[0]) if lower.size else scores.size - first
    return first + (length - 1) // 2


def _best_hysteresis(
    plain: ThresholdRule, volumes: _Volumes, low_factors: Sequence[float], beta: float, connectivity: int
) -> RuleScore | None:
    """The best of the rules with hysteresis around a plain one, by making the masks."""
    rules = [
        replace(plain, value=value, low_factor=float(factor))
        for factor in low_factors
        if factor < 1
        for value in _stricter(plain)
    ]
    if not rules:
        return None
    scores = np.array(
        [
            [_score_mask(rule, probability, label, beta, connectivity, volumes.n_threads) for rule in rules]
            for probability, label in volumes.smoothed()
        ]
    )
    best = int(scores.mean(axis=0).argmax())
    return RuleScore(rules[best], float(scores[:, best].mean()), tuple(scores[:, best].tolist()))


def _stricter(rule: ThresholdRule) -> list[float]:
    """The rule's value, and two by which only its surer voxels are strong."""
    return [round(1 - (1 - rule.value) * share, 9) for share in (1.0, 0.75, 0.5)]


def _score_mask(
    rule: ThresholdRule,
    probability: NDArray[np.float32],
    label: NDArray[np.uint8],
    beta: float,
    connectivity: int,
    n_threads: int | None,
) -> float:
    found = rule.thresholds(probability, n_threads=n_threads)
    mask = hysteresis(probability, found.low, found.high, connectivity, n_threads=n_threads)
    surface = label == 1
    tp, n_surface = np.count_nonzero(mask[surface]), np.count_nonzero(surface)
    return float(f_score(tp, np.count_nonzero(mask[label == 0]), n_surface - tp, beta))
