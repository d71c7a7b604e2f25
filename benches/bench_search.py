"""One iteration of the search, all 135 candidates, against what a NumPy or torch user would write instead.

200,000 samples by default; `VESU_BENCH_FULL=1` takes 1,000,000. 6 features (P = 18, the history's size) and 25 (P = 75,
today's). The peers get their rows [x, x^2, g, 1] for free, sample every neuron alike and report no loss; ours forms
the rows, the bootstrap weights and the loss in the same pass.
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vesu import _core
from vesu.grid_search import ProxFitModel

N_SAMPLES = 1_000_000 if os.environ.get("VESU_BENCH_FULL") == "1" else 200_000
CHUNK = 8192
NEURONS, L1, L2, RATE = 9, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [1e-4, 1e-3, 1e-2], 0.01
N_CANDIDATES = NEURONS * len(L1) * len(L2)
FEATURES = [6, 25]
ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}


def group(n_features: int) -> Any:
    return pytest.mark.benchmark(group=f"search iteration {N_SAMPLES} x {3 * n_features} x {N_CANDIDATES}")


CASES = [pytest.param(n, marks=group(n), id=f"{3 * n}") for n in FEATURES]


@lru_cache(maxsize=1)
def samples(n_features: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_SAMPLES, n_features), dtype=np.float32)
    g = np.abs(rng.standard_normal((N_SAMPLES, n_features), dtype=np.float32))
    return x, (x[:, 0] + rng.standard_normal(N_SAMPLES) > 0).astype(np.uint8), g


@lru_cache(maxsize=1)
def rows(n_features: int) -> NDArray[np.float32]:
    x, _, g = samples(n_features)
    return np.concatenate([x, x * x, g, np.ones((N_SAMPLES, 1), np.float32)], axis=1)


def penalties() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    l1, l2 = np.meshgrid(np.float32(L1), np.float32(L2), indexing="ij")
    return np.tile(l1.ravel(), NEURONS), np.tile(l2.ravel(), NEURONS)


def prox(weights: Any, gradient: Any, soft: Any) -> Any:
    """The step on (P + 1, C) arrays; the last row, the intercept, has no penalty."""
    l1, l2 = penalties()
    l1, l2 = np.tile(l1, (len(weights), 1)), np.tile(l2, (len(weights), 1))
    l1[-1] = l2[-1] = 0
    return soft(weights - RATE * (gradient + l2 * weights), RATE * l1)


@pytest.mark.parametrize("n_features", CASES)
def test_vesu_fused(benchmark: Any, n_features: int) -> None:
    x, y, g = samples(n_features)
    solver = _core.ProxSolver([0.0] * n_features, [1.0] * n_features, True, NEURONS, L1, L2, RATE, 0, 0.01)
    benchmark.extra_info["isa"] = solver.simd
    benchmark.pedantic(solver.step, (x, y, g), **ROUNDS)
    per_cell = benchmark.stats["median"] / (N_SAMPLES * N_CANDIDATES) * 1e9
    benchmark.extra_info["ns_per_sample_candidate_iteration"] = per_cell


@pytest.mark.parametrize("n_features", CASES)
def test_peer_numpy_f32_batched(benchmark: Any, n_features: int) -> None:
    design, y = rows(n_features), samples(n_features)[1].astype(np.float32)[:, None]
    weights = np.zeros((design.shape[1], N_CANDIDATES), np.float32)

    def iteration() -> Any:
        gradient = np.zeros_like(weights)
        for start in range(0, N_SAMPLES, CHUNK):  # in chunks that stay in the cache: the faster form
            part = design[start : start + CHUNK]
            z = part @ weights
            np.negative(z, out=z)
            np.exp(z, out=z)
            z += 1
            np.reciprocal(z, out=z)
            z -= y[start : start + CHUNK]
            gradient += part.T @ z
        gradient /= N_SAMPLES
        return prox(weights, gradient, lambda v, t: np.sign(v) * np.maximum(np.abs(v) - t, 0))

    benchmark.pedantic(iteration, **ROUNDS)


@pytest.mark.parametrize("n_features", CASES)
def test_peer_numpy_f64_one_at_a_time(benchmark: Any, n_features: int) -> None:
    """As the historical notebook: float64, one candidate after another."""
    design, y = rows(n_features).astype(np.float64), samples(n_features)[1].astype(np.float64)

    def candidate() -> Any:
        t = np.zeros(design.shape[1])
        residual = 1 / (1 + np.exp(-(design @ t))) - y
        return t - RATE * (design.T @ residual / N_SAMPLES)

    def iteration() -> None:
        for _ in range(N_CANDIDATES):
            candidate()

    benchmark.pedantic(iteration, rounds=1, iterations=1)


@pytest.mark.parametrize("n_features", CASES)
def test_peer_torch_batched(benchmark: Any, n_features: int) -> None:
    torch = pytest.importorskip("torch")
    design, y = torch.from_numpy(rows(n_features)), torch.from_numpy(samples(n_features)[1]).float()[:, None]
    weights = torch.zeros((design.shape[1], N_CANDIDATES))

    def iteration() -> Any:
        gradient = torch.zeros_like(weights)
        for start in range(0, N_SAMPLES, CHUNK):
            part = design[start : start + CHUNK]
            gradient += part.T @ (torch.sigmoid(part @ weights) - y[start : start + CHUNK])
        return prox(weights.numpy(), gradient.numpy() / N_SAMPLES, lambda v, t: np.sign(v) * np.maximum(abs(v) - t, 0))

    benchmark.pedantic(iteration, **ROUNDS)


VOLUME = 96


@pytest.mark.benchmark(group=f"predict volume {VOLUME}^3 x 25 channels x 9 members")
def test_vesu_predict_volume(benchmark: Any) -> None:
    benchmark.pedantic(model().predict_volume, (channels(),), **ROUNDS)


@pytest.mark.benchmark(group=f"predict volume {VOLUME}^3 x 25 channels x 9 members")
def test_peer_numpy_predict_volume(benchmark: Any) -> None:
    fitted, values = model(), channels()

    def predict() -> Any:
        slopes = np.stack([np.sqrt(sum(axis**2 for axis in np.gradient(channel))) for channel in values])
        flat, g = values.reshape(25, -1).T, slopes.reshape(25, -1).T
        standard = ((flat - fitted.mean) / fitted.scale).astype(np.float32)
        design = np.concatenate([standard, standard**2, (g / fitted.scale).astype(np.float32)], axis=1)
        p = 1 / (1 + np.exp(-(design @ fitted.coef.T.astype(np.float32) + fitted.intercept.astype(np.float32))))
        return p.mean(axis=1), p.std(axis=1)

    benchmark.pedantic(predict, **ROUNDS)


@lru_cache(maxsize=1)
def channels() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((25, VOLUME, VOLUME, VOLUME), dtype=np.float32)


@lru_cache(maxsize=1)
def model() -> ProxFitModel:
    rng = np.random.default_rng(1)
    return ProxFitModel(
        coef=0.1 * rng.standard_normal((9, 75)),
        intercept=np.zeros(9),
        mean=np.zeros(25),
        scale=np.ones(25),
        feature_names=tuple(f"f{i}" for i in range(25)),
        threshold=0.5,
        uses_gradient=True,
        candidates=tuple(range(9)),
    )
