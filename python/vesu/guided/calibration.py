"""The threshold's rule fitted to a reference: the alignment that needs no torch (R24)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vesu.calibration import ThresholdCalibrator
from vesu.guided.measures import agreement
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
    Requirement R24. The rule is fitted by the Dice of its thresholds; which of the two rules is taken decides the Dice
    of the masks that the whole ladder makes with them.

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
    fitted = calibrator.fit([probability], [reference], spread).rule_

    def dice(rule: ThresholdRule) -> float:
        mask = segment(probability, ladder.with_rule(rule), uncertainty=uncertainty, n_threads=n_threads).mask
        return agreement(mask, reference).dice

    own = ladder.threshold.rule
    return fitted if dice(fitted) > dice(own) else own
