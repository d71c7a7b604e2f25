"""Training coverage: planned, followed, and in the end what the log says was sampled."""

import json
from pathlib import Path
from typing import Any

import pytest

from evidence_log import Log
from vesu.errors import ArgumentError, EvidenceError
from vesu.ledger import iter_events
from vesu.run.coverage import COVERAGE_REPORT, CoveragePlan, GapEvidence, TrainCoverage, coverage_report
from vesu.run.pipeline import RunResult

IDS = tuple("abcdefgh")


def sample(log: Log, ids: str, epoch: int = 0, voxels: int = 100) -> None:
    for volume_id in ids:
        log.emit("VOXELS_SAMPLED", volume_id=volume_id, epoch=epoch, voxels=voxels, surface=voxels // 2)


def run(folder: Path, plan: CoveragePlan, sampled: str) -> dict[str, Any]:
    with Log(folder) as log:
        log.start()
        tracker = TrainCoverage(log.emit, plan)
        for volume_id in sampled:
            sample(log, volume_id)
            tracker.sampled(volume_id, 100)
        log._ledger.flush()
        return tracker.finish(folder)


def test_all_pairs_are_covered_and_it_is_logged(tmp_path: Path) -> None:  # R40
    report = run(tmp_path, CoveragePlan(IDS, IDS[:6], IDS[6:]), "abcdefgh")
    assert report["pair_count_discovered"] == report["pair_count_selected_for_training"] == 8
    assert (report["train_pair_coverage_pct_effective"], report["coverage_gap_reason"]) == (100.0, "none")
    assert report["coverage_gap_is_justified"] is True and report["missing_effective"] == []
    assert report["epochs"] == [{"epoch": 0, "volumes": 8, "voxels": 800, "missing_train": []}]
    assert json.loads((tmp_path / COVERAGE_REPORT).read_text()) == report
    assert COVERAGE_REPORT == "v3_train_coverage_report.json"
    events = [each for each in iter_events(tmp_path / "events.jsonl") if each["event"].startswith("TRAIN_COVERAGE")]
    names = ["TRAIN_COVERAGE_PLAN", *["TRAIN_COVERAGE_PROGRESS"] * 8, "TRAIN_COVERAGE_FINAL"]
    assert [each["event"] for each in events] == names
    percents = [each["train_pair_coverage_pct_effective"] for each in events[1:-1]]
    assert percents == [12.5 * n for n in range(1, 9)]
    kpis = ("train_pair_coverage_pct_effective", "coverage_gap_reason", "coverage_gap_is_justified")
    assert {name: events[-1][name] for name in kpis} == {name: report[name] for name in kpis}


def test_the_caps_of_the_history_give_its_coverage(tmp_path: Path) -> None:  # R40: v136's 4.07 % of 786
    ids = tuple(f"{n:03d}" for n in range(786))
    plan = CoveragePlan(ids, ids[:24], ids[24:32], reason="sampling.max_train_volumes=24, sampling.max_val_volumes=8")
    assert round(plan.percent, 2) == 4.07
    with Log(tmp_path) as log:
        tracker = TrainCoverage(log.emit, plan)
        for volume_id in ids[:32]:
            sample(log, [volume_id])  # type: ignore[arg-type]
        log._ledger.flush()
        report = tracker.finish(tmp_path)
    assert round(report["train_pair_coverage_pct_effective"], 2) == 4.07
    assert report["coverage_gap_reason"] == plan.reason
    assert report["coverage_gap_is_justified"] is False  # somebody's wish is no evidence


@pytest.mark.parametrize(("needed", "justified"), [(41.0, True), (40.0, False), (12.0, False)])
@pytest.mark.parametrize("kind", ["time", "memory"])
def test_only_figures_justify_a_gap(tmp_path: Path, kind: Any, needed: float, justified: bool) -> None:  # R40
    evidence = GapEvidence(kind, needed=needed, available=40.0)
    plan = CoveragePlan(IDS, IDS[:3], IDS[3:5], reason=f"{kind} does not suffice", evidence=evidence)
    report = run(tmp_path, plan, "abcde")
    assert report["train_pair_coverage_pct_effective"] == 62.5
    assert report["coverage_gap_is_justified"] is justified
    assert report["gap_evidence"] == {"kind": kind, "needed": needed, "available": 40.0}


def test_what_was_planned_and_not_sampled_is_a_gap(tmp_path: Path) -> None:  # R40, R54
    report = run(tmp_path, CoveragePlan(IDS, IDS[:6], IDS[6:]), "abcdef")
    assert report["pair_count_selected_for_training"] == 8  # so was the plan
    assert report["pair_count_sampled"] == 6 and report["train_pair_coverage_pct_effective"] == 75.0
    assert report["missing_effective"] == ["g", "h"] and report["coverage_gap_is_justified"] is False
    assert report["coverage_gap_reason"] == "no voxel sampled of 2 selected pairs"


def test_it_is_known_of_a_killed_run_over_its_sessions(tmp_path: Path) -> None:  # R40
    plan = CoveragePlan(IDS, IDS[:6], IDS[6:])
    for sampled in ("abc", "abcde"):  # two sessions, both killed
        with Log(tmp_path) as log:
            TrainCoverage(log.emit, plan)
            sample(log, sampled)
    with Log(tmp_path) as log:
        sample(log, "ab", epoch=1, voxels=7)
    report = coverage_report(tmp_path / "events.jsonl")
    assert report["pair_count_sampled"] == 5
    assert report["epochs"][1] == {"epoch": 1, "volumes": 2, "voxels": 14, "missing_train": ["c", "d", "e", "f"]}


def test_a_log_without_a_plan_says_nothing(tmp_path: Path) -> None:  # R54
    with Log(tmp_path) as log:
        sample(log, "a")
    with pytest.raises(EvidenceError, match="no TRAIN_COVERAGE_PLAN"):
        coverage_report(tmp_path / "events.jsonl")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train": ("a", "z")}, "'z'; accepted: ids of discovered pairs"),
        ({"train": ("a", "g")}, "a volume twice"),
        ({"train": ("a",)}, "reason: got none for 5 pairs left out"),
    ],
)
def test_an_impossible_plan_is_refused(change: dict[str, Any], match: str) -> None:  # R40
    with pytest.raises(ArgumentError, match=match):
        CoveragePlan(**{"discovered": IDS, "train": IDS[:6], "validation": IDS[6:], **change})


def test_a_stranger_among_the_samples_is_refused() -> None:  # R40
    tracker = TrainCoverage(lambda name, **fields: None, CoveragePlan(IDS, IDS[:6], IDS[6:]))
    with pytest.raises(ArgumentError, match="'z'"):
        tracker.sampled("z", 5)


def test_a_real_run_covers_all_its_pairs(finished: RunResult) -> None:  # R40, R54
    log = finished.folder / "events.jsonl"
    (plan,) = (event for event in iter_events(log) if event["event"] == "TRAIN_COVERAGE_PLAN")
    sampled = {event["volume_id"] for event in iter_events(log) if event["event"] == "VOXELS_SAMPLED"}
    assert sampled == {*plan["train"], *plan["validation"]} and len(sampled) == plan["pair_count_discovered"] == 3
