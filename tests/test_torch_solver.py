"""The search on a torch device against the Rust core: the same draws, the same steps, the same state (R27).

Every test runs on CPU tensors, and on a GPU too where one computes.
"""

import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_prox as reference
from test_grid_search import L1, L2, data
from vesu import _core
from vesu.data.machine import gpu_problem
from vesu.errors import ArgumentError, MemoryLimitError, VesuError
from vesu.grid_search import torch_bootstrap, torch_device, torch_objective
from vesu.grid_search.torch_solver import TorchProxSolver

torch = pytest.importorskip("torch", reason="the GPU path needs torch: pip install torch")

TOLERANCE = 1e-6  # of max |dw| / max |w|; 3e-8 was measured on CPU tensors


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and (problem := gpu_problem()):
        pytest.skip(f"no GPU: {problem}")
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    """torch's threads spin while they wait: on a busy machine two are ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(x, *, gradient=True, neurons=9, l1=L1, l2=L2, rate=0.08, seed=0, init_scale=0.01, **options):
    mean, scale = _core.prox_standardise(x)
    return (mean.tolist(), scale.tolist(), gradient, neurons, list(l1), list(l2), rate, seed, init_scale), options


def both(x, device="cpu", **settings):
    given, options = arguments(x, **settings)
    return _core.ProxSolver(*given, **options), TorchProxSolver(*given, device=device, **options)


def on_torch(x, device="cpu", method="ista", compile=False, **settings):
    given, options = arguments(x, **settings)
    return TorchProxSolver(*given, method=method, device=device, compile=compile, **options)


def steps(solver, n, *samples):
    for _ in range(n):
        stats = solver.step(*samples)
    return stats


def relative(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


# ---- the same draws ----


@given(st.integers(0, 2**64 - 1), st.integers(1, 7), st.integers(0, 5000), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_bootstrap_weights_and_starts_are_the_cores_to_the_bit(seed, neurons, first, n):  # R12 R27
    keys = torch_bootstrap.neuron_pair_keys(seed, neurons)
    found = torch_bootstrap.poisson_weights(torch, keys, neurons, first, n, "cpu").numpy()
    wanted = [reference.bootstrap_weights(seed, neuron, first + n)[first:] for neuron in range(neurons)]
    np.testing.assert_array_equal(found, np.stack(wanted, axis=1))
    starts = torch_bootstrap.initial_coefficients(seed, neurons, 5, 0.3)
    assert (
        starts.tobytes()
        == np.stack([reference.initial_coefficients(seed, k, 5, 0.3) for k in range(neurons)]).tobytes()
    )


def test_weights_on_the_device_are_those_on_the_cpu(device):  # R12 R27
    keys = torch_bootstrap.neuron_pair_keys(5, 9)
    found = torch_bootstrap.poisson_weights(torch, keys, 9, 25_100_000, 50_000, device).cpu()
    assert torch.equal(found, torch_bootstrap.poisson_weights(torch, keys, 9, 25_100_000, 50_000, "cpu"))
    mean, variance = found.double().mean(0), found.double().var(0)
    assert (mean - 1).abs().max() < 0.03 and (variance - 1).abs().max() < 0.05


def test_the_rust_core_draws_the_same():  # R12 R27: at zero coefficients a neuron's loss is ln 2 times its mean weight
    x, y, g = data(4001, 2)
    for seed in (0, 1, 2**64 - 1):
        rust, ours = both(x, neurons=5, l1=L1[:1], l2=L2[:1], seed=seed, init_scale=0.0)
        drawn = torch_bootstrap.poisson_weights(torch, torch_bootstrap.neuron_pair_keys(seed, 5), 5, 0, len(y), "cpu")
        wanted = drawn.double().mean(0).numpy() * math.log(2)
        np.testing.assert_allclose(rust.step(x, y, g)[0], wanted, rtol=1e-6)
        np.testing.assert_allclose(ours.step(x, y, g)[0], wanted, rtol=1e-6)


# ---- the same search ----


def test_135_candidates_after_120_iterations_are_the_rust_solvers(device):  # R11 R12 R27 R50
    x, y, g = data(6001, 6)
    rust, ours = both(x, device)
    assert ours.state()["params"].tobytes() == rust.state()["params"].tobytes()
    expected, found = steps(rust, 120, x, y, g), steps(ours, 120, x, y, g)
    wanted, params = rust.state()["params"], ours.state()["params"]
    assert params.shape == (135, 19) and np.abs(wanted).max() > 0.1
    assert relative(params, wanted) <= TOLERANCE
    np.testing.assert_array_equal(np.abs(params) > TOLERANCE, np.abs(wanted) > TOLERANCE)
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
    assert found[2].dtype == np.int64 and np.abs(found[2] - expected[2]).max() <= 1
    assert (ours.iteration, ours.method, ours.converged.any()) == (120, "ista", False)
    assert ours.simd == ("torch-cpu" if device == "cpu" else f"cuda:{torch.cuda.get_device_name()}")


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 1600),
    n_features=st.integers(1, 12),
    neurons=st.integers(1, 6),
    n_l1=st.integers(1, 3),
    n_l2=st.integers(1, 3),
    with_gradient=st.booleans(),
    bootstrap=st.booleans(),
    class_weight=st.sampled_from([(1.0, 1.0), (0.6, 3.0), (0.0, 1.0)]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_shape_is_the_rust_solvers(
    n, n_features, neurons, n_l1, n_l2, with_gradient, bootstrap, class_weight, seed
):  # R11 R12 R27
    x, y, g = data(n, n_features, seed % 1000)
    g = g if with_gradient else None
    rust, ours = both(
        x, gradient=with_gradient, neurons=neurons, l1=L1[-n_l1:], l2=L2[:n_l2], rate=0.01, seed=seed,
        init_scale=0.1, bootstrap=bootstrap, class_weight=class_weight,
    )  # fmt: skip
    expected, found = steps(rust, 4, x, y, g), steps(ours, 4, x, y, g)
    assert relative(ours.state()["params"], rust.state()["params"]) <= 1e-6
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-7)


def test_many_features_and_a_large_offset(device):  # R27
    x, y, g = data(2000, 25)
    x += np.float32(3000)
    rust, ours = both(x, device, rate=0.005, neurons=2)
    steps(rust, 20, x, y, g), steps(ours, 20, x, y, g)
    assert relative(ours.state()["params"], rust.state()["params"]) <= TOLERANCE


def test_diverging_candidates_freeze_as_in_rust(device):  # R12
    x, y, g = data(3000, 3)
    rust, ours = both(x, device, neurons=2, l1=(1e-3, 5.0), l2=(0.0, 40.0), rate=1.5)
    steps(rust, 60, x, y, g), steps(ours, 60, x, y, g)
    state = ours.state()
    assert 0 < state["diverged"].sum() < 8
    np.testing.assert_array_equal(state["diverged"], rust.state()["diverged"])
    assert np.isfinite(state["params"]).all()
    frozen = state["params"][state["diverged"]]
    steps(ours, 3, x, y, g)
    assert ours.state()["params"][state["diverged"]].tobytes() == frozen.tobytes()


# ---- the same bits ----


@pytest.mark.parametrize("method", ["ista", "fista"])
def test_the_same_run_gives_the_same_bits_and_so_does_a_split_one(device, method):  # R27, R37's ground
    x, y, g = data(5000, 4)
    whole = on_torch(x, device, method)
    expected = [steps(whole, 12, x, y, g), whole.state()]
    for split in (0, 1, 7, 12):
        first, second = on_torch(x, device, method), on_torch(x, device, method)
        if split:
            steps(first, split, x, y, g)
        second.set_state(first.state())
        while second.iteration < 12:
            stats = second.step(x, y, g)
        if split < 12:
            assert [s.tobytes() for s in stats] == [s.tobytes() for s in expected[0]]
        assert bits(second.state()) == bits(expected[1])


@pytest.mark.parametrize("method", ["ista", "fista"])
def test_a_state_goes_over_to_the_rust_solver_and_back(device, method):  # R27, R37's ground
    x, y, g = data(3000, 5)
    rust, ours = both(x, device, method=method)
    steps(rust, 40, x, y, g)
    ours.set_state(rust.state())
    steps(ours, 20, x, y, g)
    back, _ = both(x, device, method=method)
    back.set_state(ours.state())
    assert back.state()["params"].tobytes() == ours.state()["params"].tobytes()
    steps(back, 20, x, y, g), steps(rust, 40, x, y, g)
    assert relative(back.state()["params"], rust.state()["params"]) <= TOLERANCE
    assert back.iteration == rust.iteration == 80


def test_weights_drawn_anew_or_kept_give_the_same_bits(device, monkeypatch):  # R12
    x, y, g = data(4000, 3)
    kept, drawn = on_torch(x, device), on_torch(x, device)
    steps(kept, 3, x, y, g)
    monkeypatch.setattr(torch_objective, "WEIGHTS_SHARE", 0.0)
    steps(drawn, 3, x, y, g)
    assert kept._objective._resident.draws is not None and drawn._objective._resident.draws is None
    assert bits(kept.state()) == bits(drawn.state())


def test_a_chunk_is_bounded_whatever_the_number_of_samples(device, monkeypatch):  # R27
    x, y, g = data(9000, 3)
    whole = on_torch(x, device)
    steps(whole, 10, x, y, g)
    monkeypatch.setattr(torch_objective, "CHUNK_BYTES", {"cpu": 1, "cuda": 1})
    cut = on_torch(x, device)
    lengths = []
    original = type(cut._objective)._chunk
    monkeypatch.setattr(
        type(cut._objective),
        "_chunk",
        lambda self, r, first, n, *rest: (lengths.append(n), original(self, r, first, n, *rest))[1],
    )
    steps(cut, 10, x, y, g)
    assert lengths[:18] == [512] * 17 + [9000 - 17 * 512]
    assert relative(cut.state()["params"], whole.state()["params"]) <= 1e-9  # float64 folds in another order


# ---- FISTA and the certificate ----


def slow_fista(rows, y, v, t, l1, l2, rate, n):
    """One candidate, float64; momentum restarts where the move went against the gradient mapping."""
    point = previous = np.append(t, 0.0)
    momentum = 0.0
    for _ in range(n):
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = point + (momentum - 1) / following * (point - previous)
        residual = v * (1 / (1 + np.exp(-(rows @ ahead[:-1] + ahead[-1]))) - y)
        gradient = np.append(rows.T @ residual / len(y) + l2 * ahead[:-1], residual.mean())
        moved = ahead - rate * gradient
        moved[:-1] = np.sign(moved[:-1]) * np.maximum(np.abs(moved[:-1]) - rate * l1, 0)
        restart = np.dot(ahead - moved, moved - point) > 0
        previous, point, momentum = (moved, moved, 0.0) if restart else (point, moved, following)
    return point


def test_fista_is_the_float64_reference(device):  # R27
    x, y, g = data(1200, 3)
    ours = on_torch(x, device, "fista", neurons=2, l1=(1e-3, 1e-2), l2=(1e-3,), init_scale=0.1)
    steps(ours, 80, x, y, g)
    rows, _, _ = reference.design(x, g)
    for candidate, (neuron, l1) in enumerate([(0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2)]):
        v = reference.bootstrap_weights(0, neuron, len(y))
        start = reference.initial_coefficients(0, neuron, rows.shape[1], 0.1)
        wanted = slow_fista(rows, y.astype(float), v, start, l1, 1e-3, 0.08, 80)
        assert relative(ours.state()["params"][candidate], wanted) <= 1e-5
    assert ours.method == "fista"


def test_fista_and_the_certificate_are_the_rust_solvers(device):  # R27
    x, y, g = data(6001, 6)
    rust, ours = both(x, device, method="fista")
    expected, found = steps(rust, 120, x, y, g), steps(ours, 120, x, y, g)
    wanted, state = rust.state(), ours.state()
    assert relative(state["params"], wanted["params"]) <= TOLERANCE
    np.testing.assert_array_equal(np.abs(state["params"]) > TOLERANCE, np.abs(wanted["params"]) > TOLERANCE)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert (state["momentum"] > 1).any() and list(state) == list(wanted)
    rust.set_state(state)  # the same point for both
    for ours_says, rust_says in zip(ours.certify(x, y, g), rust.certify(x, y, g), strict=True):
        np.testing.assert_allclose(ours_says, rust_says, rtol=1e-4, atol=1e-6)


def test_fista_gains_on_ista_and_the_gap_bounds_what_is_left(device):  # R27
    x, y, g = data(3000, 3)
    y[::7] ^= 1  # labels that no hyperplane separates
    options = {"neurons": 2, "l1": (1e-3, 3e-2), "l2": (1e-2, 1e-1)}
    ista, fista, best = (on_torch(x, device, method, **options) for method in ("ista", "fista", "fista"))
    steps(ista, 60, x, y, g), steps(fista, 60, x, y, g), steps(best, 800, x, y, g)
    (slow, slow_gap), (fast, _), (optimum, last_gap) = (solver.certify(x, y, g) for solver in (ista, fista, best))
    assert (fast < slow).all()
    assert (slow_gap >= slow - optimum - 1e-7).all() and (slow - optimum).max() > 1e-4  # a bound, and not of nothing
    assert (last_gap >= 0).all() and (last_gap <= 1e-4 * optimum).all()
    rows, _, _ = reference.design(x, g)
    params = ista.state()["params"]
    v = reference.bootstrap_weights(0, 0, len(y))
    wanted = reference.objective(rows, y.astype(float), v, params[0, :-1], params[0, -1], 1e-3, 1e-2)
    assert slow[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("l1, l2", [(1e-2, 0.0), (0.0, 1e-2), (0.0, 0.0)])
def test_the_gap_is_a_bound_without_a_penalty_too(l1, l2):  # R27
    x, y, g = data(2000, 2)
    y[::5] ^= 1
    early, late = (on_torch(x, "cpu", "fista", neurons=1, l1=(l1,), l2=(l2,)) for _ in range(2))
    steps(early, 10, x, y, g), steps(late, 600, x, y, g)
    (start, gap), (optimum, _) = early.certify(x, y, g), late.certify(x, y, g)
    assert gap[0] >= start[0] - optimum[0] - 1e-7


def test_certifying_one_class_alone_is_no_error():
    x, _, g = data(600, 2)
    y = np.zeros(600, np.uint8)
    solver = on_torch(x)
    steps(solver, 3, x, y, g)
    objective, gap = solver.certify(x, y, g)
    assert (gap >= 0).all() and (gap <= objective * (1 + 1e-12)).all()


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


# ---- helpers ----


def bits(state):
    return {name: value if name == "iteration" else value.tobytes() for name, value in state.items()}
