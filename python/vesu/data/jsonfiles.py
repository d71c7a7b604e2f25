"""Reading a JSON object that somebody else may have written."""

import errno
import json
from pathlib import Path
from typing import Any

from vesu.errors import FileError, FormatError

__all__ = ["read_object", "read_object_if_any"]


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises
    ------
    FormatError
        Not a JSON object.
    FileError
        It cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
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
