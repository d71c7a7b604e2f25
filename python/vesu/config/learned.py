"""Teachers and student (R18-R20, R25, R26): what is learned with torch. Reading these settings needs no torch."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vesu.config.checks import require

__all__ = ["PRESETS", "Preset", "StudentConfig", "StudentUse", "TeacherConfig"]

StudentUse: TypeAlias = Literal["auto", "on", "off"]
"""'auto' trains a student where teachers are present, 'on' always, 'off' never."""

Preset: TypeAlias = Literal["P1", "P2", "P3"]

PRESETS: dict[Preset, tuple[str, ...]] = {
    "P1": ("distil", "head"),
    "P2": ("distil", "head", "decoder"),
    "P3": ("distil", "head", "decoder", "encoder"),
}
"""Stages of each step of the historical campaign (R26): P1 hardly fine-tunes, P2 in part, P3 wholly and calibrates."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen ensemble and how it is asked (R18)."""

    folder: str = ""
    """Where the teachers lie, a folder each; empty looks for them beside the data."""
    nominal: int = 9
    """How many are expected; fewer are allowed and reported as coverage, none is the hard fail where they are due."""
    overlap: float = 0.5
    """Overlap of neighbouring windows, as a part of a window; in [0, 1)."""
    flips: bool = True
    """Mean over the eight flips of a window."""
    batch: int = 1
    """Windows at a time; halved where the memory does not suffice, which is an event."""

    def __post_init__(self) -> None:
        require("teachers.nominal", self.nominal, 1 <= self.nominal <= 1024, "1 to 1024")
        require("teachers.overlap", self.overlap, 0 <= self.overlap < 1, "0 or more, below 1")
        require("teachers.batch", self.batch, 1 <= self.batch <= 4096, "1 to 4096 windows")


@dataclass(frozen=True)
class StudentConfig:
    """The student, its training and its part in the result (R19, R20, R25)."""

    use: StudentUse = "auto"
    """'auto' where teachers are present, 'on' always, 'off' never."""
    preset: Preset = "P3"
    """Which stages are trained: P1 distils and tunes the head, P2 the decoder too, P3 everything."""
    device: Device = "auto"
    """'auto' takes CUDA where a kernel runs, else the CPU, and logs it; 'cuda' refuses where none runs."""
    precision: Precision = "fp32"
    """Of the products of a training step on CUDA; the weights stay float32."""
    stem: Literal["3d", "2.5d"] = "2.5d"
    """'2.5d' begins with convolutions within slices, '3d' with cubes."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each level, finest first."""
    patch: tuple[int, int, int] = (64, 64, 64)
    """Voxels of a training patch (z, y, x); each a multiple of 2 ** (levels - 1)."""
    batch: int = 2
    """Patches of one forward pass."""
    accumulate: int = 1
    """Forward passes of one step."""
    steps: int = 400
    """Optimizer steps of the first stage, and of each later one unless `tuning_steps` says otherwise."""
    tuning_steps: int | None = None
    """Optimizer steps of each later stage."""
    validate_every: int = 100
    """Steps between two validations."""
    patience: int = 3
    """Validations without gain after which a stage ends."""
    learning_rate: float = 2e-3
    """At the top of the schedule of the first stage; every later stage has a third of the one before."""
    ema_decay: float = 0.99
    """Of the averaged weights, which are the student; 0 averages nothing."""
    temperature: float = 2.0
    """Softens the teachers' logits and the student's in the soft-label term."""
    soft_weight: float = 1.0
    """Weight of the soft-label term; the term of the true labels has 1."""
    skeleton_weight: float = 0.5
    """Weight of the skeleton-recall term."""
    continuity_weight: float = 0.1
    """Weight of the inter-slice continuity term."""
    overlap: float = 0.5
    """Of the windows that a volume is predicted in."""
    flips: bool = True
    """Mean over the eight flips of a window in prediction."""
    fusion: float | Literal["auto"] = "auto"
    """Weight of the student beside the search's ensemble, 0 to 1; 'auto' chooses it on the validation volumes."""
    compile: bool = False
    """Compile the network with torch (CUDA)."""

    def __post_init__(self) -> None:
        require("student.use", repr(self.use), self.use in get_args(StudentUse), "'auto', 'on' or 'off'")
        require("student.preset", repr(self.preset), self.preset in PRESETS, "'P1', 'P2' or 'P3'")
        good = 2 <= len(self.channels) <= 6 and all(1 <= c <= 1024 for c in self.channels)
        require("student.channels", self.channels, good, "2 to 6 levels of 1 to 1024 channels")
        coarsest = 2 ** (len(self.channels) - 1)
        good = len(self.patch) == 3 and all(0 < n <= 1024 and n % coarsest == 0 for n in self.patch)
        require("student.patch", self.patch, good, f"three multiples of {coarsest} up to 1024")
        for name in ("batch", "accumulate", "steps", "tuning_steps", "validate_every", "patience"):
            value = getattr(self, name)
            if name == "tuning_steps" and value is None:
                continue
            require(f"student.{name}", value, 1 <= value <= 1 << 24, f"1 to {1 << 24}")
        for name in ("soft_weight", "skeleton_weight", "continuity_weight"):
            value = getattr(self, name)
            require(f"student.{name}", value, 0 <= value < math.inf, "0 or more")
        good = math.isfinite(self.learning_rate) and self.learning_rate > 0
        require("student.learning_rate", self.learning_rate, good, "a positive number")
        require("student.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "0 or more, below 1")
        require("student.temperature", self.temperature, 0 < self.temperature < math.inf, "a positive number")
        require("student.overlap", self.overlap, 0 <= self.overlap < 1, "0 or more, below 1")
        good = self.fusion == "auto" or (isinstance(self.fusion, float) and 0 <= self.fusion <= 1)
        require("student.fusion", self.fusion, good, "'auto' or 0 to 1")

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages of the preset, in order."""
        return PRESETS[self.preset]

    @property
    def stage_steps(self) -> tuple[int, ...]:
        """Optimizer steps of each of `stages`."""
        later = self.steps if self.tuning_steps is None else self.tuning_steps
        return (self.steps, *[later] * (len(self.stages) - 1))
