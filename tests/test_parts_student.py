"""Parts of a run with a student: teachers answer where the volumes are, the masks are those of one process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vesu
from parts_case import made
from student_case import small_set, student_config, without_report, write_teachers
from vesu.errors import DistillationNotExecuted, EvidenceError
from vesu.ledger import iter_events
from vesu.run.parts import make_part, merge


@pytest.fixture(scope="module", autouse=True)
def no_report() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("data"))


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


def test_a_student_out_of_parts_is_that_of_one_process(data: Path, tmp_path: Path) -> None:  # R18 R22 R25 R53
    teachers = write_teachers(tmp_path / "teachers")
    config = student_config(teachers, "student.fusion=0.5", "sampling.voxels_per_volume=200")
    whole = vesu.run(data, tmp_path / "whole", config=config, display="none")

    asked = made(data, tmp_path / "features", config, "features")
    assert set(asked[0].plan.teachers) == {"teacher-0", "teacher-1"}
    for part in asked:
        answered = {event["volume_id"] for event in events(part.folder, "DISTILLATION_BATCH_END")}
        assert answered == {record.volume_id for record in part.records}
        held = {path.name for path in (part.folder / "arrays").iterdir()}  # rows and folded labels, no single answers
        assert held == {key for record in part.records for key in record.facts["arrays"].values()}
        assert all("soft labels" in record.facts["arrays"] for record in part.records)
    gathered = merge([part.folder for part in asked], tmp_path / "gathered")
    assert gathered.n_arrays == 6

    cache = gathered.folder / "cache"
    searched = vesu.run(data, tmp_path / "run", config=config, display="none", cache=cache, phase="search")
    assert events(searched.folder, "DISTILLATION_PROVED")
    passes = [event for event in events(searched.folder, "DISTILLATION_BATCH_END") if "teacher" in event]
    assert not passes  # every answer came out of the parts
    assert all(event["from_cache"] for event in events(searched.folder, "TEACHER_BATCH_TRANSFER"))
    assert searched.summary["go_no_go"]["failed"] == ["submission", "score"]  # its zip holds masks in reserve

    masks = made(data, tmp_path / "segment", config, "segment", model=searched.folder)
    assert "student/student.safetensors" in masks[0].plan.model
    merged = merge([part.folder for part in masks], tmp_path / "merged")
    assert merged.submission is not None and merged.submission.sha256 == whole.submission.sha256
    for name in ("model.npz", "model.json", "student/student.safetensors", "student/student.json"):
        assert (merged.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name

    weights = tmp_path / "segment" / "1" / "model" / "student" / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(EvidenceError, match=r"student\.safetensors: its content"):
        merge([part.folder for part in masks], tmp_path / "merged")


def test_teachers_that_are_due_and_not_there_stop_a_part(data: Path, tmp_path: Path) -> None:  # R22
    (tmp_path / "teachers").mkdir()
    config = student_config(tmp_path / "teachers")
    with pytest.raises(DistillationNotExecuted, match="no usable teacher"):
        make_part(data, tmp_path / "part", phase="features", config=config)
