"""Which candidate is best: the selection objective and its leaderboard (R13)."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

__all__ = ["LEADERBOARD_DTYPE", "SelectionWeights", "leaderboard"]

LEADERBOARD_DTYPE = np.dtype(
    [
        ("rank", np.int64),
        ("candidate", np.int64),
        ("neuron", np.int64),
        ("l1", np.float64),
        ("l2", np.float64),
        ("objective", np.float64),
        ("cross_entropy", np.float64),
        ("sparsity", np.float64),
        ("f1", np.float64),
        ("f_beta", np.float64),
        ("iou", np.float64),
        ("threshold", np.float64),
        ("n_nonzero", np.int64),
        ("diverged", np.bool_),
    ]
)


@dataclass(frozen=True)
class SelectionWeights:
    """The selection objective: lower is better.

    J = cross_entropy + sparsity (1 - share of zero coefficients) - f1 F1 - f_beta F_beta - iou IoU

    The last three are taken at the scanned threshold that makes J least.

    Raises
    ------
    ArgumentError
        A weight that is negative or not finite, or a threshold range that is empty or leaves [0, 1].

    Examples
    --------
    >>> SelectionWeights().thresholds().size
    26
    """

    sparsity: float = 0.02
    f1: float = 0.20
    f_beta: float = 0.15
    iou: float = 0.10
    beta: float = 0.5
    """Recall counts ``beta`` times as much as precision in F_beta."""
    threshold_low: float = 0.35
    threshold_high: float = 0.60
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ArgumentError(f"{field.name}: got {value!r}; accepted: a finite number >= 0")
        if not (0 <= self.threshold_low <= self.threshold_high <= 1 and self.threshold_step >= 1e-4):
            got = f"{self.threshold_low} to {self.threshold_high} by {self.threshold_step}"
            raise ArgumentError(f"thresholds: got {got}; accepted: a range inside [0, 1] with steps of 0.0001 or more")

    def thresholds(self) -> NDArray[np.float64]:
        """The scanned thresholds, ascending, both ends included."""
        count = math.floor((self.threshold_high - self.threshold_low) / self.threshold_step + 1e-6) + 1
        thresholds: NDArray[np.float64] = np.round(self.threshold_low + self.threshold_step * np.arange(count), 10)
        return thresholds


def leaderboard(
    candidates: NDArray[Any],
    cross_entropy: NDArray[np.float64],
    reached: NDArray[np.uint64],
    class_sizes: tuple[int, int],
    n_nonzero: NDArray[np.int64],
    n_coefficients: int,
    diverged: NDArray[np.bool_],
    weights: SelectionWeights,
) -> NDArray[Any]:
    """Rank all candidates; the diverged ones stand last.

    Parameters
    ----------
    candidates : structured array, shape (n_candidates,)
        Fields candidate, neuron, l1, l2.
    cross_entropy : float64, shape (n_candidates,)
    reached : uint64, shape (n_candidates, 2, n_thresholds)
        Samples of each class whose probability reaches the threshold.
    class_sizes : (int, int)
        Negative and positive samples.
    n_nonzero : int64, shape (n_candidates,)
    diverged : bool, shape (n_candidates,)

    Returns
    -------
    structured array of ``LEADERBOARD_DTYPE``, shape (n_candidates,)
    """
    _, positives = class_sizes
    false_positive, true_positive = reached[:, 0].astype(np.float64), reached[:, 1].astype(np.float64)
    false_negative = positives - true_positive
    f1 = f_score(true_positive, false_positive, false_negative, 1.0)
    f_beta = f_score(true_positive, false_positive, false_negative, weights.beta)
    iou = _ratio(true_positive, true_positive + false_positive + false_negative)
    sparsity = 1.0 - n_nonzero / n_coefficients
    gain = weights.f1 * f1 + weights.f_beta * f_beta + weights.iou * iou
    best = np.argmax(gain, axis=1)
    at = (np.arange(len(best)), best)
    objective = cross_entropy + weights.sparsity * (1.0 - sparsity) - gain[at]

    order = np.lexsort((candidates["candidate"], objective, diverged))
    table = np.empty(len(order), LEADERBOARD_DTYPE)
    for name in ("candidate", "neuron", "l1", "l2"):
        table[name] = candidates[name][order]
    columns = {
        "objective": objective,
        "cross_entropy": cross_entropy,
        "sparsity": sparsity,
        "f1": f1[at],
        "f_beta": f_beta[at],
        "iou": iou[at],
        "threshold": weights.thresholds()[best],
        "n_nonzero": n_nonzero,
        "diverged": diverged,
    }
    for name, values in columns.items():
        table[name] = values[order]
    table["rank"] = np.arange(1, len(order) + 1)
    return table


def f_score(
    true_positive: NDArray[np.float64],
    false_positive: NDArray[np.float64],
    false_negative: NDArray[np.float64],
    beta: float,
) -> NDArray[np.float64]:
    """F_beta = (1 + b2) TP / ((1 + b2) TP + b2 FN + FP); 0 where that is 0 / 0."""
    squared = beta * beta
    weighted = (1.0 + squared) * true_positive
    return _ratio(weighted, weighted + squared * false_negative + false_positive)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
