"""The distance transform against edt and SciPy, on the same masks in one run, on one and two threads.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. Generated: sheets (6 % foreground, thin), blobs (half
foreground, deep); the competition's labels too where `VESU_DATA` has them (320^3).
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import edt
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from vesu import read_volume, volume

SIZES = (256, 320, 512) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
SPACED = (1.5, 1.0, 1.2)
LABELS = Path(os.environ.get("VESU_DATA", "")) / "labels"
REAL = sorted(LABELS.glob("*.tif"))[:1] if os.environ.get("VESU_DATA") else []


@lru_cache(maxsize=2)
def mask(kind: str, size: int) -> NDArray[np.uint8]:
    if kind == "label":
        return (read_volume(REAL[0]) == 1).astype(np.uint8)
    if kind == "sheets":
        z, y, x = np.ogrid[:size, :size, :size]
        return ((z + 6 * np.sin(y / 37) + 5 * np.sin(x / 29)) % 34 < 2).astype(np.uint8)
    noise = np.random.default_rng(0).random((size // 4,) * 3, dtype=np.float32)
    smooth = ndimage.zoom(ndimage.gaussian_filter(noise, 5), 4, order=1)
    return (smooth > np.median(smooth)).astype(np.uint8)


Kernel = Callable[[NDArray[np.uint8], int], Any]
RUNS: dict[str, Kernel] = {
    "vesu": lambda m, n: volume.distance_transform(m, n_threads=n),
    "peer-edt": lambda m, n: edt.edt(m, anisotropy=(1, 1, 1), black_border=False, parallel=n),
    "peer-scipy": lambda m, n: ndimage.distance_transform_edt(m),
    "vesu spaced": lambda m, n: volume.distance_transform(m, SPACED, n_threads=n),
    "peer-edt spaced": lambda m, n: edt.edt(m, anisotropy=SPACED, black_border=False, parallel=n),
}


def cases(ours: bool) -> list[Any]:
    kinds = [(kind, size) for size in SIZES for kind in ("sheets", "blobs")] + [("label", 320)] * bool(REAL)
    found = []
    for kind, size in kinds:
        for who, run in RUNS.items():
            for threads in (1, 2):
                if who.startswith("vesu") != ours or (who == "peer-scipy" and (threads == 2 or size > 256)):
                    continue
                spaced = " spaced" if who.endswith("spaced") else ""
                group = f"distance{spaced} {kind} {size}^3 {threads} thread{'s' * (threads > 1)}"
                name = f"{who}-{kind}-{size}-{threads}".replace(" ", "_").removeprefix("peer-")
                mark = pytest.mark.benchmark(group=group)
                found.append(pytest.param(kind, size, threads, run, id=name, marks=mark))
    return found


def measure(benchmark: Any, kind: str, size: int, threads: int, run: Kernel) -> None:
    benchmark.pedantic(run, args=(mask(kind, size), threads), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize(("kind", "size", "threads", "run"), cases(ours=True))
def test_vesu(benchmark: Any, kind: str, size: int, threads: int, run: Kernel) -> None:
    measure(benchmark, kind, size, threads, run)


@pytest.mark.parametrize(("kind", "size", "threads", "run"), cases(ours=False))
def test_peer(benchmark: Any, kind: str, size: int, threads: int, run: Kernel) -> None:
    measure(benchmark, kind, size, threads, run)
