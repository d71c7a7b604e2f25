"""One run: discovery, preflight, load, features, search, segmentation, submission, and the evidence beside."""

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from vesu import _core
from vesu.config import RunConfig
from vesu.data.cache import ArrayCache
from vesu.data.discover import Inventory, Pair, TestVolume, discover
from vesu.data.preflight import preflight
from vesu.data.storage import write_json_atomic
from vesu.data.volumes import read_volume, write_volume
from vesu.errors import ArgumentError, EvidenceError, VesuError
from vesu.features import FeatureSpec
from vesu.grid_search import ElasticNetLogisticGrid, IterationRecord, choose_device
from vesu.ledger import verify
from vesu.run import baseline, evidence, stages
from vesu.run.clock import Clock
from vesu.run.events import EventLog
from vesu.run.folder import claimed
from vesu.run.model import SurfaceModel
from vesu.run.outputs import (
    StepSlices,
    diagnostics_entry,
    finite,
    printable,
    submission_entry,
    write_unmatched,
    write_views,
)
from vesu.run.plan import (
    CALIBRATION_VOLUMES,
    Split,
    candidates_by_epoch,
    epoch_settings,
    phase_weights,
    scored_pairs,
    split_pairs,
)
from vesu.run.progress import PHASES, PhaseProgress, Progress
from vesu.run.ranking import ScoreRanking, pool_of, rank_pool
from vesu.run.validation import ScoredVolume
from vesu.segmentation import Segmentation, segment
from vesu.submission import SubmissionReport, write_submission

__all__ = ["RunResult", "execute"]

P = TypeVar("P", bound=PhaseProgress)
DisplayKind: TypeAlias = Literal["auto", "tqdm", "none"]


@dataclass(frozen=True)
class RunResult:
    """What a finished run left."""

    folder: Path
    submission: SubmissionReport
    summary: dict[str, Any]
    report: Path | None
    """The HTML report; None where it could not be made."""
    report_problem: str | None = None
    """Why there is no report: matplotlib or Jinja2 is missing, say."""

    def _repr_html_(self) -> str:
        validation = self.summary.get("validation")
        scored = (
            f"validation score {validation['score']:.3f}, F1 {validation['f1']:.3f}"
            if validation
            else "no labelled volume to score"
        )
        return (
            f"<b>vesu run</b> ({self.summary['pipeline']}) {self.summary['elapsed_s']:.0f} s, "
            f"{len(self.submission.members)} masks, {scored}; files in <code>{self.folder}</code>"
        )


def execute(
    data: str | Path | None,
    out: Path,
    config: RunConfig,
    display: DisplayKind,
    cache: Path | None,
) -> RunResult:
    """:func:`vesu.run` after its defaults are filled in."""
    # What can be refused is refused before an earlier run's outputs are replaced.
    if display not in get_args(DisplayKind):
        raise ArgumentError(f"display: got {display!r}; accepted: one of {get_args(DisplayKind)}")
    spec = FeatureSpec(scales=config.features.scales)
    start = time.monotonic()
    inventory = discover(data)
    discovery_s = time.monotonic() - start
    with claimed(out) as folder, EventLog(folder / "events.jsonl", run_id=uuid.uuid4().hex) as log:
        this = _Run(inventory, folder, config, spec, display, cache or folder / "cache", log)
        this.seconds["discovery"] = discovery_s
        try:
            return this.execute()
        except BaseException as error:
            _record_failure(folder, log, error)
            raise


def _record_failure(folder: Path, log: EventLog, error: BaseException) -> None:
    """Leave the cause beside the log; the original error is what the caller sees, whatever happens here."""
    try:
        log.emit("RUN_FAILED", error=type(error).__name__, message=str(error))
        write_json_atomic(folder / "failure.json", {"error": type(error).__name__, "message": str(error)})
    except VesuError:
        pass  # a full disk, likely the cause itself


@dataclass
class _Run:
    """One execution: what every phase needs at hand."""

    inventory: Inventory
    folder: Path
    config: RunConfig
    spec: FeatureSpec
    display: DisplayKind
    cache_folder: Path
    log: EventLog
    clock: Clock = field(default_factory=Clock)
    seconds: dict[str, float] = field(default_factory=dict)
    ranking: ScoreRanking | None = None
    """Of the candidates by the score itself, where that was asked for."""

    def execute(self) -> RunResult:
        started_ns, started = self.clock.ts_ns(), time.monotonic() - self.seconds["discovery"]
        machine = evidence.machine()
        write_json_atomic(self.folder / "config.json", self.config.to_json())
        self.log.emit(
            "RUN_START",
            version=_core.__version__,
            git_sha=evidence.git_sha(),
            config=self.config.to_json(),
            machine=machine,
        )
        inventory = self.inventory
        self.weights = phase_weights(inventory, self.config, len(self.spec.names))
        with Progress(self.log, self.weights, display=self.display, clock=self.clock) as self.progress:
            self._record_inventory(inventory)
            self._preflight(inventory)
            found = self._search(inventory) if self.config.pipeline == "vesu" else self._baseline(inventory)
            submission = self._package(inventory)
        planned = sum(self.weights.values())
        summary = {
            "run_id": self.log.run_id,
            "version": _core.__version__,
            "git_sha": evidence.git_sha(),
            "status": "finished",
            "pipeline": self.config.pipeline,
            "seed": self.config.seed,
            "started_ns": str(started_ns),
            "elapsed_s": time.monotonic() - started,
            "phases": [
                {"name": name, "seconds": self.seconds[name], "weight": self.weights[name] / planned}
                for name in PHASES
                if name in self.seconds
            ],
            "machine": machine,
            "inventory": {
                "pairs": len(inventory.pairs),
                "tests": len(inventory.tests),
                "orphans": len(inventory.orphan_images) + len(inventory.orphan_labels),
            },
            **found,
            "submission": submission_entry(submission),
        }
        self.log.emit("RUN_END", elapsed_s=summary["elapsed_s"], submission_sha256=submission.sha256)
        self.log.sync()
        checked = verify(self.folder / "events.jsonl")
        if (checked.entries, checked.root) != (self.log.size, self.log.root):
            raise EvidenceError(f"{self.folder / 'events.jsonl'}: the file is not what this run wrote")
        summary["ledger"] = {"entries": checked.entries, "root": checked.root}
        write_json_atomic(self.folder / "summary.json", summary)
        return RunResult(self.folder, submission, summary, *self._report())

    def _search(self, inventory: Inventory) -> dict[str, Any]:
        """Train on the labelled volumes, segment the others; the summary's parts on both."""
        split = split_pairs(inventory.pairs, self.config.sampling.validation_fraction, self.config.seed)
        self.log.emit(
            "TRAIN_COVERAGE_PLAN",
            pair_count_discovered=len(inventory.pairs),
            pair_count_selected_for_training=len(split.train) + len(split.validation),
            train=[pair.volume_id for pair in split.train],
            validation=[pair.volume_id for pair in split.validation],
        )
        ids = self._load(inventory.pairs)
        rows = self._features(inventory, ids, split)
        training = self._train_data(rows, split)
        grid = self._fit(training, split, ids)
        validation = self._segment(inventory, split, ids, training, grid)
        return {"search": self._search_entry(training, grid), "validation": validation}

    def _baseline(self, inventory: Inventory) -> dict[str, Any]:
        """Segment with a historical scorer: nothing is trained, and the labels there are only measure it (R32)."""
        labelled = scored_pairs(inventory.pairs, self.config)
        ids = self._load(labelled) if labelled else {}
        validation = None
        with self._phase("segment", len(labelled) + len(inventory.tests)) as phase:
            if labelled:
                pairs = ((pair.volume_id, self._cached_pair(pair, ids[pair.volume_id])) for pair in labelled)
                validation = baseline.validate(
                    pairs, self.config, on_volume=lambda _: phase.advance(1), on_scored=self._write_scored
                )
                self.log.emit("BASELINE_VALIDATED", pipeline=self.config.pipeline, validation=validation)
            for test in inventory.tests:
                image = read_volume(test.image, n_threads=self.config.n_threads)
                slices = StepSlices(image)
                score, result = baseline.segment_volume(image, self.config, on_step=slices.add)
                self._write_volume(test, image, score, None, result, slices)
                phase.advance(1)
        return {"validation": validation} if labelled else {}

    def _phase(self, name: str, units: float) -> AbstractContextManager[PhaseProgress]:
        return self._timed(name, self.progress.phase(name, units))

    @contextmanager
    def _timed(self, name: str, steps: AbstractContextManager[P], device: str = "cpu") -> Iterator[P]:
        """A phase with its events, its seconds, and a log that is safe on disk when it ends (R27)."""
        start = time.monotonic()
        self.log.emit("PHASE_START", phase=name, device=device)
        if device == "cuda":
            self.log.emit("GPU_PHASE_START", phase=name, device=device)
        with steps as phase:
            yield phase
        self.seconds[name] = time.monotonic() - start
        if device == "cuda":
            self.log.emit("GPU_PHASE_END", phase=name, device=device, seconds=self.seconds[name])
        self.log.emit("PHASE_END", phase=name, device=device, seconds=self.seconds[name])
        self.log.sync()

    def _record_inventory(self, inventory: Inventory) -> None:
        discovery_s = self.seconds["discovery"]  # measured before there was a folder for a log
        with self._phase("discovery", 1) as phase:
            write_json_atomic(self.folder / "inventory.json", inventory.to_json())
            self.log.emit(
                "INVENTORY", root=printable(inventory.root), pairs=len(inventory.pairs), tests=len(inventory.tests)
            )
            phase.advance(1)
        self.seconds["discovery"] += discovery_s

    def _preflight(self, inventory: Inventory) -> None:
        with self._phase("preflight", 1) as phase:
            report = preflight(
                inventory,
                work_dir=self.folder,
                cache_dir=self.cache_folder,
                need_train=self.config.pipeline == "vesu",
                need_tests=True,
                seed=self.config.seed,
                n_threads=self.config.n_threads,
            )
            write_json_atomic(self.folder / "preflight.json", report.to_json())
            for finding in report.findings:
                self.log.emit(
                    "PREFLIGHT_FINDING",
                    code=finding.code,
                    severity=finding.severity,
                    path=None if finding.path is None else printable(finding.path),
                    message=finding.message,
                )
            report.raise_if_blocked()
            phase.advance(1)

    def _load(self, pairs: Sequence[Pair]) -> dict[str, stages.SourceIds]:
        self.cache = ArrayCache(
            self.cache_folder,
            max_bytes=int(self.config.cache_gib * 2**30),
            events=self.log.emit,
            n_threads=self.config.n_threads,
        )
        with self._phase("load", len(pairs)) as phase:
            ids = {}
            for pair in pairs:
                ids[pair.volume_id] = stages.load(pair, self.cache, self.config.n_threads)
                phase.advance(1)
            return ids

    def _features(self, inventory: Inventory, ids: dict[str, stages.SourceIds], split: Split) -> dict[str, stages.Rows]:
        training = {pair.volume_id for pair in split.train}
        limit = epoch_settings(self.config.search).limit
        with self._phase("features", len(inventory.pairs)) as phase:
            rows = {}
            for pair in inventory.pairs:
                n_epochs = limit if pair.volume_id in training else 1  # the validation voxels stay the same
                rows[pair.volume_id] = self._sampled(pair, ids, 0, n_epochs)
                phase.advance(1)
            return rows

    def _sampled(self, pair: Pair, ids: dict[str, stages.SourceIds], epoch: int, n_epochs: int) -> stages.Rows:
        rows = stages.sampled_rows(
            pair, ids[pair.volume_id], self.spec, self.config, self.cache, epoch=epoch, n_epochs=n_epochs
        )
        self.log.emit(
            "VOXELS_SAMPLED",
            volume_id=pair.volume_id,
            epoch=epoch,
            voxels=len(rows.y),
            surface=int(rows.y.sum()),
        )
        return rows

    def _train_data(self, rows: dict[str, stages.Rows], split: Split) -> stages.TrainingSet:
        with self._phase("train_data", 1) as phase:
            data = stages.training_set(
                [rows[pair.volume_id] for pair in split.train],
                [rows[pair.volume_id] for pair in split.validation],
                self.spec,
                self.config,
            )
            self.log.emit("FEATURES_SELECTED", kept=list(data.names), dropped=[list(item) for item in data.dropped])
            phase.advance(1)
            return data

    def _fit(self, data: stages.TrainingSet, split: Split, ids: dict[str, stages.SourceIds]) -> ElasticNetLogisticGrid:
        search, by_epoch = self.config.search, candidates_by_epoch(self.config.search)
        device = choose_device(search.device, search.solver, self._emit)
        steps = self.progress.fit(n_epochs=len(by_epoch), n_candidates=by_epoch, max_iter=search.max_iter)
        with self._timed("fit", steps, device) as fit:

            def draw(epoch: int) -> stages.Rows:
                if epoch == 0:
                    return data.train
                parts = [self._sampled(pair, ids, epoch, len(by_epoch)) for pair in split.train]
                return stages.epoch_rows(parts, data.channels)

            def on_iteration(record: IterationRecord) -> None:
                self.log.emit_iterations(record, epoch=record.epoch)
                fit.on_record(record, epoch=record.epoch)

            def on_event(name: str, fields: Mapping[str, Any]) -> None:
                self._emit(name, fields)
                if name == "EPOCHS_DONE" and fit.fraction < 1:
                    fit.finish(fields["reason"])

            grid = stages.fit_grid(data, self.config, device, draw, on_iteration, on_event)
        rows = [dict(zip(grid.leaderboard_.dtype.names or (), row, strict=True)) for row in grid.leaderboard_.tolist()]
        write_json_atomic(self.folder / "leaderboard.json", [finite(row) for row in rows])
        self.log.emit("SEARCH_DONE", best=finite(rows[0]), **self._search_entry(data, grid))
        return grid

    def _emit(self, name: str, fields: Mapping[str, Any]) -> None:
        self.log.emit(name, **fields)

    def _search_entry(self, data: stages.TrainingSet, grid: ElasticNetLogisticGrid) -> dict[str, Any]:
        return {
            "candidates": len(grid.candidates_),
            "meta_neurons": grid.meta_neurons_,
            "max_iter": self.config.search.max_iter,
            "epochs": grid.n_epochs_,
            "solver": self.config.search.solver,
            "samples": len(data.train.y),
            "features": len(data.channels),
            "seconds": self.seconds.get("fit"),
            "diverged": int(grid.diverged_.sum()),
            "learning_rate": float(grid.learning_rate_),
            "lipschitz": float(grid.lipschitz_),
            "isa": grid.simd_path_,
            "device": grid.device_,
            **({"ranking": self.ranking.summary()} if self.ranking is not None else {}),
        }

    def _segment(
        self,
        inventory: Inventory,
        split: Split,
        ids: dict[str, stages.SourceIds],
        data: stages.TrainingSet,
        grid: ElasticNetLogisticGrid,
    ) -> dict[str, Any]:
        chosen = split.validation[:CALIBRATION_VOLUMES]
        by_score = self.config.search.ranking == "score"
        masks_to_rank = len(chosen) * len(pool_of(grid.leaderboard_, self.config.search)) if by_score else 0
        with self._phase("segment", masks_to_rank + len(chosen) + len(inventory.tests)) as phase:
            self.log.emit("CALIBRATION_VOLUMES", used=len(chosen), held_out=len(split.validation))
            volumes = {pair.volume_id: self._cached_pair(pair, ids[pair.volume_id]) for pair in chosen}
            top_k = min(self.config.search.ensemble_size, int((~grid.diverged_).sum()))
            order = self._rank(grid, data, volumes, lambda *_: phase.advance(1)) if by_score else None
            ensemble = grid.model(top_k=top_k, feature_names=data.names, order=order)
            untuned = SurfaceModel(ensemble, self.spec, data.channels, self.config.segment.ladder)
            prior = stages.training_prior(data, self.config)
            tuned, validation = stages.calibrate(
                volumes, untuned, self.config, prior, lambda _: phase.advance(1), self._write_scored
            )
            self.log.emit("CALIBRATION_MEASURED", **validation["calibration"])
            model = dataclasses.replace(untuned, segment_config=tuned)
            model.save(self.folder)
            self.log.emit("CALIBRATED", ladder=tuned.to_json(), validation=validation)
            for test in inventory.tests:
                self._segment_volume(test, model)
                phase.advance(1)
            return validation

    def _rank(
        self,
        grid: ElasticNetLogisticGrid,
        data: stages.TrainingSet,
        volumes: Mapping[str, tuple[Any, Any]],
        on_mask: Callable[[int, str], None],
    ) -> tuple[int, ...]:
        """The order in which the ensemble takes its candidates, by the score itself (R45)."""
        self.ranking = rank_pool(grid, data, self.spec, volumes, self.config, on_mask)
        write_json_atomic(self.folder / "score_ranking.json", self.ranking.to_json())
        self.log.emit("CANDIDATES_RANKED_BY_SCORE", **self.ranking.to_json())
        return self.ranking.order

    def _write_scored(self, scored: ScoredVolume) -> None:
        write_unmatched(self.folder / "validation" / f"{scored.volume_id}.npz", scored)

    def _cached_pair(self, pair: Pair, ids: stages.SourceIds) -> tuple[Any, Any]:
        threads = self.config.n_threads
        return (
            stages.cached_volume(pair.image, ids.image, self.cache, threads),
            stages.cached_volume(pair.label, ids.label, self.cache, threads),
        )

    def _segment_volume(self, test: TestVolume, model: SurfaceModel) -> None:
        image = read_volume(test.image, n_threads=self.config.n_threads)
        max_bytes = int(self.config.max_feature_gib * 2**30)
        prediction = model.predict(image, max_feature_bytes=max_bytes, n_threads=self.config.n_threads)
        slices = StepSlices(image)
        result = segment(
            prediction.probability,
            model.segment_config,
            uncertainty=prediction.uncertainty,
            n_threads=self.config.n_threads,
            topology=True,
            on_step=slices.add,
        )
        self._write_volume(test, image, prediction.probability, prediction.uncertainty, result, slices)

    def _write_volume(
        self,
        test: TestVolume,
        image: Any,
        probability: Any,
        uncertainty: Any | None,
        result: Segmentation,
        slices: StepSlices,
    ) -> None:
        write_volume(self.folder / "masks" / f"{test.volume_id}.tif", result.mask)
        entry = diagnostics_entry(test.volume_id, result)
        write_json_atomic(self.folder / "segment" / f"{test.volume_id}.json", entry)
        write_views(self.folder / "segment" / f"{test.volume_id}_views.npz", image, probability, uncertainty, result)
        slices.write(self.folder / "segment" / f"{test.volume_id}_steps.npz")
        self.log.emit(
            "VOLUME_SEGMENTED",
            volume_id=test.volume_id,
            thresholds=entry["thresholds"],
            ink_ratio_global=entry["ink_ratio_global"],
            probability_percentiles=entry["probability_percentiles"],
            step_seconds=[[step.name, step.seconds] for step in result.steps],
        )

    def _package(self, inventory: Inventory) -> SubmissionReport:
        expected = inventory.test_shapes
        with self._phase("package", 1) as phase:
            threads = self.config.n_threads
            paths = {name: self.folder / "masks" / f"{name}.tif" for name in sorted(expected)}
            masks = ((name, read_volume(path, n_threads=threads)) for name, path in paths.items())
            report = write_submission(self.folder / "submission.zip", masks, expected=expected, n_threads=threads)
            self.log.emit("SUBMISSION_WRITTEN", sha256=report.sha256, members=len(report.members))
            phase.advance(1)
            return report

    def _report(self) -> tuple[Path | None, str | None]:
        try:
            from vesu.report import write_report

            return write_report(self.folder), None
        except Exception as error:  # noqa: BLE001  # the run is whole and sealed: a picture must not fail it
            return None, f"{type(error).__name__}: {error}"
