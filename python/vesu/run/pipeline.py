"""One run: discovery, preflight, load, features, search, segmentation, submission, and the evidence beside."""

import dataclasses
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vesu import _core
from vesu.config import RunConfig
from vesu.data.cache import ArrayCache
from vesu.data.discover import Inventory, discover
from vesu.data.preflight import preflight
from vesu.data.storage import write_json_atomic
from vesu.distill.device import DeviceUse
from vesu.distill.proof import HARD_FAIL
from vesu.errors import ArgumentError, DistillationNotExecuted, VesuError
from vesu.features import FeatureSpec
from vesu.run import compatibility, distilling, guiding, learning, rng, segmenting
from vesu.run.costs import COSTS_NAME, Costs
from vesu.run.coverage import TrainCoverage, plan_coverage
from vesu.run.distilled import Distilled
from vesu.run.ending import record_failure, seal, summarise
from vesu.run.gates.closing import conclude, write_verdict
from vesu.run.interrupts import StopRequested
from vesu.run.memory import MemoryMonitor
from vesu.run.opening import opened
from vesu.run.outputs import printable
from vesu.run.parts import adopting
from vesu.run.plan import (
    Split,
    configured_split,
    distillation_costs,
    forecast,
    memory_bytes,
    row_bytes,
    scored_pairs,
    soft_label_bytes,
)
from vesu.run.postmortem import write_postmortem
from vesu.run.profile import read_profile, write_profile
from vesu.run.progress import Progress
from vesu.run.ranks import Ranks, require_divisible
from vesu.run.result import RunResult
from vesu.run.safe_submission import SafeSubmission
from vesu.run.session import Session
from vesu.run.stages import SourceIds
from vesu.run.state import MaskRecord
from vesu.run.stopwatch import TimedCache
from vesu.run.teaching import plan_distillation, prepare_device
from vesu.submission import SubmissionReport

__all__ = ["RunResult", "execute"]

DisplayKind: TypeAlias = Literal["auto", "tqdm", "none"]

PhaseChoice: TypeAlias = Literal["all", "search"]
"""How far a run goes: to the zip of all masks, or to the model, where parts make the masks."""


def execute(
    data: str | Path | None,
    out: Path,
    config: RunConfig,
    display: DisplayKind,
    cache: Path | None,
    resume: str | Path | None = None,
    restart: bool = False,
    retrain_changed: bool = False,
    phase: PhaseChoice = "all",
    masks: Path | None = None,
    ranks: Ranks | None = None,
) -> RunResult:
    """:func:`vesu.run` after its defaults are filled in, in the first of the processes that share it."""
    # What can be refused is refused before an earlier run's outputs are replaced.
    if config.dry_run:
        raise ArgumentError("config.dry_run: got True; accepted: vesu.run.dry_run.dry_run, which runs nothing")
    if display not in get_args(DisplayKind):
        raise ArgumentError(f"display: got {display!r}; accepted: one of {get_args(DisplayKind)}")
    for name, value in (("phase", phase), ("masks", masks), ("auto_tune.use", config.auto_tune.use or None)):
        if value not in ("all", None) and config.pipeline != "vesu":
            raise ArgumentError(f"{name}: got {str(value)!r} with pipeline {config.pipeline!r}, which has no model")
    if phase not in get_args(PhaseChoice):
        raise ArgumentError(f"phase: got {phase!r}; accepted: one of {get_args(PhaseChoice)}")
    merged = None if masks is None else adopting.read_masks(masks)
    if resume is not None and restart:
        raise ArgumentError("restart: got True beside resume; accepted: one of the two")
    spec = FeatureSpec(scales=config.features.scales)
    start = time.monotonic()
    inventory = discover(data)
    discovery_s = time.monotonic() - start
    previous = None if resume is not None else read_profile(out)  # before it is replaced
    with opened(out, config, resume=resume, restart=restart, retrain_changed=retrain_changed) as session:
        session.seconds["discovery"] = discovery_s
        if ranks is not None:
            session.ranks, ranks.guard = ranks, session.stops.deferred
        session.announce = (lambda text: None) if display == "none" else print
        try:
            with session.stops.taken_over():  # a session that begins after its deadline is ended like any other
                this = _Run(
                    session, inventory, spec, cache or session.folder / "cache", display, previous, phase, merged
                )
                this.begin()
            return this.execute()
        except StopRequested as stop:
            return this.stop(stop.reason)
        except DistillationNotExecuted as error:
            this.no_go(str(error))
            record_failure(session.folder, session.log, error)
            raise
        except BaseException as error:
            record_failure(session.folder, session.log, error)
            raise


@dataclass
class _Run:
    """The staircase of one session."""

    session: Session
    inventory: Inventory
    spec: FeatureSpec
    cache_folder: Path
    display: DisplayKind
    previous: Mapping[str, Any] | None
    """The profile of the run that this one replaces."""
    phase: PhaseChoice = "all"
    merged: adopting.Merged | None = None
    """Masks that parts made."""
    prepared: learning.Prepared | None = None
    deferred: str | None = None
    """Why the report was put off."""

    def __post_init__(self) -> None:
        session, config, inventory = self.session, self.session.config, self.inventory
        self.safe = SafeSubmission(session.folder, inventory.test_shapes, session.log, config.n_threads)
        self.teaching = plan_distillation(config, inventory.root)
        n_teachers = len(self.teaching.teachers) if self.teaching.due else None
        costs = Costs(self.cache_folder / COSTS_NAME)
        self.expected = forecast(inventory, config, len(self.spec.names), costs, n_teachers=n_teachers)

    def execute(self) -> RunResult:
        session, config = self.session, self.session.config
        progress = Progress(
            session.log,
            self.expected.expected_s,
            display=self.display,
            clock=session.clock,
            min_interval_s=config.time.heartbeat_s,
            spreads=self.expected.spreads,
            stall_factor=config.time.stall_factor,
            **session.state.progress,
        )
        progress.on_beat(session.observe)
        session.governor.plan(progress.remaining_by_phase())
        self._register_actions()
        with MemoryMonitor(session.log.emit, config.memory, session.clock), progress as session.progress:
            self._record_inventory()
            self._preflight()
            self._prepare_student()
            found = self._search() if config.pipeline == "vesu" else self._baseline()
            submission = self._package()
        session.governor.final()
        self.expected.learn(progress.whole_costs())
        summary = self._summary("finished", submission) | found
        return self._sealed(summary, submission)

    def _register_actions(self) -> None:
        """What may make a late run faster: never the grid, the iterations or the log (R50-R53)."""
        session = self.session

        def all_cores() -> bool:
            limited = session.config.n_threads is not None
            session.config = dataclasses.replace(session.config, n_threads=None)
            return limited

        def defer_report() -> None:
            self.deferred = "put off for lack of time: vesu report makes it"

        session.governor.register_action("all_cores", all_cores)
        session.governor.register_action("defer_report", defer_report)

    # ---- beginning and end

    def begin(self) -> None:
        """Say what runs here, and have something to go on from."""
        session = self.session
        config = session.config.to_json()
        write_json_atomic(session.folder / "config.json", config)
        session.log.emit(
            "RUN_START" if session.resumed is None else "RUN_RESUMED",
            version=_core.__version__,
            git_sha=session.git_sha,
            config=config,
            machine=session.machine,
        )
        for use in session.config.aliases_used:
            session.log.emit("CONFIG_ALIAS_USED", **use.to_json())
        if session.ranks is not None:
            session.log.emit("RANKS_JOINED", processes=session.ranks.world)
        if self.previous is not None:
            session.log.emit("PREVIOUS_RUN_PROFILE", profile=self.previous)
        session.agree("config", compatibility.config_fields(session.config, student=self.teaching.due))
        if session.resumed is None:
            session.save("full")  # from here on there is something to go on from
        else:
            rng.restore(session.state.rng)

    def _summary(self, status: str, submission: SubmissionReport) -> dict[str, Any]:
        verdict = conclude(self.session, self.inventory, self.cache_folder, finished=status == "finished")
        return summarise(self.session, self.inventory, self.expected.expected_s, status, submission, verdict)

    def _sealed(self, summary: dict[str, Any], submission: SubmissionReport) -> RunResult:
        return seal(self.session, summary, submission, self.deferred)

    def no_go(self, reason: str) -> None:
        """A distillation that was due did not run: the zip in reserve stays, and the verdict is against it (R22)."""
        session = self.session
        with suppress(VesuError):  # the error itself is what the caller must see
            session.log.emit(HARD_FAIL, reason=reason)
            submission = self.safe.write("the distillation was not executed")
            summary = self._summary("failed", submission)
            write_json_atomic(session.folder / "summary.json", summary)

    def stop(self, reason: str) -> RunResult:
        """End this session so that the next one goes on: state first, then the best zip there is time for (R33, R36).

        Raises
        ------
        KeyboardInterrupt, SystemExit
            After SIGINT and SIGTERM, when everything is written.
        """
        session = self.session
        if reason == "MODEL_READY":
            return self._model_ready()
        in_time = reason != "DEADLINE"
        session.log.emit("RUN_STOPPING", reason=reason, phase=session.state.phase)
        session.save("full" if in_time else "pretimeout")
        if in_time:
            session.log.emit("RUN_STOPPED", reason=reason, resume="vesu run --resume-from-checkpoint latest")
            session.log.sync()
            write_profile(session.folder)
            write_postmortem(session.folder, cause="stopped", reason=reason)
            write_verdict(session.folder, session.log)
            if reason == "SIGINT":
                raise KeyboardInterrupt
            raise SystemExit(143)
        session.log.emit("PRETIMEOUT_FLUSH", phase=session.state.phase, seconds_left=session.governor.seconds_left())
        submission = self._best_submission()
        session.governor.final()
        session.log.emit("RUN_STOPPED", reason=reason, resume="vesu run --resume-from-checkpoint latest")
        return self._sealed(self._summary("stopped", submission), submission)

    def _model_ready(self) -> RunResult:
        """End where parts go on: the model is saved, the masks are still those in reserve."""
        session, calibrated = self.session, self.session.state.calibrated
        assert calibrated is not None
        submission = self.safe.write("the model is ready, the masks are for parts to make")
        session.governor.final()
        session.log.emit("RUN_STOPPED", reason="MODEL_READY", resume="vesu run --resume-from-checkpoint --masks MERGED")
        summary = self._summary("stopped", submission)
        return self._sealed({**summary, "phase": self.phase, "validation": dict(calibrated.validation)}, submission)

    def _best_submission(self) -> SubmissionReport:
        """Masks of the unfinished search where there is time for them, and the zip of the best of each volume."""
        session, governor = self.session, self.session.governor
        prepared = self.prepared
        if prepared is not None and session.state.search is not None and session.state.calibrated is None:
            # A fault here must not cost the zip that is there, and neither must the end of this time too.
            with suppress(VesuError, StopRequested), governor.phase("segment"), session.stops.rearmed():
                for done in segmenting.segment_provisionally(session, self.inventory.tests, prepared, self.cache):
                    session.log.emit("PROVISIONAL_MASK", volume_id=done, iter=session.state.search.iteration)
        return self.safe.write("the time is over")

    # ---- the stairs

    def _record_inventory(self) -> None:
        session, inventory = self.session, self.inventory
        discovery_s = session.seconds.pop("discovery")  # measured before there was a folder for a log
        with session.phase("discovery", 1) as phase:
            write_json_atomic(session.folder / "inventory.json", inventory.to_json())
            session.log.emit(
                "INVENTORY",
                root=printable(inventory.root),
                pairs=len(inventory.pairs),
                tests=len(inventory.tests),
                test_shapes=inventory.test_shapes,
            )
            phase.advance(1)
        session.add_seconds("discovery", discovery_s)

    def _preflight(self) -> None:
        session, tests = self.session, self.inventory.tests
        reserve = tests if session.config.pipeline == "vesu" and session.config.time.fallback != "empty" else ()
        with session.phase("preflight", 1 + len(reserve)) as phase:
            report = preflight(
                self.inventory,
                work_dir=session.folder,
                cache_dir=self.cache_folder,
                need_train=session.config.pipeline == "vesu" or self.teaching.due,
                need_tests=True,
                memory_bytes=memory_bytes(self.inventory, session.config, len(self.spec.names), session.ranks),
                seed=session.config.seed,
                n_threads=session.config.n_threads,
                on_event=session.tell,
                package_dir=self.cache_folder / "packages",
            )
            report = guiding.with_reference(report, session, self.inventory, student=self.teaching.due)
            write_json_atomic(session.folder / "preflight.json", report.to_json())
            for finding in report.findings:
                session.log.emit(
                    "PREFLIGHT_FINDING",
                    code=finding.code,
                    severity=finding.severity,
                    path=None if finding.path is None else printable(finding.path),
                    message=finding.message,
                )
            report.raise_if_blocked()
            phase.advance(1)
            if not self.safe.path.exists():
                self.safe.write("before any work")
            if reserve:
                segmenting.segment_in_reserve(session, reserve, phase.advance)
                self.safe.write("masks of a historical scorer")
            write_verdict(session.folder, session.log)

    def _search(self) -> dict[str, Any]:
        """Train on the labelled volumes, segment the others; the summary's parts on both."""
        session, inventory = self.session, self.inventory
        split = configured_split(inventory.pairs, session.config)
        coverage = TrainCoverage(session.log.emit, plan_coverage(inventory, split, session.config))
        self.cache = self._open_cache()
        self.prepared = prepared = learning.prepare(session, split, self.cache, self.spec, coverage)
        grid = learning.fit(session, prepared)
        coverage.finish(session.folder)
        distilled = self._distil(split, prepared.ids)
        found = segmenting.segment_all(
            session, inventory, prepared, self.cache, self.spec, grid, distilled, self._model_there
        )
        ranking = {} if found.ranking is None else {"ranking": dict(found.ranking)}
        search = learning.search_entry(session, prepared.data, grid) | ranking
        entries = {**self._student_entry(distilled, found.fusion), **guiding.summary_entry(session)}
        return {"search": search, "validation": dict(found.validation), **entries}

    def _prepare_student(self) -> None:
        """Say whether a student is due, and that it can be trained: better fail now than after hours of search."""
        session, teaching = self.session, self.teaching
        if not teaching.due:
            session.log.emit("STUDENT_SKIPPED", reason=teaching.reason)
            return
        if session.ranks is not None:
            require_divisible(session.ranks.world, session.config)
        session.log.emit("TEACHERS_FOUND", **teaching.fields(session.config.teachers.nominal))
        needed_gib = soft_label_bytes(self.inventory, session.config, len(teaching.teachers)) / 2**30
        if needed_gib > session.config.cache_gib:
            way_out = "raise cache_gib, or cap sampling.max_train_volumes: what does not fit is held in memory"
            session.log.emit(
                "SOFT_LABEL_ROOM_SHORT", needed_gib=needed_gib, cache_gib=session.config.cache_gib, way_out=way_out
            )
        self.device_use = DeviceUse(session.tell)
        self.device = prepare_device(teaching, session.config, self.device_use.emit)

    def _student_entry(self, distilled: Distilled | None, fusion: Mapping[str, Any] | None) -> dict[str, Any]:
        """The summary's part on the student; empty without one."""
        if distilled is None:
            return {}
        kpis = self.device_use.kpis()  # of this session
        self.session.log.emit("DEVICE_USE", **kpis)
        return {"student": {**distilled.report, "fusion": fusion, "device_use": kpis}}

    def _model_there(self) -> dict[str, MaskRecord]:
        """What follows from having a model: an end, where no more was asked for; the masks that parts made with it."""
        if self.phase == "search":
            self.session.save("full")
            raise StopRequested("MODEL_READY")
        return {} if self.merged is None else adopting.adopt(self.session, self.inventory.tests, self.merged)

    def _distil(self, split: Split, ids: Mapping[str, SourceIds]) -> Distilled | None:
        """The student, from its teachers (R18-R23); None where none is due."""
        if not self.teaching.due:
            return None
        asking_s, training_s, _ = distillation_costs(self.inventory, self.session.config, len(self.teaching.teachers))
        part = asking_s / (asking_s + training_s)
        return distilling.distil(
            self.session, self.teaching, split, ids, self.cache, self.device, self.device_use, part
        )

    def _baseline(self) -> dict[str, Any]:
        """Segment with a historical scorer (R32): it learns nothing, unless a student beside it was asked for (R25)."""
        session, pairs = self.session, self.inventory.pairs
        session.went_on()
        self.cache = self._open_cache()
        if not self.teaching.due:
            labelled = scored_pairs(pairs, session.config)
            ids = learning.load(session, labelled, self.cache) if labelled else {}
            found = segmenting.segment_by_scorer(session, self.inventory, self.cache, ids)
            return {"validation": found.validation} if labelled else {}
        split = configured_split(pairs, session.config)
        used = sorted((*split.train, *split.validation), key=lambda pair: pair.volume_id)
        ids = learning.load(session, used, self.cache)
        learning.identify(session, split, ids, self.spec)
        distilled = self._distil(split, ids)
        found = segmenting.segment_by_scorer(session, self.inventory, self.cache, ids, distilled)
        return {"validation": found.validation, **self._student_entry(distilled, found.fusion)}

    def _open_cache(self) -> ArrayCache:
        config = self.session.config
        return TimedCache(
            self.cache_folder,
            watch=self.session.log.watch,
            max_bytes=int(config.cache_gib * 2**30),
            events=self.session.log.emit,
            n_threads=config.n_threads,
            reserved_bytes=row_bytes(self.inventory, config, len(self.spec.names)),
        )

    def _package(self) -> SubmissionReport:
        session = self.session
        if self.teaching.due:
            distilling.prove(session, self.teaching)  # before these masks count
        with session.phase("package", 1) as phase:
            report = self.safe.write("all masks are final")
            session.log.emit("SUBMISSION_WRITTEN", sha256=report.sha256, members=len(report.members))
            phase.advance(1)
            return report
