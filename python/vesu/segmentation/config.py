"""The ladder: which steps, in which order."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.segmentation.registry import STEPS, parameters, step_from
from vesu.segmentation.step import Array, Step
from vesu.segmentation.steps import Closing, Dust, Patch, Plug, SmoothZ, Suppress, Threshold
from vesu.segmentation.threshold import ThresholdRule, checked_range

DEFAULT_STEPS: tuple[Step, ...] = (SmoothZ(), Threshold(), Dust(), Plug(), Closing(), Patch())
"""The ladder where none is given, with the steps' own defaults: the measured best (docs/measured.md)."""

DENSITY_RANGE = (0.02, 0.15)
"""Shares of foreground that raise no warning.

The two real labels at hand have 0.047 and 0.058 (0.051 and 0.062 of what is labelled), a competitor's mask has 0.094,
and the history aimed at 0.06 to 0.12. The range leaves a factor of two below the lowest and a quarter above the
highest of these. It is a hint to look, never a clamp.
"""


@dataclass(frozen=True)
class SegmentConfig:
    """How :func:`vesu.segment` works: a ladder of steps.

    Parameters
    ----------
    steps : sequence of Step
        Probability steps (`Suppress`, `SmoothZ`, `Median`), then exactly one `Threshold`, then mask steps (`Dust`,
        `Median`, `Plug`, `Opening`, `Closing`, `Fill`, `Patch`). The same step may come twice.
    density_range : (float, float)
        Share of foreground outside which the diagnostics carry a warning. Never changes the mask.

    Raises
    ------
    ArgumentError
        A wrong order, no threshold or two, something that is no step, a range out of order.

    Examples
    --------
    >>> from vesu.segmentation import Closing, Dust, SegmentConfig, Threshold
    >>> config = SegmentConfig(steps=(Threshold(), Dust(100), Closing((2, 1, 1)), Dust(5000, spare_border=True)))
    >>> [step.name for step in config.after]
    ['dust', 'closing', 'dust']
    """

    steps: tuple[Step, ...] = DEFAULT_STEPS
    density_range: tuple[float, float] = DENSITY_RANGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _checked(self.steps))
        object.__setattr__(self, "density_range", checked_range(self.density_range))

    @property
    def threshold(self) -> Threshold:
        """The one threshold step."""
        (found,) = (step for step in self.steps if isinstance(step, Threshold))
        return found

    @property
    def before(self) -> tuple[Step, ...]:
        """The probability steps."""
        return self.steps[: self.steps.index(self.threshold)]

    @property
    def after(self) -> tuple[Step, ...]:
        """The mask steps."""
        return self.steps[self.steps.index(self.threshold) + 1 :]

    @property
    def needs_uncertainty(self) -> bool:
        """Whether a step looks at the ensemble's spread."""
        return any(isinstance(step, Suppress) for step in self.steps)

    def with_rule(self, rule: ThresholdRule) -> "SegmentConfig":
        """The same ladder with another threshold rule."""
        threshold = replace(self.threshold, rule=rule)
        return replace(self, steps=(*self.before, threshold, *self.after))

    def prepare(
        self,
        probability: NDArray[np.float32],
        *,
        uncertainty: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> NDArray[np.float32]:
        """The probability after the steps before the threshold."""
        return _run(self.before, probability, uncertainty, n_threads)

    def finish(self, mask: NDArray[np.uint8], *, n_threads: int | None = None) -> NDArray[np.uint8]:
        """The mask after the steps behind the threshold."""
        return _run(self.after, mask, None, n_threads)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SegmentConfig":
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ArgumentError
            As the constructor, and for unknown steps and parameters.
        KeyError, TypeError
            An entry that is missing or of another kind.
        """
        return cls(tuple(step_from(entry) for entry in values["steps"]), values["density_range"])


def steps_from_tables(names: Any, tables: Mapping[str, Any]) -> tuple[Step, ...]:
    """A ladder as a configuration file tells it: a list of names, and a table of parameters a step.

    Parameters
    ----------
    names : list, str or None
        Names in order; an entry may be a table ``{name = "dust", min_voxels = 100}`` of its own. A text is split at
        its commas. None: the default ladder.
    tables : mapping of str to mapping
        Parameters by step name, for every step of that name; what an entry of `names` says itself comes first.

    Raises
    ------
    ArgumentError
        An unknown step or parameter, a value out of range, a table that is none, a wrong order. The tables of steps
        that are not in the ladder are checked too.

    Examples
    --------
    >>> [step.name for step in steps_from_tables("threshold, dust", {"dust": {"min_voxels": 1000}})]
    ['threshold', 'dust']
    """
    for name, table in tables.items():
        if name not in STEPS:
            raise ArgumentError(f"{name}: no such step; accepted: {', '.join(STEPS)}")
        if not isinstance(table, Mapping):
            raise ArgumentError(f"{name}: got {table!r}; accepted: a table of keys")
        step_from({"name": name, **table})
    entries = [_as_entry(step) for step in DEFAULT_STEPS] if names is None else _listed(names)
    if names is None:  # a table changes the default ladder's own parameters
        merged = [{**entry, **tables.get(entry["name"], {})} for entry in entries]
    else:
        merged = [{**tables.get(_name(entry), {}), **entry} for entry in entries]
    return _checked(tuple(step_from(entry) for entry in merged))


def _listed(names: Any) -> list[dict[str, Any]]:
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    if not isinstance(names, list | tuple):
        raise ArgumentError(f"steps: got {names!r}; accepted: a list of {', '.join(STEPS)}")
    entries: list[dict[str, Any]] = []
    for entry in names:
        if isinstance(entry, Step):
            entries.append(_as_entry(entry))
        else:
            entries.append(dict(entry) if isinstance(entry, Mapping) else {"name": entry})
    return entries


def _as_entry(step: Step) -> dict[str, Any]:
    return {"name": step.name, **{key: getattr(step, key) for key in parameters(type(step))}}


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name"))


def _run(steps: Iterable[Step], array: Array, uncertainty: NDArray[np.float32] | None, n_threads: int | None) -> Array:
    for step in steps:
        array, _ = step.apply(array, uncertainty=uncertainty, n_threads=n_threads)
    return array


def _checked(steps: Any) -> tuple[Step, ...]:
    """The steps as a tuple, if they make a ladder."""
    if not isinstance(steps, list | tuple) or not all(isinstance(step, Step) for step in steps):
        raise ArgumentError(f"steps: got {steps!r}; accepted: a tuple of steps")
    names = [step.name for step in steps]
    n_thresholds = names.count("threshold")
    if n_thresholds != 1:
        raise ArgumentError(f"steps: got {n_thresholds} threshold steps in {names}; accepted: exactly one")
    place = names.index("threshold")
    for number, step in enumerate(steps):
        side = "probability" if number < place else "mask"
        if number != place and side not in step.sides:
            where = "before" if side == "mask" else "after"
            raise ArgumentError(
                f"steps: got {step.name!r} {'after' if side == 'mask' else 'before'} the threshold in {names}; "
                f"accepted: {where} it"
            )
    return tuple(steps)
