"""One iteration of the whole default grid against what a user would write instead, and the kernel against itself.

All solve the bootstrap-weighted problem: the peers get the weights ready made and compute the gradient and the step
alone, vesu draws its weights anew and also computes the objective. VESU_BENCH_SAMPLES shrinks a trial run.
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search import ProxFitModel

N_SAMPLES = int(os.environ.get("VESU_BENCH_SAMPLES", 1_000_000))
CHUNK = 8192
NEURONS, L1, L2, RATE = 9, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [1e-4, 1e-3, 1e-2], 0.01
PER_NEURON = len(L1) * len(L2)
N_CANDIDATES = NEURONS * PER_NEURON
FEATURES = [6, 16, 32]
ROUNDS = {"rounds": 5, "iterations": 1, "warmup_rounds": 1}

Arrays = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]


def size(n_features: int) -> int:
    """Fewer samples where rows are wide: the peers' design matrix must fit the memory."""
    return N_SAMPLES if n_features == 6 else N_SAMPLES // 4


def group(n_features: int) -> Any:
    return pytest.mark.benchmark(group=f"search iteration {size(n_features)} x {3 * n_features} x {N_CANDIDATES}")


CASES = [pytest.param(n, marks=group(n), id=f"{3 * n}") for n in FEATURES]


@lru_cache(maxsize=2)
def samples(n_features: int, n: int | None = None) -> Arrays:
    rng = np.random.default_rng(0)
    n = size(n_features) if n is None else n
    x = rng.standard_normal((n, n_features), dtype=np.float32)
    g = np.abs(rng.standard_normal((n, n_features), dtype=np.float32))
    return x, (x[:, 0] + rng.standard_normal(n) > 0).astype(np.uint8), g


@lru_cache(maxsize=1)
def rows(n_features: int) -> NDArray[np.float32]:
    x, _, g = samples(n_features)
    return np.concatenate([x, x * x, g, np.ones((len(x), 1), np.float32)], axis=1)


@lru_cache(maxsize=1)
def bootstrap_weights(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).poisson(1.0, (n, NEURONS)).astype(np.float32)


def penalties() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    l1, l2 = np.meshgrid(np.float32(L1), np.float32(L2), indexing="ij")
    return np.tile(l1.ravel(), NEURONS), np.tile(l2.ravel(), NEURONS)


def prox(weights: Any, gradient: Any) -> Any:
    """The step on (P + 1, C) arrays; the last row, the intercept, has no penalty."""
    l1, l2 = penalties()
    l1, l2 = np.tile(l1, (len(weights), 1)), np.tile(l2, (len(weights), 1))
    l1[-1] = l2[-1] = 0
    stepped = weights - RATE * (gradient + l2 * weights)
    return np.sign(stepped) * np.maximum(np.abs(stepped) - RATE * l1, 0)


def solver(n_features: int, simd: str | None = None, neurons: int = NEURONS) -> _core.ProxSolver:
    standard = [0.0] * n_features, [1.0] * n_features
    return _core.ProxSolver(*standard, True, neurons, L1, L2, RATE, 0, 0.01, simd=simd)


def paths() -> list[str]:
    def supported(name: str) -> bool:
        try:
            return _core.simd_path(name) == name
        except ArgumentError:
            return False

    return [name for name in ("scalar", "neon", "avx2", "avx512") if supported(name)]


def record(benchmark: Any, n: int, n_candidates: int, isa: str) -> None:
    per_cell = benchmark.stats["median"] / (n * n_candidates) * 1e9
    benchmark.extra_info.update(isa=isa, ns_per_sample_candidate_iteration=per_cell)


@pytest.mark.parametrize("simd", paths())
@pytest.mark.parametrize("n_features", CASES)
def test_vesu_fused(benchmark: Any, n_features: int, simd: str) -> None:
    this = solver(n_features, simd)
    benchmark.pedantic(this.step, samples(n_features), **ROUNDS)
    record(benchmark, size(n_features), N_CANDIDATES, this.simd)


@pytest.mark.parametrize("n_features", CASES)
def test_peer_numpy_f32_batched(benchmark: Any, n_features: int) -> None:
    """Matrix products in chunks that stay in the cache: the faster form."""
    design, y = rows(n_features), samples(n_features)[1].astype(np.float32)[:, None]
    v = bootstrap_weights(len(y))[:, :, None]
    weights = np.zeros((design.shape[1], N_CANDIDATES), np.float32)

    def iteration() -> Any:
        gradient = np.zeros_like(weights)
        for start in range(0, len(y), CHUNK):
            chunk = slice(start, start + CHUNK)
            z = design[chunk] @ weights
            np.negative(z, out=z)
            np.exp(z, out=z)
            z += 1
            np.reciprocal(z, out=z)
            z -= y[chunk]
            weighted = z.reshape(len(z), NEURONS, PER_NEURON)
            weighted *= v[chunk]
            gradient += design[chunk].T @ z
        return prox(weights, gradient / len(y))

    benchmark.pedantic(iteration, **ROUNDS)


@pytest.mark.parametrize("n_features", CASES)
def test_peer_torch_batched(benchmark: Any, n_features: int) -> None:
    torch = pytest.importorskip("torch")
    design, y = torch.from_numpy(rows(n_features)), torch.from_numpy(samples(n_features)[1]).float()[:, None]
    v = torch.from_numpy(bootstrap_weights(len(y)))[:, :, None]
    weights = torch.zeros((design.shape[1], N_CANDIDATES))

    def iteration() -> Any:
        gradient = torch.zeros_like(weights)
        for start in range(0, len(y), CHUNK):
            chunk = slice(start, start + CHUNK)
            residual = torch.sigmoid_(design[chunk] @ weights).sub_(y[chunk])
            residual.view(len(residual), NEURONS, PER_NEURON).mul_(v[chunk])
            gradient += design[chunk].T @ residual
        return prox(weights.numpy(), gradient.numpy() / len(y))

    benchmark.pedantic(iteration, **ROUNDS)


@pytest.mark.parametrize("objective", [False, True], ids=["gradient", "gradient_and_objective"])
@pytest.mark.parametrize("n_features", CASES[:1])
def test_peer_numpy_one_candidate_at_a_time(benchmark: Any, n_features: int, objective: bool) -> None:
    """As the historical notebook: float64, x^2 formed anew, one candidate after another; with the loss for its log."""
    x, y, g = (array.astype(np.float64) for array in samples(n_features))
    v = bootstrap_weights(len(y)).astype(np.float64)

    def candidate(neuron: int) -> Any:
        w, alpha, beta = np.zeros((3, n_features))
        z = x @ w + (x**2) @ alpha + g @ beta + 0.0
        p = 1 / (1 + np.exp(-z))
        residual = v[:, neuron] * (p - y) / len(y)
        loss = -np.mean(v[:, neuron] * (y * np.log(p) + (1 - y) * np.log(1 - p))) if objective else None
        return loss, x.T @ residual, (x**2).T @ residual, g.T @ residual, residual.sum()

    def iteration() -> None:
        for index in range(N_CANDIDATES):
            candidate(index // PER_NEURON)

    benchmark.pedantic(iteration, rounds=1, iterations=1)


def threads(benchmark: Any, n: int) -> None:
    this = solver(6)
    benchmark.pedantic(this.step, (*samples(6), n), **ROUNDS)


@pytest.mark.benchmark(group=f"search scaling: two threads against one, {N_SAMPLES} x 18 x {N_CANDIDATES}")
def test_vesu_two_threads(benchmark: Any) -> None:
    threads(benchmark, 2)


@pytest.mark.benchmark(group=f"search scaling: two threads against one, {N_SAMPLES} x 18 x {N_CANDIDATES}")
def test_peer_one_thread(benchmark: Any) -> None:
    threads(benchmark, 1)


FLAT = "search scaling: 1,995 candidates against 135, as many samples x candidates"


def cells(benchmark: Any, neurons: int) -> None:
    """As many samples x candidates whatever the number of neurons: a ratio of 1 is a flat cost per candidate."""
    x, y, g = samples(6)
    n = len(x) * NEURONS // (2 * neurons)
    this = solver(6, neurons=neurons)
    benchmark.pedantic(this.step, (x[:n], y[:n], g[:n]), **ROUNDS)
    record(benchmark, n, neurons * PER_NEURON, this.simd)


@pytest.mark.benchmark(group=FLAT)
def test_vesu_1995_candidates(benchmark: Any) -> None:
    cells(benchmark, 133)


@pytest.mark.benchmark(group=FLAT)
def test_peer_135_candidates(benchmark: Any) -> None:
    cells(benchmark, NEURONS)


LINEAR = "search scaling: one pass over 25 N samples against 25 passes over N"


@pytest.mark.benchmark(group=LINEAR)
def test_vesu_one_long_pass(benchmark: Any) -> None:
    arrays = samples(6, 25 * N_SAMPLES)
    this = solver(6)
    benchmark.pedantic(this.step, arrays, rounds=2, iterations=1, warmup_rounds=1)
    record(benchmark, 25 * N_SAMPLES, N_CANDIDATES, this.simd)
    samples.cache_clear()


@pytest.mark.benchmark(group=LINEAR)
def test_peer_short_passes(benchmark: Any) -> None:
    arrays, this = samples(6), solver(6)
    benchmark.pedantic(lambda: [this.step(*arrays) for _ in range(25)], rounds=2, iterations=1, warmup_rounds=1)
    record(benchmark, 25 * N_SAMPLES, N_CANDIDATES, this.simd)


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
