"""The historical scorers against NumPy and SciPy in float32, what a user would write, on the same input in one run.

256^3 of a generated scroll by default; `VESU_BENCH_FULL=1` adds 320^3 and 512^3. The peers are the formulas of
docs/baselines.md one array operation after another, on one thread as NumPy has it; vesu takes all cores.
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from vesu import baselines
from vesu.config import NX46Config, NX47Config

SIZES = (256, 320, 512) if os.environ.get("VESU_BENCH_FULL") == "1" else (256,)
Volume = NDArray[Any]


@lru_cache(maxsize=1)
def ct(size: int) -> NDArray[np.uint8]:
    """Rippled sheets in noise."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:size, :size, :size]
    sheets = np.sin((y + 6 * np.sin(z / 31) + 5 * np.sin(x / 23)) / 2.5).astype(np.float32)
    grey = 110 + 30 * sheets + 15 * rng.standard_normal((size, size, size), dtype=np.float32)
    return np.clip(grey, 0, 255).astype(np.uint8)


def scaled(volume: Volume) -> NDArray[np.float32]:
    v = volume.astype(np.float32)
    low, high = v.min(), v.max()
    v -= low
    v /= high - low
    return v


def backward(v: Volume, axis: int) -> Volume:
    return np.abs(np.diff(v, axis=axis, prepend=v.take([0], axis)))


def nx46(volume: Volume) -> Volume:
    config = NX46Config()
    window, weight = 2 * config.z_smoothing_radius + 1, np.float32(config.score_blend_3d_weight)
    v = scaled(volume)
    dz, dy, dx = (backward(v, axis) for axis in range(3))
    energy = np.float32(0.34) * dz + np.float32(0.22) * dy + np.float32(0.22) * dx
    energy += np.float32(0.12) * np.abs(v - ndimage.uniform_filter1d(v, window, axis=0, mode="nearest"))
    energy += np.float32(0.10) * np.abs(np.diff(v, n=2, axis=0, prepend=v[:1], append=v[-1:]))
    projected = (np.float32(0.45) * dz + np.float32(0.30) * dy + np.float32(0.25) * dx).mean(axis=0)
    return weight * ndimage.uniform_filter1d(energy, window, axis=0, mode="nearest") + (1 - weight) * projected


def nx47(volume: Volume) -> Volume:
    config = NX47Config()
    v = scaled(volume)
    residual = v - ndimage.gaussian_filter(v, float(config.sigma_gain * v.std() + config.sigma_base), mode="nearest")
    out = np.empty_like(v)
    for z in range(len(v)):
        m = residual[max(0, z - 1) : z + 2].mean(axis=0)
        p90, p95 = np.percentile(m, [90, 95])
        high = np.clip(config.percentile_base + config.percentile_gain * (p95 - p90) / (m.std() + 1e-6),
                       config.percentile_base, config.percentile_max)  # fmt: skip
        low, high = np.percentile(m, [max(high - config.percentile_gap, config.percentile_floor), high])
        w = np.clip((m - low) / (high - low + 1e-6), 0, 1)
        out[z] = np.where(m > high, 1, np.where(m > low, 1 - w, 0))
    return out


OURS = {"nx46": baselines.nx46_score, "nx47": baselines.nx47_score}
PEERS = {"nx46": nx46, "nx47": nx47}


def cases(ours: bool) -> list[Any]:
    return [
        pytest.param(
            name,
            size,
            id="-".join([*([] if ours else ["numpy-scipy"]), name, str(size)]),
            marks=pytest.mark.benchmark(group=f"{name} {size}^3"),
        )
        for size in SIZES
        for name in OURS
    ]


@pytest.mark.parametrize(("name", "size"), cases(ours=True))
def test_vesu(benchmark: Any, name: str, size: int) -> None:
    volume = ct(size)
    benchmark.pedantic(OURS[name], args=(volume,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize(("name", "size"), cases(ours=False))
def test_peer(benchmark: Any, name: str, size: int) -> None:
    volume = ct(size)
    found = benchmark.pedantic(PEERS[name], args=(volume,), rounds=3)
    ours = OURS[name](volume)
    # float32 on both sides: a voxel on a cut may fall to either side of it.
    assert np.mean(np.abs(found - ours) > 1e-4) < 1e-3
