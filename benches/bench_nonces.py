"""The voxels of greatest probability in their order, against NumPy's argpartition and torch.topk.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3. The peers leave ties in any order: of equal scores at the end of the
list they take whichever they met, so theirs is less than what is asked of ours. All kernels use all cores, but NumPy's.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vesu import volume

SIZES = (256, 320) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
LEVEL = 0.9


@lru_cache(maxsize=1)
def probability(size: int) -> NDArray[np.float32]:
    """Mostly background, sheets that are sure of themselves: a quarter of the voxels reaches 0.9, many tie at 1."""
    rng = np.random.default_rng(0)
    z = np.arange(size, dtype=np.float32)[:, None, None]
    noise = rng.normal(0, 1.5, (size, size, size)).astype(np.float32)
    return np.clip(1 / (1 + np.exp(noise - 6 * np.cos(z / 4) + 2)) * 1.02, 0, 1).astype(np.float32)


def by_argpartition(size: int, k: int) -> Any:
    flat = probability(size).ravel()
    best = np.argpartition(flat, len(flat) - k)[len(flat) - k :]
    return best[np.argsort(-flat[best], kind="stable")]


def by_sort(size: int) -> Any:
    flat = probability(size).ravel()
    reached = np.flatnonzero(flat >= np.float32(LEVEL))
    return reached[np.argsort(-flat[reached], kind="stable")]


def by_torch(size: int, k: int) -> Any:
    torch = pytest.importorskip("torch")
    return torch.topk(torch.from_numpy(probability(size)).ravel(), k)


def in_pieces(size: int) -> int:
    return sum(map(len, volume.iter_extreme_voxels(probability(size), at_least=LEVEL)))


Kernel = Callable[[int], Any]
KERNELS: dict[str, dict[str, Kernel]] = {
    "best 1000": {
        "vesu": lambda size: volume.extreme_voxels(probability(size), 1000),
        "peer-numpy": lambda size: by_argpartition(size, 1000),
        "peer-torch": lambda size: by_torch(size, 1000),
    },
    "best 100000": {
        "vesu": lambda size: volume.extreme_voxels(probability(size), 100_000),
        "peer-numpy": lambda size: by_argpartition(size, 100_000),
        "peer-torch": lambda size: by_torch(size, 100_000),
    },
    "all from 0.9": {
        "vesu": lambda size: volume.extreme_voxels(probability(size), 0, at_least=LEVEL),
        "peer-numpy": by_sort,
    },
    "all from 0.9 in pieces": {"vesu": in_pieces},
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
    probability(size)  # made outside the timing
    benchmark.pedantic(run, args=(size,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("size", "run"), cases(ours=True))
def test_vesu(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)


@pytest.mark.parametrize(("size", "run"), cases(ours=False))
def test_peer(benchmark: Any, size: int, run: Kernel) -> None:
    measure(benchmark, size, run)
