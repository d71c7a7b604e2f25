"""A run folder that asked for everything and proves it, through the real event log; each piece can be forged."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import distill_log
from vesu.ledger import canonical_json, iter_events
from vesu.run.coverage import CoveragePlan, TrainCoverage
from vesu.run.events import EventLog
from vesu.submission import write_submission

Fields = dict[str, Any]

PAIRS = ("p1", "p2", "p3", "p4")
TESTS = {"t1": (2, 3, 4), "t2": (3, 2, 2)}
SCORE = 0.5
EVERYTHING: Fields = {
    "pipeline": "vesu",
    "seed": 0,
    "n_threads": 1,
    "student": {"use": "on"},
    "teachers": {"folder": ""},
    "guided": {"reference": "t1.tif", "volume_id": ""},
    "nonces": {"use": True, "top_k": 0},
    "auto_tune": {"use": True},
    "gates": {"min_coverage_pct": 95.0, "best_recorded": "", "score_tolerance": 0.0},
}
PLAIN = {**EVERYTHING, "student": {"use": "off"}, "guided": {}, "nonces": {"use": False}, "auto_tune": {"use": False}}

FILES = {
    "distillation": ("v3_transfer_memory_manifest.json", "v3_teacher_alignment_report.json"),
    "competitor": ("v3_competitor_guided_delta.json",),
    "nonces": ("v3_golden_nonce_timeline.jsonl",),
    "auto_tune": ("v3_autotune_trace.json",),
    "coverage": ("v3_train_coverage_report.json",),
}

DELTA: Fields = {
    "volume_id": "t1",
    "before": {"iou": 0.25, "dice": 0.5, "density_gap": 0.125},
    "after": {"iou": 0.5, "dice": 0.75, "density_gap": -0.0625},
    "delta": {"iou": 0.25, "dice": 0.25, "density_gap": -0.1875},
    "intended": True,
}


class Case:
    """Writes such a folder; events in ``skip`` are left out of the log, those in ``edit`` are logged with a change."""

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any] = EVERYTHING,
        skip: Collection[str] = (),
        edit: Mapping[str, Callable[[Fields], Fields]] | None = None,
        sampled: Collection[str] = PAIRS,
        score: float = SCORE,
        best: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.config, self.skip, self.edit = folder, dict(config), set(skip), dict(edit or {})
        self.sampled, self.score, self.best = sampled, score, best

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        with EventLog(self.folder / "events.jsonl", run_id="r1") as self.log:
            self.emit("RUN_START", config=self.config)
            self.emit("INVENTORY", root="data", pairs=len(PAIRS), tests=len(TESTS), test_shapes=TESTS)
            self.coverage()
            self.distillation()
            self.emit("CALIBRATED", validation=self.validation())
            if self.config["guided"]:
                self.competitor()
            if self.config["nonces"]["use"]:
                self.nonces()
            if self.config["auto_tune"]["use"]:
                decisions = [{"number": n, "parameter": "mutation_noise", "evidence": {"epoch": n}} for n in range(2)]
                for decision in decisions:
                    self.emit("AUTO_TUNE_POLICY_DECISION", **decision)
                self.file("v3_autotune_trace.json", {"decisions": decisions})
            self.submission()
            self.best_recorded()
            self.emit("RUN_END", status="finished")
            head = {"entries": self.log.size, "root": self.log.root}
        # What a process may say of itself: no gate believes it.
        done = {name: {"state": "pass", "done": True, "executed": True} for name in FILES}
        self.file("summary.json", {**done, "status": "finished", "go_no_go": {"verdict": "GO"}, "ledger": head})
        return self.folder

    def emit(self, name: str, **fields: Any) -> None:
        if name not in self.skip:
            self.log.emit(name, **self.edit.get(name, lambda same: same)(fields))

    def file(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def coverage(self) -> None:
        coverage = TrainCoverage(self.emit, CoveragePlan(PAIRS, PAIRS[:3], PAIRS[3:]))
        for name in self.sampled:
            self.emit("VOXELS_SAMPLED", volume_id=name, epoch=0, voxels=10, surface=5)
        self.log.flush()
        coverage.finish(self.folder)

    def distillation(self) -> None:
        if self.config["student"]["use"] == "off":
            self.emit("STUDENT_SKIPPED", reason="student.use is 'off'")
            return
        teachers = [{"name": name, "digest": digest} for name, digest in distill_log.TEACHERS.items()]
        self.emit("TEACHERS_FOUND", teachers=teachers)
        for event in distill_log.complete():
            if not event["event"].startswith("RUN_"):
                self.emit(event["event"], **{key: value for key, value in event.items() if key != "event"})
        for name in FILES["distillation"]:
            self.file(name, {"executed": True})

    def competitor(self) -> None:
        self.emit("COMPETITOR_TIFF_LOAD_OK", volume_id="t1", path="t1.tif", sha256="0" * 64, shape=TESTS["t1"])
        counts = {"voxels_fit": 18, "voxels_held_out": 6}
        self.emit("COMPETITOR_GUIDED_PHASE_START", volume_id="t1", target="calibration", **counts)
        self.emit("COMPETITOR_ALIGNMENT_DELTA", **DELTA)
        self.emit("COMPETITOR_GUIDED_PHASE_DONE", volume_id="t1", state="pass", reason="closer")
        self.file("v3_competitor_guided_delta.json", DELTA)

    def nonces(self) -> None:
        self.emit("GOLDEN_NONCE_FOUND", volume_id="t1", z=0, y=0, x=0, score=0.95)  # of lists that were given up
        self.emit("GOLDEN_NONCE_TIMELINE_START", plan={})
        for name, z, y, x, score in (("t1", 0, 1, 2, 0.99), ("t1", 1, 0, 0, 0.98), ("t2", 0, 0, 1, 1.0)):
            self.emit("GOLDEN_NONCE_FOUND", volume_id=name, z=z, y=y, x=x, score=score)
        self.log.flush()
        keys = ("ts_ns", "volume_id", "z", "y", "x", "score")
        forged = [dict(zip(keys, ("1", "t1", 0, 0, 0, 0.9), strict=True))]  # where the log has none
        found = [event for event in iter_events(self.log.path) if event["event"] == "GOLDEN_NONCE_FOUND"][1:] or forged
        lines = [canonical_json({key: event[key] for key in keys}) + b"\n" for event in found]
        (self.folder / "v3_golden_nonce_timeline.jsonl").write_bytes(b"".join(lines))
        counts = {name: sum(event["volume_id"] == name for event in found) for name in TESTS}
        digest = hashlib.sha256(b"".join(lines)).hexdigest()
        self.emit("GOLDEN_NONCE_TOPK_FINAL", top_k=0, found=len(found), volumes=counts, timeline_sha256=digest)

    def validation(self) -> Fields:
        """Of one volume, as CALIBRATED has it."""
        return {"volumes": ["p4"], "score": self.score, "by_volume": [{"volume_id": "p4", "score": self.score}]}

    def submission(self) -> None:
        masks = ((name, np.zeros(shape, np.uint8)) for name, shape in TESTS.items())
        report = write_submission(self.folder / "submission.zip", masks, expected=TESTS)
        origins = {"final": len(TESTS)}
        self.emit("SAFE_SUBMISSION_WRITTEN", reason="all masks are final", sha256=report.sha256, origins=origins)
        self.emit("SUBMISSION_WRITTEN", sha256=report.sha256, members=len(TESTS))

    def best_recorded(self) -> None:
        compared = {"metric": "score", "volumes": {"p4": ["1", "2"]}, "score": self.score, "others": 0}
        self.emit("BEST_RECORDED_COMPARED", **compared, best=self.best, problem=None)
