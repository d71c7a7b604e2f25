"""Auto-tuning in whole runs: events and trace agree, cuts change nothing, the dust step is judged (R39)."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from cuts import result_of, snapshots
from vesu.autotune import Proposal
from vesu.cli import parser
from vesu.cli.arguments import config_of
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError
from vesu.ledger import verify
from vesu.run import autotuning, compatibility
from vesu.run.autotuning_dust import _tuned, dust_evidence
from vesu.run.pipeline import RunResult
from vesu.segmentation import Closing, Dust, SegmentConfig, Threshold, ThresholdRule

TRACE = autotuning.TRACE
TUNED = [
    "sampling.voxels_per_volume=400",
    "sampling.validation_fraction=0.5",
    "segment.dust.min_voxels=30",
    "search.supervised_epochs=3",
    "checkpoint.every_iterations=50",
    "search.prune_quantile=0",
    "auto_tune.use=true",
]


def growing(state: Any, evidence: Any) -> Proposal:
    """Two more after the first epoch: the second one judges them."""
    return Proposal(evidence.neurons + 2 * (evidence.epoch == 0), "two more, once")


def louder(state: Any, evidence: Any) -> Proposal:
    return Proposal(state.value * (2 if evidence.epoch == 1 else 1), "twice, once")


POLICIES = {"mutation_noise": louder, "meta_neurons": growing}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", n_train=4, n_test=1, shape=(24, 24, 24), seed=3)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[Path], pytest.MonkeyPatch]:
    """A run in which the grid grows, and copies of its folder at every checkpoint."""
    folder = tmp_path_factory.mktemp("tuned")
    config = vesu.load_config(overrides=TUNED, environment={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autotuning, "EPOCH_POLICIES", POLICIES)
        with snapshots(patch, tmp_path_factory.mktemp("cuts")) as taken:
            result = vesu.run(tiny, folder / "run", config=config, display="none", cache=folder / "cache")
    return result, taken, patch


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Those of these names; only their lines are parsed, for a run's iterations are tens of thousands."""
    wanted = [f'"event":"{name}"'.encode() for name in names]
    with (folder / "events.jsonl").open("rb") as lines:
        return [json.loads(line) for line in lines if any(each in line for each in wanted)]


def trace_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / TRACE).read_text())
    return found


def test_every_decision_is_an_event_and_an_entry_of_the_trace(whole: Any) -> None:  # R39 R54
    result, _, _ = whole
    trace = trace_of(result.folder)
    told = events(result.folder, "AUTO_TUNE_POLICY_DECISION")
    assert [{key: event[key] for key in trace["decisions"][0]} for event in told] == trace["decisions"]
    assert [each["number"] for each in trace["decisions"]] == list(range(len(told)))
    assert {each["parameter"] for each in trace["decisions"]} == {"mutation_noise", "meta_neurons", "dust_min_size"}
    changes = [each for each in trace["decisions"] if each["before"] != each["after"] or each["action"] == "rollback"]
    updates = events(result.folder, "AUTO_TUNE_PARAM_UPDATE")
    assert [each["number"] for each in updates] == [each["number"] for each in changes]
    assert trace["run_id"] == result.summary["run_id"] and trace["meta_neurons"] == [9, 11, 11]
    assert verify(result.folder / "events.jsonl").root == result.summary["ledger"]["root"]


def test_the_grid_grows_and_the_progress_stays_true(whole: Any) -> None:  # R34 R39 R50 R51 R52
    folder = whole[0].folder
    assert [event["meta_neurons"] for event in events(folder, "EPOCH_START")] == [9, 11, 11]
    rows = {(row["epoch"], row["candidate"], row["iter"]) for row in events(folder, "TRAIN_ITERATION")}
    assert len(rows) == 120 * 15 * (9 + 11 + 11)
    assert not events(folder, "PROGRESS_INTEGRITY_ALERT")
    shown = [event["global_progress_reel"] for event in events(folder, "PROGRESS_UPDATE", "TRAIN_CURSOR")]
    assert shown == sorted(shown) and shown[-1] > 99
    last = events(folder, "TRAIN_CURSOR")[-1]["cursor"]
    assert last["done"] == last["total"] == len(rows)


def cut_at(taken: list[Path], phase: str, iteration: int, nth: int = 0) -> Path:
    return [path for path in taken if path.name.endswith(f"-{phase}-{iteration:03d}")][nth]


@pytest.mark.parametrize("phase, iteration, nth", [("fit", 50, 1), ("segment", 120, 0)])
def test_a_cut_run_has_the_same_bits_and_the_same_trace(
    whole: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, iteration: int, nth: int
) -> None:  # R37 R39
    result, taken, _ = whole
    monkeypatch.setattr(autotuning, "EPOCH_POLICIES", POLICIES)
    shutil.copytree(cut_at(taken, phase, iteration, nth), tmp_path / "run")
    config = vesu.load_config(overrides=TUNED, environment={})
    cache = result.folder.parent / "cache"
    again = vesu.run(tiny, tmp_path / "run", config=config, display="none", cache=cache, resume="latest")
    assert result_of(again.folder) == result_of(result.folder)
    assert (again.folder / TRACE).read_bytes() == (result.folder / TRACE).read_bytes()
    assert events(again.folder, "RESUME_EXACT_OK") and not events(again.folder, "PROGRESS_INTEGRITY_ALERT")


def test_a_plain_run_tunes_nothing(finished: RunResult) -> None:  # R32
    assert events(finished.folder, "RUN_START")
    assert b"AUTO_TUNE" not in (finished.folder / "events.jsonl").read_bytes()
    assert not (finished.folder / TRACE).exists()
    plain = compatibility.config_fields(vesu.load_config(overrides=SMALL, environment={}))
    assert not [name for name in plain if name.startswith("auto_tune")]  # older checkpoints agree with it


def test_what_a_changed_setting_makes_new() -> None:  # R37
    tuned = compatibility.config_fields(vesu.load_config(overrides=TUNED, environment={}))
    assert "auto_tune.tolerance" in tuned and "auto_tune.dust_min_size" in tuned
    assert compatibility.scope_of(["auto_tune.dust_min_size"]) == "segment"
    assert compatibility.scope_of(["auto_tune.tolerance"]) == "search"
    assert compatibility.student_stands(["auto_tune.use", "auto_tune.meta_neurons"])


def test_the_command_lines_flag(tmp_path: Path) -> None:  # R32 R39
    chosen = parser().parse_args(["run", str(tmp_path), "--auto-tune"])
    assert config_of(chosen).auto_tune.use
    assert not config_of(parser().parse_args(["run", str(tmp_path)])).auto_tune.use


def test_a_historical_scorer_has_nothing_to_tune(tmp_path: Path) -> None:  # R39, bad input
    config = vesu.load_config(overrides=["pipeline='nx46'", "auto_tune.use=true"], environment={})
    with pytest.raises(ArgumentError, match=r"auto_tune\.use: got 'True' with pipeline 'nx46', which has no model"):
        vesu.run(tmp_path, tmp_path / "run", config=config, display="none")


# ---- dust


def sheet(blobs: int, *, true: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probability and label of a sheet, and single bright voxels beside it which are surface or not."""
    label = np.zeros((24, 24, 24), np.uint8)
    label[10:12] = 1
    probability = np.where(label == 1, 0.9, 0.1).astype(np.float32)
    for n in range(blobs):
        place = (2 + 3 * (n // 6), 2 + 3 * (n % 6), 4)
        probability[place] = 0.9
        label[place] = int(true)
    label[20] = 2
    return probability, label


LADDER = SegmentConfig((Threshold(ThresholdRule("fixed", 0.5)), Dust(0), Closing(1)))


def tuned_dust(*cases: tuple[np.ndarray, np.ndarray], ladder: SegmentConfig = LADDER, **settings: str) -> Any:
    probabilities = {f"v{n}": case[0] for n, case in enumerate(cases)}
    labels = {f"v{n}": case[1] for n, case in enumerate(cases)}
    overrides = ["segment.dust.min_voxels=0", "auto_tune.use=true", *(f"{k}={v}" for k, v in settings.items())]
    config = vesu.load_config(overrides=overrides, environment={})
    return _tuned(config, ladder, probabilities, labels, {}, 2)


def test_dust_that_is_false_goes_and_other_volumes_judge_it() -> None:  # R39
    decisions, ladder = tuned_dust(sheet(9), sheet(7))
    assert [each.action for each in decisions] == ["raise", "accept"]
    assert ladder.steps[1].min_voxels == decisions[0].after == 2
    assert decisions[0].evidence["decided_on"] == ["v0"] and decisions[0].evidence["judged_on"] == ["v1"]
    sizes = decisions[0].evidence["sizes"]
    assert decisions[0].evidence["false_components"][sizes.index(2)] == 9
    assert ladder.steps[0] == LADDER.steps[0] and ladder.steps[2] == LADDER.steps[2]


def test_a_worse_mask_elsewhere_rolls_back_to_the_identical_ladder() -> None:  # R39
    decisions, ladder = tuned_dust(sheet(9), sheet(9, true=True))
    assert [each.action for each in decisions] == ["raise", "rollback"] and ladder is LADDER
    assert decisions[1].after == decisions[0].before == 0


def test_one_volume_judges_itself_and_clean_masks_are_left_alone() -> None:  # R39
    decisions, ladder = tuned_dust(sheet(0))
    assert [each.action for each in decisions] == ["keep"] and ladder is LADDER
    assert decisions[0].evidence["judged_on"] == decisions[0].evidence["decided_on"] == ["v0"]


def test_a_ladder_without_dust_is_told() -> None:  # R39 R54
    bare = SegmentConfig((Threshold(ThresholdRule("fixed", 0.5)),))
    decisions, ladder = tuned_dust(sheet(3), ladder=bare)
    assert decisions[0].reason == "the ladder has no dust step" and ladder is bare


def test_dust_bounds_hold() -> None:  # R39
    decisions, _ = tuned_dust(sheet(9), sheet(7), **{"auto_tune.dust_min_size": "[0,1]"})
    assert [each.action for each in decisions] == ["keep"]


@pytest.mark.parametrize("spare_border", [False, True])
def test_components_are_counted_as_the_dust_step_removes_them(spare_border: bool) -> None:  # R39, against the step
    rng = np.random.default_rng(5)
    label = rng.integers(0, 3, (12, 12, 12)).astype(np.uint8)
    mask = (rng.random((12, 12, 12)) < 0.12).astype(np.uint8)
    dust = Dust(0, connectivity=6, spare_border=spare_border)
    sizes = [0, 1, 2, 3, 5, 9]
    found = dust_evidence({"v": mask}, {"v": label}, dust, sizes)
    for place, least in enumerate(sizes):
        kept = Dust(least, connectivity=6, spare_border=spare_border).apply(mask)[0]
        gone = (mask == 1) & (kept == 0)
        assert found.true_voxels[place] == (gone & (label == 1)).sum()
        assert found.false_voxels[place] == (gone & (label == 0)).sum()
