"""The whole search on some of the channels, and what its ensemble says of a volume."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig
from vesu.data.discover import Pair
from vesu.errors import ArgumentError
from vesu.features import FAMILIES, FeatureSpec, extract_features
from vesu.grid_search import ElasticNetLogisticGrid, IterationRecord, SelectionWeights, choose_device
from vesu.run import stages
from vesu.run.ablations.study import Probabilities, Study
from vesu.run.model import SurfaceModel
from vesu.run.outputs import finite
from vesu.run.plan import candidates_by_epoch, epoch_settings
from vesu.run.ranking import rank_pool
from vesu.run.rows import RowTable

__all__ = ["Searched", "SeedWork", "require_search"]


def require_search(config: RunConfig) -> RunConfig:
    """The settings, if there is a search in them.

    Raises
    ------
    ArgumentError
        A historical scorer.
    """
    if config.pipeline != "vesu":
        raise ArgumentError(f"pipeline: got {config.pipeline!r}, which searches nothing; accepted: 'vesu'")
    return config


@dataclass(eq=False)
class SeedWork:
    """What all searches of one seed share: the drawn voxels, and the features of whole volumes that fit in memory."""

    study: Study
    seed: int
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """All channels of a volume, by its id; computed once and kept as ``max_feature_gib`` allows."""

    def __post_init__(self) -> None:
        self.config: RunConfig = self.study.seeded(self.seed)
        self.split = self.study.split(self.seed)
        self.chosen = self.study.chosen_on(self.seed)
        self.spec = FeatureSpec(scales=self.config.features.scales)
        self.n_epochs = epoch_settings(self.config.search).limit

    def channels_of(self, families: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the channels of these families, among all."""
        wanted = {f"{family}_s" for family in families}
        return tuple(i for i, name in enumerate(self.spec.names) if name[: name.rindex("_s") + 2] in wanted)

    def rows(self, pair: Pair, epoch: int = 0, n_epochs: int = 1) -> stages.Rows:
        """A draw of a volume with all its channels, from the cache where it is there."""
        ids = self.study.ids[pair.volume_id]
        return stages.sampled_rows(pair, ids, self.spec, self.config, self.study.cache, epoch=epoch, n_epochs=n_epochs)

    def training_set(self, families: Sequence[str]) -> stages.TrainingSet:
        """Samples with the channels that the selection keeps of these families; their numbers are among all (R08)."""
        numbers = self.channels_of(families)
        found = stages.training_set(
            RowTable.of([self.rows(pair, 0, self.n_epochs) for pair in self.split.train], numbers),
            RowTable.of([self.rows(pair) for pair in self.split.validation], numbers),
            FeatureSpec(scales=self.spec.scales, families=tuple(families)),
            self.config,
        )
        return dataclasses.replace(found, channels=tuple(numbers[channel] for channel in found.channels))

    def search(self, families: Sequence[str], left_out: Sequence[str] = ()) -> "Searched":
        """Every candidate of the whole grid to its last iteration, with every iteration in the log (R50, R51)."""
        study, log = self.study, self.study.log
        data = self.training_set([family for family in FAMILIES if family in families])
        log.emit(
            "ABLATION_SEARCH_START",
            left_out=list(left_out),
            seed=self.seed,
            train=[pair.volume_id for pair in self.split.train],
            validation=[pair.volume_id for pair in self.split.validation],
            features=list(data.names),
            samples=data.train.n_samples,
            candidates=candidates_by_epoch(self.config.search),
            max_iter=self.config.search.max_iter,
        )

        def draw(epoch: int) -> Any:
            if epoch == 0:
                return data.train
            parts = [self.rows(pair, epoch, self.n_epochs) for pair in self.split.train]
            return stages.epoch_rows(parts, data.train.n_samples, data.channels)

        def on_iteration(record: IterationRecord) -> None:
            with study.stops.deferred():
                log.emit_iterations(record, epoch=record.epoch)

        device = choose_device(self.config.search.device, self.config.search.solver, study.tell)
        grid = stages.fit_grid(data, self.config, device, draw, on_iteration, study.tell)
        best = dict(zip(grid.leaderboard_.dtype.names or (), grid.leaderboard_[0].tolist(), strict=True))
        log.emit("ABLATION_SEARCH_DONE", left_out=list(left_out), seed=self.seed, best=finite(best))
        return Searched(self, data, grid)

    def held(self, pair: Pair) -> NDArray[np.float32] | None:
        """All channels of a volume, if there is room to hold them."""
        if pair.volume_id in self.features:
            return self.features[pair.volume_id]
        image = self.study.image(pair)
        room = self.config.max_feature_gib * 2**30 - sum(values.nbytes for values in self.features.values())
        if 4 * len(self.spec.names) * image.size > room:
            return None
        values = extract_features(image, self.spec, n_threads=self.config.n_threads).values
        self.features[pair.volume_id] = values
        return values


@dataclass(eq=False)
class Searched:
    """A finished search; its channels are numbered among those of all families."""

    work: SeedWork
    data: stages.TrainingSet
    grid: ElasticNetLogisticGrid

    def model(self) -> SurfaceModel:
        """The ensemble that a run would take, its ladder not fitted."""
        work, grid = self.work, self.grid
        config, order = work.config, None
        if config.search.ranking == "score":
            study = work.study
            volumes = {pair.volume_id: (study.image(pair), study.label(pair)) for pair in work.chosen}
            order = rank_pool(grid, self.data, work.spec, volumes, config).order
        top_k = min(config.search.ensemble_size, int((~grid.diverged_).sum()))
        prox = grid.model(top_k=top_k, feature_names=self.data.names, order=order)
        return SurfaceModel(prox, work.spec, self.data.channels, config.segment.ladder)

    def answer(self, model: SurfaceModel, pair: Pair) -> Probabilities:
        """What the model says of a volume: the same bits from held features and slab by slab."""
        held, config = self.work.held(pair), self.work.config
        if held is not None:
            return Probabilities(*model.predict_features(held, n_threads=config.n_threads))
        found = model.predict_prox(
            self.work.study.image(pair),
            max_feature_bytes=int(config.max_feature_gib * 2**30),
            n_threads=config.n_threads,
        )
        return Probabilities(found.probability, found.uncertainty)

    def objectives(self) -> dict[str, float]:
        """The winner's objective on sampled voxels of each judged volume, turned round: higher is better (R13).

        The winner was chosen on the validation volumes; on the judged ones only its own best threshold is looked for.
        """
        work, found = self.work, {}
        for pair in work.study.judged:
            samples = stages.keep(work.rows(pair), self.data.channels)
            table = self.grid.search_.rank(samples, SelectionWeights())
            row = table[table["candidate"] == self.grid.best_index_][0]
            found[pair.volume_id] = -float(row["objective"])
        return found
