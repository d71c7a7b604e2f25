"""A configuration from TOML, the environment (``VESU_*``) and the command line; unknown keys are refused."""

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vesu.config.checks import require
from vesu.config.sections import RunConfig, SegmentSettings
from vesu.errors import ArgumentError, FileError
from vesu.segmentation import STEPS, parameters, steps_from_tables
from vesu.segmentation.threshold import ThresholdRule

__all__ = ["OTHER_VARIABLES", "load_config"]

OTHER_VARIABLES = {
    "VESU_NUM_THREADS",
    "VESU_SIMD",
    "VESU_DATA",
    "VESU_DATA_ROOT",
    "VESU_BENCH_FULL",
    "VESU_SESSION_START",
    "VESU_WHEELHOUSE",
    "VESU_PYTHONS",
    "VESU_RANKS_TIMEOUT_S",
}
"""Variables of vesu that are no configuration keys (docs/configuration.md)."""


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> RunConfig:
    """Read a configuration; later sources win: defaults, TOML file, environment, overrides.

    Parameters
    ----------
    path : path, optional
        TOML file with top-level keys and the tables ``[sampling]``, ``[features]``, ``[search]``, ``[segment]``,
        ``[teachers]``, ``[student]``, ``[nonces]``, ``[time]``, ``[checkpoint]``, ``[memory]``, ``[nx46]``, ``[nx47]``,
        and below ``[segment]`` the table ``[segment.calibration]`` and one for each step: ``[segment.dust]``.
    overrides : sequence of str
        ``"section.key=value"`` (or ``"seed=3"``, ``"segment.dust.min_voxels=1000"``); the value is read as TOML, a
        bare word as text.
    environment : mapping, optional
        Default ``os.environ``. ``VESU_SEARCH_META_NEURONS=12`` sets ``search.meta_neurons``, ``VESU_SEED=3`` the seed,
        ``VESU_SEGMENT_DUST_MIN_VOXELS=1000`` a parameter of a step.

    Raises
    ------
    ArgumentError
        An unknown key, a value of the wrong type, or one outside its range (R50: never below the grid's floor).
    FileError
        The file cannot be read.

    Examples
    --------
    >>> load_config(overrides=["search.meta_neurons=12"], environment={}).search.meta_neurons
    12
    >>> [step.name for step in load_config(overrides=["segment.steps=threshold,dust"], environment={}).segment.steps]
    ['threshold', 'dust']
    """
    values: dict[str, Any] = {}
    if path is not None:
        _merge(values, _read_toml(Path(path)), str(path))
    _merge(values, _from_environment(os.environ if environment is None else environment), "environment")
    for text in overrides:
        key, separator, raw = text.partition("=")
        require("override", repr(text), bool(separator and key.strip()), "'section.key=value'")
        nested: Any = _toml_value(raw)
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested, f"override {text!r}")
    _make_steps(values.get("segment", {}))
    built: RunConfig = _build(RunConfig, values, "")
    return built


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}: got bytes that are not UTF-8; accepted: a TOML file") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ArgumentError(f"{path}: got {error}; accepted: a TOML file") from error


def _toml_value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw.strip()}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return raw.strip()


def _sections() -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(RunConfig).items() if dataclasses.is_dataclass(kind)}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {"VESU_" + "_".join(path).upper(): path for path in _paths(RunConfig)}
    values: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith("VESU_") or name in OTHER_VARIABLES:
            continue
        require("environment", name, name in known, f"one of {', '.join(_akin(name, known))}")
        nested: Any = _toml_value(environment[name])
        for part in reversed(known[name]):
            nested = {part: nested}
        _merge(values, nested, "environment")
    return values


def _paths(kind: Any) -> Iterator[tuple[str, ...]]:
    """Every key that may be set, from the top: ("seed",), ("search", "l1"), ("segment", "dust", "min_voxels")."""
    hints = get_type_hints(kind)
    for name, hint in ((each.name, hints[each.name]) for each in dataclasses.fields(kind)):
        if dataclasses.is_dataclass(hint):
            yield from ((name, *path) for path in _paths(hint))
        else:
            yield (name,)
    if kind is SegmentSettings:
        for name, step in STEPS.items():
            for key in parameters(step):
                nested = _paths(ThresholdRule) if key == "rule" else [()]
                yield from ((name, key, *path) for path in nested)


def _akin(name: str, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Of the known variables those of the same section, or else the top-level ones and those that are no keys."""
    section = name.split("_")[1].lower()
    akin = [each for each, path in known.items() if path[0] == section]
    return sorted(akin or [each for each, path in known.items() if len(path) == 1] + [*OTHER_VARIABLES])


def _merge(into: dict[str, Any], new: Mapping[str, Any], source: str) -> None:
    for key in _sections().keys() & new.keys():
        if not isinstance(new[key], Mapping):
            raise ArgumentError(f"{source}: {key}: got {new[key]!r}; accepted: a table of keys")
    try:
        _update(into, new)
    except RecursionError as error:
        raise ArgumentError(f"{source}: got tables nested too deeply; accepted: section.step.key") from error


def _update(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Table by table, so that a later source changes only the keys it names."""
    for key, value in new.items():
        if isinstance(value, Mapping):
            table = into.get(key)
            into[key] = dict(table) if isinstance(table, Mapping) else {}
            _update(into[key], value)
        else:
            into[key] = value


def _make_steps(segment: dict[str, Any]) -> None:
    """Replace the names of the steps and their tables by the steps themselves."""
    known = [*(field_.name for field_ in dataclasses.fields(SegmentSettings)), *STEPS]
    for key in segment:
        require("configuration key", f"segment.{key}", key in known, ", ".join(f"segment.{name}" for name in known))
    tables = {name: segment.pop(name) for name in STEPS if name in segment}
    if not tables and "steps" not in segment:
        return
    try:
        segment["steps"] = steps_from_tables(segment.get("steps"), tables)
    except ArgumentError as error:
        raise ArgumentError(f"segment.{error}") from None


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(kind)
    known = [field_.name for field_ in dataclasses.fields(kind)]
    built = {}
    for key, value in values.items():
        require("configuration key", prefix + key, key in known, ", ".join(prefix + name for name in known))
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            built[key] = _build(hint, value, f"{prefix}{key}.")
        else:
            built[key] = _coerce(prefix + key, value, hint)
    return kind(**built)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` says, without guessing: an int serves as a float, "none" as None, a list as a tuple."""
    if get_origin(hint) is tuple:
        require(name, repr(value), isinstance(value, list | tuple), "a list")
        return tuple(_coerce(name, item, get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type):
        good = isinstance(value, hint) and not (hint is not bool and isinstance(value, bool))
        require(name, repr(value), good, hint.__name__)
        return value
    if get_origin(hint) is Literal:
        require(name, repr(value), value in get_args(hint), " or ".join(map(repr, get_args(hint))))
        return value
    options = get_args(hint)
    if type(None) in options and (value is None or value == "none"):
        return None
    for option in options:
        if option is not type(None):
            try:
                return _coerce(name, value, option)
            except ArgumentError:
                continue
    accepted = " or ".join("none" if option is type(None) else str(option) for option in options)
    raise ArgumentError(f"{name}: got {value!r}; accepted: {accepted}")
