"""The report's first words: how the run ended, its gates, what is in the zip, what to do next."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report_page import Page, edit, light_fixture, plain_fixture, unpictured_fixture  # noqa: F401 (found by name)
from vesu.ledger import LedgerWriter
from vesu.report import verdicts, write_report
from vesu.report.gates import read_gates
from vesu.report.jsonfile import Node
from vesu.report.loader import load_run
from vesu.run.postmortem import write_postmortem

GATE = {
    "distillation": {"state": "pass", "reason": "proved by the log"},
    "coverage": {"state": "fail", "reason": "92.1 % of the pairs, 95 % are asked for"},
    "competitor": {"state": "not_applicable", "reason": "no reference mask was given"},
    "score": {"state": "pass", "reason": "0.56, and the best recorded is 0.55"},
}


def first_words(plain: Path) -> str:
    return verdicts.headline(load_run(plain)).verdict.words


def with_gates(plain: Path, *names: str) -> None:
    failed = [name for name in names if GATE[name]["state"] == "fail"]
    verdict = "NO_GO_SUBMISSION" if failed else "GO"
    gates = {"verdict": verdict, "failed": failed, "gates": {name: GATE[name] for name in names}}
    edit(plain / "summary.json", lambda summary: summary.update(go_no_go=gates))


def test_a_run_that_may_be_submitted_says_what_is_in_the_zip(plain: Path) -> None:  # R44
    with_gates(plain, "distillation", "competitor", "score")
    assert first_words(plain) == "GO: 1 mask in submission.zip"
    page = Page(write_report(plain))
    (title,) = (words for words in page.words if words.startswith("GO: 1 mask in submission.zip · vesu run"))
    assert page.text.index("GO: 1 mask") < page.text.index("What is in the zip") < page.text.index("Segmented volumes")
    assert len(page.all("h1")) == 1 and title


def test_a_failed_gate_comes_first_and_every_gate_is_told(plain: Path) -> None:  # R44
    with_gates(plain, *GATE)
    assert first_words(plain) == "NO-GO: Coverage"
    text = Page(write_report(plain)).text
    places = [text.index(each["reason"]) for each in GATE.values()]
    assert min(places) == places[1] and "NO_GO_SUBMISSION" in text  # the one that failed stands first
    assert all(
        f"{state} {name}" in text for state, name in [("pass", "Distillation"), ("not applicable", "Competitor")]
    )


def test_a_verdict_beside_the_summary_counts(plain: Path) -> None:  # R44
    (plain / "go_no_go.json").write_text(json.dumps({"verdict": "NO_GO_SUBMISSION", "gates": {"score": {}}}))
    found = read_gates(Node.read(plain / "summary.json"), plain)
    assert found is not None and [gate.state for gate in found.gates] == ["not recorded"]
    assert first_words(plain) == "NO-GO: see the gates"
    with_gates(plain, "score")
    assert first_words(plain).startswith("GO")  # the summary's own goes first


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "Finished, but submission.zip is not what the run": lambda run: (run / "submission.zip").write_bytes(b"other"),
    "Finished; submission.zip is not in this folder": lambda run: (run / "submission.zip").unlink(),
    "Finished, without a submission": lambda run: edit(run / "summary.json", lambda s: s.pop("submission") and None),
    "Finished: no masks in": lambda run: edit(run / "summary.json", lambda s: s["submission"].update(members=[])),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_a_zip_that_is_not_whole_is_no_success(plain: Path, words: str) -> None:  # R44 R54
    DAMAGE[words](plain)
    assert first_words(plain).startswith(words)
    assert verdicts.headline(load_run(plain)).verdict.tone != "good"


def told(plain: Path, origins: dict[str, int]) -> None:
    """The log's newest submission: as the summary has it, from these origins."""
    sha256 = json.loads((plain / "summary.json").read_text())["submission"]["sha256"]
    with LedgerWriter(plain / "events.jsonl") as log:
        log.append("SAFE_SUBMISSION_WRITTEN", {"sha256": sha256, "origins": origins, "reason": "a test"})


def test_where_the_masks_come_from_is_told(plain: Path) -> None:  # R33
    assert "mask of" not in Page(write_report(plain)).text  # the log does not tell: nothing is invented
    told(plain, {"empty": 1, "scorer": 2, "final": 3})
    words = [each.words for each in verdicts.contents(load_run(plain).submission)]
    assert words == [
        "3 masks of the finished run",
        "2 masks of a historical scorer, in reserve",
        "1 mask empty, nothing was there yet",
    ]
    text = Page(write_report(plain)).text
    assert all(each in text for each in words)
    edit(plain / "summary.json", lambda s: s["submission"].update(sha256="0" * 64))  # the log speaks of another zip
    assert verdicts.contents(load_run(plain).submission) == []


def test_a_mask_without_surface_is_named(plain: Path) -> None:  # R30
    edit(plain / "summary.json", lambda s: s["submission"]["members"][0].update(ink_ratio=0.0))
    assert "no surface at all in 1407735.tif" in Page(write_report(plain)).text


@pytest.mark.parametrize("cause", ["stopped", "failed", "killed", "running"])
def test_a_run_that_did_not_finish_says_where_it_stood(plain: Path, cause: str) -> None:  # R41
    (plain / "summary.json").unlink()
    end = {
        "cause": cause,
        "reason": "DEADLINE",
        "blocking_point": {"phase": "fit"},
        "reached_pct": 57.2,
        "goes_on_from": {"name": "ckpt-000007", "phase": "fit", "epoch": 0, "iter": 40},
    }
    (plain / "post_mortem.json").write_text(json.dumps(end))
    found = verdicts.headline(load_run(plain))
    assert found.verdict.words == f"{cause.capitalize()} in phase fit, at 57\u202f%"
    assert found.verdict.tone == ("warn" if cause in ("stopped", "running") else "bad")
    text = re.sub(" +", " ", Page(write_report(plain)).text)
    assert ("--resume-from-checkpoint" in text) == (cause != "running")
    assert "ckpt-000007, fit, epoch 0, iteration 40" in text and "vesu run demo " in text  # its id is in the log
    assert "Started 2026-09-21 14:13:20 UTC · summary.json is not in this folder" in text


def test_gates_that_fail_because_the_run_goes_on_are_not_its_headline(plain: Path) -> None:  # R44
    with_gates(plain, *GATE)
    edit(plain / "summary.json", lambda summary: summary.update(status="stopped"))
    assert first_words(plain).startswith("Stopped")
    assert "92.1 % of the pairs" in Page(write_report(plain)).text


def test_a_run_without_a_checkpoint_begins_anew(plain: Path) -> None:  # R37
    (plain / "summary.json").unlink()
    (plain / "failure.json").write_text(json.dumps({"error": "PreflightError", "message": "no test volumes"}))
    write_postmortem(plain, cause="failed", reason="PreflightError: no test volumes")
    advice = verdicts.headline(load_run(plain)).advice
    assert advice is not None and advice.command.endswith("--restart") and "mended" in advice.words
    text = Page(write_report(plain)).text
    assert text.index("Failed") < text.index("PreflightError: no test volumes") < text.index("--restart")


def test_a_killed_run_still_tells_what_its_zip_is(plain: Path) -> None:  # R33
    told(plain, {"scorer": 1})
    (plain / "summary.json").unlink()
    (plain / "post_mortem.json").unlink()
    text = Page(write_report(plain)).text
    for words in ("No end is recorded", "vesu post-mortem RUN", "the digest matches", "1 mask of a historical scorer"):
        assert words in text, words
    (plain / "submission.zip").write_bytes(b"torn")
    assert "submission.zip differs from the recorded digest" in Page(write_report(plain)).text


def test_a_folder_without_any_volume_is_shown(plain: Path) -> None:
    edit(plain / "summary.json", lambda s: (s.pop("validation"), s["submission"].update(members=[]))[1])
    text = Page(write_report(plain)).text
    assert "Segmented volumes: not recorded" in text and "no masks" in text
    assert "no labelled volume was scored" in text


def test_without_labels_the_density_of_the_masks_is_told(plain: Path) -> None:  # R30
    edit(plain / "summary.json", lambda s: s.pop("validation") and None)
    share = json.loads((plain / "summary.json").read_text())["submission"]["members"][0]["ink_ratio"]
    assert f"Surface density {100 * share:.2f}\u202f% mean of the masks in the zip" in Page(write_report(plain)).text


def test_a_historical_scorer_has_no_empty_rooms(plain: Path) -> None:  # R32
    edit(plain / "summary.json", lambda s: s.update(pipeline="nx46"))
    page = Page(write_report(plain))
    assert "Leaderboard" not in page.text and "Calibration" not in page.text and "Nothing was trained" in page.text
    targets = {f"#{attributes['id']}" for _, attributes in page.tags if attributes.get("id")}
    assert {link["href"] for link in page.all("a")} <= targets
