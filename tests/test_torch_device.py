"""The torch device of the search: samples that stay, memory, precision, fallbacks, bad input (R27)."""

import math
import sys
import warnings

import numpy as np
import pytest

from test_grid_search import data
from torch_cases import (  # noqa: F401 (fixtures are found by name)
    bits,
    device_fixture,
    on_torch,
    one_thread_fixture,
    steps,
    torch,
)
from vesu.data.machine import gpu_problem
from vesu.errors import ArgumentError, MemoryLimitError, VesuError
from vesu.grid_search import torch_device, torch_objective
from vesu.grid_search.torch_solver import TorchProxSolver

# ---- samples stay on the device ----


def test_samples_travel_once_and_changes_are_noticed(device, monkeypatch):  # R53
    x, y, g = data(3000, 3)
    solver, other = on_torch(x, device), on_torch(x, device)
    sent = []
    upload = type(solver._objective)._upload
    monkeypatch.setattr(
        type(solver._objective), "_upload", lambda self, samples: (sent.append(1), upload(self, samples))[1]
    )
    steps(solver, 5, x, y, g)
    assert len(sent) == 1
    solver.step(x.copy(), y, g)
    x *= np.float32(1.5)  # the same buffer, filled anew
    solver.step(x, y, g)
    assert len(sent) == 3
    x[1] += 1  # one row among thousands: only `load` is sure to see it
    solver.load(x, y, g)
    assert len(sent) == 4
    other.set_state(solver.state())
    assert [s.tobytes() for s in solver.step(x, y, g)] == [s.tobytes() for s in other.step(x.copy(), y, g)]


def test_read_only_samples_are_taken_without_a_word(device):
    x, y, g = data(700, 3)
    for array in (x, y, g):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(on_torch(x, device), 2, x, y, g)


def test_samples_of_any_stride_are_taken(device):
    x, y, g = data(700, 4)
    plain, strided = on_torch(x, device), on_torch(x, device)
    steps(plain, 3, x, y, g), steps(strided, 3, np.asfortranarray(x), y, np.repeat(g, 2, axis=0)[::2])
    assert bits(plain.state()) == bits(strided.state())


def test_too_little_memory_is_refused_before_anything_is_allocated(monkeypatch):  # bad input of the issue
    x, y, g = data(50_000, 6)
    solver = on_torch(x)
    needed = 50_000 * (6 * 8 + 1)
    monkeypatch.setattr(torch_objective, "available_bytes", lambda *_: needed)  # the chunk's buffers come on top
    monkeypatch.setattr(type(solver._objective), "_upload", lambda *_: pytest.fail("it went on"))
    with pytest.raises(MemoryLimitError, match=rf"50000 samples x 135 candidates: needs \d+ bytes; limit {needed}"):
        solver.step(x, y, g)
    assert solver.iteration == 0
    with pytest.raises(MemoryLimitError, match="0 samples x 270000 candidates"):
        on_torch(x, neurons=18_000)


@pytest.mark.parametrize("where", ["_upload", "_chunk"])
def test_memory_that_others_took_meanwhile_is_a_memory_error(monkeypatch, where):
    x, y, g = data(900, 3)
    solver = on_torch(x)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore words")

    with monkeypatch.context() as patch:
        patch.setattr(type(solver._objective), where, full)
        with pytest.raises(MemoryLimitError, match=r"Tried to allocate 2 GiB$"):
            solver.step(x, y, g)
    assert solver.iteration == 0
    steps(solver, 2, x, y, g)


def test_an_interrupt_leaves_the_state_as_it_was(monkeypatch):
    x, y, g = data(9000, 3)
    solver = on_torch(x)
    steps(solver, 2, x, y, g)
    before = bits(solver.state())
    calls = []

    def interrupted(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return torch.zeros(11, 135, dtype=torch.float64)

    monkeypatch.setattr(solver._objective, "_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solver.step(x, y, g)
    assert len(calls) == 2 and bits(solver.state()) == before


# ---- precision, fusion, what is missing ----


def switches():
    try:
        old = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch's words for: only the new switches were used
        old = None
    return old, *(getattr(part.matmul, "fp32_precision", None) for part in (torch.backends.cuda, torch.backends.mkldnn))


@pytest.mark.parametrize("which", ["old", "new", "none"])
def test_products_are_whole_float32_whatever_the_program_asked_for(device, monkeypatch, which):  # R27
    x, y, g = data(3000, 3)
    wanted, found = on_torch(x, device), on_torch(x, device)
    steps(wanted, 3, x, y, g)
    if which == "new" and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("torch before 2.9 has the old switch only")
    at_first = switches()
    try:
        if which == "old":
            torch.set_float32_matmul_precision("medium")
        elif which == "new":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        before, seen = switches(), []
        assert (before == at_first) == (which == "none")
        original = found._objective._chunk
        monkeypatch.setattr(found._objective, "_chunk", lambda *a: (seen.append(switches()), original(*a))[1])
        steps(found, 3, x, y, g)
        assert switches() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        if which == "new":
            torch.backends.cuda.matmul.fp32_precision = at_first[1]
    assert seen and all(inside[0] == "highest" and "tf32" not in inside for inside in seen)
    assert bits(found.state()) == bits(wanted.state())


def test_a_compiler_that_fails_is_told_and_plain_torch_goes_on(monkeypatch):  # R27: no silent fallback
    x, y, g = data(900, 2)

    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no compiler here\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain, fused = on_torch(x), on_torch(x, compile=True)
    with pytest.warns(RuntimeWarning, match="no compiler here"):
        steps(fused, 3, x, y, g)
    steps(plain, 3, x, y, g)
    assert fused.fallbacks == ("torch.compile: RuntimeError: no compiler here",) and plain.fallbacks == ()
    assert bits(fused.state()) == bits(plain.state())


def test_without_torch_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(torch_device.MissingTorchError, match=r"torch cannot be imported.*pip install torch") as caught:
        on_torch(data(50, 2)[0])
    assert isinstance(caught.value, VesuError) and isinstance(caught.value, ImportError)


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_a_gpu_that_does_not_compute_is_refused_by_name():  # R02 R27
    with pytest.raises(ArgumentError, match=r"device: got 'cuda', but torch .*; accepted: 'cpu'"):
        on_torch(data(50, 2)[0], "cuda")


# ---- bad input ----

BAD_ARGUMENTS = [
    ({"device": "mps"}, "device: got 'mps'"),
    ({"device": "what"}, "device: got 'what'"),
    ({"method": "prox_newton"}, "method: got 'prox_newton'; accepted on a torch device"),
    ({"simd": "avx2"}, "simd: got 'avx2'"),
    ({"neurons": 0}, "meta_neurons: got 0"),
    ({"neurons": 2**20}, "meta_neurons: got 1048576"),
    ({"l1": ()}, "l1: got"),
    ({"l1": (-1.0,)}, "l1: got"),
    ({"l2": (math.nan,)}, "l2: got"),
    ({"rate": 0.0}, "learning_rate: got 0.0"),
    ({"rate": -1.0}, "learning_rate: got -1.0"),
    ({"rate": math.inf}, "learning_rate: got inf"),
    ({"seed": -1}, "seed: got -1"),
    ({"seed": 2**64}, "seed: got"),
    ({"init_scale": -0.1}, "init_scale: got -0.1"),
    ({"class_weight": (1.0,)}, "class_weight: got"),
    ({"class_weight": (1.0, math.nan)}, "class_weight: got nan"),
]


@pytest.mark.parametrize("change, message", BAD_ARGUMENTS)
def test_bad_arguments_are_named(change, message):
    change = dict(change)
    simd = {"simd": change.pop("simd")} if "simd" in change else {}
    with pytest.raises(ArgumentError) as caught:
        on_torch(data(50, 2)[0], **{"device": "cpu", **change, **simd})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "mean, scale, name",
    [([], [], "scale"), ([0.0], [1.0, 1.0], "scale"), ([math.nan], [1.0], "mean"), ([0.0], [0.0], "scale")],
)
def test_a_bad_standardisation_is_named(mean, scale, name):
    with pytest.raises(ArgumentError, match=f"^{name}: got"):
        TorchProxSolver(mean, scale, False, 1, [0.1], [0.1], 0.1, 0, 0.1, device="cpu")


X, Y, G = data(60, 3)


def changed(array, position, value):
    array = array.copy()
    array[position] = value
    return array


BAD_SAMPLES = [
    ((X.astype(np.float64), Y, G), "x: got shape (60, 3) of float64"),
    ((X[:, 0], Y, G), "x: got shape (60,)"),
    ((X[:0], Y[:0], G[:0]), "x: got shape (0, 3)"),
    ((X[:, :2], Y, G[:, :2]), "x: got 2 columns; accepted: 3 columns"),
    ((X.tolist(), Y, G), "x: got list"),
    ((changed(X, (5, 1), np.nan), Y, G), "x: got 1 NaN or infinite values, the first at [5, 1]"),
    ((X, Y[:-1], G), "y: got 59 labels; accepted: 60"),
    ((X, Y.astype(np.int64), G), "y: got shape (60,) of int64"),
    ((X, changed(Y, slice(7, 9), 2), G), "y: got 2 labels outside {0, 1}, the first 2 at 7"),
    ((X, Y, G[:-1]), "gradient: got shape (59, 3)"),
    ((X, Y, changed(G, (0, 0), np.inf)), "gradient: got 1 NaN or infinite values, the first at [0, 0]"),
    ((X, Y, None), "gradient: got None; accepted: an array"),
]


@pytest.mark.parametrize("samples, message", BAD_SAMPLES)
@pytest.mark.parametrize("call", ["step", "certify", "load"])
def test_bad_samples_are_named_and_change_nothing(samples, message, call):
    solver = on_torch(X)
    with pytest.raises(ArgumentError) as caught:
        getattr(solver, call)(*samples)
    assert str(caught.value).startswith(message)
    assert solver.iteration == 0
    steps(solver, 1, X, Y, G)


def test_a_gradient_that_was_not_announced_is_refused():
    with pytest.raises(ArgumentError, match="gradient: got an array; accepted: None"):
        on_torch(X, gradient=False).step(X, Y, G)


BAD_STATES = [
    ({"params": np.zeros((135, 9))}, "params: got float64 (135, 9)"),
    ({"params": np.zeros((135, 10), np.float32)}, "params: got float32"),
    ({"params": [[0.0]]}, "params: got list"),
    ({"params": np.full((135, 10), np.nan)}, "params: got nan"),
    ({"diverged": np.zeros(135, np.int64)}, "diverged: got int64"),
    ({"start_loss": np.zeros(134)}, "start_loss: got float64 (134,)"),
    ({"learning_rate": np.zeros(135)}, "learning_rate: got 0.0; accepted: finite numbers above 0"),
    ({"iteration": -1}, "iteration: got -1"),
    ({"iteration": 1.5}, "iteration: got 1.5"),
    ({"momentum": np.full(135, -1.0)}, "momentum: got -1.0; accepted: finite numbers >= 0"),
    ({"previous": np.full((135, 10), np.inf)}, "previous: got inf"),
]


@pytest.mark.parametrize("change, message", BAD_STATES)
def test_a_bad_state_is_named_and_changes_nothing(change, message):  # R37's ground
    solver = on_torch(X, method="fista")
    steps(solver, 2, X, Y, G)
    before = bits(solver.state())
    with pytest.raises(ArgumentError) as caught:
        solver.set_state(solver.state() | change)
    assert str(caught.value).startswith(f"state: {message}")
    assert bits(solver.state()) == before


def test_a_state_of_another_method_is_refused():  # R37's ground
    ista, fista = on_torch(X), on_torch(X, method="fista")
    for solver, state in ((ista, fista.state()), (fista, ista.state()), (ista, {}), (ista, None)):
        with pytest.raises(ArgumentError, match=f"^state: got .*accepted with method '{solver.method}'"):
            solver.set_state(state)


def test_learning_rates_are_each_candidates_own():  # R15's ground
    x, y, g = data(900, 3)
    solver, slow = on_torch(x), on_torch(x)
    state = slow.state()
    state["learning_rate"][3] = 1e-12
    slow.set_state(state)
    start = slow.state()["params"]
    steps(solver, 2, x, y, g), steps(slow, 2, x, y, g)
    moved = np.abs(slow.state()["params"] - start).max(axis=1)
    assert moved[3] < 1e-10 and (np.delete(moved, 3) > 1e-3).all()
    assert np.delete(slow.state()["params"], 3, 0).tobytes() == np.delete(solver.state()["params"], 3, 0).tobytes()
