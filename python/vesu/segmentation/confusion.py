"""Counts of a mask against a label, and the scores that follow from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

BETA = 0.5
"""Weight of recall against precision in F-beta; below 1, precision counts more."""


def f_score(tp: Any, fp: Any, fn: Any, beta: float) -> Any:
    """F-beta of counts (numbers or arrays): 1 where mask and label are both empty.

    Examples
    --------
    >>> float(f_score(tp=8, fp=2, fn=2, beta=1.0))
    0.8
    """
    weighted = (1 + beta**2) * np.asarray(tp, np.float64)
    whole = weighted + beta**2 * np.asarray(fn) + np.asarray(fp)
    return np.where(whole > 0, weighted / np.where(whole > 0, whole, 1), 1.0)


@dataclass(frozen=True)
class Confusion:
    """Counts of a mask against a label, and the scores from them.

    A score without voxels to divide by is 1 when mask and label are both empty, else 0.

    Examples
    --------
    >>> Confusion(tp=8, fp=2, fn=2, tn=88).iou
    0.666...
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall (Dice)."""
        return float(f_score(self.tp, self.fp, self.fn, 1.0))

    @property
    def f_beta(self) -> float:
        """F score with beta 0.5: precision counts more."""
        return float(f_score(self.tp, self.fp, self.fn, BETA))

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard)."""
        return self._share(self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the mask that is surface."""
        return self._share(self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the surface that is in the mask."""
        return self._share(self.tp + self.fn)

    def _share(self, whole: int) -> float:
        if whole > 0:
            return self.tp / whole
        return 1.0 if self.fp + self.fn == 0 else 0.0


def confusion(mask: NDArray[Any], label: NDArray[np.uint8], ignore: int = 2) -> Confusion:
    """Count a mask's voxels against a label.

    Parameters
    ----------
    mask : ndarray of uint8 or bool
        Non-zero is foreground.
    label : ndarray of uint8, same shape
        0 background, 1 surface, `ignore` counts nowhere.
    ignore : int
        The unlabelled value.

    Returns
    -------
    Confusion

    Raises
    ------
    ArgumentError
        Shapes or dtypes that do not fit, zero-size arrays, label values other than 0, 1 and `ignore`.

    Examples
    --------
    >>> import numpy as np
    >>> confusion(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 2], dtype=np.uint8))
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    mask, label = np.asarray(mask), np.asarray(label)
    if mask.dtype.kind not in "buif" or label.dtype.kind not in "bui":
        raise ArgumentError(
            f"mask, label: got dtypes {mask.dtype} and {label.dtype}; accepted: a mask and whole numbers"
        )
    if mask.shape != label.shape or mask.size == 0:
        raise ArgumentError(f"mask: got shape {mask.shape} for a label of {label.shape}; accepted: the same, not empty")
    foreground, surface, background = mask != 0, label == 1, label == 0
    n_surface, n_background = int(np.count_nonzero(surface)), int(np.count_nonzero(background))
    unknown = label.size - n_surface - n_background - int(np.count_nonzero(label == ignore))
    if unknown > 0:
        raise ArgumentError(f"label: got {unknown} voxels of other values; accepted: 0, 1 and {ignore} (ignored)")
    tp = int(np.count_nonzero(foreground & surface))
    fp = int(np.count_nonzero(foreground & background))
    return Confusion(tp=tp, fp=fp, fn=n_surface - tp, tn=n_background - fp)
