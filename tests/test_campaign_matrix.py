"""Campaign matrices: read, refused by name, made into configurations, divided (R43)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesu.campaign import load_matrix, parse_matrix, plan_campaign, preflight_campaign
from vesu.campaign.holdout import hold_out
from vesu.data.discover import discover
from vesu.data.volumes import write_volume
from vesu.errors import ArgumentError, FileError, PreflightError

FORMAT = "vesu-campaign/1"
RUNS = [{"id": "a"}, {"id": "b", "nx46": {"threshold_quantile": 0.9}}]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "campaigns"

TOML = """
format = "vesu-campaign/1"
name = "same"
seeds = [3, 5]
score_volumes = ["7"]
runs = [
  { id = "a", tags = ["plain"] },
  { id = "b", nx46.threshold_quantile = 0.9, segment.steps = ["threshold", "dust"] },
]
[config]
pipeline = "nx46"
search.ranking_pool = "none"
"""
JSON: dict[str, Any] = {
    "format": FORMAT,
    "name": "same",
    "seeds": [3, 5],
    "score_volumes": ["7"],
    "runs": [
        {"id": "a", "tags": ["plain"]},
        {"id": "b", "nx46.threshold_quantile": 0.9, "segment": {"steps": ["threshold", "dust"]}},
    ],
    "config": {"pipeline": "nx46", "search": {"ranking_pool": "none"}},
}


def noise(folder: Path, n_train: int) -> Path:
    """Volumes that show nothing, with labels that say nothing."""
    rng = np.random.default_rng(0)
    for name in ("train_images", "train_labels"):
        (folder / name).mkdir(parents=True)
        for number in range(n_train):
            top = 256 if name == "train_images" else 3
            write_volume(folder / name / f"{number}.tif", rng.integers(0, top, (8, 8, 8), np.uint8))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("data") / "set", 4)


def matrix(**more: Any) -> Any:
    return parse_matrix({"format": FORMAT, "runs": RUNS, "config": {"pipeline": "nx46"}, **more})


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:  # R43
    (tmp_path / "m.toml").write_text(TOML)
    (tmp_path / "m.json").write_text(json.dumps(JSON))
    found = load_matrix(tmp_path / "m.toml")
    assert found == load_matrix(tmp_path / "m.json")
    assert found.seeds == (3, 5) and found.variants[0].tags == ("plain",) and found.baseline == "a"
    assert found.variants[1].settings == {"nx46.threshold_quantile": 0.9, "segment.steps": ["threshold", "dust"]}
    assert parse_matrix(found.to_json()) == found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"runs": [{"id": "a"}, {"id": "a"}]}, "each id once"),
        ({"runs": [{"id": "a"}, {"id": "A"}]}, "each id once"),
        ({"runs": RUNS[:1]}, "runs: got 1; accepted: two or more"),
        ({"runs": []}, "runs: got 0"),
        ({"runs": "ab"}, "runs: got"),
        ({"runs": [{"id": "a"}, "b"]}, r"runs\[1\]"),
        *[({"runs": [{"id": "a"}, {"id": name}]}, r"runs\[1\].id") for name in ("", "../b", "b/c", ".b", "b.", 7, "é")],
        ({"runs": [{"id": "a"}, {"tags": ["b"]}]}, r"runs\[1\].id"),
        ({"runs": [{"id": "a"}, {"id": "b", "tags": "x"}]}, r"runs\[1\].tags"),
        ({"runs": [{"id": "a"}, {"id": "b", "seed": 3}]}, "run 'b': seed: .* `seeds` gives every run the same ones"),
        ({"runs": [{"id": "a"}, {"id": "b", "nx46": {}}]}, "run 'b': nx46"),
        ({"runs": [{"id": "a"}, {"id": "b", "nx46": {"x": 1}, "nx46.x": 2}]}, "run 'b': nx46.x: got it twice"),
        ({"config": {"a=b": 1}}, "config: key"),
        ({"volumes": ["7"]}, "key: got 'volumes'"),
        ({"format": "vesu-campaign/2"}, "format"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [True]}, "seeds"),
        ({"baseline": "c"}, "baseline: got 'c'; accepted: 'a' or 'b'"),
        ({"promotion": "luck"}, "promotion"),
        ({"promotion": "steps", "baseline": "b"}, "steps begin with the first run"),
        ({"min_gain": -1}, "min_gain"),
        ({"confidence": 1}, "confidence"),
        ({"score_fraction": 0}, "score_fraction"),
        ({"score_volumes": ["7", "7"]}, "score_volumes"),
        ({"score_volumes": ["7"], "score_seed": 1}, "score_seed: .* none beside score_volumes"),
    ],
)
def test_a_bad_matrix_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    matrix()
    with pytest.raises(ArgumentError, match=named):
        matrix(**change)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("m.json", '{"format": "vesu-campaign/1", "format": "vesu-campaign/1"}', "'format' twice"),
        ("m.json", '{"min_gain": NaN}', "NaN"),
        ("m.json", "[1]", "got list"),
        ("m.json", "[" * 100_000, "m.json"),
        ("m.toml", "format = ", "m.toml"),
        ("m.toml", "runs = [{ id = 'a', id = 'b' }]", "m.toml"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(name: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ArgumentError, match=named):
        load_matrix(tmp_path / name)
    with pytest.raises(FileError, match=r"none\.toml"):
        load_matrix(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {"pipelin": "nx46"}}, "run 'a': configuration key: got pipelin"),
        ({"runs": [{"id": "a"}, {"id": "b", "nx46": {"quantile": 1}}]}, r"run 'b': configuration key: got nx46\.quant"),
        ({"runs": [{"id": "a"}, {"id": "b", "search": {"max_iter": 5}}]}, r"run 'b': search\.max_iter"),  # R50
        ({"score_volumes": ["nobody"]}, "score_volumes: got nobody"),
    ],
)
def test_a_configuration_is_refused_with_its_runs_name(change: dict[str, Any], named: str, data: Path) -> None:
    with pytest.raises(ArgumentError, match=named):
        plan_campaign(matrix(**change), data)


def test_a_seed_for_all_runs_is_refused(data: Path) -> None:
    with pytest.raises(ArgumentError, match="settings: got 'seed=7'"):
        plan_campaign(matrix(), data, settings=["seed=7"])


def test_later_sources_win(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R43
    monkeypatch.setenv("VESU_NX46_THRESHOLD_QUANTILE", "0.8")
    monkeypatch.setenv("VESU_NX46_Z_SMOOTHING_RADIUS", "7")
    base = {"pipeline": "nx46", "nx46": {"threshold_quantile": 0.7, "score_blend_3d_weight": 0.5}}
    plan = plan_campaign(matrix(config=base), data, settings=["nx46.z_smoothing_radius=9"])
    first, second = (run.config for run in plan.runs[:2])
    assert (first.nx46.threshold_quantile, second.nx46.threshold_quantile) == (0.8, 0.9)
    assert first.nx46.z_smoothing_radius == 9 and first.nx46.score_blend_3d_weight == 0.5
    assert [run.config.seed for run in plan.runs] == [0, 0, 1, 1, 2, 2]


def test_parts_share_all_runs_between_them(data: Path) -> None:  # R43
    plan = plan_campaign(matrix(), data)
    parts = [plan.part(4, number) for number in range(4)]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in plan.runs)
    for number, part in ((4, 4), (0, 0), (2, True)):
        with pytest.raises(ArgumentError, match=r"num_parts|part_id"):
            plan.part(number, part)


def test_scoring_volumes_are_held_out(data: Path) -> None:
    inventory = discover(data)
    found = hold_out(inventory, matrix(score_fraction=0.5))
    learned = {pair.volume_id for pair in found.inventory.pairs}
    assert len(found.ids) == 2 and not learned & set(found.ids)
    assert learned | set(found.ids) == {pair.volume_id for pair in inventory.pairs}
    assert tuple(test.volume_id for test in found.inventory.tests) == found.ids
    assert not {pair.label for pair in found.scored} & set(found.inventory.infos)
    named = hold_out(inventory, matrix(score_volumes=sorted(learned)))
    assert set(named.ids) == learned
    assert len({hold_out(inventory, matrix(score_fraction=0.5, score_seed=seed)).ids for seed in range(6)}) > 1


def test_every_run_is_checked_and_nothing_written(data: Path, tmp_path: Path) -> None:  # R02, R43
    found = preflight_campaign(matrix(), data, tmp_path / "out")
    assert str(found).endswith("preflight   2/2 runs can begin, each with 3 seeds") and not found.blocked
    assert not (tmp_path / "out").exists() and "can begin" in found._repr_html_()


def test_preflight_names_the_run_that_cannot_begin(data: Path, tmp_path: Path) -> None:  # R02
    lacking = [{"id": "a"}, {"id": "b", "student": {"use": "on"}, "teachers": {"folder": str(tmp_path / "none")}}]
    found = preflight_campaign(matrix(runs=lacking), data, tmp_path / "out")
    assert list(found.blocked) == ["b"] and "1/2 runs can begin" in str(found)
    with pytest.raises(PreflightError, match=r"b: blocking: STUDENT_UNTRAINABLE"):
        found.raise_if_blocked()


def test_preflight_blocks_where_too_few_volumes_are_left(tmp_path: Path) -> None:  # R02
    small = noise(tmp_path / "set", 2)
    found = preflight_campaign(matrix(config={}, score_fraction=0.5), small, tmp_path / "out")
    assert set(found.blocked) == {"a", "b"} and "TOO_FEW_PAIRS" in str(found)


def test_a_scoring_volume_that_cannot_be_used_is_found(tmp_path: Path) -> None:  # R02
    small = noise(tmp_path / "set", 2)
    pair = discover(small).pairs[0]
    write_volume(pair.image, np.full((8, 8, 8), 9, np.uint8))
    found = preflight_campaign(matrix(score_volumes=[pair.volume_id]), small, tmp_path / "out")
    assert "CONSTANT_VOLUME" in str(found)


@pytest.mark.parametrize("name", ["nx46_v75", "transfer_p123"])
def test_the_shipped_matrices_can_be_planned(name: str, data: Path) -> None:  # R26, R43
    plan = plan_campaign(load_matrix(EXAMPLES / f"{name}.toml"), data)
    if name == "nx46_v75":
        assert len(plan.matrix.variants) == 10 and plan.runs[0].config.nx46 == type(plan.runs[0].config.nx46)()
    else:
        assert [run.config.student.preset for run in plan.runs[:3]] == ["P1", "P2", "P3"]
        assert plan.matrix.promotion == "steps"
