"""Nested values with tensors in them: a JSON tree that names the tensors, and a safetensors part that holds them."""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vesu.errors import ArgumentError, FormatError, VesuError

if TYPE_CHECKING:
    import torch

__all__ = ["MissingSafetensorsError", "TreeReader", "TreeWriter", "json_bytes", "json_value", "members"]

DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
"""What safetensors holds and every supported torch computes with."""

ARRAY_DTYPES = (
    "float64",
    "float32",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (64, 32, 16, 8)),
    "bool",
)
ACCEPTED = "accepted: tensors, numbers, strings, None, and lists, tuples and dicts of them"
MAX_DEPTH = 64


class MissingSafetensorsError(VesuError, ImportError):
    """safetensors is not installed, or broken; the message says why."""


class TreeWriter:
    """Turns values into JSON trees and gathers the tensors met on the way.

    Tensors of the very same memory become one, named twice: tied weights and shared learning rates stay shared.
    Numbers, tuples, keys that are no strings, and infinities survive as what they are; a tag, an object of one
    member whose name begins with ``$``, stands for what JSON lacks.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._name_of: dict[tuple[Any, ...], str] = {}

    def add(self, tensor: "torch.Tensor", path: str) -> str:
        """The name under which the part will hold the tensor.

        Raises
        ------
        ArgumentError
            A tensor without plain values: sparse, quantized, not materialised, or of a type that safetensors lacks.
        """
        if problem := _problem(tensor):
            raise ArgumentError(f"{path}: got {problem}; accepted: dense tensors of {', '.join(DTYPES)}")
        memory = (str(tensor.device), tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        name = self._name_of.setdefault(memory, path) if tensor.numel() else path
        if name == path:
            if path in self.tensors:
                raise ArgumentError(f"{path}: two tensors come to this name; accepted: names that tell them apart")
            self.tensors[path] = tensor.detach()
        return name

    def encode(self, value: Any, path: str, depth: int = 0) -> Any:
        """The JSON tree of a value; ``path`` names it in errors and names the tensors in it.

        Raises
        ------
        ArgumentError
            Something that is no plain value, a function for example; the message names its place.
        """
        import torch

        def inner(values: Iterable[Any]) -> list[Any]:
            return [self.encode(v, f"{path}.{i}", depth + 1) for i, v in enumerate(values)]

        kind = type(value)
        if depth > MAX_DEPTH:
            raise ArgumentError(f"{path}: got more than {MAX_DEPTH} levels; {ACCEPTED}")
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if np.isfinite(value) else {"$float": repr(value)}
        if kind is list:
            return inner(value)
        if kind is tuple:
            return {"$tuple": inner(value)}
        if kind is Counter:
            return {"$counter": inner(value.items())}
        if kind in (dict, OrderedDict):
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: self.encode(v, f"{path}.{key}", depth + 1) for key, v in value.items()}
            return {
                "$items": [[self._key(k, path), self.encode(v, f"{path}.{k}", depth + 1)] for k, v in value.items()]
            }
        if isinstance(value, torch.Tensor):
            return {"$tensor": self.add(value, path)}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in ARRAY_DTYPES:
            # Numbers of random generators: some hundred at most, better read than hidden.
            return {"$array": [value.dtype.name, list(value.shape), inner(np.ravel(value).tolist())]}
        raise ArgumentError(f"{path}: got {kind.__name__}; {ACCEPTED}")

    def to_bytes(self) -> bytes:
        """The safetensors part.

        Raises
        ------
        ArgumentError
            Two tensors that overlap in part: restored apart, they would no longer move together.
        MissingSafetensorsError
            The package is not there.
        """
        spans = sorted((*_span(tensor), name) for name, tensor in self.tensors.items() if tensor.numel())
        for (device, _, end, name), (other, start, _, neighbour) in pairwise(spans):
            if device == other and start < end:
                raise ArgumentError(
                    f"{neighbour}: shares a part of its memory with {name}; accepted: tensors that are one or are apart"
                )
        return bytes(_safetensors().save({name: _dense(tensor) for name, tensor in self.tensors.items()}))

    @staticmethod
    def _key(key: Any, path: str) -> Any:
        if key is None or type(key) in (bool, int, str):
            return key
        raise ArgumentError(f"{path}: got a key of type {type(key).__name__}; accepted: strings, integers, None")


class TreeReader:
    """Reads the trees of one part back; nothing in the bytes is trusted.

    Raises
    ------
    FormatError
        Bytes that are no safetensors file.
    MissingSafetensorsError
        The package is not there.
    """

    def __init__(self, part: str, data: bytes) -> None:
        load = _safetensors().load
        self._part = part
        try:
            self._tensors: dict[str, torch.Tensor] = load(bytes(data))
        except Exception as error:  # whatever its parser raises on bytes from outside
            raise FormatError(f"{part}: not a safetensors file: {error}") from error
        self._unused = set(self._tensors)

    def tensor(self, name: Any, path: str) -> "torch.Tensor":
        """The tensor of that name.

        Raises
        ------
        FormatError
            There is none.
        """
        if not isinstance(name, str) or name not in self._tensors:
            raise FormatError(f"{self._part}: no tensor {name!r}, which {path} names")
        self._unused.discard(name)
        return self._tensors[name]

    def finish(self) -> None:
        """Nothing may be left over.

        Raises
        ------
        FormatError
            Tensors that no tree named.
        """
        if self._unused:
            raise FormatError(f"{self._part}: tensors that nothing names: {', '.join(sorted(self._unused)[:8])}")

    def decode(self, node: Any, path: str) -> Any:
        """The value of a tree that :meth:`TreeWriter.encode` made.

        Raises
        ------
        FormatError
            Not such a tree.
        """
        try:
            return self._decode(node, path)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            if isinstance(error, VesuError):
                raise
            raise FormatError(f"{path}: {error}") from error

    def _decode(self, node: Any, path: str) -> Any:
        if isinstance(node, list):
            return [self._decode(child, f"{path}.{i}") for i, child in enumerate(node)]
        if not isinstance(node, dict):
            return node
        if not any(key.startswith("$") for key in node):
            return {key: self._decode(child, f"{path}.{key}") for key, child in node.items()}
        ((tag, content),) = node.items()
        match tag:
            case "$float" if content in ("nan", "inf", "-inf"):
                return float(content)
            case "$tuple":
                return tuple(self._decode(child, f"{path}.{i}") for i, child in enumerate(content))
            case "$counter":
                return Counter(dict(self._decode(child, path) for child in content))
            case "$items":
                return {key: self._decode(child, f"{path}.{key}") for key, child in content}
            case "$tensor":
                return self.tensor(content, path)
            case "$array":
                dtype, shape, values = content
                return self._array(dtype, shape, values, path)
        raise FormatError(f"{path}: no such tag: {tag!r} with {type(content).__name__}")

    def _array(self, dtype: Any, shape: Any, values: Any, path: str) -> Any:
        if dtype not in ARRAY_DTYPES:  # others could ask for more memory than there is
            raise FormatError(f"{path}: got an array of {dtype!r}; accepted: {', '.join(ARRAY_DTYPES)}")
        array = np.array(self._decode(values, path), np.dtype(dtype)).reshape(shape)
        return array if shape else array[()]


def json_bytes(value: Any) -> bytes:
    """JSON of an encoded tree; the same tree gives the same bytes."""
    return json.dumps(value, allow_nan=False, indent=1).encode()


def json_value(part: str, data: bytes) -> Any:
    """What :func:`json_bytes` wrote.

    Raises
    ------
    FormatError
        No JSON, a name that comes twice, NaN.
    """

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a name comes twice in one object")
        return found

    try:
        return json.loads(bytes(data), parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{part}: not the JSON of a training state: {error}") from error


def members(value: Any, where: str, accepted: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """``value`` if it is an object of exactly these members of these types.

    Raises
    ------
    FormatError
        Anything else; the message names the member.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{where}: got {type(value).__name__}; accepted: an object")
    for name in sorted(value.keys() ^ accepted.keys()):
        raise FormatError(f"{where}.{name}: {'not expected' if name in value else 'missing'}")
    for name, kinds in accepted.items():
        if not isinstance(value[name], kinds):
            raise FormatError(f"{where}.{name}: got {type(value[name]).__name__}")
    return value


def _problem(tensor: "torch.Tensor") -> str | None:
    """Why the values cannot be kept, or None."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        return "a parameter whose shape is not known yet"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return f"a tensor of layout {tensor.layout}" + (", quantized" if tensor.is_quantized else "")
    if tensor.device.type == "meta":
        return "a tensor on the meta device"
    if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        return str(tensor.dtype)
    if any(step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        return "an expanded tensor, several elements of which are one in memory"
    return None


def _span(tensor: "torch.Tensor") -> tuple[str, int, int]:
    """Device, first byte, and byte after the last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _dense(tensor: "torch.Tensor") -> "torch.Tensor":
    """In memory of its own, as safetensors asks."""
    dense = tensor.cpu().contiguous()
    return dense if dense.untyped_storage().nbytes() == dense.numel() * dense.element_size() else dense.clone()


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except (ImportError, OSError) as error:
        raise MissingSafetensorsError(f"safetensors cannot be imported ({error}); pip install safetensors") from error
    return safetensors.torch
