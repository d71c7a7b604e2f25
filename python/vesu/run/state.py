"""What one session of a run hands on to the next: the content of a checkpoint."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from vesu.data.jsonfiles import refusing_misplaced
from vesu.grid_search import SearchState
from vesu.run import rng
from vesu.run.checkpoint import Checkpoint

__all__ = ["Calibrated", "Distillation", "Guided", "MaskRecord", "RunState", "Tuning"]

RUN_PART, SEARCH_PART, RNG_PART = "run.json", "search.npz", "rng.json"
MODEL_PARTS = ("model.npz", "model.json")
STUDENT_PARTS = ("student.safetensors", "student.json")
EVIDENCE_PART = "distillation_events.jsonl"
TUNING_PART = "tuning_before.npz"


@dataclass(frozen=True)
class MaskRecord:
    """A mask that is done: of which CT file, and the seal of the mask's own."""

    image: str
    """BLAKE3 of the CT file."""
    sha512: str
    """Of the written mask file."""


@dataclass(frozen=True)
class Calibrated:
    """The model with its fitted ladder, as the files of the run folder, and what its validation measured."""

    files: Mapping[str, bytes]
    """``model.npz`` and ``model.json``."""
    validation: Mapping[str, Any]
    ranking: Mapping[str, Any] | None = None
    """The summary of the ranking by score, where there was one."""
    fusion: Mapping[str, Any] | None = None
    """How the student's weight was chosen, where there is a student."""


@dataclass(frozen=True)
class Distillation:
    """How far the student's training is; of a finished one, the student and what proves it (R22, R36).

    What the teachers say of the volumes is not in it: that lies in the cache, where each array is verified.
    """

    training: Mapping[str, bytes] = field(default_factory=dict)
    """The training's own parts, as its last save gave them; empty before the first, and when it is done."""
    cursor: Mapping[str, Any] = field(default_factory=dict)
    """Where it stood then: stage, step."""
    student: Mapping[str, bytes] = field(default_factory=dict)
    """The files of the trained student; empty until it is there."""
    report: Mapping[str, Any] | None = None
    """The summary's entry on a finished distillation, its proof included."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Content of the run folder's JSON files on it, by name."""
    evidence: tuple[Mapping[str, Any], ...] = ()
    """The distillation's events so far, as they stand in the log: they go where the log does not."""
    elsewhere: int = 0
    """So many of them, the first, stand in another folder's log."""
    since: int = 0
    """Number of the log's record from which on it is told of: what was before is of a student that was given up."""

    @property
    def done(self) -> bool:
        """Whether the student is trained and proved."""
        return self.report is not None

    def carried(self) -> "Distillation":
        """The same in a folder without the log that its events stand in."""
        return replace(self, elsewhere=len(self.evidence), since=0)


@dataclass(frozen=True)
class Guided:
    """A guided phase that is over (R24); one that was cut is begun anew, so there is nothing between."""

    report: Mapping[str, Any]
    """Content of ``v3_competitor_guided_delta.json``."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The model's files that it changed, by their path in the run folder; none where the model from before stays."""


@dataclass(frozen=True)
class Tuning:
    """What auto-tuning has decided so far, and where it may go back to (R39)."""

    search: Mapping[str, Any]
    """:class:`vesu.autotune.TunerState` as JSON, at the search's last iteration."""
    before: SearchState | None = None
    """Where the search stood when the change that is on trial was made."""
    calibration: tuple[Mapping[str, Any], ...] = ()
    """The decisions after the calibration."""
    final: Mapping[str, Any] | None = None
    """As ``search``, when that is done."""


@dataclass
class RunState:
    """The resumable state of a run; phases that are not in it are repeated from the cache.

    Notes
    -----
    R36, R37. Sampling, features and the training set are functions of configuration, data and seed, and their results
    lie in the cache: they are not stored twice.
    """

    run_id: str
    phase: str = "discovery"
    seconds: dict[str, float] = field(default_factory=dict)
    """Measured seconds of each phase over all sessions so far."""
    total_s: float = 0.0
    """Seconds of all sessions so far."""
    compat: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a resuming run must agree with, by group (``vesu.run.compatibility``)."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Ids and BLAKE3 of the labelled files."""
    search: SearchState | None = None
    best: dict[str, Any] = field(default_factory=dict)
    """Best row of the leaderboard, once there is one."""
    calibrated: Calibrated | None = None
    distillation: Distillation | None = None
    """None where no student is trained, or none was begun."""
    guided: Guided | None = None
    """None where no reference was given, or the phase is not over yet."""
    tuning: Tuning | None = None
    """None where nothing is tuned, or nothing was yet."""
    masks: dict[str, MaskRecord] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    """As :meth:`vesu.run.progress.Progress.state` gives it."""
    rng: Any = None
    """States of the process's generators when the checkpoint was written; None in a new run."""

    def parts(self) -> dict[str, bytes]:
        """The payload files of a checkpoint."""
        run = {
            "phase": self.phase,
            "seconds": self.seconds,
            "total_s": self.total_s,
            "compat": self.compat,
            "dataset": self.dataset,
            "best": self.best,
            "progress": self.progress,
            "validation": None if self.calibrated is None else dict(self.calibrated.validation),
            "ranking": None if self.calibrated is None else self.calibrated.ranking,
            "fusion": None if self.calibrated is None else self.calibrated.fusion,
            "distillation": None if self.distillation is None else _described(self.distillation),
            "guided": None if self.guided is None else _guided_described(self.guided),
            "masks": {name: vars(record) for name, record in self.masks.items()},
        }
        if self.tuning is not None:
            run["tuning"] = {name: getattr(self.tuning, name) for name in ("search", "calibration", "final")}
        parts = {RUN_PART: _json(run), RNG_PART: _json(rng.capture())}
        before = None if self.tuning is None else self.tuning.before
        for name, search in ((SEARCH_PART, self.search), (TUNING_PART, before)):
            if search is not None:
                buffer = io.BytesIO()
                search.save(buffer)
                parts[name] = buffer.getvalue()
        if self.calibrated is not None:
            parts |= self.calibrated.files
        if self.distillation is not None:
            parts |= {**self.distillation.training, **self.distillation.student}
            parts[EVIDENCE_PART] = b"".join(_json(event) + b"\n" for event in self.distillation.evidence)
        if self.guided is not None:
            parts |= {_guided_part(path): content for path, content in self.guided.files.items()}
        return parts

    def manifest(self, max_iter: int) -> dict[str, Any]:
        """The manifest's fields that follow from the state (R36)."""
        search = self.search
        total = 0 if search is None else search.n_neurons * search.problem.per_neuron
        arrays = (
            [] if search is None else [name for name, value in search.solver.items() if isinstance(value, np.ndarray)]
        )
        held = {"part": RNG_PART}
        return {
            "run_id": self.run_id,
            "phase": self.phase,
            "epoch": 0 if search is None else search.epoch,
            "candidate_first": 0,
            "candidate_index": max(0, total - 1),
            "candidate_total": total,
            "iter": 0 if search is None else search.iteration,
            "max_iter": max_iter,
            "model_state": {}
            if search is None
            else {"part": SEARCH_PART, "arrays": ["solver.params"], "layout": "a row: w, alpha, beta, b"},
            "optimizer_state": {}
            if search is None
            else {"part": SEARCH_PART, "arrays": [f"solver.{name}" for name in arrays if name != "params"]},
            "rng_states": dict.fromkeys(("numpy", "python", "torch"), held),
            "distillation_state": {} if self.distillation is None else _pointed(self.distillation),
            "best_metrics": self.best,
            "data_cursor": {
                "phase": self.phase,
                "epoch": 0 if search is None else search.epoch,
                "volumes_segmented": sorted(self.masks),
                **({} if self.distillation is None else {"distillation": dict(self.distillation.cursor)}),
            },
            "dataset_context": {**self.dataset, "samples": None if search is None else search.samples},
            "compat": {name: value for group in self.compat.values() for name, value in group.items()},
            "time": {"total_s": self.total_s},
            "progress": self.progress,
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The state that a checkpoint holds.

        Raises
        ------
        FormatError
            Parts that do not make one.
        """
        names = checkpoint.manifest.parts
        with refusing_misplaced(f"{checkpoint.path}: {RUN_PART}"):
            run = json.loads(checkpoint.read(RUN_PART))
            files = {name: checkpoint.read(name) for name in MODEL_PARTS if name in names}
            complete = run["validation"] is not None and len(files) == len(MODEL_PARTS)
            return cls(
                run_id=checkpoint.manifest.run_id,
                phase=str(run["phase"]),
                seconds={str(name): float(value) for name, value in run["seconds"].items()},
                total_s=float(run["total_s"]),
                compat={str(group): dict(fields) for group, fields in run["compat"].items()},
                dataset=dict(run["dataset"]),
                search=_search(checkpoint, SEARCH_PART),
                best=dict(run["best"]),
                progress=dict(run["progress"]),
                calibrated=Calibrated(files, run["validation"], run["ranking"], run.get("fusion"))
                if complete
                else None,
                distillation=_distillation(run.get("distillation"), checkpoint),
                guided=_guided(run.get("guided"), checkpoint),
                tuning=_tuning(run.get("tuning"), checkpoint),
                masks={str(name): MaskRecord(**record) for name, record in run["masks"].items()},
                rng=json.loads(checkpoint.read(RNG_PART)),
            )


def _described(state: Distillation) -> dict[str, Any]:
    """What of a distillation stands in ``run.json``; the rest are parts of their own."""
    return {
        "training": sorted(state.training),
        "student": sorted(state.student),
        "cursor": dict(state.cursor),
        "report": state.report,
        "files": state.files,
        "elsewhere": state.elsewhere,
        "since": state.since,
    }


def _pointed(state: Distillation) -> dict[str, Any]:
    """The manifest's field: which parts hold the training or the trained student, and where it stands."""
    parts = sorted(state.student or state.training)
    return {"part": EVIDENCE_PART, "parts": parts, "cursor": dict(state.cursor), "done": state.done}


def _distillation(described: Mapping[str, Any] | None, checkpoint: Checkpoint) -> Distillation | None:
    if described is None:
        return None
    return Distillation(
        training={str(name): checkpoint.read(name) for name in described["training"]},
        cursor=dict(described["cursor"]),
        student={str(name): checkpoint.read(name) for name in described["student"]},
        report=described["report"],
        files={str(name): dict(content) for name, content in described["files"].items()},
        evidence=tuple(json.loads(line) for line in checkpoint.read(EVIDENCE_PART).splitlines()),
        elsewhere=int(described["elsewhere"]),
        since=int(described["since"]),
    )


def _guided_described(state: Guided) -> dict[str, Any]:
    return {"report": dict(state.report), "files": sorted(state.files)}


def _guided(described: Mapping[str, Any] | None, checkpoint: Checkpoint) -> Guided | None:
    if described is None:
        return None
    files = {str(path): checkpoint.read(_guided_part(str(path))) for path in described["files"]}
    return Guided(dict(described["report"]), files)


def _guided_part(path: str) -> str:
    """A part's name, beside the parts of the model from before: ``guided_model.json``."""
    return f"guided_{path.rpartition('/')[2]}"


def _search(checkpoint: Checkpoint, name: str) -> SearchState | None:
    there = name in checkpoint.manifest.parts
    return SearchState.load(io.BytesIO(checkpoint.read(name))) if there else None


def _tuning(described: Mapping[str, Any] | None, checkpoint: Checkpoint) -> Tuning | None:
    if described is None:
        return None
    final, calibration = described["final"], tuple(dict(each) for each in described["calibration"])
    before = _search(checkpoint, TUNING_PART)
    return Tuning(dict(described["search"]), before, calibration, None if final is None else dict(final))


def _json(value: Any) -> bytes:
    # Infinities occur in nothing that is stored here; NaN neither: both would be a defect, not a state.
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()
