"""What the functions of features ask of their arguments."""

import operator
from collections.abc import Sequence

import numpy as np

from vesu.errors import ArgumentError


def slices(z_range: tuple[int, int], depth: int) -> tuple[int, int]:
    """The range of slices, within the volume."""
    accepted = f"two integers (first, last + 1) with 0 <= first < last + 1 <= {depth}"
    try:
        first, end = (operator.index(bound) for bound in z_range)
    except (TypeError, ValueError):
        raise argument("z_range", repr(z_range), accepted) from None
    if not 0 <= first < end <= depth:
        raise argument("z_range", repr(z_range), accepted)
    return first, end


def floats(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The numbers of a sequence."""
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise argument(name, repr(values), "a sequence of numbers") from None


def strings(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """The strings of a sequence that is none itself."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise argument(name, repr(values), "a sequence of strings")
    return tuple(values)


def integer(name: str, value: int, least: int, most: int) -> int:
    """An integer in a range, ends included."""
    try:
        number = operator.index(value)
    except TypeError:
        raise argument(name, repr(value), "an integer") from None
    if not least <= number <= most:
        raise argument(name, repr(value), f"{least} to {most}")
    return number


def check_number(name: str, value: float, least: float, most: float) -> None:
    """Refuse what is no number in a range, ends included."""
    if not isinstance(value, (int, float, np.floating)) or not least <= value <= most:
        raise argument(name, repr(value), f"a number from {least:g} to {most:g}")


def describe(value: object) -> str:
    """What came, for a message."""
    return f"shape {value.shape}, dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def argument(name: str, got: str, accepted: str) -> ArgumentError:
    """The error that says which argument, what came, what is accepted."""
    return ArgumentError(f"{name}: got {got}; accepted: {accepted}")
