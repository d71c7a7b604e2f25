"""What keeps a long run: its time, its checkpoints, its memory. None of it changes a result."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vesu.config.checks import require

__all__ = ["CheckpointConfig", "Fallback", "MemoryConfig", "TimeConfig"]

Fallback: TypeAlias = Literal["nx46", "empty"]
"""What stands in the zip for a volume that nothing better has been made of yet (R33)."""

MAX_HEARTBEAT_S = 15.0
"""R34 wants the progress in the log at least this often."""

_HANDLE = re.compile(r"kaggle:[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class TimeConfig:
    """The session's time (R33) and the signs of life in it (R34, R35)."""

    limit_s: float | None = 32_400.0
    """Seconds after which the platform ends the session (9 h); none where nothing does."""
    margin_s: float = 600.0
    """Seconds before the limit at which all must be done."""
    accelerate_eta_s: float = 29_700.0
    """The expected end of the session, in seconds after its start, beyond which the run accelerates (8 h 15)."""
    heartbeat_s: float = 5.0
    """Seconds between two signs of life; above 0, at most 15."""
    stall_factor: float = 4.0
    """A step that takes so many times what was expected of it is suspected to stall."""
    fallback: Fallback = "nx46"
    """First mask of a test volume: 'nx46', the historical scorer's, or 'empty'."""

    def __post_init__(self) -> None:
        limit_s = self.limit_s
        good = limit_s is None or 0 < limit_s < float("inf")
        require("time.limit_s", limit_s, good, "a positive number of seconds, or none")
        good = 0 <= self.margin_s < (limit_s or float("inf"))
        require("time.margin_s", self.margin_s, good, "0 or more seconds, less than time.limit_s")
        good = 0 < self.accelerate_eta_s < float("inf")
        require("time.accelerate_eta_s", self.accelerate_eta_s, good, "a positive number of seconds")
        good = 0 < self.heartbeat_s <= MAX_HEARTBEAT_S
        require("time.heartbeat_s", self.heartbeat_s, good, f"above 0, at most {MAX_HEARTBEAT_S:g} seconds")
        require("time.stall_factor", self.stall_factor, 1 < self.stall_factor < float("inf"), "above 1")


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, how many are kept, and where else they go (R36)."""

    every_iterations: int = 10
    """Iterations of the search, or steps of the student's training, between two light checkpoints."""
    keep: int = 3
    """Generations kept; two at least, so that one may be damaged."""
    publish: str = ""
    """A second home: a folder, or a model as `kaggle:owner/model/framework/variation`; empty is none."""

    def __post_init__(self) -> None:
        require("checkpoint.every_iterations", self.every_iterations, self.every_iterations >= 1, "1 or more")
        require("checkpoint.keep", self.keep, self.keep >= 2, "2 or more generations")
        good = not self.publish.startswith("kaggle:") or _HANDLE.fullmatch(self.publish) is not None
        accepted = "a folder, kaggle:owner/model/framework/variation, or nothing"
        require("checkpoint.publish", repr(self.publish), good and "\0" not in self.publish, accepted)


@dataclass(frozen=True)
class MemoryConfig:
    """When memory is looked at, and which share of it is a warning, which an alert (R42)."""

    warn_fraction: float = 0.8
    """Share of the memory in use from which on the log warns."""
    alert_fraction: float = 0.92
    """Share of the memory in use from which on the log alerts."""
    interval_s: float = 5.0
    """Seconds between two looks."""

    def __post_init__(self) -> None:
        levels = (self.warn_fraction, self.alert_fraction)
        require(
            "memory.warn_fraction, alert_fraction", levels, 0 < levels[0] <= levels[1] <= 1, "0 < warn <= alert <= 1"
        )
        require(
            "memory.interval_s", self.interval_s, 0 < self.interval_s < float("inf"), "a positive number of seconds"
        )
