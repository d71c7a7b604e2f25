"""Reading a JSON object that somebody else may have written."""

import errno
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vesu.errors import MISPLACED, FileError, FormatError, VesuError

__all__ = ["read_object", "read_object_if_any", "refusing_misplaced"]


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file; all of its numbers are finite.

    Raises
    ------
    FormatError
        Not a JSON object.
    FileError
        It cannot be read.
    """
    try:
        found = json.loads(path.read_bytes(), parse_constant=_finite, parse_float=_finite)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: got a {type(found).__name__}; accepted: a JSON object")
    return found


def read_object_if_any(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file. Raises as :func:`read_object`."""
    try:
        return read_object(path)
    except FileError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


@contextmanager
def refusing_misplaced(where: object) -> Iterator[None]:
    """Within it values are taken out of JSON: what is missing or of another kind is refused.

    Raises
    ------
    FormatError
        The message begins with ``where``. A VesuError passes as it is.

    Examples
    --------
    >>> with refusing_misplaced("plan.json"):
    ...     int({"seed": 1e999}["seed"])
    Traceback (most recent call last):
    vesu.errors.FormatError: plan.json: a missing or misplaced entry: cannot convert float infinity to integer
    """
    try:
        yield
    except VesuError:
        raise
    except MISPLACED as error:
        told = f"no {error}" if isinstance(error, KeyError) else error
        raise FormatError(f"{where}: a missing or misplaced entry: {told}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text}")
    return value
