"""Networks that a safetensors teacher may be: a registry of names, so that weights never bring code along (R18)."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from vesu.distill.packages import need_package
from vesu.errors import ArgumentError

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "Builder", "build_network", "register_architecture"]

Builder: TypeAlias = Callable[..., "torch.nn.Module"]
"""``builder(n_classes, **kwargs)``: a network of (b, 1, z, y, x) to (b, n_classes, z, y, x)."""

MAX_DEPTH = 4
MAX_ITEMS = 64
MAX_NUMBER = 4096
"""A channel count or kernel size beyond this is a mistake, or an attack on the memory."""


def build_network(name: str, n_classes: int, kwargs: Mapping[str, Any]) -> "torch.nn.Module":
    """A network of the registry, in evaluation mode, with the weights that its class initialises.

    Parameters
    ----------
    name : str
        One of :data:`ARCHITECTURES`.
    n_classes : int
        Output channels. One input channel and three dimensions are understood.
    kwargs : Mapping
        Of JSON values; what the network's own class takes beside channels and dimensions.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ArgumentError
        No such name, or arguments that it does not take.
    MissingPackageError
        The package that has the network is not installed.

    Examples
    --------
    >>> network = build_network("UNet", 2, {"channels": [4, 8], "strides": [2]})
    >>> import torch
    >>> network(torch.zeros(1, 1, 8, 8, 8)).shape
    torch.Size([1, 2, 8, 8, 8])
    >>> build_network("UNet", 2, {"channels": [4, 8], "stride": [2]})
    Traceback (most recent call last):
    vesu.errors.ArgumentError: architecture UNet: got kwargs 'stride'; accepted: ...
    """
    if name not in ARCHITECTURES:
        accepted = ", ".join(sorted(ARCHITECTURES))
        raise ArgumentError(f"architecture: got {name!r}; accepted: {accepted}, or a name of register_architecture")
    values = {key: _checked(value, f"architecture {name}: kwargs.{key}") for key, value in kwargs.items()}
    try:
        return ARCHITECTURES[name](n_classes, **values).eval()
    except (TypeError, ValueError, KeyError, IndexError, AssertionError, AttributeError, NotImplementedError) as error:
        if isinstance(error, ArgumentError):
            raise ArgumentError(f"architecture {name}: {error}") from error
        raise ArgumentError(f"architecture {name}: kwargs {dict(kwargs)} are refused by it: {error}") from error


def register_architecture(name: str, builder: Builder) -> None:
    """Make a network known under a name that ``teacher.json`` may use.

    Parameters
    ----------
    name : str
        Not in use yet.
    builder : callable
        ``builder(n_classes, **kwargs)`` gives a ``torch.nn.Module`` of (b, 1, z, y, x) to (b, n_classes, z, y, x). It
        is also called with torch's meta device as default, to compare names and shapes before any memory is taken.

    Raises
    ------
    ArgumentError
        The name is in use, or empty.

    Examples
    --------
    >>> import torch
    >>> register_architecture("one-convolution", lambda n_classes: torch.nn.Conv3d(1, n_classes, 3, padding=1))
    >>> build_network("one-convolution", 2, {}).weight.shape
    torch.Size([2, 1, 3, 3, 3])
    >>> _ = ARCHITECTURES.pop("one-convolution")
    """
    if not name or name in ARCHITECTURES:
        raise ArgumentError(f"name: got {name!r}; accepted: a name that is not in use yet")
    ARCHITECTURES[name] = builder


def _segresnet(n_classes: int, **kwargs: Any) -> "torch.nn.Module":
    return _of_monai("SegResNet", n_classes, kwargs)


def _unet(n_classes: int, **kwargs: Any) -> "torch.nn.Module":
    return _of_monai("UNet", n_classes, kwargs)


def _dynunet(n_classes: int, **kwargs: Any) -> "torch.nn.Module":
    return _of_monai("DynUNet", n_classes, kwargs)


def _of_monai(name: str, n_classes: int, kwargs: Mapping[str, Any]) -> "torch.nn.Module":
    network = getattr(need_package("monai.networks.nets", "distill"), name)
    given = {"spatial_dims": 3, "in_channels": 1, "out_channels": n_classes}
    _check_names(network, kwargs, given)
    built: torch.nn.Module = network(**given, **kwargs)
    return built


def _residual_encoder_unet(n_classes: int, **kwargs: Any) -> "torch.nn.Module":
    """As nnU-Net plans it: convolution with bias, instance norm, leaky ReLU; the finest output alone."""
    from torch import nn

    package = need_package("dynamic_network_architectures.architectures.unet", "teachers")
    given = {"input_channels": 1, "num_classes": n_classes, "deep_supervision": False, "conv_op": nn.Conv3d}
    given |= {"norm_op": nn.InstanceNorm3d, "dropout_op": None, "dropout_op_kwargs": None, "nonlin": nn.LeakyReLU}
    blocks = need_package("dynamic_network_architectures.building_blocks.residual", "teachers")
    given |= {"block": blocks.BasicBlockD}
    usual = {"conv_bias": True, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin_kwargs": {"inplace": True}}
    _check_names(package.ResidualEncoderUNet, kwargs, given)
    built: torch.nn.Module = package.ResidualEncoderUNet(**given, **usual | kwargs)
    return built


ARCHITECTURES: dict[str, Builder] = {
    "SegResNet": _segresnet,
    "UNet": _unet,
    "DynUNet": _dynunet,
    "ResidualEncoderUNet": _residual_encoder_unet,
}
"""Name to builder; :func:`register_architecture` adds to it."""


def _check_names(network: Callable[..., Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    accepted = [name for name in inspect.signature(network).parameters if name not in given]
    for name in kwargs:
        if name not in accepted:
            raise ArgumentError(f"got kwargs {name!r}; accepted: {', '.join(accepted)}")


def _checked(value: Any, where: str, depth: int = 0) -> Any:
    """A JSON value of sane size, its lists as tuples (as MONAI's ``act=("relu", {...})`` wants them)."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
        return value
    if isinstance(value, list | tuple | Mapping) and depth < MAX_DEPTH and len(value) <= MAX_ITEMS:
        if not isinstance(value, Mapping):
            return tuple(_checked(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(value))
        if all(isinstance(key, str) for key in value):
            return {key: _checked(each, f"{where}.{key}", depth + 1) for key, each in value.items()}
    raise ArgumentError(f"{where}: got {value!r}; accepted: JSON values, numbers up to {MAX_NUMBER}")
