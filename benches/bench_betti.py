"""Betti matching of octants: clean, noisy and speckled pairs; beside them scikit-image's components and Euler numbers.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3; with the research volumes (`VESU_DATA`) real masks at full size
too. No package in the environment does Betti matching: the peer is the least that any count of components, tunnels
and cavities by SciPy and scikit-image takes, which matches nothing.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number

from vesu import _core
from vesu.data.volumes import read_volume

SIZES = (256, 320) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
Mask = NDArray[np.uint8]
Pair = tuple[Mask, Mask]


@lru_cache(maxsize=1)
def label(size: int) -> Mask:
    """Sheets two to three voxels thick, wavy, with some holes."""
    rng = np.random.default_rng(0)
    wave = ndimage.gaussian_filter(rng.standard_normal((size // 8,) * 3), 3)
    wave = ndimage.zoom(wave / wave.std(), 8, order=1)
    depth = np.arange(size)[:, None, None] + 6 * wave
    holes = ndimage.binary_dilation(rng.random((size,) * 3) < 1e-5, iterations=4)
    return np.asarray((depth % 20 < 3) & ~holes, np.uint8)


def clean(size: int) -> Pair:
    return np.asarray(ndimage.binary_dilation(label(size)), np.uint8), label(size)


def noisy(size: int) -> Pair:
    return label(size) ^ (np.random.default_rng(1).random((size,) * 3) < 0.02), label(size)


def speckled(size: int) -> Pair:
    noise = np.random.default_rng(2).random((size,) * 3, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, 0.7) + 0.02 * label(size)
    return np.asarray(smooth > np.quantile(smooth[::8], 0.85), np.uint8), label(size)


KINDS: dict[str, Callable[[int], Pair]] = {"clean": clean, "noisy": noisy, "speckled": speckled}
REAL = {
    "clean": ("labels/3281388561.tif", "labels/2656396745.tif"),
    "prediction": ("predictions/1407735_transunet.tif", "predictions/1407735_transunet.tif"),
    "speckle": ("predictions/1407735_speckle.tif", "predictions/1407735_transunet.tif"),
}


def betti_numbers_by_scikit_image(prediction: Mask, reference: Mask) -> list[int]:
    numbers = []
    for mask in (prediction, reference):
        numbers.append(ndimage.label(mask)[1])
        numbers.append(ndimage.label(1 - mask, np.ones((3, 3, 3)))[1])
        numbers.append(euler_number(mask, 1))
    return numbers


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_vesu(benchmark: Any, kind: str, size: int) -> None:
    benchmark.group = f"betti matching, {kind} {size}^3"
    pair = KINDS[kind](size)
    benchmark.pedantic(_core.betti_matching_octants, pair, rounds=5, warmup_rounds=1)
    benchmark.extra_info["counts"] = _core.betti_matching_octants(*pair).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_peer_scikit_image(benchmark: Any, kind: str, size: int) -> None:
    benchmark.group = f"betti matching, {kind} {size}^3"
    benchmark.pedantic(betti_numbers_by_scikit_image, KINDS[kind](size), rounds=1)


@pytest.mark.parametrize("kind", KINDS)
def test_vesu_unmatched(benchmark: Any, kind: str) -> None:
    benchmark.group = f"betti matching with locations, {kind} {SIZES[0]}^3"
    benchmark.pedantic(_core.betti_unmatched, KINDS[kind](SIZES[0]), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("kind", REAL)
def test_vesu_real(benchmark: Any, kind: str) -> None:
    benchmark.group = f"betti matching, real {kind}"
    prediction, reference = (real_mask(name) for name in REAL[kind])
    benchmark.pedantic(_core.betti_matching_octants, (prediction, reference), rounds=5, warmup_rounds=1)
    benchmark.extra_info["counts"] = _core.betti_matching_octants(prediction, reference).tolist()


def real_mask(name: str) -> Mask:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("VESU_DATA", beside)) / name
    if not path.is_file():
        pytest.skip(f"no {path}: set VESU_DATA to the research volumes' folder")
    return np.asarray((read_volume(path) != 0) & (read_volume(path) != 2), np.uint8)
