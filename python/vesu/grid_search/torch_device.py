"""The torch device of the search: found, proved to compute, named, measured; float32 products kept whole."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vesu.data.machine import available_memory_bytes, gpu_problem
from vesu.errors import ArgumentError, MemoryLimitError, VesuError

__all__ = [
    "MissingTorchError",
    "available_bytes",
    "device_name",
    "exact_products",
    "import_torch",
    "memory_errors",
    "open_device",
]


class MissingTorchError(VesuError, ImportError):
    """torch is not installed, or broken; the message says why."""


def import_torch() -> Any:
    """torch, imported when first used.

    Raises
    ------
    MissingTorchError
        It cannot be imported.
    """
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing or damaged
        raise MissingTorchError(f"device: torch cannot be imported ({error}); pip install torch") from error


def open_device(torch: Any, name: str) -> Any:
    """The ``torch.device`` of that name, after a GPU has proved that it computes (R02, R27).

    Raises
    ------
    ArgumentError
        Another kind of device, a number that no GPU has, or no GPU that computes; the message says why.
    """
    accepted = "accepted: 'cpu', 'cuda' or 'cuda:N'"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"device: got {name!r}; {accepted}") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ArgumentError(f"device: got {name!r}; {accepted}")
    if problem := gpu_problem():
        raise ArgumentError(f"device: got {name!r}, but {problem}; {accepted}")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ArgumentError(f"device: got {name!r}; accepted: 'cuda:0' to 'cuda:{torch.cuda.device_count() - 1}'")
    return torch.device("cuda", index)


def device_name(torch: Any, device: Any) -> str:
    """What stands in a run's evidence: ``torch-cpu``, or ``cuda:`` and the model of the GPU."""
    return "torch-cpu" if device.type == "cpu" else f"cuda:{torch.cuda.get_device_name(device)}"


def available_bytes(torch: Any, device: Any) -> int | None:
    """Memory that tensors on ``device`` can still take; None if unknown."""
    if device.type == "cpu":
        return available_memory_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds for itself and no tensor uses is free to us.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@contextmanager
def memory_errors(torch: Any) -> Iterator[None]:
    """What a GPU refuses all the same (others take its memory too) is a :class:`MemoryLimitError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryLimitError(f"the search on a GPU: {str(error).splitlines()[0]}") from error


@contextmanager
def exact_products(torch: Any) -> Iterator[None]:
    """No TF32 or bfloat16 inside float32 matrix products, whatever the user's program asked for; put back afterwards.

    TF32 keeps 10 bits of each factor: an error of 1e-3, which the soft threshold would turn into other supports.
    """
    # torch 2.9 has a second set of switches, and products refuse to run where the two disagree: the old setter sets
    # both.
    switches = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    before = [getattr(switch, "fp32_precision", None) for switch in switches]
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # the program used the new switches alone: they are all there is to put back
        precision = None
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for switch, value in zip(switches, before, strict=True):
            if value is not None and switch.fp32_precision != value:
                switch.fp32_precision = value
