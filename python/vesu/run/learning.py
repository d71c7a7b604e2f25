"""From labelled volumes to a searched grid: the phases load, features, train_data and fit."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vesu import _core
from vesu.data.cache import ArrayCache
from vesu.data.discover import Pair
from vesu.data.storage import write_json_atomic
from vesu.data.volumes import inspect_volume
from vesu.errors import ArgumentError, DataError
from vesu.features import FeatureSpec
from vesu.grid_search import (
    AnySamples,
    ElasticNetLogisticGrid,
    IterationRecord,
    SearchState,
    SharedSamples,
    choose_device,
)
from vesu.grid_search.solver import OnEvent, Place
from vesu.run import compatibility, stages
from vesu.run.autotuning import SearchTuning
from vesu.run.coverage import TrainCoverage
from vesu.run.outputs import finite
from vesu.run.plan import Split, candidates_by_epoch, epoch_settings
from vesu.run.ranks_rows import shared_epoch, shared_training_set
from vesu.run.rows import RowTable
from vesu.run.session import Session

__all__ = ["Prepared", "fit", "identify", "load", "prepare", "search_entry"]


@dataclass(frozen=True)
class Prepared:
    """Everything that the search learns from."""

    split: Split
    ids: Mapping[str, stages.SourceIds]
    data: stages.TrainingSet
    draws: "Draws"


def load(session: Session, pairs: Sequence[Pair], cache: ArrayCache) -> dict[str, stages.SourceIds]:
    """Decode the labelled volumes into the cache; their files' hashes."""
    with session.phase("load", len(pairs)) as phase:
        ids = {}
        for pair in pairs:
            with session.log.watch.measure("io"):
                ids[pair.volume_id] = stages.load(pair, cache, session.config.n_threads)
            phase.advance(1)
        return ids


def prepare(session: Session, split: Split, cache: ArrayCache, spec: FeatureSpec, coverage: TrainCoverage) -> Prepared:
    """The phases load, features and train_data: repeated in every session, from the cache where it holds them."""
    pairs = sorted((*split.train, *split.validation), key=lambda pair: pair.volume_id)
    ids = load(session, pairs, cache)
    identify(session, split, ids, spec)
    draws = Draws(session, cache, spec, ids, coverage)
    data = _train_data(session, draws, split, pairs)
    _require_both_classes("training", split.train, data.train)
    _require_both_classes("validation", split.validation, data.validation)
    return Prepared(split, ids, data, draws)


def _require_both_classes(what: str, pairs: Sequence[Pair], samples: AnySamples) -> None:
    """Nothing can be learned from, or chosen on, volumes without a surface, or without anything else."""
    n_background, n_surface = samples.class_sizes()
    if min(n_background, n_surface) == 0:
        found = "no surface" if n_surface == 0 else "nothing but surface"
        names = ", ".join(pair.volume_id for pair in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
        raise DataError(
            f"{what} volumes ({names}): got {found} in their labels; accepted: background (0) and surface (1)"
        )


def identify(session: Session, split: Split, ids: Mapping[str, stages.SourceIds], spec: FeatureSpec) -> None:
    """Hold on to which volumes this run learns from; a resumed one must have the same (R37)."""
    session.state.dataset = _dataset(split, ids)
    session.agree("data", compatibility.data_fields(_files(split.train, ids), _files(split.validation, ids), spec))


@dataclass(frozen=True)
class Draws:
    """Sampled voxels of a volume and an epoch, from the cache where they are there."""

    session: Session
    cache: ArrayCache
    spec: FeatureSpec
    ids: Mapping[str, stages.SourceIds]
    coverage: TrainCoverage

    def again(self, pair: Pair, epoch: int, n_epochs: int) -> stages.Rows:
        """What :meth:`rows` gave before, without a word."""
        return stages.sampled_rows(
            pair, self.ids[pair.volume_id], self.spec, self.session.config, self.cache, epoch=epoch, n_epochs=n_epochs
        )

    def rows(self, pair: Pair, epoch: int, n_epochs: int) -> stages.Rows:
        rows = self.again(pair, epoch, n_epochs)
        self.session.log.emit(
            "VOXELS_SAMPLED",
            volume_id=pair.volume_id,
            epoch=epoch,
            voxels=len(rows.y),
            surface=int(rows.y.sum()),
        )
        if epoch == 0:
            self.coverage.sampled(pair.volume_id, len(rows.y))
        return rows


def _train_data(session: Session, draws: Draws, split: Split, pairs: Sequence[Pair]) -> stages.TrainingSet:
    if session.ranks is not None:
        return shared_training_set(session, session.ranks, draws, split, pairs)
    training = {pair.volume_id for pair in split.train}
    limit = epoch_settings(session.config.search).limit
    train, validation = _table(session, draws, split.train), _table(session, draws, split.validation)
    with session.phase("features", len(pairs)) as phase:
        for pair in pairs:
            if pair.volume_id in training:
                train.append(draws.rows(pair, 0, limit))
            else:
                validation.append(draws.rows(pair, 0, 1))  # the validation voxels stay the same
            phase.advance(1)
    with session.phase("train_data", 1) as phase:
        data = stages.training_set(train, validation, draws.spec, session.config)
        session.log.emit("FEATURES_SELECTED", kept=list(data.names), dropped=[list(item) for item in data.dropped])
        phase.advance(1)
        return data


def _table(session: Session, draws: Draws, pairs: Sequence[Pair]) -> RowTable:
    """Room for all the rows that these volumes can give."""
    most = session.config.sampling.voxels_per_volume
    sizes = (math.prod(inspect_volume(pair.label).shape) for pair in pairs)
    return RowTable(sum(min(most, size) for size in sizes), range(len(draws.spec.names)))


def fit(session: Session, prepared: Prepared) -> ElasticNetLogisticGrid:
    """The phase fit: every candidate to the last iteration of every epoch, from where the last session was."""
    data, draws = prepared.data, prepared.draws
    search, tuning = session.config.search, SearchTuning(session) if session.config.auto_tune.use else None
    by_epoch = candidates_by_epoch(search) if tuning is None else tuning.candidates_by_epoch()

    def emit(name: str, fields: Mapping[str, Any]) -> None:
        session.log.emit(name, **fields)

    device = _device(session, emit)
    session.agree("training", compatibility.training_fields(data.channels, device))
    start = _resumable(session, session.state.search)
    assert session.progress is not None
    heartbeat = session.progress.heartbeat
    steps = session.progress.fit(
        n_epochs=len(by_epoch), n_candidates=by_epoch, max_iter=search.max_iter, resume_from=_cursor(start, by_epoch)
    )
    with session.timed("fit", steps, device) as phase:

        def draw(epoch: int) -> AnySamples:
            samples = drawn(epoch)
            if isinstance(samples, SharedSamples):
                # The first state asks for it within an iteration, where a Ctrl-C has taken the other processes already.
                samples.digest(session.config.n_threads)
            return samples

        def drawn(epoch: int) -> AnySamples:
            if epoch == 0:
                return data.train
            with heartbeat.around("voxels of the epoch"):
                if session.ranks is not None:
                    return shared_epoch(session.ranks, draws, prepared.split, epoch, len(by_epoch), data.channels)
                parts = (draws.rows(pair, epoch, len(by_epoch)) for pair in prepared.split.train)
                return stages.epoch_rows(parts, data.train.n_samples, data.channels)

        def on_iteration(record: IterationRecord) -> None:
            # In one piece, so that the log holds exactly the iterations that the saved state has behind it.
            with session.stops.deferred():
                session.log.emit_iterations(record, epoch=record.epoch)
                phase.on_record(record, epoch=record.epoch)
                if tuning is not None:
                    tuning.hold()
                session.iterated(record)

        def on_event(name: str, fields: Mapping[str, Any]) -> None:
            emit(name, fields)
            if name == "EPOCHS_DONE" and phase.fraction < 1:
                phase.finish(fields["reason"])

        if tuning is not None:
            tuning.announce = phase.announce
        grid = stages.fit_grid(data, session.config, device, draw, on_iteration, on_event, start, tuning)
        if tuning is not None:
            tuning.finish()
        rows = [dict(zip(grid.leaderboard_.dtype.names or (), row, strict=True)) for row in grid.leaderboard_.tolist()]
        session.state.best = finite(rows[0])
        if isinstance(data.train, SharedSamples):
            data.train.drop()
    write_json_atomic(session.folder / "leaderboard.json", [finite(row) for row in rows])
    session.log.emit("SEARCH_DONE", best=finite(rows[0]), **search_entry(session, data, grid))
    return grid


def _device(session: Session, emit: OnEvent) -> Place:
    """Where the search runs: several processes share it on their CPUs."""
    search = session.config.search
    if session.ranks is None:
        return choose_device(search.device, search.solver, emit)
    if search.device == "auto":
        emit(
            "GPU_FALLBACK_DETECTED",
            {"asked": "auto", "used": "cpu", "reason": f"{session.ranks.world} processes share the search"},
        )
    return "cpu"


def _cursor(start: SearchState | None, by_epoch: Sequence[int]) -> dict[str, int] | None:
    """Where an earlier session left the search, as the progress counts it."""
    if start is None:
        return None
    return {
        "epoch": start.epoch,
        "candidate_first": 0,
        "candidate_index": by_epoch[start.epoch] - 1,
        "iter": start.iteration,
    }


def _resumable(session: Session, state: SearchState | None) -> SearchState | None:
    """The state to go on from, on the instruction-set path that it was taken on, else on this machine's own (R37)."""
    why = None
    if state is not None and state.problem.device == "cpu":
        try:
            _core.simd_path(state.problem.simd)
        except ArgumentError:
            own = _core.simd_path()
            why = f"instruction set {state.problem.simd} is not here; {own} rounds differently"
            state = dataclasses.replace(state, problem=dataclasses.replace(state.problem, simd=own))
    session.went_on(why)
    return state


def search_entry(session: Session, data: stages.TrainingSet, grid: ElasticNetLogisticGrid) -> dict[str, Any]:
    """The search's part of ``summary.json``."""
    return {
        "candidates": len(grid.candidates_),
        "meta_neurons": grid.meta_neurons_,
        "max_iter": session.config.search.max_iter,
        "epochs": grid.n_epochs_,
        "solver": session.config.search.solver,
        "samples": data.train.n_samples,
        "processes": 1 if session.ranks is None else session.ranks.world,
        "features": len(data.channels),
        "seconds": session.state.seconds.get("fit"),
        "diverged": int(grid.diverged_.sum()),
        "learning_rate": float(grid.learning_rate_),
        "lipschitz": float(grid.lipschitz_),
        "isa": grid.simd_path_,
        "device": grid.device_,
    }


def _files(pairs: Sequence[Pair], ids: Mapping[str, stages.SourceIds]) -> dict[str, tuple[str, str]]:
    return {pair.volume_id: (ids[pair.volume_id].image, ids[pair.volume_id].label) for pair in pairs}


def _dataset(split: Split, ids: Mapping[str, stages.SourceIds]) -> dict[str, Any]:
    return {
        name: [{"volume_id": pair.volume_id, **vars(ids[pair.volume_id])} for pair in pairs]
        for name, pairs in (("train", split.train), ("validation", split.validation))
    }
