"""GO or NO-GO from the verified log: each phase's flag is forged, and seen through (R44, R54)."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gates_case import DELTA, EVERYTHING, FILES, PAIRS, PLAIN, TESTS, Case, Fields
from vesu.cli import main
from vesu.distill.proof import EVENTS as DISTILLATION_EVENTS
from vesu.errors import DataError
from vesu.ledger import LedgerWriter, checkpoint, iter_events, parse_checkpoint, verify
from vesu.run.gates import GO, NO_GO, V3_FILES, GateReport, judge, v3_files
from vesu.submission import write_submission

COMPETITOR = [f"COMPETITOR_{name}" for name in ("TIFF_LOAD_OK", "GUIDED_PHASE_START", "ALIGNMENT_DELTA")]
COMPETITOR += ["COMPETITOR_GUIDED_PHASE_DONE"]
NONCES = ["GOLDEN_NONCE_FOUND", "GOLDEN_NONCE_TOPK_FINAL"]
COVERAGE = ["TRAIN_COVERAGE_PLAN", "TRAIN_COVERAGE_FINAL"]

TRACES = {
    "distillation": DISTILLATION_EVENTS,
    "competitor": COMPETITOR,
    "nonces": NONCES,
    "submission": ["SAFE_SUBMISSION_WRITTEN", "SUBMISSION_WRITTEN", "INVENTORY"],
    "score": ["CALIBRATED", "BEST_RECORDED_COMPARED"],
    "coverage": ["TRAIN_COVERAGE_FINAL", "INVENTORY"],
    "auto_tune": ["AUTO_TUNE_POLICY_DECISION"],
    "files": ["DISTILLATION_END", "TRAIN_COVERAGE_FINAL"],
}
"""The events without which a gate must fail."""


def judged(folder: Path, **how: Any) -> GateReport:
    return judge(Case(folder, **how).write())


def reason_of(report: GateReport, gate: str) -> str:
    """Of a gate that must have failed."""
    assert report.verdict == NO_GO and gate in report.failed, str(report)
    assert gate in report.headline
    return report.gates[gate].reason


def edited(name: str, **changes: Any) -> dict[str, Callable[[Fields], Fields]]:
    return {name: lambda fields: {**fields, **changes}}


def test_a_run_that_asked_for_everything_and_did_it_is_go(tmp_path: Path) -> None:  # R44 R54
    report = judged(tmp_path)
    assert (report.verdict, report.failed, report.headline) == (GO, (), "GO: no gate failed"), str(report)
    assert {gate.state for gate in report.gates.values()} == {"pass"}
    assert list(report.gates) == [
        "ledger", "distillation", "competitor", "coverage", "nonces", "auto_tune", "files", "submission", "score",
    ]  # fmt: skip
    log = verify(tmp_path / "events.jsonl")
    assert (report.entries, report.root, report.run_id) == (log.entries, log.root, "r1")
    assert "t1: iou +0.2500" in report.gates["competitor"].reason
    assert report.gates["nonces"].reason.startswith("3 nonces of 2 volumes")
    assert report.gates["coverage"].reason == "4 of 4 discovered pairs, 100 %"


def test_what_was_not_asked_for_is_not_applicable(tmp_path: Path) -> None:  # R44
    report = judged(tmp_path, config=PLAIN)
    assert report.go, str(report)
    states = {name: gate.state for name, gate in report.gates.items()}
    assert [name for name, state in states.items() if state == "not_applicable"] == [
        "distillation", "competitor", "nonces", "auto_tune",
    ]  # fmt: skip
    assert report.gates["distillation"].reason == "student.use is 'off'"


@pytest.mark.parametrize("gate", TRACES)
def test_a_flag_without_its_events_is_no_go(tmp_path: Path, gate: str) -> None:  # R44: config, summary, files claim it
    report = judged(tmp_path, skip=TRACES[gate])
    reason_of(report, gate)
    assert json.loads((tmp_path / "summary.json").read_text())["go_no_go"]["verdict"] == "GO"  # the forged flag
    assert all((tmp_path / name).is_file() for names in FILES.values() for name in names)


@pytest.mark.parametrize(("gate", "name"), [(gate, name) for gate, names in TRACES.items() for name in names])
def test_each_single_event_is_missed(tmp_path: Path, gate: str, name: str) -> None:  # R44 R54
    reason_of(judged(tmp_path, skip=[name]), gate)


@pytest.mark.parametrize("phase", ["distillation", "competitor", "nonces", "auto_tune"])
def test_a_forged_file_of_a_phase_that_nobody_asked_for_is_no_go(tmp_path: Path, phase: str) -> None:  # R54
    Case(tmp_path, config=PLAIN).write()
    for name in FILES[phase]:
        (tmp_path / name).write_text('{"executed": true}')
        assert f"{name} claims what the log does not know" in reason_of(judge(tmp_path), "files")


@pytest.mark.parametrize("name", V3_FILES)
def test_a_file_that_was_asked_for_is_missed(tmp_path: Path, name: str) -> None:  # R54
    Case(tmp_path).write()
    (tmp_path / name).unlink()
    assert f"{name} was asked for and is not there" in reason_of(judge(tmp_path), "files")
    (found,) = (each for each in v3_files(tmp_path) if each.name == name)
    assert (found.asked, found.there, found.logged) == (True, False, True)


def test_the_v3_files_of_the_requirements_are_these(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R54
    Case(tmp_path).write()
    assert {name for names in FILES.values() for name in names} == set(V3_FILES)
    assert all(each.asked and each.there and each.logged for each in v3_files(tmp_path))
    assert main(["gates", "--files", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" there\n") == len(V3_FILES)
    (tmp_path / "v3_autotune_trace.json").unlink()
    with pytest.raises(SystemExit) as left:
        main(["gates", "--files", str(tmp_path)])
    assert left.value.code == 4 and "v3_autotune_trace.json was asked for" in capsys.readouterr().out


# ---- each gate's own eyes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"after": DELTA["before"], "delta": dict.fromkeys(DELTA["delta"], 0.0)}, "intended sign"),
        ({"before": DELTA["after"], "after": DELTA["before"]}, "not that of its figures"),
        ({"delta": {**DELTA["delta"], "iou": 0.9}}, "not that of its figures"),
        ({"after": {**DELTA["after"], "density_gap": 0.25}, "delta": {**DELTA["delta"], "density_gap": 0.125}}, "sign"),
        ({"after": {**DELTA["after"], "iou": None}}, "cannot be read"),
        ({"volume_id": "t2"}, "several volumes"),
    ],
)  # fmt: skip
def test_a_delta_of_another_sign_is_seen_whatever_it_declares(
    tmp_path: Path, changes: Fields, said: str
) -> None:  # R24 R44
    report = judged(tmp_path, edit=edited("COMPETITOR_ALIGNMENT_DELTA", intended=True, **changes))
    assert said in reason_of(report, "competitor")


def test_a_guided_phase_that_reports_failure_is_no_go(tmp_path: Path) -> None:  # R24 R44
    report = judged(tmp_path, edit=edited("COMPETITOR_GUIDED_PHASE_DONE", state="fail", reason="further away"))
    assert "further away" in reason_of(report, "competitor") and report.failed == ("competitor",)
    report = judged(tmp_path / "none", edit=edited("COMPETITOR_GUIDED_PHASE_START", voxels_held_out=0))
    assert "kept out" in reason_of(report, "competitor")
    folder = Case(tmp_path / "other").write()
    (folder / "v3_competitor_guided_delta.json").write_text(json.dumps({**DELTA, "after": DELTA["before"]}))
    assert "does not say what the log says" in reason_of(judge(folder), "competitor")


def timeline(change: Callable[[list[bytes]], list[bytes]], folder: Path) -> str:
    """The reason after the timeline's lines were changed."""
    path = Case(folder).write() / "v3_golden_nonce_timeline.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    return reason_of(judge(folder), "nonces")


def test_each_line_of_the_timeline_is_in_the_log_and_the_other_way_round(tmp_path: Path) -> None:  # R31 R44
    assert "line 4 of" in timeline(lambda lines: [*lines, lines[0]], tmp_path / "more")
    assert "ends with line 2" in timeline(lambda lines: lines[:2], tmp_path / "less")
    assert "line 1 of" in timeline(lambda lines: lines[::-1], tmp_path / "turned")
    assert "line 2 of" in timeline(lambda lines: [lines[0], b"not JSON\n", lines[2]], tmp_path / "other")
    report = judged(tmp_path / "count", edit=edited("GOLDEN_NONCE_TOPK_FINAL", found=2))
    assert "does not count" in reason_of(report, "nonces")
    report = judged(tmp_path / "sum", edit=edited("GOLDEN_NONCE_TOPK_FINAL", timeline_sha256="0" * 64))
    assert "does not count" in reason_of(report, "nonces")


def test_the_trace_has_the_decisions_of_the_log(tmp_path: Path) -> None:  # R39 R54
    path = Case(tmp_path).write() / "v3_autotune_trace.json"
    trace = json.loads(path.read_text())
    first, second = trace["decisions"]
    for decisions, said in (
        ([first], "decision 1 of the log is not in"),
        ([first, second, second], "decision 2 of v3_autotune_trace.json is not in the log"),
        ([first, {**second, "evidence": {"epoch": 7}}], "is not the log's: evidence"),
    ):
        path.write_text(json.dumps({"decisions": decisions}))
        assert said in reason_of(judge(tmp_path), "auto_tune")
    events = list(iter_events(tmp_path / "events.jsonl"))
    path.write_text(json.dumps(trace))
    rewrite(tmp_path, [*events, next(event for event in events if event.get("number") == 1)])
    assert judge(tmp_path).gates["auto_tune"].state == "pass"  # made again after a cut: once


def test_coverage_is_counted_from_the_sampled_voxels(tmp_path: Path) -> None:  # R40 R44
    said = reason_of(judged(tmp_path / "few", sampled=PAIRS[:3]), "coverage")
    assert "3 of 4 discovered pairs, 75 %, below 95 %" in said
    forged = edited("TRAIN_COVERAGE_FINAL", train_pair_coverage_pct_effective=100.0)
    assert "declares 100" in reason_of(judged(tmp_path / "forged", sampled=PAIRS[:3], edit=forged), "coverage")
    assert "5 were discovered" in reason_of(judged(tmp_path / "n", edit=edited("INVENTORY", pairs=5)), "coverage")
    lowered = {**EVERYTHING, "gates": {**EVERYTHING["gates"], "min_coverage_pct": 10.0}}
    assert "below 95 %" in reason_of(judged(tmp_path / "low", sampled=PAIRS[:3], config=lowered), "coverage")
    folder = Case(tmp_path / "file").write()
    (folder / "v3_train_coverage_report.json").write_text("{}")
    assert "does not say what the log says" in reason_of(judge(folder), "coverage")


def test_the_zip_is_the_logs_and_the_competition_takes_it(tmp_path: Path) -> None:  # R04 R44
    folder = Case(tmp_path / "swapped").write()
    ones = ((name, np.ones(shape, np.uint8)) for name, shape in TESTS.items())
    write_submission(folder / "submission.zip", ones, expected=TESTS)
    assert "not the one that the log knows" in reason_of(judge(folder), "submission")
    (folder / "submission.zip").unlink()
    assert "no submission.zip" in reason_of(judge(folder), "submission")
    other = edited("INVENTORY", test_shapes={**TESTS, "t2": (3, 2, 9)})
    assert "got shape (3, 2, 2)" in reason_of(judged(tmp_path / "shape", edit=other), "submission")
    reserve = judged(tmp_path / "reserve", skip=["SUBMISSION_WRITTEN"])
    assert "those in reserve (2 final)" in reason_of(reserve, "submission")


BEST = {"score": 0.5, "run_id": "another", "pipeline": "vesu", "config_digest": "d"}


def test_a_score_below_the_best_recorded_is_no_go(tmp_path: Path) -> None:  # R44
    assert judged(tmp_path / "same", score=0.5, best=BEST).go
    report = judged(tmp_path / "below", score=0.4999, best=BEST)
    assert "the best recorded there is 0.5000 (run another): below it" in reason_of(report, "score")
    assert report.failed == ("score",)
    tolerant = {**EVERYTHING, "gates": {"score_tolerance": 0.001}}
    assert judged(tmp_path / "tolerant", score=0.4999, best=BEST, config=tolerant).go
    first = judged(tmp_path / "first", edit=edited("BEST_RECORDED_COMPARED", others=2))
    assert "2 recorded on other volumes are not compared" in first.gates["score"].reason and first.go


def test_what_the_comparison_says_of_itself_is_not_believed(tmp_path: Path) -> None:  # R44 R54
    forged = edited("BEST_RECORDED_COMPARED", score=0.9)  # the log's CALIBRATED has 0.4
    reason_of(judged(tmp_path / "own", score=0.4, best=BEST, edit=forged), "score")
    other = edited("BEST_RECORDED_COMPARED", volumes={"p1": ["1", "2"]})
    assert "other volumes" in reason_of(judged(tmp_path / "other", edit=other), "score")
    damaged = edited("BEST_RECORDED_COMPARED", problem="best_recorded.json: not JSON")
    assert "not JSON" in reason_of(judged(tmp_path / "damaged", edit=damaged), "score")


def test_a_scorer_without_labels_has_no_score_to_compare(tmp_path: Path) -> None:  # R32 R44
    nothing = ["CALIBRATED", "BEST_RECORDED_COMPARED", *COVERAGE, "VOXELS_SAMPLED"]
    scorer = {**PLAIN, "pipeline": "nx46"}
    folder = Case(tmp_path, config=scorer, edit=edited("INVENTORY", pairs=0)).write()
    events = [event for event in iter_events(folder / "events.jsonl") if event["event"] not in nothing]
    rewrite(folder, events)
    (folder / "v3_train_coverage_report.json").unlink()
    report = judge(folder)
    assert report.go, str(report)
    assert {report.gates[name].state for name in ("coverage", "score", "files")} == {"not_applicable"}


def test_a_student_of_the_newest_work_counts(tmp_path: Path) -> None:  # R22 R37: another set of teachers, trained anew
    folder = Case(tmp_path, config={**EVERYTHING, "teachers": {"folder": "teachers"}}).write()
    events = list(iter_events(folder / "events.jsonl"))
    start = next(place for place, event in enumerate(events) if event["event"] == "TEACHERS_FOUND")
    old = {"event": "DISTILLATION_START", "stages": ["distil"], "teachers": ["gone"], "weights_digest": "0" * 64}
    told = {"event": "RESUME_PARTIAL_RETRAIN", "scope": "distillation", "fields": ["teachers.digests"]}
    rewrite(folder, [*events[:start], old, *events[start:]])
    assert "teachers" in reason_of(judge(folder), "distillation")
    rewrite(folder, [*events[:start], old, told, *events[start:]])
    assert judge(folder).gates["distillation"].state == "pass"
    told["fields"] = ["search.l1"]  # the student stands, and with it what was said of it
    rewrite(folder, [*events[:start], old, told, *events[start:]])
    assert judge(folder).gates["distillation"].state == "fail"


def test_evidence_that_was_carried_counts_at_the_logs_beginning_only(tmp_path: Path) -> None:  # R36 R44
    folder = Case(tmp_path).write()
    events = list(iter_events(folder / "events.jsonl"))
    moved = [event for event in events if event["event"] in (*DISTILLATION_EVENTS, "CALIBRATED")]
    rest = [event for event in events if event not in moved]
    early = {"ts_ns": events[0]["ts_ns"]}
    carried = [{"event": "EVIDENCE_CARRIED", "record": event, **early} for event in moved]
    elsewhere = {"event": "LEDGER_CONTINUED_ELSEWHERE", "tree_head": "vesu/run", **early}
    rewrite(folder, [elsewhere, *carried, *rest])
    assert judge(folder).go, str(judge(folder))
    for forged in ([*carried, *rest], [elsewhere, *rest, *carried], [*rest[:1], elsewhere, *carried, *rest[1:]]):
        rewrite(folder, forged)
        assert {"distillation", "score"} <= set(judge(folder).failed)


def rewrite(folder: Path, events: list[Fields]) -> None:
    """A log of other events; the heads that were kept of the old one go."""
    (folder / "events.jsonl").unlink()
    (folder / "summary.json").unlink(missing_ok=True)
    with LedgerWriter(folder / "events.jsonl") as log:
        for event in events:
            reserved = ("event", "seq", "ts_ns", "prev", "hash")
            ts_ns = int(event["ts_ns"]) if "ts_ns" in event else None
            log.append(event["event"], {key: event[key] for key in event if key not in reserved}, ts_ns=ts_ns)


# ---- the log itself


def test_a_log_that_was_changed_or_cut_proves_nothing(tmp_path: Path) -> None:  # R38 R44
    folder = Case(tmp_path / "changed").write()
    path = folder / "events.jsonl"
    path.write_text(path.read_text().replace('"voxels":10', '"voxels":99', 1))
    report = judge(folder)
    assert set(report.failed) == set(report.gates) and "does not match its hash" in report.gates["ledger"].reason
    folder = Case(tmp_path / "cut").write()
    path = folder / "events.jsonl"
    head = parse_checkpoint(checkpoint(path))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))  # the last record, RUN_END
    assert "its end is missing" in reason_of(judge(folder), "ledger")
    (folder / "summary.json").unlink()  # and with it the head that was kept in the folder
    assert judge(folder).go
    assert "the tree head is of" in reason_of(judge(folder, heads=[head]), "ledger")
    events = list(iter_events(path))
    rewrite(folder, [*events, events[-1]])  # as long as it was, written anew
    assert "of another log" in reason_of(judge(folder, heads=[head]), "ledger")


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"run: got {tmp_path}, without events.jsonl")):
        judge(tmp_path)
    with pytest.raises(DataError, match="accepted: the folder of a run"):
        v3_files(tmp_path / "nowhere")


def test_the_command_judges_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R44
    folder = Case(tmp_path / "run").write()
    (tmp_path / "head").write_text(checkpoint(folder / "events.jsonl"))
    assert main(["gates", str(folder), "--head", str(tmp_path / "head")]) == 0
    assert capsys.readouterr().out.startswith("GO: no gate failed\nledger        passed ")
    (folder / "submission.zip").unlink()
    with pytest.raises(SystemExit) as left:
        main(["gates", "--json", str(folder)])
    assert left.value.code == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["failed"], found["submission_sha256"]) == (NO_GO, ["submission"], None)
    assert main(["gates", str(tmp_path)]) == 2  # no run
