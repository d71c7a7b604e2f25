"""Which settings are tuned, and within which bounds: keys of ``[segment]`` alone, never the grid (R50)."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from vesu.config import SegmentSettings, load_config, toml_value
from vesu.errors import ArgumentError, FileError
from vesu.segmentation import SegmentConfig, Step

__all__ = ["Choice", "Parameter", "Range", "Space", "changed", "default_space", "read_space"]

RULE, CALIBRATION = "segment.threshold.rule.", "segment.calibration."
FIXED = ("segment.steps", "segment.density_range", "segment.calibration.fit")
"""What decides which settings there are, or changes no mask."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are.

    Examples
    --------
    >>> Range(100, 5000, log=True).whole, 5000 in Range(100, 5000), 99.5 in Range(100, 5000)
    (True, True, False)
    """

    low: float
    high: float
    log: bool = False
    """Even steps of the logarithm, not of the number."""

    def __post_init__(self) -> None:
        numbers = [self.low, self.high]
        good = all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers)
        if not good or not all(map(math.isfinite, numbers)) or not self.low < self.high:
            raise ArgumentError(f"low, high: got {self.low!r} and {self.high!r}; accepted: finite numbers, low < high")
        if not isinstance(self.log, bool) or (self.log and self.low <= 0):
            raise ArgumentError(f"log: got {self.log!r} from low {self.low!r}; accepted: true only above 0, or false")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """What must be acceptable for all of it to be."""
        return self.low, self.high

    def normal(self, value: Any) -> Any:
        """A value as it was before a file in JSON took 1.0 for 1."""
        return value if self.whole else float(value)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, Any]:
        """JSON types, as a file of a space has them."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Examples
    --------
    >>> (2, 1, 1) in Choice((1, (2, 1, 1)))
    True
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _frozen(self.values))
        if len(self.values) < 2 or any(each in self.values[:i] for i, each in enumerate(self.values)):
            raise ArgumentError(f"values: got {list(self.values)!r}; accepted: two or more, each once")

    @property
    def extremes(self) -> tuple[Any, ...]:
        """What must be acceptable for all of it to be."""
        return self.values

    def normal(self, value: Any) -> Any:
        """The one of the values that a value from a file in JSON stands for."""
        return next((each for each in self.values if each == _frozen(value)), value)

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def to_json(self) -> list[Any]:
        """JSON types, as a file of a space has them."""
        return [list(each) if isinstance(each, tuple) else each for each in self.values]


Parameter: TypeAlias = Range | Choice


@dataclass(frozen=True)
class Space:
    """The settings that are tuned.

    Parameters
    ----------
    parameters : mapping of str to Range or Choice
        By dotted key of the configuration, all of them below ``segment``.

    Raises
    ------
    ArgumentError
        None at all; a key of the search's grid, of anything else outside ``segment``, or an unknown one; a bound that
        the setting itself refuses; threshold rule and calibration both, of which the one is the outcome of the other.

    Notes
    -----
    Requirements R43 and R50.

    Examples
    --------
    >>> Space({"segment.dust.min_voxels": Range(100, 5000, log=True)}).refits
    False
    >>> Space({"search.max_iter": Range(10, 120)})
    Traceback (most recent call last):
    vesu.errors.ArgumentError: search.max_iter: got it in a space to tune; accepted: keys of [segment] (the ...
    """

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ArgumentError("space: got no parameter; accepted: one or more keys of [segment]")
        for key, parameter in self.parameters.items():
            _check(key, parameter)
        rules = [key for key in self.parameters if key.startswith(RULE)]
        if rules and self.refits:
            raise ArgumentError(
                f"{rules[0]}: got it beside {CALIBRATION}*, which fits the rule anew in each trial; accepted: one of "
                "the two"
            )

    @property
    def refits(self) -> bool:
        """Whether the threshold's rule is fitted anew in each trial, by the calibration settings of the trial."""
        return any(key.startswith(CALIBRATION) for key in self.parameters)

    def require_steps(self, settings: SegmentSettings) -> None:
        """Refuse parameters of steps that a ladder does not have: they would change nothing."""
        names = [step.name for step in settings.steps]
        for key in self.parameters:
            step = key.split(".")[1]
            if step not in ("calibration", *names):
                raise ArgumentError(f"{key}: got it for a ladder of {', '.join(names)}; accepted: parameters of these")

    def values_of(self, settings: SegmentSettings) -> dict[str, Any]:
        """What the parameters are in some settings."""
        return {key: _value_of(settings, key) for key in self.parameters}

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether values of all parameters lie within their bounds."""
        return all(values[key] in parameter for key, parameter in self.parameters.items())

    def normal(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as they were before they went through JSON."""
        return {key: self.parameters[key].normal(value) for key, value in values.items()}

    def to_json(self) -> dict[str, Any]:
        """JSON types, by key."""
        return {key: parameter.to_json() for key, parameter in self.parameters.items()}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """A space from nested tables, as a file holds them; see :func:`read_space`."""
        return cls(dict(_leaves("", tables)))


def read_space(path: str | Path) -> Space:
    """A space from a TOML file: a table ``{low, high, log}`` is a range, a list one of some values.

    Parameters
    ----------
    path : path
        Such as ::

            [segment.dust]
            min_voxels = {low = 100, high = 5000, log = true}
            [segment.closing]
            radius = [1, [2, 1, 1]]

    Raises
    ------
    FileError
        It cannot be read.
    ArgumentError
        It is no TOML, or no space; the message names file and key.

    Examples
    --------
    >>> read_space("space.toml")  # doctest: +SKIP
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{path}: got {error}; accepted: a TOML file") from error
    try:
        return Space.from_tables(tables)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from None


def default_space(ladder: SegmentConfig) -> Space:
    """The numbers of a run's own ladder, around what they are.

    Parameters
    ----------
    ladder : SegmentConfig
        With its fitted rule.

    Returns
    -------
    Space
        Smoothing, the threshold's rule and hysteresis, dust, closing and patching: of these the steps that the ladder
        has.

    Examples
    --------
    >>> from vesu.segmentation import Dust, Threshold
    >>> sorted(default_space(SegmentConfig((Threshold(), Dust(600)))).to_json())
    ['segment.dust.min_voxels', 'segment.threshold.rule.low_factor', 'segment.threshold.rule.value']
    """
    found: dict[str, Parameter] = {}
    for step in ladder.steps:
        found |= {f"segment.{step.name}.{key}": parameter for key, parameter in _usual(step).items()}
    return Space(found)


def changed(settings: SegmentSettings, values: Mapping[str, Any]) -> SegmentSettings:
    """The settings with other values of some parameters.

    Parameters
    ----------
    settings : SegmentSettings
    values : mapping of str to value
        By dotted key; that of a step is of every step of that name.

    Raises
    ------
    ArgumentError
        A value that the setting refuses.

    Examples
    --------
    >>> settings = changed(SegmentSettings(), {"segment.dust.min_voxels": 9})
    >>> [step.min_voxels for step in settings.steps if step.name == "dust"]
    [9]
    """
    steps, calibration = settings.steps, settings.calibration
    for key, value in values.items():
        _, name, *rest = key.split(".")
        if name == "calibration":
            calibration = replace(calibration, **{rest[0]: _frozen(value)})
        else:
            steps = tuple(_changed_step(step, rest, _frozen(value)) if step.name == name else step for step in steps)
    return replace(settings, steps=steps, calibration=calibration)


def _changed_step(step: Any, path: list[str], value: Any) -> Step:
    if len(path) == 2:
        value = replace(step.rule, **{path[1]: value})
    done: Step = replace(step, **{path[0]: value})
    return done


def _value_of(settings: SegmentSettings, key: str) -> Any:
    _, name, *rest = key.split(".")
    found: Any = settings.calibration if name == "calibration" else None
    found = found or next(step for step in settings.steps if step.name == name)
    for part in rest:
        found = getattr(found, part)
    return found


def _check(key: str, parameter: Parameter) -> None:
    if not key.startswith("segment.") or key in FIXED:
        why = "the grid is never tuned smaller, R50" if key.startswith("search") else "of what comes after the model"
        raise ArgumentError(f"{key}: got it in a space to tune; accepted: keys of [segment] ({why})")
    for value in parameter.extremes:
        load_config(overrides=[f"{key}={toml_value(value)}"], environment={})  # it knows keys, types and ranges


def _leaves(prefix: str, tables: Mapping[str, Any]) -> Iterator[tuple[str, Parameter]]:
    for name, value in tables.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            yield from _leaves(f"{key}.", value)
            continue
        try:
            yield key, _parameter(value)
        except ArgumentError as error:
            raise ArgumentError(f"{key}: {error}") from None


def _parameter(value: Any) -> Parameter:
    if isinstance(value, list):
        return Choice(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise ArgumentError(f"got {value!r}; accepted: {{low = A, high = B, log = true}}, or a list of values")
    return Range(**value)


def _usual(step: Any) -> dict[str, Parameter]:
    """Parameters of a step that are worth tuning, around their present values."""
    if step.name == "threshold":
        value, mode = step.rule.value, step.rule.mode
        share = max(1 - value, 1e-4)  # of the voxels that a quantile leaves
        low, high = (1 - 3 * share, 1 - share / 3) if mode == "quantile" else (value / 2, value * 1.5)
        return {
            "rule.value": Range(round(max(0.0, low), 6), round(max(1e-6, min(1.0, high)), 6)),
            "rule.low_factor": Range(0.3, 1.0),
        }
    usual: dict[str, dict[str, Parameter]] = {
        "suppress": {"strength": Range(0.0, 3.0)},
        "smooth_z": {"radius": Range(0, 3)},
        "closing": {"radius": Choice((0, 1, (2, 1, 1), (3, 2, 2)))},
        "patch": {"max_gap": Range(4, 64), "max_residual": Range(1.0, 6.0)},
    }
    if step.name == "dust":
        least = max(1, step.min_voxels)
        return {"min_voxels": Range(max(1, least // 20), 4 * least, log=True)}
    return usual.get(step.name, {})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
