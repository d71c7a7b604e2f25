"""An optimizer's groups and moments, by the names that the model gives its parameters."""

from typing import TYPE_CHECKING, Any

from vesu.distill.plan import Difference, Plan
from vesu.distill.tensor_tree import TreeReader, TreeWriter, members
from vesu.errors import ArgumentError, FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["plan_optimizer", "write_optimizer"]

ELEMENTWISE = ("Adam", "AdamW", "SGD")
"""Optimizers whose state of a parameter is numbers and tensors of the parameter's own shape."""


def write_optimizer(optimizer: "torch.optim.Optimizer", model: "torch.nn.Module", writer: TreeWriter) -> dict[str, Any]:
    """The JSON of an optimizer; its tensors go to ``writer``.

    Raises
    ------
    ArgumentError
        A parameter that the model does not have (its values would be lost), or state that belongs to no parameter.
    """
    names = {number: name for number, (name, _) in _trained(optimizer, model).items()}
    state = optimizer.state_dict()
    if set(state) != {"state", "param_groups"} or not state["state"].keys() <= names.keys():
        raise ArgumentError("optimizer: got state beside its groups and parameters; accepted: state of parameters only")
    groups = [group | {"params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
    return {
        "class": type(optimizer).__name__,
        "groups": writer.encode(groups, "groups"),
        "state": {names[i]: writer.encode(values, f"state.{names[i]}") for i, values in state["state"].items()},
    }


def plan_optimizer(
    saved: Any, reader: TreeReader, optimizer: "torch.optim.Optimizer", model: "torch.nn.Module"
) -> Plan:
    """What restoring the optimizer would take.

    Raises
    ------
    ArgumentError
        As :func:`write_optimizer`.
    FormatError
        Parts that are no optimizer's.
    """
    members(saved, "optimizer", {"class": str, "groups": list, "state": dict})
    groups = reader.decode(saved["groups"], "optimizer.groups")
    state = {name: reader.decode(values, f"optimizer.state.{name}") for name, values in saved["state"].items()}
    if not all(isinstance(value, dict) for value in [*groups, *state.values()]):
        raise FormatError("optimizer: groups or state of a wrong type")
    if saved["class"] != type(optimizer).__name__:
        return Plan([Difference("optimizer.class", saved["class"], type(optimizer).__name__)])
    trained = _trained(optimizer, model)
    now = optimizer.state_dict()["param_groups"]
    now = [group | {"params": [trained[i][0] for i in group["params"]]} for group in now]
    differences = _group_differences(groups, now)
    differences += _state_differences(state, dict(trained.values()), saved["class"] in ELEMENTWISE)
    return Plan(differences, [lambda: _load(optimizer, groups, state, trained)])


def _trained(optimizer: "torch.optim.Optimizer", model: "torch.nn.Module") -> dict[int, tuple[str, Any]]:
    """Name and parameter of each of the numbers that ``state_dict`` gives the parameters."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {}
    numbered = optimizer.state_dict()["param_groups"]
    for g, (group, numbers) in enumerate(zip(optimizer.param_groups, numbered, strict=True)):
        for i, (parameter, number) in enumerate(zip(group["params"], numbers["params"], strict=True)):
            if id(parameter) not in known:
                place = f"optimizer.param_groups[{g}]['params'][{i}]"
                raise ArgumentError(f"{place}: got a parameter that is not the model's; accepted: the model's own")
            trained[number] = (known[id(parameter)], parameter)
    return trained


def _group_differences(saved: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Difference]:
    import torch

    if len(saved) != len(now):
        return [Difference("optimizer.param_groups", f"{len(saved)} groups", f"{len(now)} groups")]
    differences = []
    for g, (old, new) in enumerate(zip(saved, now, strict=True)):
        where = f"optimizer.param_groups[{g}]"
        for name in sorted(old.keys() ^ new.keys()):
            differences.append(Difference.of_presence(f"{where}.{name}", name in old))
        for name in sorted(old.keys() & new.keys()):
            old_kind, new_kind = ("tensor" if isinstance(v[name], torch.Tensor) else "no tensor" for v in (old, new))
            if old_kind != new_kind:
                differences.append(Difference(f"{where}.{name}", old_kind, new_kind))
            elif name == "params" and old[name] != new[name]:
                differences.append(Difference(f"{where}.params", old[name], new[name]))
    return differences


def _state_differences(
    state: dict[str, dict[str, Any]], trained: dict[str, Any], elementwise: bool
) -> list[Difference]:
    import torch

    differences = []
    for name, values in state.items():
        where = f"optimizer.state.{name}"
        if name not in trained:
            differences.append(Difference.of_presence(where, saved=True))
            continue
        for key, value in values.items() if elementwise else ():
            like = () if key == "step" else trained[name].shape
            if isinstance(value, torch.Tensor) and value.shape != like:
                differences.append(Difference(f"{where}.{key}.shape", list(value.shape), list(like)))
    return differences


def _load(
    optimizer: "torch.optim.Optimizer",
    groups: list[dict[str, Any]],
    state: dict[str, dict[str, Any]],
    trained: dict[int, tuple[str, Any]],
) -> None:
    """torch's own way, but for the values that it would round or move.

    ``load_state_dict`` casts floating state to the parameter's type, though a bfloat16 parameter may well have float32
    state, and leaves learning rates that are tensors where they were saved.
    """
    import torch

    numbers = {name: number for number, (name, _) in trained.items()}
    moved: dict[int, torch.Tensor] = {}  # one tensor that several groups share stays one
    for group, now in zip(groups, optimizer.param_groups, strict=True):
        for key, value in group.items():
            if isinstance(value, torch.Tensor):
                group[key] = moved.setdefault(id(value), value.to(now[key].device, copy=True))
        group["params"] = [numbers[name] for name in group["params"]]
    ours = {
        numbers[name]: {key: _laid_out(value, key, trained[numbers[name]][1]) for key, value in values.items()}
        for name, values in state.items()
    }
    optimizer.load_state_dict({"state": ours, "param_groups": groups})
    for number, values in ours.items():
        loaded = optimizer.state[trained[number][1]]
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def _laid_out(value: Any, key: str, parameter: "torch.Tensor") -> Any:
    """A moment in the parameter's memory order, as the optimizer itself would have made it."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    if key == "step" or value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
