"""The history's environment variables, the run's tag, and the dry run (R43)."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from vesu.cli import main
from vesu.config import ALIASES, RunConfig, load_config
from vesu.data.volumes import read_volume, write_volume
from vesu.errors import ArgumentError, DataError, FileError
from vesu.ledger import iter_events
from vesu.run import compatibility
from vesu.run.checkpoint import CheckpointStore
from vesu.run.dry_run import dry_run
from vesu.run.folder import check_claimable, claimed, locked
from vesu.run.parts import make_part

TARGETS = {
    "NX46_THRESHOLD_QUANTILE": ("0.97", {"nx46.threshold_quantile": 0.97}),
    "NX46_SCORE_BLEND_3D_WEIGHT": ("0.6", {"nx46.score_blend_3d_weight": 0.6}),
    "NX46_Z_SMOOTHING_RADIUS": ("4", {"nx46.z_smoothing_radius": 4}),
    "NX46_RUN_TAG": ("007", {"tag": "007"}),
    "NX46_DRY_RUN": ("1", {"dry_run": True}),
    "V1442_META_NEURONS": ("12", {"search.meta_neurons": 12}),
    "V1442_MAX_ITER": ("150", {"search.max_iter": 150}),
    "V1442_SUPERVISED_EPOCHS": ("0", {"search.supervised_epochs": 0}),
    "V1442_USE_UNET_25D": ("true", {"student.use": "on", "student.stem": "2.5d"}),
    "V1442_MAX_TRAIN_VOLUMES": ("24", {"sampling.max_train_volumes": 24}),
    "V1442_MAX_VAL_VOLUMES": ("8", {"sampling.max_val_volumes": 8}),
    "V138_MAX_TRAIN_VOLUMES": ("24", {"sampling.max_train_volumes": 24}),
    "V138_MAX_VAL_VOLUMES": ("8", {"sampling.max_val_volumes": 8}),
    "V1442_HEARTBEAT_INTERVAL_S": ("7.5", {"time.heartbeat_s": 7.5}),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs and two test volumes of noise: nothing is learned from them here."""
    data, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(5):
        kinds = {"train_images": 256, "train_labels": 2} if number < 3 else {"test_images": 256}
        for kind, values in kinds.items():
            (data / kind).mkdir(exist_ok=True)
            write_volume(data / kind / f"{number}.tif", random.integers(0, values, (24, 24, 24), dtype=np.uint8))
    return data


def value_of(config: RunConfig, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def test_every_historical_variable_has_a_target() -> None:  # R43
    assert set(ALIASES) == set(TARGETS)
    assert {name: set(alias.keys) for name, alias in ALIASES.items()} == {
        name: set(sets) for name, (_, sets) in TARGETS.items()
    }


@pytest.mark.parametrize("name", TARGETS)
def test_a_historical_variable_sets_todays_key(name: str) -> None:  # R43
    text, sets = TARGETS[name]
    config = load_config(environment={name: text, "HOME": "/root"})
    assert {key: value_of(config, key) for key in sets} == sets
    (use,) = config.aliases_used
    assert use.to_json() == {"name": name, "value": text, "sets": sets, "in_force": True}
    plain = load_config(overrides=[f"{key}={json.dumps(value)}" for key, value in sets.items()], environment={})
    assert config == plain and not plain.aliases_used


@pytest.mark.parametrize("word", ["0", "false", "No", " off "])
def test_a_switch_may_be_off(word: str) -> None:  # R43
    config = load_config(environment={"V1442_USE_UNET_25D": word, "NX46_DRY_RUN": word})
    assert (config.student.use, config.dry_run) == ("off", False)


def test_the_environment_stands_between_file_and_command_line(tmp_path: Path) -> None:  # R43
    (tmp_path / "vesu.toml").write_text("[nx46]\nthreshold_quantile = 0.9\nz_smoothing_radius = 1\n")
    environment = {"NX46_THRESHOLD_QUANTILE": "0.95", "NX46_Z_SMOOTHING_RADIUS": "3"}
    config = load_config(tmp_path / "vesu.toml", environment=environment, overrides=["nx46.z_smoothing_radius=5"])
    assert (config.nx46.threshold_quantile, config.nx46.z_smoothing_radius) == (0.95, 5)
    assert {use.name: use.in_force for use in config.aliases_used} == {
        "NX46_THRESHOLD_QUANTILE": True,
        "NX46_Z_SMOOTHING_RADIUS": False,
    }


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"V1442_MAX_TRAIN_VOLUMES": "24", "V138_MAX_TRAIN_VOLUMES": "30"}, "sampling.max_train_volumes"),
        ({"V1442_MAX_ITER": "150", "VESU_SEARCH_MAX_ITER": "151"}, "search.max_iter"),
        ({"V1442_USE_UNET_25D": "1", "VESU_STUDENT_STEM": "3d"}, "student.stem"),
        ({"V1442_USE_UNET_25D": "0", "VESU_STUDENT_USE": "on"}, "student.use"),
    ],
)
def test_contradictory_names_are_both_named(environment: dict[str, str], named: str) -> None:  # R43
    with pytest.raises(ArgumentError) as caught:
        load_config(environment=environment)
    for name, value in environment.items():
        assert f"{name}={value}" in str(caught.value)
    assert f"both set {named}" in str(caught.value)


def test_names_that_agree_do_not_contradict() -> None:  # R43
    both = {"V1442_MAX_VAL_VOLUMES": "8", "V138_MAX_VAL_VOLUMES": "8", "VESU_SAMPLING_MAX_VAL_VOLUMES": "8"}
    config = load_config(environment=both)
    assert config.sampling.max_val_volumes == 8 and len(config.aliases_used) == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("V1442_META_NEURONS", "3", "search.meta_neurons: got 3; accepted: 9 or more, never below the default grid"),
        ("V1442_MAX_ITER", "60", "search.max_iter: got 60; accepted: 120 or more, never below the default grid"),
        ("V1442_HEARTBEAT_INTERVAL_S", "60", "time.heartbeat_s: got 60.0"),
        ("NX46_THRESHOLD_QUANTILE", "98.5", "nx46.threshold_quantile: got 98.5; accepted: 0 to 1"),
        ("NX46_Z_SMOOTHING_RADIUS", "two", "nx46.z_smoothing_radius: got 'two'"),
        ("NX46_RUN_TAG", "a\nb", "tag: got 'a\\nb'"),
    ],
)
def test_a_value_out_of_range_is_refused_as_any_other(name: str, value: str, message: str) -> None:  # R43 R50 R52
    with pytest.raises(ArgumentError) as caught:
        load_config(environment={name: value})
    assert message in str(caught.value) and f"(set by {name}={value})" in str(caught.value)


@pytest.mark.parametrize("name", ["NX46_THRESHOLD", "V1442_MAXITER", "V138_META_NEURONS"])
def test_a_mistyped_historical_name_is_refused(name: str) -> None:  # R43
    with pytest.raises(ArgumentError) as caught:
        load_config(environment={name: "1"})
    assert f"environment: got {name}" in str(caught.value)
    assert all(known in str(caught.value) for known in ALIASES)


def test_a_switch_that_is_neither_is_refused() -> None:  # R43
    with pytest.raises(ArgumentError, match="NX46_DRY_RUN: got 'maybe'; accepted: 1 true yes on, or 0 false no off"):
        load_config(environment={"NX46_DRY_RUN": "maybe"})


def test_used_aliases_are_no_key(tmp_path: Path) -> None:
    assert "aliases_used" not in RunConfig().to_json()
    with pytest.raises(ArgumentError, match="configuration key: got aliases_used"):
        load_config(overrides=["aliases_used=[]"], environment={})
    with pytest.raises(ArgumentError, match="VESU_ALIASES_USED"):
        load_config(environment={"VESU_ALIASES_USED": "[]"})


def test_a_tag_changes_no_result() -> None:  # R37 R43
    tagged = load_config(environment={"NX46_RUN_TAG": "v7.5"})
    assert compatibility.config_fields(tagged) == compatibility.config_fields(RunConfig())


def test_aliases_and_tag_stand_in_the_runs_evidence(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # R43 R54
    for name, value in {"NX46_RUN_TAG": "v7.5 q97", "NX46_THRESHOLD_QUANTILE": "0.97"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vesu.report.write_report", lambda folder: folder / "report.html")  # its figures are dear
    run = tmp_path / "run"
    assert main(["run", str(dataset), "--out", str(run), "--quiet", "--pipeline", "nx46"]) == 0
    assert "tag         v7.5 q97" in capsys.readouterr().out
    events = list(iter_events(run / "events.jsonl"))
    used = [event for event in events if event["event"] == "CONFIG_ALIAS_USED"]
    assert [(each["name"], each["value"], each["sets"], each["in_force"]) for each in used] == [
        ("NX46_RUN_TAG", "v7.5 q97", {"tag": "v7.5 q97"}, True),
        ("NX46_THRESHOLD_QUANTILE", "0.97", {"nx46.threshold_quantile": 0.97}, True),
    ]
    assert events[0]["config"]["tag"] == "v7.5 q97"
    assert json.loads((run / "summary.json").read_text())["tag"] == "v7.5 q97"
    densities = [json.loads(path.read_text())["ink_ratio_global"] for path in (run / "segment").glob("*.json")]
    assert densities == pytest.approx([0.03] * len(densities), abs=2e-3)  # the quantile was in force


def files_below(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_dry_run_answers_and_writes_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # R02 R43
    before = files_below(dataset)
    assert main(["run", str(dataset), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "3 pairs (2 train, 1 validation, 0 left out), 2 test volumes" in printed
    assert "135 candidates x 120 iterations" in printed and "a run is possible; nothing was run" in printed
    monkeypatch.setenv("NX46_DRY_RUN", "1")
    assert main(["run", str(dataset), "--out", str(tmp_path / "run")]) == 0
    assert "alias       NX46_DRY_RUN=1: dry_run = True" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and files_below(dataset) == before


def test_a_dry_run_says_all_that_is_missing_and_exits_with_2(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R02 R22 R43
    data = tmp_path / "data"
    for path in dataset.rglob("*.tif"):
        copy = data / path.relative_to(dataset)
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_volume(copy, read_volume(path))
    label = next((data / "train_labels").glob("*.tif"))
    write_volume(label, read_volume(label)[:-1])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "submission.zip").write_bytes(b"somebody else's")
    words = ["run", str(data), "--out", str(tmp_path / "run"), "--dry-run", "--student", "on"]
    assert main([*words, "--set", "search.solver=prox_newton", "--set", "search.device=torch"]) == 2
    answer = capsys.readouterr()
    for code in ("SHAPE_MISMATCH", "RUN_FOLDER", "SEARCH_DEVICE", "STUDENT"):
        assert code in answer.out and code in answer.err, code
    assert "blocked by 4 findings" in answer.out
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "submission.zip"]


def test_a_dry_run_tells_an_unfinished_or_busy_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R37
    folder = tmp_path / "run"
    with claimed(folder):
        pass
    check_claimable(folder)
    with locked(folder), pytest.raises(FileError, match="another run writes here"):
        check_claimable(folder)

    class Manifest:
        phase, iter, epoch, max_iter = "fit", 30, 0, 120

    class Found:
        manifest = Manifest

    monkeypatch.setattr(CheckpointStore, "latest", lambda self: Found)
    with pytest.raises(DataError, match="an unfinished run"):
        check_claimable(folder)
    check_claimable(folder, restart=True)


def test_a_dry_run_is_never_taken_for_a_run(dataset: Path, tmp_path: Path) -> None:  # R43 R54
    dry = dataclasses.replace(RunConfig(), dry_run=True)
    with pytest.raises(ArgumentError, match=r"config.dry_run: got True"):
        vesu.run(dataset, tmp_path / "run", config=dry, display="none")
    with pytest.raises(ArgumentError, match=r"config.dry_run: got True for a part"):
        make_part(dataset, tmp_path / "run", phase="features", num_parts=1, part_id=0, config=dry)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "{data}", "--dry-run", "--phase", "features"],
        ["run", "{data}", "--dry-run", "--resume-from-checkpoint"],
        ["demo", "--set", "dry_run=true"],
        ["segment", "{ct}", "--pipeline", "nx46", "--set", "dry_run=true", "--out", "m.tif"],
    ],
)
def test_a_command_without_a_dry_run_refuses_one(
    words: list[str],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # R43
    monkeypatch.chdir(tmp_path)
    ct = str(vesu.discover(dataset).tests[0].image)
    assert main([word.format(data=dataset, ct=ct) for word in words]) == 2
    assert "dry" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_dry_runs_answer_is_data_too(dataset: Path, tmp_path: Path) -> None:
    found = dry_run(dataset, tmp_path / "run", config=load_config(environment={"NX46_RUN_TAG": "a"}))
    answer = json.loads(json.dumps(found.to_json()))
    assert answer["possible"] and answer["volumes"] == {"train": 2, "validation": 1, "left_out": 0}
    assert answer["aliases_used"][0]["name"] == "NX46_RUN_TAG" and answer["candidates"] == 135
    assert "Dry run" in found._repr_html_() and "NX46_RUN_TAG" in found._repr_html_()
    scorer = dry_run(dataset, tmp_path / "run", config=load_config(overrides=["pipeline=nx47"], environment={}))
    assert scorer.candidates == 0 and "historical scorer" in str(scorer)
