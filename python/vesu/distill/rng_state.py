"""The random generators of a training: Python's, numpy's, torch's, and those that have a name (R36, R37)."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias, cast

import numpy as np

from vesu.distill.plan import Difference, Plan
from vesu.distill.tensor_tree import members
from vesu.errors import ArgumentError, FormatError

__all__ = ["describe_rng", "plan_rng"]

MAX_SPAWNED = 1 << 20
POSITION_LIMITS = {"pos": 624, "buffer_pos": 4}
"""Where a bit generator stands in its own buffer; numpy itself believes any number and reads beyond the buffer."""

Setter: TypeAlias = Callable[[Any], object]


@dataclass(frozen=True)
class _Access:
    """How one generator is read and set; ``blank`` makes another of its kind, on which a state is tried first."""

    kind: str
    state: Any
    set: Setter
    blank: Callable[[], Setter]
    seeds: np.random.SeedSequence | None = None

    def describe(self) -> dict[str, Any]:
        """Plain values and tensors; ``children`` because what ``spawn`` hands out next is not in numpy's own state."""
        spawned = self.seeds.n_children_spawned if self.seeds else 0
        children = {"seed": _seed(self.seeds), "spawned": spawned} if spawned else None
        return {"kind": self.kind, "state": self.state, "children": children}


def describe_rng(generators: Mapping[str, Any]) -> dict[str, Any]:
    """The states of all generators.

    Raises
    ------
    ArgumentError
        One that is of no known kind.
    """
    return {
        **{name: _access(name, generator).describe() for name, generator in _everywhere().items()},
        "cuda": _cuda_states(),
        "generators": {name: _named(name, generator).describe() for name, generator in generators.items()},
    }


def plan_rng(saved: Any, generators: Mapping[str, Any]) -> Plan:
    """What restoring them would take; each state has been tried on a new generator of its kind.

    Raises
    ------
    ArgumentError
        A generator of no known kind.
    FormatError
        States that no such generator can have.
    """
    everywhere = _everywhere()
    members(saved, "rng", {**dict.fromkeys(everywhere, dict), "cuda": list, "generators": dict})
    plan = _plan_cuda(saved["cuda"])
    for name, generator in everywhere.items():
        plan += _plan_one(saved[name], _access(name, generator), f"rng.{name}")
    for name in sorted(saved["generators"].keys() ^ generators.keys()):
        plan += Plan([Difference.of_presence(f"rng.generators.{name}", name in saved["generators"])])
    for name in saved["generators"].keys() & generators.keys():
        plan += _plan_one(saved["generators"][name], _named(name, generators[name]), f"rng.generators.{name}")
    return plan


def _everywhere() -> dict[str, Any]:
    """The generators that every program shares; the modules stand for those of Python and numpy."""
    import torch

    return {"python": random, "numpy": np.random, "torch": torch.default_generator}


def _named(name: str, generator: Any) -> _Access:
    if isinstance(generator, ModuleType):
        raise ArgumentError(f"generators[{name!r}]: got a module; it is kept without being named")
    return _access(f"generators[{name!r}]", generator)


def _access(name: str, generator: Any) -> _Access:
    import torch

    if generator is random or isinstance(generator, random.Random):
        return _Access("random.Random", generator.getstate(), generator.setstate, lambda: random.Random().setstate)
    if generator is np.random or isinstance(generator, np.random.RandomState):
        state = generator.get_state(legacy=False)
        kind = state["bit_generator"]
        make = getattr(np.random, kind)
        return _Access(
            f"numpy.RandomState({kind})", state, generator.set_state, lambda: np.random.RandomState(make()).set_state
        )
    if isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        seeds = bits.seed_seq if isinstance(bits.seed_seq, np.random.SeedSequence) else None
        return _Access(f"numpy.{type(bits).__name__}", bits.state, _setter(bits), lambda: _setter(type(bits)()), seeds)
    if isinstance(generator, torch.Generator):
        device = generator.device
        kind = f"torch.Generator({device.type})"
        return _Access(kind, generator.get_state(), generator.set_state, lambda: torch.Generator(device).set_state)
    kinds = "numpy.random.Generator or RandomState, random.Random, torch.Generator"
    raise ArgumentError(f"{name}: got {type(generator).__name__}; accepted: {kinds}")


def _setter(bits: Any) -> Setter:
    return lambda state: setattr(bits, "state", state)


def _plan_one(saved: Any, now: _Access, where: str) -> Plan:
    members(saved, where, {"kind": str, "state": object, "children": (dict, type(None))})
    if saved["kind"] != now.kind:
        return Plan([Difference(where, saved["kind"], now.kind)])
    _check_alike(saved["state"], now.state, f"{where}.state")
    try:
        now.blank()(saved["state"])
    except (ValueError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        raise FormatError(f"{where}.state: {error}") from error
    children = _plan_children(saved["children"], now.seeds, f"{where}.children")
    return Plan([], [lambda: now.set(saved["state"])]) + children


def _plan_children(saved: Any, seeds: np.random.SeedSequence | None, where: str) -> Plan:
    now = seeds.n_children_spawned if seeds else 0
    if saved is None:
        return Plan([Difference(f"{where}.spawned", 0, now)] if now else [])
    members(saved, where, {"seed": str, "spawned": int})
    if not 0 < saved["spawned"] <= MAX_SPAWNED:
        raise FormatError(f"{where}.spawned: got {saved['spawned']}; accepted: 1 to {MAX_SPAWNED}")
    if saved["seed"] != _seed(seeds):
        return Plan([Difference(f"{where}.seed", saved["seed"], _seed(seeds))])
    if saved["spawned"] < now:  # what was handed out cannot be taken back
        return Plan([Difference(f"{where}.spawned", saved["spawned"], now)])
    missing = saved["spawned"] - now
    return Plan([], [partial(cast(np.random.SeedSequence, seeds).spawn, missing)] if missing else [])


def _seed(seeds: np.random.SeedSequence | None) -> str:
    return f"{seeds.entropy} {seeds.spawn_key}" if seeds else "none"


def _check_alike(saved: Any, now: Any, where: str) -> None:
    """Same members, types, array types and shapes as a state that the generator has given itself."""
    import torch

    good = type(saved) is type(now) or {type(saved), type(now)} <= {float, type(None)}  # a Gaussian kept for later
    if not good or (isinstance(now, dict) and saved.keys() != now.keys()):
        raise FormatError(f"{where}: got {type(saved).__name__}; accepted: what such a generator gives")
    if isinstance(now, (np.ndarray, torch.Tensor)) and (saved.dtype, saved.shape) != (now.dtype, now.shape):
        raise FormatError(f"{where}: got {saved.dtype} of shape {tuple(saved.shape)}; accepted: {tuple(now.shape)}")
    if isinstance(now, tuple) and len(saved) != len(now):
        raise FormatError(f"{where}: got {len(saved)} values; accepted: {len(now)}")
    limit = POSITION_LIMITS.get(where.rpartition(".")[2])
    if limit is not None and not 0 <= saved <= limit:
        raise FormatError(f"{where}: got {saved}; accepted: 0 to {limit}")
    if isinstance(now, dict):
        for name in now:
            _check_alike(saved[name], now[name], f"{where}.{name}")


def _cuda_states() -> list[Any]:
    import torch

    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _plan_cuda(saved: list[Any]) -> Plan:
    """Device by device; another number of devices is the environment's change, told as such."""
    import torch

    plan = Plan([])
    for i, (state, now) in enumerate(zip(saved, _cuda_states(), strict=False)):
        _check_alike(state, now, f"rng.cuda.{i}")
        plan += Plan([], [partial(torch.cuda.set_rng_state, state, i)])
    return plan
