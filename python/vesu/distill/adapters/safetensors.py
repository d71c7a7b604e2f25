"""Weights in safetensors, architecture by a registered name (R18)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vesu.distill.adapters import check_finite, names, verified_bytes
from vesu.distill.architectures import build_network
from vesu.distill.packages import need_package
from vesu.distill.teacher_spec import TeacherSpec
from vesu.distill.weights_file import refuse_kind
from vesu.errors import FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["TorchNetwork", "open_network", "tied_names"]


class TorchNetwork:
    """A frozen ``torch.nn.Module``."""

    def __init__(self, module: "torch.nn.Module", device: str, n_parameters: int) -> None:
        self.device = self.tensors_on = device
        self.n_parameters = n_parameters
        self._module: torch.nn.Module | None = module.requires_grad_(False).to(device)

    def __call__(self, windows: "torch.Tensor") -> "torch.Tensor":
        assert self._module is not None
        answer: torch.Tensor = self._module(windows)
        return answer

    def close(self) -> None:
        self._module = None


def open_network(spec: TeacherSpec, device: str, *, verify: bool) -> TorchNetwork:
    """Build the architecture on no device, compare every name and shape, then put the file's tensors in their places.

    Raises
    ------
    FormatError
        Another digest, another kind of file, names or shapes that differ, weights that are not finite.
    ArgumentError, MissingPackageError
        The architecture cannot be built.
    """
    import torch

    load = need_package("safetensors.torch", "distill").load
    refuse_kind(spec.weights_path, "safetensors")
    data = verified_bytes(spec, verify=verify)
    try:
        tensors: dict[str, torch.Tensor] = load(data)
    except Exception as error:  # whatever its parser raises on bytes from outside
        raise FormatError(f"{spec.weights_path}: not a safetensors file: {error}") from error
    del data
    assert spec.architecture is not None
    with torch.device("meta"):
        module = build_network(spec.architecture["name"], spec.output.n_classes, spec.architecture["kwargs"])
    tensors = _complete(spec, module, tensors)
    check_finite(spec, tensors)
    module.load_state_dict(tensors, assign=True)
    if lost := [name for name, buffer in module.named_buffers() if buffer.is_meta]:
        raise FormatError(f"{spec.weights_path}: the architecture has buffers that no file holds: {names(lost)}")
    return TorchNetwork(module.eval(), device, sum(parameter.numel() for parameter in module.parameters()))


def tied_names(module: "torch.nn.Module") -> list[list[str]]:
    """Names of the module's state, those of one and the same tensor together."""
    groups: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


def _complete(
    spec: TeacherSpec, module: "torch.nn.Module", tensors: "Mapping[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    """A tensor for every name of the module: a tied one may be in the file under one or more of its names.

    Raises
    ------
    FormatError
        Names that are missing or unknown, shapes that differ, tied tensors that are not the same.
    """
    import torch

    state = module.state_dict()
    if unknown := tensors.keys() - state.keys():
        raise FormatError(f"{spec.weights_path}: the architecture has no {names(unknown)}")
    complete: dict[str, torch.Tensor] = {}
    missing, differing = [], []
    for group in tied_names(module):
        held = [tensors[name] for name in group if name in tensors]
        if not held:
            missing.append(group[0])
            continue
        wanted = state[group[0]]
        if held[0].shape != wanted.shape:
            differing.append(f"{group[0]} is {tuple(held[0].shape)}, not {tuple(wanted.shape)}")
        elif held[0].dtype.is_floating_point != wanted.dtype.is_floating_point:
            differing.append(f"{group[0]} is {held[0].dtype}, not {wanted.dtype}")
        elif any(not torch.equal(held[0], other) for other in held[1:]):
            differing.append(f"{' and '.join(group)} are one tensor in the architecture and differ in the file")
        complete |= dict.fromkeys(group, held[0].to(wanted.dtype))
    if missing:
        raise FormatError(f"{spec.weights_path}: lacks {names(missing)}")
    if differing:
        raise FormatError(f"{spec.weights_path}: {names(differing)}")
    return complete
