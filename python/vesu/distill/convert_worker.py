"""The process in which `vesu teacher convert` opens a file that may be hostile.

It is run by its path with an empty environment: the file on standard input, where vesu lies and what to do as an
argument, the tensors on standard output. Here alone something is unpickled: by torch's restricted unpickler, behind the
walls of :mod:`vesu.distill.sandbox`.
"""

import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 3
PREFIXES = ("module.", "_orig_mod.", "model.module.")
"""What wrappers put before every name."""


class Unfit(Exception):
    """What is wrong with the file, in words for the user."""


def main() -> None:
    """One file in, one message out."""
    asked = json.loads(sys.argv[1])
    walls = _leave_network(asked["vesu"])
    from vesu.distill.pipes import write_message
    from vesu.distill.sandbox import shut

    try:
        open_kind = {"pickle": _pickled, "torchscript": _scripted, "keras-archive": _keras}[asked["kind"]]
        prepared = _warm_up(asked["kind"])
        walls += shut(memory_bytes=asked["memory_bytes"], cpu_seconds=asked["cpu_seconds"])
        told, weights = open_kind(io.BytesIO(sys.stdin.buffer.read()), asked, prepared)
    except Unfit as error:
        write_message(1, {"kind": "refused", "message": str(error), "walls": walls})
    except BaseException as error:  # noqa: BLE001 (whatever a hostile file brings about)
        text = f"{type(error).__name__}: {error}"
        write_message(1, {"kind": "refused", "message": text[:4000], "walls": walls})
    else:
        write_message(1, {"kind": "tensors", "walls": walls, **told}, weights)


def _leave_network(vesu: str) -> list[str]:
    sys.path.append(str(Path(__file__).parent))
    import sandbox  # type: ignore[import-not-found]  # by its folder: the package would import numpy and its threads

    sys.path[-1] = vesu
    walls: list[str] = sandbox.leave_network()
    return walls


def _warm_up(kind: str) -> Any:
    """Everything that is imported on the way, while files can be opened."""
    if kind == "keras-archive":
        import importlib

        from vesu.distill.adapters import keras_worker

        with importlib.import_module("h5py").File(io.BytesIO(), "w") as empty:
            empty["a"] = [1.0]
        "names in zip archives".encode("cp437")
        return keras_worker
    import torch

    from vesu.distill.teacher_folder import safetensors_bytes

    _allow_plain_values()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as empty:  # a checkpoint of an empty dict
        empty.writestr("a/data.pkl", b"\x80\x02}.")
        empty.writestr("a/version", b"3\n")
    buffer.seek(0)
    torch.load(buffer, map_location="cpu", weights_only=True)
    if kind == "torchscript":
        torch.jit.ScriptModule()
    safetensors_bytes({"a": torch.zeros(1)})
    return safetensors_bytes


def _allow_plain_values() -> None:
    """What trainers put beside the tensors: numbers of numpy, argparse's namespace."""
    import argparse

    import numpy as np
    import torch
    from numpy._core import multiarray

    kinds = {type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "bool")}
    plain: list[Any] = [np.dtype, argparse.Namespace, *kinds]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        plain.append((multiarray.scalar, f"{module}.scalar"))
    torch.serialization.add_safe_globals(plain)


def _pickled(file: io.BytesIO, asked: Mapping[str, Any], to_bytes: Any) -> tuple[dict[str, Any], bytes]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Unfit(f"it is damaged, or holds more than tensors and plain values: {_wanted(str(error))}") from error
    key, state = _state_of(content, asked["key"])
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    dropped = sorted(str(name) for name in state.keys() - tensors.keys())
    names, prefix = _without_prefix(list(tensors))
    told_of = {"tensors": len(tensors), "key": key, "dropped": dropped, "prefix": prefix}
    return told_of, to_bytes(dict(zip(names, tensors.values(), strict=True)))


def _wanted(text: str) -> str:
    """What the pickle asked for, out of torch's long message."""
    asked = re.search(r"(?:GLOBAL|class|type) '?([\w.]+)", text)
    return f"it asks for {asked[1]}" if asked else text[:200]


def _scripted(file: io.BytesIO, asked: Mapping[str, Any], to_bytes: Any) -> tuple[dict[str, Any], bytes]:
    import torch

    try:
        script: torch.nn.Module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
        state = script.state_dict()
    except Exception as error:
        raise Unfit(f"this torch cannot read the TorchScript archive: {str(error)[:500]}") from error
    return {"tensors": len(state), "key": None, "dropped": ["its code"], "prefix": ""}, to_bytes(state)


def _keras(file: io.BytesIO, asked: Mapping[str, Any], worker: Any) -> tuple[dict[str, Any], bytes]:
    with zipfile.ZipFile(file) as archive:
        largest = asked["memory_bytes"] // 4
        if any(member.file_size > largest for member in archive.infolist()):
            raise Unfit(f"a member of more than {largest} bytes")
        weights = archive.read("model.weights.h5")
        config = json.loads(archive.read("config.json"))
    try:
        n_arrays = sum(1 for _ in worker.h5_arrays(io.BytesIO(weights)))
    except worker.Refused as error:
        raise Unfit(f"model.weights.h5: {error}") from error
    told: dict[str, Any] = {"tensors": n_arrays, "key": None, "prefix": ""}
    told["dropped"] = [f"Lambda layer {name!r}: its code" for name in _lambdas(config)]
    name, kwargs = config.get("class_name"), config.get("config")
    if name in worker.RECIPES["medicai.models"] and isinstance(kwargs, dict) and kwargs.get("encoder_name"):
        kwargs = {key: value for key, value in kwargs.items() if key != "encoder" and value is not None}
        told["architecture"] = {"module": "medicai.models", "class": name, "kwargs": kwargs}
    return told, weights


def _lambdas(node: Any) -> list[str]:
    """Names of Lambda layers anywhere in a model's configuration."""
    found, waiting = [], [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if here.get("class_name") == "Lambda":
                inner = here.get("config")
                found.append(str(inner.get("name") if isinstance(inner, dict) else "?"))
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here
    return sorted(found)


def _state_of(content: Any, key: str | None) -> tuple[str | None, Mapping[str, Any]]:
    """The one mapping of names to tensors in a checkpoint, and the dotted key that leads to it."""
    states = dict(_states(content, ""))
    if key is not None:
        if key not in states:
            raise Unfit(f"--key: got {key!r}; accepted: {', '.join(map(repr, states)) or 'none: it has no tensors'}")
        return key, states[key]
    if len(states) != 1:
        found = f"{len(states)} sets of tensors ({', '.join(map(repr, states))})" if states else "no tensors by name"
        raise Unfit(f"it has {found}; accepted: one, or --key to say which")
    return next(iter(states.items()))


def _states(node: Any, path: str, depth: int = 0) -> list[tuple[str, Mapping[str, Any]]]:
    """Sets of tensors by name: an optimizer's moments are by number, and are none."""
    import torch

    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return []
    if any(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in node.items()):
        return [(path, node)]
    found = []
    for name, value in node.items():
        if isinstance(name, str):
            found += _states(value, f"{path}.{name}" if path else name, depth + 1)
    return found


def _without_prefix(names: list[str]) -> tuple[list[str], str]:
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return [name.removeprefix(prefix) for name in names], prefix
    return names, ""


if __name__ == "__main__":
    main()
