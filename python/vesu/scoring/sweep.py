"""The competition's score of one probability at many thresholds."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.scoring.competition import Timer, check_terms, report_of
from vesu.scoring.inputs import sweep_volumes
from vesu.scoring.report import ScoreReport
from vesu.volume.distance import spacing_of

__all__ = ["score_sweep"]


def score_sweep(
    probability: NDArray[np.floating[Any]],
    label: NDArray[Any],
    thresholds: Iterable[float],
    *,
    ignore_label: int | None = 2,
    tolerance: float = 2.0,
    spacing: float | Sequence[float] = (1.0, 1.0, 1.0),
    voi_alpha: float = 0.3,
    n_threads: int | None = None,
) -> tuple[ScoreReport, ...]:
    """Score a probability at many thresholds.

    Parameters
    ----------
    probability : ndarray of float, shape (z, y, x)
        Any score, the higher the surer; NaN is below every threshold.
    label : ndarray of bool, integers or whole floats, shape (z, y, x)
        As for :func:`score`.
    thresholds : iterable of float
        Finite, in any order. The masks are ``probability >= threshold``, each threshold a Python float.
    ignore_label, tolerance, spacing, voi_alpha, n_threads
        As for :func:`score`.

    Returns
    -------
    tuple of ScoreReport
        One a threshold, in the order given; terms and counts are those of ``score(probability >= threshold, label)``
        to the last bit. Its timings leave out what the label cost, once.

    Raises
    ------
    ArgumentError
        What :func:`score` refuses; a probability that is not of floats; no threshold, or one that is no finite number.

    Warns
    -----
    UserWarning
        Values of the label other than 0, 1 and 2: they count as foreground.

    Notes
    -----
    The label's mask, surface elements and components are computed once. Thresholds between which no voxel lies give
    one mask, scored once. Betti matching walks both masks together, and the distances are those from each mask's own
    surface, so these are done for every mask. Memory: what :func:`score` takes, one mask at a time, and a uint32
    volume for the label's components. Requirement R45.

    Examples
    --------
    >>> import numpy as np, vesu
    >>> label = np.zeros((24, 24, 24), np.uint8)
    >>> label[8:11, 2:-2, 2:-2] = 1
    >>> probability = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    >>> probability[3, 5, 5] = 0.6  # a speck
    >>> [round(report.score, 3) for report in vesu.score_sweep(probability, label, [0.5, 0.7])]
    [0.8, 1.0]
    """
    values = _finite(thresholds)
    tolerance, voi_alpha = check_terms(tolerance, voi_alpha)
    steps = spacing_of(spacing)
    theirs, counted = sweep_volumes(probability, label, ignore_label)
    prepared = _core.ScoreLabel(theirs, n_threads)
    reports: dict[int, ScoreReport] = {}  # by foreground voxels: the masks are nested, so as many are the same ones

    def scored(threshold: float) -> ScoreReport:
        timer = Timer()
        mask = probability >= threshold
        ours = timer.lap("masks", mask if counted is None else mask & counted)
        size = int(np.count_nonzero(ours))
        if size not in reports:
            areas = timer.lap("surface", prepared.surface(ours, steps, tolerance, n_threads))
            entropies = timer.lap("voi", prepared.voi(ours, n_threads))
            counts = timer.lap("topology", _core.betti_matching_octants(ours, theirs, n_threads))
            reports[size] = report_of(areas, entropies, counts, voi_alpha, timer)
        return reports[size]

    return tuple(scored(threshold) for threshold in values)


def _finite(thresholds: Any) -> list[float]:
    try:
        values = [float(threshold) for threshold in thresholds]
    except (TypeError, ValueError):
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise ArgumentError(f"thresholds: got {thresholds!r}; accepted: one or more finite numbers")
    return values
