"""What earlier runs cost, and the forecast that is made of it."""

import json
import math
from pathlib import Path

import pytest

import vesu
from vesu.data.discover import Inventory
from vesu.errors import FileError
from vesu.run.costs import COSTS_NAME, Costs
from vesu.run.plan import Forecast, configured_split, forecast, phase_weights, split_pairs

KINDS = {"fit": "fit here", "segment": "segment here"}
NOMINAL = {"fit": 100.0, "segment": 20.0}


def taught(path: Path, *runs: float) -> Costs:
    for factor in runs:
        costs = Costs(path)
        costs.record(NOMINAL, KINDS, {"fit": 100.0 * factor})
        costs.write()
    return Costs(path)


def test_a_measured_cost_takes_the_place_of_the_plans(tmp_path: Path) -> None:  # R34
    costs = taught(tmp_path / COSTS_NAME, 3.0)
    assert costs.expected({"fit": 50.0, "segment": 20.0}, KINDS) == {"fit": pytest.approx(150.0), "segment": 20.0}
    spreads = costs.spreads(KINDS)
    assert spreads["fit"] < 0.3 < spreads["segment"] == pytest.approx(math.log(2))


def test_the_newest_run_counts_most_and_agreement_makes_sure(tmp_path: Path) -> None:  # R34
    moved = taught(tmp_path / "moved", 1.0, 1.0, 1.0, 4.0)
    assert 100 * math.sqrt(4) < moved.expected(NOMINAL, KINDS)["fit"] < 400
    steady = taught(tmp_path / "steady", 2.0, 2.0, 2.0, 2.0)
    assert steady.expected(NOMINAL, KINDS)["fit"] == pytest.approx(200)
    assert steady.spreads(KINDS)["fit"] < taught(tmp_path / "one", 2.0).spreads(KINDS)["fit"]
    assert moved.spreads(KINDS)["fit"] > 2 * steady.spreads(KINDS)["fit"]


def test_another_kind_learns_nothing_from_it(tmp_path: Path) -> None:  # R34
    costs = taught(tmp_path / COSTS_NAME, 3.0)
    assert costs.expected(NOMINAL, {"fit": "fit on eight cores"}) == NOMINAL


def test_what_says_nothing_is_not_kept(tmp_path: Path) -> None:
    costs = Costs(tmp_path / COSTS_NAME)
    costs.record({"fit": 10.0, "distillation": 0.0}, KINDS, {"fit": 0.0, "distillation": 5.0, "lunch": 5.0})
    assert costs.expected(NOMINAL, KINDS) == NOMINAL
    for run in range(100):
        costs.record(NOMINAL, KINDS, {"fit": 100.0})
        costs.remember(f"inputs {run}")
    assert costs.seen("inputs 99") and not costs.seen("inputs 0")
    costs.write()
    assert len((tmp_path / COSTS_NAME).read_bytes()) < 10_000, "the file does not grow without end"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 2, "kinds": {}, "inputs": []}',
        b'{"format": 1, "kinds": [], "inputs": []}',
        b'{"format": 1, "kinds": {"fit here": [{"nominal_s": 0, "seconds": 1}]}, "inputs": []}',
        b'{"format": 1, "kinds": {"fit here": [{"nominal_s": 1, "seconds": NaN}]}, "inputs": []}',
        b'{"format": 1, "kinds": {"fit here": [{"nominal_s": 1}]}, "inputs": []}',
        b'{"format": 1, "kinds": {"fit here": 3}, "inputs": []}',
        b'{"format": 1, "kinds": {}}',
    ],
)
def test_a_damaged_file_costs_nothing_but_the_knowledge(tmp_path: Path, content: bytes) -> None:  # R34
    path = tmp_path / COSTS_NAME
    path.write_bytes(content)
    costs = Costs(path)
    assert costs.problem is not None and str(path) in costs.problem
    assert costs.expected(NOMINAL, KINDS) == NOMINAL
    costs.record(NOMINAL, KINDS, {"fit": 300.0})
    costs.write()
    assert Costs(path).problem is None
    assert Costs(path).expected(NOMINAL, KINDS)["fit"] == pytest.approx(300)


def test_every_truncation_is_survived(tmp_path: Path) -> None:
    path = tmp_path / COSTS_NAME
    taught(path, 3.0)
    whole = path.read_bytes()
    json.loads(whole)
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert Costs(path).problem is not None
        assert Costs(path).expected(NOMINAL, KINDS) == NOMINAL
    path.unlink()
    assert Costs(path).problem is None, "no file is no problem"
    path.mkdir()
    assert Costs(path).problem is not None


# -- the plan ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def inventory(dataset: Path) -> Inventory:
    return vesu.discover(dataset)


def learned(inventory: Inventory, config: vesu.RunConfig, path: Path, factor: float) -> Forecast:
    plan = forecast(inventory, config, 26, Costs(path))
    plan.learn({phase: seconds * factor for phase, seconds in plan.nominal_s.items()})
    return forecast(inventory, config, 26, Costs(path))


def test_the_next_run_is_forecast_by_the_last(
    inventory: Inventory, small_config: vesu.RunConfig, tmp_path: Path
) -> None:  # R34
    path = tmp_path / COSTS_NAME
    first = forecast(inventory, small_config, 26, Costs(path))
    assert first.expected_s == phase_weights(inventory, small_config, 26)
    second = learned(inventory, small_config, path, 2.0)
    assert second.expected_s["fit"] == pytest.approx(2 * first.expected_s["fit"])
    assert second.spreads["fit"] < first.spreads["fit"]
    assert second.expected_s["distillation"] == 0


def test_a_warm_cache_is_a_kind_of_its_own(
    inventory: Inventory, small_config: vesu.RunConfig, tmp_path: Path
) -> None:  # R09 R34
    path = tmp_path / COSTS_NAME
    cold = forecast(inventory, small_config, 26, Costs(path))
    warm = learned(inventory, small_config, path, 2.0)
    assert warm.expected_s["features"] < 0.2 * cold.expected_s["features"]
    other = vesu.load_config(overrides=["sampling.voxels_per_volume=900"], environment={})
    assert forecast(inventory, other, 26, Costs(path)).kinds["features"] == cold.kinds["features"]
    measured = learned(inventory, small_config, path, 5.0)
    assert measured.expected_s["features"] == pytest.approx(5 * warm.nominal_s["features"])


def test_what_decides_the_cost_is_in_the_kind(inventory: Inventory, tmp_path: Path) -> None:  # R34
    def kinds(*overrides: str) -> dict[str, str]:
        config = vesu.load_config(overrides=overrides, environment={})
        return forecast(inventory, config, 26, Costs(tmp_path / COSTS_NAME)).kinds

    plain = kinds()
    assert kinds("seed=5") == plain
    for override, phase in (
        ("search.solver=fista", "fit"),
        ("segment.steps=threshold", "segment"),
        ("pipeline=nx46", "segment"),
        ("n_threads=7", "load"),
    ):
        assert kinds(override)[phase] != plain[phase], override


def test_a_disk_that_refuses_the_costs_does_not_fail_the_run(
    inventory: Inventory, small_config: vesu.RunConfig, tmp_path: Path
) -> None:
    plan = forecast(inventory, small_config, 26, Costs(tmp_path / "missing" / COSTS_NAME))
    plan.learn({"fit": 3.0})
    assert plan.costs.problem is not None and "missing" in plan.costs.problem
    with pytest.raises(FileError):
        plan.costs.write()


# -- caps --------------------------------------------------------------------------------------------------------------


def test_caps_reproduce_the_history_and_move_no_volume() -> None:  # R40
    numbered = list(range(786))  # they stand for the pairs
    capped = split_pairs(numbered, 0.2, 0, max_train=24, max_validation=8)  # type: ignore[arg-type]
    assert (len(capped.train), len(capped.validation), len(capped.left_out)) == (24, 8, 754)
    assert round(100 * 32 / 786, 2) == 4.07
    assert sorted([*capped.train, *capped.validation, *capped.left_out]) == numbered  # type: ignore[type-var]
    whole = split_pairs(numbered, 0.2, 0)  # type: ignore[arg-type]
    assert set(capped.train) <= set(whole.train) and set(capped.validation) <= set(whole.validation)
    more = split_pairs(numbered, 0.2, 0, max_train=25, max_validation=1000)  # type: ignore[arg-type]
    assert set(capped.train) < set(more.train) and more.validation == whole.validation
    assert whole.left_out == ()


def test_caps_come_from_the_configuration(inventory: Inventory, dataset: Path) -> None:  # R40
    config = vesu.load_config(overrides=["sampling.max_train_volumes=1"], environment={})
    split = configured_split(inventory.pairs, config)
    assert (len(split.train), len(split.validation), len(split.left_out)) == (1, 1, 1)
    full = phase_weights(inventory, vesu.load_config(environment={}), 26)
    capped = phase_weights(inventory, config, 26)
    assert capped["features"] == pytest.approx(full["features"] * 2 / 3)
    assert capped["fit"] == pytest.approx(full["fit"] * 2 / 3)
