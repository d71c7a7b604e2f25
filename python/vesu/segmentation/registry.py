"""Steps by their names, as files tell them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vesu.errors import ArgumentError
from vesu.segmentation.step import Step
from vesu.segmentation.steps import (
    Closing,
    Dust,
    Fill,
    Median,
    Opening,
    Patch,
    Plug,
    SmoothZ,
    Suppress,
    Threshold,
)

STEPS: dict[str, type[Step]] = {
    kind().name: kind for kind in (Suppress, SmoothZ, Median, Threshold, Dust, Plug, Opening, Closing, Patch, Fill)
}
"""Every step by its name."""


def parameters(kind: type[Step]) -> tuple[str, ...]:
    """Names of a step's parameters."""
    return tuple(each.name for each in fields(kind) if each.init)


def step_from(entry: str | Mapping[str, Any]) -> Step:
    """A step from its name, or from a table of its name and parameters, as in ``model.json``.

    Parameters
    ----------
    entry : str or mapping
        ``"dust"``, or ``{"name": "dust", "min_voxels": 1000}``; what is not given keeps its default.

    Raises
    ------
    ArgumentError
        An unknown step or parameter, or a value out of range.

    Examples
    --------
    >>> step_from({"name": "dust", "min_voxels": 1000})
    Dust(min_voxels=1000, connectivity=26, keep_largest=None, spare_border=False)
    """
    values = {"name": entry} if isinstance(entry, str) else entry
    name = values.get("name") if isinstance(values, Mapping) else None
    if not isinstance(name, str) or name not in STEPS:
        raise ArgumentError(f"steps: got {name or entry!r}; accepted: steps named {', '.join(STEPS)}")
    known = parameters(STEPS[name])
    given = {key: None if value == "none" else value for key, value in values.items() if key != "name"}
    for key in given:
        if key not in known:
            raise ArgumentError(f"{name}.{key}: no such parameter; accepted: {', '.join(known) or 'none at all'}")
    return STEPS[name](**given)
