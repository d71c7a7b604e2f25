"""Campaigns run: processes and folders of their own, resumed, damaged, crashed, compared (R43)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vesu
from report_page import Page
from vesu.campaign import Comparison, compare_campaign, parse_matrix, run_campaign, run_part
from vesu.campaign import process as process_of
from vesu.campaign.plan import plan_campaign
from vesu.campaign.record import examine
from vesu.cli import main
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError, DataError, ResumeIncompatible
from vesu.ledger import LedgerWriter, iter_events, verify

MATRIX: dict[str, Any] = {
    "format": "vesu-campaign/1",
    "name": "three",
    "seeds": [4],
    "score_fraction": 0.5,
    "runs": [
        {"id": "plain", "tags": ["V7.5"]},
        {"id": "crashing", "nx46": {"z_smoothing_radius": 0}},
        {"id": "denser", "nx46": {"threshold_quantile": 0.95}},
    ],
    "config": {"pipeline": "nx46", "n_threads": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", n_train=4, n_test=1, shape=(24, 24, 24), seed=3)


@pytest.fixture(scope="module", autouse=True)
def without_reports() -> Iterator[None]:
    """The runs draw no report, which is most of their time; the campaign's own page is drawn here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_of, "PROGRAM", f"import sys; sys.modules['matplotlib'] = None; {process_of.PROGRAM}")
        yield


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """Three runs; one finds a file in its folder that no run wrote, and fails."""
    out = tmp_path_factory.mktemp("campaign") / "out"
    stray = out / "runs" / "crashing" / "seed-4" / "model.npz"
    matrix = parse_matrix(MATRIX)
    with pytest.MonkeyPatch.context() as patch:
        real = process_of.run_to_its_end

        def run(words: Any, stops: Any) -> Any:
            if "crashing" in str(words):
                stray.parent.mkdir(parents=True, exist_ok=True)
                stray.write_bytes(b"precious")
            return real(words, stops)

        patch.setattr("vesu.campaign.runner.run_to_its_end", run)
        return out, run_campaign(matrix, data, out)


@pytest.fixture
def copied(made: tuple[Path, Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The campaign's folder, of the test's own; its page is not drawn anew."""
    monkeypatch.setattr("vesu.campaign.runner._write_page", lambda *_: None)
    return Path(shutil.copytree(made[0], tmp_path / "out", symlinks=True))


def names(log: Path) -> list[str]:
    return [event["event"] for event in iter_events(log)]


def test_one_run_fails_and_the_others_finish(made: tuple[Path, Comparison]) -> None:
    out, found = made
    assert [(each.id, each.state) for each in found.failed] == [("crashing", "failed")]
    assert "exit code 2" in found.failed[0].reason and "model.npz" in found.failed[0].reason
    assert (out / "runs" / "crashing" / "seed-4" / "model.npz").read_bytes() == b"precious"
    page = Page(out / "comparison.html")
    assert "1 of 3 runs have no score" in page.text and "model.npz" in page.text
    assert len(page.all("img")) == 2 * 3  # two volumes: the label and two masks
    assert json.loads((out / "comparison.json").read_bytes()) == found.to_json()
    assert "`crashing`, seed 4: failed" in (out / "comparison.md").read_text()


def test_the_campaigns_log_tells_it_all(made: tuple[Path, Comparison]) -> None:  # R38, R43
    log = made[0] / "events.jsonl"
    assert verify(log).entries == 9
    assert names(log) == [
        "CAMPAIGN_START",
        *("CAMPAIGN_RUN_START", "CAMPAIGN_RUN_DONE"),
        *("CAMPAIGN_RUN_START", "CAMPAIGN_RUN_FAILED"),
        *("CAMPAIGN_RUN_START", "CAMPAIGN_RUN_DONE"),
        "VARIANT_PROMOTION",
        "CAMPAIGN_DONE",
    ]
    done = [event for event in iter_events(log) if event["event"] == "CAMPAIGN_RUN_DONE"]
    for event in done:
        own = verify(made[0] / "runs" / event["run"] / "seed-4" / "events.jsonl")
        assert (event["entries"], event["root"], event["kept"]) == (own.entries, own.root, False)


def test_no_run_sees_the_labels_that_score_it(made: tuple[Path, Comparison], data: Path) -> None:
    out, found = made
    assert len(found.scored) == 2
    for folder in (out / "runs").glob("*/seed-4"):
        if (folder / "summary.json").exists():
            inventory = json.loads((folder / "inventory.json").read_bytes())
            assert not {pair["volume_id"] for pair in inventory["pairs"]} & set(found.scored)
            assert tuple(test["volume_id"] for test in inventory["tests"]) == found.scored
    folder = out / "runs" / "denser" / "seed-4"
    for volume_id, figures in found.of("denser").records[0].volumes.items():
        mask = vesu.read_volume(folder / "masks" / f"{volume_id}.tif")
        label = vesu.read_volume(data / "train_labels" / f"{volume_id}.tif")
        assert figures["score"] == vesu.score(mask, label).score
        assert figures["density"] == mask.mean()
        assert figures["label_density"] == (label == 1).sum() / (label != 2).sum()


def test_comparing_again_changes_nothing(copied: Path, made: tuple[Path, Comparison]) -> None:  # R43
    before = (copied / "comparison.json").read_bytes()
    assert compare_campaign(parse_matrix(MATRIX), copied).to_json() == made[1].to_json()
    assert (copied / "comparison.json").read_bytes() == before
    shutil.rmtree(copied / "records")  # then the masks are scored anew
    assert compare_campaign(parse_matrix(MATRIX), copied).of("denser") == made[1].of("denser")


def test_going_on_keeps_what_is_finished_and_tries_again_what_failed(copied: Path, data: Path) -> None:  # R43
    shutil.rmtree(copied / "runs" / "crashing")
    kept = (copied / "runs" / "plain" / "seed-4" / "summary.json").stat().st_mtime_ns
    lines: list[str] = []
    found = run_campaign(parse_matrix(MATRIX), data, copied, announce=lines.append)
    assert not found.failed and len(lines) == 3
    assert (copied / "runs" / "plain" / "seed-4" / "summary.json").stat().st_mtime_ns == kept
    second = names(copied / "events.jsonl")[9:]
    assert second == [
        *("CAMPAIGN_START", "CAMPAIGN_RUN_DONE", "CAMPAIGN_RUN_START", "CAMPAIGN_RUN_DONE", "CAMPAIGN_RUN_DONE"),
        *("VARIANT_PROMOTION", "VARIANT_PROMOTION", "CAMPAIGN_DONE"),
    ]


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["events.jsonl", "submission.zip"])
def test_a_run_whose_evidence_does_not_hold_has_no_score(name: str, copied: Path) -> None:  # R38
    alter(copied / "runs" / "denser" / "seed-4" / name)
    found = compare_campaign(parse_matrix(MATRIX), copied)
    assert {each.id: each.state for each in found.failed} == {"crashing": "failed", "denser": "damaged"}


def test_a_summary_that_says_finished_proves_nothing(copied: Path) -> None:  # R54
    folder = copied / "runs" / "denser" / "seed-4"
    (folder / "events.jsonl").unlink()
    with LedgerWriter(folder / "events.jsonl") as log:
        log.append("RUN_DECLARED")
        sealed = {"entries": log.size, "root": log.root}
    summary = json.loads((folder / "summary.json").read_bytes())
    (folder / "summary.json").write_text(json.dumps({**summary, "ledger": sealed}))
    assert compare_campaign(parse_matrix(MATRIX), copied).of("denser").records[0].state == "damaged"


def test_a_run_with_other_settings_is_not_taken_for_the_planned_one(copied: Path, data: Path) -> None:
    (plan,) = [run for run in plan_campaign(parse_matrix(MATRIX), data).runs if run.variant.id == "denser"]
    ids = compare_campaign(parse_matrix(MATRIX), copied).scored
    other = examine(copied / "runs" / "plain" / "seed-4", ("denser", 4), plan.decides, ids)
    assert other.state == "foreign" and "nx46.threshold_quantile: 0.95 was planned, 0.985 found" in other.reason
    assert examine(copied / "runs" / "denser" / "seed-4", ("denser", 4), plan.decides, ids).finished
    fewer = examine(copied / "runs" / "denser" / "seed-4", ("denser", 4), plan.decides, ids[:1])
    assert fewer.state == "foreign"


def test_a_changed_campaign_is_refused_by_name(copied: Path, data: Path, tmp_path: Path) -> None:
    runs = [dict(each) for each in MATRIX["runs"]]
    runs[2] = {"id": "denser", "nx46": {"threshold_quantile": 0.9}}
    with pytest.raises(ResumeIncompatible, match=r"run denser/seed-4: nx46.threshold_quantile: 0.95 was planned, 0.9"):
        run_campaign(parse_matrix({**MATRIX, "runs": runs}), data, copied)
    with pytest.raises(ResumeIncompatible, match="other scoring volumes"):
        run_campaign(parse_matrix({**MATRIX, "score_fraction": 0.25}), data, copied)
    with pytest.raises(DataError, match="run more/seed-4: is not in the campaign"):
        compare_campaign(parse_matrix({**MATRIX, "runs": [*runs, {"id": "more"}]}), copied)
    with pytest.raises(DataError, match=r"holds no campaign\.json"):
        compare_campaign(parse_matrix(MATRIX), tmp_path)
    assert not (tmp_path / "events.jsonl").exists()
    (tmp_path / "events.jsonl").write_text("mine\n")
    with pytest.raises(DataError, match=r"holds events\.jsonl that no campaign wrote"):
        run_campaign(parse_matrix(MATRIX), data, tmp_path)


def test_a_run_that_was_cut_goes_on_from_its_checkpoint(data: Path, tmp_path: Path) -> None:  # R37, R43
    matrix, part = parse_matrix(MATRIX), {"num_parts": 3, "part_id": 0}
    late = ["time.limit_s=0.01", "time.margin_s=0"]
    (cut,) = run_part(matrix, data, tmp_path / "out", settings=late, **part)
    assert cut.state == "failed" and "exit code 3" in cut.reason
    (whole,) = run_part(matrix, data, tmp_path / "out", **part)
    assert whole.finished
    assert "RESUME_EXACT_OK" in names(tmp_path / "out" / "runs" / "plain" / "seed-4" / "events.jsonl")
    log = tmp_path / "out" / "events-part-0.jsonl"
    assert [event["resumed"] for event in iter_events(log) if event["event"] == "CAMPAIGN_RUN_START"] == [False, True]
    found = compare_campaign(matrix, tmp_path / "out")  # the other parts have not begun
    assert [(each.id, each.state) for each in found.failed] == [("crashing", "missing"), ("denser", "missing")]


def test_a_killed_run_is_told_as_such(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    def run(words: Any, stops: Any) -> process_of.Ended:
        return process_of.Ended(subprocess.run([sys.executable, "-c", killer], check=False).returncode, "")

    monkeypatch.setattr("vesu.campaign.runner.run_to_its_end", run)
    found = run_campaign(parse_matrix(MATRIX), data, tmp_path / "out")
    assert [each.reason for each in found.failed] == ["killed by SIGKILL"] * 3
    assert "killed by SIGKILL" in Page(tmp_path / "out" / "comparison.html").text


def test_ctrl_c_ends_run_and_campaign(data: Path, tmp_path: Path) -> None:  # R33
    (tmp_path / "m.json").write_text(json.dumps(MATRIX))
    out = tmp_path / "out"
    words = ["campaign", tmp_path / "m.json", data, "--out", out, "--quiet"]
    command = [sys.executable, "-c", process_of.PROGRAM, json.dumps(sys.path), *map(str, words)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while "CAMPAIGN_RUN_START" not in (names(out / "events.jsonl") if (out / "events.jsonl").exists() else []):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in errors, errors
    assert names(out / "events.jsonl")[-1] == "CAMPAIGN_STOPPED"
    with process_of.locked(out, ".vesu-campaign"):
        process_of.wait_until_free(out / "runs" / "plain" / "seed-4")  # and nobody writes in the run's folder


def test_the_command_line(
    made: tuple[Path, Comparison], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps(MATRIX))
    assert main(["campaign", str(file), str(data), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "preflight   3/3 runs can begin" in capsys.readouterr().out and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as left:
        main(["campaign", str(file), "--out", str(made[0]), "--compare-only"])
    assert left.value.code == 5  # one run has no score
    assert "failed      crashing, seed 4: exit code 2" in capsys.readouterr().out
    for words in (["--num-parts", "2"], ["--compare-only", "--set", "seed=1"], [str(data), "--compare-only"]):
        assert main(["campaign", str(file), *words, "--out", str(tmp_path / "no")]) == 2
    file.write_text(json.dumps({**MATRIX, "runs": MATRIX["runs"][:1]}))
    assert main(["campaign", str(file), str(data), "--out", str(tmp_path / "no")]) == 2
    assert "two or more, for a comparison needs two" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["m.json"]  # noqa: PTH208


def test_a_matrix_without_labels_to_score_on_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "set"
    (bare / "test_images").mkdir(parents=True)
    with pytest.raises(ArgumentError, match="data: got no labelled volume"):
        run_campaign(parse_matrix(MATRIX), bare, tmp_path / "out")
