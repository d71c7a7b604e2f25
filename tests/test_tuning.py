"""Tuning a finished run's ladder: the space, the studies, the verdict, and that it goes on where it was cut (R43)."""

import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesu
from vesu.cli import main
from vesu.config import RunConfig, config_from_json, config_toml, load_config, load_ladder, toml_value
from vesu.data.phantom import write_dataset
from vesu.data.volumes import read_volume
from vesu.errors import ArgumentError, DataError, FileError, ResumeIncompatible, VesuError
from vesu.ledger import iter_events, verify
from vesu.run import tuning
from vesu.run.tuning import tune
from vesu.run.tuning_source import Volume
from vesu.segmentation import Dust, SegmentConfig, SmoothZ, Threshold, ThresholdRule
from vesu.tuning import Choice, Range, Space, Studies, Trial, changed, default_space, read_space

LADDER = SegmentConfig((SmoothZ(0), Threshold(ThresholdRule("fixed", 0.3, 1.0)), Dust(1)))
DUST = Space({"segment.dust.min_voxels": Range(1, 200, log=True), "segment.threshold.rule.value": Range(0.2, 0.8)})
WITH_ONE = Space({**DUST.parameters, "segment.threshold.rule.low_factor": Range(0.3, 1.0)})
"""The ladder's own low factor is 1.0, which JSON takes for 1."""
SMALL = {"trials": 6, "metric": "f_beta"}


# ---- the space


@pytest.mark.parametrize(
    ("key", "parameter", "message"),
    [
        (
            "search.max_iter",
            Range(10, 120),
            r"search.max_iter: got it in a space .* \(the grid is never tuned smaller, R50",
        ),
        ("search.meta_neurons", Range(9, 20), "R50"),
        ("sampling.voxels_per_volume", Range(10, 20), r"accepted: keys of \[segment\]"),
        ("seed", Choice((1, 2)), r"accepted: keys of \[segment\]"),
        ("segment.steps", Choice(("threshold", "threshold,dust")), "segment.steps: got it"),
        ("segment.calibration.fit", Choice((True, False)), "segment.calibration.fit: got it"),
        ("segment.dust.size", Range(1, 2), "segment.dust.size: no such parameter"),
        ("segment.sand.size", Range(1, 2), "configuration key: got segment.sand"),
        ("segment.dust.min_voxels", Range(-5, 5), "segment.dust.min_voxels: got -5"),
        ("segment.threshold.rule.value", Range(0.5, 1.5), "got 1.5"),
        ("segment.calibration.metric", Choice(("score", "iou")), "segment.calibration.metric: got 'iou'"),
    ],
)
def test_a_space_refuses_what_is_not_its_own(key: str, parameter: Any, message: str) -> None:  # R43 R50
    with pytest.raises(ArgumentError, match=message):
        Space({key: parameter})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Space({}),
        lambda: Range(5, 5),
        lambda: Range(6, 5),  # bounds that cross
        lambda: Range(0, float("nan")),
        lambda: Range(0, 5, log=True),
        lambda: Range(True, 5),
        lambda: Choice((1,)),
        lambda: Choice((1, 1)),
        lambda: Space(
            {"segment.threshold.rule.value": Range(0.1, 0.2), "segment.calibration.metric": Choice(("f1", "score"))}
        ),
        lambda: Space({"segment.fill.connectivity": Choice((6, 26))}).require_steps(RunConfig().segment),
    ],
)
def test_what_makes_no_space_is_refused(make: Any) -> None:
    with pytest.raises(ArgumentError, match="accepted"):
        make()


def test_a_space_is_read_from_a_file(tmp_path: Path) -> None:  # R43
    path = tmp_path / "space.toml"
    path.write_text(
        "[segment.dust]\nmin_voxels = {low = 100, high = 5000, log = true}\n"
        "[segment.closing]\nradius = [1, [2, 1, 1]]\n[segment.threshold.rule]\nvalue = {low = 0.9, high = 0.99}\n"
    )
    space = read_space(path)
    assert space.parameters == {
        "segment.dust.min_voxels": Range(100, 5000, log=True),
        "segment.closing.radius": Choice((1, (2, 1, 1))),
        "segment.threshold.rule.value": Range(0.9, 0.99),
    }
    assert Space.from_tables(json.loads(json.dumps({"segment": {"dust": {"min_voxels": [1, 2]}}}))).to_json() == {
        "segment.dust.min_voxels": [1, 2]
    }
    for text, named in (
        ("[search]\nmax_iter = {low = 10, high = 120}", "search.max_iter"),
        ("[segment.dust]\nmin_voxels = {low = 100, high = 5000, step = 3}", "segment.dust.min_voxels"),
        ("[segment.dust]\nmin_voxels = 100", "segment.dust.min_voxels: got 100; accepted: {low = A"),
        ("= 3", "a TOML file"),
    ):
        path.write_text(text)
        with pytest.raises(ArgumentError, match=r"space\.toml: ") as caught:
            read_space(path)
        assert named in str(caught.value)
    with pytest.raises(FileError):
        read_space(tmp_path / "none.toml")


def test_the_default_space_lies_around_the_runs_ladder() -> None:
    ladder = SegmentConfig()
    base = dataclasses.replace(RunConfig().segment, steps=ladder.steps)
    space = default_space(ladder)
    assert {key.split(".")[1] for key in space.parameters} == {"smooth_z", "threshold", "dust", "closing", "patch"}
    assert space.holds(space.values_of(base)) and not space.refits
    for mode, value in (("quantile", 0.94), ("quantile", 1.0), ("fixed", 1.0), ("ratio", 0.0)):
        ruled = SegmentConfig((Threshold(ThresholdRule(mode, value)),))  # type: ignore[arg-type]
        assert value in default_space(ruled).parameters["segment.threshold.rule.value"] or value in (0.0, 1.0)


def test_values_come_back_from_json_as_they_were() -> None:
    space = Space({"segment.closing.radius": Choice((1, (2, 1, 1))), "segment.patch.max_residual": Range(1.0, 4.0)})
    values = {"segment.closing.radius": (2, 1, 1), "segment.patch.max_residual": 3.0}
    back = space.normal({"segment.closing.radius": [2, 1, 1], "segment.patch.max_residual": 3})
    assert back == values and isinstance(back["segment.patch.max_residual"], float)


def test_changed_settings_change_nothing_else() -> None:
    base = load_config(
        overrides=['segment.steps=["threshold", {name="dust", min_voxels=9}, "closing", "dust"]'], environment={}
    ).segment
    values = {
        "segment.dust.min_voxels": 77,
        "segment.closing.radius": [2, 2, 2],
        "segment.calibration.modes": ["ratio"],
    }
    found = changed(base, values)
    assert [getattr(step, "min_voxels", None) for step in found.steps] == [None, 77, None, 77]
    assert found.steps[2].radius == (2, 2, 2) and found.calibration.modes == ("ratio",)  # type: ignore[attr-defined]
    assert found.steps[0] == base.steps[0] and found.calibration.metric == base.calibration.metric
    assert changed(base, {"segment.threshold.rule.value": 0.5}).ladder.threshold.rule.value == 0.5


# ---- a configuration as a file


@settings(max_examples=12, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**63 - 1),
            "tag": st.text(max_size=20).filter(str.isprintable),
            "sampling.voxels_per_volume": st.integers(2, 10**9),
            "search.learning_rate": st.floats(1e-6, 10) | st.just("auto"),
            "time.limit_s": st.none() | st.floats(1000, 1e6),
            "teachers.folder": st.sampled_from(["a b", 'quo"te', "back\\slash", "\x7f"]),
            "segment.calibration.modes": st.sampled_from([["ratio"], ["fixed", "ratio"]]),
            "segment.dust.min_voxels": st.integers(0, 10**6),
            "segment.closing.radius": st.sampled_from([0, [2, 2, 1]]),
            "search.meta_neurons": st.integers(9, 40),
        },
    )
)
def test_a_configuration_written_is_the_one_read(values: dict[str, Any]) -> None:
    config = load_config(overrides=[f"{key}={toml_value(value)}" for key, value in values.items()], environment={})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.toml")
        path.write_text(config_toml(config), encoding="utf-8")
        assert load_config(path, environment={}) == config
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_ladder_needs_to_be_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[segment.dust]\nmin_voxels = 9\n")
    with pytest.raises(ArgumentError, match=r"a\.toml: got no segment.steps"):
        load_ladder(path)
    path.write_text(
        config_toml(
            dataclasses.replace(RunConfig(), segment=dataclasses.replace(RunConfig().segment, steps=LADDER.steps))
        )
    )
    assert load_ladder(path) == LADDER


# ---- the studies


def test_studies_go_on_exactly_wherever_they_were_cut(tmp_path: Path) -> None:  # R37
    space = Space({**DUST.parameters, "segment.closing.radius": Choice((0, (2, 1, 1), 1))})

    def value(values: dict[str, Any]) -> float:
        return -abs(values["segment.dust.min_voxels"] - 60) / 200 - abs(values["segment.threshold.rule.value"] - 0.5)

    def walk(cuts: tuple[int, ...]) -> list[Trial]:
        done: dict[int, list[Trial]] = {7: []}
        studies = Studies(tmp_path / "j", space, done)
        while len(done[7]) < 14:
            if len(done[7]) in cuts:
                studies.ask(7)  # asked for and never told: a process that was killed
                studies = Studies(tmp_path / "j", space, done)
            asked, values = studies.ask(7)
            done[7].append(Trial(values, value(values)))
            studies.tell(7, asked, done[7][-1].value)
        return done[7]

    whole = walk(())
    assert walk((11, 13)) == whole
    assert len({json.dumps(trial.values) for trial in whole}) > 10 and all(space.holds(trial.values) for trial in whole)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "j"))
    study = optuna.load_study(study_name="seed-7", storage=optuna.storages.JournalStorage(backend))
    assert [trial.value for trial in study.trials] == [trial.value for trial in whole]  # Optuna's own reader


def test_without_optuna_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(VesuError, match=r"optuna cannot be imported .*pip install 'vesu\[tune\]'"):
        tune(tmp_path)


# ---- a tuning


def sheets(seed: int, specks: bool = True) -> Volume:
    """A sheet, and where there are specks many small components as sure as it is."""
    random = np.random.default_rng(seed)
    label = np.zeros((20, 24, 24), np.uint8)
    label[:, 10 + seed % 4 : 12 + seed % 4] = 1
    probability = random.uniform(0, 0.35, label.shape).astype(np.float32)
    probability[label == 1] = random.uniform(0.45, 0.95, int(label.sum())).astype(np.float32)
    if specks:
        places = random.integers(0, 20, (60, 3))
        probability[tuple(places.T)] = 0.9
    return Volume(f"v{seed}", probability, None, label)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run as far as a tuning looks, whose ladder lets all specks through."""
    return faked(tmp_path / "run", monkeypatch, [sheets(seed) for seed in range(6)])


def faked(folder: Path, monkeypatch: pytest.MonkeyPatch, volumes: list[Volume]) -> Path:
    folder.mkdir(exist_ok=True)
    pairs = []
    for each in volumes:
        np.save(folder / f"{each.volume_id}.npy", each.probability)
        path = folder / f"{each.volume_id}.npy"
        pairs.append(SimpleNamespace(volume_id=each.volume_id, image=path, label=path))
    config = dataclasses.replace(
        RunConfig(), tag="old", segment=dataclasses.replace(RunConfig().segment, steps=LADDER.steps)
    )
    known = {each.volume_id: each for each in volumes}
    monkeypatch.setattr(tuning, "finished_run", lambda run: (config, SimpleNamespace(segment_config=LADDER)))
    monkeypatch.setattr(tuning, "run_id_of", lambda run: "fake")
    monkeypatch.setattr(tuning, "model_files", lambda run: {"model.npz": "00"})
    monkeypatch.setattr(tuning, "validation_pairs", lambda run, data, most: pairs[:most])
    monkeypatch.setattr(tuning, "predicted", lambda pair, *rest: known[pair.volume_id])
    return folder


def trials_in(run: Path) -> list[dict[str, Any]]:
    return [event for event in iter_events(run / "tuning" / "events.jsonl") if event["event"] == "TUNING_TRIAL"]


def test_a_tuning_finds_what_helps_and_leaves_its_evidence(run: Path) -> None:  # R43 R54
    found = tune(run, space=DUST, **SMALL)
    assert found.stable and found.promotion.gain.low > 0.05 and found.fit_value > found.fit_was
    assert (found.fit, found.judge) == (("v0", "v1", "v2"), ("v3", "v4", "v5"))
    assert found.promotion.gain.volumes == found.judge and found.promotion.gain.seeds == (0, 1, 2)
    log = run / "tuning" / "events.jsonl"
    checked = verify(log)
    assert (checked.entries, checked.root) == (found.entries, found.root)
    trials = trials_in(run)
    assert [(each["seed"], each["number"]) for each in trials] == [(s, n) for s in range(3) for n in range(6)]
    best = max(trials, key=lambda each: each["value"])
    assert best["value"] == found.fit_value and best["params"] == dict(found.values)
    for each in trials:  # what stands in the log is what that ladder gives
        ladder = changed(dataclasses.replace(RunConfig().segment, steps=LADDER.steps), each["params"]).ladder
        assert each["by_volume"] is None or each["value"] == pytest.approx(f_beta(ladder, range(3)), abs=0)
    result = json.loads((run / "tuning" / "tuning.json").read_text())
    assert result["stable"] and result["root"] == found.root and result["tree_head"].startswith("vesu/run\n")
    assert result["promotion"]["gain"]["by_seed"] == pytest.approx(
        [mean_gain(trials, seed) for seed in range(3)], abs=1e-12
    )
    config = load_config(found.toml, environment={})
    assert config.tag == "" and not config.segment.calibration.fit
    assert load_ladder(found.toml) == config.segment.ladder and config.segment.ladder != LADDER
    assert "a stable gain" in str(found) and "segment.dust.min_voxels" in str(found)
    assert "the gain is stable" in found._repr_html_()


def f_beta(ladder: SegmentConfig, seeds: Any) -> float:
    volumes = [sheets(seed) for seed in seeds]
    return float(
        np.mean(
            [vesu.segmentation.confusion(vesu.segment(v.probability, ladder).mask, v.label).f_beta for v in volumes]
        )
    )


def mean_gain(trials: list[dict[str, Any]], seed: int) -> float:
    best = max((each for each in trials if each["seed"] == seed), key=lambda each: each["value"])
    ladder = changed(dataclasses.replace(RunConfig().segment, steps=LADDER.steps), best["params"]).ladder
    return f_beta(ladder, range(3, 6)) - f_beta(LADDER, range(3, 6))


def test_an_interrupted_tuning_goes_on_to_the_same_result(run: Path) -> None:  # R37 R43
    def result() -> tuple[Any, bytes, list[Any]]:
        values = json.loads((run / "tuning" / "tuning.json").read_text())
        kept = {key: values[key] for key in values.keys() - {"entries", "root", "tree_head"}}
        trials = [(each["seed"], each["params"], each["value"]) for each in trials_in(run)]
        return kept, (run / "tuning" / "tuned.toml").read_bytes(), trials

    tune(run, space=WITH_ONE, **SMALL)
    whole = result()
    for cut in (1, 6, 13):
        seen: list[float] = []

        def stop(seed: int, n: int, value: float, seen: list[float] = seen, cut: int = cut) -> None:
            seen.append(value)
            if len(seen) == cut:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(run, space=WITH_ONE, restart=True, on_trial=stop, **SMALL)
        assert not (run / "tuning" / "tuned.toml").exists()
        log = run / "tuning" / "events.jsonl"
        with log.open("ab") as file:
            file.write(b'{"torn')  # and the last record was being written
        tune(run, space=WITH_ONE, **SMALL)
        assert result() == whole and len(trials_in(run)) == 18
        assert verify(log).entries == json.loads((run / "tuning" / "tuning.json").read_text())["entries"]


def test_more_trials_go_on_and_another_question_is_refused(run: Path) -> None:  # R37
    first = tune(run, space=DUST, trials=2, metric="f_beta")
    more = tune(run, space=DUST, **SMALL)
    assert more.fit_value >= first.fit_value and len(trials_in(run)) == 18
    other = Space({"segment.dust.min_voxels": Range(1, 9)})
    with pytest.raises(ResumeIncompatible, match=r"RESUME_INCOMPATIBLE: .* a tuning with space .*--restart"):
        tune(run, space=other, **SMALL)
    with pytest.raises(ResumeIncompatible, match="with metric f_beta"):
        tune(run, space=DUST, trials=2)
    assert len(trials_in(run)) == 18  # what was there is still there
    tune(run, space=other, trials=1, seeds=[4], metric="f_beta", restart=True)
    assert [each["seed"] for each in trials_in(run)] == [4]


def test_a_gain_that_does_not_hold_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R43 R54
    clean = [sheets(seed, specks=seed < 2) for seed in range(4)]  # the volumes that judge have nothing to remove
    for each in clean[2:]:
        np.minimum(each.probability, 0.25, out=each.probability, where=each.label == 0)
    found = tune(
        faked(tmp_path / "run", monkeypatch, clean), space=Space({"segment.dust.min_voxels": Range(1, 60)}), **SMALL
    )
    assert found.fit_value > found.fit_was and not found.stable
    assert "NOT a stable gain" in str(found) and "keep the run's own ladder" in str(found)
    assert found.toml.read_text().startswith("# vesu tune: NOT a stable gain over the run's own ladder")
    one_seed = tune(tmp_path / "run", space=Space({"segment.dust.min_voxels": Range(1, 60)}), seeds=[0], **SMALL)
    assert not one_seed.stable and "one seed" in one_seed.promotion.reason


def test_nothing_better_leaves_the_runs_own_ladder(run: Path) -> None:
    found = tune(
        run,
        space=Space({"segment.smooth_z.radius": Range(0, 3), "segment.threshold.rule.value": Range(0.0, 0.1)}),
        **SMALL,
    )
    assert not found.values and found.fit_value == found.fit_was and not found.stable
    assert load_ladder(found.toml) == LADDER and "none: no trial was better" in str(found)


def test_calibration_settings_are_tuned_with_the_rule_fitted_in_each_trial(run: Path) -> None:  # R28 R43
    space = Space(
        {"segment.calibration.modes": Choice((("fixed",), ("quantile",))), "segment.dust.min_voxels": Range(1, 100)}
    )
    found = tune(run, space=space, trials=4, metric="f_beta")
    config = load_config(found.toml, environment={})
    assert (
        config.segment.calibration.fit and config.segment.calibration.modes == found.values["segment.calibration.modes"]
    )
    assert config.segment.ladder.threshold.rule.mode == config.segment.calibration.modes[0]
    assert config.segment.ladder.threshold.rule != LADDER.threshold.rule


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 0},
        {"trials": True},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": [-1]},
        {"metric": "iou"},
        {"max_volumes": 1},
    ],
)
def test_bad_arguments_are_named(run: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        tune(run, **wrong)
    assert not (run / "tuning").exists()


# ---- a real run


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three small volumes, two of them kept for validation; its data beside it."""
    folder = tmp_path_factory.mktemp("tune")
    data = write_dataset(folder / "data", n_train=3, n_test=1, shape=(32, 32, 32), seed=3)
    small = ["sampling.voxels_per_volume=600", "segment.dust.min_voxels=30", "sampling.validation_fraction=0.6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vesu.report.write_report", lambda folder: folder / "report.html")  # its figures are dear
        vesu.run(data, folder / "run", config=load_config(overrides=small, environment={}), display="none")
    return folder / "run"


def test_a_real_run_is_tuned_from_the_command_line(
    real_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R43
    before = (real_run / "events.jsonl").read_bytes()
    assert main(["tune", str(real_run), "--trials", "3", "--seeds", "2", "--metric", "f_beta"]) == 0
    printed = capsys.readouterr().out
    assert "seed 1, trial 3 of 3: f_beta" in printed and "NOT a stable gain" in printed  # two seeds prove nothing
    assert (real_run / "events.jsonl").read_bytes() == before  # the run's own log is sealed
    toml = real_run / "tuning" / "tuned.toml"
    model, (ct,) = vesu.SurfaceModel.load(real_run), vesu.discover(real_run.parent / "data").tests
    assert (
        main(
            [
                "segment",
                str(ct.image),
                "--model",
                str(real_run),
                "--config",
                str(toml),
                "--out",
                str(tmp_path / "m.tif"),
            ]
        )
        == 0
    )
    expected = vesu.segment(model.predict(read_volume(ct.image)).probability, load_ladder(toml)).mask
    np.testing.assert_array_equal(read_volume(tmp_path / "m.tif"), expected)
    hits = [event for event in iter_events(real_run / "tuning" / "events.jsonl") if event["event"] == "CACHE_STORED"]
    assert len(hits) == 2  # each probability once; the volumes were there
    assert load_config(toml, environment={}).sampling.voxels_per_volume == 600


def test_a_run_that_cannot_be_tuned_says_why(real_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(real_run, tmp_path / "run"))
    other = tmp_path / "data"
    shutil.copytree(real_run.parent / "data", other)
    for path in (other / "train_labels").glob("*.tif"):
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="is another one than the run validated on"):
        tune(copy, other)
    for path in (other / "train_images").glob("*.tif"):
        path.unlink()
    for path in (other / "train_labels").glob("*.tif"):
        path.unlink()
    with pytest.raises(DataError, match="is not there"):
        tune(copy, other)
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "status": "stopped"}))
    with pytest.raises(DataError, match="the run is not finished"):
        tune(copy)
    (copy / "summary.json").write_text(json.dumps(summary))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(DataError, match="holds no checkpoint"):
        tune(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "pipeline": "nx46"}))
    with pytest.raises(DataError, match="pipeline nx46 has no model"):
        tune(copy)
    with pytest.raises(FileError):
        tune(tmp_path / "nothing")
