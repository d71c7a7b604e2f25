"""The search against a slow float64 reference; determinism, resumption, divergence, Ctrl-C."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_prox as reference
from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search import ElasticNetLogisticGrid, SelectionWeights

L1, L2 = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-4, 1e-3, 1e-2)


def supported(name):
    try:
        return _core.simd_path(name) == name
    except ArgumentError:
        return False


PATHS = [name for name in ("scalar", "neon", "avx2", "avx512") if supported(name)]


def data(n, n_features, seed=0):
    """Correlated features, some irrelevant, and labels that depend on x, x^2 and g."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n_features)) @ (
        np.eye(n_features) + 0.3 * rng.standard_normal((n_features, n_features))
    )
    x = (5 + 3 * x).astype(np.float32)
    g = np.abs(rng.standard_normal((n, n_features))).astype(np.float32)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    z = 2 * standard[:, 0] - standard[:, -1] ** 2 + 0.8 * g[:, 0] + 0.3 * rng.standard_normal(n)
    return x, (z > 0).astype(np.uint8), g


@pytest.mark.parametrize("simd", PATHS)
def test_120_iterations_of_135_candidates_match_float64(simd):
    # R11 R12 R50
    x, y, g = data(1500, 6)
    grid = ElasticNetLogisticGrid(learning_rate=0.08, simd=simd)
    records = []
    grid.fit(x, y, g, on_iteration=records.append)
    coef, intercept, wanted = reference.search(
        x, y, g, meta_neurons=9, l1=L1, l2=L2, max_iter=120, learning_rate=0.08, seed=0, init_scale=0.01
    )
    assert grid.coef_.shape == (135, 18)
    assert np.abs(grid.coef_ - coef).max() <= 1e-6 * np.abs(coef).max()
    assert np.abs(grid.intercept_ - intercept).max() <= 1e-6 * np.abs(intercept).max()
    np.testing.assert_array_equal(np.abs(grid.coef_) > 1e-6, np.abs(coef) > 1e-6)
    # R51: every candidate, every iteration.
    assert [record.iteration for record in records] == list(range(1, 121))
    assert {(r.max_iter, r.candidate_first, r.candidate_last) for r in records} == {(120, 0, 134)}
    np.testing.assert_allclose(np.array([r.loss for r in records]).T, wanted[:, :, 0], rtol=2e-6)
    np.testing.assert_allclose(np.array([r.gradient_norm for r in records]).T, wanted[:, :, 1], rtol=1e-4, atol=1e-6)
    different = wanted[:, :, 2] != np.array([r.nonzero for r in records]).T
    assert different.mean() < 1e-3  # a coefficient on the edge of the soft threshold may cross it one step apart


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 400),
    n_features=st.integers(1, 24),
    neurons=st.integers(1, 11),
    n_l1=st.integers(1, 4),
    n_l2=st.integers(1, 3),
    with_gradient=st.booleans(),
    balanced=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    simd=st.sampled_from(PATHS),
)
def test_any_shape_matches_float64(n, n_features, neurons, n_l1, n_l2, with_gradient, balanced, seed, simd):
    # R11 R12
    x, y, g = data(n, n_features, seed % 1000)
    y[:2] = 0, 1
    g = g if with_gradient else None
    weights = (len(y) / (2 * (y == 0).sum()), len(y) / (2 * (y == 1).sum())) if balanced else (1.0, 1.0)
    options = {
        "meta_neurons": neurons,
        "l1": L1[-n_l1:],
        "l2": L2[:n_l2],
        "max_iter": 6,
        "seed": seed,
        "init_scale": 0.1,
    }
    grid = ElasticNetLogisticGrid(
        learning_rate="auto", class_weight="balanced" if balanced else None, simd=simd, **options
    ).fit(x, y, g)
    rate = grid.learning_rate_
    coef, intercept, _ = reference.search(x, y, g, learning_rate=rate, class_weight=weights, **options)
    scale = max(np.abs(coef).max(), np.abs(intercept).max())
    assert np.abs(grid.coef_ - coef).max() <= 1e-5 * scale
    assert np.abs(grid.intercept_ - intercept).max() <= 1e-5 * scale


@pytest.mark.parametrize("simd", PATHS)
def test_bits_do_not_depend_on_threads(simd):
    # R11, determinism
    x, y, g = data(20_011, 5)
    runs = [
        ElasticNetLogisticGrid(max_iter=5, n_threads=n, simd=simd).fit(x, y, g, X_val=x, y_val=y, gradient_val=g)
        for n in (1, 2, 3, 8)
    ]
    for run in runs[1:]:
        assert run.coef_.tobytes() == runs[0].coef_.tobytes()
        assert run.intercept_.tobytes() == runs[0].intercept_.tobytes()
        assert run.leaderboard_.tobytes() == runs[0].leaderboard_.tobytes()
        assert run.lipschitz_ == runs[0].lipschitz_
        assert (run.mean_.tobytes(), run.scale_.tobytes()) == (runs[0].mean_.tobytes(), runs[0].scale_.tobytes())


def solver(n_features, simd=None):
    return _core.ProxSolver(
        [5.0] * n_features, [3.0] * n_features, True, 3, [1e-3, 1e-2], [1e-3], 0.08, 7, 0.01, simd=simd
    )


@pytest.mark.parametrize("split", [0, 1, 4, 11])
def test_a_run_split_anywhere_gives_the_same_bits(split):
    # R37's ground: the state is all that the next step depends on
    x, y, g = data(3000, 4)
    whole, first, second = solver(4), solver(4), solver(4)
    for _ in range(12):
        expected = whole.step(x, y, g, 2)
    for _ in range(split):
        first.step(x, y, g, 1)
    second.set_state(first.state())
    while second.iteration < 12:
        stats = second.step(x, y, g, 3)
    assert [s.tobytes() for s in stats] == [s.tobytes() for s in expected]
    assert second.state()["params"].tobytes() == whole.state()["params"].tobytes()


def test_the_samples_are_borrowed_not_changed():
    x, y, g = data(500, 3)
    kept = x.copy(), y.copy(), g.copy()
    for array in (x, y, g):
        array.flags.writeable = False
    ElasticNetLogisticGrid(max_iter=2).fit(x, y, g)
    for array, copy in zip((x, y, g), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_meta_neurons_are_different_learners():
    # R12: the historical nine were identical
    x, y, g = data(2000, 4)
    grid = ElasticNetLogisticGrid(meta_neurons=9, l1=(1e-4,), l2=(1e-4,)).fit(x, y, g)
    for a in range(9):
        for b in range(a):
            assert np.abs(grid.coef_[a] - grid.coef_[b]).max() > 1e-3
    assert np.corrcoef(grid.coef_).min() > 0.9  # and yet they learn the same task


def test_gradients_are_spatial_only_when_given():
    # R12: without gradients there is no g term
    x, y, g = data(500, 4)
    assert ElasticNetLogisticGrid(max_iter=1).fit(x, y).coef_.shape == (135, 8)
    assert ElasticNetLogisticGrid(max_iter=1).fit(x, y, g).coef_.shape == (135, 12)


def test_larger_grids_are_accepted():
    # R11 R52
    x, y, _ = data(300, 2)
    grid = ElasticNetLogisticGrid(meta_neurons=37, l1=np.logspace(-5, -1, 7), l2=(0, 1e-3, 1e-1), max_iter=2).fit(x, y)
    assert len(grid.candidates_) == len(grid.coef_) == 37 * 7 * 3
    row = grid.candidates_[(20 * 7 + 5) * 3 + 1]
    assert (row["candidate"], row["neuron"], row["l2"]) == ((20 * 7 + 5) * 3 + 1, 20, 1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # `penalty` goes in 1.10, older versions need it
def test_the_optimum_agrees_with_scikit_learn():
    # R12: enough iterations reach the elastic-net solution of a trusted solver
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, _ = data(300, 2)
    rows, _, _ = reference.design(x, None)
    l1, l2 = 3e-3, 1e-2
    grid = ElasticNetLogisticGrid(1, (l1,), (l2,), max_iter=5000, learning_rate="auto", bootstrap=False).fit(x, y)
    options = {"C": 1 / (len(y) * (l1 + l2)), "l1_ratio": l1 / (l1 + l2), "tol": 1e-8, "max_iter": 20_000}
    peer = linear_model.LogisticRegression(solver="saga", penalty="elasticnet", **options).fit(rows, y)
    np.testing.assert_allclose(grid.coef_[0], peer.coef_[0], atol=2e-4)
    np.testing.assert_allclose(grid.intercept_[0], peer.intercept_[0], atol=2e-4)


def test_lipschitz_is_a_quarter_of_the_largest_eigenvalue():
    x, y, g = data(1000, 5)
    rows, _, _ = reference.design(x, g)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    grid = ElasticNetLogisticGrid(max_iter=1, learning_rate="auto").fit(x, y, g)
    wanted = np.linalg.eigvalsh(rows.T @ rows / len(rows)).max() / 4
    assert grid.lipschitz_ == pytest.approx(wanted, rel=1e-5)
    assert grid.learning_rate_ == min(0.08, 1 / (grid.lipschitz_ + 1e-2))


def test_auto_never_raises_the_objective_where_the_default_does():
    # many features of one common factor: their eigenvalue is so large that 0.08 is beyond 2 / L
    rng = np.random.default_rng(0)
    common = rng.standard_normal((3000, 1))
    x = (common + 0.1 * rng.standard_normal((3000, 60))).astype(np.float32)
    y = rng.integers(0, 2, 3000, dtype=np.uint8)  # no signal: the loss keeps its full curvature
    for rate, rises in (("auto", False), (0.08, True)):
        records = []
        grid = ElasticNetLogisticGrid(
            2, (1e-3,), (1e-3,), max_iter=60, learning_rate=rate, init_scale=0.1, bootstrap=False
        )
        grid.fit(x, y, on_iteration=records.append)
        losses = np.array([record.loss for record in records])
        assert (np.diff(losses, axis=0) > 1e-6).any() == rises
        assert (grid.learning_rate_ > 2 / grid.lipschitz_) == rises


def test_divergent_candidates_are_marked_frozen_and_excluded():
    x, y, g = data(1000, 3)
    records = []
    grid = ElasticNetLogisticGrid(2, (1e-3,), (1e-3, 1e5), max_iter=30, learning_rate=0.08, init_scale=0.1)
    grid.fit(x, y, g, on_iteration=records.append)
    np.testing.assert_array_equal(grid.diverged_, [False, True, False, True])
    assert np.isfinite(grid.coef_).all() and not grid.leaderboard_["diverged"][:2].any()
    assert grid.leaderboard_["diverged"][2:].all() and np.isfinite(records[-1].loss).all()
    assert grid.model(2).candidates != () and set(grid.model(2).candidates) == {0, 2}
    with pytest.raises(ArgumentError, match="top_k: got 3; accepted: 1 to 2"):
        grid.model(3)


@pytest.mark.parametrize("rate", [1e5, 1e300])
def test_all_diverged_says_what_to_do(rate):
    x, y, g = data(500, 3)
    with pytest.raises(ArgumentError, match=r"every candidate diverged .*'auto'"):
        ElasticNetLogisticGrid(max_iter=20, learning_rate=rate).fit(x, y, g)


def test_ctrl_c_is_answered_within_half_a_second():
    x, y, g = data(400_000, 4)
    grid = ElasticNetLogisticGrid(meta_neurons=40, max_iter=10**6)
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        grid.fit(x, y, g)
    assert time.monotonic() - start < 1.5 + 0.5


def test_an_error_in_the_callback_ends_the_fit():
    x, y, _ = data(100, 2)

    def refuse(record):
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        ElasticNetLogisticGrid(max_iter=5).fit(x, y, on_iteration=refuse)


def test_selection_matches_a_plain_scan():
    # R13: every candidate, every threshold, from float64 probabilities
    x, y, g = data(3000, 4)
    x_val, y_val, g_val = data(1777, 4)
    weights = SelectionWeights()
    grid = ElasticNetLogisticGrid(meta_neurons=3, max_iter=25)
    grid.fit(x, y, g, X_val=x_val, y_val=y_val, gradient_val=g_val)
    assert grid.selection_data_ == "validation"
    standard = (x_val.astype(float) - grid.mean_) / grid.scale_
    rows = np.concatenate([standard, standard**2, g_val / grid.scale_], axis=1)
    objectives = {}
    for row in grid.leaderboard_:
        z = rows @ grid.coef_[row["candidate"]] + grid.intercept_[row["candidate"]]
        cross_entropy = np.mean(np.logaddexp(0, z) - y_val * z)
        probability = (1 / (1 + np.exp(-z))).astype(np.float32)
        scan = [
            reference.scores(y_val == 1, probability, np.float32(t), 0.5) for t in np.round(np.arange(35, 61) / 100, 2)
        ]
        gains = [0.20 * f1 + 0.15 * f_beta + 0.10 * iou for f1, f_beta, iou in scan]
        nonzero = np.count_nonzero(grid.coef_[row["candidate"]])
        assert row["cross_entropy"] == pytest.approx(cross_entropy, rel=3e-6)
        assert row["sparsity"] == 1 - nonzero / 12 and row["n_nonzero"] == nonzero
        # A probability within rounding of a threshold may fall on its other side: one sample of 1777.
        objective = cross_entropy + 0.02 * nonzero / 12 - max(gains)
        assert row["objective"] == pytest.approx(objective, abs=3e-4)
        best = scan[round(100 * row["threshold"]) - 35]
        assert (row["f1"], row["f_beta"], row["iou"]) == pytest.approx(best, abs=1e-3)
        objectives[row["candidate"]] = row["objective"]
    assert list(objectives.values()) == sorted(objectives.values())
    assert len(objectives) == 45 and grid.best_index_ == grid.leaderboard_["candidate"][0]
    np.testing.assert_array_equal(grid.leaderboard_["rank"], np.arange(1, 46))
    assert weights.thresholds()[[0, -1]].tolist() == [0.35, 0.6]


def test_without_validation_data_the_leaderboard_says_train():
    # R13
    x, y, _ = data(300, 2)
    grid = ElasticNetLogisticGrid(max_iter=2).fit(x, y)
    assert grid.selection_data_ == "train"
    again = ElasticNetLogisticGrid(max_iter=2).fit(x, y, X_val=x, y_val=y)
    assert again.selection_data_ == "validation"
    assert again.leaderboard_.tobytes() == grid.leaderboard_.tobytes()
