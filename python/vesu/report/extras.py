"""The optional packages of the report, imported when used."""

import importlib
from typing import Any

from vesu.errors import VesuError


class MissingExtraError(VesuError, ImportError):
    """A package of the ``report`` extra is not installed; the message says how to install it."""


def optional(name: str) -> Any:
    """Import a module of the ``report`` extra.

    Raises
    ------
    MissingExtraError
        Not installed, or broken.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"report: needs {name} ({error}); pip install vesu[report]") from error
