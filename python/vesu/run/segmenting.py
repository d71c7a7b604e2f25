"""From a searched grid, or a historical scorer, to masks: the phase segment, and the masks in reserve."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Inventory, Pair, TestVolume
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.data.volumes import read_volume, write_volume
from vesu.features import FeatureSpec
from vesu.grid_search import ProxFitModel
from vesu.run import baseline, stages
from vesu.run.learning import Learned
from vesu.run.model import SurfaceModel
from vesu.run.outputs import StepSlices, diagnostics_entry, write_unmatched, write_views
from vesu.run.plan import CALIBRATION_VOLUMES, Split, scored_pairs
from vesu.run.safe_submission import ORIGINS
from vesu.run.session import Session, file_sha512
from vesu.run.state import MODEL_PARTS, Calibrated, MaskRecord
from vesu.run.validation import ScoredVolume
from vesu.segmentation import Segmentation, segment

__all__ = ["segment_all", "segment_by_scorer", "segment_in_reserve", "segment_provisionally"]

MaskOf = Callable[[TestVolume], None]
"""Makes the mask of a test volume and its evidence."""


def segment_all(
    session: Session, inventory: Inventory, split: Split, cache: ArrayCache, spec: FeatureSpec, learned: Learned
) -> dict[str, Any]:
    """Calibrate on validation volumes, then segment every test volume; the summary's entry on validation."""
    chosen = split.validation[:CALIBRATION_VOLUMES]
    with session.phase("segment", len(chosen) + len(inventory.tests)) as phase:
        session.log.emit("CALIBRATION_VOLUMES", used=len(chosen), held_out=len(split.validation))

        def calibrated() -> dict[str, Any]:
            top_k = min(session.config.search.ensemble_size, int((~learned.grid.diverged_).sum()))
            prox = learned.grid.model(top_k=top_k, feature_names=learned.data.names)
            return _calibrate(session, chosen, cache, spec, learned, prox, lambda _: phase.advance(1))

        if _restored(session, chosen):
            phase.advance(len(chosen))
            validation = dict(session.state.calibrated.validation) if session.state.calibrated else {}
        else:
            validation = calibrated()
        model = SurfaceModel.load(session.folder)
        _segment_tests(session, inventory.tests, lambda test: _segment_volume(session, test, model), phase.advance)
        return validation


def segment_by_scorer(session: Session, inventory: Inventory, cache: ArrayCache, ids: Any) -> dict[str, Any] | None:
    """Masks by the configured historical scorer, scored where there are labels (R32)."""
    labelled = scored_pairs(inventory.pairs, session.config)
    validation = None
    with session.phase("segment", len(labelled) + len(inventory.tests)) as phase:
        if labelled:
            pairs = ((pair.volume_id, _cached_pair(session, pair, ids[pair.volume_id], cache)) for pair in labelled)
            validation = baseline.validate(
                pairs,
                session.config,
                on_volume=lambda _: phase.advance(1),
                on_scored=lambda scored: _write_scored(session.folder, scored),
            )
            session.log.emit("BASELINE_VALIDATED", pipeline=session.config.pipeline, validation=validation)

        def by_scorer(test: TestVolume) -> None:
            image = read_volume(test.image, n_threads=session.config.n_threads)
            slices = StepSlices(image)
            score, result = baseline.segment_volume(image, session.config, on_step=slices.add)
            _write_volume(session, test, image, score, None, result, slices)

        _segment_tests(session, inventory.tests, by_scorer, phase.advance)
    return validation


def segment_in_reserve(session: Session, tests: Sequence[TestVolume], advance: Callable[[float], None]) -> None:
    """Masks of a quick historical scorer, for a submission that must go out before the search is done (R33)."""
    folder = session.folder / ORIGINS["scorer"]
    make_folder(folder)
    config = dataclasses.replace(session.config, pipeline=session.config.time.fallback)
    for test in tests:
        path = folder / f"{test.volume_id}.tif"
        if not path.exists():
            image = read_volume(test.image, n_threads=config.n_threads)
            write_volume(path, baseline.segment_volume(image, config)[1].mask)
        advance(1)


def segment_provisionally(
    session: Session,
    inventory: Inventory,
    split: Split,
    cache: ArrayCache,
    spec: FeatureSpec,
    learned: Any,
    prox: ProxFitModel,
    until_s: Callable[[], float],
) -> int:
    """Masks from a search that is not done, as many as the time allows; they never count as final ones.

    Parameters
    ----------
    until_s : callable
        Seconds that may still be spent.

    Returns
    -------
    int
        How many volumes got one.
    """
    folder = session.folder / ORIGINS["provisional"]
    make_folder(folder)
    chosen = split.validation[:1]  # one volume fits the threshold: time is what is short
    volumes = {pair.volume_id: _cached_pair(session, pair, learned.ids[pair.volume_id], cache) for pair in chosen}
    untuned = SurfaceModel(prox, spec, learned.data.channels, session.config.segment.ladder)
    prior = stages.training_prior(learned.data, session.config)
    tuned, _ = stages.calibrate(volumes, untuned, session.config, prior, lambda _: None)
    model = dataclasses.replace(untuned, segment_config=tuned)
    done = 0
    for test in inventory.tests:
        if until_s() <= 0:
            break
        if (session.folder / "masks" / f"{test.volume_id}.tif").exists():
            continue
        image = read_volume(test.image, n_threads=session.config.n_threads)
        result = model.segment(image, n_threads=session.config.n_threads)
        write_volume(folder / f"{test.volume_id}.tif", result.mask)
        done += 1
    return done


def _restored(session: Session, chosen: Sequence[Pair]) -> bool:
    """Put the checkpoint's calibrated model back, if its evidence is here too."""
    calibrated = session.state.calibrated
    evidence = [session.folder / "validation" / f"{pair.volume_id}.npz" for pair in chosen]
    if calibrated is None or not all(path.exists() for path in evidence):
        return False
    for name in MODEL_PARTS:
        write_bytes_atomic(session.folder / name, calibrated.files[name])
    session.log.emit("CALIBRATION_RESTORED", volumes=[pair.volume_id for pair in chosen])
    return True


def _calibrate(
    session: Session,
    chosen: Sequence[Pair],
    cache: ArrayCache,
    spec: FeatureSpec,
    learned: Learned,
    prox: ProxFitModel,
    on_volume: Callable[[str], None],
) -> dict[str, Any]:
    volumes = {pair.volume_id: _cached_pair(session, pair, learned.ids[pair.volume_id], cache) for pair in chosen}
    untuned = SurfaceModel(prox, spec, learned.data.channels, session.config.segment.ladder)
    prior = stages.training_prior(learned.data, session.config)
    tuned, validation = stages.calibrate(
        volumes, untuned, session.config, prior, on_volume, lambda scored: _write_scored(session.folder, scored)
    )
    session.log.emit("CALIBRATION_MEASURED", **validation["calibration"])
    dataclasses.replace(untuned, segment_config=tuned).save(session.folder)
    session.log.emit("CALIBRATED", ladder=tuned.to_json(), validation=validation)
    files = {name: (session.folder / name).read_bytes() for name in MODEL_PARTS}
    # Through JSON, so that a session that goes on from here has the very same values.
    session.state.calibrated = Calibrated(files, json.loads(json.dumps(validation)))
    session.save("full")
    return validation


def _segment_tests(
    session: Session, tests: Sequence[TestVolume], make_mask: MaskOf, advance: Callable[[float], None]
) -> None:
    """Every test volume, those excepted whose masks an earlier session sealed; a checkpoint after each."""
    for test in tests:
        image_id = content_id(test.image)
        mask = session.folder / "masks" / f"{test.volume_id}.tif"
        known = session.state.masks.get(test.volume_id)
        if known is not None and known.image == image_id and _sealed(mask, known):
            session.log.emit("VOLUME_KEPT", volume_id=test.volume_id, sha512=known.sha512)
        else:
            make_mask(test)
            session.state.masks[test.volume_id] = MaskRecord(image_id, file_sha512(mask))
            session.save("full")
        advance(1)


def _sealed(mask: Path, record: MaskRecord) -> bool:
    return mask.exists() and file_sha512(mask) == record.sha512


def _segment_volume(session: Session, test: TestVolume, model: SurfaceModel) -> None:
    config = session.config
    image = read_volume(test.image, n_threads=config.n_threads)
    max_bytes = int(config.max_feature_gib * 2**30)
    prediction = model.predict(image, max_feature_bytes=max_bytes, n_threads=config.n_threads)
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


def _write_volume(
    session: Session,
    test: TestVolume,
    image: Any,
    probability: Any,
    uncertainty: Any | None,
    result: Segmentation,
    slices: StepSlices,
) -> None:
    folder, name = session.folder, test.volume_id
    entry = diagnostics_entry(name, result)
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


def _cached_pair(session: Session, pair: Pair, ids: stages.SourceIds, cache: ArrayCache) -> tuple[Any, Any]:
    threads = session.config.n_threads
    return (
        stages.cached_volume(pair.image, ids.image, cache, threads),
        stages.cached_volume(pair.label, ids.label, cache, threads),
    )

