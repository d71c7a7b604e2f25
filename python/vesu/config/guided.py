"""The guided phase (R24): alignment to a reference mask of one test volume. Off unless a reference is named."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vesu.config.checks import require

__all__ = ["GuidedConfig", "GuidedTarget"]

GuidedTarget: TypeAlias = Literal["auto", "student", "calibration"]
GuidedStage: TypeAlias = Literal["head", "decoder", "encoder"]


@dataclass(frozen=True)
class GuidedConfig:
    """What is aligned to which reference, and how much of the volume is kept out of it (R24)."""

    reference: str = ""
    """A mask TIFF of one test volume: 0, 1, and 2 where it says nothing; empty is no guided phase."""
    volume_id: str = ""
    """Which test volume it is of; empty reads the id from the file's name."""
    target: GuidedTarget = "auto"
    """'student' aligns the student and then the threshold's rule, 'calibration' the rule alone; 'auto' what counts."""
    held_out: float = 0.25
    """Length of the part of the volume that is kept out and judges, as a share of the volume's."""
    stage: GuidedStage = "decoder"
    """What of the student is trained: the head, the decoder too, or everything ('encoder')."""
    steps: int = 60
    """Optimizer steps of the student's alignment."""
    learning_rate: float = 5e-4
    """At the top of the schedule of those steps."""

    def __post_init__(self) -> None:
        good = "\0" not in self.reference
        require("guided.reference", repr(self.reference), good, "the path of a mask TIFF, or nothing")
        good = bool(self.reference) or not self.volume_id
        accepted = "an id beside guided.reference, or nothing"
        require("guided.volume_id", repr(self.volume_id), good, accepted)
        names = get_args(GuidedTarget)
        require("guided.target", repr(self.target), self.target in names, " or ".join(map(repr, names)))
        require("guided.held_out", self.held_out, 0.05 <= self.held_out <= 0.5, "0.05 to 0.5 of the volume's length")
        stages = get_args(GuidedStage)
        require("guided.stage", repr(self.stage), self.stage in stages, " or ".join(map(repr, stages)))
        require("guided.steps", self.steps, 1 <= self.steps <= 1 << 20, f"1 to {1 << 20}")
        good = math.isfinite(self.learning_rate) and self.learning_rate > 0
        require("guided.learning_rate", self.learning_rate, good, "a positive number")
