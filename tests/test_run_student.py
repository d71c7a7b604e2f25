"""A run with a student: due or not, trained, proved, fused, or refused aloud (R18-R20, R22, R23, R25)."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from student_case import STUDENT, small_set, student_config, without_report, write_teachers
from vesu import baselines
from vesu.cli import main
from vesu.config import RunConfig
from vesu.distill import training
from vesu.distill.student import build_student
from vesu.distill.trained import TrainedStudent
from vesu.errors import DistillationNotExecuted, FormatError
from vesu.ledger import iter_events, verify
from vesu.run import compatibility
from vesu.run.baseline import volume_score
from vesu.run.model import VolumePrediction, fused
from vesu.run.pipeline import RunResult
from vesu.run.plan import phase_weights, soft_label_bytes
from vesu.run.teaching import plan_distillation


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teachers(tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def taught(dataset: Path, teachers: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run with a student that has half the weight, and its report."""
    config = student_config(teachers, "student.fusion=0.5")
    return vesu.run(dataset, tmp_path_factory.mktemp("taught") / "run", config=config, display="none", cache=cache)


@pytest.fixture(scope="module")
def alone(dataset: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run without teachers, where torch cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        patch.setitem(sys.modules, "torch", None)
        config = vesu.load_config(overrides=[*SMALL, "n_threads=1"], environment={})
        return vesu.run(dataset, tmp_path_factory.mktemp("alone") / "run", config=config, display="none", cache=cache)


# ---- a run with a student


def test_the_student_is_trained_after_the_search_and_before_the_masks(taught: RunResult) -> None:  # R20 R22
    phases = [event["phase"] for event in events(taught.folder, "PHASE_END")]
    assert phases[-4:] == ["fit", "distillation", "segment", "package"]
    assert not events(taught.folder, "PROGRESS_INTEGRITY_ALERT")
    steps = [(event["stage"], event["step"]) for event in events(taught.folder, "DISTILLATION_LOSS_STEP")]
    assert steps == [(stage, step) for stage in ("distil", "head") for step in range(1, 6)]
    (first,) = events(taught.folder, "DISTILLATION_TEACHER_LOAD_BEGIN")[:1]
    assert first["seq"] < events(taught.folder, "DISTILLATION_LOSS_STEP")[0]["seq"]


def test_the_log_proves_it_and_the_verdict_says_so(taught: RunResult) -> None:  # R22 R44
    (proved,) = events(taught.folder, "DISTILLATION_PROVED")
    assert proved["verdict"] == "GO" and proved["executed"] and len(proved["teachers"]) == 2
    verdict = taught.summary["go_no_go"]
    assert (verdict["verdict"], verdict["failed"]) == ("GO", [])
    assert verdict["gates"]["distillation"]["state"] == "pass"
    assert verdict["gates"]["distillation"]["reason"].startswith("proved by the log: 2 teachers, 5 steps of distil")
    assert verify(taught.folder / "events.jsonl").root == taught.summary["ledger"]["root"]


def test_coverage_and_alignment_are_written_down(taught: RunResult) -> None:  # R23
    report = json.loads((taught.folder / "v3_teacher_alignment_report.json").read_text())
    manifest = json.loads((taught.folder / "v3_transfer_memory_manifest.json").read_text())
    assert report["teacher_coverage_pct"] == pytest.approx(100 * 2 / 9)
    assert report["voxel_coverage_pct"] == 100
    assert {name: report[name] for name in taught.summary["student"]["kpis"]} == taught.summary["student"]["kpis"]
    assert len(manifest["transfers"]) == 2 * 3 and manifest["persisted"] and manifest["reloaded"]
    (done,) = events(taught.folder, "TEACHER_DISTILLATION_DONE")
    assert done["student_knowledge_retention_score"] == report["student_knowledge_retention_score"]


def test_the_saved_model_gives_the_masks_of_the_run(taught: RunResult, dataset: Path) -> None:  # R25
    model = vesu.SurfaceModel.load(taught.folder, device="cpu")
    assert model.student is not None and model.student.weight == 0.5
    for test in vesu.discover(dataset).tests[:1]:
        volume = vesu.read_volume(test.image)
        parts: list[float] = []
        found = model.predict(volume, on_part=parts.append)
        assert sum(parts) == pytest.approx(1.0)
        alone = model.predict_prox(volume).probability
        own = TrainedStudent.load(taught.folder / "student").predict(volume, batch=1).probability
        np.testing.assert_allclose(found.probability, 0.5 * own + 0.5 * alone, atol=1e-6)
        again = model.segment(volume)
        np.testing.assert_array_equal(again.mask, vesu.read_volume(taught.folder / "masks" / f"{test.volume_id}.tif"))


def test_a_model_with_a_student_moves_whole(taught: RunResult, tmp_path: Path) -> None:
    model = vesu.SurfaceModel.load(taught.folder, device="cpu")
    model.save(tmp_path)
    moved = vesu.SurfaceModel.load(tmp_path, device="cpu")
    assert moved.student is not None and model.student is not None
    assert moved.student.student.weights_digest == model.student.student.weights_digest
    moved.save(tmp_path)  # over itself
    meta = json.loads((tmp_path / "model.json").read_text())
    for wrong in ({}, {"weight": 2.0}, {"weight": None}):
        (tmp_path / "model.json").write_text(json.dumps(meta | {"student": wrong}))
        with pytest.raises(FormatError, match=r"model\.json"):
            vesu.SurfaceModel.load(tmp_path)


def test_the_fusion_is_measured_on_held_out_volumes(taught: RunResult) -> None:  # R25
    fusion = taught.summary["student"]["fusion"]
    assert fusion["volumes"] == taught.summary["validation"]["volumes"]
    assert fusion["weight"] == 0.5 and fusion["mean_scores"].keys() == {
        "prox",
        "student",
        "fused",
        "nx46",
        "nx46_fused",
    }
    assert fusion["nx46"]["weights"][0] == 0.0 and len(fusion["nx46"]["scores"]) == 11
    assert fusion["mean_scores"]["nx46_fused"] >= fusion["mean_scores"]["nx46"]


def test_the_report_shows_teachers_student_and_uncertainty(taught: RunResult) -> None:
    assert taught.report is not None
    page = taught.report.read_text(encoding="utf-8")
    for words in ("teacher-0", "teacher-1", "Teacher coverage", "uncertainty, 0 to", "GO"):
        assert words in page, words


def test_the_student_is_the_next_runs_own_forecast(taught: RunResult, dataset: Path, teachers: Path) -> None:  # R34
    config, inventory = student_config(teachers), vesu.discover(dataset)
    without = phase_weights(inventory, config, 26)
    with_student = phase_weights(inventory, config, 26, n_teachers=2)
    assert without["distillation"] == 0 < with_student["distillation"]
    assert with_student["segment"] > without["segment"]
    assert phase_weights(inventory, config, 26, n_teachers=4)["distillation"] > with_student["distillation"]
    assert soft_label_bytes(inventory, config, 9) == 3 * 32**3 * (2 + 18 + 6)
    assert not events(taught.folder, "SOFT_LABEL_ROOM_SHORT")


def test_a_student_without_weight_changes_no_mask(
    taught: RunResult,
    alone: RunResult,
    dataset: Path,
    teachers: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # R25
    without_report(monkeypatch)
    none = vesu.run(
        dataset, tmp_path / "none", config=student_config(teachers, "student.fusion=0"), display="none", cache=cache
    )
    assert none.submission.sha256 == alone.submission.sha256 != taught.submission.sha256
    # The answers of the teachers came from the cache, and each teacher was loaded and verified all the same.
    assert all(event["from_cache"] for event in events(none.folder, "TEACHER_BATCH_TRANSFER"))
    assert len(events(none.folder, "DISTILLATION_TEACHER_LOAD_END")) == 2


def test_a_historical_scorer_is_fused_with_a_student_that_was_asked_for(
    dataset: Path, teachers: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R25 R32
    without_report(monkeypatch)
    config = student_config(teachers, "pipeline=nx46", "student.use=on", "student.fusion=0.5")
    result = vesu.run(dataset, tmp_path / "run", config=config, display="none", cache=cache)
    phases = [event["phase"] for event in events(result.folder, "PHASE_END")]
    assert phases == ["discovery", "preflight", "load", "distillation", "segment", "package"]
    assert not events(result.folder, "PROGRESS_INTEGRITY_ALERT")
    assert result.summary["go_no_go"]["gates"]["distillation"]["state"] == "pass"
    assert result.summary["student"]["fusion"]["mean_scores"].keys() == {"nx46", "student", "fused"}
    student = TrainedStudent.load(result.folder / "student")
    for test in vesu.discover(dataset).tests[:1]:
        volume = vesu.read_volume(test.image)
        score = volume_score(volume, config)
        fused_score = 0.5 * student.predict(volume, batch=1).probability + 0.5 * score
        expected = vesu.segment(fused_score, baselines.ladder("nx46", config.nx46)).mask
        mask = vesu.read_volume(result.folder / "masks" / f"{test.volume_id}.tif")
        assert (mask != expected).mean() < 1e-3  # rounding at the threshold alone
        assert np.any(mask != vesu.segment(score, baselines.ladder("nx46", config.nx46)).mask)


# ---- due and not executed


def refused_run(dataset: Path, config: RunConfig, folder: Path, cache: Path) -> str:
    """The message of a run that must fail hard, after its zip was checked and its verdict read."""
    with pytest.raises(DistillationNotExecuted, match=r"^DISTILLATION_NOT_EXECUTED_HARD_FAIL: ") as caught:
        vesu.run(dataset, folder, config=config, display="none", cache=cache)
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, vesu.VesuError)
    vesu.check_submission(folder / "submission.zip", dataset / "test_images")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["go_no_go"]["verdict"]) == ("failed", "NO_GO_SUBMISSION")
    assert summary["go_no_go"]["failed"][0] == "distillation"
    assert summary["go_no_go"]["gates"]["distillation"]["reason"] == str(caught.value)
    (verdict,) = events(folder, "GO_NO_GO")
    assert verdict["verdict"] == "NO_GO_SUBMISSION"
    assert json.loads((folder / "failure.json").read_text())["error"] == "DistillationNotExecuted"
    assert verify(folder / "events.jsonl").entries > 0
    return str(caught.value)


def test_teachers_without_torch_fail_before_the_search(
    dataset: Path, teachers: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R22 R33
    monkeypatch.setitem(sys.modules, "torch", None)
    message = refused_run(dataset, student_config(teachers), tmp_path / "run", cache)
    assert "torch" in message and "pip install 'vesu[distill]'" in message
    assert not events(tmp_path / "run", "TRAIN_ITERATION")


def test_no_teachers_and_no_torch_is_a_run_without_a_student(alone: RunResult, dataset: Path) -> None:  # R22
    (skipped,) = events(alone.folder, "STUDENT_SKIPPED")
    assert "teachers" in skipped["reason"] and str(dataset) in skipped["reason"]
    assert alone.finished and "student" not in alone.summary
    verdict = alone.summary["go_no_go"]
    assert verdict["gates"]["distillation"]["state"] == "not_applicable"
    assert set(verdict["failed"]) <= {"score"}  # the taught run of the same cache may have been better


def test_a_student_that_was_asked_for_needs_a_teacher(dataset: Path, cache: Path, tmp_path: Path) -> None:  # R22
    config = vesu.load_config(overrides=[*SMALL, "student.use=on"], environment={})
    assert "no folder" in refused_run(dataset, config, tmp_path / "run", cache)
    (tmp_path / "empty").mkdir()
    config = student_config(tmp_path / "empty")
    assert "no usable teacher" in refused_run(dataset, config, tmp_path / "run", cache)


def test_teachers_that_are_all_refused_are_no_reason_to_go_on(
    dataset: Path, teachers: Path, cache: Path, tmp_path: Path
) -> None:  # R18 R22
    spoilt = shutil.copytree(teachers, tmp_path / "teachers")
    for name in ("teacher-0", "teacher-1"):
        (spoilt / name / "teacher.json").write_text("{}")
    assert "teacher-0" in refused_run(dataset, student_config(spoilt), tmp_path / "run", cache)


def test_a_teacher_with_other_weights_than_it_says_is_named(
    dataset: Path, teachers: Path, tmp_path: Path
) -> None:  # R18 R22
    spoilt = shutil.copytree(teachers, tmp_path / "teachers")
    weights = spoilt / "teacher-1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    message = refused_run(dataset, student_config(spoilt), tmp_path / "run", tmp_path / "cache")
    assert "teacher-1" in message and "digest" in message


def test_a_training_that_was_taken_away_is_noticed(
    dataset: Path, teachers: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R22 R54
    def declared(train: Any, validation: Any, config: Any, *, seed: int, emit: Any, **ignored: Any) -> TrainedStudent:
        """Says that it has distilled, and gives an untrained network."""
        student = TrainedStudent(build_student(config, seed=seed), config, seed)
        student = TrainedStudent(student.model, config, seed, distilled_weights=training_bytes(student))
        digest = {"weights_digest": student.weights_digest}
        for name in ("DISTILLATION_START", "DISTILLATION_END"):
            emit(name, digest | {"executed": True, "status": "TEACHER_TRANSFER_APPLIED"})
        return student

    monkeypatch.setattr(training, "train_student_distilled", declared)
    message = refused_run(dataset, student_config(teachers), tmp_path / "run", cache)
    assert "no DISTILLATION_STUDENT_UPDATE" in message
    assert events(tmp_path / "run", "DISTILLATION_END")  # the flag was there, and nobody believed it
    assert not list((tmp_path / "run" / "masks").iterdir())


def training_bytes(student: TrainedStudent) -> bytes:
    from vesu.distill.weights import pack_weights

    return pack_weights(student.model)


def test_the_command_has_an_exit_code_for_it(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R22
    options = ["--out", str(tmp_path / "run"), "--quiet", "--student", "--teachers", str(tmp_path / "no 'such' folder")]
    assert main(["run", str(dataset), *options]) == 4
    assert "DISTILLATION_NOT_EXECUTED_HARD_FAIL" in capsys.readouterr().err


# ---- decisions


def config_of(*overrides: str) -> RunConfig:
    return vesu.load_config(overrides=overrides, environment={})


def test_where_teachers_are_looked_for(teachers: Path, tmp_path: Path) -> None:  # R18
    data = tmp_path / "input" / "data"
    data.mkdir(parents=True)
    assert not plan_distillation(config_of(), data).due
    beside = shutil.copytree(teachers, data.parent / "teachers")
    assert plan_distillation(config_of(), data).folder == beside
    inside = shutil.copytree(teachers, data / "teachers")
    found = plan_distillation(config_of(), data)
    assert found.due and found.folder == inside
    assert [teacher.name for teacher in found.teachers] == ["teacher-0", "teacher-1"]
    assert not plan_distillation(config_of("student.use=off"), data).due
    assert not plan_distillation(config_of("pipeline=nx46"), data).due
    assert plan_distillation(config_of("pipeline=nx46", "student.use=on"), data).due
    named = plan_distillation(config_of(f"teachers.folder={tmp_path / 'none'}"), data)
    assert named.due and named.problem is not None and "none" in named.problem


def test_learned_settings_count_only_where_a_student_is_trained() -> None:  # R37
    config = config_of()
    without, fields = compatibility.config_fields(config), compatibility.config_fields(config, student=True)
    assert not [name for name in without if name.startswith(("student.", "teachers."))]
    assert {"student.steps", "student.preset", "teachers.overlap"} <= fields.keys()
    assert not {"student.use", "student.device", "teachers.folder", "teachers.nominal"} & fields.keys()


@pytest.mark.parametrize(
    ("fields", "scope", "stands"),
    [
        (["segment.dust", "student.fusion"], "segment", True),
        (["student.steps", "segment.dust"], "distillation", False),
        (["teachers.digests.a"], "distillation", False),
        (["search.l1"], "search", True),
        (["features.scales", "student.fusion"], "search", True),
        (["seed"], "search", False),
        (["data.train"], "search", False),
    ],
)
def test_what_a_change_makes_new(fields: list[str], scope: str, stands: bool) -> None:  # R37
    assert (compatibility.scope_of(fields), compatibility.student_stands(fields)) == (scope, stands)


def test_a_mixture_is_unsure_where_its_parts_disagree() -> None:  # R25 R29
    rng = np.random.default_rng(0)
    scale = np.float32([1, 0.25])[:, None, None, None]  # deviations small enough that no mixture needs the cap of 0.5
    student, prox = (VolumePrediction(*(scale * rng.random((2, 3, 4, 5), np.float32))) for _ in range(2))
    for weight in (0.0, 0.25, 1.0):
        mixed = fused(student, prox, weight)
        mean = weight * student.probability + (1 - weight) * prox.probability
        second = weight * (student.uncertainty**2 + student.probability**2)
        second = second + (1 - weight) * (prox.uncertainty**2 + prox.probability**2)
        np.testing.assert_allclose(mixed.probability, mean, atol=1e-6)
        deviation = np.minimum(np.sqrt(second - mean**2), 0.5)
        assert (deviation < 0.5).mean() > 0.9
        np.testing.assert_allclose(mixed.uncertainty, deviation, atol=1e-5)
    assert fused(student, prox, 0.0) is prox


def test_the_command_line_sets_student_and_teachers(tmp_path: Path) -> None:
    from vesu.cli import parser
    from vesu.cli.arguments import config_of

    arguments = parser().parse_args(["run", "data", "--student", "off", "--teachers", str(tmp_path / 'a "b" ü')])
    config = config_of(arguments)
    assert (config.student.use, config.teachers.folder) == ("off", str(tmp_path / 'a "b" ü'))
    assert config_of(parser().parse_args(["run", "data", "--student"])).student.use == "on"
    assert config_of(parser().parse_args(["run", "data"])).student.use == "auto"
    assert set(STUDENT)  # the mini run's settings are accepted
