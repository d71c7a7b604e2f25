"""What stands between saved parts and the objects of this run: differences first, changes only when there are none."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vesu.errors import ResumeIncompatible

__all__ = ["Difference", "Plan"]

MAX_NAMED = 20
MAX_TEXT = 200


class Difference(NamedTuple):
    """A field in which the saved state and this run's objects disagree."""

    field: str
    old: Any
    new: Any

    @classmethod
    def of_presence(cls, field: str, saved: bool) -> "Difference":
        """Something that only one side has."""
        return cls(field, "present" if saved else "absent", "absent" if saved else "present")


@dataclass(frozen=True)
class Plan:
    """Differences found, and the changes to make if there are none, in order. Nothing is changed by making a plan."""

    differences: list[Difference]
    changes: list[Callable[[], object]] = field(default_factory=list)

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(self.differences + other.differences, self.changes + other.changes)

    def check(self) -> None:
        """Refuse, naming the fields, if there are differences.

        Raises
        ------
        ResumeIncompatible
            There are.
        """
        if not self.differences:
            return
        told = [
            f"field {d.field}: checkpoint has {_short(d.old)}, this run has {_short(d.new)}" for d in self.differences
        ]
        if len(told) > MAX_NAMED:
            told[MAX_NAMED:] = [f"and {len(told) - MAX_NAMED} more"]
        raise ResumeIncompatible(f"RESUME_INCOMPATIBLE: {'; '.join(told)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
