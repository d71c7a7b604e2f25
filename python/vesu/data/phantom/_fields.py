"""Random fields of the phantom: named seeded streams, smooth fields, periodic textures, Gaussian blur.

NumPy only. Every value depends on the seed and the arguments alone: nothing here is threaded, and work done
slab by slab draws from its stream in slab order.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
SLAB = 16
"""Planes worked on at a time: small enough for the cache, large enough to hide Python's overhead."""

_CUBIC_VARIANCE = 151.0 / 315.0
"""Mean of the squared weights of a cubic B-spline: the variance that one axis of upsampling leaves."""


def stream(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each named ingredient, so that adding one does not change the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def slabs(depth: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) pairs of at most ``SLAB`` planes."""
    for start in range(0, depth, SLAB):
        yield start, min(start + SLAB, depth)


def _cubic_taps(n: int, length: float) -> tuple[NDArray[np.intp], Float32]:
    """First knot (n,) and the four cubic B-spline weights (4, n) of each of ``n`` samples ``1/length`` apart."""
    position = np.arange(n) / length
    first = np.floor(position).astype(np.intp)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6.0
    return first, weights.astype(np.float32)


def _knots(n: int, length: float) -> int:
    return int((n - 1) / length) + 4


def _expand(coarse: Float32, axis: int, n: int, length: float) -> Float32:
    """Upsample one axis of a knot array to ``n`` samples."""
    first, weights = _cubic_taps(n, length)
    column = [1] * coarse.ndim
    column[axis] = n
    out = np.zeros((*coarse.shape[:axis], n, *coarse.shape[axis + 1 :]), np.float32)
    for tap in range(4):
        out += weights[tap].reshape(column) * coarse.take(first + tap, axis)
    return out


def smooth_plane(shape: tuple[int, int], length: tuple[float, float], rng: np.random.Generator) -> Float32:
    """A smooth Gaussian field (2-D), mean 0, variance about 1, correlated over about ``length`` samples."""
    coarse = rng.standard_normal([_knots(n, knot) for n, knot in zip(shape, length, strict=True)], np.float32)
    plane = _expand(_expand(coarse, 1, shape[1], length[1]), 0, shape[0], length[0])
    return np.asarray(plane / np.float32(_CUBIC_VARIANCE), np.float32)


class SmoothField:
    """A smooth Gaussian field (3-D), mean 0, variance about 1, evaluated slab by slab from few knots.

    Parameters
    ----------
    shape : (z, y, x)
    length : correlation length in voxels (the knot spacing)
    rng : its own stream
    """

    def __init__(self, shape: tuple[int, int, int], length: float, rng: np.random.Generator) -> None:
        coarse = rng.standard_normal([_knots(n, length) for n in shape], np.float32)
        coarse *= np.float32(_CUBIC_VARIANCE**-1.5)
        self._planes = _expand(_expand(coarse, 2, shape[2], length), 1, shape[1], length)
        self._first, self._weights = _cubic_taps(shape[0], length)

    def slab(self, start: int, stop: int) -> Float32:
        """Values of planes ``start`` to ``stop``, float32 (stop - start, y, x)."""
        out = np.empty((stop - start, *self._planes.shape[1:]), np.float32)
        for z in range(start, stop):
            plane, first, weight = out[z - start], self._first[z], self._weights[:, z]
            np.multiply(self._planes[first], weight[0], out=plane)
            for tap in range(1, 4):
                plane += weight[tap] * self._planes[first + tap]
        return out


def periodic_texture(
    shape: tuple[int, int, int],
    sigma: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    high_pass: float | None = None,
) -> Float32:
    """White noise under an anisotropic Gaussian, periodic in all axes, mean 0 and variance 1.

    ``sigma`` is the Gaussian's deviation per axis in samples; ``high_pass`` takes what a Gaussian of that deviation
    leaves away again along the first axis. Drawn in Fourier space: one inverse transform.
    """
    half = (shape[0], shape[1], shape[2] // 2 + 1)
    spectrum = rng.standard_normal((*half, 2), np.float32).view(np.complex64)[..., 0]
    frequencies = (np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), np.fft.rfftfreq(shape[2]))
    for axis, (frequency, deviation) in enumerate(zip(frequencies, sigma, strict=True)):
        column = [1, 1, 1]
        column[axis] = -1
        spectrum *= np.exp(-2.0 * (np.pi * deviation * frequency) ** 2).astype(np.float32).reshape(column)
    if high_pass is not None:
        kept = 1 - np.exp(-2.0 * (np.pi * high_pass * frequencies[0]) ** 2)
        spectrum *= kept.astype(np.float32)[:, None, None]
    spectrum[0, 0, 0] = 0
    texture = np.fft.irfftn(spectrum, shape, axes=(0, 1, 2)).astype(np.float32)
    return np.asarray(texture / texture.std(), np.float32)


def gaussian_blur(volume: Float32, sigma: float) -> Float32:
    """Gaussian blur of a float32 volume by direct separable convolution, edge values repeated; a new array."""
    if sigma <= 0:
        return volume.copy()
    radius = max(1, int(3.0 * sigma + 0.5))
    offsets = np.arange(radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    out = np.empty_like(volume)
    for z in range(volume.shape[0]):  # planes stay in the cache
        out[z] = _convolve(_convolve(volume[z], weights, 0), weights, 1)
    for start, stop in slabs(volume.shape[1]):
        out[:, start:stop] = _convolve(out[:, start:stop], weights, 0)
    return out


def _convolve(block: Float32, weights: Float32, axis: int) -> Float32:
    """Symmetric 1-D convolution along ``axis``; ``weights`` holds the centre and one side."""
    radius, n = len(weights) - 1, block.shape[axis]
    padding = [(0, 0)] * block.ndim
    padding[axis] = (radius, radius)
    padded = np.pad(block, padding, mode="edge")

    def shifted(offset: int) -> Float32:
        window = [slice(None)] * block.ndim
        window[axis] = slice(radius + offset, radius + offset + n)
        return padded[tuple(window)]

    out = shifted(0) * weights[0]
    for offset in range(1, radius + 1):
        out += weights[offset] * (shifted(-offset) + shifted(offset))
    return np.asarray(out, np.float32)
