"""How much of a run one page shows: what is cut is said, and the file that holds the rest is named."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")

MAX_PAGE_BYTES = 9_500_000
"""Of the whole page: under 10 MB with room to spare, whatever lies in the folder."""


@dataclass(frozen=True)
class Limits:
    """Far beyond any run so far."""

    top: int = 20
    candidates: int = 2000
    rows: int = 1000
    steps: int = 250
    """Volumes whose steps are listed one by one."""
    text: int = 200_000
    """Characters of one value; a JSON file is one value."""
    pictured: int = 12
    opened: int = 2

    def few(self, items: Iterable[T]) -> list[T]:
        """The first of them, as many as a table may have rows."""
        return list(itertools.islice(items, self.rows))

    def tightened(self) -> "Limits":
        """A quarter of everything that grows with the run."""
        return replace(
            self,
            candidates=max(self.top, self.candidates // 4),
            rows=max(8, self.rows // 4),
            steps=max(4, self.steps // 4),
            text=max(200, self.text // 8),
        )

    @property
    def tightest(self) -> bool:
        """Whether nothing is left to cut."""
        return self == self.tightened()
