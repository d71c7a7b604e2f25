"""Packages that only some teachers need: imported when used, missed with a clear word."""

import importlib
from typing import Any

from vesu.errors import VesuError

__all__ = ["MissingPackageError", "need_package"]


class MissingPackageError(VesuError, ImportError):
    """A package that this work needs is not installed, or broken; the message has the command that mends it."""


def need_package(module: str, extra: str) -> Any:
    """The module of that dotted name.

    Parameters
    ----------
    module : str
        ``"monai.networks.nets"`` for example.
    extra : str
        The extra of vesu that brings it.

    Raises
    ------
    MissingPackageError
        It cannot be imported.

    Examples
    --------
    >>> need_package("no_such_package", "teachers")
    Traceback (most recent call last):
    vesu.distill.packages.MissingPackageError: no_such_package cannot be imported (...); pip install 'vesu[teachers]'
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing or damaged
        raise MissingPackageError(f"{module} cannot be imported ({error}); pip install 'vesu[{extra}]'") from error
