"""What passes between teachers, student and run: frozen values of numpy arrays; no torch is needed to hold one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Emit", "SoftLabels", "StudentPrediction", "TrainingVolume"]

Emit: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Writes an event: its name, then its fields (``EventLog.emit`` fits through a lambda)."""


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """What an ensemble of teachers says of one volume; all arrays float16 (z, y, x) (R18)."""

    volume_id: str
    mean_logit: NDArray[np.float16]
    """Mean of the teachers' logits of surface."""
    variance: NDArray[np.float16]
    """Variance of the teachers' probabilities, 0 to 0.25."""
    disagreement: NDArray[np.float16]
    """Mutual information between the prediction and the choice of teacher, in bits, 0 (all alike) to 1."""
    teachers: tuple[str, ...]
    """Names of the teachers, in the order in which they were folded."""

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Weight of a pseudo-target, 0 to 1: one where all teachers say the same."""
        weight: NDArray[np.float32] = np.clip(np.float32(1) - self.disagreement.astype(np.float32), 0, 1)
        return weight


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """A volume that a student learns from, or is validated on."""

    volume_id: str
    image: NDArray[Any]
    """CT (z, y, x), uint8, uint16 or float32, as read."""
    label: NDArray[np.uint8] | None = None
    """0 background, 1 surface, 2 unlabelled; None where there is no ground truth."""
    soft: SoftLabels | None = None
    """The teachers' answer; None without teachers."""


@dataclass(frozen=True, eq=False)
class StudentPrediction:
    """The student's answer for one volume, both float32 (z, y, x)."""

    probability: NDArray[np.float32]
    """Probability of surface, in [0, 1]."""
    uncertainty: NDArray[np.float32]
    """The student's own estimate of its error, in [0, 1]."""
