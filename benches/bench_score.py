"""The score's surface and VOI terms against what the public scorer does with SciPy, cc3d and scikit-image, in one run.

The surface peer takes whole distance transforms of both surfaces, as the `surface-distance` package does (without its
sorting of elements, which costs that package most of its time). 256^3 by default; `VESU_BENCH_FULL=1` adds 320^3; the
competition's labels too where `VESU_DATA` has them: one against the other, and the two masks of the test chunk.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import variation_of_information

from vesu import _core, read_volume

DATA = Path(os.environ["VESU_DATA"]) if os.environ.get("VESU_DATA") else None
PAIRS = ["sheets 256"] + (["sheets 320"] if os.environ.get("VESU_BENCH_FULL") == "1" else [])
PAIRS += ["labels 320", "speckle 320"] if DATA else []
UNIT = (1.0, 1.0, 1.0)

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@lru_cache(maxsize=1)
def pair(name: str) -> Pair:
    kind, size = name.split()[0], int(name.split()[1])
    if kind == "sheets" or DATA is None:
        z, y, x = np.ogrid[:size, :size, :size]
        height = z + 6 * np.sin(y / 37) + 5 * np.sin(x / 29)
        holes = ndimage.gaussian_filter(np.random.default_rng(0).random((size,) * 3, dtype=np.float32), 2) > 0.54
        return ((height + 0.7) % 34 < 2) & ~holes, height % 34 < 2
    if kind == "labels":
        one, other = (read_volume(file) == 1 for file in sorted((DATA / "labels").glob("*.tif"))[:2])
        return one, other
    masks = [read_volume(DATA / f"predictions/1407735_{name}.tif") > 0 for name in ("transunet", "speckle")]
    return masks[0], masks[1]


def peer_surface(prediction: NDArray[np.bool_], label: NDArray[np.bool_]) -> float:
    areas = np.array(_core.score_area_table(UNIT))
    corners = (1 << np.arange(8)).reshape(2, 2, 2)
    codes = [
        ndimage.correlate(np.pad(m.astype(np.uint8), (0, 1)), corners, mode="constant") for m in (prediction, label)
    ]
    surfaces = [(code != 0) & (code != 255) for code in codes]
    total = within = 0.0
    for code, own, other in ((codes[0], *surfaces), (codes[1], *surfaces[::-1])):
        distance = ndimage.distance_transform_edt(~other)[own]
        area = areas[code[own]]
        total, within = total + area.sum(), within + area[distance <= 2.0].sum()
    return float(within / total)


def peer_voi(prediction: NDArray[np.bool_], label: NDArray[np.bool_]) -> Any:
    ours, theirs = (cc3d.connected_components(mask, connectivity=26) for mask in (prediction, label))
    union = (ours > 0) | (theirs > 0)
    return variation_of_information(theirs[union], ours[union])


Kernel = Callable[[NDArray[np.bool_], NDArray[np.bool_]], Any]
KERNELS: dict[str, dict[str, Kernel]] = {
    "surface": {"vesu": lambda p, g: _core.score_surface(p, g, UNIT, 2.0), "peer-scipy": peer_surface},
    "voi": {"vesu": _core.score_voi, "peer-skimage": peer_voi},
}


def cases(ours: bool) -> list[Any]:
    return [
        pytest.param(
            name, run, id=f"{term}-{name}".replace(" ", "_"), marks=pytest.mark.benchmark(group=f"{term} {name}")
        )
        for name in PAIRS
        for term, runs in KERNELS.items()
        for who, run in runs.items()
        if (who == "vesu") == ours
    ]


@pytest.mark.parametrize(("name", "run"), cases(ours=True))
def test_vesu(benchmark: Any, name: str, run: Kernel) -> None:
    benchmark.pedantic(run, args=pair(name), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("name", "run"), cases(ours=False))
def test_peer(benchmark: Any, name: str, run: Kernel) -> None:
    benchmark.pedantic(run, args=pair(name), rounds=1)
