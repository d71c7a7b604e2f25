"""Whether a run may go on from a checkpoint: field by field, with the old value and the new (R37)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vesu.errors import ResumeIncompatible
from vesu.run.checkpoint.manifest import plain

__all__ = ["ABSENT", "Difference", "compare_compat", "require_compatible"]

ABSENT = "(absent)"
"""Stands for the value of a field that one side does not have."""
_SHOWN = 120


@dataclass(frozen=True)
class Difference:
    """One compatibility field with two values."""

    field: str
    """Dotted where it is nested."""
    old: Any
    """The checkpoint's."""
    new: Any
    """This run's."""

    def __str__(self) -> str:
        return f"field {self.field}: checkpoint has {_shown(self.old)}, this run has {_shown(self.new)}"


def compare_compat(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """The fields in which a checkpoint's ``compat`` and this run's differ, by name.

    Parameters
    ----------
    saved, now : mapping
        Nested mappings of values that JSON can hold. What is the same in JSON is no difference: 1 and 1.0, a tuple and
        a list, another order of members.

    Raises
    ------
    ArgumentError
        A value that JSON cannot hold.

    Examples
    --------
    >>> compare_compat({"seed": 7, "grid": {"l1": [0.1]}}, {"grid": {"l1": (0.1,)}, "seed": 8})
    [Difference(field='seed', old=7, new=8)]
    """
    old, new = (dict(_leaves(plain(each, name, []))) for each, name in ((saved, "saved"), (now, "now")))
    names = sorted(old.keys() | new.keys())
    pairs = [Difference(name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in names]
    return [pair for pair in pairs if not _same(pair.old, pair.new)]


def require_compatible(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on from another run's checkpoint.

    Raises
    ------
    ResumeIncompatible
        The message names every field that differs, with both values.

    Examples
    --------
    >>> require_compatible({"seed": 7}, {"seed": 8})
    Traceback (most recent call last):
    ...
    vesu.errors.ResumeIncompatible: RESUME_INCOMPATIBLE: field seed: checkpoint has 7, this run has 8
    """
    if differences := compare_compat(saved, now):
        raise ResumeIncompatible(f"RESUME_INCOMPATIBLE: {'; '.join(map(str, differences))}")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or (name and not value):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else key)


def _same(old: Any, new: Any) -> bool:
    """Equality in JSON, where ``true`` is no number."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return isinstance(old, bool) == isinstance(new, bool) and bool(old == new)


def _shown(value: Any) -> str:
    text = ABSENT if value == ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
