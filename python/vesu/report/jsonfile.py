"""JSON files read with their types checked: a wrong value is an error that names the file and the field."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vesu.errors import FileError, FormatError


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not JSON")


def parse_json(data: bytes | str, where: str) -> Any:
    """Parse one JSON text; anything wrong with it is a :class:`FormatError` that starts with ``where``."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise FormatError(f"{where}: malformed JSON: {error}") from error


def read_bytes(path: Path) -> bytes | None:
    """The bytes of a file, or None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


class Node:
    """One JSON object of a file, read field by field.

    Every reader returns None for a field that is absent or null ("not recorded") and raises
    :class:`FormatError` for one of another type.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{where}: got {type(values).__name__}; accepted: a JSON object")
        self.values: Mapping[str, Any] = values
        self.where = where

    @classmethod
    def read(cls, path: Path) -> "Node | None":
        """The object in a JSON file, or None where there is no such file."""
        data = read_bytes(path)
        return None if data is None else cls(parse_json(data, str(path)), str(path))

    def _wrong(self, key: str, accepted: str) -> FormatError:
        got = repr(self.values[key])
        return FormatError(f"{self.where}: {key}: got {got[:80]}; accepted: {accepted}")

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def integer(self, key: str) -> int | None:
        """A whole number; canonical JSON's decimal strings for those beyond 2^53 count too."""
        value = self.values.get(key)
        if isinstance(value, str) and len(value) < 40 and value.removeprefix("-").isdecimal():
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self._wrong(key, "a whole number")
        return value

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if not math.isfinite(result):
            raise self._wrong(key, "a finite number")
        return result

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def child(self, key: str) -> "Node | None":
        """A nested object."""
        value = self.values.get(key)
        return None if value is None else Node(value, f"{self.where}: {key}")

    def _list(self, key: str) -> list[Any]:
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value or []

    def children(self, key: str) -> Iterator["Node"]:
        """The objects of a list."""
        for index, value in enumerate(self._list(key)):
            yield Node(value, f"{self.where}: {key}[{index}]")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(key, "a list of strings")
        return tuple(values)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        items = Node({str(index): value for index, value in enumerate(self._list(key))}, f"{self.where}: {key}")
        result = [items.number(name) for name in items.values]
        return tuple(value for value in result if value is not None)

    def mapping_of_numbers(self, key: str) -> dict[str, float]:
        """An object whose values are numbers; those that are null are left out."""
        node = self.child(key)
        if node is None:
            return {}
        pairs = ((name, node.number(name)) for name in node.values)
        return {name: value for name, value in pairs if value is not None}

    def numbers_of(self, key: str) -> dict[str, float]:
        """The numbers of an object, whatever their names; its other values are somebody else's."""
        node = self.child(key)
        if node is None:
            return {}
        pairs = ((name, node.number(name)) for name, value in node.values.items() if isinstance(value, int | float))
        return {name: value for name, value in pairs if value is not None}

    def values_of(self, key: str) -> Mapping[str, Any]:
        """An object of open-ended values, as it stands; empty where there is none."""
        child = self.child(key)
        return {} if child is None else child.values

    def shape(self) -> tuple[int, ...]:
        """The field ``shape``: sizes along z, y, x."""
        return tuple(int(size) for size in self.numbers("shape"))
