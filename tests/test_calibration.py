"""Threshold rules: what each mode means, and the fit against brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_volume as reference
from vesu.calibration import (
    N_BINS,
    ThresholdRule,
    compare_threshold_rules,
    f_score,
    fit_threshold_rule,
)
from vesu.errors import ArgumentError, DataError

Pair = tuple[NDArray[np.float32], NDArray[np.uint8]]
few = settings(max_examples=25, deadline=None)


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
        ({"mode": "density"}, "mode"),
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
    best = compare_threshold_rules(
        [p for p, _ in volumes],
        [label for _, label in volumes],
        metric=metric[0],
        modes=["fixed"],
        low_factors=[],
        smooth_z_radius=radius,
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
    fits = [fit_threshold_rule([q], [label], modes=["fixed"], smooth_z_radius=0) for q in (p, other)]
    assert fits[0] == fits[1]


def test_a_rule_per_volume_wins_where_volumes_are_rated_differently() -> None:  # R28
    volumes = [phantom(seed, gain=gain, noise=0.1) for seed, gain in enumerate([1.0, 0.6, 0.3])]
    ranked = compare_threshold_rules([p for p, _ in volumes], [label for _, label in volumes])
    by_mode = {score.rule.mode: score.score for score in reversed(ranked)}
    assert set(by_mode) == {"fixed", "quantile", "ratio"}
    assert by_mode["quantile"] > by_mode["fixed"] + 0.05
    assert by_mode["ratio"] > by_mode["fixed"] + 0.05
    assert ranked[0].rule.mode != "fixed"


def test_ratio_wins_where_densities_differ_too() -> None:  # R28
    settings_of = [(1.0, 2), (0.6, 6), (0.4, 15)]
    volumes = [phantom(i, gain=gain, spacing=spacing, noise=0.08) for i, (gain, spacing) in enumerate(settings_of)]
    # Above 1 % of surface and below 50 %, the median is background and the peak surface.
    best = fit_threshold_rule([p for p, _ in volumes], [label for _, label in volumes], low_factors=[])
    assert best.mode == "ratio"


def test_ties_go_to_the_mode_listed_first() -> None:  # R28
    label = np.zeros((4, 10, 10), np.uint8)
    label[:, 5] = 1
    p = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    for modes in (["quantile", "ratio", "fixed"], ["fixed", "ratio", "quantile"], ["ratio", "fixed", "quantile"]):
        best = compare_threshold_rules([p], [label], modes=modes)[0]  # type: ignore[arg-type]
        assert best.rule.mode == modes[0]
        assert best.score == 1
        assert best.rule.low_factor == 1  # hysteresis cannot beat it
    fixed = fit_threshold_rule([p], [label], modes=["fixed"])
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
    ranked = compare_threshold_rules(
        [p.astype(np.float32)], [label], modes=["fixed"], smooth_z_radius=0, low_factors=[0.9, 0.5], connectivity=6
    )
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
    assert compare_threshold_rules(*data, n_threads=n_threads) == compare_threshold_rules(*data, n_threads=1)


def test_iterators_are_taken_once() -> None:
    volumes = [phantom(seed) for seed in range(2)]
    lists = [p for p, _ in volumes], [label for _, label in volumes]
    assert fit_threshold_rule(iter(lists[0]), iter(lists[1])) == fit_threshold_rule(*lists)


def test_an_empty_label_among_others_asks_for_an_empty_mask() -> None:
    p, label = phantom(0)
    empty = np.zeros_like(label)
    quiet = np.full_like(p, 0.1)
    quiet[0, 0, 0] = 0.2
    ranked = compare_threshold_rules([p, quiet], [label, empty], modes=["fixed"], low_factors=[])
    assert ranked[0].by_volume[1] == 1.0  # nothing found where nothing is


def test_data_that_cannot_be_fitted_is_named() -> None:
    p, label = phantom(0)
    with pytest.raises(DataError, match="no volume"):
        fit_threshold_rule([], [])
    with pytest.raises(DataError, match=r"labels\[1\]: got 2 \(unlabelled\) in every voxel"):
        fit_threshold_rule([p, p], [label, np.full_like(label, 2)])
    with pytest.raises(DataError, match="no surface voxel"):
        fit_threshold_rule([p], [np.zeros_like(label)])
    with pytest.raises(DataError, match="the same value throughout"):
        fit_threshold_rule([np.full_like(p, 0.5)], [label])
    with pytest.raises(ArgumentError, match="labels: got 1 for 2 probabilities"):
        fit_threshold_rule([p, p], [label])
    with pytest.raises(ArgumentError, match="label: got shape"):
        fit_threshold_rule([p], [label[:-1]])
    with pytest.raises(ArgumentError, match="label: got 1 forbidden value, the first 7"):
        fit_threshold_rule([p], [np.where(np.arange(label.size).reshape(label.shape) == 9, 7, label).astype(np.uint8)])


@pytest.mark.parametrize("bad", [np.nan, 1.2, -0.1])
def test_forbidden_probabilities_are_refused_even_if_smoothing_would_hide_them(bad: float) -> None:
    p, label = phantom(0, noise=0.01)
    p[3, 4, 5] = bad
    with pytest.raises(ArgumentError, match=r"probability: got 1 forbidden value, .* \(3, 4, 5\)"):
        fit_threshold_rule([p], [label], smooth_z_radius=2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metric": "iou"}, "metric"),
        ({"modes": []}, "modes"),
        ({"modes": ["density"]}, "modes"),
        ({"modes": "fixed"}, "modes"),
        ({"low_factors": [0.0]}, "low_factors"),
        ({"tolerance": -1}, "tolerance"),
        ({"smooth_z_radius": -1}, "radius"),
        ({"connectivity": 7}, "connectivity"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    p, label = phantom(0)
    with pytest.raises(ArgumentError, match=rf"{named}: got .*; accepted"):
        fit_threshold_rule([p], [label], **options)


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
