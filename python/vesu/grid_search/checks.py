"""Checks of what comes in: arrays to the kernels' types, numbers to their ranges; errors name the argument.

Some wordings are scikit-learn's own: its tools and its users look for them.
"""

import math
import operator
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.data.machine import available_memory_bytes
from vesu.errors import ArgumentError, MemoryLimitError
from vesu.grid_search.samples import Samples

__all__ = [
    "Samples",
    "class_weights",
    "classes_of",
    "float32_rows",
    "integer",
    "labels_of",
    "number",
    "penalties_of",
    "samples_of",
    "validation_samples",
]


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument whose elements are of a type that no number can be made of."""


def float32_rows(name: str, values: object) -> NDArray[np.float32]:
    """``values`` as C-ordered float32 (n_samples, n_features); copies only where it must."""
    accepted = "accepted: real numbers of shape (n_samples, n_features), none empty"
    if hasattr(values, "toarray") and "sparse" in type(values).__module__:
        raise ArgumentError(f"{name}: got the sparse {type(values).__name__}; {accepted}, dense (call .toarray())")
    array = np.asarray(values)
    got = f"{name}: got shape {array.shape} of {array.dtype}"
    if array.dtype.kind == "c":
        raise ArgumentError(f"{got}: Complex data not supported; {accepted}")
    if array.dtype.kind == "O":
        array = _numbers(got, array, accepted)
    if array.dtype.kind not in "fiub":
        raise ArgumentError(f"{got}; {accepted}")
    if array.ndim == 1:
        raise ArgumentError(f"{got}; {accepted}. Reshape your data: (-1, 1) is one feature, (1, -1) one sample")
    if array.ndim != 2:
        raise ArgumentError(f"{got}; {accepted}")
    for count, what in zip(array.shape, ("sample(s)", "feature(s)"), strict=True):
        if count == 0:
            empty = f"0 {what} (shape={array.shape}) while a minimum of 1 is required."
            raise ArgumentError(f"{got}: {empty} {accepted}")
    if array.dtype != np.float32 or not (array.flags.c_contiguous and array.flags.aligned):
        _refuse_copy(got, 4 * array.size)
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused with its position
        return np.require(array, np.float32, ["C", "A"])


def _refuse_copy(got: str, needed: int) -> None:
    """Refuse a copy that the machine has no room for; small ones are not worth the question."""
    available = None if needed < 1 << 24 else available_memory_bytes()
    if available is not None and needed > available:
        accepted = "C-ordered float32, which is not copied, or fewer samples"
        raise MemoryLimitError(f"{got}, whose float32 copy needs {needed} bytes of {available}; accepted: {accepted}")


def _numbers(got: str, array: NDArray[Any], accepted: str) -> NDArray[np.float64]:
    try:
        return array.astype(np.float64)
    except TypeError as error:
        raise ArgumentTypeError(f"{got}: {error}; {accepted}") from error
    except ValueError as error:
        raise ArgumentError(f"{got}: {error}; {accepted}") from error


def samples_of(
    names: tuple[str, str, str],
    X: ArrayLike,
    labels: NDArray[Any],
    gradient: ArrayLike | None,
    classes: NDArray[Any],
) -> Samples:
    """Samples of these two classes; one of them may be absent."""
    x = float32_rows(names[0], X)
    if len(labels) != len(x):
        raise ArgumentError(f"{names[1]}: got {len(labels)} labels; accepted: {len(x)}, one a row of {names[0]}")
    positive = labels == classes[1]
    if not (positive | (labels == classes[0])).all():
        raise ArgumentError(f"{names[1]}: got classes {_shown(labels)}; accepted: {classes.tolist()}")
    slopes = None if gradient is None else float32_rows(names[2], gradient)
    if slopes is not None and slopes.shape != x.shape:
        raise ArgumentError(f"{names[2]}: got shape {slopes.shape}; accepted: the shape of {names[0]}, {x.shape}")
    return Samples(x, positive.astype(np.uint8), slopes)


def validation_samples(
    train: Samples, classes: NDArray[Any], X: ArrayLike | None, y: ArrayLike | None, gradient: ArrayLike | None
) -> Samples | None:
    """Validation data of the training data's kind, or None where none are given."""
    if X is None and y is None and gradient is None:
        return None
    if X is None or y is None or (gradient is None) != (train.gradient is None):
        given = "gradient_val, " if train.gradient is not None else ""
        raise ArgumentError(f"X_val: got a part of the validation data; accepted: X_val, {given}y_val, or none")
    labels = labels_of("y_val", y)
    samples = samples_of(("X_val", "y_val", "gradient_val"), X, labels, gradient, classes)
    if 0 in samples.class_sizes():
        raise ArgumentError(f"y_val: got classes {_shown(labels)}; accepted: both classes of y and no other")
    if samples.x.shape[1] != train.x.shape[1]:
        got, wanted = samples.x.shape[1], train.x.shape[1]
        raise ArgumentError(f"X_val: got {got} columns; accepted: {wanted}, as in X")
    return samples


def _shown(labels: NDArray[Any]) -> str:
    return ", ".join(map(str, np.unique(labels)[:5].tolist()))


def labels_of(name: str, y: ArrayLike | None) -> NDArray[Any]:
    """Labels as a 1-D array of numbers, booleans or strings; a column is flattened with a warning."""
    accepted = "accepted: numbers, booleans or strings of shape (n_samples,)"
    if y is None:
        raise ArgumentError(f"{name}: the search requires y to be passed, but the target y is None; {accepted}")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        text = "A column-vector y was passed when a 1d array was expected; its one column is taken"
        warnings.warn(text, _column_warning(), stacklevel=4)
        labels = labels[:, 0]
    if labels.dtype.kind == "O" and not all(isinstance(label, (str, int, float, np.number)) for label in labels.flat):
        raise ArgumentError(f"{name}: got shape {labels.shape} of object: Unknown label type: unknown; {accepted}")
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "biufUSO":
        complex_too = ": Complex data not supported" if labels.dtype.kind == "c" else ""
        raise ArgumentError(f"{name}: got shape {labels.shape} of {labels.dtype}{complex_too}; {accepted}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = ~np.isfinite(labels)
        got = f"{np.count_nonzero(bad)} NaN or infinite labels, the first at {int(bad.argmax())}"
        raise ArgumentError(f"{name}: got {got}; accepted: two classes")
    return labels


def _column_warning() -> type[Warning]:
    """scikit-learn's own warning where it is loaded: its users filter by class."""
    exceptions = sys.modules.get("sklearn.exceptions")
    return UserWarning if exceptions is None else exceptions.DataConversionWarning


def classes_of(name: str, labels: NDArray[Any]) -> NDArray[Any]:
    """The two classes of the labels, ascending."""
    try:
        classes = np.unique(labels)
    except TypeError as error:
        raise ArgumentError(f"{name}: Unknown label type: unknown ({error}); accepted: exactly two classes") from error
    if len(classes) == 2:
        return classes
    shown = ", ".join(map(str, classes[:5].tolist()))
    why = ""
    if len(classes) > 2:
        fractional = classes.dtype.kind == "f" and bool((classes != np.floor(classes)).any())
        kind = "continuous" if fractional else "multiclass"
        unknown = "Unknown label type: continuous. " if fractional else ""
        why = f": {unknown}Only binary classification is supported. The type of the target is {kind}."
    raise ArgumentError(f"{name}: got {len(classes)} class(es) ({shown}){why}; accepted: exactly two")


def class_weights(given: object, classes: NDArray[Any], sizes: tuple[int, int]) -> tuple[float, float]:
    """Loss factors of both classes from None, "balanced" or a mapping of class to weight."""
    if given is None:
        return 1.0, 1.0
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in classes.tolist()]
        if unknown:
            raise ArgumentError(f"class_weight: got the class {unknown[0]!r}; accepted: {classes.tolist()}")
        negative, positive = (number("class_weight", given.get(label, 1.0)) for label in classes.tolist())
        if min(negative, positive) < 0:
            raise ArgumentError(f"class_weight: got {given!r}; accepted: weights >= 0")
        return negative, positive
    if not (isinstance(given, str) and given == "balanced"):
        raise ArgumentError(f"class_weight: got {given!r}; accepted: None, 'balanced' or a dict of class to weight")
    if 0 in sizes:
        raise ArgumentError(f"class_weight: got 'balanced' with class sizes {sizes}; accepted: samples of both classes")
    negative, positive = (sum(sizes) / (2 * size) for size in sizes)
    return negative, positive


def penalties_of(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        array = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: got {values!r}; accepted: numbers >= 0") from error
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array) & (array >= 0)).all():
        raise ArgumentError(f"{name}: got {values!r}; accepted: one or more finite numbers >= 0")
    return tuple(float(value) for value in array)


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
