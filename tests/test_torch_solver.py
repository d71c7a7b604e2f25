"""The search on a torch device against the Rust core: the same draws, the same steps, the same state (R27).

Every test runs on CPU tensors, and on a GPU too where one computes.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_prox as reference
from test_grid_search import L1, L2, data
from torch_cases import (  # noqa: F401 (fixtures are found by name)
    TOLERANCE,
    bits,
    both,
    device_fixture,
    on_torch,
    one_thread_fixture,
    relative,
    steps,
    torch,
)
from vesu.grid_search import torch_bootstrap, torch_objective

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
