"""Slow, obvious references for the historical scorers: NumPy and SciPy in float64, as docs/baselines.md has them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reference_volume import smooth_z
from vesu.config import NX46Config, NX47Config

Float = NDArray[np.float64]


def scaled(volume: NDArray[Any]) -> Float:
    low, high = float(volume.min()), float(volume.max())
    return np.zeros(volume.shape) if low == high else (volume.astype(np.float64) - low) / (high - low)


def backward(v: Float, axis: int) -> Float:
    return np.abs(np.diff(v, axis=axis, prepend=v.take([0], axis)))


def nx46_score(volume: NDArray[Any], config: NX46Config) -> Float:
    v, radius, weight = scaled(volume), config.z_smoothing_radius, config.score_blend_3d_weight
    dz, dy, dx = (backward(v, axis) for axis in range(3))
    second = np.abs(np.diff(v, n=2, axis=0, prepend=v[:1], append=v[-1:]))
    energy = 0.34 * dz + 0.22 * dy + 0.22 * dx + 0.12 * np.abs(v - smooth_z(v, radius)) + 0.10 * second
    projected = (0.45 * dz + 0.30 * dy + 0.25 * dx).mean(axis=0)
    return weight * smooth_z(energy, radius) + (1 - weight) * projected


def nx47_projection(volume: NDArray[Any], config: NX47Config) -> Float:
    """The residual, averaged over neighbouring slices."""
    v = scaled(volume)
    residual = v - ndimage.gaussian_filter(v, config.sigma_gain * v.std() + config.sigma_base, mode="nearest")
    return np.stack([residual[max(0, z - 1) : z + 2].mean(axis=0) for z in range(len(v))])


def nx47_cuts(m: Float, config: NX47Config) -> tuple[float, float]:
    """The low and the high cut of one slice."""
    contrast = (np.percentile(m, 95) - np.percentile(m, 90)) / (m.std() + 1e-6)
    base = config.percentile_base
    high = np.clip(base + config.percentile_gain * contrast, base, config.percentile_max)
    low = max(high - config.percentile_gap, config.percentile_floor)
    return float(np.percentile(m, low)), float(np.percentile(m, high))


def nx47_score(volume: NDArray[Any], config: NX47Config) -> Float:
    slices = []
    for m in nx47_projection(volume, config):
        low, high = nx47_cuts(m, config)
        w = np.clip((m - low) / (high - low + 1e-6), 0, 1)
        slices.append(w * ((m > high) & (m > low)) + (1 - w) * ((m > high) | (m > low)))
    return np.stack(slices)
