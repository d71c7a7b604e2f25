"""What the ablations share: who is judged, who is learned from, what is measured, and the evidence of it."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu.ablation import AblationTable, leave_one_out
from vesu.config import RunConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Inventory, Pair, discover
from vesu.data.preflight import preflight
from vesu.errors import ArgumentError, DataError, VesuError
from vesu.features import FeatureSpec
from vesu.run import compatibility, evidence, stages
from vesu.run.ablations.folder import EVENTS, SCORES, claimed
from vesu.run.ablations.report import AblationReport, write_report
from vesu.run.events import EventLog
from vesu.run.heartbeat import Heartbeat, Ticker
from vesu.run.interrupts import StopRequested, Stops, stop_on_signals
from vesu.run.memory import MemoryMonitor
from vesu.run.outputs import printable
from vesu.run.parts.place import run_id_of
from vesu.run.plan import CALIBRATION_VOLUMES, Split, configured_split, split_pairs
from vesu.scoring import score
from vesu.segmentation import SegmentConfig, segment

__all__ = ["Judged", "Measure", "OnScore", "Probabilities", "Study", "opened"]

Measure: TypeAlias = Literal["score", "objective"]
"""``score``: the competition's score of whole masks; ``objective``: by what a model is chosen before it has masks."""

OnScore: TypeAlias = Callable[[int, int, Mapping[str, Any]], object]
"""Told how many scores are there, of how many, and the fields of the last one's event."""

MIN_SEEDS = 3
"""Fewer seeds decide nothing."""

Judged: TypeAlias = int | Sequence[str] | None
"""How many volumes are judged, or which; None is a third of them, as many as a run scores at most."""

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Probabilities:
    """What a model says of one volume, float32 (z, y, x)."""

    probability: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


@dataclass(eq=False)
class Study:
    """One ablation at work."""

    folder: Path
    config: RunConfig
    measure: Measure
    learning: tuple[Pair, ...]
    """Volumes that models learn from and are chosen on, split by each seed."""
    judged: tuple[Pair, ...]
    """Volumes that chose nothing, the same with every seed."""
    ids: Mapping[str, stages.SourceIds]
    cache: ArrayCache
    log: EventLog
    stops: Stops
    context: str
    on_score: OnScore
    done: int = 0
    to_do: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    """What a study adds to its result."""

    # ---- volumes

    def seeded(self, seed: int) -> RunConfig:
        """The settings of a seed's runs."""
        return dataclasses.replace(self.config, seed=seed)

    def split(self, seed: int) -> Split:
        """Who trains and who validates with this seed, as a run's own split."""
        return configured_split(self.learning, self.seeded(seed))

    def chosen_on(self, seed: int) -> tuple[Pair, ...]:
        """The validation volumes that fit thresholds, as many as a run uses."""
        return self.split(seed).validation[:CALIBRATION_VOLUMES]

    def image(self, pair: Pair) -> Array:
        return stages.cached_volume(pair.image, self.ids[pair.volume_id].image, self.cache, self.config.n_threads)

    def label(self, pair: Pair) -> Array:
        return stages.cached_volume(pair.label, self.ids[pair.volume_id].label, self.cache, self.config.n_threads)

    # ---- measuring

    def fitted(
        self, ladder: SegmentConfig, chosen: Sequence[Pair], answers: Mapping[str, Probabilities]
    ) -> SegmentConfig:
        """The ladder with the threshold that fits the validation volumes, as a run calibrates (R28)."""
        return stages.fitted_ladder(
            ladder,
            self.config,
            {pair.volume_id: answers[pair.volume_id].probability for pair in chosen},
            {pair.volume_id: self.label(pair) for pair in chosen},
            {pair.volume_id: answers[pair.volume_id].uncertainty for pair in chosen}
            if ladder.needs_uncertainty
            else {},
        )

    def mask_scores(
        self, ladder: SegmentConfig, chosen: Sequence[Pair], answers: Callable[[Pair], Probabilities]
    ) -> dict[str, float]:
        """The competition's score of each judged volume's mask, its threshold fitted on the chosen ones (R45)."""
        fitted = self.fitted(ladder, chosen, {pair.volume_id: answers(pair) for pair in chosen})
        found, threads = {}, self.config.n_threads
        for pair in self.judged:
            self.stops.poll()
            answer = answers(pair)
            spread = answer.uncertainty if ladder.needs_uncertainty else None
            mask = segment(answer.probability, fitted, uncertainty=spread, n_threads=threads).mask
            found[pair.volume_id] = score(mask, self.label(pair), n_threads=threads).score
        return found

    # ---- the ablation itself

    def run(
        self,
        kind: str,
        things: Sequence[str],
        seeds: Sequence[int],
        score_of: Callable[[tuple[str, ...], int], Mapping[str, float]],
        *,
        least: int = 2,
        min_gain: float = 0.0,
    ) -> AblationReport:
        """Score everything that is not scored yet, judge, and leave table and evidence in the folder."""
        started = time.monotonic()
        self.log.emit(
            "ABLATION_STUDY_PLANNED",
            measure=self.measure,
            context=self.context,
            judged=[pair.volume_id for pair in self.judged],
            learning=[pair.volume_id for pair in self.learning],
        )
        with _watched(self.log, self.config, f"ablation, {kind}"):
            table = leave_one_out(
                things,
                seeds,
                score_of,
                kind=kind,
                least=least,
                path=self.folder / SCORES,
                context=self.context,
                min_gain=min_gain,
                min_seeds=MIN_SEEDS,
                emit=self._tell,
                poll=self.stops.poll,
            )
        self.log.emit("ABLATION_STUDY_END", elapsed_s=time.monotonic() - started)
        return write_report(self.folder, table, self._facts(seeds, table), self.log)

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log an event, called as stages call what they are given for that."""
        self.log.emit(name, **fields)

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        self.log.emit(name, **fields)
        if name.endswith("_ABLATION_START"):
            self.to_do = int(fields["scores_to_come"])
        if name.endswith("_ABLATION_SCORE"):
            self.done += 1
            self.on_score(self.done, self.to_do, fields)

    def _facts(self, seeds: Sequence[int], table: AblationTable) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "seeds": list(seeds),
            "judged": [pair.volume_id for pair in self.judged],
            "learning": [pair.volume_id for pair in self.learning],
            "voxels_per_volume": self.config.sampling.voxels_per_volume,
            "context": self.context,
            **self.details,
        }


@contextmanager
def opened(
    kind: str,
    data: str | Path | None,
    out: str | Path,
    config: RunConfig,
    measure: Measure,
    judged: Judged,
    *,
    depends_on: Mapping[str, Any],
    student: bool = False,
    restart: bool = False,
    cache: str | Path | None = None,
    on_score: OnScore | None = None,
) -> Iterator[Study]:
    """A study in its folder: data found, checked and loaded, log open, signals watched.

    Parameters
    ----------
    kind : str
        What is ablated.
    depends_on : mapping
        What the scores depend on besides settings, data and measure.
    student : bool
        Whether a student is trained, and so the settings of students and teachers count.

    Raises
    ------
    ArgumentError, DataError, PreflightError
        What cannot be worked on.
    """
    if measure not in get_args(Measure):
        raise ArgumentError(f"measure: got {measure!r}; accepted: one of {get_args(Measure)}")
    inventory = discover(data)
    held = _held_out(inventory, judged, config.seed)
    with claimed(Path(out), restart=restart) as folder, _evidence(folder / EVENTS, config, kind) as (log, stops):
        _preflight(inventory, folder, config, log)
        store = ArrayCache(
            folder / "cache" if cache is None else cache,
            max_bytes=int(config.cache_gib * 2**30),
            events=log.emit,
            n_threads=config.n_threads,
        )
        ids = {pair.volume_id: stages.load(pair, store, config.n_threads) for pair in inventory.pairs}
        context = _digest(
            kind,
            measure,
            [pair.volume_id for pair in held.validation],
            {name: dataclasses.astuple(each) for name, each in ids.items()},
            FeatureSpec.version,
            compatibility.config_fields(config, student=student),
            depends_on,
        )
        yield Study(
            folder=folder,
            config=config,
            measure=measure,
            learning=held.train,
            judged=held.validation,
            ids=ids,
            cache=store,
            log=log,
            stops=stops,
            context=context,
            on_score=on_score or (lambda *_: None),
        )


def _held_out(inventory: Inventory, judged: Judged, seed: int) -> Split:
    """The judged volumes, as the validation part; two at least are left to learn from and to choose on."""
    pairs = inventory.pairs
    if len(pairs) < 3:
        raise DataError(
            f"labelled pairs: got {len(pairs)} in {inventory.root}; accepted: 3 or more, to learn from, to choose on, "
            "and to judge"
        )
    if judged is None:
        judged = min(len(pairs) // 3, CALIBRATION_VOLUMES)
    if isinstance(judged, int):
        if isinstance(judged, bool) or not 1 <= judged <= len(pairs) - 2:
            raise ArgumentError(f"judged: got {judged!r}; accepted: 1 to {len(pairs) - 2} of {len(pairs)} volumes")
        return split_pairs(pairs, judged / len(pairs), seed)
    names, known = list(judged), {pair.volume_id for pair in pairs}
    if isinstance(judged, str) or len(set(names) & known) != len(names) or not 1 <= len(names) <= len(pairs) - 2:
        raise ArgumentError(f"judged: got {judged!r}; accepted: labelled ids, each once, all but two at most")
    return Split(
        train=tuple(pair for pair in pairs if pair.volume_id not in names),
        validation=tuple(pair for pair in pairs if pair.volume_id in names),
    )


@contextmanager
def _evidence(path: Path, config: RunConfig, kind: str) -> Iterator[tuple[EventLog, Stops]]:
    """The study's log, and its answer to signals; how a study ended before its time is in the log."""
    with EventLog(path, run_id=run_id_of(path)) as log, stop_on_signals(emit=log.emit) as stops:
        try:
            log.emit(
                "ABLATION_STUDY_START" if log.size == 0 else "ABLATION_STUDY_RESUMED",
                kind=kind,
                config=config.to_json(),
                git_sha=evidence.git_sha(),
                machine=evidence.machine(),
            )
            yield log, stops
        except StopRequested as stop:
            log.emit("ABLATION_STUDY_STOPPED", reason=stop.reason)
            raise (KeyboardInterrupt() if stop.reason == "SIGINT" else SystemExit(143)) from None
        except VesuError as error:
            log.emit("ABLATION_STUDY_FAILED", error=type(error).__name__, message=str(error))
            raise


def _preflight(inventory: Inventory, folder: Path, config: RunConfig, log: EventLog) -> None:
    """R02, before any work."""
    report = preflight(inventory, work_dir=folder, need_train=True, seed=config.seed, n_threads=config.n_threads)
    for finding in report.findings:
        where = None if finding.path is None else printable(finding.path)
        fields = {"code": finding.code, "severity": finding.severity, "path": where, "message": finding.message}
        log.emit("PREFLIGHT_FINDING", **fields)
    report.raise_if_blocked()


@contextmanager
def _watched(log: EventLog, config: RunConfig, name: str) -> Iterator[None]:
    """Signs of life, and how the memory is, however long a search takes (R35, R42)."""
    heartbeat = Heartbeat(log.emit, interval_s=config.time.heartbeat_s, stall_factor=config.time.stall_factor)

    def beat(late_s: float) -> None:
        with suppress(VesuError):  # a disk that refuses: the work itself meets it
            heartbeat.beat(late_s)

    ticker = Ticker(beat, config.time.heartbeat_s)
    with MemoryMonitor(log.emit, config.memory), heartbeat.around(name):
        ticker.start()
        try:
            yield
        finally:
            ticker.stop()


def _digest(*parts: Any) -> str:
    """Names everything that a score depends on."""
    return content_id(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass"))
