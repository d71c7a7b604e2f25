"""A network's weights as bytes: safetensors, checked whole before anything is loaded."""

from typing import TYPE_CHECKING

from vesu import _core
from vesu.distill.tensor_tree import TreeReader, TreeWriter
from vesu.errors import FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["digest_of", "pack_weights", "unpack_weights"]


def pack_weights(model: "torch.nn.Module") -> bytes:
    """All parameters and buffers of a module under its own names; the same values give the same bytes.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    bytes
        A safetensors file.

    Raises
    ------
    MissingSafetensorsError
        The package is not installed.

    Examples
    --------
    >>> import torch
    >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> unpack_weights(pack_weights(one), other, "weights")
    >>> pack_weights(one) == pack_weights(other)
    True
    """
    writer = TreeWriter()
    for name, tensor in sorted(model.state_dict().items()):
        writer.add(tensor, name)
    return writer.to_bytes()


def digest_of(weights: bytes) -> str:
    """BLAKE3 of packed weights, hexadecimal: what events and ``student.json`` call ``weights_digest``."""
    return _core.blake3_bytes(weights)


def unpack_weights(weights: bytes, model: "torch.nn.Module", what: str) -> None:
    """Set a module's parameters and buffers to packed ones, in place.

    Parameters
    ----------
    weights : bytes
        Of :func:`pack_weights`.
    model : torch.nn.Module
        Of the same architecture; unchanged if anything is refused.
    what : str
        The name in errors.

    Raises
    ------
    FormatError
        No safetensors; names, shapes or types other than the module's, each named; values that are not finite.
    """
    import torch

    reader = TreeReader(what, weights)
    state = model.state_dict()
    loaded = {name: reader.tensor(name, "the network") for name in state}
    reader.finish()
    for name, tensor in loaded.items():
        now = state[name]
        if tensor.shape != now.shape or tensor.dtype != now.dtype:
            got = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise FormatError(f"{what}: {name}: got {got}; accepted: {now.dtype} of shape {tuple(now.shape)}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FormatError(f"{what}: {name}: got values that are NaN or infinite; accepted: finite ones")
    model.load_state_dict(loaded)
