"""One module a framework: it opens verified weights and gives a network that maps windows to class channels.

:func:`vesu.distill.teacher.load_teacher` chooses the module; each is imported only for teachers of its framework.
"""

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from vesu.distill.teacher_spec import Framework, TeacherSpec
from vesu.distill.weights_file import digest_of, read_bounded
from vesu.errors import FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["Network", "check_finite", "check_patch", "open_network", "verified_bytes"]

MODULES: dict[Framework, str] = {
    "safetensors": "vesu.distill.adapters.safetensors",
    "onnx": "vesu.distill.adapters.onnx",
    "torch.export": "vesu.distill.adapters.exported",
    "keras": "vesu.distill.adapters.keras",
}

NAMED = 8
"""How many names an error lists."""


class Network(Protocol):
    """What an adapter gives: class channels of windows, in the layout that the specification states."""

    device: str
    """Where it computes: ``cpu``, ``cuda`` or ``cuda:N``."""
    tensors_on: str
    """Where it takes and gives tensors: ``device``, or ``cpu`` where they pass through numpy."""
    n_parameters: int
    """Trained numbers."""

    def __call__(self, windows: "torch.Tensor") -> "torch.Tensor":
        """Channels first or last, as the specification's ``input.channels`` says, on both sides; float32."""

    def close(self) -> None:
        """Give memory and processes back; nothing may be asked afterwards."""


def open_network(spec: TeacherSpec, device: str, *, verify: bool) -> Network:
    """The network of a teacher on a device.

    Raises
    ------
    VesuError
        See :func:`vesu.distill.teacher.load_teacher`.
    """
    adapter = importlib.import_module(MODULES[spec.framework])
    network: Network = adapter.open_network(spec, device, verify=verify)
    return network


def verified_bytes(spec: TeacherSpec, *, verify: bool) -> bytes:
    """The weights file's bytes: those that were hashed are those that are used.

    Raises
    ------
    FormatError
        Their digest is another than the specification's.
    FileError
        The file cannot be read.
    """
    data = read_bounded(spec.weights_path)
    if verify:
        check_digest(spec, digest_of(data, spec.digest.partition(":")[0]))
    return data


def check_digest(spec: TeacherSpec, found: str) -> None:
    """Refuse weights that are not those of the specification.

    Raises
    ------
    FormatError
        The message has both digests.
    """
    if found != spec.digest:
        raise FormatError(f"{spec.weights_path}: its digest is {found}, but teacher.json says {spec.digest}")


def check_finite(spec: TeacherSpec, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Refuse NaN and infinite weights by name.

    Raises
    ------
    FormatError
        There are some.
    """
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise FormatError(f"{spec.weights_path}: NaN or infinite weights in {names(bad)}")


def check_patch(spec: TeacherSpec, fixed: "tuple[int | None, ...]") -> None:
    """Refuse a specification whose window the network does not take.

    Parameters
    ----------
    fixed : tuple
        The three sizes that the network states; None where it takes any.

    Raises
    ------
    FormatError
        Another size, or ``input.fixed_patch`` false though a size is fixed.
    """
    wrong = any(size is not None and size != wanted for size, wanted in zip(fixed, spec.patch, strict=True))
    if wrong:
        raise FormatError(f"{spec.weights_path}: takes windows of {fixed}, but teacher.json says {spec.patch}")
    if any(size is not None for size in fixed) and not spec.fixed_patch:
        raise FormatError(f"{spec.weights_path}: takes windows of {fixed} only; input.fixed_patch must be true")


def names(found: Any) -> str:
    """Some of the names, and how many more."""
    ordered = sorted(found)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more


def n_elements(shapes: Any) -> int:
    """Numbers in arrays of these shapes."""
    return sum(math.prod(shape) for shape in shapes)
