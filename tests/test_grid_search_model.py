"""The model of a search: ensembles, feature volumes, files."""

import contextlib
import copy
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_prox as reference
from test_grid_search import data
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.grid_search import ElasticNetLogisticGrid, ProxFitModel
from vesu.grid_search.npzfile import write_npz


@pytest.fixture(scope="module")
def fitted():
    x, y, g = data(1500, 3)
    return ElasticNetLogisticGrid(max_iter=20).fit(x, y, g)


def random_model(n_members, n_features, uses_gradient, seed=0):
    rng = np.random.default_rng(seed)
    return ProxFitModel(
        coef=rng.standard_normal((n_members, n_features * (3 if uses_gradient else 2))),
        intercept=rng.standard_normal(n_members),
        mean=rng.standard_normal(n_features),
        scale=0.5 + rng.random(n_features),
        feature_names=tuple(f"f{i}" for i in range(n_features)),
        threshold=0.5,
        uses_gradient=uses_gradient,
        candidates=tuple(range(n_members)),
    )


def plain(model, x, g):
    standard = (x.astype(float) - model.mean) / model.scale
    blocks = [standard, standard**2] + ([g / model.scale] if model.uses_gradient else [])
    z = np.concatenate(blocks, axis=1) @ model.coef.T + model.intercept
    probability = 1 / (1 + np.exp(-z))
    return probability.mean(axis=1), probability.std(axis=1)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 2, st.integers(1, 300)),
    n_features=st.integers(1, 6),
    n_members=st.integers(1, 20),
    uses_gradient=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_volume_gives_what_its_voxels_give(shape, n_features, n_members, uses_gradient, seed):
    # R12 R17: g is the spatial gradient of each channel, on the fly
    values = np.random.default_rng(seed).standard_normal((n_features, *shape)).astype(np.float32)
    model = random_model(n_members, n_features, uses_gradient, seed)
    mean, spread = model.predict_volume(values, n_threads=2)
    x, g = reference.volume_rows(values)
    assert (mean.shape, mean.dtype, spread.shape) == (shape, np.float32, shape)
    wanted = plain(model, x, g)
    np.testing.assert_allclose(mean.ravel(), wanted[0], atol=2e-6)
    np.testing.assert_allclose(spread.ravel(), wanted[1], atol=2e-6)
    by_sample = model.predict_proba(x, g if uses_gradient else None)
    np.testing.assert_allclose(by_sample[0], mean.ravel(), atol=1e-6)


def test_prediction_does_not_depend_on_threads():
    values = np.random.default_rng(0).standard_normal((4, 19, 23, 131)).astype(np.float32)
    model = random_model(9, 4, True)
    one = model.predict_volume(values, n_threads=1)
    for n in (2, 3, 8):
        assert [a.tobytes() for a in model.predict_volume(values, n_threads=n)] == [a.tobytes() for a in one]


def test_members_are_the_best_of_different_neurons_first(fitted):
    # R17
    model = fitted.model(12, feature_names=("a", "b", "c"))
    neurons = [candidate // 15 for candidate in model.candidates]
    assert sorted(neurons[:9]) == list(range(9)) and model.candidates[0] == fitted.best_index_
    for candidate in model.candidates[:9]:
        of_neuron = fitted.leaderboard_[fitted.leaderboard_["neuron"] == candidate // 15]
        assert of_neuron["candidate"][0] == candidate
    assert len(set(model.candidates)) == 12 and model.feature_names == ("a", "b", "c")
    assert 0.35 <= model.threshold <= 0.6


def test_spread_is_zero_for_one_and_positive_for_many(fitted):
    x, _, g = data(200, 3)
    assert not fitted.model(1).predict_proba(x, g)[1].any()
    assert (fitted.model(9).predict_proba(x, g)[1] > 0).all()


def test_predict_uses_the_best_candidate(fitted):
    # R13: the likelier class, or at the threshold that the scan chose
    x, y, g = data(1500, 3)
    probability = fitted.predict_proba(x, g)
    assert probability.shape == (1500, 2)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(fitted.predict(x, g), probability.argmax(axis=1))
    selected = copy.copy(fitted).set_params(threshold="selected")
    f1, f_beta, _ = reference.scores(y == 1, selected.predict(x, g) == 1, 0.5, 0.5)
    assert (fitted.leaderboard_["f1"][0], fitted.leaderboard_["f_beta"][0]) == pytest.approx((f1, f_beta), abs=1e-12)


@pytest.mark.parametrize("classes", [(0, 1), (-1, 1), (3.5, 7.0), ("paper", "void"), (False, True)])
def test_any_two_classes(classes):
    x, y, _ = data(300, 2)
    labels = np.array(classes)[y]
    grid = ElasticNetLogisticGrid(max_iter=10).fit(x, labels)
    assert set(grid.predict(x)) <= set(classes) and tuple(grid.classes_) == classes
    assert np.mean(grid.predict(x) == labels) > 0.6


def test_scikit_learn_can_clone_it():
    base = pytest.importorskip("sklearn.base")
    grid = ElasticNetLogisticGrid(meta_neurons=4, l1=(1e-3,))
    assert base.clone(grid).get_params() == grid.get_params()
    assert grid.set_params(max_iter=7).max_iter == 7
    with pytest.raises(ArgumentError, match="set_params: got 'depth'"):
        grid.set_params(depth=3)


# ---- files


def test_save_and_load(fitted, tmp_path):
    model = fitted.model(9)
    path = tmp_path / "model.npz"
    model.save(path)
    loaded = ProxFitModel.load(path)
    x, _, g = data(100, 3)
    for a, b in zip(loaded.predict_proba(x, g), model.predict_proba(x, g), strict=True):
        assert a.tobytes() == b.tobytes()
    assert (loaded.feature_names, loaded.threshold, loaded.candidates) == (
        model.feature_names,
        model.threshold,
        model.candidates,
    )
    again = io.BytesIO()
    loaded.save(again)
    assert again.getvalue() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_and_folder(fitted, tmp_path):
    with pytest.raises(FileError) as caught:
        ProxFitModel.load(tmp_path / "none.npz")
    assert caught.value.errno == 2
    with pytest.raises(FileError):
        fitted.model().save(tmp_path / "no" / "folder.npz")


def rebuilt(model, changes=None, **arrays):
    """A file like the model's with some members replaced."""
    buffer = io.BytesIO()
    model.save(buffer)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as loaded:
        members = dict(loaded)
    if changes is not None:
        members["meta"] = np.frombuffer(
            json.dumps({**json.loads(members["meta"].tobytes()), **changes}).encode(), np.uint8
        )
    members.update(arrays)
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in members.items() if value is not None})
    return out


HOSTILE_META = [
    {"format": "vesu-prox-fit/2"},
    {"format": None},
    {"threshold": float("nan")},
    {"threshold": 2.0},
    {"threshold": "0.5"},
    {"uses_gradient": "yes"},
    {"feature_names": ["a", "b"]},
    {"feature_names": 3},
    {"feature_names": [1, 2, 3]},
    {"candidates": [1.5]},
    {"candidates": None},
]


@pytest.mark.parametrize("meta", HOSTILE_META, ids=str)
def test_hostile_meta_is_refused(fitted, meta):
    file = rebuilt(fitted.model(), meta)
    with pytest.raises(FormatError):
        ProxFitModel.load(file)


HOSTILE_ARRAYS = {
    "pickled": {"coef": np.array([{"a": 1}], object)},
    "missing": {"scale": None},
    "other dtype": {"coef": np.zeros((1, 9), np.float32)},
    "other ndim": {"coef": np.zeros(9)},
    "other width": {"coef": np.zeros((1, 8))},
    "no members": {"coef": np.zeros((0, 9)), "intercept": np.zeros(0)},
    "NaN": {"intercept": np.array([np.nan])},
    "zero scale": {"scale": np.zeros(3)},
    "meta not JSON": {"meta": np.frombuffer(b"{", np.uint8)},
    "meta a list": {"meta": np.frombuffer(b"[]", np.uint8)},
    "meta too deep": {"meta": np.frombuffer(b"[" * 200_000, np.uint8)},
}


@pytest.mark.parametrize("arrays", HOSTILE_ARRAYS.values(), ids=HOSTILE_ARRAYS.keys())
def test_hostile_arrays_are_refused(fitted, arrays):
    file = rebuilt(fitted.model(), **arrays)
    with pytest.raises(FormatError):
        ProxFitModel.load(file)


def test_a_header_that_claims_too_much_is_refused(fitted):
    buffer = io.BytesIO()
    fitted.model().save(buffer)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 10)})
    for content in (header.getvalue(), b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, b"", b"0" * (65 << 20)):
        out = io.BytesIO()
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, content if name == "coef.npy" else source.read(name))
        with pytest.raises(FormatError):
            ProxFitModel.load(out)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(draw):
    buffer = io.BytesIO()
    random_model(2, 2, True).save(buffer)
    content = bytearray(buffer.getvalue())
    for _ in range(draw.draw(st.integers(1, 4))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    content = content[: draw.draw(st.integers(0, len(content)))] if draw.draw(st.booleans()) else content
    with contextlib.suppress(FormatError):
        ProxFitModel.load(io.BytesIO(bytes(content)))


def test_a_file_holds_its_members_and_nothing_else() -> None:
    buffer = io.BytesIO()
    write_npz(buffer, {"a": 1}, {"b": np.arange(3)})
    assert zipfile.ZipFile(buffer).namelist() == ["meta.npy", "b.npy"]  # NumPy 2.0's savez would add allow_pickle.npy
    with pytest.raises(ValueError, match=r"pickle|object"):
        write_npz(io.BytesIO(), {}, {"b": np.array([{}])})
