"""From teachers to a proved student: the phase distillation (R18-R23, R36, R37)."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.cache import ArrayCache
from vesu.data.discover import Pair
from vesu.data.storage import make_folder, remove_tree_atomic, write_bytes_atomic, write_json_atomic
from vesu.distill.device import DeviceUse
from vesu.distill.proof import EVENTS, Proof, require_distilled
from vesu.distill.transfer import ALIGNMENT_REPORT, MEMORY_MANIFEST, TeacherDistillation, TransferReport
from vesu.distill.values import SoftLabels, TrainingVolume
from vesu.errors import DistillationNotExecuted, ResumeIncompatible, VesuError
from vesu.run import compatibility, stages
from vesu.run.checkpoint.manifest import plain
from vesu.run.distilled import Distilled, cached_prediction
from vesu.run.history import events_named
from vesu.run.model import STUDENT_FOLDER
from vesu.run.outputs import write_student_views
from vesu.run.plan import CALIBRATION_VOLUMES, Split
from vesu.run.ranks_student import train_together
from vesu.run.session import Session
from vesu.run.state import STUDENT_PARTS, Distillation
from vesu.run.teaching import DistillationPlan, hard_fail

if TYPE_CHECKING:
    from vesu.distill.device import ComputeDevice
    from vesu.distill.training import TrainedStudent
    from vesu.run.progress import PhaseProgress

__all__ = ["distil", "prove"]

VIEWS_FOLDER = "student_views"
"""In the run folder: slices of the validation volumes, for the report."""

UNITS = 200.0
"""Of the phase: half per cents."""

LATER_PART = 0.05
"""Of the phase, what measuring the finished student takes."""


def distil(
    session: Session,
    plan: DistillationPlan,
    split: Split,
    ids: Mapping[str, stages.SourceIds],
    cache: ArrayCache,
    device: "ComputeDevice",
    use: DeviceUse,
    teachers_part: float,
) -> Distilled:
    """The phase distillation: teachers' answers, the student's training, its measures, and the proof.

    Parameters
    ----------
    session : Session
    plan : DistillationPlan
        With at least one teacher.
    split : Split
        Whose volumes it learns from, and is validated on.
    ids : mapping of str to SourceIds
        Of those volumes' files.
    cache : ArrayCache
        Holds the volumes, and the teachers' answers.
    device : ComputeDevice
        Where the networks compute.
    use : DeviceUse
        Counts what ran there (R27).
    teachers_part : float
        Expected part of the phase, 0 to 1, that the teachers take.

    Raises
    ------
    DistillationNotExecuted
        Something of it failed, or the log does not prove it.
    ResumeIncompatible
        Other teachers or another device than the checkpoint's.
    """
    session.agree("teachers", compatibility.teacher_fields(plan.teachers, device.kind))
    assert session.progress is not None
    state = session.state.distillation
    earlier = 1.0 if state is not None and state.done else _earlier_part(session)
    with session.timed(
        "distillation", session.progress.phase("distillation", UNITS, done_units=earlier * UNITS), device.kind
    ) as phase:
        if state is None or not state.done:
            try:
                _Work(session, plan, split, ids, cache, device, use, teachers_part, phase).do()
            except (DistillationNotExecuted, ResumeIncompatible):
                raise
            except VesuError as error:
                raise hard_fail(f"{type(error).__name__}: {error}") from error
        found = _restored(session, str(device))
        if phase.fraction < 1.0:
            phase.set(1.0)
        return found


def prove(session: Session, plan: DistillationPlan) -> Proof:
    """Read from the run's own log whether the distillation ran (R22).

    Raises
    ------
    DistillationNotExecuted
        It was due, and the log does not hold the whole of the work.
    """
    teachers = {teacher.name: teacher.digest for teacher in plan.teachers}
    return require_distilled(_told(session), teachers=teachers, due=plan.due)


def _told(session: Session) -> Iterator[Mapping[str, Any]]:
    """What of this distillation stands in another folder's log, then what this one's says."""
    session.log.flush()
    state = session.state.distillation or Distillation()
    yield from state.evidence[: state.elsewhere]
    yield from (event for event in events_named(session.log.path, EVENTS) if event["seq"] >= state.since)


def _earlier_part(session: Session) -> float:
    """What of the phase earlier sessions did, as the progress had it at the checkpoint."""
    parts = session.state.progress.get("earlier_parts", {})
    return min(float(parts.get("distillation", 0.0)), 1.0 - 1.0 / UNITS)


def _restored(session: Session, device: str) -> Distilled:
    """The student as the state holds it: the first session and a later one take the same way."""
    from vesu.distill.training import TrainedStudent

    state = session.state.distillation
    assert state is not None and state.report is not None
    folder = session.folder / STUDENT_FOLDER
    make_folder(folder)
    for name, content in state.student.items():
        write_bytes_atomic(folder / name, content)
    for name, document in state.files.items():
        write_json_atomic(session.folder / name, document)
    student = TrainedStudent.load(folder)
    session.log.emit("STUDENT_READY", weights_digest=student.weights_digest, cursor=dict(state.cursor))
    return Distilled(student, device, student.weights_digest, state.report)


class _Share:
    """One stretch of the phase: a part done of it moves the whole, and never back."""

    def __init__(self, phase: "PhaseProgress", start: float, stop: float) -> None:
        self._phase, self._start, self._stop = phase, start, stop

    def at(self, part: float) -> None:
        """This part of the stretch, 0 to 1, is done; what an earlier session did is gone through in silence."""
        fraction = self._start + (self._stop - self._start) * min(max(part, 0.0), 1.0)
        if fraction > self._phase.fraction:
            self._phase.set(fraction)


class _Work:
    """One session's part of a distillation."""

    def __init__(
        self,
        session: Session,
        plan: DistillationPlan,
        split: Split,
        ids: Mapping[str, stages.SourceIds],
        cache: ArrayCache,
        device: "ComputeDevice",
        use: DeviceUse,
        teachers_part: float,
        phase: "PhaseProgress",
    ) -> None:
        self.session, self.plan, self.ids, self.cache = session, plan, ids, cache
        self.device, self.use = device, use
        self.train, self.held_out = split.train, split.validation[:CALIBRATION_VOLUMES]
        asked = teachers_part * (1.0 - LATER_PART)
        self.asking = _Share(phase, 0.0, asked)
        self.training = _Share(phase, asked, 1.0 - LATER_PART)
        self.measuring = _Share(phase, 1.0 - LATER_PART, 1.0)
        state = session.state.distillation or Distillation(since=session.log.size)
        session.state.distillation = state
        self.events = list(state.evidence)
        self.unsaved = 0

    def do(self) -> None:
        """Everything, from where the last session was."""
        session = self.session
        teachers = {teacher.name: teacher.digest for teacher in self.plan.teachers}
        account = TeacherDistillation(teachers, nominal=session.config.teachers.nominal, emit=self.emit)
        with self.use.phase("teachers", self.device):
            soft = self.soft_labels()
        train = [self.volume(pair, soft) for pair in self.train]
        validation = [self.volume(pair, soft) for pair in self.held_out]
        for volume in train:
            account.covered(volume.image.shape, volume.soft)
        together = train_together(
            self.session,
            {
                "train": list(zip(self.train, train, strict=True)),
                "validation": list(zip(self.held_out, validation, strict=True)),
            },
            self.ids,
            self.plan.teachers,
            self.cache,
            str(self.device),
            self.earlier(),
        )
        with self.use.phase("student_training", self.device), together as poll:
            student = self.train_student(train, validation, poll)
        with self.use.phase("student_measuring", self.device):
            report = self.measured(student, validation, account)
        proof = prove(session, self.plan)
        session.log.emit("DISTILLATION_PROVED", **proof.to_json())
        self.keep(student, report, proof)

    # ---- the work

    def soft_labels(self) -> dict[str, SoftLabels]:
        """What the teachers say of every volume, from the cache where they have said it."""
        from vesu.distill.ensemble import teacher_ensemble_infer

        session = self.session
        images = {pair.volume_id: self.image_of(pair) for pair in (*self.train, *self.held_out)}
        return teacher_ensemble_infer(
            self.plan.teachers,
            images,
            cache=self.cache,
            config=session.config.teachers,
            device=self.device,
            emit=self.emit,
            reload_cached=not self.loaded_before(),
            on_part=self.asking.at,
            poll=session.stops.poll,
        )

    def earlier(self) -> dict[str, bytes] | None:
        """The training's parts as an earlier session left them."""
        state = self.session.state.distillation
        return dict(state.training) if state is not None and state.training else None

    def train_student(
        self,
        train: Sequence[TrainingVolume],
        validation: Sequence[TrainingVolume],
        poll: Callable[[], object],
    ) -> "TrainedStudent":
        from vesu.distill.training import train_student_distilled

        session = self.session
        return train_student_distilled(
            train,
            validation,
            session.config.student,
            seed=session.config.seed,
            device=str(self.device),
            emit=self.emit,
            save=self.save,
            resume=self.earlier(),
            on_step=self.training.at,
            poll=poll,
            n_threads=session.config.n_threads,
            save_due=self.save_due,
            guard=session.stops.deferred,
        )

    def measured(
        self, student: "TrainedStudent", validation: Sequence[TrainingVolume], account: TeacherDistillation
    ) -> TransferReport:
        """The agreement with the teachers before, after the distillation, and of the student as delivered (R23)."""
        session = self.session
        judged = [volume for volume in validation if volume.soft is not None]
        make_folder(session.folder / VIEWS_FOLDER)
        moments = {"before": student.untrained(), "distilled": student.distilled(), "final": student}
        done = 0

        def answers(moment: str, model: "TrainedStudent") -> Iterator[tuple[SoftLabels, NDArray[np.float32]]]:
            nonlocal done
            digest = model.weights_digest
            for volume in judged:
                found = cached_prediction(
                    model,
                    digest,
                    volume.image,
                    self.ids[volume.volume_id].image,
                    str(self.device),
                    self.cache,
                    poll=session.stops.poll,
                )
                if moment == "final":
                    write_student_views(session.folder / VIEWS_FOLDER / f"{volume.volume_id}.npz", volume, found)
                assert volume.soft is not None
                yield volume.soft, found.probability
                done += 1
                self.measuring.at(done / (len(moments) * len(judged)))

        for moment, model in moments.items():
            account.measure(moment, answers(moment, model))  # type: ignore[arg-type]  # the keys are moments
        return account.finish(session.folder, events=_told(session))

    # ---- evidence and state

    def image_of(self, pair: Pair) -> Callable[[], NDArray[Any]]:
        digest, threads = self.ids[pair.volume_id].image, self.session.config.n_threads
        return lambda: stages.cached_volume(pair.image, digest, self.cache, threads, mmap=True)

    def volume(self, pair: Pair, soft: Mapping[str, SoftLabels]) -> TrainingVolume:
        """A pair as maps of what lies in the cache: as many as there are can be held."""
        ids, threads = self.ids[pair.volume_id], self.session.config.n_threads
        label = stages.cached_volume(pair.label, ids.label, self.cache, threads, mmap=True)
        return TrainingVolume(
            pair.volume_id, self.image_of(pair)(), label.astype(np.uint8, copy=False), soft.get(pair.volume_id)
        )

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log an event, and keep what a proof reads for a folder that has no such log."""
        session = self.session
        sequence = session.log.emit(name, **fields)
        if name in EVENTS:
            last = int(self.events[-1]["ts_ns"]) if self.events else 0  # a clock that is set back repeats the last time
            ts_ns = max(last, session.clock.ts_ns())
            kept = {"event": name, "seq": sequence, "ts_ns": str(ts_ns), "run_id": session.log.run_id}
            self.events.append({**kept, **plain(dict(fields), name, [])})
        if name == "TRAINING_ENVIRONMENT_CHANGED":
            session.went_on(f"the training's environment: {fields.get('field')} is not what it was at the checkpoint")

    def loaded_before(self) -> bool:
        """Whether the evidence holds a load of every teacher already."""
        loads = {event.get("teacher") for event in self.events if event["event"] == "DISTILLATION_TEACHER_LOAD_END"}
        return {teacher.name for teacher in self.plan.teachers} <= loads

    def save(self, parts: Mapping[str, bytes], cursor: Mapping[str, Any]) -> bool:
        """A checkpoint of the training; a full one, which is published too, where a stage ends; False if refused."""
        session, self.unsaved = self.session, 0
        with session.stops.deferred():
            before = session.state.distillation or Distillation()
            session.state.distillation = dataclasses.replace(
                before, training=dict(parts), cursor=_json(cursor), evidence=tuple(self.events)
            )
            same = bool(before.training) and before.cursor.get("stage") == cursor.get("stage")
            session.save("light" if same else "full")
            return session.kept

    def save_due(self) -> bool:
        """As often as the search's checkpoints: every so many steps."""
        self.unsaved += 1
        return self.unsaved >= self.session.config.checkpoint.every_iterations

    def keep(self, student: "TrainedStudent", report: TransferReport, proof: Proof) -> None:
        """The end: the student and its evidence are in the state, the training's own parts are not needed again."""
        session = self.session
        state = session.state.distillation or Distillation()
        names, folder = (MEMORY_MANIFEST, ALIGNMENT_REPORT), session.folder / STUDENT_FOLDER
        if folder.exists():
            remove_tree_atomic(folder)  # of a session that was killed just here
        student.save(folder)
        entry = {
            "teachers": [
                {"name": each.name, "digest": each.digest, "framework": each.framework} for each in self.plan.teachers
            ],
            "refused": [{"path": path, "reason": reason} for path, reason in self.plan.refused],
            "nominal": session.config.teachers.nominal,
            "kpis": report.kpis(),
            "alignment": {each.moment: each.mean for each in report.alignments},
            "stages": list(session.config.student.stages),
            "device": str(self.device),
            "proof": proof.to_json(),
        }
        with session.stops.deferred():
            session.state.distillation = dataclasses.replace(
                state,
                training={},
                student={name: (folder / name).read_bytes() for name in STUDENT_PARTS},
                report=_json(entry),
                files={name: json.loads(Path(session.folder, name).read_bytes()) for name in names},
                evidence=tuple(self.events),
            )
            session.save("full")


def _json(value: Any) -> Any:
    """As the next session will read it."""
    return json.loads(json.dumps(plain(value, "distillation", [])))
