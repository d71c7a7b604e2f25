"""From probability to mask: steps, reports, diagnostics, confusion."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score, jaccard_score, precision_score, recall_score

import reference_volume as reference
from vesu import volume
from vesu.calibration import ThresholdRule
from vesu.errors import ArgumentError
from vesu.segmentation import Confusion, SegmentConfig, confusion, segment


def sheets(seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    p = 0.3 * rng.random((20, 40, 48), dtype=np.float32)
    p[:, 10] += 0.5
    p[5:9, 30] += 0.6
    return p


# ---- the steps ----


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("rule", [ThresholdRule(), ThresholdRule("ratio", 0.6, 0.7), ThresholdRule("fixed", 0.5, 0.5)])
def test_segment_is_its_steps_in_order(connectivity: int, rule: ThresholdRule) -> None:  # R28, R29
    p = sheets()
    config = SegmentConfig(smooth_z_radius=2, rule=rule, connectivity=connectivity, min_voxels=30)
    found = segment(p, config)
    smooth = volume.smooth_z(p, 2)
    np.testing.assert_allclose(smooth, reference.smooth_z(p, 2), rtol=1e-5)
    thresholds = rule.thresholds(smooth)
    weak = reference.hysteresis(smooth, thresholds.low, thresholds.high, connectivity)
    expected = reference.remove_dust(weak, 30, connectivity)
    assert found.thresholds == thresholds
    assert found.mask.dtype == np.uint8
    assert np.array_equal(found.mask, expected)
    assert [step.name for step in found.steps] == ["smooth_z", "threshold", "hysteresis", "dust"]
    smoothing, threshold, hysteresis, dust = found.steps
    strong = int(np.count_nonzero(smooth >= np.float32(thresholds.high)))
    assert (smoothing.voxels_before, smoothing.voxels_after) == (np.count_nonzero(p >= thresholds.high), strong)
    assert (threshold.voxels_before, threshold.voxels_after) == (p.size, strong)
    assert (hysteresis.voxels_before, hysteresis.voxels_after) == (strong, weak.sum())
    assert (dust.voxels_before, dust.voxels_after) == (weak.sum(), expected.sum())
    assert dust.detail["components"] == reference.labels(weak, connectivity)[1] == hysteresis.detail["components_kept"]
    assert dust.detail["components_kept"] == reference.labels(expected, connectivity)[1]
    assert all(step.seconds >= 0 for step in found.steps)


def test_steps_that_are_switched_off_change_nothing() -> None:  # R29
    p = sheets()
    config = SegmentConfig(smooth_z_radius=0, rule=ThresholdRule("fixed", 0.5), min_voxels=0, hysteresis=False)
    found = segment(p, config)
    assert np.array_equal(found.mask, p >= np.float32(0.5))
    assert found.thresholds.low == found.thresholds.high == 0.5
    assert [step.name for step in found.steps] == ["smooth_z", "threshold", "dust"]


def test_the_input_is_left_alone_and_may_be_read_only_or_strided() -> None:
    p = sheets()
    frozen = p.copy()
    frozen.flags.writeable = False
    strided = np.repeat(p, 2, axis=1)[:, ::2]
    masks = [segment(q).mask for q in (p, frozen, strided, np.asfortranarray(p))]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert np.array_equal(frozen, sheets())


def test_any_number_of_threads_gives_the_same_mask() -> None:
    p = sheets()
    assert len({segment(p, n_threads=n).mask.tobytes() for n in (1, 2, 3, 8)}) == 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_volume_gives_an_empty_mask_and_a_warning(value: float) -> None:  # R28, R30
    found = segment(np.full((4, 5, 6), value, np.float32))
    assert not found.mask.any()
    assert (
        found.diagnostics.density_warning == "foreground is 0.0000 of the volume, sparser than the usual 0.02 to 0.15"
    )


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.5])
def test_forbidden_probabilities_are_refused_before_smoothing(bad: float) -> None:
    p = np.full((5, 4, 3), 0.2, np.float32)
    p[2, 1, 0] = bad
    with pytest.raises(ArgumentError, match=r"probability: got 1 forbidden value, .* at \(z, y, x\) = \(2, 1, 0\)"):
        segment(p)


@pytest.mark.parametrize("p", [np.zeros((2, 2, 2)), np.zeros((2, 2), np.float32), np.zeros((0, 2, 2), np.float32)])
def test_a_bad_array_is_named(p: NDArray[Any]) -> None:
    with pytest.raises(ArgumentError, match="probability: got"):
        segment(p)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"connectivity": 7}, "connectivity"),
        ({"min_voxels": -1}, "min_voxels"),
        ({"min_voxels": 2.5}, "min_voxels"),
        ({"smooth_z_radius": -1}, "smooth_z_radius"),
        ({"rule": "quantile"}, "rule"),
        ({"density_range": (0.5, 0.1)}, "density_range"),
        ({"density_range": (0.5,)}, "density_range"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{named}: got .*; accepted"):
        SegmentConfig(**arguments)


def test_settings_survive_json() -> None:
    config = SegmentConfig(rule=ThresholdRule("ratio", 0.5, 0.9), min_voxels=7)
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    assert SegmentConfig(**{**read, "rule": ThresholdRule(**read["rule"])}) == config


# ---- diagnostics ----


def test_diagnostics_describe_the_mask_and_the_probabilities() -> None:  # R30
    p = sheets()
    found = segment(p)
    diagnostics = found.diagnostics
    assert diagnostics.ink_ratio_global == pytest.approx(found.mask.mean())
    assert diagnostics.ink_ratio_by_slice == pytest.approx(found.mask.mean(axis=(1, 2)))
    for percentile in (1, 5, 25, 50, 75, 95, 99):
        exact = np.percentile(p, percentile, method="inverted_cdf")
        assert diagnostics.probability_percentiles[str(percentile)] == pytest.approx(exact, abs=1 / 4096)
    as_json = json.loads(json.dumps(diagnostics.to_json(), allow_nan=False))
    assert list(as_json["probability_percentiles"]) == ["1", "5", "25", "50", "75", "95", "99"]
    assert len(as_json["ink_ratio_by_slice"]) == p.shape[0]


@pytest.mark.parametrize(("share", "side"), [(0.01, "sparser"), (0.05, None), (0.3, "denser")])
def test_the_density_warns_and_never_changes_the_mask(share: float, side: str | None) -> None:  # R28, R30
    p = np.zeros((10, 10, 10), np.float32)
    p.ravel()[: int(share * 1000)] = 0.9
    rule = ThresholdRule("fixed", 0.5)
    found = segment(p, SegmentConfig(smooth_z_radius=0, rule=rule, min_voxels=0))
    assert found.mask.sum() == int(share * 1000)
    warning = found.diagnostics.density_warning
    assert warning is None if side is None else warning is not None and side in warning
    wide = SegmentConfig(smooth_z_radius=0, rule=rule, min_voxels=0, density_range=(0, 1))
    assert segment(p, wide).diagnostics.density_warning is None


# ---- confusion ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_confusion_is_scikit_learns_without_label_2(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2], (3, 5, 7), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    mask = rng.random(label.shape) < density
    found = confusion(mask, label)
    t, m = label[label != 2] == 1, mask[label != 2]
    assert (found.tp, found.fp) == (np.sum(t & m), np.sum(~t & m))
    assert (found.fn, found.tn) == (np.sum(t & ~m), np.sum(~t & ~m))
    assert found.f1 == pytest.approx(fbeta_score(t, m, beta=1, zero_division=0))
    assert found.f_beta == pytest.approx(fbeta_score(t, m, beta=0.5, zero_division=0))
    assert found.iou == pytest.approx(jaccard_score(t, m, zero_division=0))
    assert found.precision == pytest.approx(precision_score(t, m, zero_division=0))
    assert found.recall == pytest.approx(recall_score(t, m, zero_division=0))


def test_both_empty_is_perfect_and_one_empty_is_worthless() -> None:
    label = np.array([[[0, 0, 2]]], np.uint8)
    nothing = np.array([[[0, 0, 1]]], np.uint8)  # its only voxel is unlabelled
    perfect = confusion(nothing, label)
    assert perfect == Confusion(tp=0, fp=0, fn=0, tn=2)
    assert [perfect.f1, perfect.f_beta, perfect.iou, perfect.precision, perfect.recall] == [1.0] * 5
    worthless = confusion(np.ones_like(nothing), label)
    assert [worthless.f1, worthless.f_beta, worthless.iou, worthless.precision, worthless.recall] == [0.0] * 5


def test_confusion_names_what_does_not_fit() -> None:
    label = np.array([[[0, 1, 7]]], np.uint8)
    with pytest.raises(ArgumentError, match="label: got 1 voxels of other values; accepted: 0, 1 and 2"):
        confusion(label, label)
    with pytest.raises(ArgumentError, match=r"mask: got shape \(1, 2\)"):
        confusion(np.zeros((1, 2)), label)
    with pytest.raises(ArgumentError, match=r"mask: got shape \(0,\)"):
        confusion(np.zeros(0), np.zeros(0, np.uint8))
    with pytest.raises(ArgumentError, match="got dtypes"):
        confusion(np.array(["a"]), np.zeros(1, np.uint8))
