"""The student's part in the probability: its weight beside the ensemble, chosen on the validation volumes (R25)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import baselines
from vesu.config import RunConfig
from vesu.data.cache import ArrayCache
from vesu.distill.fusion import WEIGHTS, FusionChoice, choose_weight, surface_f_beta
from vesu.run.baseline import volume_score
from vesu.run.distilled import Distilled
from vesu.run.model import PROX_PART, FusedStudent, SurfaceModel, VolumePrediction, fused
from vesu.run.session import Session
from vesu.run.stages import SourceIds

__all__ = ["Fusion", "ScorerFusion", "choose_fusion", "choose_scorer_fusion"]

MEASURE = "F-beta (0.5) at the best threshold of each volume"

Volumes = Mapping[str, tuple[NDArray[Any], NDArray[np.uint8]]]
"""CT and label by volume id."""


@dataclass(frozen=True, eq=False)
class Fusion:
    """The student with its weight, what the fused model says of the validation volumes, and how it was chosen."""

    student: FusedStudent
    predictions: Mapping[str, VolumePrediction]
    entry: Mapping[str, Any]
    """The summary's entry."""


def choose_fusion(
    session: Session,
    volumes: Volumes,
    ids: Mapping[str, SourceIds],
    model: SurfaceModel,
    distilled: Distilled,
    cache: ArrayCache,
    advance: Callable[[float], None],
) -> Fusion:
    """Predict the validation volumes with both, and choose the student's weight on them.

    Parameters
    ----------
    session : Session
    volumes : mapping of str to (image, label)
        The calibration volumes; neither model learned from one.
    ids : mapping of str to SourceIds
        Of their files.
    model : SurfaceModel
        Without a student; its ensemble counts.
    distilled : Distilled
        The student.
    cache : ArrayCache
        May hold the student's answers already.
    advance : callable
        Told the volumes, in parts, that were done since it was told last; all together all of them.

    Returns
    -------
    Fusion
        With ``student.fusion`` as it is given, or chosen where that is 'auto'. The scores are in-sample: a weight was
        chosen on the same volumes; ``held_out_score`` is not.

    Notes
    -----
    Requirement R25. The historical scorer NX46 is fused with the student on the same volumes and reported beside; the
    masks come from the ensemble and the student.
    """
    config, prox, student = session.config, {}, {}
    for volume_id, (image, _) in volumes.items():
        prox[volume_id] = model.predict_prox(
            image,
            max_feature_bytes=int(config.max_feature_gib * 2**30),
            n_threads=config.n_threads,
            on_part=lambda part: advance(PROX_PART * part),
        )
        found = distilled.predict(image, ids[volume_id].image, cache, poll=session.stops.poll)
        student[volume_id] = VolumePrediction(np.asarray(found.probability), np.asarray(found.uncertainty))
        advance(1.0 - PROX_PART)
    labels = {volume_id: label for volume_id, (_, label) in volumes.items()}
    choice = _weight(session, student, prox, labels)
    weight = choice.weight
    session.log.emit("FUSION_WEIGHT_CHOSEN", asked=config.student.fusion, **choice.to_json())
    nx46 = _beside_nx46(config, student, volumes, session.stops.poll)
    predictions = {name: fused(student[name], prox[name], weight) for name in volumes}
    scores = {
        "prox": _mean(prox, labels),
        "student": _mean(student, labels),
        "fused": _mean(predictions, labels),
        "nx46": nx46.scores_of(0.0),
        "nx46_fused": nx46.choice.score,
    }
    entry = {
        **choice.to_json(),
        "volumes": list(volumes),
        "measure": MEASURE,
        "mean_scores": scores,
        "nx46": nx46.choice.to_json(),
    }
    session.log.emit("FUSION_MEASURED", weight=weight, scores=scores, volumes=list(volumes))
    return Fusion(FusedStudent(distilled.student, weight, distilled.device), predictions, entry)


@dataclass(frozen=True, eq=False)
class ScorerFusion:
    """The student with its weight beside a historical scorer."""

    student: FusedStudent
    probabilities: Mapping[str, NDArray[np.float32]]
    """The student's, of the validation volumes."""
    entry: Mapping[str, Any]
    """The summary's entry."""


def choose_scorer_fusion(
    session: Session, volumes: Volumes, ids: Mapping[str, SourceIds], distilled: Distilled, cache: ArrayCache
) -> ScorerFusion:
    """:func:`choose_fusion` with the configured historical scorer in the ensemble's place (R25)."""
    config, name = session.config, session.config.pipeline
    student, other = {}, {}
    for volume_id, (image, _) in volumes.items():
        found = distilled.predict(image, ids[volume_id].image, cache, poll=session.stops.poll)
        student[volume_id] = np.asarray(found.probability)
        other[volume_id] = volume_score(image, config)
    labels = {volume_id: label for volume_id, (_, label) in volumes.items()}
    asked, pairs = config.student.fusion, [(student[each], other[each]) for each in volumes]
    tried = WEIGHTS if asked == "auto" else (asked,)
    choice = choose_weight(pairs, list(labels.values()), weights=tried, poll=session.stops.poll)
    session.log.emit("FUSION_WEIGHT_CHOSEN", asked=asked, **choice.to_json())
    alone = {label: _mean_of(each, labels) for label, each in ((name, other), ("student", student))}
    scores = alone | {"fused": choice.score}
    session.log.emit("FUSION_MEASURED", weight=choice.weight, scores=scores, volumes=list(volumes))
    entry = {**choice.to_json(), "volumes": list(volumes), "measure": MEASURE, "mean_scores": scores}
    return ScorerFusion(FusedStudent(distilled.student, choice.weight, distilled.device), student, entry)


Predictions = Mapping[str, VolumePrediction]


def _weight(session: Session, student: Predictions, prox: Predictions, labels: Mapping[str, Any]) -> FusionChoice:
    """The configured weight, or the one that is best on these volumes."""
    asked, pairs = session.config.student.fusion, [(student[n].probability, prox[n].probability) for n in labels]
    tried = WEIGHTS if asked == "auto" else (asked,)
    return choose_weight(pairs, list(labels.values()), weights=tried, poll=session.stops.poll)


@dataclass(frozen=True)
class _Nx46:
    choice: FusionChoice

    def scores_of(self, weight: float) -> float:
        return float(np.mean(self.choice.scores[self.choice.weights.index(weight)]))


def _beside_nx46(config: RunConfig, student: Predictions, volumes: Volumes, poll: Callable[[], None]) -> _Nx46:
    """The same with the historical scorer in the ensemble's place."""
    pairs = [
        (student[name].probability, baselines.score(image, "nx46", config.nx46, n_threads=config.n_threads))
        for name, (image, _) in volumes.items()
    ]
    return _Nx46(choose_weight(pairs, [label for _, label in volumes.values()], poll=poll))


def _mean(predictions: Predictions, labels: Mapping[str, Any]) -> float:
    return _mean_of({name: found.probability for name, found in predictions.items()}, labels)


def _mean_of(probabilities: Mapping[str, NDArray[np.float32]], labels: Mapping[str, Any]) -> float:
    return float(np.mean([surface_f_beta(probabilities[name], label) for name, label in labels.items()]))
