"""ISTA, FISTA and proximal Newton against float64: optimum, certificate, awkward data."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reference_solvers import duality_gap, fista, optimum
from solver_cases import METHODS, converge, make, problems, run, samples

NOISE = 3e-7
"""Relative noise of a gap that comes from a float32 pass; the loss itself is a little worse."""


def loss_noise(problem):
    """The softplus polynomial is good to 6e-7 bits a sample."""
    return 5e-7 * np.mean(problem.weights) + 1e-7


# ---- proximal Newton -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(20, 400),
    n_features=st.integers(1, 5),
    neurons=st.integers(1, 3),
    with_gradient=st.booleans(),
    bootstrap=st.booleans(),
    class_weight=st.sampled_from([(1.0, 1.0), (0.6, 2.5)]),
    seed=st.integers(0, 2**32),
)
@example(n=20, n_features=1, neurons=1, with_gradient=False, bootstrap=True, class_weight=(1.0, 1.0), seed=0)
def test_prox_newton_reaches_the_optimum(n, n_features, neurons, with_gradient, bootstrap, class_weight, seed):
    # R11 R12
    x, y, g = samples(n, n_features, seed)
    data = x, y, g if with_gradient else None
    options = {"neurons": neurons, "seed": seed, "class_weight": class_weight, "bootstrap": bootstrap}
    reference = problems(data, **options)
    # A replicate of one class alone has no minimum.
    assume(all(p.weights[p.y == c].sum() > 0 for p in reference for c in (0, 1)))
    solver = converge(make(data, "prox_newton", **options), data)
    assert solver.converged.all()
    objective, gap = solver.certify(*data)
    assert (gap <= (1e-6 + NOISE) * objective).all()
    params = solver.state()["params"]
    for candidate in {0, len(reference) // 2, len(reference) - 1}:
        problem, found = reference[candidate], params[candidate]
        best = optimum(problem)
        assert problem.objective(found) - problem.objective(best) <= 1e-6 * problem.objective(best)
        assert abs(objective[candidate] - problem.objective(found)) <= loss_noise(problem)
        # l2 / 2 |t - t*|^2 is no larger than the gap
        distance = ((found[:-1] - best[:-1]) ** 2).sum()
        assert 0.5 * problem.l2 * distance <= gap[candidate] + NOISE * objective[candidate]


def test_many_samples_are_certified_in_few_passes():
    # more samples than a Hessian's subsample, more columns than a register tile
    data = samples(130_000, 25, 3)
    solver = converge(make(data, "prox_newton", neurons=2, l1=[3e-4, 3e-3], l2=[1e-4, 1e-2]), data, 12)
    assert solver.converged.all()
    objective, gap = solver.certify(*data)
    assert (gap <= 1e-6 * objective).all()
    other = make(data, "prox_newton", neurons=2, l1=[3e-3, 3e-4], l2=[1e-4, 1e-2])
    start = run(other, data, 1)[0].reshape(2, 2, 2)[:, ::-1].ravel()
    assert (start - objective <= 1e-2 * objective).all()  # the path over the subsample gives the start, in any order
    converge(other, data, 12)
    found = other.certify(*data)[0].reshape(2, 2, 2)[:, ::-1].ravel()
    np.testing.assert_allclose(found, objective, rtol=1e-6)


def test_heavy_tails_make_the_hessian_take_more_samples():
    # as in real CT: the curvature of some directions comes from a few samples that a subsample misses
    x, y, g = samples(100_000, 4, 5)
    data = np.sinh(0.45 * (x - 5)).astype(np.float32), y, np.exp(1.5 * g).astype(np.float32)
    solver = make(data, "prox_newton", neurons=1, l1=[1e-4], l2=[1e-4, 1e-3])
    taken = [0.0]
    for _ in range(25):
        run(solver, data, 1)
        taken.append(solver.state()["doublings"].max())
    assert solver.converged.all() and max(taken) > 0
    objective, gap = solver.certify(*data)
    assert (gap <= 1e-6 * objective).all()


def test_the_first_step_solves_small_data_along_the_path():
    data = samples(3000, 4)
    solver = make(data, "prox_newton")
    loss, norm, _ = run(solver, data, 1)
    assert solver.converged.all() and norm.max() < 1e-5
    # a frozen candidate stays: later steps see the same point
    again, _, _ = run(solver, data, 1)
    assert again.tobytes() == loss.tobytes()


@pytest.mark.parametrize("case", ["duplicated", "constant", "rare", "one feature"])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_awkward_columns_end_well(case, l2):
    x, y, g = samples(2000, 3)
    if case == "duplicated":
        x[:, 1], g[:, 1] = x[:, 0], g[:, 0]
    elif case == "constant":
        x[:, 1], g[:, 1] = 4.5, 0
    elif case == "rare":
        x[:, 1], g[:, 1] = 0, 0
        x[77, 1] = g[77, 1] = 1
    else:
        x, g = x[:, :1].copy(), None
    data = x, y, g
    options = {"neurons": 1, "l1": [1e-3, 1e-2], "l2": [l2], "bootstrap": False}
    solver = converge(make(data, "prox_newton", **options), data)
    assert solver.converged.all()
    for problem, found in zip(problems(data, **options), solver.state()["params"], strict=True):
        best = problem.objective(optimum(problem))
        assert problem.objective(found) - best <= 2e-6 * best


@pytest.mark.parametrize("n", [2, 3, 59, 121])
@pytest.mark.parametrize("penalty", [(0.0, 0.0), (0.0, 1e-3), (1e-3, 0.0), (1e-3, 1e-3), (1.0, 1.0)])
def test_tiny_data_never_hang_nor_give_nan(n, penalty):
    data = samples(n, 2)
    solver = make(data, "prox_newton", l1=[penalty[0]], l2=[penalty[1]])
    converge(solver, data, 30)
    objective, gap = solver.certify(*data)
    assert np.isfinite(solver.state()["params"]).all() and np.isfinite(objective).all()
    assert (gap >= 0).all() and (gap <= objective * (1 + NOISE)).all()
    if penalty[1] > 0:
        assert (gap <= 1e-6 * objective)[solver.converged].all()


def test_separable_classes_without_penalty_are_called_stationary_only():
    x, y, g = samples(500, 2)
    y = (x[:, 0] > 5).astype(np.uint8)
    solver = converge(make((x, y, g), "prox_newton", l1=[0.0], l2=[0.0]), (x, y, g))
    loss, _, _ = run(solver, (x, y, g), 1)
    objective, gap = solver.certify(x, y, g)
    assert np.isfinite(solver.state()["params"]).all() and (loss < 1e-3).all()
    # no finite dual bound: the objective itself is all that can be said
    np.testing.assert_allclose(gap, objective, rtol=1e-6)
    # with a penalty the same data have an optimum, and it is certified
    assert converge(make((x, y, g), "prox_newton"), (x, y, g)).converged.all()


def test_a_replicate_of_one_class_is_not_called_converged():
    x, y, g = samples(300, 2)
    y[:] = 1
    solver = converge(make((x, y, g), "prox_newton"), (x, y, g), 20)
    assert not solver.converged.any()
    assert np.isfinite(solver.state()["params"]).all()


# ---- certificate -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    n=st.integers(10, 300),
    n_features=st.integers(1, 4),
    iterations=st.integers(0, 60),
    l2=st.sampled_from([0.0, 1e-3, 1e-1]),
    class_weight=st.sampled_from([(1.0, 1.0), (0.6, 2.5)]),
    seed=st.integers(0, 2**32),
)
def test_the_gap_bounds_the_suboptimality(method, n, n_features, iterations, l2, class_weight, seed):
    data = samples(n, n_features, seed)
    options = {"neurons": 2, "l2": [l2], "seed": seed, "class_weight": class_weight}
    solver = make(data, method, **options)
    if iterations:
        run(solver, data, iterations)
    objective, gap = solver.certify(*data)
    params = solver.state()["params"]
    for candidate, problem in enumerate(problems(data, **options)):
        noise = loss_noise(problem)
        assert abs(problem.objective(params[candidate]) - objective[candidate]) <= noise
        # ours bounds the entropies by class sums: never below the exact gap of the same dual point
        exact = duality_gap(problem, params[candidate])
        slack = (
            3 * noise if l2 > 0 else 1e-3 * objective[candidate]
        )  # at l2 = 0 noise of the gradient counts 1 / l1 times
        assert gap[candidate] >= exact - slack - 1e-3 * exact  # the reference's own s is a grid point
        assert exact >= problem.objective(params[candidate]) - problem.objective(optimum(problem)) - 1e-9
        assert gap[candidate] <= objective[candidate] + noise


def test_the_gap_falls_with_the_iterations():
    data = samples(4000, 3)
    solver = make(data, "fista", l1=[1e-2], l2=[1e-2])
    gaps = []
    for _ in range(5):
        run(solver, data, 60)
        gaps.append(solver.certify(*data)[1].max())
    assert gaps[-1] < 1e-3 * gaps[0] and not solver.converged.any()


# ---- FISTA -----------------------------------------------------------------------------------------------------------


def test_fista_matches_the_reference_and_beats_ista():
    # R12
    data = samples(1500, 4)
    start = make(data, "fista").state()["params"]
    solvers = {method: make(data, method) for method in ("ista", "fista")}
    rate = solvers["fista"].state()["learning_rate"][0]
    for solver in solvers.values():
        run(solver, data, 300)
    found = solvers["fista"].state()["params"]
    restarts = 0
    for candidate, problem in enumerate(problems(data)):
        expected, count = fista(problem, start[candidate], rate, 300)
        assert abs(problem.objective(found[candidate]) - problem.objective(expected)) <= 1e-8
        restarts += count
    assert restarts > 0
    objectives = {method: solver.certify(*data)[0] for method, solver in solvers.items()}
    assert (objectives["fista"] < objectives["ista"]).all()


def test_fista_restarts_candidate_by_candidate():
    data = samples(1500, 4)
    solver = make(data, "fista")
    at_rest = []
    for _ in range(300):
        run(solver, data, 1)
        at_rest.append(solver.state()["momentum"] == 0)
    at_rest = np.array(at_rest)
    assert not at_rest[0].any()
    assert at_rest.any(axis=1).sum() > at_rest.all(axis=1).sum()  # not all at once
