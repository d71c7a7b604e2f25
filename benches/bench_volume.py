"""Volume kernels against cc3d, SciPy, scikit-image and NumPy, on the same input in one run.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. The mask is blurred noise thresholded at 12 % foreground:
some hundred thousand specks and blobs, the density and the hardness of a thresholded CT. Where the research volumes are
(`VESU_DATA` or ../shared/data) their masks run too, cropped or tiled to the size.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cc3d
import fill_voids
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

import vesu
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


DATA = Path(os.environ.get("VESU_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
REAL = {
    "label": DATA / "labels" / "2656396745.tif",
    "transunet": DATA / "predictions" / "1407735_transunet.tif",
    "speckle": DATA / "predictions" / "1407735_speckle.tif",
}


@lru_cache(maxsize=2)
def real_mask(name: str, size: int) -> NDArray[np.uint8]:
    """A real mask, cropped to the size or repeated until it is filled; of a label the surface, class 1."""
    values = vesu.read_volume(REAL[name])
    whole = (values == 1 if name == "label" else values != 0).astype(np.uint8)
    repeats = [-(-size // axis) for axis in whole.shape]
    return np.ascontiguousarray(np.tile(whole, repeats)[:size, :size, :size])


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
Mask = Callable[[int], NDArray[np.uint8]]


def mask_kernels(suffix: str, of: Mask) -> dict[str, dict[str, Kernel]]:
    """The kernels on masks; SciPy only on the generated one."""
    kernels: dict[str, dict[str, Kernel]] = {
        f"fill_holes{suffix}": {
            "vesu": lambda size: volume.fill_holes(of(size)),
            "peer-fill_voids": lambda size: fill_voids.fill(of(size)),
        }
    }
    for c in (6, 26):
        kernels[f"dust {c}{suffix}"] = {
            "vesu": lambda size, c=c: volume.remove_dust(of(size), MIN_VOXELS, c),
            "peer-cc3d": lambda size, c=c: cc3d.dust(of(size), threshold=MIN_VOXELS, connectivity=c),
        }
        if not suffix:
            kernels[f"dust {c}"]["peer-scipy"] = lambda size, c=c: scipy_dust(of(size), c)
        kernels[f"labels {c}{suffix}"] = {
            "vesu": lambda size, c=c: volume.connected_components(of(size), c),
            "peer-cc3d": lambda size, c=c: cc3d.connected_components(of(size), connectivity=c),
        }
    return kernels


KERNELS |= mask_kernels("", mask)
for name in REAL:
    if REAL[name].is_file():
        KERNELS |= mask_kernels(f" {name}", lambda size, name=name: real_mask(name, size))


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
    probability(size), mask(size)  # made outside the timing; real masks are read in the warm-up
    benchmark.pedantic(run, args=(size,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("size", "run"), cases(ours=True))
def test_vesu(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)


@pytest.mark.parametrize(("size", "run"), cases(ours=False))
def test_peer(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)
