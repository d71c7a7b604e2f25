"""What every step of a ladder is, and the checks of its parameters."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

Side: TypeAlias = Literal["probability", "threshold", "mask"]
Array: TypeAlias = NDArray[Any]
Detail: TypeAlias = dict[str, float | int]
"""Figures that only this kind of step has."""


@dataclass(frozen=True)
class Step(ABC):
    """One step of a ladder. Its fields, but for `name`, are its parameters."""

    name: str = field(default="", init=False, repr=False)
    sides: ClassVar[tuple[Side, ...]] = ("mask",)
    """Where in a ladder it may stand."""

    @abstractmethod
    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """What the step makes of a probability (float32) or a mask (uint8), and its figures. The input stays."""


def require(step: Step, key: str, good: bool, accepted: str) -> None:
    """Refuse a parameter that is not good."""
    if not good:
        raise ArgumentError(f"{step.name}.{key}: got {getattr(step, key)!r}; accepted: {accepted}")


def is_whole(value: Any, low: int) -> bool:
    """Whether a value is a whole number, `low` or more."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= int(value) < 2**63


def whole(step: Step, key: str, low: int, words: str = "") -> None:
    """Require a whole number, and keep it as an int."""
    value = getattr(step, key)
    require(step, key, is_whole(value, low), f"a whole number, {low} or more{words}")
    object.__setattr__(step, key, int(value))


def check_connectivity(step: Step) -> None:
    """Require 6, 18 or 26."""
    value = getattr(step, "connectivity")  # noqa: B009  (only some steps have one)
    require(step, "connectivity", is_whole(value, 0) and value in (6, 18, 26), "6, 18 or 26")


def flag(step: Step, key: str) -> None:
    """Require true or false."""
    require(step, key, isinstance(getattr(step, key), bool), "true or false")
