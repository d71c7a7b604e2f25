"""One run, end to end, on generated volumes."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vesu
from vesu.errors import DataError, FileError, FormatError, PreflightError
from vesu.ledger import iter_events, verify
from vesu.run.folder import claimed
from vesu.run.pipeline import RunResult
from vesu.run.plan import phase_weights, split_pairs
from vesu.run.progress import PHASES


def events(result: RunResult, name: str) -> list[dict[str, object]]:
    return [event for event in iter_events(result.folder / "events.jsonl") if event["event"] == name]


def test_the_zip_holds_a_valid_mask_for_every_test_volume(finished: RunResult, dataset: Path) -> None:  # R04 R05
    report = vesu.check_submission(finished.folder / "submission.zip", dataset / "test_images")
    assert [member.volume_id for member in report.members] == [test.volume_id for test in vesu.discover(dataset).tests]
    assert all(0 < member.ink_ratio < 0.5 for member in report.members)


def test_the_whole_grid_ran_and_left_every_iteration(finished: RunResult) -> None:  # R11 R50 R51 R54
    rows = events(finished, "TRAIN_ITERATION")
    assert len(rows) == 135 * 120
    assert {(row["candidate"], row["iter"]) for row in rows} == {(c, i) for c in range(135) for i in range(1, 121)}
    assert all(isinstance(row["loss"], float) and isinstance(row["nonzero"], int) for row in rows)


def test_every_neuron_learnt_something_else(finished: RunResult) -> None:  # R12 R52
    rows = events(finished, "TRAIN_ITERATION")
    last = {row["candidate"]: row["loss"] for row in rows if row["iter"] == 120}
    assert len({last[neuron * 15] for neuron in range(9)}) == 9


def test_the_log_verifies(finished: RunResult) -> None:  # R38
    report = verify(finished.folder / "events.jsonl")
    assert (report.entries, report.root) == (
        finished.summary["ledger"]["entries"],
        finished.summary["ledger"]["root"],
    )
    assert report.torn_bytes == 0


def test_all_pairs_are_used(finished: RunResult) -> None:  # R16 R40
    (plan,) = events(finished, "TRAIN_COVERAGE_PLAN")
    assert plan["pair_count_selected_for_training"] == plan["pair_count_discovered"] == 3


def test_progress_is_true_and_ends_at_100(finished: RunResult) -> None:  # R34
    shown = [event["global_progress_reel"] for event in events(finished, "PROGRESS_UPDATE")]
    assert shown == sorted(shown)
    assert shown[-1] == pytest.approx(100)
    assert not events(finished, "PROGRESS_INTEGRITY_ALERT")
    assert len(events(finished, "TRAIN_CURSOR")) > 0


def test_phases_that_ran_are_recorded_and_no_others(finished: RunResult) -> None:  # R54
    ran = [event["phase"] for event in events(finished, "PHASE_END")]
    assert ran == ["discovery", "preflight", "load", "features", "train_data", "fit", "segment", "package"]
    assert "distillation" not in [phase["name"] for phase in finished.summary["phases"]]


def test_the_model_beats_the_trivial_baselines(finished: RunResult) -> None:
    validation = finished.summary["validation"]
    assert validation["f1"] > validation["baselines"]["intensity_quantile"]["f1"]
    assert validation["f1"] > validation["baselines"]["all_background"]["f1"] == 0


def test_density_diagnostics_are_those_of_the_mask(finished: RunResult, dataset: Path) -> None:  # R30
    for test in vesu.discover(dataset).tests:
        mask = vesu.read_volume(finished.folder / "masks" / f"{test.volume_id}.tif")
        entry = json.loads((finished.folder / "segment" / f"{test.volume_id}.json").read_text())
        assert entry["ink_ratio_global"] == pytest.approx(mask.mean())
        assert entry["ink_ratio_by_slice"] == pytest.approx(mask.mean(axis=(1, 2)))
        assert entry["thresholds"]["low"] <= entry["thresholds"]["high"]


def test_each_step_of_the_ladder_is_reported_and_reproducible(finished: RunResult, dataset: Path) -> None:  # R29, R30
    model = vesu.SurfaceModel.load(finished.folder)
    for test in vesu.discover(dataset).tests:
        entry = json.loads((finished.folder / "segment" / f"{test.volume_id}.json").read_text())
        volume = vesu.read_volume(test.image)
        again = vesu.segment(model.predict(volume).probability, model.segment_config, topology=True)
        assert entry["steps"] == [step.to_json() for step in again.steps]
        with np.load(finished.folder / "segment" / f"{test.volume_id}_steps.npz", allow_pickle=False) as stored:
            assert int(stored["index"]) == 24
            np.testing.assert_array_equal(stored["volume"], volume[24])
            np.testing.assert_array_equal(stored["masks"][-1], again.mask[24])
            assert len(stored["masks"]) == len(again.steps) + 1
    seconds = [event["step_seconds"] for event in events(finished, "VOLUME_SEGMENTED")]
    assert [[name for name, _ in each] for each in seconds] == [[step.name for step in again.steps]] * 2


def test_the_saved_model_gives_the_masks_of_the_run(finished: RunResult, dataset: Path) -> None:
    model = vesu.SurfaceModel.load(finished.folder)
    for test in vesu.discover(dataset).tests:
        again = model.segment(vesu.read_volume(test.image))
        np.testing.assert_array_equal(again.mask, vesu.read_volume(finished.folder / "masks" / f"{test.volume_id}.tif"))


def test_slabs_do_not_change_a_bit(finished: RunResult, dataset: Path) -> None:
    model = vesu.SurfaceModel.load(finished.folder)
    volume = vesu.read_volume(vesu.discover(dataset).tests[0].image)
    whole = model.predict(volume)
    slabs = model.predict(volume, max_feature_bytes=4 * 2 * len(model.spec.names) * 48 * 48 * 9)
    np.testing.assert_array_equal(whole.probability, slabs.probability)
    np.testing.assert_array_equal(whole.uncertainty, slabs.uncertainty)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_result_does_not_depend_on_threads_or_cache(
    finished: RunResult, dataset: Path, small_config: vesu.RunConfig, tmp_path: Path, n_threads: int
) -> None:  # R09
    import dataclasses

    config = dataclasses.replace(small_config, n_threads=n_threads, cache_gib=0.0)
    again = vesu.run(dataset, tmp_path, config=config, display="none")
    assert again.submission.sha256 == finished.submission.sha256
    weights = [np.load(result.folder / "model.npz", allow_pickle=False) for result in (finished, again)]
    for name in weights[0].files:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_a_second_run_replaces_its_own_files_only(
    finished: RunResult, dataset: Path, small_config: vesu.RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    cache = finished.folder / "cache"
    vesu.run(dataset, tmp_path, config=small_config, display="none", cache=cache)
    (tmp_path / "masks" / "old.tif").write_bytes(b"stale")
    again = vesu.run(dataset, tmp_path, config=small_config, display="none", cache=cache)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert not (tmp_path / "masks" / "old.tif").exists()
    assert again.submission.sha256 == finished.submission.sha256


def test_the_report_is_there(finished: RunResult) -> None:
    assert finished.report is not None
    text = finished.report.read_text(encoding="utf-8")
    assert finished.submission.sha256 in text


def test_a_failed_run_says_why_and_leaves_the_zip_in_reserve(dataset: Path, tmp_path: Path) -> None:  # R33
    broken = tmp_path / "set"
    for source in dataset.rglob("*"):
        if source.is_file() and "truth" not in source.parts:
            target = broken / source.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    victim = next((broken / "train_labels").glob("*.tif"))
    label = vesu.read_volume(victim)
    label[20, 20, 20] = 7
    vesu.write_volume(victim, label)
    config = vesu.load_config(overrides=["sampling.voxels_per_volume=1500"], environment={})
    with pytest.raises((PreflightError, DataError), match=r"7 \(1 voxels\)|BAD_LABEL_VALUE"):
        vesu.run(broken, tmp_path / "run", config=config, display="none")
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert victim.name in failure["message"]
    assert not list((tmp_path / "run" / "masks").iterdir()) and not (tmp_path / "run" / "summary.json").exists()
    vesu.check_submission(tmp_path / "run" / "submission.zip", dataset / "test_images")
    assert verify(tmp_path / "run" / "events.jsonl").entries > 0


def test_what_no_run_wrote_is_never_removed(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "mine.tif").write_bytes(b"mine")
    with pytest.raises(DataError, match="no vesu run wrote"):
        vesu.run(dataset, tmp_path, display="none")
    assert (tmp_path / "masks" / "mine.tif").read_bytes() == b"mine"


def test_a_refused_run_leaves_the_earlier_one_whole(finished: RunResult, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.folder.iterdir()}
    with pytest.raises(DataError):
        vesu.run(tmp_path / "typo", finished.folder, display="none")
    with pytest.raises(vesu.VesuError, match="display"):
        vesu.run(tmp_path, finished.folder, display="loud")  # type: ignore[arg-type]
    assert {path.name: path.stat().st_mtime_ns for path in finished.folder.iterdir()} == before


def test_two_runs_never_write_into_one_folder(finished: RunResult, dataset: Path) -> None:
    with claimed(finished.folder.parent / "shared"), pytest.raises(FileError, match="another run"):
        vesu.run(dataset, finished.folder.parent / "shared", display="none")


def test_a_report_that_cannot_be_made_does_not_fail_the_run(
    dataset: Path, small_config: vesu.RunConfig, tmp_path: Path, finished: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = vesu.run(dataset, tmp_path, config=small_config, display="none", cache=finished.folder / "cache")
    assert result.report is None and "vesu[report]" in (result.report_problem or "")
    assert not (tmp_path / "failure.json").exists()
    assert verify(tmp_path / "events.jsonl").root == result.summary["ledger"]["root"]


def test_a_model_whose_channels_do_not_fit_is_refused(finished: RunResult, tmp_path: Path) -> None:
    for name in ("model.npz", "model.json"):
        (tmp_path / name).write_bytes((finished.folder / name).read_bytes())
    meta = json.loads((tmp_path / "model.json").read_text())
    for wrong in (meta["channels"][::-1], ["x"], [1e400], [], 7):
        (tmp_path / "model.json").write_text(json.dumps(meta | {"channels": wrong}))
        with pytest.raises(FormatError, match=r"model\.json"):
            vesu.SurfaceModel.load(tmp_path)


def test_an_unwritable_run_folder_is_named(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="file"):
        vesu.run(dataset, tmp_path / "file" / "run", display="none")


def test_whole_volumes_are_held_out(dataset: Path) -> None:
    pairs = vesu.discover(dataset).pairs
    split = split_pairs(pairs, 0.2, seed=0)
    assert not set(split.train) & set(split.validation)
    assert set(split.train) | set(split.validation) == set(pairs)
    with pytest.raises(DataError, match="2 or more"):
        split_pairs(pairs[:1], 0.2, seed=0)


def test_a_phase_not_asked_for_weighs_nothing(dataset: Path, small_config: vesu.RunConfig) -> None:  # R34 R54
    weights = phase_weights(vesu.discover(dataset), small_config, 26)
    assert tuple(weights) == PHASES
    assert weights["distillation"] == 0
    assert all(weights[phase] > 0 for phase in PHASES if phase != "distillation")


def test_the_zip_is_deflated_at_the_root(finished: RunResult) -> None:  # R05
    with zipfile.ZipFile(finished.folder / "submission.zip") as archive:
        assert all(
            info.compress_type == zipfile.ZIP_DEFLATED and "/" not in info.filename for info in archive.infolist()
        )
