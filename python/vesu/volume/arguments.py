"""Checks of the kernels' scalar arguments, and the type of a mask."""

import operator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

Mask: TypeAlias = NDArray[np.uint8] | NDArray[np.bool_]

_INT64_MAX = 2**63 - 1


def whole(name: str, value: Any, accepted: str) -> int:
    """`value` as an int that fits the core, or an error that says what is accepted."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name}: got {value!r}; accepted: {accepted}") from None
    if not 0 <= number <= _INT64_MAX:
        raise ArgumentError(f"{name}: got {number}; accepted: {accepted}")
    return number


def real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: got {value!r}; accepted: a number in [0, 1]") from None
