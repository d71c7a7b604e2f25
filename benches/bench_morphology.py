"""Median, closing and smooth_z against SciPy, scikit-image, fastmorph and a plain copy, on the same input in one run.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. Masks: blurred noise at 12 % foreground, and, where
`VESU_DATA` names the folder of the research volumes, class 1 of a real label and the speckle mask (320^3). SciPy and
scikit-image close with the same element, in their own border convention; fastmorph closes multi-label 3x3x3 boxes only.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastmorph
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage import morphology

from vesu import volume

SIZES = (256, 320, 512) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
DATA = Path(os.environ.get("VESU_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
REAL = ("labels/2656396745", "predictions/1407735_speckle")
INPUTS: list[int | str] = [*SIZES, *(name for name in REAL if (DATA / f"{name}.tif").is_file())]
RADII = {"2": (2, 2, 2), "3": (3, 3, 3), "2,1,1": (2, 1, 1)}


@lru_cache(maxsize=1)
def numbers(size: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).random((size, size, size), dtype=np.float32)
    return (ndimage.gaussian_filter(noise, 1.0) + 0.06 * noise).astype(np.float32)


@lru_cache(maxsize=1)
def mask(which: int | str) -> NDArray[np.uint8]:
    if isinstance(which, int):
        p = numbers(which)
        return (p > np.quantile(p[::8], 0.88)).astype(np.uint8)
    tifffile = pytest.importorskip("tifffile")
    voxels = tifffile.imread(DATA / f"{which}.tif")
    return (voxels == 1 if which.startswith("labels") else voxels != 0).astype(np.uint8)


@lru_cache(maxsize=8)
def element(radius: tuple[int, int, int]) -> NDArray[np.bool_]:
    grid = np.mgrid[tuple(slice(-r, r + 1) for r in radius)]
    return sum((d / r) ** 2 for d, r in zip(grid, radius, strict=True)) <= 1 + 1e-9


def threaded_copy(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """`p.copy()` by two threads, a half each: numpy lets go of the interpreter while it copies."""
    out, half = np.empty_like(p), len(p) // 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: np.copyto(out[part], p[part]), (slice(half), slice(half, None))))
    return out


Kernel = Callable[[Any], Any]
ON_MASKS: dict[str, dict[str, Kernel]] = {
    "median mask": {
        "vesu": lambda which: volume.median(mask(which)),
        "peer-scipy": lambda which: ndimage.median_filter(mask(which), 3, mode="nearest"),
    },
    "closing box 1": {
        "vesu": lambda which: volume.closing(mask(which), 1, "box"),
        "peer-fastmorph": lambda which: fastmorph.closing(mask(which), parallel=2),
    },
}
ON_NUMBERS: dict[str, dict[str, Kernel]] = {
    "median f32": {
        "vesu": lambda size: volume.median(numbers(size)),
        "peer-scipy": lambda size: ndimage.median_filter(numbers(size), 3, mode="nearest"),
    },
}
for name, radius in RADII.items():
    ON_MASKS[f"closing {name}"] = {
        "vesu": lambda which, r=radius: volume.closing(mask(which), r),
        "peer-scipy": lambda which, r=radius: ndimage.binary_closing(mask(which), element(r)),
        "peer-skimage": lambda which, r=radius: morphology.closing(mask(which).view(bool), element(r)),
    }
    ON_NUMBERS[f"grey closing {name}"] = {
        "vesu": lambda size, r=radius: volume.closing(numbers(size), r),
        "peer-scipy": lambda size, r=radius: ndimage.grey_closing(numbers(size), footprint=element(r)),
    }
for r in (1, 2, 3):
    ON_NUMBERS[f"smooth_z {r}"] = {
        "vesu": lambda size, r=r: volume.smooth_z(numbers(size), r),
        "peer-copy": lambda size: numbers(size).copy(),
        "peer-copy_2_threads": lambda size: threaded_copy(numbers(size)),
    }


def cases(ours: bool) -> list[Any]:
    wanted = [(kernel, runs, INPUTS) for kernel, runs in ON_MASKS.items()]
    wanted += [(kernel, runs, list(SIZES)) for kernel, runs in ON_NUMBERS.items()]
    return [
        pytest.param(
            which,
            run,
            id="-".join([*([] if ours else [who.removeprefix("peer-")]), kernel.replace(" ", "_"), str(which)]),
            marks=pytest.mark.benchmark(group=f"{kernel} {which}" + ("^3" if isinstance(which, int) else "")),
        )
        for kernel, runs, inputs in wanted
        for which in inputs
        for who, run in runs.items()
        if (who == "vesu") == ours
    ]


def measure(benchmark: Any, which: int | str, run: Kernel, rounds: int) -> None:
    mask(which)  # made outside the timing, and with it the numbers of a generated input
    if isinstance(which, int):
        numbers(which)
    benchmark.pedantic(run, args=(which,), rounds=rounds, warmup_rounds=1)


@pytest.mark.parametrize(("which", "run"), cases(ours=True))
def test_vesu(benchmark: Any, which: int | str, run: Kernel) -> None:
    measure(benchmark, which, run, rounds=5)


@pytest.mark.parametrize(("which", "run"), cases(ours=False))
def test_peer(benchmark: Any, which: int | str, run: Kernel) -> None:
    measure(benchmark, which, run, rounds=2)
