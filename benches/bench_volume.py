"""Volume kernels against cc3d, SciPy, scikit-image and NumPy, on the same input in one run.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. The mask is blurred noise thresholded at 12 % foreground:
some hundred thousand specks and blobs, the density and the hardness of a thresholded CT.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cc3d
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from vesu import volume

SIZES = (256, 320, 512) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
MIN_VOXELS = 100
RADIUS = 2
LOW, HIGH = 0.62, 0.75


@lru_cache(maxsize=1)
def probability(size: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).random((size, size, size), dtype=np.float32)
    smooth = 0.06 * noise + ndimage.gaussian_filter(noise, 1.0)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.float32)


@lru_cache(maxsize=1)
def mask(size: int) -> NDArray[np.uint8]:
    p = probability(size)
    return (p > np.quantile(p[::8], 0.88)).astype(np.uint8)


def shifted_mean(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """The clamped moving mean by shifted adds, the quickest that NumPy does."""
    padded = np.pad(p, ((RADIUS, RADIUS), (0, 0), (0, 0)), mode="edge")
    total = padded[: p.shape[0]].copy()
    for shift in range(1, 2 * RADIUS + 1):
        total += padded[shift : shift + p.shape[0]]
    return total * np.float32(1 / (2 * RADIUS + 1))


def scipy_dust(m: NDArray[np.uint8], connectivity: int) -> NDArray[np.bool_]:
    structure = ndimage.generate_binary_structure(3, {6: 1, 26: 3}[connectivity])
    labels, n = ndimage.label(m, structure)
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= MIN_VOXELS
    keep[0] = False
    return keep[labels]


Kernel = Callable[[int], Any]
KERNELS: dict[str, dict[str, Kernel]] = {
    "hysteresis 6": {
        "vesu": lambda size: volume.hysteresis(probability(size), LOW, HIGH, 6),
        "peer-skimage": lambda size: apply_hysteresis_threshold(probability(size), LOW, HIGH),
    },
    "smooth_z": {
        "vesu": lambda size: volume.smooth_z(probability(size), RADIUS),
        "peer-numpy": lambda size: shifted_mean(probability(size)),
        "peer-scipy": lambda size: ndimage.uniform_filter1d(probability(size), 2 * RADIUS + 1, axis=0, mode="nearest"),
    },
}
for connectivity in (6, 26):
    KERNELS[f"dust {connectivity}"] = {
        "vesu": lambda size, c=connectivity: volume.remove_dust(mask(size), MIN_VOXELS, c),
        "peer-cc3d": lambda size, c=connectivity: cc3d.dust(mask(size), threshold=MIN_VOXELS, connectivity=c),
        "peer-scipy": lambda size, c=connectivity: scipy_dust(mask(size), c),
    }
    KERNELS[f"labels {connectivity}"] = {
        "vesu": lambda size, c=connectivity: volume.connected_components(mask(size), c),
        "peer-cc3d": lambda size, c=connectivity: cc3d.connected_components(mask(size), connectivity=c),
    }


def cases(ours: bool) -> list[Any]:
    return [
        pytest.param(
            size,
            run,
            id="-".join([*([] if ours else [who.removeprefix("peer-")]), kernel.replace(" ", "_"), str(size)]),
            marks=pytest.mark.benchmark(group=f"{kernel} {size}^3"),
        )
        for size in SIZES
        for kernel, runs in KERNELS.items()
        for who, run in runs.items()
        if (who == "vesu") == ours
    ]


def measure(benchmark: Any, size: int, run: Kernel) -> None:
    probability(size), mask(size)  # made outside the timing
    benchmark.pedantic(run, args=(size,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("size", "run"), cases(ours=True))
def test_vesu(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)


@pytest.mark.parametrize(("size", "run"), cases(ours=False))
def test_peer(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)
