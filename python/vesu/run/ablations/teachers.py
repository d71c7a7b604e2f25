"""What each teacher is worth: students taught on a data set without it (R10, R21)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig
from vesu.data.discover import Pair, discover
from vesu.data.storage import write_json_atomic
from vesu.errors import ArgumentError
from vesu.run import compatibility
from vesu.run.ablations.folder import TEACHERS_TABLE
from vesu.run.ablations.report import AblationReport
from vesu.run.ablations.study import Judged, Measure, OnScore, Probabilities, Study, opened
from vesu.run.teaching import DistillationPlan, plan_distillation, prepare_device

if TYPE_CHECKING:
    from vesu.distill.teacher import TeacherSpec
    from vesu.distill.training import TrainedStudent
    from vesu.distill.values import TrainingVolume

__all__ = ["ablate_teachers"]


def ablate_teachers(
    data: str | Path | None,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    config: RunConfig | None = None,
    measure: Measure = "score",
    judged: Judged = None,
    min_gain: float = 0.0,
    cache: str | Path | None = None,
    restart: bool = False,
    on_score: OnScore | None = None,
) -> AblationReport:
    """Teach a student by all teachers, and one without each, and judge on volumes that chose nothing.

    Parameters
    ----------
    data, out, seeds, config, judged, min_gain, cache, restart, on_score
        See :func:`vesu.run.ablations.ablate_features`. The teachers are those that a run would find; ``[student]`` says
        how each student is trained, and ``(n_teachers + 1) * n_seeds`` are: give them few steps.
    measure : {"score", "objective"}
        ``"score"``: the competition's score of the student's mask of each judged volume, with the ladder of
        ``[segment]`` and a threshold fitted on the validation volumes. ``"objective"``: F-beta (0.5) of the student's
        probability at the best threshold of each judged volume.

    Returns
    -------
    AblationReport
        ``v3_teacher_ablation.json`` in its folder is what the report of a run shows, where it is copied beside the
        run's files.

    Raises
    ------
    ArgumentError
        Fewer than two usable teachers; what cannot be worked on.
    DataError, PreflightError, DistillationNotExecuted, ResumeIncompatible
        See :func:`vesu.run.ablations.ablate_features`; no torch, or no such device.

    Notes
    -----
    Requirements R10, R21. Teachers answer once a volume; their answers stand in the cache and are folded anew for each
    set. Each student's events are in the study's log. A study that was cut teaches the student of the cut again.

    Examples
    --------
    >>> from vesu.run.ablations import ablate_teachers
    >>> report = ablate_teachers("scroll", "ablation", seeds=(0, 1, 2))  # doctest: +SKIP
    >>> report.table.weakest  # doctest: +SKIP
    """
    config = config or RunConfig()
    plan = plan_distillation(config, discover(data).root)
    if len(plan.teachers) < 2:
        why = plan.problem or plan.reason
        raise ArgumentError(f"teachers: got {len(plan.teachers)} ({why}); accepted: two usable ones or more")
    names = tuple(teacher.name for teacher in plan.teachers)
    with opened(
        "teacher",
        data,
        out,
        config,
        measure,
        judged,
        depends_on=compatibility.teacher_fields(plan.teachers, config.student.device),
        student=True,
        restart=restart,
        cache=cache,
        on_score=on_score,
    ) as study:
        school = _School(study, plan)

        def score_of(kept: tuple[str, ...], seed: int) -> dict[str, float]:
            student = school.taught(kept, seed)
            if measure == "objective":
                return school.objectives(student)
            answers: dict[str, Probabilities] = {}

            def answer(pair: Pair) -> Probabilities:
                if pair.volume_id not in answers:
                    answers[pair.volume_id] = school.answer(student, pair)
                return answers[pair.volume_id]

            return study.mask_scores(config.segment.ladder, study.chosen_on(seed), answer)

        report = study.run("teacher", names, seeds, score_of, min_gain=min_gain)
        write_json_atomic(study.folder / TEACHERS_TABLE, report.table.to_json())
        return report


class _School:
    """Students of some of the teachers."""

    def __init__(self, study: Study, plan: DistillationPlan) -> None:
        self._study = study
        self._teachers: dict[str, TeacherSpec] = {teacher.name: teacher for teacher in plan.teachers}
        self._device = prepare_device(plan, study.config, study.tell)
        study.log.emit("TEACHERS_FOUND", **plan.fields(study.config.teachers.nominal))

    def taught(self, names: Sequence[str], seed: int) -> "TrainedStudent":
        """A student of these teachers, trained as a run trains it."""
        from vesu.distill.ensemble import teacher_ensemble_infer
        from vesu.distill.training import train_student_distilled

        study = self._study
        split, chosen = study.split(seed), study.chosen_on(seed)
        left_out = [name for name in self._teachers if name not in names]
        study.log.emit("ABLATION_STUDENT_START", left_out=left_out, seed=seed, teachers=list(names))
        soft = teacher_ensemble_infer(
            [self._teachers[name] for name in names],
            {pair.volume_id: study.image(pair) for pair in split.train},
            cache=study.cache,
            config=study.config.teachers,
            device=self._device,
            emit=study.tell,
            poll=study.stops.poll,
        )
        student = train_student_distilled(
            [self._volume(pair, soft[pair.volume_id]) for pair in split.train],
            [self._volume(pair) for pair in chosen],
            study.config.student,
            seed=seed,
            device=str(self._device),
            emit=study.tell,
            poll=study.stops.poll,
            n_threads=study.config.n_threads,
            guard=study.stops.deferred,
        )
        study.log.emit("ABLATION_STUDENT_DONE", left_out=left_out, seed=seed, weights_digest=student.weights_digest)
        return student

    def answer(self, student: "TrainedStudent", pair: Pair) -> Probabilities:
        """What a student says of a volume."""
        settings = self._study.config.student
        found = student.predict(
            self._study.image(pair), device=str(self._device), batch=settings.batch, poll=self._study.stops.poll
        )
        return Probabilities(found.probability, found.uncertainty)

    def objectives(self, student: "TrainedStudent") -> dict[str, float]:
        """F-beta of each judged volume."""
        from vesu.distill.fusion import surface_f_beta

        return {
            pair.volume_id: surface_f_beta(self.answer(student, pair).probability, self._label(pair))
            for pair in self._study.judged
        }

    def _volume(self, pair: Pair, soft: Any = None) -> "TrainingVolume":
        from vesu.distill.values import TrainingVolume

        return TrainingVolume(pair.volume_id, self._study.image(pair), self._label(pair), soft)

    def _label(self, pair: Pair) -> NDArray[np.uint8]:
        return self._study.label(pair).astype(np.uint8, copy=False)
