"""What may be tuned, and a configuration as a file (R43, R50)."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesu.config import RunConfig, config_from_json, config_toml, load_config, load_ladder, toml_value
from vesu.errors import ArgumentError, FileError
from vesu.segmentation import Dust, SegmentConfig, SmoothZ, Threshold, ThresholdRule
from vesu.tuning import Choice, Range, Space, changed, default_space, read_space

LADDER = SegmentConfig((SmoothZ(0), Threshold(ThresholdRule("fixed", 0.3, 1.0)), Dust(1)))


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
