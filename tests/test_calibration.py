"""Threshold rules: what each mode means, and the calibrator's fit against brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone

import reference_volume as reference
import vesu
from vesu.calibration import RuleScore, ThresholdCalibrator
from vesu.errors import ArgumentError, DataError
from vesu.segmentation import (
    Closing,
    Dust,
    SegmentConfig,
    SmoothZ,
    Suppress,
    Threshold,
    ThresholdRule,
    confusion,
    f_score,
    segment,
)
from vesu.segmentation.threshold import N_BINS

Pair = tuple[NDArray[np.float32], NDArray[np.uint8]]
few = settings(max_examples=25, deadline=None)


def ladder(radius: int = 1, connectivity: int = 26) -> SegmentConfig:
    return SegmentConfig((SmoothZ(radius), Threshold(connectivity=connectivity)))


def ranking(probabilities: Any, labels: Any, radius: int = 1, connectivity: int = 26, **options: Any) -> Any:
    """The scores of a fitted calibrator, the chosen rule first."""
    found = ThresholdCalibrator(ladder(radius, connectivity), **options).fit(probabilities, labels)
    assert found.rule_ == found.scores_[0].rule and found.score_ == found.scores_[0].score
    return found.scores_


def fitted(probabilities: Any, labels: Any, radius: int = 1, **options: Any) -> ThresholdRule:
    rule = ranking(probabilities, labels, radius, **options)[0].rule
    assert isinstance(rule, ThresholdRule)
    return rule


def phantom(seed: int, *, gain: float = 1.0, spacing: int = 6, noise: float = 0.25) -> Pair:
    """Flat sheets along x and z, a noisy probability of them, and a frame of 2."""
    rng = np.random.default_rng(seed)
    label = np.zeros((16, 30, 32), np.uint8)
    label[:, ::spacing] = 1
    probability = np.clip(gain * (0.15 + 0.6 * label + noise * rng.standard_normal(label.shape)), 0, 1)
    label[:1] = label[:, :, -2:] = 2
    return probability.astype(np.float32), label


@st.composite
def probabilities(draw: st.DrawFn) -> NDArray[np.float32]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rough = rng.random((4, 5, draw(st.integers(1, 40)))) ** draw(st.sampled_from([0.1, 1.0, 8.0]))
    levels = draw(st.sampled_from([2, 10, 1_000_000]))
    return (np.round(rough * levels) / levels).astype(np.float32)


# ---- rules ----


@few
@given(probabilities(), st.floats(0, 1))
def test_quantile_is_the_lowest_edge_that_few_enough_reach(p: NDArray[np.float32], value: float) -> None:  # R28
    allowed = (1 - value) * p.size
    assume(abs(allowed - round(allowed)) > 1e-6 or value in (0, 1))  # on the edge of a count either answer is right
    allowed *= 1 + 1e-9
    high = ThresholdRule("quantile", value).thresholds(p).high
    assert np.count_nonzero(p >= np.float32(high)) <= allowed
    one_lower = np.float32(min(high, (N_BINS + 1) / N_BINS) - 1 / N_BINS)
    if high > 1:
        one_lower = np.float32(1)
    if high > 0:
        assert np.count_nonzero(p >= one_lower) > allowed


@few
@given(probabilities(), st.floats(0, 1))
def test_ratio_lies_between_median_and_peak(p: NDArray[np.float32], value: float) -> None:  # R28
    high = ThresholdRule("ratio", value).thresholds(p).high
    median = np.quantile(p, 0.5, method="inverted_cdf")
    peak = np.quantile(p, 0.99, method="inverted_cdf")
    assert high == pytest.approx(median + value * (peak - median), abs=2.1 / N_BINS)
    assert high > median  # the background never passes


def test_ratio_follows_a_volume_that_is_rated_lower() -> None:  # R28
    p, _ = phantom(0, noise=0.05)
    half = (p / 2).astype(np.float32)
    for rule in (ThresholdRule("ratio", 0.6), ThresholdRule("quantile", 0.8)):
        full_high, half_high = rule.thresholds(p).high, rule.thresholds(half).high
        assert half_high == pytest.approx(full_high / 2, abs=2 / N_BINS)
    assert ThresholdRule("fixed", 0.5).thresholds(half).high == 0.5


def test_low_is_a_share_of_high_and_both_are_float32() -> None:
    p, _ = phantom(0)
    found = ThresholdRule("fixed", 0.3, low_factor=0.7).thresholds(p)
    assert found.high == float(np.float32(0.3))
    assert found.low == float(np.float32(0.7 * 0.3))


@pytest.mark.parametrize("value", [0.0, 0.25, 0.3, 1.0])
@pytest.mark.parametrize("mode", ["quantile", "ratio"])
def test_nothing_of_a_constant_volume_passes(value: float, mode: Any) -> None:  # R28
    p = np.full((3, 4, 5), value, np.float32)
    assert not (p >= np.float32(ThresholdRule(mode, 0.9).thresholds(p).high)).any()


def test_ties_at_zero_are_not_let_in_by_a_quantile() -> None:  # R28
    p = np.zeros((1, 10, 10), np.float32)
    p[0, 0, :4] = 0.8  # only 4 % are above 0, and 10 % are asked for
    assert np.count_nonzero(p >= ThresholdRule("quantile", 0.9).thresholds(p).high) == 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mode": "otsu"}, "mode"),
        ({"mode": "density"}, "density_range"),
        ({"density_range": (0.1, 0.2)}, "density_range"),
        ({"mode": "density", "density_range": (0.2, 0.1)}, "density_range"),
        ({"mode": "density", "density_range": 0.1}, "density_range"),
        ({"value": 1.2}, "value"),
        ({"value": float("nan")}, "value"),
        ({"value": "0.5"}, "value"),
        ({"value": True}, "value"),
        ({"low_factor": 0.0}, "low_factor"),
        ({"low_factor": 1.1}, "low_factor"),
    ],
)
def test_bad_rules_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{named}: got .*; accepted"):
        ThresholdRule(**arguments)


# ---- the fit ----


@few
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=3),
    st.sampled_from([("f_beta", 0.5), ("f1", 1.0)]),
    st.booleans(),
)
def test_the_fixed_fit_is_brute_forces(seeds: list[int], metric: tuple[Any, float], smooth: bool) -> None:  # R28
    volumes = [phantom(seed, gain=0.7 + 0.3 * (seed % 2)) for seed in seeds]
    radius = int(smooth)
    best = ranking(
        [p for p, _ in volumes],
        [label for _, label in volumes],
        metric=metric[0],
        modes=["fixed"],
        low_factors=[],
        radius=radius,
    )[0]
    seen = [(reference.smooth_z(p, radius).astype(np.float32), label) for p, label in volumes]

    def mean_score(threshold: float) -> float:
        return float(np.mean([reference.f_score(p >= threshold, label, metric[1]) for p, label in seen]))

    assert best.score == pytest.approx(mean_score(best.rule.value), abs=2e-3)  # smoothing in float32 or float64
    assert best.score == pytest.approx(float(np.mean(best.by_volume)), abs=1e-12)
    assert all(mean_score(k / 64) <= best.score + 2e-3 for k in range(1, 65))


def test_label_2_counts_nowhere() -> None:  # R28
    p, label = phantom(1)
    other = p.copy()
    other[label == 2] = 1 - other[label == 2]
    fits = [fitted([q], [label], modes=["fixed"], radius=0) for q in (p, other)]
    assert fits[0] == fits[1]


def test_a_rule_per_volume_wins_where_volumes_are_rated_differently() -> None:  # R28
    volumes = [phantom(seed, gain=gain, noise=0.1) for seed, gain in enumerate([1.0, 0.6, 0.3])]
    ranked = ranking([p for p, _ in volumes], [label for _, label in volumes])
    by_mode = {score.rule.mode: score.score for score in reversed(ranked)}
    assert set(by_mode) == {"fixed", "quantile", "ratio"}
    assert by_mode["quantile"] > by_mode["fixed"] + 0.05
    assert by_mode["ratio"] > by_mode["fixed"] + 0.05
    assert ranked[0].rule.mode != "fixed"


def test_ratio_wins_where_densities_differ_too() -> None:  # R28
    settings_of = [(1.0, 2), (0.6, 6), (0.4, 15)]
    volumes = [phantom(i, gain=gain, spacing=spacing, noise=0.08) for i, (gain, spacing) in enumerate(settings_of)]
    # Above 1 % of surface and below 50 %, the median is background and the peak surface.
    best = fitted([p for p, _ in volumes], [label for _, label in volumes], low_factors=[])
    assert best.mode == "ratio"


def test_ties_go_to_the_mode_listed_first() -> None:  # R28
    label = np.zeros((4, 10, 10), np.uint8)
    label[:, 5] = 1
    p = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    for modes in (["quantile", "ratio", "fixed"], ["fixed", "ratio", "quantile"], ["ratio", "fixed", "quantile"]):
        best = ranking([p], [label], modes=modes)[0]  # type: ignore[arg-type]
        assert best.rule.mode == modes[0]
        assert best.score == 1
        assert best.rule.low_factor == 1  # hysteresis cannot beat it
    fixed = fitted([p], [label], modes=["fixed"])
    assert fixed.value == pytest.approx(0.45, abs=0.001)  # the middle of all perfect thresholds, 0.1 to 0.8


def test_hysteresis_is_chosen_where_it_helps() -> None:  # R28, R29
    label = np.zeros((12, 40, 40), np.uint8)
    label[:, ::8] = 1
    rng = np.random.default_rng(0)
    # Faint sheets with a strong core here and there, and equally faint specks that hang on nothing strong.
    p = np.where(label == 1, 0.4, 0.05)
    p[(label == 1) & (rng.random(p.shape) < 0.05)] = 0.9
    specks = rng.random(p.shape) < 0.05
    specks[:, 1::8] = specks[:, 7::8] = specks[:, ::8] = False
    p[specks] = 0.4
    ranked = ranking([p.astype(np.float32)], [label], modes=["fixed"], radius=0, low_factors=[0.9, 0.5], connectivity=6)
    best, plain = ranked
    assert best.rule.low_factor < 1
    assert best.score > plain.score + 0.02
    mask = reference.hysteresis(p.astype(np.float32), *_pair(best.rule, p), 6)
    assert best.score == pytest.approx(reference.f_score(mask, label, 0.5), abs=1e-12)


def _pair(rule: ThresholdRule, p: NDArray[Any]) -> tuple[float, float]:
    found = rule.thresholds(p.astype(np.float32))
    return found.low, found.high


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_the_fit_does_not_depend_on_threads(n_threads: int) -> None:
    volumes = [phantom(seed) for seed in range(2)]
    data = [p for p, _ in volumes], [label for _, label in volumes]
    assert ranking(*data, n_threads=n_threads) == ranking(*data, n_threads=1)


def test_iterators_are_taken_once() -> None:
    volumes = [phantom(seed) for seed in range(2)]
    lists = [p for p, _ in volumes], [label for _, label in volumes]
    assert fitted(iter(lists[0]), iter(lists[1])) == fitted(*lists)


def test_an_empty_label_among_others_asks_for_an_empty_mask() -> None:
    p, label = phantom(0)
    empty = np.zeros_like(label)
    quiet = np.full_like(p, 0.1)
    quiet[0, 0, 0] = 0.2
    ranked = ranking([p, quiet], [label, empty], modes=["fixed"], low_factors=[])
    assert ranked[0].by_volume[1] == 1.0  # nothing found where nothing is


def test_data_that_cannot_be_fitted_is_named() -> None:
    p, label = phantom(0)
    with pytest.raises(DataError, match="no volume"):
        fitted([], [])
    with pytest.raises(DataError, match=r"labels\[1\]: got 2 \(unlabelled\) in every voxel"):
        fitted([p, p], [label, np.full_like(label, 2)])
    with pytest.raises(DataError, match="no surface voxel"):
        fitted([p], [np.zeros_like(label)])
    with pytest.raises(DataError, match="the same value throughout"):
        fitted([np.full_like(p, 0.5)], [label])
    with pytest.raises(ArgumentError, match="labels: got 1 for 2 probabilities"):
        fitted([p, p], [label])
    with pytest.raises(ArgumentError, match="label: got shape"):
        fitted([p], [label[:-1]])
    with pytest.raises(ArgumentError, match="label: got 1 forbidden value, the first 7"):
        fitted([p], [np.where(np.arange(label.size).reshape(label.shape) == 9, 7, label).astype(np.uint8)])


@pytest.mark.parametrize("bad", [np.nan, 1.2, -0.1])
def test_forbidden_probabilities_are_refused_even_if_smoothing_would_hide_them(bad: float) -> None:
    p, label = phantom(0, noise=0.01)
    p[3, 4, 5] = bad
    with pytest.raises(ArgumentError, match=r"probability: got 1 forbidden value, .* \(3, 4, 5\)"):
        fitted([p], [label], radius=2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metric": "iou"}, "metric"),
        ({"modes": []}, "modes"),
        ({"modes": ["otsu"]}, "modes"),
        ({"modes": "fixed"}, "modes"),
        ({"low_factors": [0.0]}, "low_factors"),
        ({"tolerance": -1}, "tolerance"),
        ({"ladder": "default"}, "ladder"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    p, label = phantom(0)
    with pytest.raises(ArgumentError, match=rf"{named}: got .*; accepted"):
        ThresholdCalibrator(**options).fit([p], [label])


@few
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0]))
def test_f_score_is_the_textbooks(tp: int, fp: int, fn: int, beta: float) -> None:
    if tp + fp + fn == 0:
        assert f_score(tp, fp, fn, beta) == 1
    elif tp == 0:
        assert f_score(tp, fp, fn, beta) == 0
    else:
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        textbook = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        assert f_score(tp, fp, fn, beta) == pytest.approx(textbook, rel=1e-12)


# ---- density, a clamp because it was fitted ----


@few
@given(probabilities(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_density_moves_a_fixed_threshold_no_further_than_needed(
    p: NDArray[np.float32], value: float, a: float, b: float
) -> None:  # R28
    low, high = min(a, b), max(a, b)
    found = ThresholdRule("density", value, 1.0, density_range=(low, high)).thresholds(p).high
    nearest = round(value * N_BINS) / N_BINS

    def share(threshold: float) -> float:
        return float(np.mean(p >= np.float32(threshold)))

    slack = 1e-9
    assert share(found) <= high + slack
    if low - slack <= share(nearest) <= high + slack:
        assert found == nearest or share(found) == share(nearest)
    elif share(nearest) > high:  # raised to the lowest edge that few enough reach
        assert found > nearest and share(found - 1 / N_BINS) > high - slack
    elif share(found) < low - slack:  # no edge is within the range: the next lower one lets too many in
        assert share(max(found - 1 / N_BINS, 0)) > high - slack
    else:  # lowered to the highest edge that enough reach
        assert found < nearest and (found == 1 or share(found + 1 / N_BINS) < low + slack)


def test_nothing_of_a_constant_volume_passes_a_density_rule() -> None:  # R28
    p = np.full((3, 4, 5), 0.6, np.float32)
    rule = ThresholdRule("density", 0.5, density_range=(0.05, 0.2))
    assert not (p >= np.float32(rule.thresholds(p).high)).any()


def test_the_density_range_is_fitted_from_the_labels() -> None:  # R28
    volumes = [phantom(i, gain=gain, spacing=7, noise=0.08) for i, gain in enumerate([1.0, 0.6, 0.35])]
    data = [p for p, _ in volumes], [label for _, label in volumes]
    found = ThresholdCalibrator(ladder(), modes=["density"], low_factors=[]).fit(*data)
    densities = [(label == 1).sum() / (label != 2).sum() for label in data[1]]
    assert found.density_range_ is not None
    low, high = found.density_range_
    assert low <= min(densities) and high >= max(densities)
    widening = high / max(densities)
    assert min(abs(widening - w) for w in (1, 1.25, 1.5, 2)) < 1e-9
    fixed = ThresholdCalibrator(ladder(), modes=["fixed"], low_factors=[]).fit(*data)
    assert fixed.density_range_ is None
    assert found.score_ > fixed.score_ + 0.02  # the faint volumes would be empty
    for p in data[0]:
        smooth = reference.smooth_z(p, 1).astype(np.float32)
        assert (smooth >= found.predict(p).high).mean() <= high + 1e-3


# ---- one object: fitted on labelled volumes, applied to unlabelled ones ----


def test_it_predicts_what_the_ladder_will_use() -> None:  # R28
    p, label = phantom(0)
    calibrator = ThresholdCalibrator(SegmentConfig((SmoothZ(2), Threshold(), Dust(20)))).fit([p], [label])
    other, _ = phantom(7, gain=0.8)
    assert calibrator.ladder_.threshold.rule == calibrator.rule_
    assert [step.name for step in calibrator.ladder_.steps] == ["smooth_z", "threshold", "dust"]
    assert calibrator.predict(other) == segment(other, calibrator.ladder_).thresholds
    assert calibrator.low_factor_ == calibrator.rule_.low_factor


def test_it_keeps_scikit_learns_conventions() -> None:
    calibrator = ThresholdCalibrator(modes=["fixed"], low_factors=())
    twin = clone(calibrator)
    assert twin is not calibrator and twin.get_params() == calibrator.get_params()
    assert calibrator.set_params(metric="f1") is calibrator and calibrator.metric == "f1"
    with pytest.raises(ArgumentError, match="set_params: got 'beta'; accepted"):
        calibrator.set_params(beta=2)
    p, label = phantom(0)
    with pytest.raises(ArgumentError, match="not fitted"):
        calibrator.predict(p)
    assert calibrator.fit([p], [label]) is calibrator
    bad = p.copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(ArgumentError, match="probability: got 1 forbidden value"):
        calibrator.predict(bad)


def test_the_fit_sees_the_suppressed_probability() -> None:  # R28, R29
    p, label = phantom(3, noise=0.1)
    spread = np.where(label == 1, 0.0, 0.3).astype(np.float32)
    ladder_ = SegmentConfig((Suppress(1.0), Threshold()))
    options: dict[str, Any] = {"modes": ["fixed"], "low_factors": []}
    found = ThresholdCalibrator(ladder_, **options).fit([p], [label], [spread])
    lowered = np.maximum(p - spread, 0)
    assert found.scores_ == ThresholdCalibrator(ladder(0), **options).fit([lowered], [label]).scores_
    assert found.predict(p, uncertainty=spread) == found.rule_.thresholds(lowered)
    with pytest.raises(ArgumentError, match="uncertainty: got none"):
        ThresholdCalibrator(ladder_, **options).fit([p], [label])
    with pytest.raises(ArgumentError, match="uncertainties: got 2 for 1 probabilities; accepted: one a volume"):
        ThresholdCalibrator(ladder_, **options).fit([p], [label], [spread, spread])


# ---- a metric of one's own, through the whole ladder ----


def f1_of(mask: NDArray[np.uint8], label: NDArray[np.uint8]) -> float:
    return confusion(mask, label).f1


@pytest.mark.parametrize("mode", ["fixed", "quantile", "ratio", "density"])
def test_the_f_score_as_a_callable_finds_the_same_optimum(mode: Any) -> None:  # R28
    volumes = [phantom(seed, noise=0.12) for seed in range(2)]
    data = [p for p, _ in volumes], [label for _, label in volumes]
    options: dict[str, Any] = {"modes": [mode], "low_factors": []}
    scan = ThresholdCalibrator(ladder(), metric="f1", **options).fit(*data)
    climb = ThresholdCalibrator(ladder(), metric=f1_of, **options).fit(*data)
    assert climb.score_ == pytest.approx(scan.score_, abs=1e-9)
    assert climb.score_ == pytest.approx(np.mean([f1_of(segment(p, climb.ladder_).mask, y) for p, y in volumes]))


def test_the_steps_after_the_threshold_are_part_of_the_fit() -> None:  # R28
    label = np.zeros((8, 40, 40), np.uint8)
    label[:, 10] = label[:, 30] = 1
    rng = np.random.default_rng(0)
    p = np.where(label == 1, rng.uniform(0.35, 0.9, label.shape), 0.1)
    specks = rng.random(label.shape) < 0.06
    specks[:, 9:12] = specks[:, 29:32] = False
    p[specks] = 0.6  # dust, which the threshold alone must avoid by losing half of the sheets
    p = p.astype(np.float32)
    steps = (Threshold(ThresholdRule("fixed", 0.5, 1.0)), Dust(60, connectivity=6))
    options: dict[str, Any] = {"modes": ["fixed"], "low_factors": []}
    alone = ThresholdCalibrator(SegmentConfig(steps), metric="f1", **options).fit([p], [label])
    whole = ThresholdCalibrator(SegmentConfig(steps), metric=f1_of, **options).fit([p], [label])
    assert alone.rule_.value > 0.6 > 0.36 > whole.rule_.value > 0.1
    assert whole.score_ > 0.99
    assert f1_of(segment(p, alone.ladder_).mask, label) < 0.9


def test_a_callable_sees_hysteresis_too_and_every_mask_is_the_ladders() -> None:  # R28
    p, label = phantom(5)
    seen: list[float] = []

    def metric(mask: NDArray[np.uint8], given: NDArray[np.uint8]) -> float:
        assert given is label and mask.dtype == np.uint8 and mask.shape == label.shape
        seen.append(f1_of(mask, label))
        return seen[-1]

    steps = (SmoothZ(1), Threshold(), Closing(1), Dust(10))
    found = ThresholdCalibrator(SegmentConfig(steps), metric=metric, modes=["quantile", "fixed"]).fit([p], [label])
    assert 10 < len(seen) < 60
    assert found.score_ in seen and max(seen) - found.score_ <= found.tolerance
    assert found.score_ == f1_of(segment(p, found.ladder_).mask, label)
    assert all(isinstance(score, RuleScore) for score in found.scores_)


def test_the_competitions_score_is_a_metric() -> None:  # R28 R45
    volumes = [phantom(seed, noise=0.3) for seed in (1, 2)]
    data = [p for p, _ in volumes], [label for _, label in volumes]
    options: dict[str, Any] = {"modes": ["fixed"], "low_factors": []}

    def metric(mask: NDArray[np.uint8], label: NDArray[np.uint8]) -> float:
        return vesu.score(mask, label).score

    def mean(found: ThresholdCalibrator) -> float:
        return float(np.mean([metric(segment(p, found.ladder_).mask, label) for p, label in volumes]))

    by_score = ThresholdCalibrator(ladder(), metric=metric, **options).fit(*data)
    by_f1 = ThresholdCalibrator(ladder(), metric="f1", **options).fit(*data)
    assert by_score.score_ == pytest.approx(mean(by_score), abs=1e-12)
    assert mean(by_score) >= mean(by_f1)  # it starts from there


@pytest.mark.parametrize("answer", [float("nan"), "high", None, True])
def test_a_callable_that_gives_no_number_is_named(answer: Any) -> None:
    p, label = phantom(0)
    with pytest.raises(ArgumentError, match=r"metric: got .* from the callable; accepted: a finite number"):
        ThresholdCalibrator(metric=lambda mask, label: answer).fit([p], [label])
