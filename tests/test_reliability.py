"""Calibration against a slow reference and scikit-learn; parts that add up to the whole (R17)."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

import vesu
from vesu.errors import ArgumentError
from vesu.ledger import iter_events
from vesu.reliability import UncertaintyErrors, measure_calibration, reliability, shift_prior


def case(seed, shape=(6, 20, 31), unlabelled=0.2):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 2.0, shape).astype(np.float32)
    y = (rng.random(shape) < p**1.5).astype(np.uint8)
    y[rng.random(shape) < unlabelled] = 2
    u = (0.5 * rng.random(shape) * np.sqrt(p * (1 - p))).astype(np.float32)
    return p, y, u


def slow_reliability(p, y, n_bins):
    """One voxel at a time, exact edges."""
    bins = [[] for _ in range(n_bins)]
    for probability, label in zip(p.ravel().tolist(), y.ravel().tolist(), strict=True):
        if label != 2:
            at = next(k for k in range(n_bins) if probability <= (k + 1) / n_bins or k == n_bins - 1)
            bins[at].append((probability, label))
    n = sum(map(len, bins))
    gaps = [abs(sum(q for q, _ in b) / len(b) - sum(t for _, t in b) / len(b)) if b else 0.0 for b in bins]
    return {
        "count": [len(b) for b in bins],
        "positive": [sum(t for _, t in b) for b in bins],
        "ece": sum(gap * len(b) for gap, b in zip(gaps, bins, strict=True)) / n,
        "max_error": max(gaps),
        "brier": sum((q - t) ** 2 for b in bins for q, t in b) / n,
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([(1,), (50,), (3, 5, 7), (9, 40)]))
def test_figures_are_the_slow_references(seed, n_bins, shape):  # R17
    p, y, _ = case(seed, shape)
    y.flat[0] = 1
    p.flat[::3] = np.round(p.flat[::3] * n_bins) / n_bins  # on edges too
    found, wanted = reliability(p, y, n_bins), slow_reliability(p, y, n_bins)
    assert (found.count.tolist(), found.positive.tolist()) == (wanted["count"], wanted["positive"])
    for name in ("ece", "max_error", "brier"):
        assert getattr(found, name) == pytest.approx(wanted[name], abs=1e-9)


@pytest.mark.parametrize("n_bins", [1, 10, 15, 16])
def test_figures_are_scikit_learns(n_bins):  # R17
    p, y, _ = case(1)
    found = reliability(p, y, n_bins)
    kept = y != 2
    frequency, confidence = calibration_curve(y[kept], p[kept].astype(float), n_bins=n_bins)
    filled = found.count > 0
    np.testing.assert_allclose(found.frequency[filled], frequency, atol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], confidence, atol=1e-9)
    assert found.brier == pytest.approx(brier_score_loss(y[kept], p[kept].astype(float)), abs=1e-9)
    assert found.density == np.mean(y[kept])


def measure(p, u, y, prior=0.5, density=0.1, threshold=0.4):
    return measure_calibration(p, u, y, prior=prior, density=density, threshold=threshold)


def test_parts_in_any_order_give_the_whole_to_the_bit():  # R17
    p, y, u = case(2, (12, 160, 170))  # more than a chunk
    whole = measure(p, u, y).to_json()
    parts = [measure(p[a:b].copy(), u[a:b], y[a:b]) for a, b in ((7, 12), (0, 1), (1, 7))]
    assert (parts[0] + parts[1] + parts[2]).to_json() == whole
    assert (parts[2] + (parts[0] + parts[1])).to_json() == whole
    assert whole["raw"] == reliability(p, y).to_json()
    assert whole["voxels"] == np.count_nonzero(y != 2)


def test_a_calibrated_probability_has_no_error_and_a_bold_one_has():  # R17
    rng = np.random.default_rng(3)
    p = rng.random(400_000, np.float32)
    y = (rng.random(400_000) < p).astype(np.uint8)
    assert reliability(p, y).ece < 0.004
    bold = np.where(p > 0.5, np.float32(0.99), np.float32(0.01))
    found = reliability(bold, y)
    assert found.ece == pytest.approx(0.24, abs=0.005) and found.max_error == pytest.approx(0.24, abs=0.005)


def test_the_shift_undoes_class_balanced_sampling():  # R16 R17
    rng = np.random.default_rng(4)
    z = rng.normal(size=600_000) * 2 - 3
    y = (rng.random(600_000) < 1 / (1 + np.exp(-z))).astype(np.uint8)
    density = float(y.mean())
    # What a perfect model says when both classes are drawn alike: its logit is off by that of the density.
    balanced = (1 / (1 + np.exp(-z) * density / (1 - density))).astype(np.float32)
    found = measure(balanced, np.zeros_like(balanced), y, prior=0.5, density=density)
    assert found.raw.ece > 0.15 and found.corrected.ece < 0.003
    again = shift_prior(shift_prior(balanced, 0.5, density), density, 0.5)
    np.testing.assert_allclose(again, balanced, rtol=1e-5)
    assert np.array_equal(np.argsort(balanced[:999]), np.argsort(shift_prior(balanced[:999], 0.5, density)))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_a_label_of_one_class_is_no_error(density):
    p, y, u = case(5, unlabelled=0.0)
    y[:] = int(density)
    p.flat[:2] = 0, 1
    found = measure(p, u, y, density=density).to_json()
    assert all(math.isfinite(found["corrected"][name]) for name in ("ece", "max_error", "brier"))


def test_uncertainty_is_held_against_the_error():  # R17
    p, y, u = case(6, (10, 60, 60))
    found = measure(p, u, y).uncertainty
    kept = y != 2
    wrong = ((p >= 0.4) != (y == 1))[kept]
    assert found.error_rate == wrong.mean()
    assert found.auroc == pytest.approx(roc_auc_score(wrong, u[kept]), abs=2e-3)  # the fine bins make some ties
    groups = found.groups()
    assert len(groups) == 10 and sum(group["voxels"] for group in groups) == kept.sum()
    for group in groups:
        within = (u[kept] >= group["low"]) & (u[kept] < group["high"])
        assert abs(int(within.sum()) - group["voxels"]) <= 3  # a float32 next to an edge
        assert group["error_rate"] == pytest.approx(wrong[within].mean(), abs=2e-3)
        assert 0.07 < group["voxels"] / kept.sum() < 0.13
    assert all(a["high"] == b["low"] for a, b in itertools.pairwise(groups))


def test_one_certain_ensemble_is_one_group():
    p, y, _ = case(7)
    found = measure(p, np.zeros_like(p), y).uncertainty
    assert len(found.groups()) == 1 and found.auroc == 0.5
    empty = UncertaintyErrors(np.zeros(2000, np.int64), np.zeros(2000, np.int64))
    assert empty.groups() == [] and math.isnan(empty.auroc) and math.isnan(empty.error_rate)


def test_nothing_labelled_is_told_as_nothing():
    p, y, _ = case(8)
    found = reliability(p, np.full_like(y, 2))
    assert found.n == 0 and math.isnan(found.ece) and [b["confidence"] for b in found.to_json()["bins"]] == [None] * 15


P, Y, U = case(9, (4, 5, 6))


def with_value(array, value):
    array = array.copy()
    array.flat[7] = value
    return array


BAD = [
    ((with_value(P, np.nan), U, Y), "probability: got NaN"),
    ((with_value(P, 1.001), U, Y), "probability: got NaN or values outside"),
    ((P.astype(np.float64), U, Y), "probability: got dtype float64"),
    ((P.tolist(), U, Y), "probability: got list"),
    ((P, U, with_value(Y, 3)), "label: got 3"),
    ((P, U, Y.astype(np.int64)), "label: got dtype int64"),
    ((P, U, Y[:-1]), "label: got shape (3, 5, 6)"),
    ((P, U[:-1], Y), "uncertainty: got shape (3, 5, 6)"),
    ((P, with_value(U, 0.6), Y), "uncertainty: got NaN or values outside"),
    ((P, with_value(U, np.nan), Y), "uncertainty: got NaN"),
]


@pytest.mark.parametrize("arrays, message", BAD)
def test_bad_arrays_are_named(arrays, message):
    with pytest.raises(ArgumentError) as caught:
        measure(*arrays)
    assert str(caught.value).startswith(message)


def test_bad_settings_are_named():
    for n_bins in (0, 4097, 1.5, True):
        with pytest.raises(ArgumentError, match=r"^n_bins: got"):
            reliability(P, Y, n_bins)
    for prior in (0.0, 1.0, math.nan):
        with pytest.raises(ArgumentError, match=r"^prior: got"):
            measure(P, U, Y, prior=prior)
    with pytest.raises(ArgumentError, match=r"^density: got"):
        measure(P, U, Y, density=-0.1)
    with pytest.raises(ArgumentError, match=r"^n_bins: got 3"):
        reliability(P, Y, 4) + reliability(P, Y, 3)
    with pytest.raises(ArgumentError, match=r"^prior, density, threshold: got"):
        measure(P, U, Y) + measure(P, U, Y, threshold=0.5)


# ---- in a run ----


def test_a_run_measures_its_validation_volumes(finished, dataset, small_config):  # R17 R54
    entry = finished.summary["validation"]["calibration"]
    (event,) = [e for e in iter_events(finished.folder / "events.jsonl") if e["event"] == "CALIBRATION_MEASURED"]
    assert {key: event[key] for key in entry} == entry
    model = vesu.SurfaceModel.load(finished.folder)
    volumes = finished.summary["validation"]["volumes"]
    found = []
    for pair in vesu.discover(dataset).pairs:
        if pair.volume_id in volumes:
            prediction, label = model.predict(vesu.read_volume(pair.image)), vesu.read_volume(pair.label)
            shares = {"prior": entry["training_prior"], "density": entry["density"], "threshold": model.prox.threshold}
            found.append(measure_calibration(prediction.probability, prediction.uncertainty, label, **shares))
    assert len(found) == len(volumes) > 0
    assert sum(found[1:], found[0]).to_json() == entry
    assert entry["density"] == finished.summary["validation"]["density_label"] < 0.2
    assert entry["training_prior"] == pytest.approx(0.5, abs=0.1)  # class-balanced voxels
    assert entry["corrected"]["ece"] < entry["raw"]["ece"]
    assert entry["uncertainty"]["auroc"] > 0.5
