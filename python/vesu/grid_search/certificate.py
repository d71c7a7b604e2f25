"""The certificate: a duality gap from the sums of each class alone, as the Rust core computes it (R27).

With the datafit f of the margins and the penalty g, every u whose classes weigh the same (the intercept is free) gives
min F >= -f*(u) - g*(-A'u). The residuals become such a u when the heavier class is scaled down by k. f* is convex and
zero at zero, so f*(k u) <= k f*(u) = k (<u, z> - f(z)): sums of each class alone are all that is needed.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["duality_gap", "penalty"]

Doubles: TypeAlias = NDArray[np.float64]


def penalty(coef: Doubles, l1: Doubles, l2: Doubles) -> Doubles:
    """l1 |t|_1 + (l2 / 2) |t|^2 of each row of ``coef`` (C, P); ``l1`` and ``l2`` are (C, 1)."""
    value: Doubles = (l1 * np.abs(coef) + 0.5 * l2 * coef**2).sum(axis=1)
    return value


def duality_gap(params: Doubles, by_class: Sequence[Doubles], l1: Doubles, l2: Doubles) -> tuple[Doubles, Doubles]:
    """(objective, gap), each (C,), of ``params`` (C, P + 1) from the means over each class alone, (C, P + 2) each."""
    objective = by_class[0][:, -1] + by_class[1][:, -1] + penalty(params[:, :-1], l1, l2)
    slopes, entropy = _dual_point(params, by_class)
    return objective, np.maximum(objective - _best_dual(slopes, entropy, l1, l2), 0.0)


def _dual_point(params: Doubles, by_class: Sequence[Doubles]) -> tuple[Doubles, Doubles]:
    """Of a feasible dual point: the slopes (C, P) that the penalty must hold, and a bound of its entropy (C,)."""
    totals = np.stack([np.abs(means[:, -2]) for means in by_class])  # the intercept's column: sum of v c sigmoid
    scale = np.divide(totals.min(axis=0), totals, out=np.zeros_like(totals), where=totals > 0)
    slopes = sum(k[:, None] * means[:, :-2] for k, means in zip(scale, by_class, strict=True))
    # phi*(u) = u m - phi(m) at u = sigmoid(m), summed: the params times the gradient, less the loss.
    entropies = [(params * means[:, :-1]).sum(axis=1) - means[:, -1] for means in by_class]
    return np.asarray(slopes), np.asarray(sum(k * entropy for k, entropy in zip(scale, entropies, strict=True)))


def _best_dual(slopes: Doubles, entropy: Doubles, l1: Doubles, l2: Doubles) -> Doubles:
    """Largest over k in [0, 1] of -k entropy - sum((k |slope| - l1)+^2) / (2 l2): concave in k, so by bisection."""
    size = np.abs(slopes)
    low, high = np.zeros((len(size), 1)), np.ones((len(size), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without l2 the slopes may not exceed l1 at all.
        high = np.where(l2 > 0, high, np.minimum(high, np.nan_to_num(l1 / size.max(axis=1, keepdims=True), nan=1.0)))
        for _ in range(60):
            middle = (low + high) / 2
            excess = np.maximum(middle * size - l1, 0.0)
            rises = entropy[:, None] + np.where(l2 > 0, (excess * size).sum(axis=1, keepdims=True) / l2, 0.0) < 0
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        excess = np.maximum(low * size - l1, 0.0)
        conjugate = np.where(l2 > 0, (excess**2).sum(axis=1, keepdims=True) / (2 * l2), 0.0)
    best: Doubles = (-low * entropy[:, None] - conjugate)[:, 0]
    return best
