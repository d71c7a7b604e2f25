"""Data, solvers and their reference problems, shared by the solver tests."""

import numpy as np

import reference_prox
from reference_solvers import Problem
from vesu import _core

METHODS = ("ista", "fista", "prox_newton")
L1, L2 = [1e-4, 1e-3, 1e-2], [1e-3, 1e-2]


def samples(n, n_features, seed=0, *, noise=1.0):
    """Correlated features and labels that depend on x, x^2 and g."""
    rng = np.random.default_rng(seed)
    mix = np.eye(n_features) + 0.3 * rng.standard_normal((n_features, n_features))
    x = (5 + 3 * rng.standard_normal((n, n_features)) @ mix).astype(np.float32)
    g = np.abs(rng.standard_normal((n, n_features))).astype(np.float32)
    z = (x[:, 0] - 5) / 2 - ((x[:, -1] - 5) / 4) ** 2 + 0.8 * g[:, 0] + noise * rng.logistic(size=n)
    y = (z > 0).astype(np.uint8)
    y[:2] = 0, 1
    return x, y, g


def make(data, method, *, neurons=2, l1=L1, l2=L2, rate=None, seed=7, class_weight=(1.0, 1.0), **options):
    x, y, g = data
    mean, scale = _core.prox_standardise(x)
    if rate is None:
        rate = 0.5 / (_core.prox_lipschitz(x, y, g, mean.tolist(), scale.tolist(), class_weight) + max(l2))
    options = {"class_weight": class_weight, "method": method, **options}
    return _core.ProxSolver(mean.tolist(), scale.tolist(), g is not None, neurons, l1, l2, rate, seed, 0.01, **options)


def problems(data, *, neurons=2, l1=L1, l2=L2, seed=7, class_weight=(1.0, 1.0), bootstrap=True):
    """Every candidate of the same grid for the reference, neuron-major."""
    x, y, g = data
    rows, _, _ = reference_prox.design(x, g)
    found = []
    for neuron in range(neurons):
        v = reference_prox.bootstrap_weights(seed, neuron, len(y)) if bootstrap else np.ones(len(y))
        weights = v * np.where(y == 1, class_weight[1], class_weight[0])
        found += [Problem(rows, y.astype(np.float64), weights, a, b) for a in l1 for b in l2]
    return found


def run(solver, data, n, threads=None):
    x, y, g = data
    for _ in range(n):
        stats = solver.step(x, y, g, threads)
    return stats


def converge(solver, data, n=60):
    for _ in range(n):
        run(solver, data, 1)
        if solver.converged.all():
            break
    return solver


def bits(state):
    """A state that can be compared: NaN equals NaN."""
    return {name: value if isinstance(value, int) else value.tobytes() for name, value in state.items()}
