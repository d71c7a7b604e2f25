"""A configuration as TOML: what `load_config` reads back."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from vesu.config.sections import RunConfig

__all__ = ["config_toml", "toml_value"]


def config_toml(config: RunConfig) -> str:
    """The settings of a configuration that are not the defaults, as TOML; the whole ladder, if any of it is not.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    str
        Empty where everything is as it is by default. :func:`load_config` makes an equal configuration of it.

    Examples
    --------
    >>> print(config_toml(RunConfig(seed=3)), end="")
    seed = 3
    """
    return "\n".join(_table("", config, RunConfig())).lstrip("\n") + ("\n" if config != RunConfig() else "")


def toml_value(value: Any) -> str:
    """One value in TOML's notation; None is the text "none", as in every source of a configuration.

    Examples
    --------
    >>> toml_value((1, 0.5, "a", None, {"x": True}))
    '[1, 0.5, "a", "none", {x = true}]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return '"none"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value)


def _table(name: str, section: Any, default: Any) -> Iterator[str]:
    """A section's own values, then the sections in it, each with its heading."""
    values = {
        each.name: getattr(section, each.name) for each in dataclasses.fields(section) if each.metadata.get("key", True)
    }
    tables = {key: value for key, value in values.items() if dataclasses.is_dataclass(value)}
    lines = [
        f"{key} = {_ladder(value) if key == 'steps' else toml_value(value)}"
        for key, value in values.items()
        if key not in tables and value != getattr(default, key)
    ]
    if lines and name:
        yield f"\n[{name}]"
    yield from lines
    for key, table in tables.items():
        yield from _table(f"{name}.{key}" if name else key, table, getattr(default, key))


def _ladder(steps: tuple[Any, ...]) -> str:
    """The steps, a line each, with all of their parameters."""
    lines = [f"    {toml_value(dataclasses.asdict(step))},\n" for step in steps]
    return f"[\n{''.join(lines)}]"
