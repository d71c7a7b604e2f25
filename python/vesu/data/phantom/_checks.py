"""Argument checks shared by the phantom's functions."""

import math

from vesu.errors import ArgumentError


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse anything but a finite number within [low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and low <= value <= high):
        raise ArgumentError(f"{name}: got {value!r}; accepted: a number from {low:g} to {high:g}")


def check_count(name: str, value: int, low: int, high: int) -> None:
    """Refuse anything but an integer within [low, high]."""
    if not (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
        raise ArgumentError(f"{name}: got {value!r}; accepted: an integer from {low} to {high}")


def check_seed(seed: int) -> None:
    """Refuse seeds that NumPy's SeedSequence could not take."""
    check_count("seed", seed, 0, 2**63 - 1)


def check_shape(shape: tuple[int, int, int], *, minimum: int) -> None:
    """Refuse shapes that are not three integers from ``minimum`` to 2048."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if len(sizes) != 3 or not all(isinstance(n, int) and minimum <= n <= 2048 for n in sizes):
        raise ArgumentError(f"shape: got {shape!r}; accepted: three integers (z, y, x) from {minimum} to 2048")
