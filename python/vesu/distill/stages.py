"""The stages of a student's training: what each unfreezes, what it learns from, how fast (R20)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vesu.config import StudentConfig
from vesu.distill.patches import PreparedVolume

__all__ = ["DISTIL", "Stage", "plan_stages"]

DISTIL = "distil"
WARM_UP = 0.05
"""Part of a stage in which the learning rate rises."""
LOWEST = 0.01
"""Learning rate at the end of a stage, as a part of its top."""
LATER_STAGES = 1 / 3
"""Learning rate's top in a stage, as a part of the one before."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage, from its first step to its last."""

    number: int
    name: str
    """'distil', 'head', 'decoder' or 'encoder': what is trained, see :func:`vesu.distill.student.stage_parameters`."""
    config: StudentConfig
    """Of its loss: fine-tuning has no soft-label term, unless it has no true labels."""
    volumes: tuple[PreparedVolume, ...]
    steps: int
    top: float
    """Highest learning rate."""

    def learning_rate(self, step: int) -> float:
        """Of the step with this number, from 0: a linear warm-up, then a half cosine down to a hundredth.

        Examples
        --------
        >>> from vesu.config import StudentConfig
        >>> stage = Stage(0, "distil", StudentConfig(), (), steps=100, top=1.0)
        >>> [round(stage.learning_rate(step), 3) for step in (0, 4, 5, 99)]
        [0.2, 1.0, 1.0, 0.01]
        """
        rising = max(1, round(WARM_UP * self.steps))
        if step < rising:
            return self.top * (step + 1) / rising
        part = min(1.0, (step - rising) / max(1, self.steps - 1 - rising))
        return self.top * (LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * part)))


def plan_stages(config: StudentConfig, volumes: Sequence[PreparedVolume]) -> tuple[Stage, ...]:
    """The stages that a configuration asks for, with what each learns from.

    Parameters
    ----------
    config : StudentConfig
    volumes : sequence of PreparedVolume
        With labels, soft labels, or both.

    Returns
    -------
    tuple of Stage
        'distil' learns from all volumes, the others from those with true labels; where no volume has any, they go on
        with the soft ones.

    Notes
    -----
    R20. Fine-tuning leaves the soft-label term out: the teachers' answer is in the weights that it begins with.

    Examples
    --------
    >>> from vesu.config import StudentConfig
    >>> [(stage.name, round(stage.top, 6)) for stage in plan_stages(StudentConfig(preset="P2"), [])]
    [('distil', 0.002), ('head', 0.000667), ('decoder', 0.000222)]
    """
    labelled = tuple(volume for volume in volumes if volume.volume.label is not None)
    tuning = replace(config, soft_weight=0.0) if labelled else config
    return tuple(
        Stage(
            number=number,
            name=name,
            config=config if name == DISTIL else tuning,
            volumes=tuple(volumes) if name == DISTIL else labelled or tuple(volumes),
            steps=steps,
            top=config.learning_rate * LATER_STAGES**number,
        )
        for number, (name, steps) in enumerate(zip(config.stages, config.stage_steps, strict=True))
    )
