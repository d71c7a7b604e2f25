"""A historical scorer in the place of the search: its masks, and its scores where there are labels (R32)."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vesu import baselines
from vesu.config import RunConfig
from vesu.distill.fusion import fuse
from vesu.run.validation import OnScored, validation_entry
from vesu.segmentation import Segmentation, segment
from vesu.segmentation.diagnostics import OnStep

__all__ = ["segment_volume", "validate", "volume_score"]

Array = NDArray[Any]


def segment_volume(
    image: Array,
    config: RunConfig,
    *,
    on_step: OnStep | None = None,
    student: tuple[float, NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float32], Segmentation]:
    """The score in [0, 1] and the mask of one CT volume by the configured baseline.

    ``student``: a weight and a probability that is fused with the score (R25); the threshold is the baseline's own.
    """
    name = cast("baselines.Baseline", config.pipeline)
    settings = getattr(config, name)
    score = volume_score(image, config)
    if student is not None:
        weight, probability = student
        score = fuse(probability, score, weight)
    ladder = baselines.ladder(name, settings)
    return score, segment(score, ladder, n_threads=config.n_threads, topology=True, on_step=on_step)


def volume_score(image: Array, config: RunConfig) -> NDArray[np.float32]:
    """The configured baseline's score of one CT volume, in [0, 1]."""
    name = cast("baselines.Baseline", config.pipeline)
    return baselines.score(image, name, getattr(config, name), n_threads=config.n_threads)


def validate(
    volumes: Iterable[tuple[str, tuple[Array, Array]]],
    config: RunConfig,
    on_volume: Callable[[str], None],
    on_scored: OnScored | None = None,
    student: Callable[[str], tuple[float, NDArray[np.float32]]] | None = None,
) -> dict[str, Any]:
    """The validation entry of ``summary.json`` for the configured baseline.

    Parameters
    ----------
    volumes : iterable of (str, (image, label))
        Ids and pairs, each (z, y, x); all are held in memory together.
    config : RunConfig
        With a baseline as its pipeline.
    on_volume : callable
        Called with each id when its mask is there.
    on_scored : callable, optional
        Gets each volume with its mask, when that is scored.
    student : callable, optional
        Gives the student's weight and its probability for a volume id.
    """
    masks, labels, images = {}, {}, {}
    for volume_id, (image, label) in volumes:
        _, result = segment_volume(image, config, student=None if student is None else student(volume_id))
        masks[volume_id], labels[volume_id], images[volume_id] = result.mask, label, image
        on_volume(volume_id)
    return validation_entry(masks, labels, images, n_threads=config.n_threads, on_scored=on_scored)
