"""The student's part of the guided phase: a few steps towards a reference, and the student from before (R24)."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vesu
from student_case import small_set, student_config, without_report, write_teachers
from training_volumes import Events, Stop, config, sheet, stopping_after
from vesu.config import GuidedConfig
from vesu.distill.aligning import align_student
from vesu.distill.patches import moments
from vesu.distill.student import build_student
from vesu.distill.trained import TrainedStudent
from vesu.distill.trainer import TrainingDiverged
from vesu.ledger import iter_events
from vesu.run import guiding
from vesu.run.pipeline import RunResult

SETTINGS = GuidedConfig(stage="encoder", steps=12, learning_rate=1e-2)


def student() -> TrainedStudent:
    settings = config()
    return TrainedStudent(build_student(settings, seed=1), settings, seed=1)


def aligned(own: TrainedStudent, settings: GuidedConfig = SETTINGS, **options: Any) -> TrainedStudent:
    volume = sheet("theirs")
    assert volume.label is not None
    options = {"seed": 3, "emit": Events(), "n_threads": 1, **options}
    return align_student(own, volume.image, volume.label, settings, moments=moments(volume.image), **options)


def log_loss(own: TrainedStudent) -> float:
    """On the known voxels of the reference."""
    volume = sheet("theirs")
    assert volume.label is not None
    probability, known = own.predict(volume.image).probability, volume.label != 2
    right = np.where(volume.label == 1, probability, 1 - probability)[known]
    return float(-np.log(right).mean())


def test_the_student_comes_nearer_and_the_one_before_stays() -> None:  # R24
    own, events = student(), Events()
    digest, state = own.weights_digest, torch.get_rng_state()
    after = aligned(own, emit=events)
    assert own.weights_digest == digest != after.weights_digest
    assert log_loss(after) < log_loss(own)
    assert (after.config, after.seed) == (own.config, own.seed)
    steps = events.named("GUIDED_STUDENT_STEP")
    assert [step["step"] for step in steps] == list(range(1, 13))  # R51: every one
    assert all(np.isfinite([step["gradient_norm"], *step["terms"].values()]).all() for step in steps)
    assert len(events.named("GUIDED_BATCH_BEGIN")) == len(events.named("GUIDED_BATCH_END")) == 12
    assert not [name for name in events.names if name.startswith("DISTILLATION")]  # nothing was distilled
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_input_gives_the_same_bits() -> None:  # R24
    digests = {aligned(student()).weights_digest for _ in range(2)}
    assert len(digests) == 1
    assert aligned(student(), seed=4).weights_digest not in digests


def test_a_stage_moves_its_part_alone() -> None:  # R20
    own = student()
    after = aligned(own, GuidedConfig(stage="head", steps=2))
    changed = {
        name.split(".")[0]
        for name, value in after.model.state_dict().items()
        if not torch.equal(value, own.model.state_dict()[name])
    }
    assert changed == {"head"}


def test_it_can_be_stopped_and_diverges_aloud() -> None:
    with pytest.raises(Stop):
        aligned(student(), poll=stopping_after(3))
    with pytest.raises(TrainingDiverged, match=r"guided alignment: step \d+: .*guided\.learning_rate"):
        aligned(student(), GuidedConfig(stage="encoder", steps=12, learning_rate=1e30))


# ---- in a run


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, vesu.RunConfig, Path]:
    """Data, teachers in a finished run's settings, that run's folder."""
    folder = tmp_path_factory.mktemp("case")
    data, teachers = small_set(folder), write_teachers(folder / "teachers")
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        settings = student_config(teachers, "student.fusion=0.5", "features.scales=[1.0]")
        vesu.run(data, folder / "run", config=settings, display="none", cache=folder / "cache")
    model = vesu.SurfaceModel.load(folder / "run", device="cpu")
    test = vesu.discover(data).tests[0]
    probability = model.predict(vesu.read_volume(test.image)).probability
    density = vesu.read_volume(folder / "run" / "masks" / f"{test.volume_id}.tif").mean()
    share = 0.03 if density > 0.12 else 0.3  # the model's own surfaces, but far from as thick as its masks have them
    reference = folder / f"{test.volume_id}.tif"
    vesu.write_volume(reference, (probability > np.quantile(probability, 1 - share)).astype(np.uint8))
    more = ("student.fusion=0.5", "features.scales=[1.0]", "guided.steps=3", f"guided.reference='{reference}'")
    return data, folder / "run", student_config(teachers, *more), folder / "cache"


def gone_on(case: tuple[Path, Path, vesu.RunConfig, Path], folder: Path, changed: bool = True) -> RunResult:
    data, run, settings, cache = case
    if not folder.exists():
        shutil.copytree(run, folder)
    how: dict[str, Any] = {"resume": "latest", "retrain_changed": changed, "display": "none", "cache": cache}
    return vesu.run(data, folder, config=settings, **how)


def test_a_run_aligns_its_student_and_keeps_the_one_before(
    case: tuple[Path, Path, vesu.RunConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R24 R37
    without_report(monkeypatch)
    result = gone_on(case, tmp_path / "run")
    report = result.summary["guided"]
    assert (report["state"], report["target"], report["split"]["margin"]) == ("pass", "student", 16), report["reason"]
    digests = {
        name: TrainedStudent.load(folder / "student").weights_digest
        for name, folder in (
            ("first", case[1]),
            ("before", tmp_path / "run/guided/before"),
            ("after", tmp_path / "run"),
        )
    }
    assert digests["first"] == digests["before"] == report["student"]["weights_before"]
    assert digests["after"] == report["student"]["weights_after"] != digests["before"]
    assert report["student_alone"].keys() == report["before"].keys()
    names = [event["event"] for event in iter_events(tmp_path / "run" / "events.jsonl")]
    assert names.count("GUIDED_STUDENT_STEP") == 3
    assert result.summary["go_no_go"]["verdict"] == "GO"  # the distillation is as proved as it was
    model = vesu.SurfaceModel.load(tmp_path / "run", device="cpu")
    for test in vesu.discover(case[0]).tests[:1]:
        mask = vesu.read_volume(tmp_path / "run" / "masks" / f"{test.volume_id}.tif")
        np.testing.assert_array_equal(mask, model.segment(vesu.read_volume(test.image)).mask)

    # A session that goes on has the aligned student, whatever the distillation put back.
    zip_bytes = (tmp_path / "run" / "submission.zip").read_bytes()
    again = gone_on(case, tmp_path / "run", changed=False)
    assert TrainedStudent.load(again.folder / "student").weights_digest == digests["after"]
    assert (again.folder / "submission.zip").read_bytes() == zip_bytes


def test_a_diverging_student_leaves_the_run_as_it_was(
    case: tuple[Path, Path, vesu.RunConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R24
    without_report(monkeypatch)

    def diverging(*_: Any, **__: Any) -> Any:
        raise TrainingDiverged("guided alignment: step 1")

    monkeypatch.setattr("vesu.distill.aligning.align_student", diverging)
    result = gone_on(case, tmp_path / "run")
    report = json.loads((result.folder / guiding.DELTA_FILE).read_text())
    assert (report["state"], report["model_in_use"]) == ("fail", "before")
    assert report["reason"].startswith("TrainingDiverged")
    assert result.finished
    assert (result.folder / "submission.zip").read_bytes() == (case[1] / "submission.zip").read_bytes()
    kept, first = (TrainedStudent.load(folder / "student") for folder in (result.folder, case[1]))
    assert kept.weights_digest == first.weights_digest
