"""Fit the threshold of a ladder on labelled volumes, apply it to unlabelled ones (R28).

The fit seeks the best mean of a metric over the volumes. The density of the mask is an outcome, never forced, unless
the mode ``"density"`` is asked for, whose range is fitted too. What the modes mean: :mod:`vesu.segmentation.threshold`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError, DataError
from vesu.segmentation import BETA, SegmentConfig, ThresholdRule, Thresholds, f_score
from vesu.segmentation.threshold import N_BINS, Mode, above_edges, edges_of, is_number

__all__ = ["Metric", "RuleScore", "ThresholdCalibrator"]

Metric: TypeAlias = Literal["f_beta", "f1"]
Measure: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]

_BETA_OF: dict[str, float] = {"f_beta": BETA, "f1": 1.0}
# Values that the fit tries. Shares of foreground step by 1.5 %, the rest by bins or half per cents.
_EDGES = np.arange(1, N_BINS + 1) / N_BINS
_GRID: dict[str, NDArray[np.float64]] = {
    "fixed": _EDGES,
    "quantile": np.round(1 - np.geomspace(0.5, 0.0005, 460), 6),
    "ratio": np.arange(1, 201) / 200,
    "density": _EDGES,
}
_WIDENINGS = (2.0, 1.5, 1.25, 1.0)
_COARSEST, _FINEST = 8, 128
"""First and last step of the search with a metric of one's own, as parts of the grid."""


@dataclass(frozen=True)
class RuleScore:
    """A rule's score on each labelled volume, and their mean.

    Examples
    --------
    >>> RuleScore(ThresholdRule("fixed", 0.5), score=0.75, by_volume=(0.7, 0.8)).score
    0.75
    """

    rule: ThresholdRule
    score: float
    by_volume: tuple[float, ...]


class ThresholdCalibrator:
    """Fits a ladder's threshold rule on labelled volumes, then hysteresis around the best one.

    Parameters
    ----------
    ladder : SegmentConfig, optional
        The steps before the threshold prepare every probability; its connectivity serves the hysteresis; its own rule
        is ignored. None: the default ladder.
    modes : sequence of {"quantile", "ratio", "fixed", "density"}
        Modes to try. Of those within `tolerance` of the best, the first one listed wins, which is why the
        modes that look at each volume stand before the global one.
    low_factors : sequence of float
        Hysteresis to try on the winner, with its own value and two stricter ones; it must beat the plain
        threshold by more than `tolerance`. Empty: plain thresholds only.
    metric : {"f_beta", "f1"} or callable
        What is maximised: the F score (F-beta with beta 0.5) of the thresholded mask, or a function
        ``metric(mask, label) -> float``, higher is better, of the mask that the *whole* ladder makes, the steps after
        the threshold included.
    tolerance : float
        Difference in score that counts as none.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Attributes
    ----------
    rule_ : ThresholdRule
        The chosen rule.
    score_ : float
        Its mean score.
    scores_ : tuple of RuleScore
        The chosen rule first; then the others, one a mode, by falling score.
    low_factor_ : float
        Low threshold of the hysteresis over the high one; 1 where a plain threshold is as good.
    density_range_ : (float, float) or None
        The fitted clamp, where the mode "density" won.
    ladder_ : SegmentConfig
        `ladder` with the chosen rule, for :func:`vesu.segment`.

    Notes
    -----
    Requirements R28 and R13. For the F scores one histogram a volume holds all that a scan of thresholds needs; the
    scan is exact at its 4096 edges. Where many neighbouring values share the best score, the middle one is taken.
    A callable costs a mask and a call for each rule and volume tried: from the F scan's optimum the value moves in
    steps of 1/8 of the grid, halved down to 1/128 wherever neither neighbour is better, some 15 rules a mode. So its
    optimum is a local one. The density range is that of the labels, widened by the largest factor of 2, 1.5, 1.25 and
    1 that costs no more than `tolerance`. The scores are in-sample: one number is fitted, or two.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.segmentation import Dust, SegmentConfig, Threshold
    >>> label = np.zeros((4, 8, 8), dtype=np.uint8)
    >>> label[:, 2] = 1
    >>> probability = np.where(label == 1, 0.7, 0.2).astype(np.float32)
    >>> ladder = SegmentConfig((Threshold(), Dust(min_voxels=5)))
    >>> calibrator = ThresholdCalibrator(ladder, modes=["fixed"]).fit([probability], [label])
    >>> calibrator.rule_
    ThresholdRule(mode='fixed', value=0.449..., low_factor=1.0, density_range=None)
    >>> calibrator.predict(probability)
    Thresholds(low=0.449..., high=0.449...)
    """

    rule_: ThresholdRule
    score_: float
    scores_: tuple[RuleScore, ...]
    low_factor_: float
    density_range_: tuple[float, float] | None
    ladder_: SegmentConfig

    def __init__(
        self,
        ladder: SegmentConfig | None = None,
        *,
        modes: Sequence[Mode] = ("quantile", "ratio", "fixed"),
        low_factors: Sequence[float] = (0.85, 0.7, 0.5),
        metric: Metric | Measure = "f_beta",
        tolerance: float = 1e-3,
        n_threads: int | None = None,
    ) -> None:
        self.ladder = ladder
        self.modes = modes
        self.low_factors = low_factors
        self.metric = metric
        self.tolerance = tolerance
        self.n_threads = n_threads

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        names = ("ladder", "modes", "low_factors", "metric", "tolerance", "n_threads")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name; an unknown name is an ArgumentError."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ArgumentError(f"set_params: got {name!r}; accepted: {', '.join(self.get_params())}")
            setattr(self, name, value)
        return self

    def fit(
        self,
        probabilities: Iterable[NDArray[np.float32]],
        labels: Iterable[NDArray[np.uint8]],
        uncertainties: Iterable[NDArray[np.float32]] | None = None,
    ) -> Self:
        """Choose the rule.

        Parameters
        ----------
        probabilities : iterable of ndarray of float32, each (z, y, x)
            As the model gives them, in [0, 1].
        labels : iterable of ndarray of uint8, each (z, y, x)
            0 background, 1 surface, 2 unlabelled (counts nowhere).
        uncertainties : iterable of ndarray of float32, each (z, y, x), optional
            The ensemble's spread, for a ladder with a step `Suppress`.

        Raises
        ------
        ArgumentError
            Unequal numbers of volumes; shapes that differ; NaN or values outside [0, 1]; labels other than 0, 1, 2;
            a parameter out of range; a callable metric whose answer is no finite number.
        DataError
            No volume; a label of 2 throughout; no surface voxel in any label; constant probabilities everywhere.
        """
        self._check_parameters()
        volumes = _Volumes(self.ladder or SegmentConfig(), probabilities, labels, uncertainties, self.n_threads)
        beta = 1.0 if callable(self.metric) else _BETA_OF[self.metric]
        profiles = [_Profile.of(histogram, beta, i) for i, histogram in enumerate(volumes.histograms())]
        _check_informative(profiles)
        plain = [_best_of_mode(mode, profiles, self.tolerance) for mode in self.modes]
        measure = _Measure(volumes, self.metric)
        if callable(self.metric):
            plain = [_climbed(score.rule, measure) for score in plain]
        best = max(score.score for score in plain)
        winner = next(score for score in plain if score.score >= best - self.tolerance)
        others = sorted((score for score in plain if score is not winner), key=lambda score: -score.score)
        refined = _best_hysteresis(winner.rule, measure, self.low_factors)
        if refined is not None and refined.score > winner.score + self.tolerance:
            self.scores_ = (refined, winner, *others)
        else:
            self.scores_ = (winner, *others)
        self.rule_, self.score_ = self.scores_[0].rule, self.scores_[0].score
        self.low_factor_, self.density_range_ = self.rule_.low_factor, self.rule_.density_range
        self.ladder_ = volumes.ladder.with_rule(self.rule_)
        return self

    def predict(
        self, probability: NDArray[np.float32], *, uncertainty: NDArray[np.float32] | None = None
    ) -> Thresholds:
        """Thresholds of an unlabelled volume: the fitted rule on its own probabilities.

        Raises
        ------
        ArgumentError
            Not fitted yet; probabilities or uncertainty that the ladder refuses.
        """
        if not hasattr(self, "rule_"):
            raise ArgumentError("predict: got a ThresholdCalibrator that is not fitted; accepted: after fit")
        _check_range(probability, self.n_threads)
        prepared = self.ladder_.prepare(probability, uncertainty=uncertainty, n_threads=self.n_threads)
        return self.rule_.thresholds(prepared, n_threads=self.n_threads)

    def _check_parameters(self) -> None:
        if self.ladder is not None and not isinstance(self.ladder, SegmentConfig):
            raise ArgumentError(f"ladder: got {type(self.ladder).__name__}; accepted: SegmentConfig")
        if not callable(self.metric) and self.metric not in _BETA_OF:
            raise ArgumentError(f"metric: got {self.metric!r}; accepted: one of {tuple(_BETA_OF)} or a callable")
        if isinstance(self.modes, str) or not self.modes or not set(self.modes) <= set(_GRID):
            raise ArgumentError(f"modes: got {self.modes!r}; accepted: some of {get_args(Mode)}")
        if not all(is_number(factor) and 0 < factor <= 1 for factor in self.low_factors):
            raise ArgumentError(f"low_factors: got {self.low_factors!r}; accepted: numbers in (0, 1]")
        if not is_number(self.tolerance) or self.tolerance < 0:
            raise ArgumentError(f"tolerance: got {self.tolerance!r}; accepted: 0 or more")


def _check_range(probability: NDArray[np.float32], n_threads: int | None) -> None:
    """Refuse NaN and values outside [0, 1], which the steps before the threshold could hide."""
    _core.probability_histogram(probability, None, 1, n_threads)


class _Volumes:
    """Labelled volumes, prepared by the ladder one at a time: that is cheap beside holding them all."""

    def __init__(
        self,
        ladder: SegmentConfig,
        probabilities: Iterable[NDArray[np.float32]],
        labels: Iterable[NDArray[np.uint8]],
        uncertainties: Iterable[NDArray[np.float32]] | None,
        n_threads: int | None,
    ) -> None:
        self.ladder, self.n_threads = ladder, n_threads
        self.probabilities, self.labels = list(probabilities), list(labels)
        if len(self.probabilities) != len(self.labels):
            got = f"{len(self.labels)} for {len(self.probabilities)} probabilities"
            raise ArgumentError(f"labels: got {got}; accepted: one a volume")
        if not self.labels:
            raise DataError("probabilities: got no volume; accepted: at least one labelled volume")
        self.uncertainties = [None] * len(self.labels) if uncertainties is None else list(uncertainties)
        if len(self.uncertainties) != len(self.labels):
            got = f"{len(self.uncertainties)} for {len(self.labels)} probabilities"
            raise ArgumentError(f"uncertainties: got {got}; accepted: one a volume")

    def prepared(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for probability, label, spread in zip(self.probabilities, self.labels, self.uncertainties, strict=True):
            yield self.ladder.prepare(probability, uncertainty=spread, n_threads=self.n_threads), label

    def histograms(self) -> Iterator[NDArray[np.int64]]:
        for probability in self.probabilities:
            _check_range(probability, self.n_threads)
        for probability, label in self.prepared():
            yield _core.probability_histogram(probability, label, N_BINS, self.n_threads)


@dataclass(frozen=True)
class _Profile:
    """What a scan needs of one volume: voxels at or above each edge, and the score of each edge as threshold."""

    above: NDArray[np.int64]
    score: NDArray[np.float64]
    density: float
    is_constant: bool

    @classmethod
    def of(cls, histogram: NDArray[np.int64], beta: float, index: int) -> "_Profile":
        by_class = above_edges(histogram)
        background, surface = by_class[0], by_class[1]
        n_labelled = int(background[0] + surface[0])
        if n_labelled == 0:
            raise DataError(f"labels[{index}]: got 2 (unlabelled) in every voxel; accepted: some voxels of 0 or 1")
        score = f_score(tp=surface, fp=background, fn=surface[0] - surface, beta=beta)
        is_constant = bool(np.count_nonzero(histogram.sum(axis=0)) == 1)
        return cls(by_class.sum(axis=0), score, int(surface[0]) / n_labelled, is_constant)


def _check_informative(profiles: list[_Profile]) -> None:
    if not any(profile.density > 0 for profile in profiles):
        raise DataError("labels: got no surface voxel (1) in any volume; accepted: at least one")
    if all(profile.is_constant for profile in profiles):
        raise DataError(
            f"probabilities: got the same value throughout each volume (to 1/{N_BINS}); accepted: values that differ"
        )


def _best_of_mode(mode: Mode, profiles: list[_Profile], tolerance: float) -> RuleScore:
    """The best rule of a mode by its F score."""
    if mode != "density":
        return _scanned(mode, None, profiles)
    densities = [profile.density for profile in profiles]
    scans = [_scanned(mode, (min(densities) / w, min(1.0, max(densities) * w)), profiles) for w in _WIDENINGS]
    best = max(scan.score for scan in scans)
    return next(scan for scan in scans if scan.score >= best - tolerance)


def _scanned(mode: Mode, density_range: tuple[float, float] | None, profiles: list[_Profile]) -> RuleScore:
    grid = _GRID[mode]
    edges = (edges_of(mode, grid, profile.above, density_range) for profile in profiles)
    scores = np.stack([profile.score[each] for profile, each in zip(profiles, edges, strict=True)])
    best = _middle_of_plateau(scores.mean(axis=0))
    rule = ThresholdRule(mode, float(grid[best]), 1.0, density_range)
    return RuleScore(rule, float(scores[:, best].mean()), tuple(scores[:, best].tolist()))


def _middle_of_plateau(scores: NDArray[np.float64]) -> int:
    """The middle of the first stretch of maximal scores: furthest from where the score falls."""
    first = int(scores.argmax())
    lower = np.flatnonzero(scores[first:] < scores[first])
    length = int(lower[0]) if lower.size else scores.size - first
    return first + (length - 1) // 2


@dataclass(frozen=True)
class _Measure:
    """Scores rules by making their masks: F scores of the threshold, a callable's of the whole ladder."""

    volumes: _Volumes
    metric: Metric | Measure

    def of(self, rules: Sequence[ThresholdRule]) -> list[RuleScore]:
        """Each rule on all volumes, every volume prepared once."""
        rows = [
            [self._score(rule, probability, label) for rule in rules] for probability, label in self.volumes.prepared()
        ]
        by_rule = zip(*rows, strict=True)
        return [RuleScore(rule, float(np.mean(row)), row) for rule, row in zip(rules, by_rule, strict=True)]

    def _score(self, rule: ThresholdRule, probability: NDArray[np.float32], label: NDArray[np.uint8]) -> float:
        ladder, n_threads = self.volumes.ladder, self.volumes.n_threads
        thresholds = rule.thresholds(probability, n_threads=n_threads)
        mask, _ = ladder.threshold.cut(probability, thresholds, n_threads=n_threads)
        if callable(self.metric):
            answer = self.metric(ladder.finish(mask, n_threads=n_threads), label)
            if not is_number(answer):
                raise ArgumentError(f"metric: got {answer!r} from the callable; accepted: a finite number")
            return float(answer)
        surface = label == 1
        tp, n_surface = np.count_nonzero(mask[surface]), np.count_nonzero(surface)
        return float(f_score(tp, np.count_nonzero(mask[label == 0]), n_surface - tp, _BETA_OF[self.metric]))


def _climbed(start: ThresholdRule, measure: _Measure) -> RuleScore:
    """The best value of a rule's mode that is reached from its own by steps that get shorter."""
    grid = _GRID[start.mode]
    seen: dict[int, RuleScore] = {}
    best, step = int(np.abs(grid - start.value).argmin()), len(grid) // _COARSEST
    while step >= max(1, len(grid) // _FINEST):
        around = [place for place in (best, best - step, best + step) if 0 <= place < len(grid)]
        new = [place for place in around if place not in seen]
        seen |= zip(new, measure.of([replace(start, value=float(grid[place])) for place in new]), strict=True)
        top = max(around, key=lambda place: seen[place].score)  # the first of equals: stay
        if top == best:
            step //= 2
        best = top
    return seen[best]


def _best_hysteresis(plain: ThresholdRule, measure: _Measure, low_factors: Sequence[float]) -> RuleScore | None:
    """The best of the rules with hysteresis around a plain one, by making the masks."""
    rules = [
        replace(plain, value=value, low_factor=float(factor))
        for factor in low_factors
        if factor < 1
        for value in _stricter(plain)
    ]
    return max(measure.of(rules), key=lambda score: score.score) if rules else None


def _stricter(rule: ThresholdRule) -> list[float]:
    """The rule's value, and two by which only its surer voxels are strong."""
    return [round(1 - (1 - rule.value) * share, 9) for share in (1.0, 0.75, 0.5)]
