"""The threshold's rule fitted to a reference: the alignment that needs no torch (R24)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vesu.calibration import ThresholdCalibrator
from vesu.guided.measures import Agreement, agreement
from vesu.guided.reference import density_of
from vesu.segmentation import SegmentConfig, ThresholdRule, segment
from vesu.segmentation.threshold import Mode

__all__ = ["align_rule"]


def align_rule(
    probability: NDArray[np.float32],
    reference: NDArray[np.uint8],
    ladder: SegmentConfig,
    *,
    modes: Sequence[Mode] = ("quantile", "ratio", "fixed"),
    low_factors: Sequence[float] = (0.85, 0.7, 0.5),
    uncertainty: NDArray[np.float32] | None = None,
    n_threads: int | None = None,
) -> ThresholdRule:
    """The threshold's rule that agrees best with a reference, or the ladder's own where no other agrees better.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1]; the part of a volume that is aligned to.
    reference : ndarray of uint8, same shape
        0, 1, and 2 where nothing is known.
    ladder : SegmentConfig
        Whose rule is to be aligned; its other steps stay.
    modes, low_factors : sequence
        What is tried, as :class:`vesu.calibration.ThresholdCalibrator` takes it.
    uncertainty : ndarray of float32, same shape, optional
        The ensemble's spread, for a ladder with a step `Suppress`.
    n_threads : int, optional
        Threads; the result does not depend on them.

    Returns
    -------
    ThresholdRule

    Raises
    ------
    ArgumentError, DataError
        As the calibrator refuses arrays.

    Notes
    -----
    Requirement R24. Tried are the best rule of each mode by the Dice of its thresholds, and the quantile that is as
    dense as the reference; which of them is taken decides the Dice of the masks that the whole ladder makes with them,
    among those whose density is no further from the reference's than with the ladder's own rule.

    Examples
    --------
    >>> from vesu.segmentation import Threshold
    >>> reference = np.zeros((6, 8, 8), np.uint8)
    >>> reference[:, 2:4] = 1
    >>> probability = np.where(reference == 1, 0.6, 0.2).astype(np.float32)
    >>> ladder = SegmentConfig((Threshold(ThresholdRule("fixed", 0.9, 1.0)),))
    >>> rule = align_rule(probability, reference, ladder, modes=["fixed"])
    >>> 0.2 < rule.value <= 0.6
    True
    """
    spread = None if uncertainty is None else [uncertainty]
    calibrator = ThresholdCalibrator(
        ladder, modes=tuple(modes), low_factors=tuple(low_factors), metric="f1", n_threads=n_threads
    )
    tried = [score.rule for score in calibrator.fit([probability], [reference], spread).scores_]
    # As dense as the reference: where the model is weak, the best Dice is that of a mask far too dense.
    tried.append(ThresholdRule("quantile", 1.0 - density_of(reference), 1.0))

    def measured(rule: ThresholdRule) -> Agreement:
        mask = segment(probability, ladder.with_rule(rule), uncertainty=uncertainty, n_threads=n_threads).mask
        return agreement(mask, reference)

    best, own = ladder.threshold.rule, measured(ladder.threshold.rule)
    dice = own.dice
    for rule in tried:
        found = measured(rule)
        if found.dice > dice and found.density_gap <= own.density_gap:
            best, dice = rule, found.dice
    return best
