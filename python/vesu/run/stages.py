"""The staircase's steps, each a function from typed values to typed values; `pipeline` joins them."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.calibration import ThresholdCalibrator
from vesu.config import RunConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Pair
from vesu.data.sampling import sample_voxels
from vesu.data.volumes import read_volume
from vesu.errors import DataError
from vesu.features import FeatureSpec, extract_features, gather, select_features_of
from vesu.grid_search import (
    AnySamples,
    ElasticNetLogisticGrid,
    EpochEnd,
    EpochSettings,
    IterationRecord,
    NextEpochs,
    Samples,
    SearchState,
)
from vesu.reliability import measure_calibration
from vesu.run.model import SurfaceModel, VolumePrediction
from vesu.run.plan import DRAWS_PER_PASS, epoch_settings
from vesu.run.rows import Rows, RowTable
from vesu.run.validation import OnScored, pooled_density, validation_entry
from vesu.scoring import score
from vesu.segmentation import SegmentConfig, segment

__all__ = [
    "AdjustLadder",
    "EpochTuner",
    "Rows",
    "SourceIds",
    "TrainingSet",
    "cached_volume",
    "calibrate",
    "epoch_rows",
    "fit_grid",
    "fitted_ladder",
    "keep",
    "load",
    "rows_key",
    "sampled_rows",
    "training_prior",
    "training_set",
]

Array = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
AdjustLadder: TypeAlias = Callable[[SegmentConfig, Arrays, Arrays, Arrays], SegmentConfig]
"""The fitted ladder, probabilities, labels and spreads by volume id; gives a ladder."""


@dataclass(frozen=True)
class SourceIds:
    """BLAKE3 of the two files of a pair: what every cache key is made of."""

    image: str
    label: str


@dataclass(frozen=True)
class TrainingSet:
    """Samples of all volumes, kept channels only; several processes may hold them."""

    train: AnySamples
    validation: AnySamples
    channels: tuple[int, ...]
    names: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]


class EpochTuner(Protocol):
    """Who sets the epochs: those in force, and at an epoch's end the next ones."""

    @property
    def settings(self) -> EpochSettings: ...
    def on_epoch(self, end: EpochEnd, /) -> NextEpochs: ...


def load(pair: Pair, cache: ArrayCache, n_threads: int | None) -> SourceIds:
    """Decode a pair once into the cache (R09) and judge its label: preflight decoded only a sample of them.

    Raises
    ------
    DataError
        A label value other than 0, 1, 2.
    """
    ids = SourceIds(content_id(pair.image), content_id(pair.label))
    cached_volume(pair.image, ids.image, cache, n_threads)
    label = cached_volume(pair.label, ids.label, cache, n_threads)
    if label.min() < 0 or label.max() > 2:
        values, counts = np.unique(label[(label < 0) | (label > 2)], return_counts=True)
        found = ", ".join(f"{value} ({count} voxels)" for value, count in zip(values[:5], counts[:5], strict=True))
        raise DataError(f"{pair.label}: got label values {found}; accepted: 0, 1 and 2")
    return ids


def cached_volume(path: Path, digest: str, cache: ArrayCache, n_threads: int | None, *, mmap: bool = False) -> Array:
    """The decoded volume of a file, from the cache where it is there; with ``mmap`` a map of it, for many at once.

    To decode is cheap beside computing features: a volume never takes the room of sampled rows.
    """
    key = cache.key("volume", file=digest)
    decoded = functools.partial(read_volume, path, n_threads=n_threads)
    return cache.get_or_compute(key, lambda: {"volume": decoded()}, mmap=mmap, dear=False)["volume"]


def sampled_rows(
    pair: Pair,
    ids: SourceIds,
    spec: FeatureSpec,
    config: RunConfig,
    cache: ArrayCache,
    *,
    epoch: int = 0,
    n_epochs: int = 1,
) -> Rows:
    """Class-balanced voxels of one volume with their features (R07, R16), cached by content (R09).

    Each epoch has its own draw (R14). What must be computed is computed for the epochs that follow too, a few at a
    time, up to ``n_epochs``: one pass over the volume serves several draws.
    """
    if (cached := cache.get(rows_key(pair, ids, spec, config, cache, epoch))) is not None:
        return Rows(**cached)
    image = cached_volume(pair.image, ids.image, cache, config.n_threads)
    label = cached_volume(pair.label, ids.label, cache, config.n_threads)
    features = extract_features(image, spec, n_threads=config.n_threads)

    def draw(epoch: int) -> Rows:
        index = sample_voxels(
            label,
            config.sampling.voxels_per_volume,
            seed=config.seed,
            volume_id=pair.volume_id,
            margin=config.sampling.margin,
            draw=epoch,
            allow_single_class=True,  # a chunk without a surface still teaches what background looks like
        )
        x, g = gather(features, index)
        rows = Rows(x, g, label.reshape(-1)[index].astype(np.uint8))
        cache.put(rows_key(pair, ids, spec, config, cache, epoch), x=rows.x, g=rows.g, y=rows.y)
        return rows

    asked = draw(epoch)
    for later in range(epoch + 1, min(epoch + DRAWS_PER_PASS, n_epochs)):
        draw(later)
    return asked


def rows_key(pair: Pair, ids: SourceIds, spec: FeatureSpec, config: RunConfig, cache: ArrayCache, epoch: int) -> str:
    """Under what an epoch's draw of a volume stands in the cache: everything that it depends on."""
    return cache.key(
        "rows",
        image=ids.image,
        label=ids.label,
        volume_id=pair.volume_id,
        scales=list(spec.scales),
        feature_version=spec.version,
        voxels=config.sampling.voxels_per_volume,
        margin=config.sampling.margin,
        seed=config.seed,
        draw=epoch,
    )


def training_set(train: RowTable, validation: RowTable, spec: FeatureSpec, config: RunConfig) -> TrainingSet:
    """Keep the channels that carry something of their own (R08) of all volumes' rows, which are moved, not copied."""
    settings = config.features
    selection = select_features_of(
        train.parts,
        spec.names,
        min_variance=settings.min_variance,
        max_correlation=settings.max_correlation,
        top_k=settings.top_k,
        n_threads=config.n_threads,
    )
    channels = selection.indices
    return TrainingSet(
        train=train.samples(channels),
        validation=validation.samples(channels),
        channels=channels,
        names=selection.names,
        dropped=selection.dropped,
    )


def epoch_rows(parts: Iterable[Rows], n_rows: int, channels: tuple[int, ...]) -> Samples:
    """The training samples of a later epoch: the first one's channels of a fresh draw, which has as many rows (R14)."""
    table = RowTable(n_rows, channels)
    for rows in parts:
        table.append(rows)
    return table.samples()


def fit_grid(
    data: TrainingSet,
    config: RunConfig,
    device: Literal["cpu", "cuda", "torch"],
    draw: Callable[[int], AnySamples],
    on_iteration: Callable[[IterationRecord], None],
    on_event: Callable[[str, Mapping[str, Any]], None],
    state: SearchState | None = None,
    tuner: EpochTuner | None = None,
) -> ElasticNetLogisticGrid:
    """The whole grid, every candidate to the last iteration of every epoch (R11-R15, R50), from ``state`` on (R37)."""
    search = config.search
    grid = ElasticNetLogisticGrid(
        meta_neurons=search.meta_neurons,
        l1=search.l1,
        l2=search.l2,
        max_iter=search.max_iter,
        learning_rate=search.learning_rate,
        class_weight=search.class_weight,
        seed=config.seed,
        n_threads=config.n_threads,
        solver=search.solver,
        tol=search.tol,
        device=device,
        simd=state.problem.simd if state is not None and device == "cpu" else None,
    )
    return grid.fit_samples(
        draw,
        epoch_settings(search) if tuner is None else tuner.settings,
        validation=data.validation,
        on_iteration=on_iteration,
        on_event=on_event,
        on_epoch=None if tuner is None else tuner.on_epoch,
        state=state,
    )


def calibrate(
    volumes: Mapping[str, tuple[Array, Array]],
    untuned: SurfaceModel,
    config: RunConfig,
    prior: float,
    on_volume: Callable[[str], None],
    on_scored: OnScored | None = None,
    predictions: Mapping[str, VolumePrediction] | None = None,
    adjust: AdjustLadder | None = None,
) -> tuple[SegmentConfig, dict[str, Any]]:
    """Fit the ladder's threshold on labelled volumes (R28); measure the probabilities (R17) and the masks.

    Parameters
    ----------
    volumes : mapping of str to (image, label)
        Held-out volumes, each pair (z, y, x).
    untuned : SurfaceModel
        The model; its own ladder is ignored.
    prior : float
        From :func:`training_prior`.
    on_volume : callable
        Called with each id when its probabilities are there.
    on_scored : callable, optional
        Gets each volume with its final mask, when that is scored.
    predictions : mapping of str to VolumePrediction, optional
        What the model says of these volumes, where that is known already.
    adjust : callable, optional
        Gets the fitted ladder with what it was fitted on, and gives the one that is used (R39).

    Returns
    -------
    SegmentConfig, dict
        The ladder with the fitted rule, and the validation entry of ``summary.json`` with the trivial baselines beside.
    """
    labels = {volume_id: label for volume_id, (_, label) in volumes.items()}
    density = pooled_density(list(labels.values()), list(labels.values()))
    ladder = config.segment.ladder
    probabilities: dict[str, NDArray[np.float32]] = {}
    spreads: dict[str, NDArray[np.float32]] = {}  # held only where a step looks at them
    measured = []
    for volume_id, (image, label) in volumes.items():
        found = (predictions or {}).get(volume_id) or untuned.predict(
            image, max_feature_bytes=int(config.max_feature_gib * 2**30), n_threads=config.n_threads
        )
        probabilities[volume_id] = found.probability
        if ladder.needs_uncertainty:
            spreads[volume_id] = found.uncertainty
        shares = {"prior": prior, "density": density, "threshold": untuned.threshold}
        measured.append(measure_calibration(found.probability, found.uncertainty, label, **shares))
        on_volume(volume_id)
    tuned = fitted_ladder(ladder, config, probabilities, labels, spreads)
    if adjust is not None:
        tuned = adjust(tuned, probabilities, labels, spreads)
    masks = {
        volume_id: segment(probability, tuned, uncertainty=spreads.get(volume_id), n_threads=config.n_threads).mask
        for volume_id, probability in probabilities.items()
    }
    images = {volume_id: image for volume_id, (image, _) in volumes.items()}
    entry = validation_entry(masks, labels, images, n_threads=config.n_threads, on_scored=on_scored)
    return tuned, {**entry, "calibration": functools.reduce(operator.add, measured).to_json()}


def fitted_ladder(
    ladder: SegmentConfig,
    config: RunConfig,
    probabilities: Mapping[str, Array],
    labels: Mapping[str, Array],
    spreads: Mapping[str, Array],
) -> SegmentConfig:
    """The ladder with the threshold rule that fits these volumes best; unchanged where no fit is asked for."""
    settings = config.segment.calibration
    if not settings.fit:
        return ladder
    calibrator = ThresholdCalibrator(
        ladder,
        modes=settings.modes,
        low_factors=settings.low_factors,
        metric=_competition_score(config.n_threads) if settings.metric == "score" else settings.metric,
        n_threads=config.n_threads,
    )
    return calibrator.fit(probabilities.values(), labels.values(), spreads.values() if spreads else None).ladder_


def _competition_score(n_threads: int | None) -> Callable[[Array, Array], float]:
    """The competition's score as a metric of the fit."""
    return lambda mask, label: score(mask, label, n_threads=n_threads).score


def training_prior(data: TrainingSet, config: RunConfig) -> float:
    """The share of surface that the search was fitted under: of its weighted samples."""
    negative, positive = data.train.class_sizes()
    return 0.5 if config.search.class_weight == "balanced" else positive / (negative + positive)


def keep(rows: Rows, channels: tuple[int, ...]) -> Samples:
    """The chosen channels of some rows, as the search takes them."""
    chosen = list(channels)
    return Samples(np.ascontiguousarray(rows.x[:, chosen]), rows.y, np.ascontiguousarray(rows.g[:, chosen]))
