"""The guided phase of a run: the model aligned to a reference mask of a test volume, or left as it is (R24)."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig
from vesu.data.discover import Inventory
from vesu.data.findings import Finding, PreflightReport
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.data.volumes import read_volume
from vesu.distill.device import DeviceUse
from vesu.errors import DataError, VesuError
from vesu.features import FeatureSpec
from vesu.guided import Agreement, Delta, HeldOut, Reference, agreement, align_rule, hold_out, read_reference
from vesu.run import compatibility
from vesu.run.model import STUDENT_FOLDER, FusedStudent, SurfaceModel, VolumePrediction, fused
from vesu.run.outputs import printable, write_guided_views
from vesu.run.session import Session
from vesu.run.state import STUDENT_PARTS, Guided
from vesu.run.validation import scores
from vesu.scoring import score
from vesu.segmentation import Median, SegmentConfig, SmoothZ, segment

__all__ = ["DELTA_FILE", "PHASE", "guide", "is_asked", "summary_entry", "with_reference"]

PHASE = "TEST_GUIDED_ULTRA_FINETUNE_WITH_COMPETITOR_TIFF"
DELTA_FILE = "v3_competitor_guided_delta.json"
FORMAT = "vesu-guided-delta/1"
FOLDER = "guided"
"""In the run folder: slices for the report, and the model from before the phase."""
BEFORE = "before"

ANSWERED, ALIGNED, JUDGED = 0.35, 0.7, 0.9
"""Of the phase: the first answer is there; the model is aligned; it is judged. The rest are the true labels."""

Labelled = Callable[[], Iterable[tuple[str, tuple[NDArray[Any], NDArray[np.uint8]]]]]
"""The validation volumes: ids, CT and label."""


def is_asked(config: RunConfig) -> bool:
    """Whether there is a reference to align to."""
    return bool(config.guided.reference)


def with_reference(
    report: PreflightReport, session: Session, inventory: Inventory, *, student: bool
) -> PreflightReport:
    """A preflight report with what is wrong with the reference; as it was where none was given.

    Parameters
    ----------
    report : PreflightReport
    session : Session
    inventory : Inventory
        Its test volumes are those that a reference may be of.
    student : bool
        Whether a student is due.

    Raises
    ------
    ResumeIncompatible
        The run goes on from one that was aligned to another reference.

    Notes
    -----
    A session that goes on behind the phase needs its reference no more: the test volumes may have been swapped.
    """
    config = session.config
    if not is_asked(config):
        return report
    settings = config.guided
    try:
        if config.pipeline != "vesu":
            raise DataError(
                f"guided.reference: got one beside pipeline {config.pipeline!r}; accepted: none, it has no model"
            )
        reference = read_reference(
            settings.reference, inventory.test_shapes, settings.volume_id, n_threads=config.n_threads
        )
        if settings.target == "student" and not student:
            raise DataError("guided.target: got 'student' in a run without one; accepted: 'auto' or 'calibration'")
        aligned = student and settings.target != "calibration"
        margin = _margin(config, FeatureSpec(scales=config.features.scales), config.segment.ladder, student=aligned)
        hold_out(reference.mask, settings.held_out, margin, config.seed)
    except VesuError as error:
        if session.state.guided is not None:
            return report
        found = Finding("GUIDED_REFERENCE", "blocking", Path(settings.reference), str(error))
        return dataclasses.replace(report, findings=(*report.findings, found))
    session.agree("guided", compatibility.reference_fields(reference.volume_id, reference.sha256))
    return report


def guide(
    session: Session,
    inventory: Inventory,
    labelled: Labelled,
    device: str | None,
    advance: Callable[[float], None],
) -> None:
    """The guided phase, once in a run: afterwards the run folder holds the model that is in use.

    Parameters
    ----------
    session : Session
        Its folder holds the calibrated model.
    inventory : Inventory
    labelled : callable
        The validation volumes, on which the cost of the alignment is measured.
    device : str or None
        Where the student runs.
    advance : callable
        Told the part of the phase that was done since it was told last.

    Notes
    -----
    Requirement R24. All or nothing: a phase that is cut leaves no trace but its events and is begun anew. Where it does
    not do what it should, or ends by a VesuError, the model from before stays in use, and the run goes on.
    """
    if not is_asked(session.config):
        return
    if session.state.guided is None:
        session.state.guided = _Phase(session, inventory, labelled, device, advance).do()
        session.save("full")
    else:
        report = session.state.guided.report
        session.log.emit("COMPETITOR_GUIDED_PHASE_KEPT", volume_id=report["volume_id"], state=report["state"])
    state = session.state.guided
    for path, content in state.files.items():
        make_folder((session.folder / path).parent)
        write_bytes_atomic(session.folder / path, content)
    write_json_atomic(session.folder / DELTA_FILE, dict(state.report))


def summary_entry(session: Session) -> dict[str, Any]:
    """The summary's part on the phase; empty where there was none."""
    state = session.state.guided
    return {} if state is None else {"guided": dict(state.report)}


def _margin(config: RunConfig, spec: FeatureSpec, ladder: SegmentConfig, *, student: bool) -> int:
    """How far an answer looks: the features' reach and the steps' before the threshold, or a window of the student."""
    reach = sum(step.radius for step in ladder.before if isinstance(step, SmoothZ))
    reach += sum(1 for step in ladder.before if isinstance(step, Median))
    looks = max(spec.halo, max(config.student.patch) - 1) if student else spec.halo
    return looks + reach


class _Phase:
    """One attempt at the phase."""

    def __init__(
        self,
        session: Session,
        inventory: Inventory,
        labelled: Labelled,
        device: str | None,
        advance: Callable[[float], None],
    ) -> None:
        self.session, self.inventory, self.labelled = session, inventory, labelled
        self.device = device or "cpu"
        self.config, self.settings = session.config, session.config.guided
        self._advance, self._told = advance, 0.0
        self.report: dict[str, Any] = {
            "format": FORMAT,
            "phase": PHASE,
            "volume_id": self.settings.volume_id,
            "reference": {"path": printable(Path(self.settings.reference))},
        }
        self.files: dict[str, bytes] = {}

    def do(self) -> Guided:
        """Everything; an error of the phase is its result, a request to stop is not."""
        try:
            self._do()
        except VesuError as error:
            self.report |= {"state": "fail", "reason": f"{type(error).__name__}: {error}"}
        self.report["model_in_use"] = "aligned" if self.files else "before"
        told = {name: self.report[name] for name in ("volume_id", "state", "reason")}
        self.session.log.emit("COMPETITOR_GUIDED_PHASE_DONE", **told)
        self.at(1.0)
        return Guided(self.report, self.files)

    def at(self, part: float) -> None:
        """This part of the phase, 0 to 1, is done."""
        if part > self._told:
            self._advance(part - self._told)
            self._told = part

    # ---- the steps

    def _do(self) -> None:
        reference = self._load()
        model = SurfaceModel.load(self.session.folder, device=self.device)
        student = self._student_of(model)
        margin = _margin(self.config, model.spec, model.segment_config, student=student is not None)
        cut = hold_out(reference.mask, self.settings.held_out, margin, self.config.seed)
        self._begin(reference, cut, "calibration" if student is None else "student")
        image = read_volume(self._image_path(reference.volume_id), n_threads=self.config.n_threads)
        prox, own = self._answers(model, image)
        before = prox if own is None else fused(own, prox, _weight(model))
        mask_before, first = self._judged(before, model.segment_config, reference, cut)
        self.report["before"] = first.to_json()
        after, aligned = before, model
        if student is not None:
            aligned = dataclasses.replace(model, student=self._aligned_student(student, image, reference, cut))
            assert aligned.student is not None
            after = fused(aligned.student.predict(image, poll=self.session.stops.poll), prox, _weight(model))
            self.report["student_alone"] = self._judged(after, model.segment_config, reference, cut)[1].to_json()
        aligned = self._aligned_rule(aligned, after, reference, cut)
        self.at(ALIGNED)
        mask_after, last = self._judged(after, aligned.segment_config, reference, cut)
        make_folder(self.session.folder / FOLDER)
        write_guided_views(
            self.session.folder / FOLDER / f"{reference.volume_id}.npz",
            cut.judging(image),
            cut.judging(reference.mask),
            mask_before,
            mask_after,
            offset=(cut.axis, cut.held_out.start),
        )
        self._conclude(Delta(first, last), model, aligned)

    def _load(self) -> Reference:
        shapes = self.inventory.test_shapes
        reference = read_reference(
            self.settings.reference, shapes, self.settings.volume_id, n_threads=self.config.n_threads
        )
        seen = self.session.state.compat.get("guided", {}).get("guided.reference_sha256", reference.sha256)
        if reference.sha256 != seen:
            raise DataError(f"{reference.path}: got other bytes than at the preflight; accepted: the same file")
        self.report["volume_id"] = reference.volume_id
        self.report["reference"] |= {
            "sha256": reference.sha256,
            "shape": list(reference.mask.shape),
            "density": reference.density,
        }
        self.session.log.emit(
            "COMPETITOR_TIFF_LOAD_OK", volume_id=reference.volume_id, phase=PHASE, **self.report["reference"]
        )
        return reference

    def _student_of(self, model: SurfaceModel) -> FusedStudent | None:
        """The student that is to be aligned, if it is."""
        student, target = model.student, self.settings.target
        if target == "calibration":
            return None
        counts = student is not None and student.weight > 0.0
        if target == "student" and not counts:
            raise DataError("guided.target: got 'student', and no student counts in the probability (its weight is 0)")
        return student if counts else None

    def _begin(self, reference: Reference, cut: HeldOut, target: str) -> None:
        known = reference.mask != 2
        self.report |= {
            "target": target,
            "seed": self.config.seed,
            "split": cut.to_json(),
            "voxels_fit": int(np.count_nonzero(cut.fitting(known))),
            "voxels_held_out": int(np.count_nonzero(cut.judging(known))),
        }
        names = ("volume_id", "target", "voxels_fit", "voxels_held_out", "split", "seed")
        told = {name: self.report[name] for name in names}
        self.session.log.emit("COMPETITOR_GUIDED_PHASE_START", phase=PHASE, device=self.device, **told)

    def _answers(self, model: SurfaceModel, image: NDArray[Any]) -> tuple[VolumePrediction, VolumePrediction | None]:
        """The ensemble's answer, and the student's where it counts."""
        done = 0.0

        def tell(part: float) -> None:
            nonlocal done
            done += part
            self.at(ANSWERED * min(done, 1.0))

        prox = model.predict_prox(
            image,
            max_feature_bytes=int(self.config.max_feature_gib * 2**30),
            n_threads=self.config.n_threads,
            on_part=tell,
        )
        if _weight(model) == 0.0:
            return prox, None
        assert model.student is not None
        return prox, model.student.predict(image, poll=self.session.stops.poll)

    def _judged(
        self, answer: VolumePrediction, ladder: SegmentConfig, reference: Reference, cut: HeldOut
    ) -> tuple[NDArray[np.uint8], Agreement]:
        """The mask of the part that was kept out, made as if that were a volume of its own, and its agreement."""
        spread = cut.judging(answer.uncertainty) if ladder.needs_uncertainty else None
        probability = cut.judging(answer.probability)
        mask = segment(probability, ladder, uncertainty=spread, n_threads=self.config.n_threads).mask
        return mask, agreement(mask, cut.judging(reference.mask))

    def _aligned_student(
        self, student: FusedStudent, image: NDArray[Any], reference: Reference, cut: HeldOut
    ) -> FusedStudent:
        from vesu.distill.aligning import align_student
        from vesu.distill.patches import moments

        session, weights = self.session, student.student.weights_digest
        with DeviceUse(session.tell).phase("student_alignment", self.device):
            aligned = align_student(
                student.student,
                cut.fitting(image),
                cut.fitting(reference.mask),
                self.settings,
                moments=moments(image),
                seed=self.config.seed,
                volume_id=reference.volume_id,
                device=self.device,
                emit=session.tell,
                on_step=lambda part: self.at(ANSWERED + (ALIGNED - ANSWERED) * 0.9 * part),
                poll=session.stops.poll,
                n_threads=self.config.n_threads,
            )
        self.report["student"] = {
            "weights_before": weights,
            "weights_after": aligned.weights_digest,
            "stage": self.settings.stage,
            "steps": self.settings.steps,
            "learning_rate": self.settings.learning_rate,
        }
        return dataclasses.replace(student, student=aligned)

    def _aligned_rule(
        self, model: SurfaceModel, answer: VolumePrediction, reference: Reference, cut: HeldOut
    ) -> SurfaceModel:
        """The model with the threshold's rule that suits the part that is aligned to."""
        ladder, settings = model.segment_config, self.config.segment.calibration
        rule = align_rule(
            cut.fitting(answer.probability),
            cut.fitting(reference.mask),
            ladder,
            modes=settings.modes,
            low_factors=settings.low_factors,
            uncertainty=cut.fitting(answer.uncertainty) if ladder.needs_uncertainty else None,
            n_threads=self.config.n_threads,
        )
        rules = {"before": ladder.threshold.rule, "after": rule}
        self.report["rule"] = {name: dataclasses.asdict(each) for name, each in rules.items()}
        return dataclasses.replace(model, segment_config=ladder.with_rule(rule))

    # ---- the end

    def _conclude(self, delta: Delta, before: SurfaceModel, aligned: SurfaceModel) -> None:
        """Judge the alignment; put the aligned model into use only if it is what was meant."""
        self.report |= delta.to_json()
        self.session.log.emit("COMPETITOR_ALIGNMENT_DELTA", volume_id=self.report["volume_id"], **delta.to_json())
        self.at(JUDGED)
        if not delta.intended:
            figures = ", ".join(f"{name} {getattr(delta, name):+.6f}" for name in delta.missed)
            reason = f"on the voxels kept out the alignment did not do what it should: {figures}"
            self.report |= {"state": "fail", "reason": reason}
            return
        self.report["true_labels"] = self._on_true_labels(aligned)
        folder = self.session.folder
        make_folder(folder / FOLDER / BEFORE)
        before.save(folder / FOLDER / BEFORE)
        aligned.save(folder)
        names = ["model.json"]
        if self.report["target"] == "student":
            names += [f"{STUDENT_FOLDER}/{name}" for name in STUDENT_PARTS]
        self.files = {name: (folder / name).read_bytes() for name in names}
        reason = "IoU and Dice rose and the density gap did not, on voxels kept out of the alignment"
        self.report |= {"state": "pass", "reason": reason}

    def _on_true_labels(self, aligned: SurfaceModel) -> dict[str, Any]:
        """What the alignment costs, or gains, on the validation volumes: a reference is somebody's opinion."""
        calibrated, rows = self.session.state.calibrated, []
        assert calibrated is not None
        for _, (image, label) in self.labelled():
            answer = aligned.predict(
                image,
                max_feature_bytes=int(self.config.max_feature_gib * 2**30),
                n_threads=self.config.n_threads,
                poll=self.session.stops.poll,
            )
            mask = segment(
                answer.probability,
                aligned.segment_config,
                uncertainty=answer.uncertainty,
                n_threads=self.config.n_threads,
            ).mask
            rows.append({**scores(mask, label), "score": score(mask, label, n_threads=self.config.n_threads).score})
        after = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        before = {name: calibrated.validation[name] for name in after}
        entry: Mapping[str, Any] = {"volumes": list(calibrated.validation["volumes"]), "before": before, "after": after}
        self.session.log.emit("GUIDED_TRUE_LABELS_MEASURED", **entry)
        return dict(entry)

    def _image_path(self, volume_id: str) -> Path:
        (found,) = (test.image for test in self.inventory.tests if test.volume_id == volume_id)
        return found


def _weight(model: SurfaceModel) -> float:
    """Of the student in the probability."""
    return 0.0 if model.student is None else model.student.weight
