"""Reading a JSON object that somebody else may have written."""

import json
from pathlib import Path
from typing import Any

from vesu.errors import FileError, FormatError

__all__ = ["read_object"]


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file.

    Raises
    ------
    FormatError
        Not a JSON object.
    FileError
        It cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path.name}: got a {type(found).__name__}; accepted: a JSON object")
    return found
