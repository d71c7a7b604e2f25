"""From a searched grid, or a historical scorer, to masks: the phase segment, and the masks in reserve."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vesu.config import RunConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Inventory, Pair, TestVolume
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.data.volumes import read_volume, write_volume
from vesu.features import FeatureSpec
from vesu.grid_search import ElasticNetLogisticGrid, interim_model_of
from vesu.run import baseline, guiding, nonces, stages
from vesu.run.autotuning_dust import dust_tuner
from vesu.run.distilled import Distilled
from vesu.run.events import EventLog
from vesu.run.fusing import Fusion, ScorerFusion, choose_fusion, choose_scorer_fusion
from vesu.run.interrupts import Stops
from vesu.run.learning import Prepared
from vesu.run.model import SurfaceModel
from vesu.run.outputs import StepSlices, diagnostics_entry, write_unmatched, write_views
from vesu.run.plan import CALIBRATION_VOLUMES, scored_pairs
from vesu.run.ranking import ScoreRanking, pool_of, rank_pool
from vesu.run.safe_submission import ORIGINS
from vesu.run.session import Session, file_sha512
from vesu.run.state import MODEL_PARTS, Calibrated, MaskRecord
from vesu.run.validation import ScoredVolume
from vesu.segmentation import Segmentation, segment

__all__ = [
    "Workplace",
    "segment_all",
    "segment_by_scorer",
    "segment_in_reserve",
    "segment_provisionally",
    "segment_volume",
    "segment_volume_by_scorer",
]

SCORE_RANKING = "score_ranking.json"

MaskOf = Callable[[TestVolume], None]
"""Makes the mask of a test volume and its evidence."""


class Workplace(Protocol):
    """As much of a session as the mask of one volume needs; a part of a run has it too."""

    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> RunConfig: ...
    @property
    def log(self) -> EventLog: ...
    @property
    def stops(self) -> Stops: ...


def segment_all(
    session: Session,
    inventory: Inventory,
    prepared: Prepared,
    cache: ArrayCache,
    spec: FeatureSpec,
    grid: ElasticNetLogisticGrid,
    distilled: Distilled | None = None,
    on_model: Callable[[], Mapping[str, MaskRecord]] = dict,
) -> Calibrated:
    """Calibrate on validation volumes, then segment every test volume; the model and what its validation measured.

    With a student, the probability is that of the fusion, whose weight is chosen first (R25). ``on_model`` is called
    when the model is there, and gives the masks that it has been used for elsewhere.
    """
    held_out, search = prepared.split.validation, session.config.search
    chosen = held_out[:CALIBRATION_VOLUMES]
    to_rank = len(chosen) * len(pool_of(grid.leaderboard_, search)) if search.ranking == "score" else 0
    calibrated, kept = _restored(session, chosen), _kept(session, inventory.tests)
    before, guided = to_rank + len(chosen), int(guiding.is_asked(session.config))
    done = len(kept) + (0 if calibrated is None else before) + (0 if session.state.guided is None else guided)
    with session.phase("segment", before + guided + len(inventory.tests), done_units=done) as phase:
        session.log.emit("CALIBRATION_VOLUMES", used=len(chosen), held_out=len(held_out))
        if calibrated is None:
            volumes = _cached_pairs(session, chosen, prepared.ids, cache)
            ranking = _ranked(session, prepared, spec, grid, volumes, phase.advance) if to_rank else None
            top_k = min(search.ensemble_size, int((~grid.diverged_).sum()))
            order = None if ranking is None else ranking.order
            prox = grid.model(top_k=top_k, feature_names=prepared.data.names, order=order)
            untuned = SurfaceModel(prox, spec, prepared.data.channels, session.config.segment.ladder)
            fusion = None
            if distilled is not None:
                fusion = choose_fusion(session, volumes, prepared.ids, untuned, distilled, cache, phase.advance)
                untuned = dataclasses.replace(untuned, student=fusion.student)
            advanced = (lambda _: phase.advance(1)) if fusion is None else (lambda _: None)
            calibrated = _calibrate(session, volumes, prepared, untuned, ranking, fusion, advanced)
            session.state.calibrated = calibrated
            session.save("full")
        device = None if distilled is None else distilled.device
        labelled = functools.partial(_each_pair, session, chosen, prepared.ids, cache)
        guiding.guide(session, inventory, labelled, device, phase.advance)
        for volume_id, record in on_model().items():
            if volume_id not in kept:
                session.state.masks[volume_id] = kept[volume_id] = record
                phase.advance(1)
        model = SurfaceModel.load(session.folder, device=device)
        _segment_tests(session, inventory.tests, kept, lambda test: segment_volume(session, test, model, phase.advance))
        return calibrated


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a historical scorer's masks are worth, and how a student was fused with it; None where there is none."""

    validation: Mapping[str, Any] | None
    fusion: Mapping[str, Any] | None


def segment_by_scorer(
    session: Session,
    inventory: Inventory,
    cache: ArrayCache,
    ids: Mapping[str, stages.SourceIds],
    distilled: Distilled | None = None,
) -> Scored:
    """Masks by the configured historical scorer, scored where there are labels (R32), with a student where given."""
    labelled = scored_pairs(inventory.pairs, session.config)
    validation, kept, fusion = None, _kept(session, inventory.tests), None
    if distilled is not None:
        volumes = _cached_pairs(session, labelled, ids, cache)
        fusion = choose_scorer_fusion(session, volumes, ids, distilled, cache)
    with session.phase("segment", len(labelled) + len(inventory.tests), done_units=len(kept)) as phase:
        if labelled:
            pairs = ((pair.volume_id, _cached_pair(session, pair, ids[pair.volume_id], cache)) for pair in labelled)
            validation = baseline.validate(
                pairs,
                session.config,
                on_volume=lambda _: phase.advance(1),
                on_scored=lambda scored: _write_scored(session.folder, scored),
                student=None if fusion is None else lambda name: (fusion.student.weight, fusion.probabilities[name]),
            )
            session.log.emit("BASELINE_VALIDATED", pipeline=session.config.pipeline, validation=validation)

        def by_scorer(test: TestVolume) -> None:
            segment_volume_by_scorer(session, test, fusion)
            phase.advance(1)

        _segment_tests(session, inventory.tests, kept, by_scorer)
    return Scored(validation, None if fusion is None else fusion.entry)


def segment_in_reserve(session: Session, tests: Sequence[TestVolume], advance: Callable[[float], None]) -> None:
    """Masks of a quick historical scorer, for a submission that must go out before the search is done (R33)."""
    folder, scorer = session.folder / ORIGINS["scorer"], session.config.time.fallback
    assert scorer != "empty"
    make_folder(folder)
    config = dataclasses.replace(session.config, pipeline=scorer)
    for test in tests:
        path = folder / f"{test.volume_id}.tif"
        if not path.exists():
            image = read_volume(test.image, n_threads=config.n_threads)
            write_volume(path, baseline.segment_volume(image, config)[1].mask)
        advance(1)


def segment_provisionally(
    session: Session, tests: Sequence[TestVolume], prepared: Prepared, cache: ArrayCache
) -> Iterator[str]:
    """Masks from the search as it stands, volume by volume; they never count as final (R33).

    Yields
    ------
    str
        The id of each volume that has got one.
    """
    state, data = session.state.search, prepared.data
    if state is None:
        return
    make_folder(session.folder / ORIGINS["provisional"])
    prox = interim_model_of(
        state,
        data.validation,
        top_k=session.config.search.ensemble_size,
        feature_names=data.names,
        n_threads=session.config.n_threads,
    )
    untuned = SurfaceModel(prox, prepared.draws.spec, data.channels, session.config.segment.ladder)
    # One volume fits the threshold: time is what is short.
    volumes = _cached_pairs(session, prepared.split.validation[:1], prepared.ids, cache)
    tuned, _ = stages.calibrate(
        volumes, untuned, session.config, stages.training_prior(data, session.config), lambda _: None
    )
    model = dataclasses.replace(untuned, segment_config=tuned)
    for test in tests:
        image = read_volume(test.image, n_threads=session.config.n_threads)
        mask = model.segment(image, n_threads=session.config.n_threads).mask
        write_volume(session.folder / ORIGINS["provisional"] / f"{test.volume_id}.tif", mask)
        yield test.volume_id


def _restored(session: Session, chosen: Sequence[Pair]) -> Calibrated | None:
    """Put the checkpoint's calibrated model back, if its evidence is here too."""
    calibrated = session.state.calibrated
    evidence = [session.folder / "validation" / f"{pair.volume_id}.npz" for pair in chosen]
    if calibrated is None:
        return None
    if calibrated.ranking is not None:
        evidence.append(session.folder / SCORE_RANKING)
    if not all(path.exists() for path in evidence):
        return None
    for name in MODEL_PARTS:
        write_bytes_atomic(session.folder / name, calibrated.files[name])
    session.log.emit("CALIBRATION_RESTORED", volumes=[pair.volume_id for pair in chosen])
    return calibrated


def _ranked(
    session: Session,
    prepared: Prepared,
    spec: FeatureSpec,
    grid: ElasticNetLogisticGrid,
    volumes: Mapping[str, tuple[Any, Any]],
    advance: Callable[[float], None],
) -> ScoreRanking:
    """The candidates by the score itself, which is the order in which the ensemble takes them (R45)."""
    ranking = rank_pool(grid, prepared.data, spec, volumes, session.config, lambda *_: advance(1))
    write_json_atomic(session.folder / SCORE_RANKING, ranking.to_json())
    session.log.emit("CANDIDATES_RANKED_BY_SCORE", **ranking.to_json())
    return ranking


def _calibrate(
    session: Session,
    volumes: Mapping[str, tuple[Any, Any]],
    prepared: Prepared,
    untuned: SurfaceModel,
    ranking: ScoreRanking | None,
    fusion: Fusion | None,
    on_volume: Callable[[str], None],
) -> Calibrated:
    prior = stages.training_prior(prepared.data, session.config)
    tuned, validation = stages.calibrate(
        volumes,
        untuned,
        session.config,
        prior,
        on_volume,
        lambda scored: _write_scored(session.folder, scored),
        None if fusion is None else fusion.predictions,
        dust_tuner(session),
    )
    session.log.emit("CALIBRATION_MEASURED", **validation["calibration"])
    model = dataclasses.replace(untuned, segment_config=tuned)
    model.save(session.folder)
    session.log.emit("CALIBRATED", ladder=tuned.to_json(), validation=validation)
    files = {name: (session.folder / name).read_bytes() for name in MODEL_PARTS}
    # Through JSON, so that a session that goes on from here has the very same values.
    found = [validation, None if ranking is None else ranking.summary(), None if fusion is None else fusion.entry]
    measured, ranked, entry = json.loads(json.dumps(found))
    return Calibrated(files, measured, ranked, entry)


def _kept(session: Session, tests: Sequence[TestVolume]) -> dict[str, MaskRecord]:
    """The masks that an earlier session sealed, if CT and mask are still what they were."""
    kept = {}
    for test in tests:
        known = session.state.masks.get(test.volume_id)
        mask = _mask_path(session, test)
        if (
            known is not None
            and mask.exists()
            and nonces.are_kept(session, test.volume_id)
            and (content_id(test.image), file_sha512(mask))
            == (
                known.image,
                known.sha512,
            )
        ):
            kept[test.volume_id] = known
    return kept


def _segment_tests(
    session: Session, tests: Sequence[TestVolume], kept: Mapping[str, MaskRecord], make_mask: MaskOf
) -> None:
    """Every test volume that has no mask yet; a checkpoint after each."""
    for test in tests:
        if test.volume_id in kept:
            session.log.emit("VOLUME_KEPT", volume_id=test.volume_id, sha512=kept[test.volume_id].sha512)
            continue
        make_mask(test)
        session.state.masks[test.volume_id] = MaskRecord(content_id(test.image), file_sha512(_mask_path(session, test)))
        session.save("full")
    nonces.record(session, tests)


def _mask_path(session: Session, test: TestVolume) -> Path:
    return session.folder / "masks" / f"{test.volume_id}.tif"


PREDICTED_PART = 0.8
"""Of a volume's time, what its features and probabilities take; the rest is the ladder."""


def segment_volume(
    session: Workplace, test: TestVolume, model: SurfaceModel, advance: Callable[[float], None] = lambda _: None
) -> None:
    """Mask and evidence of a test volume by a model; ``advance`` is told each part of the volume that is done."""
    config = session.config
    with session.log.watch.measure("io"):
        image = read_volume(test.image, n_threads=config.n_threads)
    prediction = model.predict(
        image,
        max_feature_bytes=int(config.max_feature_gib * 2**30),
        n_threads=config.n_threads,
        on_part=lambda part: advance(PREDICTED_PART * part),
        poll=session.stops.poll,
    )
    slices = StepSlices(image)
    result = segment(
        prediction.probability,
        model.segment_config,
        uncertainty=prediction.uncertainty,
        n_threads=config.n_threads,
        topology=True,
        on_step=slices.add,
    )
    _write_volume(session, test, image, prediction.probability, prediction.uncertainty, result, slices)
    advance(1.0 - PREDICTED_PART)


def segment_volume_by_scorer(session: Workplace, test: TestVolume, fusion: ScorerFusion | None = None) -> None:
    """Mask and evidence of a test volume by the configured historical scorer (R32)."""
    image = read_volume(test.image, n_threads=session.config.n_threads)
    slices = StepSlices(image)
    own = None if fusion is None else fusion.student.predict(image, poll=session.stops.poll)
    with_student = None if fusion is None or own is None else (fusion.student.weight, own.probability)
    score, result = baseline.segment_volume(image, session.config, on_step=slices.add, student=with_student)
    _write_volume(session, test, image, score, None if own is None else own.uncertainty, result, slices)


def _write_volume(
    session: Workplace,
    test: TestVolume,
    image: Any,
    probability: Any,
    uncertainty: Any | None,
    result: Segmentation,
    slices: StepSlices,
) -> None:
    folder, name = session.folder, test.volume_id
    entry = diagnostics_entry(name, result)
    nonces.keep(session, name, image, probability)
    with session.log.watch.measure("io"):
        write_json_atomic(folder / "segment" / f"{name}.json", entry)
        write_views(folder / "segment" / f"{name}_views.npz", image, probability, uncertainty, result)
        slices.write(folder / "segment" / f"{name}_steps.npz")
        # Last, so that a mask that is there has its evidence beside it.
        write_volume(folder / "masks" / f"{name}.tif", result.mask)
    session.log.emit(
        "VOLUME_SEGMENTED",
        volume_id=name,
        thresholds=entry["thresholds"],
        ink_ratio_global=entry["ink_ratio_global"],
        probability_percentiles=entry["probability_percentiles"],
        step_seconds=[[step.name, step.seconds] for step in result.steps],
    )


def _write_scored(folder: Path, scored: ScoredVolume) -> None:
    write_unmatched(folder / "validation" / f"{scored.volume_id}.npz", scored)


def _cached_pairs(
    session: Session, pairs: Sequence[Pair], ids: Mapping[str, stages.SourceIds], cache: ArrayCache
) -> dict[str, tuple[Any, Any]]:
    return dict(_each_pair(session, pairs, ids, cache))


def _each_pair(
    session: Session, pairs: Sequence[Pair], ids: Mapping[str, stages.SourceIds], cache: ArrayCache
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for pair in pairs:
        yield pair.volume_id, _cached_pair(session, pair, ids[pair.volume_id], cache)


def _cached_pair(session: Session, pair: Pair, ids: stages.SourceIds, cache: ArrayCache) -> tuple[Any, Any]:
    threads = session.config.n_threads
    return (
        stages.cached_volume(pair.image, ids.image, cache, threads),
        stages.cached_volume(pair.label, ids.label, cache, threads),
    )
