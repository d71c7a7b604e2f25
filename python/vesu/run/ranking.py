"""The search's final ranking by the competition's score itself, on the calibration volumes (R45)."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig, SearchConfig
from vesu.errors import DataError
from vesu.features import FeatureSpec
from vesu.grid_search import ElasticNetLogisticGrid, ensemble_order
from vesu.run.model import SurfaceModel
from vesu.run.stages import TrainingSet, fitted_ladder
from vesu.scoring import score
from vesu.segmentation import SegmentConfig, ThresholdRule, segment

__all__ = ["RankedCandidate", "ScoreRanking", "pool_of", "rank_by_score", "rank_pool"]

Array: TypeAlias = NDArray[Any]
Volumes: TypeAlias = Mapping[str, tuple[Array, Array]]
"""CT and label by volume id, each (z, y, x)."""


@dataclass(frozen=True)
class RankedCandidate:
    """One candidate of the pool under both rankings."""

    candidate: int
    neuron: int
    l1: float
    l2: float
    objective: float
    """The selection objective, lower is better."""
    objective_rank: int
    """Its place in the leaderboard, from 1."""
    score: float
    """The mean over the volumes, higher is better."""
    score_rank: int
    """Its place in the pool, from 1."""
    by_volume: tuple[float, ...]
    """The score of its mask of each volume, in the order of :attr:`ScoreRanking.volumes`."""
    rule: ThresholdRule
    """The threshold of those masks."""


@dataclass(frozen=True)
class ScoreRanking:
    """The pool in the order of the competition's score, best first."""

    volumes: tuple[str, ...]
    candidates: tuple[RankedCandidate, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Candidate numbers, best first, as ``ElasticNetLogisticGrid.model(order=...)`` takes them."""
        return tuple(each.candidate for each in self.candidates)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types: the content of ``score_ranking.json`` and of the event."""
        return dataclasses.asdict(self)

    def summary(self) -> dict[str, Any]:
        """The entry ``search.ranking`` of ``summary.json``: what was ranked, and what that gained on these volumes."""
        first = min(self.candidates, key=lambda each: each.objective_rank)
        return {
            "by": "score",
            "pool": len(self.candidates),
            "volumes": list(self.volumes),
            "best_by_score": _short(self.candidates[0]),
            "best_by_objective": _short(first),
        }


def pool_of(leaderboard: Array, search: SearchConfig) -> Array:
    """The leaderboard rows that are ranked anew: the best, in the order in which an ensemble would take them.

    So the ensemble that the objective would choose is always among them, and no meta-neuron is missing (R17). Diverged
    candidates never are.
    """
    size = 2 * search.ensemble_size if search.ranking_pool is None else search.ranking_pool
    rows: Array = ensemble_order(leaderboard)[:size]
    return rows


def rank_pool(
    grid: ElasticNetLogisticGrid,
    data: TrainingSet,
    spec: FeatureSpec,
    volumes: Volumes,
    config: RunConfig,
    on_mask: Callable[[int, str], None] | None = None,
) -> ScoreRanking:
    """:func:`rank_by_score` for the pool of a fitted search."""
    rows = pool_of(grid.leaderboard_, config.search)
    models = [
        SurfaceModel(
            grid.model(order=[int(candidate)], feature_names=data.names), spec, data.channels, config.segment.ladder
        )
        for candidate in rows["candidate"]
    ]
    return rank_by_score(rows, models, volumes, config, on_mask)


def rank_by_score(
    rows: Array,
    models: Sequence[SurfaceModel],
    volumes: Volumes,
    config: RunConfig,
    on_mask: Callable[[int, str], None] | None = None,
) -> ScoreRanking:
    """Rank candidates by the mean competition score of each one's own masks.

    A candidate is treated as the run will treat the ensemble: its threshold is fitted on these volumes as
    ``[segment.calibration]`` says, then the whole ladder makes its masks. Only a fit by the score itself, some 25 masks
    a volume, is replaced by its first step, the fit by F1.

    Parameters
    ----------
    rows : structured array of ``LEADERBOARD_DTYPE``
        The candidates.
    models : sequence of SurfaceModel
        One a row, that candidate alone; all with the same features, channels and ladder.
    volumes : mapping of str to (image, label)
        Held-out volumes, each pair (z, y, x).
    config : RunConfig
        Of it: the calibration, the threads, and ``max_feature_gib``, which bounds the features and, once more, the
        probabilities that are held. Candidates that do not fit into it together are done one lot after the other,
        each with its own pass over the features.
    on_mask : callable, optional
        Called with candidate and volume id when that mask is scored.

    Returns
    -------
    ScoreRanking
        By falling score; of equals the one that the objective prefers comes first. Does not depend on the number of
        threads or on the lots.

    Notes
    -----
    Requirement R45. The scores are in-sample: a threshold was fitted on the same volumes, and a choice among many
    is made by them.

    Examples
    --------
    The objective prefers candidate 0, which takes what is dark for surface:

    >>> from vesu.grid_search import ProxFitModel
    >>> from vesu.segmentation import Threshold
    >>> from vesu.grid_search.selection import LEADERBOARD_DTYPE
    >>> label = np.zeros((8, 24, 24), np.uint8)
    >>> label[3:5] = 1
    >>> spec, ladder = FeatureSpec(scales=(1.0,)), SegmentConfig((Threshold(),))
    >>> rows = np.zeros(2, LEADERBOARD_DTYPE)
    >>> rows["candidate"], rows["rank"] = (0, 1), (1, 2)
    >>> ones, names = np.ones(1), spec.names[:1]
    >>> prox = [ProxFitModel(np.array([[w, 0.0]]), -ones, 0 * ones, ones, names, 0.5, False, (0,)) for w in (-1.0, 1.0)]
    >>> models = [SurfaceModel(each, spec, (0,), ladder) for each in prox]
    >>> ranking = rank_by_score(rows, models, {"1": (100 * label, label)}, RunConfig())
    >>> ranking.order
    (1, 0)
    """
    quick, max_bytes = _quick(config), int(config.max_feature_gib * 2**30)
    found: list[tuple[SegmentConfig, list[float]]] = []
    for lot in _lots(models, volumes, max_bytes):
        waiting = list(_probabilities(lot, volumes, max_bytes, config.n_threads))[::-1]
        while waiting:  # each one's volumes are freed when it is scored
            candidate = int(rows["candidate"][len(found)])
            found.append(_scored(lot[0].segment_config, waiting.pop(), volumes, quick, candidate, on_mask))
    means = [math.fsum(scores) / len(scores) for _, scores in found]
    best_first = sorted(range(len(found)), key=lambda place: (-means[place], rows["rank"][place]))
    candidates = tuple(
        RankedCandidate(
            candidate=int(rows["candidate"][place]),
            neuron=int(rows["neuron"][place]),
            l1=float(rows["l1"][place]),
            l2=float(rows["l2"][place]),
            objective=float(rows["objective"][place]),
            objective_rank=int(rows["rank"][place]),
            score=means[place],
            score_rank=rank,
            by_volume=tuple(found[place][1]),
            rule=found[place][0].threshold.rule,
        )
        for rank, place in enumerate(best_first, start=1)
    )
    return ScoreRanking(tuple(volumes), candidates)


def _quick(config: RunConfig) -> RunConfig:
    """The same with a threshold fit that is affordable once a candidate."""
    settings = config.segment.calibration
    if settings.metric != "score":
        return config
    calibration = dataclasses.replace(settings, metric="f1")
    return dataclasses.replace(config, segment=dataclasses.replace(config.segment, calibration=calibration))


def _lots(models: Sequence[SurfaceModel], volumes: Volumes, max_bytes: int) -> Iterator[Sequence[SurfaceModel]]:
    """As many candidates at a time as their probabilities of all volumes have room for."""
    bytes_each = sum(4 * image.size for image, _ in volumes.values())
    size = max(1, max_bytes // bytes_each)
    for first in range(0, len(models), size):
        yield models[first : first + size]


def _probabilities(
    models: Sequence[SurfaceModel], volumes: Volumes, max_bytes: int, n_threads: int | None
) -> list[dict[str, NDArray[np.float32]]]:
    """Each candidate's probability of each volume, from one computation of the features."""
    found = [{name: np.empty(image.shape, np.float32) for name, (image, _) in volumes.items()} for _ in models]
    for name, (image, _) in volumes.items():
        for slab in models[0].feature_slabs(image, max_feature_bytes=max_bytes, n_threads=n_threads):
            for model, probabilities in zip(models, found, strict=True):
                mean, _ = model.prox.predict_volume(slab.values, n_threads=n_threads)
                probabilities[name][slab.slices] = mean[slab.inner]
    return found


def _scored(
    ladder: SegmentConfig,
    probabilities: Mapping[str, NDArray[np.float32]],
    volumes: Volumes,
    config: RunConfig,
    candidate: int,
    on_mask: Callable[[int, str], None] | None,
) -> tuple[SegmentConfig, list[float]]:
    """A candidate's ladder, and the score of its mask of each volume."""
    labels = {name: label for name, (_, label) in volumes.items()}
    # The spread of one learner is zero everywhere.
    spreads = {name: np.zeros_like(each) for name, each in probabilities.items()} if ladder.needs_uncertainty else {}
    # A candidate without coefficients says the same everywhere: no threshold fits it, and any will do. Labels that no
    # threshold fits are refused when the ensemble's is fitted.
    with contextlib.suppress(DataError):
        ladder = fitted_ladder(ladder, config, probabilities, labels, spreads)
    scores = []
    for name, label in labels.items():
        mask = segment(probabilities[name], ladder, uncertainty=spreads.get(name), n_threads=config.n_threads).mask
        scores.append(score(mask, label, n_threads=config.n_threads).score)
        if on_mask is not None:
            on_mask(candidate, name)
    return ladder, scores


def _short(each: RankedCandidate) -> dict[str, Any]:
    return {
        "candidate": each.candidate,
        "score": each.score,
        "score_rank": each.score_rank,
        "objective_rank": each.objective_rank,
    }
