"""Configuration: sources, refusals, and the client's floor."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from vesu.config import CheckpointConfig, MemoryConfig, RunConfig, TimeConfig, load_config
from vesu.errors import ArgumentError, FileError
from vesu.segmentation import (
    DEFAULT_STEPS,
    STEPS,
    Closing,
    Dust,
    Fill,
    SmoothZ,
    Threshold,
    ThresholdRule,
    parameters,
    step_from,
    steps_from_tables,
)


def test_the_default_grid_is_the_clients() -> None:  # R11 R12
    search = RunConfig().search
    assert (search.meta_neurons, len(search.l1), len(search.l2), search.max_iter) == (9, 5, 3, 120)


@pytest.mark.parametrize(
    "override",
    ["search.max_iter=119", "search.meta_neurons=8", "search.l1=[1e-4]", "search.l2=[1e-4, 1e-3]"],
)
def test_the_grid_is_never_shrunk(override: str) -> None:  # R50 R52
    with pytest.raises(ArgumentError, match="never below the default grid"):
        load_config(overrides=[override], environment={})


def test_a_larger_grid_is_accepted() -> None:  # R11 R52
    overrides = ["search.meta_neurons=20", "search.max_iter=200", "search.l2=[1e-4, 1e-3, 1e-2, 1e-1]"]
    search = load_config(overrides=overrides, environment={}).search
    assert (search.meta_neurons, search.max_iter, len(search.l2)) == (20, 200, 4)


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "vesu.toml"
    path.write_text("seed = 1\n[sampling]\nvoxels_per_volume = 100\n[search]\nmeta_neurons = 10\n")
    environment = {"VESU_SEED": "2", "VESU_SEARCH_META_NEURONS": "11", "VESU_NUM_THREADS": "2"}
    config = load_config(path, overrides=["search.meta_neurons=12"], environment=environment)
    assert (config.seed, config.sampling.voxels_per_volume, config.search.meta_neurons) == (2, 100, 12)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.neurons=9", "configuration key: got search.neurons"),
        ("nonsense", "section.key=value"),
        ("seed=1.5", "seed: got 1.5; accepted: int"),
        ("seed=true", "seed: got True"),
        ("segment.dust.connectivity=7", "segment.dust.connectivity: got 7; accepted: 6, 18 or 26"),
        ("segment.dust.min_voxels=many", "segment.dust.min_voxels: got 'many'"),
        ("segment.dust.size=7", "segment.dust.size: no such parameter; accepted: min_voxels"),
        ("segment.dust=7", "segment.dust: got 7; accepted: a table of keys"),
        ("segment.min_voxels=7", "configuration key: got segment.min_voxels; accepted: segment.steps"),
        ("segment.steps=[]", "segment.steps: got 0 threshold steps"),
        ("segment.steps=[3, 'threshold']", "segment.steps: got 3; accepted: steps named suppress"),
        ("segment.steps=threshold,erosion", "segment.steps: got 'erosion'; accepted: steps named"),
        ('segment.steps=["dust", "threshold"]', "segment.steps: got 'dust' before the threshold"),
        ("segment.steps=3", "segment.steps: got 3; accepted: a list of"),
        ("segment.threshold.rule.mode=otsu", "segment.threshold.rule.mode: got 'otsu'"),
        ("segment.threshold.rule=3", "segment.threshold.rule: got int"),
        ("segment.density_range=[0.2, 0.1]", "segment.density_range: got"),
        ("segment.calibration.modes=[]", "segment.calibration.modes: got ()"),
        ("segment.calibration.modes=[otsu]", "segment.calibration.modes"),
        ("segment.calibration.low_factors=[0.0]", "segment.calibration.low_factors"),
        ("segment.calibration.metric=iou", "segment.calibration.metric: got 'iou'"),
        ("segment." * 3000 + "x=1", "nested too deeply"),
        ("sampling.validation_fraction=1", "validation_fraction"),
        ("features.scales=[]", "features.scales"),
        ("search=3", "a table of keys"),
        ("search.learning_rate=-1.0", "learning_rate"),
        ("search.class_weight=odd", "class_weight"),
        ("search.l1=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, nan]", "search.l1"),
        ("search.l2=[1e-4, 1e-3, 1e-2, 1e-2]", "distinct"),
        ("n_threads=99999999999999999999", "n_threads"),
        ("cache_gib=inf", "cache_gib"),
        ("time.limit_s=0", "time.limit_s: got 0.0; accepted: a positive number of seconds, or none"),
        ("time.limit_s=nan", "time.limit_s"),
        ("time.margin_s=32400", "time.margin_s: got 32400.0; accepted: 0 or more seconds, less than time.limit_s"),
        ("time.accelerate_eta_s=-1", "time.accelerate_eta_s"),
        ("time.heartbeat_s=15.5", "time.heartbeat_s: got 15.5; accepted: above 0, at most 15 seconds"),
        ("time.stall_factor=1", "time.stall_factor: got 1.0; accepted: above 1"),
        ("time.fallback=nx45", "time.fallback: got 'nx45'; accepted: 'nx46' or 'empty'"),
        ("checkpoint.every_iterations=0", "checkpoint.every_iterations: got 0"),
        ("checkpoint.keep=1", "checkpoint.keep: got 1; accepted: 2 or more generations"),
        ("checkpoint.publish=kaggle:me/model", "checkpoint.publish: got 'kaggle:me/model'"),
        ("memory.warn_fraction=0.95", "memory.warn_fraction, alert_fraction: got (0.95, 0.92)"),
        ("memory.alert_fraction=1.5", "memory.warn_fraction, alert_fraction"),
        ("memory.interval_s=0", "memory.interval_s"),
        ("sampling.max_train_volumes=0", "sampling.max_train_volumes: got 0; accepted: 1 or more volumes, or none"),
        ("sampling.max_val_volumes=-1", "sampling.max_val_volumes"),
        ("seed=" + "[" * 5000, "seed"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        load_config(overrides=[override], environment={})
    assert message in str(caught.value)


def test_a_mistyped_environment_variable_is_refused() -> None:
    with pytest.raises(ArgumentError, match="VESU_SEARCH_MAXITER"):
        load_config(environment={"VESU_SEARCH_MAXITER": "200"})
    with pytest.raises(ArgumentError, match="VESU_SEEED"):
        load_config(environment={"VESU_SEEED": "3"})
    with pytest.raises(ArgumentError, match=r"VESU_SEGMENT_DUST_SIZE; accepted: one of .*VESU_SEGMENT_DUST_MIN_VOXELS"):
        load_config(environment={"VESU_SEGMENT_DUST_SIZE": "3"})


def test_what_keeps_a_long_run_is_set_as_everything_else(tmp_path: Path) -> None:  # R33 R36 R42
    (tmp_path / "vesu.toml").write_text("[time]\nlimit_s = 5400\nfallback = 'empty'\n[checkpoint]\nkeep = 5\n")
    environment = {"VESU_CHECKPOINT_PUBLISH": "kaggle:me/model/other/v1", "VESU_SESSION_START": "1790000000"}
    config = load_config(tmp_path / "vesu.toml", overrides=["memory.warn_fraction=0.5"], environment=environment)
    assert config.time == TimeConfig(limit_s=5400.0, fallback="empty")
    assert config.checkpoint == CheckpointConfig(keep=5, publish="kaggle:me/model/other/v1")
    assert config.memory == MemoryConfig(warn_fraction=0.5)
    assert load_config(overrides=["time.limit_s=none"], environment={}).time.limit_s is None
    assert (RunConfig().time.limit_s, RunConfig().time.accelerate_eta_s) == (9 * 3600, 8.25 * 3600)


LADDER = """
[segment]
steps = ["smooth_z", "threshold", {name = "dust", min_voxels = 100}, "closing", "dust"]
[segment.dust]
min_voxels = 1000
[segment.closing]
radius = [2, 1, 1]
[segment.fill]
connectivity = 26
[segment.calibration]
low_factors = []
"""


def test_a_ladder_is_read_from_a_file(tmp_path: Path) -> None:  # R29
    (tmp_path / "vesu.toml").write_text(LADDER)
    segment = load_config(tmp_path / "vesu.toml", environment={}).segment
    assert segment.steps == (SmoothZ(), Threshold(), Dust(100), Closing((2, 1, 1)), Dust(1000))  # fill is off
    assert segment.calibration.low_factors == ()
    assert segment.ladder.steps == segment.steps


def test_later_sources_change_only_the_keys_they_name(tmp_path: Path) -> None:
    (tmp_path / "vesu.toml").write_text(LADDER)
    environment = {
        "VESU_SEGMENT_DUST_CONNECTIVITY": "6",
        "VESU_SEGMENT_STEPS": "threshold, dust, fill",
        "VESU_SEGMENT_THRESHOLD_RULE_VALUE": "0.9",
        "VESU_SEGMENT_DUST_KEEP_LARGEST": "none",
    }
    segment = load_config(
        tmp_path / "vesu.toml", overrides=["segment.dust.min_voxels=9"], environment=environment
    ).segment
    assert segment.steps == (Threshold(ThresholdRule(value=0.9)), Dust(9, 6), Fill(26))


def test_a_table_alone_changes_the_default_ladder() -> None:
    changed = load_config(overrides=["segment.dust.min_voxels=9"], environment={}).segment.steps
    assert [step.name for step in changed] == [step.name for step in DEFAULT_STEPS]
    assert [step for step in changed if step.name == "dust"] == [Dust(9)]
    assert load_config(environment={}).segment.steps == DEFAULT_STEPS


def test_the_fit_may_be_on_the_score() -> None:  # R45
    for metric in ("score", "f1", "f_beta"):
        config = load_config(overrides=[f"segment.calibration.metric={metric}"], environment={})
        assert config.segment.calibration.metric == metric
    assert load_config(environment={}).segment.calibration.metric == "f_beta"


def test_the_printed_ladder_is_its_own_source() -> None:
    segment = load_config(overrides=["segment.steps=threshold,closing,dust"], environment={}).segment
    printed = json.loads(json.dumps(RunConfig(segment=segment).to_json()))["segment"]
    assert steps_from_tables(printed["steps"], {}) == segment.steps
    assert [entry["name"] for entry in printed["steps"]] == ["threshold", "closing", "dust"]


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError) as missing:
        load_config(tmp_path / "none.toml")
    assert missing.value.filename == str(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(ArgumentError, match=r"bad\.toml"):
        load_config(tmp_path / "bad.toml")


def test_the_documentation_lists_every_key_with_its_default() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    values = RunConfig().to_json()
    sections = [value for value in values.values() if isinstance(value, dict)]
    sections.append(values["segment"]["calibration"])
    for name, value in [item for table in (values, *sections) for item in table.items()]:
        if isinstance(value, dict):
            continue
        shown = tuple(step.name for step in DEFAULT_STEPS) if name == "steps" else value
        row = f"| `{name}` | `{'none' if shown is None else shown}` | "
        assert row in text and f"{row}|" not in text, name


def test_the_documentation_lists_every_parameter_of_every_step() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    rule = ThresholdRule()
    rows = {("threshold", f"rule.{each.name}"): getattr(rule, each.name) for each in fields(rule)}
    for name in STEPS:
        step = step_from(name)
        rows |= {(name, key): getattr(step, key) for key in parameters(type(step)) if key != "rule"}
    for (name, key), value in rows.items():
        row = f"| `{name}.{key}` | `{'none' if value is None else value}` | "
        assert row in text and f"{row}|" not in text, (name, key)


def test_every_variable_that_the_package_reads_is_no_mistyped_key() -> None:
    package = Path(load_config.__code__.co_filename).parents[1]
    read = {name for path in package.rglob("*.py") for name in re.findall(r'= "(VESU_[A-Z_]*[A-Z])"', path.read_text())}
    assert {"VESU_RANKS_TIMEOUT_S", "VESU_WHEELHOUSE", "VESU_DATA_ROOT"} <= read
    assert load_config(environment=dict.fromkeys(read, "1")) == load_config(environment={})
