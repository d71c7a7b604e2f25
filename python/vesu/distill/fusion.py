"""Student and prox-fit ensemble, or student and NX46, as one probability; the weight is chosen on labelled volumes
(R25)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.distill.values import Emit
from vesu.errors import ArgumentError

__all__ = ["WEIGHTS", "FusionChoice", "Objective", "choose_weight", "fuse", "surface_f_beta"]

Probability: TypeAlias = NDArray[np.float32]
Objective: TypeAlias = Callable[[Probability, NDArray[np.uint8]], float]
"""Scores a fused probability against its label (2 counts nowhere); higher is better."""

WEIGHTS: tuple[float, ...] = tuple(i / 10 for i in range(11))
"""The weights of the student that are tried, from the other model alone to the student alone."""

N_BINS = 4096


@dataclass(frozen=True)
class FusionChoice:
    """The weight that was chosen, and what it was chosen by.

    Attributes
    ----------
    weight : float
        The student's share: 0 is the other model alone, 1 the student alone.
    score : float
        Mean score of `weight` over the volumes: in-sample, for the weight was fitted on them.
    held_out_score : float or None
        Mean over the volumes of the score with the weight that the other volumes chose: what a new volume may expect.
        None with one volume.
    held_out_weights : tuple of float
        Those weights, one a volume; empty with one volume.
    weights : tuple of float
        All that were tried.
    scores : tuple of tuple of float, weights x volumes
    reason : str
        Why this one.
    """

    weight: float
    score: float
    held_out_score: float | None
    held_out_weights: tuple[float, ...]
    weights: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """JSON types: the fields of ``FUSION_WEIGHT_CHOSEN``."""
        return {
            "weight": self.weight,
            "score": self.score,
            "held_out_score": self.held_out_score,
            "held_out_weights": list(self.held_out_weights),
            "weights": list(self.weights),
            "scores": [list(row) for row in self.scores],
            "reason": self.reason,
        }


def fuse(student: Probability, other: Probability, weight: float) -> Probability:
    """The weighted mean of two probabilities.

    Parameters
    ----------
    student, other : ndarray of float32, shape (z, y, x)
        In [0, 1]: the student's, and that of the prox-fit ensemble, or a baseline's score
        (:func:`vesu.baselines.score`).
    weight : float
        The student's share, in [0, 1].

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        ``weight * student + (1 - weight) * other`` in [0, 1], a new array; at 0 and 1 the bits of the one that counts.

    Raises
    ------
    ArgumentError
        Another dtype, shapes that differ, a weight out of range; NaN or values outside [0, 1].

    Notes
    -----
    Requirement R25. Computed in float32, voxel by voxel: the same bits on any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> student, other = np.full((1, 1, 2), 0.5, np.float32), np.array([[[0.25, 1.0]]], np.float32)
    >>> fuse(student, other, 0.5)
    array([[[0.375, 0.75 ]]], dtype=float32)
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.floating) or not 0 <= weight <= 1:
        raise ArgumentError(f"weight: got {weight!r}; accepted: a number from 0 to 1")
    _check_probability("student", student)
    _check_probability("other", other)
    if student.shape != other.shape:
        raise ArgumentError(f"other: got shape {other.shape}; accepted: the student's, {student.shape}")
    return _fused(student, other, float(weight))


def choose_weight(
    pairs: Sequence[tuple[Probability, Probability]],
    labels: Sequence[NDArray[np.uint8]],
    objective: Objective | None = None,
    *,
    weights: Sequence[float] = WEIGHTS,
    tolerance: float = 1e-3,
    emit: Emit | None = None,
    poll: Callable[[], None] | None = None,
) -> FusionChoice:
    """Choose the student's share on labelled volumes that neither model learned from.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray) of float32, each (z, y, x)
        The student's probability and the other's, a pair a volume.
    labels : sequence of ndarray of uint8, each (z, y, x)
        0 background, 1 surface, 2 unlabelled (counts nowhere).
    objective : callable, optional
        ``objective(probability, label)``: a finite number, higher is better. The default is :func:`surface_f_beta`. It
        is called once a weight and volume.
    weights : sequence of float
        Those to try, rising, in [0, 1].
    tolerance : float
        What a difference must exceed to count.
    emit : callable, optional
        Gets ``FUSION_WEIGHT_CHOSEN``.
    poll : callable, optional
        Called before each call of the objective; may raise to stop.

    Returns
    -------
    FusionChoice
        By the mean score over the volumes. Of weights as good as the best to within `tolerance` the simplest is taken:
        0, then 1, then the smallest. With two volumes or more a true mixture must also pay on volumes that it was not
        chosen on: each volume is scored with the weight that the others choose, and if the mean of that is not above
        the better model's alone, that model is taken.

    Raises
    ------
    ArgumentError
        No volume; numbers of pairs and labels that differ; arrays as in :func:`fuse`; a label with other values or
        shape; weights that do not rise or are out of range; an objective that gives no finite number.

    Notes
    -----
    Requirement R25. Nothing is drawn: the same volumes give the same weight. One fused volume is held at a time.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((4, 8, 8), np.uint8)
    >>> label[1] = 1
    >>> rng = np.random.default_rng(0)
    >>> noisy = [np.clip(0.6 * (label == 1) + rng.normal(0.2, 0.2, label.shape), 0, 1).astype("f4") for _ in range(2)]
    >>> choose_weight([tuple(noisy)], [label]).weight
    0.3
    """
    tried = _checked_weights(weights)
    if not tolerance >= 0:
        raise ArgumentError(f"tolerance: got {tolerance!r}; accepted: 0 or more")
    _check_volumes(pairs, labels)
    score_of = objective or surface_f_beta
    table = np.empty((len(tried), len(labels)))
    for volume, ((student, other), label) in enumerate(zip(pairs, labels, strict=True)):
        for place, weight in enumerate(tried):
            if poll is not None:
                poll()
            table[place, volume] = _scored(score_of, _fused(student, other, weight), label)
    choice = _chosen(tried, table, tolerance)
    if emit is not None:
        emit("FUSION_WEIGHT_CHOSEN", choice.to_json())
    return choice


def surface_f_beta(probability: Probability, label: NDArray[np.uint8], beta: float = 0.5) -> float:
    """F-beta at the best threshold of this volume: how well a probability ranks surface above background.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1].
    label : ndarray of uint8, shape (z, y, x)
        0 background, 1 surface, 2 unlabelled (counts nowhere).
    beta : float
        Weight of recall against precision; positive.

    Returns
    -------
    float
        0 to 1; thresholds are the edges of 4096 bins. 1 where the label holds no surface.

    Raises
    ------
    ArgumentError
        Arrays that do not fit, NaN, values out of range.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.array([[[0, 1, 1, 2]]], np.uint8)
    >>> surface_f_beta(np.array([[[0.1, 0.7, 0.9, 0.0]]], np.float32), label)
    1.0
    """
    if not beta > 0:
        raise ArgumentError(f"beta: got {beta!r}; accepted: a positive number")
    histogram = _core.probability_histogram(probability, label, N_BINS)
    background, surface = (row[::-1].cumsum() for row in histogram[:2])  # at or above each edge, from the top
    n_surface = int(surface[-1])
    if n_surface == 0:
        return 1.0  # nothing to find, and a threshold that finds nothing
    weighted = (1 + beta**2) * surface
    scores = weighted / (weighted + beta**2 * (n_surface - surface) + background)
    return float(scores.max())


def _fused(student: Probability, other: Probability, weight: float) -> Probability:
    if weight in (0.0, 1.0):
        return (student if weight else other).copy()
    share = np.float32(weight)
    fused = np.multiply(student, share)
    for plane, theirs in zip(fused, other, strict=True):  # no second volume for the other's part
        plane += (np.float32(1) - share) * theirs
    # Two shares that sum to one may round a sum of ones above it.
    return np.minimum(fused, np.float32(1), out=fused)


def _chosen(weights: tuple[float, ...], table: NDArray[np.float64], tolerance: float) -> FusionChoice:
    n_volumes = table.shape[1]
    means = table.mean(axis=1)
    best = _simplest(weights, means, tolerance)
    reason = "the best on these volumes, and the simplest of its equals"
    held_out_score: float | None = None
    held_out: tuple[float, ...] = ()
    if n_volumes > 1:
        places = [_simplest(weights, np.delete(table, i, axis=1).mean(axis=1), tolerance) for i in range(n_volumes)]
        held_out = tuple(weights[place] for place in places)
        held_out_score = float(np.mean([table[place, i] for i, place in enumerate(places)]))
        alone = [place for place, weight in enumerate(weights) if weight in (0.0, 1.0)]
        simple = max(alone, key=lambda place: means[place], default=best)
        if simple != best and best not in alone and held_out_score <= means[simple] + tolerance:
            best = simple
            reason = "no mixture pays on a volume that it was not chosen on"
    rows = tuple(tuple(row) for row in table.tolist())
    return FusionChoice(weights[best], float(means[best]), held_out_score, held_out, weights, rows, reason)


def _simplest(weights: tuple[float, ...], means: NDArray[np.float64], tolerance: float) -> int:
    """Place of the simplest weight among those as good as the best."""
    equals = [place for place in range(len(weights)) if means[place] >= means.max() - tolerance]
    return min(equals, key=lambda place: (weights[place] not in (0.0, 1.0), weights[place]))


def _scored(objective: Objective, probability: Probability, label: NDArray[np.uint8]) -> float:
    score = objective(probability, label)
    if isinstance(score, bool) or not isinstance(score, int | float | np.number) or not np.isfinite(score):
        raise ArgumentError(f"objective: got {score!r} from the callable; accepted: a finite number")
    return float(score)


def _check_volumes(pairs: Sequence[tuple[Probability, Probability]], labels: Sequence[NDArray[np.uint8]]) -> None:
    if not labels or len(pairs) != len(labels):
        raise ArgumentError(f"labels: got {len(labels)} for {len(pairs)} pairs; accepted: one a pair, at least one")
    for i, ((student, other), label) in enumerate(zip(pairs, labels, strict=True)):
        _check_probability(f"pairs[{i}][0]", student)
        _check_probability(f"pairs[{i}][1]", other)
        if not isinstance(label, np.ndarray) or label.dtype != np.uint8 or label.max(initial=0) > 2:
            raise ArgumentError(f"labels[{i}]: got other values; accepted: uint8 of 0, 1 and 2")
        if not student.shape == other.shape == label.shape:
            got = f"shapes {student.shape}, {other.shape}, label {label.shape}"
            raise ArgumentError(f"pairs[{i}]: got {got}; accepted: all alike")


def _check_probability(name: str, values: Any) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim != 3 or not values.size:
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ArgumentError(f"{name}: got {got}; accepted: float32 (z, y, x), not empty")
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
        raise ArgumentError(f"{name}: got NaN or values outside [0, 1]; accepted: probabilities")


def _checked_weights(weights: Sequence[float]) -> tuple[float, ...]:
    tried = tuple(float(weight) for weight in weights)
    rising = all(a < b for a, b in pairwise(tried))
    if not tried or not rising or not 0 <= tried[0] <= tried[-1] <= 1:
        raise ArgumentError(f"weights: got {weights!r}; accepted: rising numbers in [0, 1], at least one")
    return tried
