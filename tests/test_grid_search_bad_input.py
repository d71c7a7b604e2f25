"""Every bad input of the search by name, and the odd ones that are fine."""

import numpy as np
import pytest

from test_grid_search import data
from vesu import _core
from vesu.errors import ArgumentError, MemoryLimitError
from vesu.grid_search import ElasticNetLogisticGrid, SelectionWeights


@pytest.fixture(scope="module")
def fitted():
    x, y, g = data(300, 3)
    return ElasticNetLogisticGrid(max_iter=5).fit(x, y, g)


def good():
    x, y, g = data(200, 3)
    return {"X": x, "y": y, "gradient": g}


def with_bad(array, value, *places):
    array = array.copy()
    for place in places:
        array[place] = value
    return array


BAD_FIT = {
    "one class": ({"y": np.zeros(200, int)}, r"y: got 1 class\(es\) \(0\); accepted: exactly two"),
    "three classes": ({"y": np.arange(200) % 3}, r"y: got 3 class"),
    "NaN label": ({"y": with_bad(np.zeros(200), np.nan, 5, 9)}, r"y: got 2 NaN .* the first at 5"),
    "too few labels": ({"y": np.arange(199) % 2}, r"y: got 199 labels; accepted: 200"),
    "2-D labels": ({"y": np.zeros((200, 2))}, r"y: got shape \(200, 2\)"),
    "object labels": ({"y": np.array([None, {}] * 100)}, r"y: got shape \(200,\) of object"),
    "NaN": ({"X": with_bad(good()["X"], np.nan, (3, 1), (7, 0))}, r"x: got 2 NaN .* first at \[3, 1\]"),
    "infinity": ({"gradient": with_bad(good()["gradient"], np.inf, (9, 2))}, r"gradient: got 1 NaN .* \[9, 2\]"),
    "overflow": ({"X": with_bad(good()["X"].astype(float), 1e300, (0, 2))}, r"x: got 1 NaN .* \[0, 2\]"),
    "1-D": ({"X": np.zeros(200, np.float32)}, r"X: got shape \(200,\)"),
    "3-D": ({"X": np.zeros((200, 3, 1), np.float32)}, r"X: got shape"),
    "no samples": ({"X": np.zeros((0, 3), np.float32)}, r"X: got shape \(0, 3\)"),
    "no features": ({"X": np.zeros((200, 0), np.float32)}, r"X: got shape \(200, 0\)"),
    "strings": ({"X": np.full((200, 3), "a")}, r"X: got shape .* of <U1"),
    "complex": ({"X": np.zeros((200, 3), complex)}, r"X: got shape .* of complex128"),
    "gradient shape": ({"gradient": np.zeros((200, 2), np.float32)}, r"gradient: got shape \(200, 2\)"),
    "validation in part": ({"X_val": good()["X"]}, r"X_val: got a part"),
    "validation without gradient": ({"X_val": good()["X"], "y_val": good()["y"]}, r"X_val: got a part"),
    "validation one class": (
        {"X_val": good()["X"], "y_val": np.zeros(200), "gradient_val": good()["gradient"]},
        r"y_val: got classes 0.0",
    ),
    "validation columns": (
        {"X_val": good()["X"][:, :2], "y_val": good()["y"], "gradient_val": good()["gradient"][:, :2]},
        r"X_val: got 2 columns; accepted: 3",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD_FIT.values(), ids=BAD_FIT.keys())
def test_bad_samples_are_named(changes, message):
    with pytest.raises(ArgumentError, match=message):
        ElasticNetLogisticGrid(max_iter=2).fit(**{**good(), **changes})


BAD_PARAMETERS = [
    ({"l1": (-1e-3,)}, "l1: got"),
    ({"l2": (1e-3, np.nan)}, "l2: got"),
    ({"l1": ()}, "l1: got"),
    ({"l2": ("a",)}, "l2: got"),
    ({"learning_rate": 0.0}, "learning_rate: got 0"),
    ({"learning_rate": -1.0}, "learning_rate: got -1"),
    ({"learning_rate": np.inf}, "learning_rate: got inf"),
    ({"learning_rate": "fast"}, "learning_rate: got 'fast'"),
    ({"meta_neurons": 0}, "meta_neurons: got 0"),
    ({"meta_neurons": 2.5}, "meta_neurons: got 2.5"),
    ({"meta_neurons": 1 << 20}, "meta_neurons: got"),
    ({"max_iter": 0}, "max_iter: got 0"),
    ({"seed": -1}, "seed: got -1"),
    ({"seed": 1 << 64}, "seed: got"),
    ({"init_scale": -0.1}, "init_scale: got -0.1"),
    ({"class_weight": "heavy"}, "class_weight: got 'heavy'"),
    ({"selection": {"f1": 1}}, "selection: got dict"),
    ({"simd": "neon9"}, 'simd: got "neon9"; accepted: scalar'),
    ({"n_threads": 0}, "n_threads: got 0"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD_PARAMETERS, ids=lambda value: str(value)[:40])
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ArgumentError, match=message):
        ElasticNetLogisticGrid(**{"max_iter": 2, **parameters}).fit(**good())


def test_a_search_beyond_memory_is_refused_before_allocating():
    with pytest.raises(MemoryLimitError, match="limit"):
        ElasticNetLogisticGrid(meta_neurons=60_000, max_iter=1).fit(**good())


def test_the_environment_forces_a_path(monkeypatch):
    monkeypatch.setenv("VESU_SIMD", "scalar")
    assert ElasticNetLogisticGrid(max_iter=1).fit(**good()).simd_path_ == "scalar"
    monkeypatch.setenv("VESU_SIMD", "mmx")
    with pytest.raises(ArgumentError, match='VESU_SIMD: got "mmx"; accepted: scalar'):
        ElasticNetLogisticGrid(max_iter=1).fit(**good())


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], np.float64, lambda a: a[::-1][::-1]]
)
def test_layouts_and_dtypes_give_the_same_bits(change):
    samples = good()
    wanted = ElasticNetLogisticGrid(max_iter=3).fit(**samples)
    changed = {name: change(value) if name != "y" else value for name, value in samples.items()}
    for array in changed.values():
        array.flags.writeable = False
    assert ElasticNetLogisticGrid(max_iter=3).fit(**changed).coef_.tobytes() == wanted.coef_.tobytes()


def test_constant_and_duplicate_columns():
    x, y, g = data(300, 3)
    x[:, 1] = 0.1
    x[:, 2] = x[:, 0]
    g[:, 2] = g[:, 0]
    grid = ElasticNetLogisticGrid(meta_neurons=1, l1=(1e-3,), l2=(1e-2,), max_iter=400, learning_rate="auto")
    grid.fit(x, y, g)
    assert (grid.scale_[1], grid.mean_[1]) == (1.0, np.float32(0.1))
    assert np.isfinite(grid.coef_).all() and grid.coef_[0, 1] == grid.coef_[0, 4] == 0
    np.testing.assert_allclose(grid.coef_[0, [0, 3, 6]], grid.coef_[0, [2, 5, 8]], atol=0.02)


@pytest.mark.parametrize("n", [2, 3, 119, 120, 121, 7679, 7681])
def test_sample_counts_around_blocks_and_tasks(n):
    x, y, _ = data(n, 1)
    y[:2] = 0, 1
    assert ElasticNetLogisticGrid(max_iter=2).fit(x, y).coef_.shape == (135, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 3, 3), np.float32), r"values: got shape \[2, 3, 3, 3\]"),
        (np.zeros((3, 3, 3), np.float32), "values: got shape"),
        (np.zeros((3, 3, 3, 3)), "values: got dtype float64"),
        (np.zeros((3, 0, 3, 3), np.float32), "values: got shape"),
        (with_bad(np.zeros((3, 4, 5, 6), np.float32), np.nan, (1, 2, 3, 4), (2, 0, 0, 0)), r"2 NaN .* \[1, 2, 3, 4\]"),
    ],
)
def test_bad_volumes_are_named(fitted, values, message):
    with pytest.raises(ArgumentError, match=message):
        fitted.model(2).predict_volume(values)


def test_bad_predictions_are_named(fitted):
    x, _, g = data(10, 3)
    model = fitted.model()
    for arguments, message in [
        ((x, None), "gradient: got None"),
        ((x[:, :2], g[:, :2]), "x: got 2 columns|x: got 20 values|columns"),
        ((with_bad(x, np.nan, (1, 1)), g), r"x: got 1 NaN .* \[1, 1\]"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            model.predict_proba(*arguments)
    with pytest.raises(ArgumentError, match="not fitted"):
        ElasticNetLogisticGrid().model()
    with pytest.raises(ArgumentError, match="top_k: got 136"):
        fitted.model(136)


@pytest.mark.parametrize("weights", [{"f1": -1}, {"beta": np.nan}, {"threshold_low": 0.7}, {"threshold_step": 0.0}])
def test_bad_selection_weights(weights):
    with pytest.raises(ArgumentError):
        SelectionWeights(**weights)


# ---- the solver itself, and what the estimator adds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * 2, r"y: got \d+ labels outside \{0, 1\}, the first 2 at \d+; accepted: labels 0 and 1"),
        (lambda y: y.astype(np.int64), r"y: got dtype int64; accepted: a 1-D numpy array of uint8"),
        (lambda y: y[:-1], "y: got 199 labels; accepted: 200"),
    ],
)
def test_kernel_labels_are_zero_and_one(change, message):
    samples = good()
    solver = _core.ProxSolver([0.0] * 3, [1.0] * 3, True, 2, [1e-3], [1e-3], 0.1, 0, 0.01)
    before = solver.state()["params"]
    with pytest.raises(ArgumentError, match=message):
        solver.step(samples["X"], change(samples["y"]), samples["gradient"])
    np.testing.assert_array_equal(solver.state()["params"], before)


@pytest.mark.parametrize("method", ["ista", "fista"])
@pytest.mark.parametrize("rate", [1.0, 5.0])
def test_steps_beyond_the_bound_are_marked_never_silently_nan(method, rate):
    # lr above the Lipschitz bound of the l2 = 1000 candidates, 1 / (L + l2): they diverge, the others are whole
    records = []
    grid = ElasticNetLogisticGrid(2, (1e-3,), (1e-3, 1e3), learning_rate=rate, solver=method, init_scale=0.1)
    grid.fit(**good(), on_iteration=records.append)
    assert rate > 1 / grid.lipschitz_
    np.testing.assert_array_equal(grid.diverged_, [False, True, False, True])
    for array in (
        grid.coef_,
        grid.intercept_,
        grid.leaderboard_["objective"],
        grid.predict_proba(good()["X"], good()["gradient"]),
    ):
        assert np.isfinite(array).all()
    assert np.isfinite([record.loss[[0, 2]] for record in records]).all()
    assert not set(grid.model(2).candidates) & {1, 3}
    for top_k in (3, 4):
        with pytest.raises(ArgumentError, match=r"top_k: got \d; accepted: 1 to 2"):
            grid.model(top_k)


@pytest.mark.parametrize("method", ["ista", "fista", "prox_newton"])
def test_no_penalty_at_all(method):
    grid = ElasticNetLogisticGrid(2, (0.0,), (0.0,), max_iter=5, solver=method).fit(**good())
    assert np.isfinite(grid.coef_).all() and np.count_nonzero(grid.coef_) == grid.coef_.size


@pytest.mark.parametrize("method", ["ista", "fista", "prox_newton"])
@pytest.mark.parametrize("n", [2, 3, 59])
def test_one_feature_and_fewer_samples_than_a_block(method, n):
    x, y, _ = data(n, 1)
    y[:2] = 0, 1
    grid = ElasticNetLogisticGrid(max_iter=4, solver=method, bootstrap=False).fit(x, y)
    assert grid.coef_.shape == (135, 2) and np.isfinite(grid.coef_).all()


@pytest.mark.parametrize("method", ["ista", "fista", "prox_newton"])
def test_constant_columns_stay_at_zero(method):
    x, y, _ = data(300, 3)
    x[:, 1] = 7.0
    grid = ElasticNetLogisticGrid(2, (1e-3,), (1e-2,), max_iter=600, solver=method).fit(x, y)
    assert np.isfinite(grid.coef_).all() and not grid.coef_[:, [1, 4]].any()


def test_memory_is_refused_with_the_figure_before_any_growth():
    grid = ElasticNetLogisticGrid(max_iter=1).fit(**good())
    kept = grid.coef_
    with pytest.raises(MemoryLimitError, match=r"needs \d{11,} bytes; the limit is \d+ bytes"):
        grid.grow(60_000).partial_fit(**good())
    assert grid.coef_ is kept and len(grid.leaderboard_) == 135


def test_a_copy_beyond_memory_is_refused_before_allocating():
    endless = np.broadcast_to(np.float64(1.0), (10**11, 3))  # takes eight bytes; its float32 copy would take 1.2 TB
    with pytest.raises(MemoryLimitError, match=r"X: got shape .* copy needs 1200000000000 bytes of \d+; accepted: C-o"):
        ElasticNetLogisticGrid(max_iter=1).fit(endless, good()["y"])


BAD_X = {
    "sparse": (lambda x: pytest.importorskip("scipy.sparse").csr_array(x), r"X: got the sparse csr_array; .*dense"),
    "object texts": (lambda x: np.full(x.shape, "a", object), r"X: got shape \(200, 3\) of object: could not convert"),
    "dates": (lambda x: np.zeros(x.shape, "datetime64[s]"), r"X: got shape .* of datetime64"),
    "a column": (lambda x: x[:, 0], r"Reshape your data"),
    "nothing": (lambda x: None, r"X: got shape \(\) of object"),
}


@pytest.mark.parametrize(("change", "message"), BAD_X.values(), ids=BAD_X.keys())
def test_odd_features_are_named_in_fit_and_in_predict(fitted, change, message):
    samples = good()
    bad = change(samples["X"])
    with pytest.raises(ArgumentError, match=message):
        ElasticNetLogisticGrid(max_iter=1).fit(bad, samples["y"])
    with pytest.raises(ArgumentError, match=message):
        fitted.predict(bad)


BAD_Y = {
    "missing": (None, "requires y to be passed, but the target y is None"),
    "regression": (np.linspace(0, 1, 200), "Unknown label type: continuous. Only binary"),
    "mixed texts and numbers": (np.array(["a", 1] * 100, object), "Unknown label type"),
    "complex": (np.zeros(200, complex), "Complex data not supported"),
    "dates": (np.zeros(200, "datetime64[s]"), r"y: got shape \(200,\) of datetime64"),
}


@pytest.mark.parametrize(("y", "message"), BAD_Y.values(), ids=BAD_Y.keys())
def test_odd_labels_are_named(y, message):
    with pytest.raises(ArgumentError, match=message):
        ElasticNetLogisticGrid(max_iter=1).fit(good()["X"], y)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, np.nan, "best", None])
def test_bad_thresholds_are_named(threshold):
    grid = ElasticNetLogisticGrid(max_iter=1, threshold=threshold).fit(**good())
    with pytest.raises(ArgumentError, match="threshold: got"):
        grid.predict(good()["X"], good()["gradient"])


def test_a_score_needs_as_many_labels_as_rows(fitted):
    with pytest.raises(ArgumentError, match="y: got 199 labels; accepted: 200"):
        fitted.score(good()["X"], good()["y"][1:], good()["gradient"])
