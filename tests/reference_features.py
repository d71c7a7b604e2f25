"""The features spelled out in SciPy, double precision throughout: slow and obvious."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float64]


def features(volume: NDArray[np.generic], scales: tuple[float, ...], normalise: bool) -> dict[str, Volume]:
    """Every channel by name."""
    v = volume.astype(np.float64)
    mean, std = v.mean(), v.std()
    if v.min() == v.max():
        mean, std = v.flat[0], 1.0
    u = (v - mean) / std
    unit, base = (1.0, 0.0) if normalise else (std, mean)

    found: dict[str, Volume] = {}
    finer = u
    for sigma in scales:
        smooth = gaussian(u, sigma)
        gradient = np.stack([difference(smooth, axis) for axis in range(3)])
        hessian = np.linalg.eigvalsh(hessian_matrix(smooth))  # ascending
        by_size = np.sort(np.abs(hessian), axis=-1)
        polarity = np.where(-hessian[..., 0] > hessian[..., 2], 1.0, -1.0)
        tensor = np.linalg.eigvalsh(structure_tensor(gradient, sigma))
        named = {
            "intensity": smooth * unit + base,
            "bandpass": (finer - smooth) * unit,
            "gradient": np.sqrt((gradient**2).sum(axis=0)) * unit,
            "z_contrast": np.abs(gradient[0]) * unit,
            "laplacian": sum(second_difference(smooth, axis) for axis in range(3)) * unit,
            "hessian": hessian[..., 0] * unit,
            "sheetness": polarity * (by_size[..., 2] - by_size[..., 1]) * unit,
            "planarity": (tensor[..., 2] - tensor[..., 1]) / (tensor.sum(axis=-1) + 1e-6),
            "variance": np.maximum(gaussian(u**2, sigma) - smooth**2, 0) * unit**2,
        }
        found |= {f"{family}_s{sigma:g}": values for family, values in named.items()}
        finer = smooth
    return found


def gaussian(v: Volume, sigma: float) -> Volume:
    return ndimage.gaussian_filter(v, sigma, mode="nearest", truncate=4.0)


def difference(v: Volume, axis: int) -> Volume:
    return ndimage.correlate1d(v, [-0.5, 0, 0.5], axis, mode="nearest")


def second_difference(v: Volume, axis: int) -> Volume:
    return ndimage.correlate1d(v, [1, -2, 1], axis, mode="nearest")


def hessian_matrix(v: Volume) -> Volume:
    """(z, y, x, 3, 3)."""
    rows = [
        [second_difference(v, a) if a == b else difference(difference(v, a), b) for b in range(3)] for a in range(3)
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def structure_tensor(gradient: Volume, sigma: float) -> Volume:
    """(z, y, x, 3, 3)."""
    rows = [[gaussian(gradient[a] * gradient[b], sigma) for b in range(3)] for a in range(3)]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def gather(values: NDArray[np.float32], index: NDArray[np.int64]) -> tuple[Volume, Volume]:
    """Rows of the voxels: channels and the lengths of their gradients."""
    slopes = []
    for channel in values.astype(np.float64):
        parts = [np.gradient(channel, axis=axis) for axis in range(3) if channel.shape[axis] > 1]
        slopes.append(np.sqrt(sum((part**2 for part in parts), start=np.zeros_like(channel))))
    flat = values.astype(np.float64).reshape(len(values), -1)
    return flat[:, index].T, np.array(slopes).reshape(len(values), -1)[:, index].T


def select(x: NDArray[np.float32], min_variance: float, max_correlation: float, top_k: int | None) -> list[int]:
    """Kept columns, by variance."""
    x = x.astype(np.float64)
    kept: list[int] = []
    for i in sorted(range(x.shape[1]), key=lambda i: -x[:, i].var()):
        if x[:, i].var() < max(min_variance, 1e-300):
            continue
        if all(abs(np.corrcoef(x[:, i], x[:, j])[0, 1]) < max_correlation for j in kept):
            kept.append(i)
    return sorted(kept[:top_k])
