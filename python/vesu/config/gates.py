"""What the gates before a submission demand (R44). None of it changes a mask."""

import math
from dataclasses import dataclass

from vesu.config.checks import require

__all__ = ["NO_BOOK", "GatesConfig"]

MIN_COVERAGE_PCT = 95.0
"""R44's floor; its target is 100."""

NO_BOOK = "none"
"""Instead of a path: the score is compared with nothing."""


@dataclass(frozen=True)
class GatesConfig:
    """What GO takes (R44)."""

    min_coverage_pct: float = MIN_COVERAGE_PCT
    """Share of the discovered pairs, in per cent, that must have been trained on: 95 to 100."""
    best_recorded: str = ""
    """File of the best scores so far; empty is `best_recorded.json` in the cache folder, 'none' compares with none."""
    score_tolerance: float = 0.0
    """How far a score may lie below the best recorded on the same volumes."""

    def __post_init__(self) -> None:
        name, percent = "gates.min_coverage_pct", self.min_coverage_pct
        require(name, percent, MIN_COVERAGE_PCT <= percent <= 100, f"{MIN_COVERAGE_PCT:g} to 100 per cent (R44)")
        require("gates.best_recorded", repr(self.best_recorded), "\0" not in self.best_recorded, "a path, or 'none'")
        name, tolerance = "gates.score_tolerance", self.score_tolerance
        require(name, tolerance, math.isfinite(tolerance) and 0 <= tolerance <= 1, "0 to 1")
