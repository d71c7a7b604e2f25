"""From probability to mask: the ladder, its reports, diagnostics, confusion."""

import itertools
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
from vesu.config import RunConfig
from vesu.errors import ArgumentError
from vesu.segmentation import (
    DEFAULT_STEPS,
    Closing,
    Confusion,
    Dust,
    Fill,
    Median,
    Opening,
    Patch,
    Plug,
    SegmentConfig,
    SmoothZ,
    Step,
    StepReport,
    Suppress,
    Threshold,
    ThresholdRule,
    confusion,
    segment,
)


def sheets(seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    p = 0.3 * rng.random((20, 40, 48), dtype=np.float32)
    p[:, 10] += 0.5
    p[5:9, 30] += 0.6
    return p


# ---- the default ladder ----


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("rule", [ThresholdRule(), ThresholdRule("ratio", 0.6, 0.7), ThresholdRule("fixed", 0.5, 0.5)])
def test_segment_is_its_steps_in_order(connectivity: int, rule: ThresholdRule) -> None:  # R28, R29
    p = sheets()
    found = segment(p, SegmentConfig((SmoothZ(2), Threshold(rule, connectivity), Dust(30, connectivity))))
    smooth = volume.smooth_z(p, 2)
    np.testing.assert_allclose(smooth, reference.smooth_z(p, 2), rtol=1e-5)
    thresholds = rule.thresholds(smooth)
    weak = reference.hysteresis(smooth, thresholds.low, thresholds.high, connectivity)
    expected = reference.remove_dust(weak, 30, connectivity)
    assert found.thresholds == thresholds
    assert found.mask.dtype == np.uint8
    assert np.array_equal(found.mask, expected)
    assert [step.name for step in found.steps] == ["smooth_z", "threshold", "dust"]
    smoothing, threshold, dust = found.steps
    raw, strong = p >= np.float32(thresholds.high), smooth >= np.float32(thresholds.high)
    assert (smoothing.voxels_before, smoothing.voxels_after) == (raw.sum(), strong.sum())
    assert (smoothing.voxels_added, smoothing.voxels_removed) == ((strong & ~raw).sum(), (raw & ~strong).sum())
    assert smoothing.voxels_added + smoothing.voxels_removed > 0
    assert (threshold.voxels_before, threshold.voxels_after) == (strong.sum(), weak.sum())
    assert (threshold.voxels_added, threshold.voxels_removed) == (weak.sum() - strong.sum(), 0)
    assert (dust.voxels_before, dust.voxels_after) == (weak.sum(), expected.sum())
    assert (dust.voxels_added, dust.voxels_removed) == (0, weak.sum() - expected.sum())
    assert dust.detail["components"] == reference.labels(weak, connectivity)[1] == threshold.detail["components_kept"]
    assert dust.detail["components_kept"] == reference.labels(expected, connectivity)[1]
    assert all(step.seconds >= 0 for step in found.steps)


def test_the_default_ladder_stands_in_one_place() -> None:  # R29
    assert SegmentConfig().steps == DEFAULT_STEPS == RunConfig().segment.steps
    assert np.array_equal(segment(sheets()).mask, segment(sheets(), SegmentConfig(DEFAULT_STEPS)).mask)


def test_a_plain_threshold_is_a_ladder_too() -> None:  # R29
    p = sheets()
    found = segment(p, SegmentConfig((Threshold(ThresholdRule("fixed", 0.5, low_factor=1.0)),)))
    assert np.array_equal(found.mask, p >= np.float32(0.5))
    assert found.thresholds.low == found.thresholds.high == 0.5
    assert [(step.name, step.voxels_added, step.voxels_removed) for step in found.steps] == [("threshold", 0, 0)]


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
    config = SegmentConfig(ALL_STEPS)
    assert len({segment(p, config, uncertainty=p / 8, n_threads=n).mask.tobytes() for n in (1, 2, 3, 8)}) == 1


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


# ---- any ladder ----

ALL_STEPS: tuple[Step, ...] = (
    Suppress(0.5),
    SmoothZ(1),
    Median(),
    Threshold(),
    Dust(20, 6),
    Median(),
    Opening((0, 1, 1), "box"),
    Closing((2, 1, 1)),
    Plug(),
    Patch(min_voxels=30),
    Fill(),
    Dust(50, keep_largest=3, spare_border=True),
)


def test_every_step_is_the_kernel_it_names() -> None:  # R29
    p, u = sheets(), sheets(1) / 4
    masks: list[NDArray[np.uint8]] = []
    found = segment(
        p, SegmentConfig(ALL_STEPS), uncertainty=u, on_step=lambda report, before, after: masks.append(after)
    )
    q = volume.median(volume.smooth_z(np.maximum(p - np.float32(0.5) * u, 0), 1))
    thresholds = ThresholdRule().thresholds(q)
    expected = [volume.hysteresis(q, thresholds.low, thresholds.high)]
    expected.append(volume.remove_dust(expected[-1], 20, 6))
    expected.append(volume.median(expected[-1]))
    expected.append(volume.opening(expected[-1], (0, 1, 1), "box"))
    expected.append(volume.closing(expected[-1], (2, 1, 1), "ball"))
    expected.append(volume.plug_holes(expected[-1]))
    expected.append(volume.patch_sheets_counted(expected[-1], min_voxels=30)[0])
    expected.append(volume.fill_holes_counted(expected[-1])[0])
    expected.append(volume.remove_dust_counted(expected[-1], 50, keep_largest=3, spare_border=True)[0])
    assert found.thresholds == thresholds
    assert [step.name for step in found.steps] == [step.name for step in ALL_STEPS]
    for name, mask, wanted in zip((step.name for step in ALL_STEPS[3:]), masks[3:], expected, strict=True):
        assert np.array_equal(mask, wanted), name
    assert np.array_equal(found.mask, expected[-1])


def test_the_reports_chain_and_the_observer_sees_what_they_count() -> None:  # R30
    seen: list[tuple[StepReport, NDArray[np.uint8], NDArray[np.uint8]]] = []
    p = sheets()
    found = segment(p, SegmentConfig(ALL_STEPS), uncertainty=p / 8, on_step=lambda *each: seen.append(each))
    assert tuple(report for report, _, _ in seen) == found.steps
    assert np.array_equal(seen[0][1], p >= np.float32(found.thresholds.high))
    for (_, _, left), (_, came, _) in itertools.pairwise(seen):
        assert left is came
    for report, before, after in seen:
        assert before.dtype == after.dtype == np.uint8
        assert (report.voxels_before, report.voxels_after) == (before.sum(), after.sum())
        assert report.voxels_added == np.sum((after != 0) & (before == 0))
        assert report.voxels_removed == np.sum((after == 0) & (before != 0))


def test_the_same_step_may_come_twice_each_with_its_own_parameters() -> None:  # R29
    p = sheets()
    steps = (Threshold(), Dust(5), Closing(1), Dust(400))
    found = segment(p, SegmentConfig(steps))
    mask = volume.hysteresis(p, found.thresholds.low, found.thresholds.high)
    expected = volume.remove_dust(volume.closing(volume.remove_dust(mask, 5), 1), 400)
    assert np.array_equal(found.mask, expected) and expected.any()
    assert found.steps[1].voxels_removed > 0 and found.steps[3].voxels_removed > 0


def test_topology_is_counted_where_asked_for() -> None:  # R30
    p = np.full((9, 12, 12), 0.1, np.float32)
    p[2:5, 2:7, 2:7] = 0.9
    p[3, 4, 4] = 0.1  # a cavity
    p[:, 9, 9] = 0.9
    config = SegmentConfig((Threshold(ThresholdRule("fixed", 0.5)), Fill()))
    before, after = segment(p, config, topology=True).steps
    assert (before.components, before.tunnels, before.cavities) == (2, 0, 1)
    assert (after.components, after.tunnels, after.cavities, after.voxels_added) == (2, 0, 0, 1)
    for step in segment(p, config).steps:
        assert (step.components, step.tunnels, step.cavities) == (None, None, None)


def test_the_report_of_a_step_as_json_holds_no_seconds() -> None:  # R09: the same volume gives the same entry
    first, second = (segment(sheets(), topology=True).steps for _ in range(2))
    assert [step.to_json() for step in first] == [step.to_json() for step in second]
    assert all("seconds" not in step.to_json() for step in first)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (7, 1, 3)])
@pytest.mark.parametrize("value", [0.0, 0.9])
def test_every_step_takes_odd_volumes(shape: tuple[int, int, int], value: float) -> None:
    p = np.full(shape, value, np.float32)
    steps = tuple(Threshold(ThresholdRule("fixed", 0.5)) if isinstance(s, Threshold) else s for s in ALL_STEPS)
    found = segment(p, SegmentConfig(steps), uncertainty=np.zeros_like(p), topology=True)
    assert found.mask.shape == shape and set(np.unique(found.mask)) <= {0, 1}


# ---- suppression by uncertainty ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 10))
def test_suppression_is_bounded_and_monotone(seed: int, strength: float) -> None:  # R29
    rng = np.random.default_rng(seed)
    p, u = rng.random((2, 3, 4, 5), dtype=np.float32)
    lowered, detail = Suppress(strength).apply(p, uncertainty=u)
    assert lowered.dtype == np.float32 and detail == {"strength": strength}
    assert np.all((lowered >= 0) & (lowered <= p))
    np.testing.assert_allclose(lowered, np.maximum(p.astype(np.float64) - strength * u, 0), atol=1e-5)
    more, _ = Suppress(strength).apply(p, uncertainty=np.minimum(u * np.float32(1.5), 1))
    surer, _ = Suppress(strength).apply(np.minimum(p + np.float32(0.1), 1), uncertainty=u)
    assert np.all(more <= lowered) and np.all(surer >= lowered)
    assert np.array_equal(Suppress(strength).apply(p, uncertainty=np.zeros_like(u))[0], p)


def test_suppression_takes_out_what_the_ensemble_disagrees_on() -> None:  # R29
    p = np.full((6, 12, 12), 0.05, np.float32)
    p[:, 3] = p[:, 8] = 0.8
    u = np.zeros_like(p)
    u[:, 8] = 0.4  # as likely as the other sheet, but the members differ
    steps = (Suppress(1.0), Threshold(ThresholdRule("fixed", 0.6, 1.0)))
    found = segment(p, SegmentConfig(steps), uncertainty=u)
    assert found.mask[:, 3].all() and found.mask.sum() == found.mask[:, 3].sum()
    assert found.steps[0].voxels_removed == 6 * 12
    assert segment(p, SegmentConfig(steps[1:]), uncertainty=u).mask[:, 8].all()


@pytest.mark.parametrize(
    ("uncertainty", "message"),
    [
        (None, "uncertainty: got none"),
        (np.zeros((2, 3, 4)), "uncertainty: got float64"),
        (np.zeros((2, 3, 5), np.float32), r"uncertainty: got float32 of shape \(2, 3, 5\)"),
        (np.full((2, 3, 4), np.nan, np.float32), "uncertainty: got values from nan"),
        (np.full((2, 3, 4), -0.1, np.float32), "uncertainty: got values from -0.1"),
        (np.full((2, 3, 4), 1.5, np.float32), "uncertainty: got values from 1.5"),
        ([0.1], "uncertainty: got list"),
    ],
)
def test_a_bad_uncertainty_is_named(uncertainty: Any, message: str) -> None:  # R29
    p = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ArgumentError, match=message):
        segment(p, SegmentConfig((Suppress(), Threshold())), uncertainty=uncertainty)
    segment(p, SegmentConfig((Threshold(),)), uncertainty=uncertainty)  # nothing looks at it


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
    steps = (Threshold(ThresholdRule("fixed", 0.5)),)
    found = segment(p, SegmentConfig(steps))
    assert found.mask.sum() == int(share * 1000)
    warning = found.diagnostics.density_warning
    assert warning is None if side is None else warning is not None and side in warning
    assert segment(p, SegmentConfig(steps, density_range=(0, 1))).diagnostics.density_warning is None


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
