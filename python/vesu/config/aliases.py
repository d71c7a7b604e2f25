"""The environment variables of the project's history, each an alias of today's configuration keys (R43)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vesu.config.checks import require

__all__ = ["ALIASES", "Alias", "AliasUse", "alias_settings"]

PREFIXES = ("NX46_", "V1442_", "V138_")
"""Whose names are the history's: another one that begins so is a mistyped one."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Alias:
    """A historical variable, and what it sets."""

    keys: tuple[str, ...]
    """Dotted keys of the configuration; a switch may set only some of them."""
    on: Mapping[str, Any] | None = None
    """Of a switch: what it sets when it is on."""
    off: Mapping[str, Any] | None = None
    """Of a switch: what it sets when it is off."""
    is_text: bool = False
    """Whether the value is taken as it stands, however much it looks like a number."""


def _switch(on: Mapping[str, Any], off: Mapping[str, Any]) -> Alias:
    return Alias(tuple({**on, **off}), on, off)


ALIASES: Mapping[str, Alias] = {
    "NX46_THRESHOLD_QUANTILE": Alias(("nx46.threshold_quantile",)),
    "NX46_SCORE_BLEND_3D_WEIGHT": Alias(("nx46.score_blend_3d_weight",)),
    "NX46_Z_SMOOTHING_RADIUS": Alias(("nx46.z_smoothing_radius",)),
    "NX46_RUN_TAG": Alias(("tag",), is_text=True),
    "NX46_DRY_RUN": _switch({"dry_run": True}, {"dry_run": False}),
    "V1442_META_NEURONS": Alias(("search.meta_neurons",)),
    "V1442_MAX_ITER": Alias(("search.max_iter",)),
    "V1442_SUPERVISED_EPOCHS": Alias(("search.supervised_epochs",)),
    # That history's 2.5-D U-Net is today's student: to use it is to train one with that stem, and a run that was asked
    # for one and trains none fails (R22) instead of pretending.
    "V1442_USE_UNET_25D": _switch({"student.use": "on", "student.stem": "2.5d"}, {"student.use": "off"}),
    "V1442_MAX_TRAIN_VOLUMES": Alias(("sampling.max_train_volumes",)),
    "V1442_MAX_VAL_VOLUMES": Alias(("sampling.max_val_volumes",)),
    "V138_MAX_TRAIN_VOLUMES": Alias(("sampling.max_train_volumes",)),
    "V138_MAX_VAL_VOLUMES": Alias(("sampling.max_val_volumes",)),
    "V1442_HEARTBEAT_INTERVAL_S": Alias(("time.heartbeat_s",)),
}
"""Every historical variable that vesu knows."""


@dataclass(frozen=True)
class AliasUse:
    """A historical variable that a configuration was read with: the fields of ``CONFIG_ALIAS_USED``.

    Examples
    --------
    >>> AliasUse("NX46_RUN_TAG", "v75", {"tag": "v75"}, in_force=True).to_json()["sets"]
    {'tag': 'v75'}
    """

    name: str
    value: str
    """As it stood in the environment."""
    sets: Mapping[str, Any]
    """Dotted keys with the values that they were given."""
    in_force: bool = True
    """False where a later source (the command line) set one of them to something else."""

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {"name": self.name, "value": self.value, "sets": dict(self.sets), "in_force": self.in_force}


def alias_settings(environment: Mapping[str, str], parse: Callable[[str], Any]) -> Iterator[AliasUse]:
    """The historical variables of an environment, in the order of their names.

    Parameters
    ----------
    environment : mapping of str to str
    parse : callable
        Reads a value that is neither text nor a switch.

    Raises
    ------
    ArgumentError
        A name of the history's kind that is none of :data:`ALIASES`; a switch that is neither on nor off.

    Examples
    --------
    >>> [use.sets for use in alias_settings({"V1442_MAX_ITER": "150", "HOME": "/"}, int)]
    [{'search.max_iter': 150}]
    """
    for name in sorted(environment):
        if not name.startswith(PREFIXES):
            continue
        require("environment", name, name in ALIASES, f"the historical variables {', '.join(sorted(ALIASES))}")
        yield AliasUse(name, environment[name], _sets(name, environment[name], parse))


def _sets(name: str, text: str, parse: Callable[[str], Any]) -> Mapping[str, Any]:
    alias = ALIASES[name]
    if alias.on is None or alias.off is None:
        return {alias.keys[0]: text if alias.is_text else parse(text)}
    word = text.strip().lower()
    require(f"environment: {name}", repr(text), word in _TRUE + _FALSE, f"{' '.join(_TRUE)}, or {' '.join(_FALSE)}")
    return alias.on if word in _TRUE else alias.off
