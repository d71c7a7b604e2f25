"""All 135 bootstrap-weighted problems of the default grid to the optimum, against glum, skglm and scikit-learn's saga.

Ours solves the whole grid until every candidate is certified to a relative duality gap of 1e-6. A peer solves
PROBLEMS of the 135, spread over neurons, l1 and l2, one after another, with as many threads as it takes by itself.
Its clock runs 135 / len(PROBLEMS) times faster, so that the table shows seconds a grid. Tolerances are the loosest,
by powers of ten, with which a peer's worst suboptimality was at most 1e-6 of the objective; `extra_info` holds what
it reached, judged in float64.

Peers get standardised rows [x, x^2, g] for free and without the samples whose bootstrap weight is zero. skglm takes no
weights: it gets each sample as often as its weight says. 200,000 samples by default; `VESU_BENCH_FULL=1` takes
1,000,000, `VESU_BENCH_SAMPLES` any number.
"""

import os
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vesu import _core

FULL = 1_000_000 if os.environ.get("VESU_BENCH_FULL") == "1" else 200_000
N_SAMPLES = int(os.environ.get("VESU_BENCH_SAMPLES", FULL))
N_FEATURES, SEED = 6, 0
NEURONS, L1, L2 = 9, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [1e-4, 1e-3, 1e-2]
N_CANDIDATES = NEURONS * len(L1) * len(L2)
PROBLEMS = [(0, 1e-4, 1e-4), (2, 3e-4, 1e-2), (4, 1e-3, 1e-3), (6, 3e-3, 1e-4), (8, 1e-2, 1e-2)]
MAX_ITER = 100

GROUP = f"135 problems to the optimum {N_SAMPLES} x {3 * N_FEATURES}"
ROUNDS = {"rounds": 1, "iterations": 1, "warmup_rounds": 0}

Fit = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float, float], NDArray[np.float64]]
"""Rows, labels, weights, l1 and l2 to (coefficients, intercept)."""


def grid_clock() -> float:
    """Seconds that the whole grid would have taken, for a timer around PROBLEMS."""
    return time.perf_counter() * N_CANDIDATES / len(PROBLEMS)


@lru_cache(maxsize=1)
def samples() -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Correlated features; labels from x, x^2 and g with logistic noise."""
    rng = np.random.default_rng(0)
    mix = np.eye(N_FEATURES) + 0.3 * rng.standard_normal((N_FEATURES, N_FEATURES))
    x = (rng.standard_normal((N_SAMPLES, N_FEATURES)) @ mix).astype(np.float32)
    g = np.abs(rng.standard_normal((N_SAMPLES, N_FEATURES), dtype=np.float32))
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    z = 2 * standard[:, 0] - standard[:, -1] ** 2 + 0.8 * g[:, 0] + rng.logistic(size=N_SAMPLES)
    return x, (z > 0).astype(np.uint8), g


def solver(method: str, largest_rate: float = 0.08) -> _core.ProxSolver:
    """The learning rate is that of "auto", or 1 / (L + l2) for an infinite `largest_rate`."""
    x, y, g = samples()
    mean, scale = (values.tolist() for values in _core.prox_standardise(x))
    rate = min(largest_rate, 1 / (_core.prox_lipschitz(x, y, g, mean, scale) + max(L2)))
    return _core.ProxSolver(mean, scale, True, NEURONS, L1, L2, rate, SEED, 0.01, method=method)


def solve(search: _core.ProxSolver) -> None:
    while not search.converged.all() and search.iteration < MAX_ITER:
        search.step(*samples())


@lru_cache(maxsize=1)
def optimum() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(params, objective) of all candidates, certified."""
    search = solver("prox_newton")
    solve(search)
    assert search.converged.all()
    return search.state()["params"], search.certify(*samples())[0]


@lru_cache(maxsize=1)
def rows() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y, g = samples()
    mean, scale = _core.prox_standardise(x)
    standard = (x - mean) / scale
    return np.concatenate([standard, standard**2, g / scale], axis=1), y.astype(np.float64)


def bootstrap_weights(neuron: int) -> NDArray[np.float64]:
    """Poisson(1) of (seed, neuron, sample), as the core draws them: SplitMix64 read at a position."""

    def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    gamma = np.uint64(0x9E3779B97F4A7C15)
    seed, pair = np.array([SEED], np.uint64), np.array([neuron // 2 + 1], np.uint64)
    key = mix(mix(seed ^ gamma) ^ mix(pair))
    draws = mix(key + (np.arange(N_SAMPLES, dtype=np.uint64) + np.uint64(1)) * gamma)
    half = (draws >> np.uint64(32 * (neuron % 2))) & np.uint64(0xFFFFFFFF)
    mass = np.exp(-1) / np.cumprod([1, *range(1, 21)])
    tails = [round(mass[k + 1 :][::-1].sum() * 2**32) for k in range(13)]
    return np.sum([half < tail for tail in tails], axis=0).astype(np.float64)


def objective(weights: NDArray[np.float64], l1: float, l2: float, params: NDArray[np.float64]) -> float:
    design, y = rows()
    z = design @ params[:-1] + params[-1]
    loss = np.mean(weights * (np.logaddexp(0, z) - y * z))
    return float(loss + l1 * np.abs(params[:-1]).sum() + 0.5 * l2 * (params[:-1] ** 2).sum())


def candidate(neuron: int, l1: float, l2: float) -> int:
    return (neuron * len(L1) + L1.index(l1)) * len(L2) + L2.index(l2)


def solve_with_a_peer(benchmark: Any, fit: Fit, tolerance: float, *, repeats: bool = False) -> None:
    """Time PROBLEMS one after another; preparation of the weights and rows is free."""
    prepared = []
    for neuron, l1, l2 in PROBLEMS:
        weights = bootstrap_weights(neuron)
        design, y = rows()
        kept = np.repeat(np.arange(N_SAMPLES), weights.astype(int)) if repeats else np.flatnonzero(weights)
        prepared.append((design[kept], y[kept], weights[kept], l1, l2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer that stops early shows in the suboptimality
        fit(*(part[:2000] for part in prepared[0][:3]), 1e-3, 1e-3)  # compile
        found = benchmark.pedantic(lambda: [fit(*problem) for problem in prepared], **ROUNDS)
    above = []
    for (neuron, l1, l2), params in zip(PROBLEMS, found, strict=True):
        weights = bootstrap_weights(neuron)
        best = objective(weights, l1, l2, optimum()[0][candidate(neuron, l1, l2)])
        above.append((objective(weights, l1, l2, params) - best) / best)
    benchmark.extra_info.update(
        problems_timed=len(PROBLEMS),
        seconds_scaled_by=N_CANDIDATES / len(PROBLEMS),
        tolerance=tolerance,
        relative_suboptimality=[float(f"{value:.2g}") for value in above],
    )


def scaled(weights: NDArray[np.float64], l1: float, l2: float) -> tuple[float, float]:
    """(alpha, l1 ratio) of a loss that is divided by the sum of the weights instead of the number of samples."""
    return (l1 + l2) * N_SAMPLES / weights.sum(), l1 / (l1 + l2)


def measure_120_steps(benchmark: Any, search: _core.ProxSolver, best: NDArray[np.float64]) -> None:
    """For the documents: how far 120 steps come, not timed."""
    rate = search.state()["learning_rate"][0]
    for _ in range(120):
        search.step(*samples())
    reached, gap = search.certify(*samples())
    for name, values in (("above_optimum", reached - best), ("certified_gap", gap)):
        low, middle, high = (float(f"{value:.2g}") for value in np.quantile(values, [0, 0.5, 1]))
        benchmark.extra_info[f"{search.method}_120_at_{rate:.3f}_{name}"] = [low, middle, high]


@pytest.mark.benchmark(group=GROUP)
def test_vesu_prox_newton(benchmark: Any) -> None:
    search = solver("prox_newton")
    benchmark.pedantic(solve, (search,), **ROUNDS)
    assert search.converged.all()
    value, gap = search.certify(*samples())
    benchmark.extra_info.update(isa=search.simd, iterations=search.iteration, relative_gap=float((gap / value).max()))
    for method in ("ista", "fista"):
        for largest_rate in (0.08, np.inf):
            measure_120_steps(benchmark, solver(method, largest_rate), value)


@pytest.mark.benchmark(group=GROUP, timer=grid_clock)
def test_peer_glum(benchmark: Any) -> None:
    glum = pytest.importorskip("glum")
    tolerance = 1e-3

    def fit(design: Any, y: Any, weights: Any, l1: float, l2: float) -> Any:
        alpha, l1_ratio = scaled(weights, l1, l2)
        model = glum.GeneralizedLinearRegressor(
            family="binomial", alpha=alpha, l1_ratio=l1_ratio, gradient_tol=tolerance, max_iter=1000
        ).fit(design, y, sample_weight=weights)
        return np.append(model.coef_, model.intercept_)

    solve_with_a_peer(benchmark, fit, tolerance)


@pytest.mark.benchmark(group=GROUP, timer=grid_clock)
def test_peer_skglm(benchmark: Any) -> None:
    skglm = pytest.importorskip("skglm")
    from skglm.datafits import Logistic
    from skglm.penalties import L1_plus_L2
    from skglm.solvers import ProxNewton

    tolerance = 1e-4

    def fit(design: Any, y: Any, weights: Any, l1: float, l2: float) -> Any:
        alpha, l1_ratio = scaled(np.ones(len(y)), l1, l2)
        model = skglm.GeneralizedLinearEstimator(
            Logistic(), L1_plus_L2(alpha, l1_ratio), ProxNewton(tol=tolerance, max_iter=100, fit_intercept=True)
        ).fit(np.asfortranarray(design), 2 * y - 1)
        return np.append(model.coef_.ravel(), model.intercept_)

    solve_with_a_peer(benchmark, fit, tolerance, repeats=True)


@pytest.mark.benchmark(group=GROUP, timer=grid_clock)
def test_peer_sklearn_saga(benchmark: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    tolerance = 1e-3

    def fit(design: Any, y: Any, weights: Any, l1: float, l2: float) -> Any:
        model = linear_model.LogisticRegression(
            solver="saga",
            C=1 / (N_SAMPLES * (l1 + l2)),
            l1_ratio=l1 / (l1 + l2),
            tol=tolerance,
            max_iter=1000,
            random_state=0,
        ).fit(design, y, sample_weight=weights)
        return np.append(model.coef_.ravel(), model.intercept_)

    solve_with_a_peer(benchmark, fit, tolerance)
