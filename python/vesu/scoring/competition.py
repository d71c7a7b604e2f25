"""The competition's score of one mask, and of many."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.data.volumes import read_volume
from vesu.errors import ArgumentError, DataError
from vesu.scoring.inputs import foregrounds, predictions_in
from vesu.scoring.report import TERM_WEIGHTS, ScoreReport, ScoreSummary, SurfaceScore, TopologyScore, VoiScore
from vesu.volume.distance import spacing_of

__all__ = ["score", "score_many"]

T = TypeVar("T")


def score(
    prediction: NDArray[Any],
    label: NDArray[Any],
    *,
    ignore_label: int | None = 2,
    tolerance: float = 2.0,
    spacing: float | Sequence[float] = (1.0, 1.0, 1.0),
    voi_alpha: float = 0.3,
    n_threads: int | None = None,
) -> ScoreReport:
    """Score a mask as the competition does.

    Parameters
    ----------
    prediction : ndarray of bool or integers, shape (z, y, x)
        Non-zero is foreground.
    label : ndarray of bool, integers or whole floats, shape (z, y, x)
        Non-zero is foreground, except `ignore_label`; NaN is background.
    ignore_label : int or None
        Where the label has this value, both masks become background. None: nowhere.
    tolerance : float
        Distance up to which surfaces agree, in the unit of `spacing`; at least 0.
    spacing : float or (float, float, float)
        Size of a voxel along z, y and x; each in [1e-9, 1e9].
    voi_alpha : float
        How steeply the VOI's score falls; at least 0.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ScoreReport
        The score, its terms and what they are made of.

    Raises
    ------
    ArgumentError
        Not arrays, not 3-D, an axis of length 0, shapes that differ; a prediction of floats (threshold it first); a
        label of floats that are not whole; a parameter out of range.

    Warns
    -----
    UserWarning
        Values other than 0, 1 and 2: they count as foreground.

    Notes
    -----
    ``0.30 topology + 0.35 surface Dice + 0.35 / (1 + voi_alpha * VOI)``; the defaults are Kaggle's. Surface Dice is
    that of DeepMind's `surface-distance`; VOI is scikit-image's `variation_of_information` of the 26-connected
    components on the union of the foregrounds; topology is Betti matching (Stucki et al., arXiv 2407.04683) of the
    2x2x2 octants, foreground 6-connected. Two empty masks score 1 in every term. ``docs/score.md`` explains each with
    examples. Memory: two masks, and the largest term's working volumes (two uint32 volumes for the VOI).
    Requirement R45.

    Examples
    --------
    >>> import numpy as np, vesu
    >>> label = np.zeros((24, 24, 24), np.uint8)
    >>> label[8:10, 2:-2, 2:-2] = 1
    >>> report = vesu.score(label, label)
    >>> report.score, report.surface.label_area
    (1.0, 910.04...)
    """
    timer = Timer()
    tolerance, voi_alpha = check_terms(tolerance, voi_alpha)
    steps = spacing_of(spacing)
    ours, theirs = timer.lap("masks", foregrounds(prediction, label, ignore_label))
    areas = timer.lap("surface", _core.score_surface(ours, theirs, steps, tolerance, n_threads))
    entropies = timer.lap("voi", _core.score_voi(ours, theirs, n_threads))
    counts = timer.lap("topology", _core.betti_matching_octants(ours, theirs, n_threads))
    return report_of(areas, entropies, counts, voi_alpha, timer)


class Timer:
    """Seconds of the parts of a score, one lap each."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, name: str, value: T) -> T:
        """Note the seconds since the last lap, in which `value` was computed."""
        self._last, before = time.perf_counter(), self._last
        self._seconds[name] = self._last - before
        return value

    def seconds(self) -> dict[str, float]:
        """Every lap, and all together as ``"total"``."""
        return {**self._seconds, "total": time.perf_counter() - self._start}


def check_terms(tolerance: Any, voi_alpha: Any) -> tuple[float, float]:
    """`tolerance` and `voi_alpha` as floats in their range."""
    tolerance, voi_alpha = _number("tolerance", tolerance), _number("voi_alpha", voi_alpha)
    if math.isinf(voi_alpha):
        raise ArgumentError("voi_alpha: got inf; accepted: a finite number, 0 or more")
    return tolerance, voi_alpha


def report_of(
    areas: tuple[float, float, float, float, float],
    entropies: tuple[float, float, int, int],
    counts: NDArray[np.int64],
    voi_alpha: float,
    timer: Timer,
) -> ScoreReport:
    """The report from what the core measured."""
    our_area, our_within, their_area, their_within, dice = areas
    split, merge, n_ours, n_theirs = entropies
    topology = TopologyScore.of(counts)
    surface = SurfaceScore(dice, our_area, our_within, their_area, their_within)
    voi = VoiScore(1 / (1 + voi_alpha * (split + merge)), split, merge, split + merge, n_ours, n_theirs)
    parts = {"topology": topology.score, "surface": surface.score, "voi": voi.score}
    total = math.fsum(TERM_WEIGHTS[name] * part for name, part in parts.items())
    return ScoreReport(total, topology, surface, voi, timer.seconds())


def score_many(
    predictions: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    ignore_label: int | None = 2,
    tolerance: float = 2.0,
    spacing: float | Sequence[float] = (1.0, 1.0, 1.0),
    voi_alpha: float = 0.3,
    n_threads: int | None = None,
) -> ScoreSummary:
    """Score every prediction against its label, and the mean.

    Parameters
    ----------
    predictions : path-like
        A folder of ``ID.tif``, or a zip of them such as ``submission.zip``.
    labels : path-like
        A folder of ``ID.tif``; labels without a prediction are listed in the result and count nowhere.
    ignore_label, tolerance, spacing, voi_alpha, n_threads
        As in :func:`score`.

    Returns
    -------
    ScoreSummary
        Means and one report a volume. One pair is in memory at a time.

    Raises
    ------
    DataError
        No prediction, one without a label, or a damaged zip; the message names it. Also whatever :func:`score`
        refuses, with the volume's id before the message.
    FormatError, FileError
        A file that cannot be read.

    Notes
    -----
    The leaderboard's mean over volumes. Requirement R45.

    Examples
    --------
    >>> import vesu
    >>> print(vesu.score_many("submission.zip", "train_labels"))  # doctest: +SKIP
    """
    folder = Path(labels)
    if not folder.is_dir():
        raise ArgumentError(f"labels: got {str(labels)!r}; accepted: a folder of ID.tif")
    ids = {file.stem for file in folder.glob("*.tif")}
    reports = {}
    for volume_id, prediction in predictions_in(Path(predictions), ids, n_threads):
        label = read_volume(folder / f"{volume_id}.tif", n_threads=n_threads)
        try:
            reports[volume_id] = score(
                prediction,
                label,
                ignore_label=ignore_label,
                tolerance=tolerance,
                spacing=spacing,
                voi_alpha=voi_alpha,
                n_threads=n_threads,
            )
        except ArgumentError as error:
            raise DataError(f"{volume_id}: {error}") from error
    terms = [{"score": report.score, **report.terms} for report in reports.values()]
    means = {name: math.fsum(row[name] for row in terms) / len(terms) for name in terms[0]}
    return ScoreSummary(**means, reports=reports, labels_without_prediction=tuple(sorted(ids - set(reports))))


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number >= 0:
        raise ArgumentError(f"{name}: got {value!r}; accepted: a number, 0 or more")
    return number
