"""What a ladder is made of: the order of its steps, their parameters, and how files tell it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from vesu.errors import ArgumentError
from vesu.segmentation import (
    DEFAULT_STEPS,
    STEPS,
    Closing,
    Dust,
    Fill,
    Median,
    Opening,
    Patch,
    Plug,
    SegmentConfig,
    SmoothZ,
    Step,
    Suppress,
    Threshold,
    ThresholdRule,
    parameters,
    step_from,
    steps_from_tables,
)

# ---- what makes no ladder ----


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "got 0 threshold steps"),
        ((SmoothZ(), Dust()), "got 0 threshold steps"),
        ((Threshold(), Threshold()), "got 2 threshold steps"),
        ((Dust(), Threshold()), "got 'dust' before the threshold .*; accepted: after it"),
        ((Threshold(), SmoothZ()), "got 'smooth_z' after the threshold .*; accepted: before it"),
        ((Threshold(), Suppress()), "got 'suppress' after the threshold"),
        ((Closing(), Threshold()), "got 'closing' before the threshold"),
        (("threshold",), "accepted: a tuple of steps"),
        ("threshold", "accepted: a tuple of steps"),
        (Threshold(), "accepted: a tuple of steps"),
    ],
)
def test_a_wrong_order_is_refused(steps: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"steps: {message}" if message.startswith("got") else message):
        SegmentConfig(steps)


@pytest.mark.parametrize(
    "steps", [(Median(), Threshold(), Median()), [Threshold()], (Suppress(), SmoothZ(), Threshold())]
)
def test_right_orders_are_taken(steps: Any) -> None:
    config = SegmentConfig(steps)
    assert config.steps == tuple(steps)
    assert (*config.before, config.threshold, *config.after) == config.steps


@pytest.mark.parametrize(
    ("kind", "arguments", "named"),
    [
        (Dust, {"connectivity": 7}, "dust.connectivity"),
        (Dust, {"connectivity": 26.0}, "dust.connectivity"),
        (Dust, {"min_voxels": -1}, "dust.min_voxels"),
        (Dust, {"min_voxels": 2.5}, "dust.min_voxels"),
        (Dust, {"min_voxels": True}, "dust.min_voxels"),
        (Dust, {"min_voxels": 2**63}, "dust.min_voxels"),
        (Dust, {"keep_largest": 0}, "dust.keep_largest"),
        (Dust, {"spare_border": 1}, "dust.spare_border"),
        (SmoothZ, {"radius": -1}, "smooth_z.radius"),
        (SmoothZ, {"radius": "1"}, "smooth_z.radius"),
        (Suppress, {"strength": -0.1}, "suppress.strength"),
        (Suppress, {"strength": float("nan")}, "suppress.strength"),
        (Suppress, {"strength": "high"}, "suppress.strength"),
        (Threshold, {"connectivity": 8}, "threshold.connectivity"),
        (Threshold, {"rule": "quantile"}, "threshold.rule"),
        (Threshold, {"rule": {"mode": "otsu"}}, "threshold.rule.mode"),
        (Opening, {"radius": (1, 1)}, "opening.radius"),
        (Opening, {"radius": -1}, "opening.radius"),
        (Closing, {"radius": (1, -1, 1)}, "closing.radius"),
        (Closing, {"radius": 1.5}, "closing.radius"),
        (Closing, {"shape": "cross"}, "closing.shape"),
        (Fill, {"connectivity": 4}, "fill.connectivity"),
        (Patch, {"max_gap": 0}, "patch.max_gap"),
        (Patch, {"max_gap": 1025}, "patch.max_gap"),
        (Patch, {"max_residual": -1}, "patch.max_residual"),
        (Patch, {"min_voxels": 1.5}, "patch.min_voxels"),
    ],
)
def test_bad_parameters_are_named(kind: type[Step], arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{named}: got .*; accepted"):
        kind(**arguments)


@pytest.mark.parametrize("limits", [(0.5, 0.1), (0.5,), 3, ("a", "b"), (0, 2)])
def test_a_bad_density_range_is_named(limits: Any) -> None:
    with pytest.raises(ArgumentError, match=r"density_range: got .*; accepted"):
        SegmentConfig(density_range=limits)


# ---- as files tell it ----


def test_a_ladder_survives_json() -> None:
    rule = ThresholdRule("density", 0.5, 0.9, (0.04, 0.1))
    steps = (Suppress(0.5), SmoothZ(2), Median(), Threshold(rule, 6), Dust(20, 6), Opening((0, 1, 1), "box"), Plug())
    config = SegmentConfig((*steps, Closing(3), Patch(max_gap=5), Fill(26), Dust(9, keep_largest=3)), (0.01, 0.2))
    assert SegmentConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.to_json()["steps"][4] == {
        "name": "dust", "min_voxels": 20, "connectivity": 6, "keep_largest": None, "spare_border": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_found_by_its_name(name: str) -> None:
    step = step_from(name)
    assert type(step) is STEPS[name] and step.name == name
    assert step_from({"name": name, **{key: getattr(step, key) for key in parameters(type(step))}}) == step


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("erosion", "steps: got 'erosion'; accepted: steps named suppress, smooth_z"),
        ({}, "steps: got {}"),
        ({"name": 3}, "steps: got 3"),
        (3, "steps: got 3"),
        ({"name": "dust", "size": 3}, "dust.size: no such parameter; accepted: min_voxels, connectivity"),
        ({"name": "plug", "radius": 1}, "plug.radius: no such parameter; accepted: none at all"),
        ({"name": "threshold", "rule": {"kind": "fixed"}}, "threshold.rule.kind: no such parameter; accepted: mode"),
    ],
)
def test_an_unknown_step_or_parameter_is_named(entry: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        step_from(entry)
    assert message in str(caught.value)


def test_tables_apply_to_every_step_of_their_name_unless_it_says_otherwise() -> None:
    tables = {"dust": {"min_voxels": 7, "connectivity": 6}, "closing": {"radius": [2, 1, 1]}}
    names = ["threshold", {"name": "dust", "min_voxels": 3}, "closing", "dust"]
    assert steps_from_tables(names, tables) == (Threshold(), Dust(3, 6), Closing((2, 1, 1)), Dust(7, 6))
    changed = steps_from_tables(None, {"dust": {"min_voxels": 7}})
    assert changed == tuple(replace(step, min_voxels=7) if isinstance(step, Dust) else step for step in DEFAULT_STEPS)
    with pytest.raises(ArgumentError, match=r"closing\.radius: got -1"):
        steps_from_tables(["threshold"], {"closing": {"radius": -1}})  # off, and checked all the same
