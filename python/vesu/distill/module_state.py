"""A module's tensors, tied ones tied, and how it stood: which parts were frozen, which in evaluation mode."""

from typing import TYPE_CHECKING, Any

from vesu.distill.plan import Difference, Plan
from vesu.distill.tensor_tree import TreeReader, TreeWriter, members
from vesu.errors import FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["plan_module", "write_module"]


def write_module(module: "torch.nn.Module", writer: TreeWriter, what: str) -> dict[str, Any]:
    """The JSON of a module; ``tensors`` says for each name which tensor of the part it is: tied ones are the same."""
    import torch

    state = module.state_dict()
    return {
        "tensors": {name: writer.add(v, name) for name, v in state.items() if isinstance(v, torch.Tensor)},
        "extra": {
            name: writer.encode(v, f"{what}.{name}") for name, v in state.items() if not isinstance(v, torch.Tensor)
        },
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "evaluating": [name for name, child in module.named_modules() if not child.training],
    }


def plan_module(saved: Any, reader: TreeReader, module: "torch.nn.Module", what: str) -> Plan:
    """What restoring the module would take.

    Raises
    ------
    FormatError
        Parts that are no module's.
    """
    import torch

    members(saved, what, {"tensors": dict, "extra": dict, "frozen": list, "evaluating": list})
    tensors = {name: reader.tensor(held, f"{what}.{name}") for name, held in saved["tensors"].items()}
    extra = {name: reader.decode(value, f"{what}.{name}") for name, value in saved["extra"].items()}
    state = module.state_dict()
    now = write_module(module, TreeWriter(), what)
    differences = []
    for kind in ("tensors", "extra"):
        for name in sorted(saved[kind].keys() ^ now[kind].keys()):
            differences.append(Difference.of_presence(f"{what}.{name}", name in saved[kind]))
    for name in tensors.keys() & state.keys():
        if isinstance(state[name], torch.Tensor):
            differences += tensor_differences(f"{what}.{name}", tensors[name], state[name])
            if saved["tensors"][name] != now["tensors"].get(name):
                tied = (f"is {saved['tensors'][name]}", f"is {now['tensors'].get(name)}")
                differences.append(Difference(f"{what}.{name}.tied", *tied))
    parameters, modules = dict(module.named_parameters()), dict(module.named_modules())
    differences += _unknown(saved["frozen"], parameters, f"{what}.frozen")
    differences += _unknown(saved["evaluating"], modules, f"{what}.evaluating")

    def load() -> None:
        state.update(tensors | extra)  # and keeps the versions that torch notes beside the values
        module.load_state_dict(state)
        for name, parameter in parameters.items():
            if parameter.requires_grad == (name in saved["frozen"]):
                parameter.requires_grad_(not parameter.requires_grad)
        for name, child in modules.items():
            child.training = name not in saved["evaluating"]

    return Plan(sorted(differences, key=lambda difference: difference.field), [load])


def tensor_differences(where: str, saved: "torch.Tensor", now: "torch.Tensor") -> list[Difference]:
    """Shape and type."""
    differences = []
    if saved.shape != now.shape:
        differences.append(Difference(f"{where}.shape", list(saved.shape), list(now.shape)))
    if saved.dtype != now.dtype:
        differences.append(Difference(f"{where}.dtype", str(saved.dtype), str(now.dtype)))
    return differences


def _unknown(names: list[Any], known: dict[str, Any], where: str) -> list[Difference]:
    if not all(isinstance(name, str) for name in names):
        raise FormatError(f"{where}: got something else than names")
    return [Difference.of_presence(f"{where}.{name}", saved=True) for name in names if name not in known]
