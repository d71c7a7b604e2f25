"""How good a student is on volumes held out, and when a stage has nothing more to give (R20)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.distill.values import TrainingVolume
from vesu.errors import ArgumentError

__all__ = ["EarlyStop", "ValidationScore", "count_bins", "score_bins"]

BETA = 0.5
"""Precision counts twice as much as recall: a false sheet costs the topology more than a thin one."""
N_BINS = 256
STABLE_CHANGE = 0.05
"""Relative change of the predicted volume below which it counts as settled."""
LEAST_GAIN = 1e-4


@dataclass(frozen=True)
class ValidationScore:
    """One validation over all volumes."""

    f_beta: float
    """Mean over the volumes of F-beta (0.5) at `threshold`, unlabelled voxels left out."""
    threshold: float
    """The common threshold with the best mean."""
    surface_share: float
    """Share of the labelled voxels that are predicted surface at `threshold`."""


def count_bins(probability: NDArray[np.float32], volume: TrainingVolume) -> NDArray[np.int64]:
    """How many background and surface voxels fall into each of 256 equal bins of the probability.

    Parameters
    ----------
    probability : ndarray, shape (z, y, x), float32
        In [0, 1].
    volume : TrainingVolume
        Judged by its label; without one by the sign of its teachers' mean logit.

    Returns
    -------
    ndarray, shape (2, 256), int64
        Row 0 background, row 1 surface; label 2 counts in neither.

    Raises
    ------
    ArgumentError
        A volume with neither a label nor soft labels.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.array([[[0, 1, 2]]], np.uint8)
    >>> bins = count_bins(np.array([[[0.1, 0.9, 0.9]]], np.float32), TrainingVolume("a", label, label))
    >>> bins.sum(1).tolist()
    [1, 1]
    """
    if volume.label is None and volume.soft is None:
        raise ArgumentError(f"validation: got volume {volume.volume_id} with neither label nor soft labels")
    bins = np.zeros((2, N_BINS), np.int64)
    for z, plane in enumerate(probability):
        place = np.minimum((plane * N_BINS).astype(np.int64), N_BINS - 1)
        if volume.label is not None:
            truth: NDArray[Any] = volume.label[z]
        else:
            assert volume.soft is not None
            truth = volume.soft.mean_logit[z] > 0
        for kind in (0, 1):
            bins[kind] += np.bincount(place[truth == kind], minlength=N_BINS)
    return bins


def score_bins(bins: NDArray[np.int64]) -> ValidationScore:
    """F-beta at the common threshold that is best for the mean over volumes.

    Parameters
    ----------
    bins : ndarray, shape (n_volumes, 2, 256), int64
        Of :func:`count_bins`.

    Returns
    -------
    ValidationScore

    Notes
    -----
    R20. With true positives TP, false positives FP and false negatives FN at each threshold ``k / 256``,
    ``F = (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)``, b = 0.5; 1 where there is nothing to find and nothing found.
    Of equal thresholds the lowest is taken.

    Examples
    --------
    >>> import numpy as np
    >>> bins = np.zeros((1, 2, 256), np.int64)
    >>> bins[0, 0, 25], bins[0, 1, 230] = 90, 10
    >>> score_bins(bins)
    ValidationScore(f_beta=1.0, threshold=0.1015625, surface_share=0.1)
    """
    above = np.cumsum(bins[:, :, ::-1], axis=2)[:, :, ::-1]
    false_positive, true_positive = above[:, 0], above[:, 1]
    false_negative = true_positive[:, :1] - true_positive
    weighted = (1 + BETA**2) * true_positive
    whole = weighted + BETA**2 * false_negative + false_positive
    f_beta = np.where(whole > 0, weighted / np.maximum(whole, 1), 1.0).mean(axis=0)
    best = int(f_beta.argmax())
    share = float(above[:, :, best].sum() / max(int(bins.sum()), 1))
    return ValidationScore(float(f_beta[best]), best / N_BINS, share)


@dataclass
class EarlyStop:
    """What a stage remembers of its validations.

    A stage ends when `patience` validations in a row brought no gain and the predicted volume has settled: while the
    student still adds or takes away many voxels, a low F-beta says little.

    Attributes
    ----------
    patience : int
        Validations without gain.
    best : float
        Best F-beta so far; -1 before the first.
    without_gain : int
        Validations since then.
    share : float or None
        Predicted surface share at the last validation.

    Notes
    -----
    R20. A gain is more than 1e-4; settled means that the share changed by 5 % at most.

    Examples
    --------
    >>> memory = EarlyStop(patience=1)
    >>> memory.update(ValidationScore(0.5, 0.5, 0.05)), memory.is_over
    (True, False)
    >>> memory.update(ValidationScore(0.4, 0.5, 0.10)), memory.is_over
    (False, False)
    >>> memory.update(ValidationScore(0.4, 0.5, 0.10)), memory.is_over
    (False, True)
    """

    patience: int
    best: float = -1.0
    without_gain: int = 0
    share: float | None = None
    change: float | None = None
    """Relative change of the share between the last two validations."""

    def update(self, score: ValidationScore) -> bool:
        """Take a validation in; whether it is a gain."""
        if self.share is not None:
            self.change = abs(score.surface_share - self.share) / max(score.surface_share, self.share, 1e-12)
        self.share = score.surface_share
        gain = score.f_beta > self.best + LEAST_GAIN
        self.best = score.f_beta if gain else self.best
        self.without_gain = 0 if gain else self.without_gain + 1
        return gain

    @property
    def is_over(self) -> bool:
        """Whether the stage may end."""
        return self.without_gain >= self.patience and self.change is not None and self.change <= STABLE_CHANGE

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EarlyStop":
        """Of :meth:`to_json`."""
        return cls(**values)


def judged(volumes: Sequence[TrainingVolume]) -> list[TrainingVolume]:
    """The volumes that a student can be judged on: those with labels; where none has, those with soft labels."""
    labelled = [volume for volume in volumes if volume.label is not None]
    return labelled or [volume for volume in volumes if volume.soft is not None]
