"""The historical scorers through the whole pipeline: nothing trained, nothing declared that did not run (R32)."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from vesu import baselines
from vesu.cli import main
from vesu.errors import PreflightError
from vesu.ledger import iter_events, verify
from vesu.run.pipeline import RunResult
from vesu.run.plan import phase_weights
from vesu.run.progress import PHASES

TRAINED = {"features", "train_data", "fit", "distillation"}


def config_of(name: str, *overrides: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=[f"pipeline={name}", *overrides], environment={})


def events(result: RunResult, name: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(result.folder / "events.jsonl") if event["event"] == name]


@pytest.fixture(scope="module", params=["nx46", "nx47"])
def ran(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return vesu.run(dataset, tmp_path_factory.mktemp("baseline"), config=config_of(request.param), display="none")


@pytest.fixture(scope="module")
def tests_only(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without a single label."""
    folder = tmp_path_factory.mktemp("tests")
    shutil.copytree(dataset / "test_images", folder / "test_images")
    return folder


def test_the_zip_is_valid_and_holds_the_scorers_own_masks(ran: RunResult, dataset: Path) -> None:  # R04 R05 R32
    vesu.check_submission(ran.folder / "submission.zip", dataset / "test_images")
    for test in vesu.discover(dataset).tests:
        expected = baselines.segment(vesu.read_volume(test.image), ran.summary["pipeline"])
        assert expected.mask.any()
        np.testing.assert_array_equal(vesu.read_volume(ran.folder / "masks" / f"{test.volume_id}.tif"), expected.mask)
        entry = json.loads((ran.folder / "segment" / f"{test.volume_id}.json").read_text())
        assert entry["ink_ratio_global"] == expected.diagnostics.ink_ratio_global
        assert entry["ink_ratio_by_slice"] == list(expected.diagnostics.ink_ratio_by_slice)


def test_nothing_is_declared_that_did_not_run(ran: RunResult) -> None:  # R32 R54
    phases = ["discovery", "preflight", "load", "segment", "package"]
    assert [event["phase"] for event in events(ran, "PHASE_END")] == phases
    assert [phase["name"] for phase in ran.summary["phases"]] == phases
    assert sum(phase["weight"] for phase in ran.summary["phases"]) == pytest.approx(1)
    names = {str(event["event"]) for event in iter_events(ran.folder / "events.jsonl")}
    assert not {name for name in names if name.startswith(("TRAIN", "SEARCH", "FEATURES", "CALIBRATION"))}
    assert "search" not in ran.summary and "calibration" not in ran.summary["validation"]
    assert not any((ran.folder / name).exists() for name in ("model.npz", "model.json", "leaderboard.json"))


def test_progress_is_true_and_ends_at_100(ran: RunResult) -> None:  # R34
    shown = [event["global_progress_reel"] for event in events(ran, "PROGRESS_UPDATE")]
    assert shown == sorted(shown) and shown[-1] == pytest.approx(100)
    assert not events(ran, "PROGRESS_INTEGRITY_ALERT")


def test_phases_not_asked_for_weigh_nothing(dataset: Path, tests_only: Path) -> None:  # R34 R54
    for folder, left_out in ((dataset, TRAINED), (tests_only, TRAINED | {"load"})):
        weights = phase_weights(vesu.discover(folder), config_of("nx46"), 26)
        assert tuple(weights) == PHASES
        assert {name for name, weight in weights.items() if weight == 0} == left_out


def test_the_evidence_holds(ran: RunResult) -> None:  # R38
    report = verify(ran.folder / "events.jsonl")
    assert report.root == ran.summary["ledger"]["root"]
    assert json.loads((ran.folder / "config.json").read_text())["pipeline"] == ran.summary["pipeline"]
    (start,) = events(ran, "RUN_START")
    assert start["config"]["pipeline"] == ran.summary["pipeline"]


def test_its_scores_compare_with_the_searchs(ran: RunResult, finished: RunResult) -> None:  # R32
    ours, searched = ran.summary["validation"], finished.summary["validation"]
    for same in ("volumes", "density_label", "baselines"):
        assert ours[same] == searched[same], same
    assert 0 < ours["f1"] < searched["f1"]
    assert finished.summary["pipeline"] == "vesu"


def test_the_scores_are_those_of_its_masks(ran: RunResult, dataset: Path) -> None:  # R32
    (name,) = ran.summary["validation"]["volumes"]
    (pair,) = [pair for pair in vesu.discover(dataset).pairs if pair.volume_id == name]
    mask = baselines.segment(vesu.read_volume(pair.image), ran.summary["pipeline"]).mask
    label = vesu.read_volume(pair.label)
    found, surface = mask[label != 2] == 1, label[label != 2] == 1
    f1 = 2 * np.count_nonzero(found & surface) / (np.count_nonzero(found) + np.count_nonzero(surface))
    assert ran.summary["validation"]["f1"] == pytest.approx(f1)
    assert ran.summary["validation"]["density_mask"] == pytest.approx(found.mean())


def test_the_report_says_which_pipeline_ran(ran: RunResult, finished: RunResult) -> None:  # R32
    assert ran.report is not None and finished.report is not None
    text, other = (result.report.read_text(encoding="utf-8") for result in (ran, finished) if result.report)
    assert f"pipeline {ran.summary['pipeline']}" in text and "Nothing was trained" in text
    assert "Uncertainty 0" not in text and "held out from the search" not in text
    assert "pipeline vesu" in other and "Nothing was trained" not in other and "Uncertainty 0" in other
    caption = "<figcaption>{}</figcaption>".format
    assert text.count(caption("Mask on CT")) == other.count(caption("Uncertainty")) == 2 * 3
    assert text.count(caption("Uncertainty")) == 0


def test_no_label_is_needed(tests_only: Path, ran: RunResult, tmp_path: Path) -> None:  # R32
    name = ran.summary["pipeline"]
    result = vesu.run(tests_only, tmp_path, config=config_of(name), display="none")
    assert "validation" not in result.summary
    assert result.submission.sha256 == ran.submission.sha256
    assert result.report is not None and "Validation scores: not recorded" in result.report.read_text(encoding="utf-8")
    assert name in result._repr_html_() and "no labelled volume" in result._repr_html_()
    with pytest.raises(PreflightError):
        vesu.run(tests_only, tmp_path / "search", config=config_of("vesu"), display="none")


def test_an_only_pair_is_scored(dataset: Path, tmp_path: Path) -> None:  # R32
    pair = vesu.discover(dataset).pairs[0]
    shutil.copytree(dataset / "test_images", tmp_path / "set" / "test_images")
    for source in (pair.image, pair.label):
        (tmp_path / "set" / source.parent.name).mkdir()
        shutil.copy(source, tmp_path / "set" / source.parent.name)
    result = vesu.run(tmp_path / "set", tmp_path / "run", config=config_of("nx47"), display="none")
    assert result.summary["validation"]["volumes"] == [pair.volume_id]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_do_not_show_in_the_zip(ran: RunResult, tests_only: Path, tmp_path: Path, n_threads: int) -> None:
    config = dataclasses.replace(config_of(ran.summary["pipeline"]), n_threads=n_threads)
    assert vesu.run(tests_only, tmp_path, config=config, display="none").submission.sha256 == ran.submission.sha256


def test_the_parameters_reach_the_scorer(tests_only: Path, tmp_path: Path) -> None:  # R32
    result = vesu.run(tests_only, tmp_path, config=config_of("nx46", "nx46.threshold_quantile=0.9"), display="none")
    assert all(0.09 < member.ink_ratio <= 0.1 for member in result.submission.members)


def test_the_command_line(tests_only: Path, ran: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = ran.summary["pipeline"]  # R32
    assert main(["run", str(tests_only), "--pipeline", name, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"pipeline    {name}: a historical scorer, nothing was trained" in out and "search" not in out
    test = vesu.discover(tests_only).tests[0]
    mask, score = tmp_path / "mask.tif", tmp_path / "score.tif"
    words = [str(test.image), "--pipeline", name, "--out", str(mask), "--probability", str(score)]
    assert main(["segment", *words]) == 0
    np.testing.assert_array_equal(
        vesu.read_volume(mask), vesu.read_volume(tmp_path / "run" / "masks" / f"{test.volume_id}.tif")
    )
    np.testing.assert_array_equal(vesu.read_volume(score), baselines.score(vesu.read_volume(test.image), name))


def test_the_demo_runs_a_scorer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R32
    words = ["demo", "--out", str(tmp_path), "--size", "32", "--train", "2", "--test", "1", "--pipeline", "nx46"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "nothing was trained" in out and "labelled volumes" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "{data}", "--pipeline", "nx48"], "pipeline: got 'nx48'; accepted: 'vesu' or 'nx46' or 'nx47'"),
        (["demo", "--out", "{tmp}/d", "--pipeline", "7"], "pipeline: got '7'"),
        (["segment", "{ct}", "--out", "{tmp}/m.tif"], "--model: got none"),
        (["segment", "{ct}", "--out", "{tmp}/m.tif", "--pipeline", "vesu"], "--model: got none"),
        (
            ["segment", "{ct}", "--out", "{tmp}/m.tif", "--model", "{tmp}", "--pipeline", "nx46"],
            "a model knows its own",
        ),
        (["segment", "{ct}", "--out", "{tmp}/m.tif", "--model", "{tmp}", "--set", "seed=1"], "a model knows its own"),
        (["segment", "{ct}", "--out", "{ct}", "--pipeline", "nx46"], "twice"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str], named: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"{tmp}": str(tmp_path), "{data}": str(dataset), "{ct}": str(vesu.discover(dataset).tests[0].image)}
    for mark, place in places.items():
        words = [word.replace(mark, place) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("vesu: ArgumentError: ") and named in error and error.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_the_environment_chooses(tests_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R32
    monkeypatch.setenv("VESU_PIPELINE", "nx46")
    monkeypatch.setenv("VESU_NX46_THRESHOLD_QUANTILE", "0.95")
    assert main(["run", str(tests_only), "--out", str(tmp_path), "--quiet"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pipeline"] == "nx46"
    assert all(0.04 < member["ink_ratio"] <= 0.05 for member in summary["submission"]["members"])
