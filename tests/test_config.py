"""Configuration: sources, refusals, and the client's floor."""

from pathlib import Path

import pytest

from vesu.config import RunConfig, load_config
from vesu.errors import ArgumentError, FileError


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
        ("segment.connectivity=7", "segment.connectivity: got 7; accepted: 6, 18 or 26"),
        ("sampling.validation_fraction=1", "validation_fraction"),
        ("features.scales=[]", "features.scales"),
        ("search=3", "a table of keys"),
        ("search.learning_rate=-1.0", "learning_rate"),
        ("search.class_weight=odd", "class_weight"),
        ("search.l1=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, nan]", "search.l1"),
        ("search.l2=[1e-4, 1e-3, 1e-2, 1e-2]", "distinct"),
        ("n_threads=99999999999999999999", "n_threads"),
        ("cache_gib=inf", "cache_gib"),
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
    sections = {key: value for key, value in values.items() if isinstance(value, dict)}
    for name, value in [item for table in (values, *sections.values()) for item in table.items()]:
        if not isinstance(value, dict):
            row = f"| `{name}` | `{'none' if value is None else value}` | "
            assert row in text and f"{row}|" not in text, name
