"""The whole state of a search: taken anywhere, given back, saved, refused where it does not fit."""

import io
import json
import zipfile

import numpy as np
import pytest

from test_grid_search import PATHS, data
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.grid_search import ElasticNetLogisticGrid, EpochSettings, SearchState

METHODS = ("ista", "fista", "prox_newton")
SMALL = {"meta_neurons": 3, "l1": (1e-3, 1e-2), "l2": (1e-3, 1e-2)}
EVOLVING = EpochSettings(
    epochs=4, meta_neurons_growth=2, stagnation_epochs=1, min_delta=0.05, mutation_noise=0.3, prune_quantile=0.3
)


def draw(epoch):
    return data(400 + 10 * epoch, 3, seed=epoch)


def validation():
    x, y, g = data(300, 3, seed=77)
    return {"X_val": x, "y_val": y, "gradient_val": g}


def same(a, b):
    """Every fitted array, bit for bit."""
    for name in ("coef_", "intercept_", "leaderboard_", "diverged_", "candidates_", "gap_", "mean_", "scale_"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes()), name
    assert (a.n_iter_, a.n_epochs_, a.meta_neurons_) == (b.n_iter_, b.n_epochs_, b.meta_neurons_)


def through_a_file(state):
    buffer = io.BytesIO()
    state.save(buffer)
    buffer.seek(0)
    return SearchState.load(buffer)


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_split_anywhere_gives_the_same_bits(method):
    # deliverable 7, R37: 24 random places, thread counts mixed
    x, y, g = data(500, 3)
    states = []
    options = {**SMALL, "max_iter": 25, "solver": method, "tol": 1e-12}
    whole = ElasticNetLogisticGrid(**options, n_threads=2)
    whole.fit(x, y, g, **validation(), on_iteration=lambda record: states.append(record.state()))
    assert [state.iteration for state in states] == list(range(1, len(states) + 1)) and len(states) >= 2
    for at in np.random.default_rng(0).choice(len(states), min(24, len(states)), replace=False):
        seen = []
        again = ElasticNetLogisticGrid(**options, n_threads=1 + at % 3)
        again.fit(x, y, g, **validation(), state=through_a_file(states[at]), on_iteration=seen.append)
        same(again, whole)
        assert [record.iteration for record in seen] == list(range(at + 2, len(states) + 1))


@pytest.mark.parametrize("method", METHODS)
def test_epochs_split_anywhere_give_the_same_bits(method):
    # R14 R15 R37: growth, adapted steps, mutations, roll-backs and pruning included
    def run(n_threads=2, **more):
        grid = ElasticNetLogisticGrid(**SMALL, max_iter=12, solver=method, n_threads=n_threads)
        return grid.fit_epochs(draw, EVOLVING, **validation(), **more)

    states, events = [], []
    whole = run(on_iteration=lambda record: states.append(record.state()), on_event=lambda *event: events.append(event))
    assert {state.epoch for state in states} == {0, 1, 2, 3} and whole.meta_neurons_ == 3 + 3 * 2
    assert {"MUTATION_APPLIED", "META_NEURONS_GROWN"} <= {name for name, _ in events}
    ends = [i for i in range(len(states)) if i + 1 == len(states) or states[i + 1].epoch > states[i].epoch]
    assert len(ends) == 4
    for at in {*ends, *np.random.default_rng(1).choice(len(states), min(14, len(states)), replace=False).tolist()}:
        seen, state = [], states[at]
        told = seen.append
        again = run(1 + at % 3, state=through_a_file(state), on_event=lambda *event, told=told: told(event))
        same(again, whole)
        # From the epoch's end on, every decision is taken again, the same.
        later = [event for event in seen if event[0] != "EPOCH_START"]
        assert later == [event for event in events if event[0] != "EPOCH_START"][-len(later) :]
        assert any(name == "EPOCH_END" and fields["epoch"] == state.epoch for name, fields in later)


def test_partial_fit_goes_on_from_a_state():
    # R14 R37
    grids = [ElasticNetLogisticGrid(**SMALL, max_iter=6, solver="fista") for _ in range(2)]
    states = []
    grids[0].fit(*draw(0), on_iteration=lambda record: states.append(record.state()))
    grids[1].fit(*draw(0), state=states[2])
    for grid in grids:
        grid.partial_fit(*draw(1)).partial_fit(*draw(2))
    same(*grids)


def test_a_state_does_not_change_while_the_search_goes_on():
    states, copies = [], []

    def take(record):
        states.append(record.state())
        copies.append({name: np.copy(value) for name, value in states[-1].solver.items()})

    ElasticNetLogisticGrid(**SMALL, max_iter=5, solver="fista").fit(*draw(0), on_iteration=take)
    for state, copy in zip(states, copies, strict=True):
        for name, value in copy.items():
            np.testing.assert_array_equal(state.solver[name], value)
        with pytest.raises(ValueError, match="read-only"):
            state.solver["params"][0, 0] = 1.0
        with pytest.raises(TypeError):
            state.solver["params"] = None


def test_a_late_record_says_that_it_is_late():
    records = []
    ElasticNetLogisticGrid(**SMALL, max_iter=3).fit(*draw(0), on_iteration=records.append)
    with pytest.raises(ArgumentError, match="state: got a record of an earlier iteration"):
        records[0].state()


@pytest.fixture(scope="module")
def taken():
    states = []
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=8)
    grid.fit_epochs(
        draw, EpochSettings(epochs=2), on_iteration=lambda record: states.append(record.state()), **validation()
    )
    return states


OTHERS = {
    "seed": {"seed": 1},
    "meta_neurons": {"meta_neurons": 4},
    "l1": {"l1": (1e-3, 1e-1)},
    "l2": {"l2": (1e-3,)},
    "method": {"solver": "fista"},
    "init_scale": {"init_scale": 0.02},
    "bootstrap": {"bootstrap": False},
    "learning_rate": {"learning_rate": 0.02},
    "class_weight": {"class_weight": {0: 2.0}},
    "iteration": {"max_iter": 3},
    "simd": {"simd": "scalar"},
}


@pytest.mark.parametrize(("field", "change"), OTHERS.items(), ids=OTHERS)
def test_a_state_of_another_search_is_refused_by_name(taken, field, change):
    if field == "simd" and taken[0].problem.simd == "scalar":
        pytest.skip("this machine has one path only")
    other = ElasticNetLogisticGrid(**{**SMALL, "max_iter": 8, **change})
    with pytest.raises(ArgumentError, match=rf"state\.{field}: got .*; accepted"):
        other.fit(*draw(0), state=taken[5])
    assert not hasattr(other, "coef_")


def test_a_state_of_other_samples_is_refused(taken):
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=8)
    x, y, g = draw(0)
    moved = x.copy()
    moved[17, 1] = np.nextafter(moved[17, 1], np.float32(99))
    for samples, message in [
        ((moved, y, g), r"state\.samples"),
        ((x, 1 - y, g), r"state\.samples"),
        ((x, y, None), r"state\.uses_gradient: got True"),
        ((x[:, :2], y, g[:, :2]), r"state\.n_features: got 3; accepted: 2"),
        (draw(1), r"state\.samples"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            grid.fit(*samples, state=taken[3])
    with pytest.raises(ArgumentError, match="state: got dict"):
        grid.fit(x, y, g, state={})


# ---- files


def test_the_same_state_gives_the_same_bytes(taken, tmp_path):
    taken[9].save(tmp_path / "state.npz")
    loaded = SearchState.load(tmp_path / "state.npz")
    loaded.save(tmp_path / "again.npz")
    assert (tmp_path / "state.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert (loaded.epoch, loaded.iteration) == (taken[9].epoch, taken[9].iteration) == (1, 2)
    assert loaded.memory.keys() == taken[9].memory.keys() and loaded.memory
    with pytest.raises(FileError):
        SearchState.load(tmp_path / "none.npz")


def rebuilt(state, meta=None, **arrays):
    buffer = io.BytesIO()
    state.save(buffer)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as loaded:
        members = dict(loaded)
    text = {**json.loads(members["meta"].tobytes()), **(meta or {})}
    members["meta"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    members.update({name.replace("__", "."): value for name, value in arrays.items()})
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in members.items() if value is not None})
    out.seek(0)
    return out


def problem(state, **changes):
    buffer = io.BytesIO()
    state.save(buffer)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as loaded:
        return {"problem": {**json.loads(loaded["meta"].tobytes())["problem"], **changes}}


HOSTILE = {
    "version": lambda s: rebuilt(s, {"format": "vesu-search-state/2"}),
    "epoch below 0": lambda s: rebuilt(s, {"epoch": -1}),
    "epoch no integer": lambda s: rebuilt(s, {"epoch": 1.5}),
    "iteration true": lambda s: rebuilt(s, {"iteration": True}),
    "fewer neurons": lambda s: rebuilt(s, {"n_neurons": 2}),
    "endless neurons": lambda s: rebuilt(s, {"n_neurons": 1 << 40}),
    "samples a number": lambda s: rebuilt(s, {"samples": 3}),
    "solver a list": lambda s: rebuilt(s, {"solver": [1]}),
    "unknown method": lambda s: rebuilt(s, problem(s, method="adam")),
    "method missing": lambda s: rebuilt(s, {"problem": {}}),
    "extra field": lambda s: rebuilt(s, problem(s, depth=3)),
    "NaN rate": lambda s: rebuilt(s, problem(s, learning_rate=float("nan"))),
    "l1 a text": lambda s: rebuilt(s, problem(s, l1="0.1")),
    "negative l2": lambda s: rebuilt(s, problem(s, l2=[-1.0])),
    "bootstrap 1": lambda s: rebuilt(s, problem(s, bootstrap=1)),
    "three class weights": lambda s: rebuilt(s, problem(s, class_weight=[1.0, 1.0, 1.0])),
    "pickled": lambda s: rebuilt(s, solver__params=np.array([{"a": 1}], object)),
    "params short": lambda s: rebuilt(s, solver__params=np.zeros((2, 10))),
    "memory short": lambda s: rebuilt(s, memory__best=np.zeros(5)),
    "0-d": lambda s: rebuilt(s, solver__start_loss=np.float64(1)),
    "no scale": lambda s: rebuilt(s, problem__scale=None),
    "zero scale": lambda s: rebuilt(s, problem__scale=np.zeros(3)),
    "mean of another length": lambda s: rebuilt(s, problem__mean=np.zeros(4)),
    "NaN mean": lambda s: rebuilt(s, problem__mean=np.full(3, np.nan)),
    "strange member": lambda s: rebuilt(s, elsewhere__x=np.zeros(3)),
    "no zip": lambda s: io.BytesIO(b"PK" + bytes(100)),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(taken, make):
    with pytest.raises(FormatError):
        SearchState.load(make(taken[2]))


BAD_FOR_THE_SOLVER = {
    "params": np.full((12, 10), np.nan),
    "learning_rate": np.zeros(12),
    "diverged": np.zeros(12),
    "start_loss": np.full(12, -np.inf),
    "momentum": np.zeros(12),
}


@pytest.mark.parametrize(("name", "array"), BAD_FOR_THE_SOLVER.items(), ids=BAD_FOR_THE_SOLVER.keys())
def test_arrays_that_no_solver_left_are_refused_by_name(taken, name, array):
    state = SearchState.load(rebuilt(taken[2], **{f"solver__{name}": array}))
    with pytest.raises(ArgumentError, match=name):
        ElasticNetLogisticGrid(**SMALL, max_iter=8).fit(*draw(0), state=state)


def test_a_memory_that_no_search_left_is_refused(taken):
    for changes in ({"memory__best": None}, {"memory__best": np.zeros(12, np.int64)}, {"memory__depth": np.zeros(12)}):
        state = SearchState.load(rebuilt(taken[2], **changes))
        with pytest.raises(ArgumentError, match=r"state\.memory"):
            ElasticNetLogisticGrid(**SMALL, max_iter=8).fit_epochs(draw, EpochSettings(epochs=2), state=state)


def test_a_compressed_bomb_is_refused(taken):
    buffer = io.BytesIO()
    taken[0].save(buffer)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1)})
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, header.getvalue() if name == "solver.params.npy" else source.read(name))
    with pytest.raises(FormatError):
        SearchState.load(out)


@pytest.mark.parametrize("simd", PATHS)
def test_the_path_is_part_of_the_state(simd):
    states = []
    options = {**SMALL, "max_iter": 2, "simd": simd}
    ElasticNetLogisticGrid(**options).fit(*draw(0), on_iteration=lambda record: states.append(record.state()))
    assert states[0].problem.simd == simd
    ElasticNetLogisticGrid(**options).fit(*draw(0), state=states[0])
