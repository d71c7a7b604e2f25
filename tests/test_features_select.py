"""Rows of sampled voxels, and the selection of channels."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.features import FeatureVolume, extract_features, gather, select_features

reference = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("reference_features.py"))))


def feature_volume(shape: tuple[int, ...], seed: int) -> FeatureVolume:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return FeatureVolume(values, tuple(f"f{i}" for i in range(shape[0])))


@given(shape=st.tuples(*[st.integers(1, 6)] * 4), n=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_gather_matches_numpy(shape: tuple[int, ...], n: int, seed: int) -> None:  # R12, R16
    features = feature_volume(shape, seed)
    index = np.sort(np.random.default_rng(seed).integers(0, np.prod(shape[1:]), n))
    x, g = gather(features, index)
    expected_x, expected_g = reference.gather(features.values, index)
    assert x.dtype == g.dtype == np.float32
    assert np.array_equal(x, expected_x)
    np.testing.assert_allclose(g, expected_g, rtol=1e-6, atol=1e-7)


def test_gather_gives_the_same_bits_on_any_number_of_threads() -> None:  # R16
    features = feature_volume((5, 20, 30, 40), 1)
    index = np.arange(0, 20 * 30 * 40, 3)
    one = gather(features, index, n_threads=1)
    for n_threads in (2, 3, 8):
        assert all(np.array_equal(a, b) for a, b in zip(one, gather(features, index, n_threads=n_threads), strict=True))


BAD_INDEX = [
    (np.array([0, 8]), "flat_index: got 8 at position 1; accepted: ascending flat indices, each 0 to 7"),
    (np.array([-1, 2]), "flat_index: got -1 at position 0"),
    (np.array([3, 2]), "flat_index: got 2 after 3 at position 1"),
    (np.array([], np.int64), "flat_index: got shape"),
    (np.array([1.0]), "flat_index: got dtype float64"),
    (np.array([[1]]), "flat_index: got shape"),
]


@pytest.mark.parametrize(("index", "message"), BAD_INDEX)
def test_a_bad_index_is_named(index: NDArray[np.int64], message: str) -> None:  # R16
    with pytest.raises(ArgumentError, match=message):
        gather(feature_volume((2, 2, 2, 2), 2), index)


def test_a_non_finite_feature_is_named() -> None:  # R16
    features = feature_volume((2, 2, 2, 2), 3)
    features.values[1, 1, 0, 1] = np.nan
    with pytest.raises(ArgumentError, match="features: got NaN in channel 1 at flat index 5"):
        gather(features, np.arange(8))


def test_huge_values_do_not_overflow() -> None:  # R16
    features = FeatureVolume(np.array([-3e38, 3e38], np.float32).reshape(1, 2, 1, 1), ("a",))
    assert np.isfinite(gather(features, np.array([0]))[1]).all()


def test_a_feature_volume_has_a_name_a_channel() -> None:
    with pytest.raises(ArgumentError, match="names: got 1"):
        FeatureVolume(np.zeros((2, 1, 1, 1), np.float32), ("a",))
    with pytest.raises(ArgumentError, match="values: got shape"):
        FeatureVolume(np.zeros((2, 1, 1), np.float32), ("a", "b"))


# ---- selection ----


def correlated_table(seed: int, n_rows: int = 300) -> NDArray[np.float32]:
    """Twelve columns: four sources, near copies of them at several strengths, a constant."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(n_rows, 4))
    copies = [source[:, rng.integers(4)] * rng.uniform(0.5, 3) + rng.normal(size=n_rows) * noise
              for noise in (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 0.1)]  # fmt: skip
    return np.column_stack([source, *copies, np.full(n_rows, 7.0)]).astype(np.float32)


@given(seed=st.integers(0, 2**32), cut=st.floats(0.5, 0.999), top_k=st.none() | st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_selection_matches_the_spelled_out_rule(seed: int, cut: float, top_k: int | None) -> None:  # R08
    x = correlated_table(seed)
    names = [f"c{i}" for i in range(x.shape[1])]
    found = select_features(x, names, max_correlation=cut, top_k=top_k)
    assert list(found.indices) == reference.select(x, 1e-8, cut, top_k)
    assert found.names == tuple(names[i] for i in found.indices)
    assert {name for name, _ in found.dropped} | set(found.names) == set(names)
    np.testing.assert_allclose(found.variances, x.astype(np.float64).var(axis=0), rtol=1e-9, atol=1e-12)


def test_reasons_name_variance_correlation_and_rank() -> None:  # R08
    x = correlated_table(5)
    names = [f"c{i}" for i in range(x.shape[1])]
    reasons = dict(select_features(x, names, max_correlation=0.97, top_k=3).dropped)
    assert reasons["c11"].startswith("variance 0 below")
    assert any(reason.startswith("correlation ") for reason in reasons.values())
    assert any("ranks after the first 3" in reason for reason in reasons.values())


def test_with_labels_the_rank_is_the_correlation_with_them() -> None:  # R08
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 500)
    x = np.column_stack([rng.normal(size=500) * 100, y + rng.normal(size=500) * 0.3, y + rng.normal(size=500)])
    assert select_features(x.astype(np.float32), ["loud", "telling", "vague"], y=y, top_k=1).names == ("telling",)
    assert select_features(x.astype(np.float32), ["loud", "telling", "vague"], top_k=1).names == ("loud",)


def test_six_of_the_real_channels() -> None:  # R08
    volume = np.random.default_rng(7).integers(0, 255, (24, 24, 24), dtype=np.uint8)
    features = extract_features(volume)
    x, _ = gather(features, np.arange(0, volume.size, 2))
    assert len(select_features(x, features.names, top_k=6).names) == 6
    every = select_features(x, features.names)
    kept = np.corrcoef(x[:, every.indices].T.astype(np.float64)) - np.eye(len(every.indices))
    assert np.abs(kept).max() < 0.97


def test_a_large_mean_costs_no_precision() -> None:  # R08
    x = (np.random.default_rng(8).normal(size=(20000, 2)) + 1e4).astype(np.float32)
    found = select_features(x, ["a", "b"])
    np.testing.assert_allclose(found.variances, x.astype(np.float64).var(axis=0), rtol=1e-10)


def test_selection_does_not_depend_on_threads() -> None:  # R08
    x = correlated_table(9, 30000)
    names = [f"c{i}" for i in range(x.shape[1])]
    one = select_features(x, names, n_threads=1)
    assert all(select_features(x, names, n_threads=n) == one for n in (2, 3, 8))


def test_exact_copies_fall_even_at_a_cut_of_one() -> None:  # R08
    a = np.random.default_rng(10).normal(size=1000).astype(np.float32)
    found = select_features(np.stack([a, -a], axis=1), ["a", "minus_a"], max_correlation=1.0)
    assert found.dropped == (("minus_a", "correlation -1.000 with a"),)


def test_bad_arguments_are_named() -> None:  # R08
    x = np.ones((4, 2), np.float32)
    names = ["a", "b"]
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ArgumentError, match="1 non-finite values, the first in row 2, column 1"):
        select_features(bad, names)
    cases = [
        (lambda: select_features(x, ["a"]), "x: got shape"),
        (lambda: select_features(x.astype(np.float64), names), "x: got dtype float64"),
        (lambda: select_features(x, "ab"), "names: got"),
        (lambda: select_features(x, names, y=[1, 2]), "y: got shape"),
        (lambda: select_features(x, names, y=[1, 2, np.inf, 3]), "y: got 1 non-finite values, the first at 2"),
        (lambda: select_features(x, names, max_correlation=1.5), "max_correlation: got 1.5"),
        (lambda: select_features(x, names, min_variance=float("nan")), "min_variance: got nan"),
        (lambda: select_features(x, names, top_k=0), "top_k: got 0"),
        (lambda: select_features(x, names, top_k=1.5), "top_k: got 1.5"),  # type: ignore[arg-type]
    ]
    for call, message in cases:
        with pytest.raises(ArgumentError, match=message):
            call()


def test_all_constant_columns_leave_nothing() -> None:  # R08
    found = select_features(np.ones((4, 2), np.float32), ["a", "b"], min_variance=0.0)
    assert found.indices == () and len(found.dropped) == 2
