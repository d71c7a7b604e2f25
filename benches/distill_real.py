"""Nine teachers, one student, on real geometry: the table of docs/measured.md, section 'Teachers and student'.

    VESU_DATA=... python benches/distill_real.py --out build/distill

Each real label is held out in turn. Teachers of four architectures, student and prox-fit model learn from dressings of
one label and are measured on the other by the competition's score; thresholds, the fusion's weight and the early stop
see volumes of the training label only. What is done is kept below --out: the same command goes on where it was cut.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import vesu
from distill_parts import Checkpoint, Row, choose_threshold, labelled, markdown, means_of, rows_of, sigmoid
from dressed_labels import Cases, cases, write_layout
from real_input import research_data
from vesu.config import StudentConfig, TeacherConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.storage import write_json_atomic
from vesu.distill.ablation import AblationTable, leave_one_teacher_out
from vesu.distill.ensemble import teacher_ensemble_infer
from vesu.distill.fusion import choose_weight, fuse, surface_f_beta
from vesu.distill.proof import require_distilled
from vesu.distill.teacher import TeacherSpec
from vesu.distill.trained import TrainedStudent
from vesu.distill.training import train_student_distilled
from vesu.distill.values import SoftLabels, TrainingVolume
from vesu.ledger import iter_events, verify
from vesu.run.events import EventLog

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from teacher_factory import make_teachers, recipes

PROX, ENSEMBLE, FUSION = "prox-fit", "ensemble of the teachers", "fusion"


@dataclass(frozen=True)
class Options:
    """The experiment's size; every figure of the table depends on it."""

    side: int = 128
    """Voxels of a cube."""
    n_held_out: int = 2
    """Cubes of the held-out label."""
    teacher_steps: float = 4.0
    """Times the steps of `teacher_factory.recipes`: 60 to 120 each."""
    teacher_width: int = 6
    teacher_patch: int = 32
    """Voxels of a teacher's training patch."""
    window: int = 64
    """Voxels of the window in which teachers and student see a volume."""
    channels: tuple[int, ...] = (6, 12, 24, 48)
    patch: int = 32
    """Voxels of the student's training patch."""
    steps: int = 1500
    """The student's, in the stage that learns from the teachers."""
    tuning_steps: int = 100
    """The student's, in each later stage."""
    learning_rate: float = 1e-2
    soft_weight: float = 1.0
    """Of the teachers' part in the student's loss."""
    ablation_steps: int = 40
    ablation_channels: tuple[int, ...] = (4, 8, 16)
    seeds: tuple[int, ...] = (0, 1)
    """Of the students."""
    control_seeds: tuple[int, ...] = (0,)
    """Of the students that learn from true labels alone, for comparison."""
    threads: int = 2
    device: str = "cpu"

    @property
    def teacher_config(self) -> TeacherConfig:
        """One flip, little overlap: nine teachers see every volume."""
        return TeacherConfig(overlap=0.25, flips=False)

    @property
    def student_config(self) -> StudentConfig:
        """P3: distilled, then tuned as a whole."""
        return StudentConfig(
            channels=self.channels,
            patch=(self.patch,) * 3,
            steps=self.steps,
            tuning_steps=self.tuning_steps,
            learning_rate=self.learning_rate,
            validate_every=max(1, self.steps // 5),
            patience=5,
            soft_weight=self.soft_weight,
            overlap=0.25,
            flips=False,
        )

    @property
    def ablation_config(self) -> StudentConfig:
        """P1, small and short: twenty of them are trained in each direction."""
        steps = {"steps": self.ablation_steps, "validate_every": self.ablation_steps, "tuning_steps": 10}
        return replace(self.student_config, channels=self.ablation_channels, preset="P1", **steps)


@dataclass
class Direction:
    """Trained on one label, measured on the other."""

    name: str
    """The held-out label."""
    data: Cases
    folder: Path
    options: Options
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each part that this call did itself."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cache = ArrayCache(self.folder / "soft-labels", max_bytes=20 << 30)

    @contextmanager
    def timed(self, what: str) -> Iterable[None]:
        start = time.monotonic()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - start
        print(f"[{self.name} held out] {what}: {time.monotonic() - start:.0f} s", flush=True)

    # ---- models

    @cached_property
    def teachers(self) -> tuple[TeacherSpec, ...]:
        options = self.options
        nine = recipes(steps=options.teacher_steps, width=options.teacher_width, side=options.teacher_patch)
        with self.timed("nine teachers"):
            window = (options.window,) * 3
            return make_teachers(self.folder / "teachers", self.data.teaching, recipes=nine, patch=window)

    def ask(
        self, teachers: Sequence[TeacherSpec], volumes: Sequence[TrainingVolume], log: EventLog | None = None
    ) -> dict[str, SoftLabels]:
        """What the teachers say of the volumes; from the cache where they were asked before."""
        return teacher_ensemble_infer(
            teachers,
            {volume.volume_id: volume.image for volume in volumes},
            cache=self.cache,
            config=self.options.teacher_config,
            device=self.options.device,
            emit=None if log is None else lambda name, fields: log.emit(name, **fields),
            reload_cached=log is not None,
        )

    def taught(self, teachers: Sequence[TeacherSpec], config: StudentConfig, seed: int, name: str) -> TrainedStudent:
        """A student of these teachers (of none: of the true labels alone), with its log beside it."""
        folder = self.folder / name
        if (folder / "student").exists():
            return TrainedStudent.load(folder / "student")
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(folder / "checkpoint")
        with EventLog(folder / "events.jsonl", run_id=name) as log, self.timed(name):
            volumes = self.data.training if teachers else self.data.labelled
            soft = self.ask(teachers, volumes, log) if teachers else {}
            student = train_student_distilled(
                [replace(volume, soft=soft.get(volume.volume_id)) for volume in volumes],
                self.data.validation[:1],
                config,
                seed=seed,
                device=self.options.device,
                emit=lambda event, fields: log.emit(event, **fields),
                save=checkpoint.save,
                resume=checkpoint.parts(),
                n_threads=self.options.threads,
            )
        student.save(folder / "student")
        return student

    def student(self, seed: int) -> TrainedStudent:
        """The student of all teachers."""
        return self.taught(self.teachers, self.options.student_config, seed, f"student-{seed}")

    def proved(self, name: str) -> dict[str, Any]:
        """That the log verifies, and that it proves the distillation."""
        log = self.folder / name / "events.jsonl"
        report = verify(log)
        names = [teacher.name for teacher in self.teachers]
        proof = require_distilled(iter_events(log), teachers=names, due=True)
        return {"log": name, "events": report.entries, "root": report.root, "verdict": proof.verdict}

    @cached_property
    def prox(self) -> vesu.SurfaceModel:
        """The prox-fit search on the labelled volumes, as `vesu run` does it."""
        run = self.folder / "prox" / "run"
        if not (run / "summary.json").exists():
            layout = write_layout(self.folder / "prox" / "data", self.data.labelled, self.data.held_out[:1])
            with self.timed(PROX):
                config = vesu.load_config(overrides=["student.use=off"], environment={})
                vesu.run(layout, run, config=config, display="none", restart=True)
        return vesu.SurfaceModel.load(run)

    # ---- answers and scores

    def answers(self) -> dict[str, dict[str, Any]]:
        """Every model's probability of every validation and held-out volume, by model and volume id."""
        volumes = (*self.data.validation, *self.data.held_out)
        found: dict[str, dict[str, Any]] = {}
        for teachers in (*((teacher,) for teacher in self.teachers), self.teachers):
            who = f"teacher {teachers[0].name}" if len(teachers) == 1 else ENSEMBLE
            found[who] = {name: sigmoid(soft.mean_logit) for name, soft in self.ask(teachers, volumes).items()}
        found[PROX] = {volume.volume_id: self.prox.predict(volume.image).probability for volume in volumes}
        for seed in self.options.seeds:
            found[f"student, seed {seed}"] = self.predicted(self.student(seed), volumes)
            if seed in self.options.control_seeds:
                alone = self.taught((), self.options.student_config, seed, f"no-teachers-{seed}")
                found[f"no teachers, seed {seed}"] = self.predicted(alone, volumes)
            student_answers = found[f"student, seed {seed}"]
            weight = self.fusion_weight(student_answers, found[PROX])
            found[f"{FUSION}, seed {seed}, weight {weight:.1f}"] = {
                name: fuse(student_answers[name], found[PROX][name], weight) for name in student_answers
            }
        return found

    def predicted(self, student: TrainedStudent, volumes: Sequence[TrainingVolume]) -> dict[str, Any]:
        """A student's probability of each volume."""
        asked = replace(student, config=replace(student.config, patch=(self.options.window,) * 3))
        device = self.options.device
        return {volume.volume_id: asked.predict(volume.image, device=device).probability for volume in volumes}

    def fusion_weight(self, student: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """Chosen on the validation volumes."""
        names = [volume.volume_id for volume in self.data.validation]
        labels = [labelled(volume) for volume in self.data.validation]
        return choose_weight([(student[name], other[name]) for name in names], labels).weight

    def rows(self) -> list[Row]:
        """The held-out scores of every model, each with its own threshold from the validation volumes."""
        rows = []
        answers = self.answers()
        with self.timed("thresholds and scores"):
            for who, probabilities in answers.items():
                threshold = choose_threshold(probabilities, self.data.validation)
                rows += rows_of(self.name, who, probabilities, threshold, self.data.held_out)
        return rows

    def ablation(self) -> AblationTable:
        """Students without each teacher, over the seeds; judged on the validation volumes."""
        by_name = {teacher.name: teacher for teacher in self.teachers}

        def score(names: tuple[str, ...], seed: int) -> dict[str, float]:
            left_out = "-".join(sorted(by_name.keys() - set(names))) or "none"
            teachers = [by_name[name] for name in names]
            student = self.taught(teachers, self.options.ablation_config, seed, f"ablation/{seed}-without-{left_out}")
            probabilities = self.predicted(student, self.data.validation)
            labels = {volume.volume_id: labelled(volume) for volume in self.data.validation}
            return {name: surface_f_beta(probabilities[name], label) for name, label in labels.items()}

        context = content_id(json.dumps(asdict(self.options), sort_keys=True).encode())
        path = self.folder / "ablation.json"
        with self.timed("ablation"):
            return leave_one_teacher_out(list(by_name), self.options.seeds, score, path=path, context=context)


def settle(out: Path, options: Options) -> None:
    """Refuse to mix two experiments in one folder."""
    path, wanted = out / "options.json", json.loads(json.dumps(asdict(options)))
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        different = ", ".join(name for name in wanted if found.get(name) != wanted[name])
        sys.exit(f"{out} holds an experiment of other options ({different}): give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, wanted)


def directions(labels: Sequence[Path], out: Path, options: Options) -> Iterable[Direction]:
    """One label held out, then the other."""
    first, second = labels
    for train, held_out in ((first, second), (second, first)):
        data = cases(train, held_out, out / "data", side=options.side, n_held_out=options.n_held_out)
        yield Direction(held_out.stem, data, out / f"held-out-{held_out.stem}", options)


def run_experiment(labels: Sequence[Path], out: Path, options: Options, *, ablation: bool = True) -> dict[str, Any]:
    """Both directions; the result is written to ``out/result.json`` and ``out/table.md`` as it grows."""
    rows: list[Row] = []
    result: dict[str, Any] = {"options": asdict(options), "directions": {}}
    for direction in directions(labels, out, options):
        rows += direction.rows()
        found: dict[str, Any] = {"proofs": [direction.proved(f"student-{seed}") for seed in options.seeds]}
        if ablation:
            found["ablation"] = direction.ablation().to_json()
        result["directions"][direction.name] = found | {"seconds": direction.seconds}
        result |= {"rows": [asdict(row) for row in rows], "means": means_of(rows)}
        write_json_atomic(out / "result.json", result)
        (out / "table.md").write_text(markdown(result["means"]) + "\n", encoding="utf-8")
        print(markdown(result["means"]), flush=True)
    return result


def read_options() -> tuple[Options, argparse.Namespace]:
    """The command line; every field of Options is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/distill"))
    parser.add_argument("--only", metavar="LABEL", help="train this direction's students and end: one process each")
    parser.add_argument("--no-ablation", action="store_true", help="leave out the leave-one-teacher-out table")
    defaults = asdict(Options())
    for name, value in defaults.items():
        many = isinstance(value, tuple)
        kind = type(value[0] if many else value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, nargs="+" if many else None, default=value)
    given = parser.parse_args()
    values = {name: getattr(given, name) for name in defaults}
    return Options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}), given


def main() -> None:
    options, given = read_options()
    data = research_data()
    if not (data / "labels").is_dir():
        sys.exit(f"no research volumes in {data}: set VESU_DATA to their folder")
    labels = sorted((data / "labels").glob("*.tif"))
    settle(given.out, options)
    torch.set_num_threads(options.threads)
    if given.only is None:
        run_experiment(labels, given.out, options, ablation=not given.no_ablation)
    for direction in directions(labels, given.out, options):
        if direction.name == given.only:
            direction.answers()


if __name__ == "__main__":
    main()
