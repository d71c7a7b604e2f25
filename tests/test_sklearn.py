"""The search inside scikit-learn's world: its own checks, pipelines, cross-validation, data frames."""

import os
import subprocess
import sys

import numpy as np
import pytest

from test_grid_search import data
from vesu.errors import ArgumentError, VesuError
from vesu.grid_search import ElasticNetLogisticGrid

pytest.importorskip("sklearn")
base = pytest.importorskip("sklearn.base")
exceptions = pytest.importorskip("sklearn.exceptions")
model_selection = pytest.importorskip("sklearn.model_selection")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")
checks = pytest.importorskip("sklearn.utils.estimator_checks")

DEFAULT = ElasticNetLogisticGrid()
METHODS = ("fista", "prox_newton")
# scikit-learn is optional, so there is no base class of its own to inherit from: it warns and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:Estimator ElasticNetLogisticGrid does not inherit")


@checks.parametrize_with_checks([DEFAULT, *(ElasticNetLogisticGrid(solver=method) for method in METHODS)])
def test_scikit_learns_own_checks(estimator, check):
    # deliverable 6: every check on the default grid, none expected to fail
    check(estimator)


def test_check_estimator_with_its_array_api_checks():
    # scikit-learn runs the latter only where this variable is set before SciPy is imported
    program = (
        "import warnings; warnings.simplefilter('ignore');"
        "from sklearn.utils.estimator_checks import check_estimator;"
        "from vesu.grid_search import ElasticNetLogisticGrid;"
        "check_estimator(ElasticNetLogisticGrid())"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_data_frames_by_scikit_learns_check():
    pytest.importorskip("pandas")
    checks.check_dataframe_column_names_consistency("ElasticNetLogisticGrid", DEFAULT)


class Frame:
    """As much of a data frame as an estimator looks at."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_feature_names():
    x, y, _ = data(120, 3)
    names = ["smooth", "edge", "sheet"]
    grid = ElasticNetLogisticGrid(max_iter=3).fit(Frame(x, names), y)
    assert grid.feature_names_in_.tolist() == names and grid.model().feature_names == tuple(names)
    np.testing.assert_array_equal(grid.predict(Frame(x, names)), grid.fit(Frame(x, names), y).predict(Frame(x, names)))
    for wrong, message in [
        (["smooth", "sheet", "edge"], "must be in the same order"),
        (["smooth", "edge", "depth"], "unseen at fit time:\n- depth\n.*missing:\n- sheet"),
    ]:
        with pytest.raises(ArgumentError, match=f"(?s)feature names should match.*{message}"):
            grid.predict(Frame(x, wrong))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        grid.predict(x)
    with pytest.raises(ArgumentError, match="several types"):
        grid.fit(Frame(x, ["a", 1, "b"]), y)
    assert not hasattr(grid.fit(x, y), "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but"):
        grid.predict(Frame(x, names))


def test_in_a_pipeline_and_a_grid_search():
    x, y, _ = data(240, 4)
    labels = np.array(["paper", "void"])[y]
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), ElasticNetLogisticGrid(max_iter=30))
    scores = model_selection.cross_val_score(steps, x, labels, cv=3, scoring="roc_auc")
    assert len(scores) == 3 and min(scores) > 0.8
    search = model_selection.GridSearchCV(
        steps,
        {"elasticnetlogisticgrid__meta_neurons": [1, 3], "elasticnetlogisticgrid__solver": ["ista", "fista"]},
        cv=2,
    )
    search.fit(x, labels)
    assert search.best_score_ > 0.8 and set(search.predict(x)) == {"paper", "void"}


def test_gradients_travel_as_a_fit_parameter():
    x, y, g = data(200, 3)
    grids = model_selection.cross_validate(
        ElasticNetLogisticGrid(max_iter=5),
        x,
        y,
        params={"gradient": g},
        cv=2,
        scoring=lambda *_: 0.0,
        return_estimator=True,
    )["estimator"]
    assert all(grid.coef_.shape == (135, 9) for grid in grids)


def test_its_own_errors_are_scikit_learns_too():
    with pytest.raises(exceptions.NotFittedError) as caught:
        ElasticNetLogisticGrid().predict(np.zeros((2, 2)))
    assert isinstance(caught.value, (VesuError, AttributeError)) and isinstance(caught.value, ValueError)
    assert "not fitted" in str(caught.value)
    x, y, _ = data(60, 2)
    with pytest.warns(exceptions.DataConversionWarning, match="column-vector y"):
        ElasticNetLogisticGrid(max_iter=2).fit(x, y[:, None])


def test_without_scikit_learn():
    # optional at run time: neither imported by vesu nor needed for a fit, a prediction or an error
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, vesu\n"
        "from vesu.errors import ArgumentError\n"
        "grid = vesu.ElasticNetLogisticGrid(max_iter=2)\n"
        "try: grid.predict(np.zeros((2, 2)))\n"
        "except (ArgumentError, AttributeError) as error: assert 'not fitted' in str(error)\n"
        "x = np.random.default_rng(0).standard_normal((40, 2)); y = x[:, 0] > 0\n"
        "print(grid.fit(x, y).score(x, y) > 0.5, [n for n in sys.modules if n.startswith('sklearn.')], repr(grid))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "True [] ElasticNetLogisticGrid(max_iter=2)"


def test_what_is_shown_is_what_was_changed():
    assert repr(ElasticNetLogisticGrid()) == "ElasticNetLogisticGrid()"
    assert (
        repr(ElasticNetLogisticGrid(l1=(1e-3,), solver="fista"))
        == "ElasticNetLogisticGrid(l1=(0.001,), solver='fista')"
    )
    assert base.is_classifier(ElasticNetLogisticGrid()) and ElasticNetLogisticGrid()._estimator_type == "classifier"


@pytest.mark.parametrize("weight", [{0: 3.0, 1: 0.5}, {1: 0.5, 0: 3}, "balanced", {0: 2.0}])
def test_class_weights(weight):
    # what weighs more is called more often; balanced classes are called about as often
    x, y, _ = data(300, 2)
    grid = ElasticNetLogisticGrid(1, (1e-3,), (1e-3,), max_iter=50, class_weight=weight, bootstrap=False).fit(x, y)
    share = grid.predict_proba(x)[:, 1].mean()
    plain = ElasticNetLogisticGrid(1, (1e-3,), (1e-3,), max_iter=50, bootstrap=False).fit(x, y)
    if weight == "balanced":
        assert abs(share - 0.5) < abs(plain.predict_proba(x)[:, 1].mean() - 0.5) + 0.02
    else:
        assert share < plain.predict_proba(x)[:, 1].mean() - 0.02


@pytest.mark.parametrize(
    ("weight", "message"), [({2: 1.0}, "got the class 2"), ({0: -1}, "weights >= 0"), ({0: "a"}, "a number")]
)
def test_bad_class_weights(weight, message):
    x, y, _ = data(60, 2)
    with pytest.raises(ArgumentError, match=f"class_weight: .*{message}"):
        ElasticNetLogisticGrid(max_iter=2, class_weight=weight).fit(x, y)
