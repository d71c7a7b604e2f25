"""Topology, plug and patch: the Euler number against scikit-image's, Betti numbers against SciPy's and scikit-image's.

256^3 by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. The mask is a stack of wavy sheets, torn;
where the research volumes are (`VESU_DATA`), a real label too. The plug and the patch have no peer in a library.
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

from vesu import volume

SIZES: tuple[int | str, ...] = (256, 320, 512) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
LABEL = Path(os.environ.get("VESU_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "labels"
REAL: tuple[int | str, ...] = ("label",) if LABEL.is_dir() else ()


@lru_cache(maxsize=1)
def mask(size: int | str) -> NDArray[np.uint8]:
    if isinstance(size, str):
        tifffile = pytest.importorskip("tifffile")
        return (tifffile.imread(LABEL / "3281388561.tif") == 1).astype(np.uint8)
    y, x = np.mgrid[:size, :size]
    height = 12 * np.sin(y / 40) + 8 * np.cos(x / 55) + 0.2 * x
    z = np.arange(size)[:, None, None]
    sheets = ((z + height) % 24 < 3).astype(np.uint8)
    rng = np.random.default_rng(0)
    for z0, y0, x0 in rng.integers(0, size, (size, 3)):
        sheets[z0 : z0 + 9, y0 : y0 + 9, x0 : x0 + 9] = 0
    return sheets


def scipy_betti(m: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Connectivity 6, background 26."""
    components = ndimage.label(m)[1]
    background = np.pad(m == 0, 1, constant_values=True)
    cavities = ndimage.label(background, ndimage.generate_binary_structure(3, 3))[1] - 1
    return components, components + cavities - euler_number(m, 1), cavities


Kernel = Callable[[int | str], Any]
KERNELS: dict[str, dict[str, Kernel]] = {
    "euler 6": {
        "vesu": lambda size: volume.euler_number(mask(size), 6),
        "peer-skimage": lambda size: euler_number(mask(size), 1),
    },
    "euler 26": {
        "vesu": lambda size: volume.euler_number(mask(size), 26),
        "peer-skimage": lambda size: euler_number(mask(size), 3),
    },
    "betti 6": {
        "vesu": lambda size: volume.betti_numbers(mask(size), 6),
        "peer-scipy": lambda size: scipy_betti(mask(size)),
    },
    "component topology 6": {"vesu": lambda size: volume.component_topology(mask(size), 6)},
    "plug": {"vesu": lambda size: volume.plug_holes(mask(size))},
    "patch": {"vesu": lambda size: volume.patch_sheets(mask(size))},
}


def cases(ours: bool) -> list[Any]:
    return [
        pytest.param(
            size,
            run,
            id="-".join([*([] if ours else [who.removeprefix("peer-")]), kernel.replace(" ", "_"), str(size)]),
            marks=pytest.mark.benchmark(group=f"{kernel} {size}" if size in REAL else f"{kernel} {size}^3"),
        )
        for size in (*SIZES, *REAL)
        for kernel, runs in KERNELS.items()
        for who, run in runs.items()
        if (who == "vesu") == ours
    ]


def measure(benchmark: Any, size: int | str, run: Kernel) -> None:
    mask(size)  # made outside the timing
    benchmark.pedantic(run, args=(size,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("size", "run"), cases(ours=True))
def test_vesu(benchmark: Any, size: int | str, run: Kernel) -> None:
    measure(benchmark, size, run)


@pytest.mark.parametrize(("size", "run"), cases(ours=False))
def test_peer(benchmark: Any, size: int | str, run: Kernel) -> None:
    measure(benchmark, size, run)
