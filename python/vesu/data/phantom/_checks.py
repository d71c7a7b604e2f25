"""Argument checks shared by the phantom's functions."""

import math

import numpy as np

from vesu.errors import ArgumentError, MemoryLimitError

BYTES_PER_VOXEL = 32
"""What making one voxel takes at the peak, measured."""

_MAX_BYTES = 16 * 2**30


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse anything but a finite number within [low, high]."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high):
        raise ArgumentError(f"{name}: got {value!r}; accepted: a number from {low:g} to {high:g}")


def check_count(name: str, value: int, low: int, high: int) -> None:
    """Refuse anything but an integer within [low, high]."""
    if not (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= value <= high):
        raise ArgumentError(f"{name}: got {value!r}; accepted: an integer from {low} to {high}")


def check_seed(seed: int) -> None:
    """Refuse seeds that NumPy's SeedSequence could not take."""
    check_count("seed", seed, 0, 2**63 - 1)


def check_shape(shape: tuple[int, int, int], *, minimum: int) -> None:
    """Refuse shapes that are not three integers from ``minimum`` to 2048."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in sizes)
    if len(sizes) != 3 or not whole or not all(minimum <= n <= 2048 for n in sizes):
        raise ArgumentError(f"shape: got {shape!r}; accepted: three integers (z, y, x) from {minimum} to 2048")


def check_memory(shape: tuple[int, ...]) -> None:
    """Refuse a volume whose making would need more than 16 GiB."""
    needed = math.prod(int(n) for n in shape) * BYTES_PER_VOXEL
    if needed > _MAX_BYTES:
        raise MemoryLimitError(f"shape: {tuple(shape)} needs about {needed} bytes; the limit is {_MAX_BYTES}")
