"""Tuning a finished run's ladder: the studies, the verdict, and that it goes on where it was cut (R43)."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

import vesu
from vesu.cli import main
from vesu.config import RunConfig, load_config, load_ladder
from vesu.data.phantom import write_dataset
from vesu.data.volumes import read_volume
from vesu.errors import ArgumentError, DataError, FileError, ResumeIncompatible, VesuError
from vesu.ledger import iter_events, verify
from vesu.run import tuning
from vesu.run.tuning import tune
from vesu.run.tuning_source import Volume
from vesu.segmentation import Dust, SegmentConfig, SmoothZ, Threshold, ThresholdRule
from vesu.tuning import Choice, Range, Space, Studies, Trial, changed

LADDER = SegmentConfig((SmoothZ(0), Threshold(ThresholdRule("fixed", 0.3, 1.0)), Dust(1)))
DUST = Space({"segment.dust.min_voxels": Range(1, 200, log=True), "segment.threshold.rule.value": Range(0.2, 0.8)})
WITH_ONE = Space({**DUST.parameters, "segment.threshold.rule.low_factor": Range(0.3, 1.0)})
"""The ladder's own low factor is 1.0, which JSON takes for 1."""
SMALL = {"trials": 6, "metric": "f_beta"}


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
