"""Checks of what comes in: arrays to the kernels' types, numbers to their ranges; errors name the argument."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError

__all__ = ["Samples", "float32_rows", "integer", "labels_of", "number", "penalties_of", "samples_of"]


@dataclass(frozen=True)
class Samples:
    """Checked arrays of one data set: x and gradient float32 (n, F), y uint8 (n,) of 0 and 1."""

    x: NDArray[np.float32]
    y: NDArray[np.uint8]
    gradient: NDArray[np.float32] | None

    def class_sizes(self) -> tuple[int, int]:
        positives = int(np.count_nonzero(self.y))
        return len(self.y) - positives, positives


def float32_rows(name: str, values: object) -> NDArray[np.float32]:
    """``values`` as C-ordered float32 (n_samples, n_features); copies only where it must."""
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        got = f"shape {array.shape} of {array.dtype}"
        raise ArgumentError(f"{name}: got {got}; accepted: real numbers of shape (n_samples, n_features), none empty")
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused with its position
        return np.require(array, np.float32, ["C", "A"])


def samples_of(
    names: tuple[str, str, str], X: ArrayLike, positive: NDArray[Any], gradient: ArrayLike | None
) -> Samples:
    x = float32_rows(names[0], X)
    if len(positive) != len(x):
        raise ArgumentError(f"{names[1]}: got {len(positive)} labels; accepted: {len(x)}, one a row of {names[0]}")
    slopes = None if gradient is None else float32_rows(names[2], gradient)
    if slopes is not None and slopes.shape != x.shape:
        raise ArgumentError(f"{names[2]}: got shape {slopes.shape}; accepted: the shape of {names[0]}, {x.shape}")
    return Samples(x, positive.astype(np.uint8), slopes)


def labels_of(name: str, y: ArrayLike) -> NDArray[Any]:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "biufUS":
        got = f"shape {labels.shape} of {labels.dtype}"
        raise ArgumentError(f"{name}: got {got}; accepted: numbers, booleans or strings of shape (n_samples,)")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = ~np.isfinite(labels)
        got = f"{np.count_nonzero(bad)} NaN or infinite labels, the first at {int(bad.argmax())}"
        raise ArgumentError(f"{name}: got {got}; accepted: two classes")
    return labels


def penalties_of(name: str, values: Sequence[float]) -> list[float]:
    try:
        array = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: got {values!r}; accepted: numbers >= 0") from error
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array) & (array >= 0)).all():
        raise ArgumentError(f"{name}: got {values!r}; accepted: one or more finite numbers >= 0")
    return [float(value) for value in array]


def integer(name: str, value: object, low: int, high: int) -> int:
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ArgumentError(f"{name}: got {value!r}; accepted: an integer, {low} to {high}") from error
    if not low <= found <= high:
        raise ArgumentError(f"{name}: got {found}; accepted: {low} to {high}")
    return found


def number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"{name}: got {value!r}; accepted: a number")
    found = float(value)
    if not math.isfinite(found):
        raise ArgumentError(f"{name}: got {found}; accepted: a finite number")
    return found
