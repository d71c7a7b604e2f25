"""What went from teachers to student (R23): KPIs against slow references, the two files, the events."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distill_log import TEACHERS, complete, timed
from vesu.distill.transfer import (
    ALIGNMENT_REPORT,
    MEMORY_MANIFEST,
    MOMENTS,
    TeacherDistillation,
    alignment,
    memory_manifest,
)
from vesu.distill.values import SoftLabels
from vesu.errors import ArgumentError, DataError, FileError

Probability = NDArray[np.float32]


def soft_labels(shape: tuple[int, ...] = (3, 4, 5), seed: int = 0, volume_id: str = "v") -> SoftLabels:
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 3, shape).astype(np.float16)
    variance, disagreement = rng.uniform(0, 0.25, shape), rng.uniform(0, 1, shape)
    return SoftLabels(volume_id, logit, variance.astype(np.float16), disagreement.astype(np.float16), ("a", "b"))


def teachers_probability(soft: SoftLabels) -> Probability:
    mean: Probability = (1 / (1 + np.exp(-soft.mean_logit.astype(np.float64)))).astype(np.float32)
    return mean


def entropy(p: float) -> float:
    return -sum(side * math.log2(side) for side in (p, 1 - p) if side > 0)


def slow_alignment(student: Probability, soft: SoftLabels) -> float:
    """Voxel by voxel, as the docstring has it."""
    sums = {"surface": [0.0, 0.0], "background": [0.0, 0.0]}
    for p, logit, disagreement in zip(student.flat, soft.mean_logit.flat, soft.disagreement.flat, strict=True):
        q = 1 / (1 + math.exp(-float(logit)))
        divergence = entropy((float(p) + q) / 2) - (entropy(float(p)) + entropy(q)) / 2
        for side, share in (("surface", q), ("background", 1 - q)):
            weight = (1 - float(disagreement)) * share
            sums[side][0] += weight * (1 - divergence)
            sums[side][1] += weight
    return sum(agreed / weight for agreed, weight in sums.values()) / 2


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_that_of_a_slow_reference(seed: int) -> None:  # R23
    soft = soft_labels(seed=seed)
    student = np.random.default_rng(seed).uniform(0, 1, soft.mean_logit.shape).astype(np.float32)
    student.flat[:2] = 0, 1
    found = alignment(student, soft)
    assert found == pytest.approx(slow_alignment(student, soft), abs=1e-12)
    assert 0 < found < 1


def test_alignment_has_the_ends_it_names() -> None:  # R23
    soft = soft_labels()
    assert alignment(teachers_probability(soft), soft) == pytest.approx(1, abs=1e-6)
    sure = SoftLabels("v", np.full((2, 2, 2), 20, np.float16), *(np.zeros((2, 2, 2), np.float16),) * 2, ("a",))
    assert alignment(np.zeros((2, 2, 2), np.float32), sure) == pytest.approx(0, abs=1e-6)
    # A student that sees no surface at all cannot hide behind a volume that is nearly all background.
    logit = np.full((10, 10, 10), -12, np.float16)
    logit[0] = 12
    thin = SoftLabels("v", logit, *(np.zeros_like(logit),) * 2, ("a",))
    assert alignment(np.zeros(logit.shape, np.float32), thin) == pytest.approx(0.5, abs=1e-3)


def test_alignment_rises_towards_the_teachers_and_ignores_where_they_disagree() -> None:  # R23
    soft = soft_labels()
    target, start = teachers_probability(soft), np.full(soft.mean_logit.shape, 0.5, np.float32)
    path = [alignment(start + np.float32(t) * (target - start), soft) for t in np.linspace(0, 1, 6)]
    assert all(a < b for a, b in itertools.pairwise(path))
    split = soft.disagreement.copy()
    split[0] = 1
    other = target.copy()
    other[0] = 1 - other[0]
    half = SoftLabels("v", soft.mean_logit, soft.variance, split, soft.teachers)
    assert alignment(other, half) == alignment(target, half)


@pytest.mark.parametrize(
    "student",
    [
        np.zeros((1, 1, 1), np.float32),
        np.full((3, 4, 5), np.nan, np.float32),
        np.full((3, 4, 5), 1.5, np.float32),
        np.full((3, 4, 5), -0.1, np.float32),
    ],
)
def test_alignment_refuses_what_is_no_probability(student: Probability) -> None:
    with pytest.raises(ArgumentError, match="student: got"):
        alignment(student, soft_labels())


class Account:
    """A distillation of known figures, and the events that it wrote."""

    def __init__(self, nominal: int = 9, teachers: dict[str, str] | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        given = {"a": TEACHERS["a"], "b": TEACHERS["b"]} if teachers is None else teachers
        self.account = TeacherDistillation(given, nominal=nominal, emit=self.emit)

    def emit(self, name: str, fields: Any) -> None:
        self.events.append((name, dict(fields)))

    def measured(self, towards: dict[str, float]) -> "Account":
        """At each moment the student is so much of the way from 1/2 to its teachers."""
        for moment, part in towards.items():
            pairs = []
            for volume_id in ("v", "w"):
                soft = soft_labels(seed=len(volume_id), volume_id=volume_id)
                start = np.full(soft.mean_logit.shape, 0.5, np.float32)
                pairs.append((soft, start + np.float32(part) * (teachers_probability(soft) - start)))
            self.account.measure(moment, pairs)  # type: ignore[arg-type]
        return self


def test_kpis_are_the_formulas(tmp_path: Path) -> None:  # R23
    account = Account().measured({"before": 0.0, "distilled": 0.8, "final": 0.6})
    for soft in (soft_labels(), soft_labels(), None):
        account.account.covered((3, 4, 5), soft)
    report = account.account.finish(tmp_path, events=[])
    means = {name: fields["alignment"] for name, fields in account.events if name == "TEACHER_ALIGNMENT_MEASURED"}
    values = [fields["alignment"] for name, fields in account.events if name == "TEACHER_ALIGNMENT_MEASURED"]
    assert len(means) == 1 and len(values) == 3
    before, distilled, final = values
    assert before < final < distilled
    assert report.teacher_alignment_gain_before_after == distilled - before > 0
    assert report.student_knowledge_retention_score == (final - before) / (distilled - before)
    assert report.teacher_coverage_pct == pytest.approx(200 / 9)
    assert report.voxel_coverage_pct == pytest.approx(200 / 3)


def test_a_student_that_learned_nothing_or_lost_all_shows_it(tmp_path: Path) -> None:  # R23, R54
    worse = Account().measured({"before": 0.5, "distilled": 0.2, "final": 0.9}).account.finish(tmp_path, events=[])
    assert worse.teacher_alignment_gain_before_after < 0 and worse.student_knowledge_retention_score == 0
    lost = Account().measured({"before": 0.2, "distilled": 0.7, "final": 0.1}).account.finish(tmp_path, events=[])
    assert lost.student_knowledge_retention_score < 0
    grown = Account().measured({"before": 0.2, "distilled": 0.7, "final": 0.9}).account.finish(tmp_path, events=[])
    assert grown.student_knowledge_retention_score > 1


@pytest.mark.parametrize(("nominal", "percent"), [(1, 100.0), (2, 100.0), (4, 50.0)])
def test_coverage_counts_the_teachers_whose_answers_were_used(nominal: int, percent: float, tmp_path: Path) -> None:
    account = Account(nominal).measured(dict.fromkeys(MOMENTS, 0.5))  # R23
    account.account.covered((3, 4, 5), soft_labels())
    assert account.account.finish(tmp_path, events=[]).teacher_coverage_pct == percent


def test_a_teacher_that_one_volume_lacks_is_not_used(tmp_path: Path) -> None:  # R23
    account = Account(2).measured(dict.fromkeys(MOMENTS, 0.5))
    soft = soft_labels()
    only_b = SoftLabels("w", soft.mean_logit, soft.variance, soft.disagreement, ("b",))
    for each in (soft, only_b):
        account.account.covered((3, 4, 5), each)
    report = account.account.finish(tmp_path, events=[])
    assert report.used == ("b",) and report.teacher_coverage_pct == 50


def test_without_soft_labels_nothing_is_covered(tmp_path: Path) -> None:  # R23, R54
    account = Account().measured(dict.fromkeys(MOMENTS, 0.5))
    report = account.account.finish(tmp_path, events=[])
    assert (report.teacher_coverage_pct, report.voxel_coverage_pct, report.used) == (0, 0, ())


def test_the_files_and_events_of_a_distillation(tmp_path: Path) -> None:  # R23
    account = Account().measured({"before": 0.0, "distilled": 0.8, "final": 0.6})
    account.account.covered((3, 4, 5), soft_labels())
    report = account.account.finish(tmp_path, events=timed(complete()))
    assert {path.name for path in tmp_path.iterdir()} == {MEMORY_MANIFEST, ALIGNMENT_REPORT}
    assert (MEMORY_MANIFEST, ALIGNMENT_REPORT) == (
        "v3_transfer_memory_manifest.json",
        "v3_teacher_alignment_report.json",
    )
    written = json.loads((tmp_path / ALIGNMENT_REPORT).read_bytes())
    assert written == json.loads(json.dumps(report.to_json()))
    assert {name: written[name] for name in report.kpis()} == report.kpis()
    assert set(written["alignment"]) == set(MOMENTS) and set(written["alignment"]["final"]["by_volume"]) == {"v", "w"}
    names = [name for name, _ in account.events]
    assert names == ["TEACHER_DISTILLATION_START", *["TEACHER_ALIGNMENT_MEASURED"] * 3, "TEACHER_DISTILLATION_DONE"]
    assert account.events[0][1]["teachers"] == {"a": TEACHERS["a"], "b": TEACHERS["b"]}
    assert {name: account.events[-1][1][name] for name in report.kpis()} == report.kpis()


def test_the_manifest_holds_what_the_log_holds() -> None:  # R23, R54
    events = timed(complete())
    manifest = memory_manifest(events, TEACHERS)
    assert manifest["teachers"] == TEACHERS
    assert [(row["teacher"], row["volume_id"]) for row in manifest["transfers"]] == [
        (event["teacher"], event["volume_id"]) for event in events if event["event"] == "TEACHER_BATCH_TRANSFER"
    ]
    (kept,), (back,) = manifest["persisted"], manifest["reloaded"]
    assert kept["weights_digest"] == back["weights_digest"] and int(kept["ts_ns"]) < int(back["ts_ns"])
    nothing = memory_manifest([], {})
    assert nothing.pop("format") == "vesu-transfer-memory/1"
    assert nothing == {"teachers": {}, "transfers": [], "persisted": [], "reloaded": []}


@pytest.mark.parametrize("missing", MOMENTS)
def test_a_moment_that_was_not_measured_is_named_and_nothing_is_written(missing: str, tmp_path: Path) -> None:  # R54
    account = Account().measured({moment: 0.5 for moment in MOMENTS if moment != missing})
    with pytest.raises(DataError, match=missing):
        account.account.finish(tmp_path, events=[])
    assert not list(tmp_path.iterdir())
    assert "TEACHER_DISTILLATION_DONE" not in [name for name, _ in account.events]


def test_done_is_not_said_when_the_disk_refuses(tmp_path: Path) -> None:  # R54
    account = Account().measured(dict.fromkeys(MOMENTS, 0.5))
    with pytest.raises(FileError):
        account.account.finish(tmp_path / "missing", events=[])
    assert "TEACHER_DISTILLATION_DONE" not in [name for name, _ in account.events]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ArgumentError, match="nominal: got 0"):
        Account(0)
    with pytest.raises(ArgumentError, match="moment: got 'after'"):
        Account().account.measure("after", [])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no volume"):
        Account().account.measure("before", [])
