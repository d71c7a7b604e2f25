"""A run with a student in several sessions: the same bits, and one proof over all of them (R22, R33, R36, R37)."""

import dataclasses
import errno
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

import vesu
from cuts import result_of, snapshots
from student_case import small_set, student_config, without_report, write_teachers
from vesu.errors import FileError, ResumeIncompatible
from vesu.ledger import iter_events, verify
from vesu.run import session as session_module
from vesu.run.checkpoint import CheckpointStore
from vesu.run.interrupts import StopRequested
from vesu.run.pipeline import RunResult

Whole = tuple[RunResult, Path, list[Path]]


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


def outcome(folder: Path) -> dict[str, str]:
    """SHA-512 of everything that the run is for, the student among it."""
    paths = sorted((folder / "student").iterdir())
    assert len(paths) == 2
    return result_of(folder) | {path.name: hashlib.sha512(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teachers(tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def config(teachers: Path) -> vesu.RunConfig:
    return student_config(teachers, "student.fusion=0.5")


@pytest.fixture(scope="module")
def whole(dataset: Path, config: vesu.RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted run, its cache, and copies of its folder at every checkpoint."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_report(monkeypatch)
        folder, cache, cuts = (tmp_path_factory.mktemp(name) for name in ("whole", "cache", "cuts"))
        with snapshots(monkeypatch, cuts) as taken:
            result = vesu.run(dataset, folder / "run", config=config, display="none", cache=cache)
        return result, cache, taken


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


def training_cuts(taken: list[Path]) -> list[Path]:
    """The checkpoints of the phase distillation: those of the training, then the trained student's."""
    found = [path for path in taken if "-distillation-" in path.name]
    assert len(found) >= 6
    return found


def test_a_training_cut_anywhere_ends_with_the_same_bits(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path
) -> None:  # R22 R37
    result, cache, taken = whole
    cuts = training_cuts(taken)
    for original in (cuts[0], cuts[len(cuts) // 2], cuts[-1]):
        folder = shutil.copytree(original, tmp_path / original.name)
        found = vesu.run(dataset, folder, config=config, display="none", cache=cache, resume="latest")
        assert outcome(folder) == outcome(result.folder), original.name
        assert found.summary["go_no_go"]["verdict"] == "GO"
        assert found.summary["student"]["kpis"] == result.summary["student"]["kpis"]
        steps = [(event["stage"], event["step"]) for event in events(folder, "DISTILLATION_LOSS_STEP")]
        assert len(steps) == len(set(steps)) == 10  # none was lost, none done twice
        assert len(events(folder, "RESUME_EXACT_OK")) == 1
        shown = [event["global_progress_reel"] for event in events(folder, "PROGRESS_UPDATE")]
        assert shown[-1] == pytest.approx(100) and not events(folder, "PROGRESS_INTEGRITY_ALERT")
        assert verify(folder / "events.jsonl").entries == found.summary["ledger"]["entries"]


def test_a_training_goes_on_in_a_folder_without_its_log(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path
) -> None:  # R22 R37
    result, cache, taken = whole
    cut = training_cuts(taken)[2]
    found = vesu.run(dataset, tmp_path / "new", config=config, display="none", cache=cache, resume=cut)
    assert events(tmp_path / "new", "LEDGER_CONTINUED_ELSEWHERE")
    assert not events(tmp_path / "new", "DISTILLATION_START")  # it stands in the other log
    assert outcome(tmp_path / "new") == outcome(result.folder)
    assert found.summary["student"]["proof"]["verdict"] == "GO"
    # Evidence that was not carried along would be missed.
    assert found.summary["student"]["proof"]["counts"]["DISTILLATION_LOSS_STEP"] == 10
    assert len(events(tmp_path / "new", "DISTILLATION_LOSS_STEP")) < 10


def test_the_deadline_in_the_training_keeps_every_step(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R33 R36
    result, cache, _ = whole
    log, folder = [], tmp_path / "run"
    emit = session_module.EventLog.emit

    def out_of_time(self: Any, name: str, /, **fields: Any) -> int:
        number = emit(self, name, **fields)
        if name == "DISTILLATION_BATCH_BEGIN" and fields.get("stage") == "head" and fields["step"] == 2 and not log:
            log.append(number)
            raise StopRequested("DEADLINE")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(session_module.EventLog, "emit", out_of_time)
        stopped = vesu.run(dataset, folder, config=config, display="none", cache=cache)
    assert log and not stopped.finished
    vesu.check_submission(folder / "submission.zip", dataset / "test_images")
    assert stopped.summary["go_no_go"]["verdict"] == "NO_GO_SUBMISSION"
    assert "not proved by the log" in stopped.summary["go_no_go"]["gates"]["distillation"]["reason"]
    (last,) = events(folder, "SAFE_SUBMISSION_WRITTEN")[-1:]
    assert last["origins"] == {"provisional": 2}  # the search alone
    newest = CheckpointStore(folder / "checkpoints").latest()
    assert newest is not None and newest.manifest.kind == "pretimeout"
    cursor = newest.manifest.distillation_state["cursor"]
    assert (cursor["stage"], cursor["index"]) == ("head", 1)  # what was broken off between two steps was saved
    assert not newest.manifest.distillation_state["done"]
    vesu.run(dataset, folder, config=config, display="none", cache=cache, resume="latest")
    assert outcome(folder) == outcome(result.folder)


def test_a_signal_in_the_midst_of_the_teachers_goes_on(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R18 R33
    result, _, _ = whole
    emit, folder, cache = session_module.EventLog.emit, tmp_path / "run", tmp_path / "cache"
    transfers = []

    def signalled(self: Any, name: str, /, **fields: Any) -> int:
        number = emit(self, name, **fields)
        transfers.extend([number] if name == "TEACHER_BATCH_TRANSFER" else [])
        if len(transfers) == 4:
            transfers.append(number)
            raise StopRequested("SIGTERM")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(session_module.EventLog, "emit", signalled)
        with pytest.raises(SystemExit):
            vesu.run(dataset, folder, config=config, display="none", cache=cache)
    vesu.run(dataset, folder, config=config, display="none", cache=cache, resume="latest")
    assert outcome(folder) == outcome(result.folder)
    again = events(folder, "TEACHER_BATCH_TRANSFER")[4:]
    assert [event["from_cache"] for event in again] == [True] * 4 + [False] * 2  # what was done was not done again


def test_what_changes_the_student_is_refused_by_name(
    whole: Whole, dataset: Path, teachers: Path, config: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    cut = training_cuts(taken)[2]
    for number, (field, more) in enumerate(
        {
            "student.steps": ["student.steps=6"],
            "student.fusion": ["student.fusion=0.25"],
            "student.batch": ["student.use=off"],
        }.items()
    ):
        folder = shutil.copytree(cut, tmp_path / f"run{number}")
        other = student_config(teachers, "student.fusion=0.5", *more)
        with pytest.raises(ResumeIncompatible, match=rf"field {field}: checkpoint has"):
            vesu.run(dataset, folder, config=other, display="none", cache=cache, resume="latest")
    folder = shutil.copytree(cut, tmp_path / "run")
    fewer = shutil.copytree(teachers, tmp_path / "teachers")
    shutil.rmtree(fewer / "teacher-1")
    with pytest.raises(ResumeIncompatible, match=r"teachers\.digests\.teacher-1"):
        vesu.run(
            dataset,
            folder,
            config=student_config(fewer, "student.fusion=0.5"),
            display="none",
            cache=cache,
            resume="latest",
        )


def test_a_changed_student_leaves_the_search_alone(
    whole: Whole, dataset: Path, teachers: Path, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    folder = shutil.copytree(taken[-1], tmp_path / "run")
    other = student_config(teachers, "student.fusion=0.5", "student.steps=3")
    before = len(events(folder, "TRAIN_ITERATION"))
    vesu.run(dataset, folder, config=other, display="none", cache=cache, resume="latest", retrain_changed=True)
    (said,) = events(folder, "RESUME_PARTIAL_RETRAIN")
    assert (said["scope"], said["fields"]) == ("distillation", ["student.steps"])
    assert len(events(folder, "TRAIN_ITERATION")) == before  # the search was done, and stands
    fresh = vesu.run(dataset, tmp_path / "fresh", config=other, display="none", cache=cache)
    assert outcome(folder) == outcome(fresh.folder)


def test_a_machine_that_computes_otherwise_is_said(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    folder = shutil.copytree(training_cuts(taken)[2], tmp_path / "run")
    other = dataclasses.replace(config, n_threads=2)
    found = vesu.run(dataset, folder, config=other, display="none", cache=cache, resume="latest")
    assert found.finished and found.summary["go_no_go"]["verdict"] == "GO"
    reasons = [event["reason"] for event in events(folder, "RESUME_OK")]
    assert reasons == ["the training's environment: threads is not what it was at the checkpoint"]


def test_a_checkpoint_that_the_disk_refused_is_not_told_as_written(
    whole: Whole, dataset: Path, config: vesu.RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R22 R36
    result, cache, _ = whole
    save, refused = CheckpointStore.save, []

    def refusing(self: CheckpointStore, kind: str, fields: Any, parts: Any) -> Any:
        if fields["phase"] == "distillation" and not refused:
            refused.append(kind)
            raise FileError(errno.ENOSPC, "No space left on device", str(self.folder))
        return save(self, kind, fields, parts)

    monkeypatch.setattr(CheckpointStore, "save", refusing)
    vesu.run(dataset, tmp_path / "run", config=config, display="none", cache=cache)
    told, before = (
        len(events(folder, "DISTILLATION_CHECKPOINT_WRITTEN")) for folder in (tmp_path / "run", result.folder)
    )
    assert (len(refused), told) == (1, before - 1)
    assert outcome(tmp_path / "run") == outcome(result.folder)
