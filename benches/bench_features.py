"""All 27 channels against SciPy and scikit-image, on the same two cores.

``VESU_BENCH_FULL=1`` adds a 320^3 volume: some minutes for the peer, and about 10 GB of memory.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import hessian_matrix_eigvals, structure_tensor_eigenvalues

from vesu.features import FeatureSpec, FeatureVolume, extract_features, gather

Array = NDArray[np.float32]
SCALES = FeatureSpec().scales
THREADS = 2
SIZES = [128, 320] if os.environ.get("VESU_BENCH_FULL") == "1" else [128]
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]  # scikit-image's order


def smooth(volume: Array, sigma: float) -> Array:
    return ndimage.gaussian_filter(volume, sigma, mode="nearest", truncate=4.0)


def difference(volume: Array, axis: int) -> Array:
    return ndimage.correlate1d(volume, [-0.5, 0, 0.5], axis, mode="nearest")


def second_difference(volume: Array, axis: int) -> Array:
    return ndimage.correlate1d(volume, [1, -2, 1], axis, mode="nearest")


def hessian_channels(level: Array) -> dict[str, Array]:
    elements = [second_difference(level, a) if a == b else difference(difference(level, a), b) for a, b in PAIRS]
    high, middle, low = hessian_matrix_eigvals(elements)
    bright = -low > high
    first, other = np.where(bright, -low, high), np.where(bright, high, low)
    excess = np.abs(first) - np.maximum(np.abs(middle), np.abs(other))
    return {
        "laplacian": elements[0] + elements[3] + elements[5],
        "hessian": low,
        "sheetness": np.where(bright, excess, -excess),
    }


def gradient_channels(level: Array, sigma: float) -> dict[str, Array]:
    gradient = [difference(level, axis) for axis in range(3)]
    high, middle, low = structure_tensor_eigenvalues([smooth(gradient[a] * gradient[b], sigma) for a, b in PAIRS])
    return {
        "gradient": np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2),
        "z_contrast": np.abs(gradient[0]),
        "planarity": (high - middle) / (high + middle + low + 1e-6),
    }


def peer_features(volume: NDArray[np.uint8]) -> dict[str, Array]:
    """The same channels as a SciPy user writes them, smoothed volumes shared, tasks spread over two threads."""
    u = ((volume - volume.mean()) / volume.std()).astype(np.float32)
    found: dict[str, Array] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        levels = list(pool.map(lambda sigma: smooth(u, sigma), SCALES))
        squares = list(pool.map(lambda sigma: smooth(u * u, sigma), SCALES))
        tensors = pool.map(gradient_channels, levels, SCALES)
        hessians = pool.map(hessian_channels, levels)
        for sigma, channels in zip(SCALES * 2, [*tensors, *hessians], strict=True):
            found |= {f"{family}_s{sigma:g}": values for family, values in channels.items()}
    for sigma, finer, level, square in zip(SCALES, [u, *levels], levels, squares, strict=False):
        found[f"intensity_s{sigma:g}"] = level
        found[f"bandpass_s{sigma:g}"] = finer - level
        found[f"variance_s{sigma:g}"] = np.maximum(square - level**2, 0)
    return found


def scan(size: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size, size)).astype(np.float32), 1.0)
    sheets = np.sin(np.arange(size, dtype=np.float32) / 2)[None, :, None]
    return np.asarray(np.clip(110 + 40 * sheets + 150 * noise, 0, 255), np.uint8)


def features_case(size: int) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=f"features {size}^3")


def rounds(size: int) -> int:
    return 2 if size <= 128 else 1


@pytest.mark.parametrize("size", [pytest.param(size, marks=features_case(size)) for size in SIZES])
def test_features_vesu(benchmark: Callable[..., object], size: int) -> None:
    volume = scan(size)
    benchmark.pedantic(extract_features, (volume,), {"n_threads": THREADS}, rounds=rounds(size), warmup_rounds=1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [pytest.param(size, marks=features_case(size)) for size in SIZES])
def test_features_peer_scipy_skimage(benchmark: Callable[..., object], size: int) -> None:
    volume = scan(size)
    found = benchmark.pedantic(peer_features, (volume,), rounds=rounds(size))  # type: ignore[attr-defined]
    if size == 128:  # the peer does the same work
        ours = extract_features(volume)
        for name, values in zip(ours.names, ours.values, strict=True):
            np.testing.assert_allclose(values, found[name], rtol=0, atol=5e-3, err_msg=name)


def gather_input() -> tuple[FeatureVolume, NDArray[np.int64]]:
    features = extract_features(scan(128))
    index = np.random.default_rng(1).choice(128**3, 40_000, replace=False)
    return features, np.sort(index)


@pytest.mark.benchmark(group="gather 40000 of 128^3")
def test_gather_vesu(benchmark: Callable[..., object]) -> None:
    features, index = gather_input()
    benchmark(gather, features, index, n_threads=THREADS)


@pytest.mark.benchmark(group="gather 40000 of 128^3")
def test_gather_peer_numpy(benchmark: Callable[..., object]) -> None:
    """numpy.gradient of each whole channel, then the rows: what needs the least code."""
    features, index = gather_input()

    def rows() -> tuple[Array, Array]:
        slopes = []
        for channel in features.values:
            parts = np.gradient(channel)
            slopes.append(np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2).ravel()[index])
        return features.values.reshape(len(features.names), -1)[:, index].T, np.stack(slopes, axis=1)

    benchmark.pedantic(rows, rounds=2)  # type: ignore[attr-defined]
