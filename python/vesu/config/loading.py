"""A configuration from TOML, the environment (``VESU_*``) and the command line; unknown keys are refused."""

import dataclasses
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vesu.config.aliases import AliasUse, alias_settings
from vesu.config.checks import require
from vesu.config.sections import RunConfig, SegmentSettings
from vesu.errors import ArgumentError, FileError
from vesu.segmentation import STEPS, SegmentConfig, parameters, steps_from_tables
from vesu.segmentation.threshold import ThresholdRule

__all__ = ["OTHER_VARIABLES", "config_from_json", "load_config", "load_ladder"]

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
        ``[teachers]``, ``[student]``, ``[guided]``, ``[auto_tune]``, ``[nonces]``, ``[time]``, ``[checkpoint]``,
        ``[memory]``, ``[gates]``, ``[nx46]``, ``[nx47]``, and below ``[segment]`` the table ``[segment.calibration]``
        and one for each step: ``[segment.dust]``.
    overrides : sequence of str
        ``"section.key=value"`` (or ``"seed=3"``, ``"segment.dust.min_voxels=1000"``); the value is read as TOML, a
        bare word as text.
    environment : mapping, optional
        Default ``os.environ``. ``VESU_SEARCH_META_NEURONS=12`` sets ``search.meta_neurons``, ``VESU_SEED=3`` the seed,
        ``VESU_SEGMENT_DUST_MIN_VOXELS=1000`` a parameter of a step. The history's names are aliases
        (:data:`vesu.config.ALIASES`): ``V1442_META_NEURONS=12`` does the same; which were used stands in
        ``RunConfig.aliases_used``.

    Raises
    ------
    ArgumentError
        An unknown key, a value of the wrong type, or one outside its range (R50: never below the grid's floor); two
        variables that set one key to different values.
    FileError
        The file cannot be read.

    Examples
    --------
    >>> load_config(overrides=["search.meta_neurons=12"], environment={}).search.meta_neurons
    12
    >>> [step.name for step in load_config(overrides=["segment.steps=threshold,dust"], environment={}).segment.steps]
    ['threshold', 'dust']
    >>> load_config(environment={"NX46_RUN_TAG": "v7.5"}).tag
    'v7.5'
    """
    values: dict[str, Any] = {}
    if path is not None:
        _merge(values, _read_toml(Path(path)), str(path))
    settings, aliases = _from_environment(os.environ if environment is None else environment)
    _merge(values, settings, "environment")
    for text in overrides:
        key, separator, raw = text.partition("=")
        require("override", repr(text), bool(separator and key.strip()), "'section.key=value'")
        _merge(values, _nested(key.strip(), _toml_value(raw)), f"override {text!r}")
    _make_steps(values.get("segment", {}))
    aliases = [dataclasses.replace(use, in_force=_in_force(use, values)) for use in aliases]
    try:
        built: RunConfig = _build(RunConfig, values, "")
    except ArgumentError as error:
        raise _named(error, aliases) from None
    return dataclasses.replace(built, aliases_used=tuple(aliases))


def config_from_json(values: Mapping[str, Any]) -> RunConfig:
    """The configuration that :meth:`RunConfig.to_json` gave, such as the one in a run's ``config.json``.

    Parameters
    ----------
    values : mapping
        As JSON gives it back; what is not in it has its default.

    Raises
    ------
    ArgumentError
        As :func:`load_config` does.

    Examples
    --------
    >>> config_from_json(RunConfig(seed=3).to_json()) == RunConfig(seed=3)
    True
    """
    copied: dict[str, Any] = {}
    _merge(copied, values, "config")
    _make_steps(copied.get("segment", {}))
    built: RunConfig = _build(RunConfig, copied, "")
    return built


def load_ladder(path: str | Path) -> SegmentConfig:
    """The ladder that a TOML file tells whole, such as a ``tuned.toml``; its rule as it stands there.

    Parameters
    ----------
    path : path

    Raises
    ------
    ArgumentError
        As :func:`load_config`; a file without ``segment.steps``: the default ladder is fitted to no model.
    FileError
        The file cannot be read.

    Examples
    --------
    >>> load_ladder("run/tuning/tuned.toml")  # doctest: +SKIP
    """
    tables = _read_toml(Path(path)).get("segment")
    told = isinstance(tables, Mapping) and "steps" in tables
    require(str(path), "no segment.steps" if not told else "it", told, "a file with a ladder, such as a tuned.toml")
    return load_config(path, environment={}).segment.ladder


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


def _from_environment(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[AliasUse]]:
    """What the environment sets, and the historical names among its variables."""
    known = {"VESU_" + "_".join(path).upper(): path for path in _paths(RunConfig)}
    settings: dict[str, tuple[str, Any]] = {}  # by key: the variable that sets it, and to what

    def put(name: str, key: str, value: Any) -> None:
        other, there = settings.setdefault(key, (name, value))
        if there != value:
            got = f"{other}={environment[other]} and {name}={environment[name]}, which both set {key}"
            raise ArgumentError(f"environment: got {got}; accepted: one of them, or the same value")

    for name in sorted(environment):
        if name.startswith("VESU_") and name not in OTHER_VARIABLES:
            require("environment", name, name in known, f"one of {', '.join(_akin(name, known))}")
            put(name, ".".join(known[name]), _toml_value(environment[name]))
    aliases = list(alias_settings(environment, _toml_value))
    for use in aliases:
        for key, value in use.sets.items():
            put(use.name, key, value)
    values: dict[str, Any] = {}
    for key, (_, value) in settings.items():
        _merge(values, _nested(key, value), "environment")
    return values, aliases


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A value as tables around it: ``search.l1`` in ``{"search": {"l1": value}}``."""
    *tables, last = key.split(".")
    found = {last: value}
    for name in reversed(tables):
        found = {name: found}
    return found


def _in_force(use: AliasUse, values: Mapping[str, Any]) -> bool:
    """Whether what an alias sets is what counts in the end."""
    for key, value in use.sets.items():
        found: Any = values
        for name in key.split("."):
            found = found[name]
        if found != value:
            return False
    return True


def _named(error: ArgumentError, aliases: Iterable[AliasUse]) -> ArgumentError:
    """An error about a key, with the historical variable that set it."""
    for use in aliases:
        if use.in_force and any(str(error).startswith(f"{key}:") for key in use.sets):
            return ArgumentError(f"{error} (set by {use.name}={use.value})")
    return error


def _paths(kind: Any) -> Iterator[tuple[str, ...]]:
    """Every key that may be set, from the top: ("seed",), ("search", "l1"), ("segment", "dust", "min_voxels")."""
    hints = get_type_hints(kind)
    for name, hint in ((name, hints[name]) for name in _keys(kind)):
        if dataclasses.is_dataclass(hint):
            yield from ((name, *path) for path in _paths(hint))
        else:
            yield (name,)
    if kind is SegmentSettings:
        for name, step in STEPS.items():
            for key in parameters(step):
                nested = _paths(ThresholdRule) if key == "rule" else [()]
                yield from ((name, key, *path) for path in nested)


def _keys(kind: Any) -> list[str]:
    """The fields of a section that may be set."""
    return [each.name for each in dataclasses.fields(kind) if each.metadata.get("key", True)]


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
    known = _keys(kind)
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
