"""One session of a run: everything that stands beside the stairs, and the state that it hands on."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vesu import _core
from vesu.config import RunConfig
from vesu.errors import FileError, ResumeIncompatible
from vesu.grid_search import IterationRecord
from vesu.run import compatibility, evidence
from vesu.run.checkpoint import Checkpoint, CheckpointStore, Kind, compare_compat
from vesu.run.clock import Clock, SessionClock
from vesu.run.events import EventLog
from vesu.run.governor import Governor
from vesu.run.interrupts import Stops
from vesu.run.progress import PhaseProgress, Progress
from vesu.run.ranks import Ranks
from vesu.run.state import RunState

__all__ = ["Session"]

P = TypeVar("P", bound=PhaseProgress)


@dataclass
class Session:
    """What every phase needs at hand: log, clock, progress, governor, checkpoints."""

    folder: Path
    config: RunConfig
    log: EventLog
    clock: Clock
    time: SessionClock
    """How long this session, and the run, has lasted."""
    governor: Governor
    stops: Stops
    store: CheckpointStore
    state: RunState
    resumed: Checkpoint | None = None
    """What this session goes on from."""
    retrain_changed: bool = False
    """Whether a change of settings makes the work behind it new, rather than being refused."""
    announce: Callable[[str], None] = lambda text: None
    """Gets each tree head that a phase's end leaves, for standard output."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the phases of this session."""
    progress: Progress | None = None
    ranks: Ranks | None = None
    """The processes that share the search and the student, where torchrun started several."""
    kept: bool = True
    """Whether the newest checkpoint was written; a disk may refuse it."""

    def __post_init__(self) -> None:
        self._earlier = dict(self.state.seconds)
        self._saved = {} if self.resumed is None else dict(self.state.compat)
        self.git_sha = evidence.git_sha()
        self.machine = evidence.machine()
        self.started_ns = self.clock.ts_ns()

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log an event, called as stages call what they are given for that."""
        self.log.emit(name, **fields)

    # ---- phases

    def phase(self, name: str, units: float, *, done_units: float = 0.0) -> AbstractContextManager[PhaseProgress]:
        """A phase on the CPU whose units cost about the same each; some may be done since an earlier session."""
        assert self.progress is not None
        return self.timed(name, self.progress.phase(name, units, done_units=done_units))

    @contextmanager
    def timed(self, name: str, steps: AbstractContextManager[P], device: str = "cpu") -> Iterator[P]:
        """A phase with its events and seconds, and at its end a checkpoint and a log safe on disk (R27, R36)."""
        start = self.clock.monotonic()
        self.state.phase = name
        self.log.watch.lap()  # what lies between two phases belongs to neither
        self.log.emit("PHASE_START", phase=name, device=device)
        if device == "cuda":
            self.log.emit("GPU_PHASE_START", phase=name, device=device)
        with self.governor.phase(name), steps as phase:
            try:
                yield phase
            finally:
                self._measured(name, self.clock.monotonic() - start)
        if device == "cuda":
            self.log.emit("GPU_PHASE_END", phase=name, device=device, seconds=self.seconds[name])
        self.log.emit("PHASE_END", phase=name, device=device, seconds=self.seconds[name], **self.log.watch.lap())
        self.announce(self.save("full"))

    def add_seconds(self, name: str, seconds: float) -> None:
        """Seconds that a phase took before there was a log to tell of it."""
        self._measured(name, seconds)

    def _measured(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.state.seconds[name] = self._earlier.get(name, 0.0) + self.seconds[name]

    def observe(self, shown: Mapping[str, Any]) -> None:
        """At each beat of the progress: the governor hears how long the rest is expected to take."""
        band = (shown["remaining_low_s"], shown["remaining_high_s"])
        left_s = None if self.progress is None else self.progress.remaining_by_phase()
        self.governor.observe(shown["remaining_estimate_s"], band, left_s=left_s)

    # ---- checkpoints

    def iterated(self, record: IterationRecord) -> None:
        """After an iteration of the search: hold its state, and write it down when due (R36)."""
        self.stops.poll()
        self.state.search = record.state()
        if record.iteration == record.max_iter:
            self.save("full")
        elif record.iteration % self.config.checkpoint.every_iterations == 0:
            self.save("light")

    def save(self, kind: Kind) -> str:
        """Write a checkpoint; the log is on disk before it, so that it never runs ahead of the evidence.

        Returns
        -------
        str
            The tree head that the checkpoint names (C2SP text).

        Notes
        -----
        A disk that refuses costs the checkpoint (``CHECKPOINT_FAILED``), not the run: the older ones still stand.
        """
        with self.stops.deferred():
            self.state.total_s = self.time.total_s()
            if self.progress is not None:
                self.state.progress = self.progress.state()
            self.log.sync()
            size, root, head = self.log.size, self.log.root, self.log.tree_head()
            fields = self.state.manifest(self.config.search.max_iter) | {
                "git_sha": self.git_sha,
                "merkle_curr": root,
                "merkle_size": size,
                "tree_head": head,
            }
            try:
                with self.log.watch.measure("io"):
                    self.store.save(kind, fields, self.state.parts())
                self.kept = True
            except FileError as error:
                self.kept = False
                self.log.emit("CHECKPOINT_FAILED", kind=kind, message=str(error))
            return head

    # ---- resuming

    def went_on(self, inexact: str | None = None) -> None:
        """Say that a resumed run goes on now, and whether the result will be the uninterrupted one's bit for bit.

        Parameters
        ----------
        inexact : str, optional
            Why it will not; another version of vesu is found here.
        """
        if self.resumed is None:
            return
        manifest, search = self.resumed.manifest, self.state.search
        if inexact is None and manifest.version != _core.__version__:
            inexact = f"the checkpoint is of vesu {manifest.version}, this is {_core.__version__}"
        self.log.emit(
            "RESUME_EXACT_OK" if inexact is None else "RESUME_OK",
            checkpoint=self.resumed.path.name,
            source_ts_ns=str(manifest.ts_ns),
            target_ts_ns=str(self.clock.ts_ns()),
            epoch=0 if search is None else search.epoch,
            iter=0 if search is None else search.iteration,
            reason=inexact,
        )

    def agree(self, group: str, fields: Mapping[str, Any]) -> None:
        """Compare a group of what decides the result with the checkpoint's; remember it for the next one (R37).

        Raises
        ------
        ResumeIncompatible
            Something differs, and a retrain was not asked for; the message names each field, old and new.
        """
        saved = self._saved.get(group)
        differences = [] if saved is None else compare_compat(saved, fields)
        if differences:
            names, words = [each.field for each in differences], "; ".join(map(str, differences))
            self.log.emit("RESUME_INCOMPATIBLE", fields=names, differences=words)
            if not self.retrain_changed:
                raise ResumeIncompatible(f"RESUME_INCOMPATIBLE: {words}")
            scope = compatibility.scope_of(names)
            self.log.emit("RESUME_PARTIAL_RETRAIN", scope=scope, fields=names)
            self._forget(scope, keep_student=compatibility.student_stands(names))
        self.state.compat[group] = dict(fields)

    def _forget(self, scope: compatibility.Scope, *, keep_student: bool) -> None:
        """Drop the work that a change makes new."""
        if scope == "search":
            self.state.search = self.state.tuning = None
            self.state.best = {}
        if not keep_student:
            self.state.distillation = None
        self.state.calibrated = None
        self.state.guided = None
        self.state.masks = {}
        self.state.progress = {}
        for mask in (self.folder / "masks").glob("*.tif"):
            mask.unlink()


def file_sha512(path: Path) -> str:
    """SHA-512 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
