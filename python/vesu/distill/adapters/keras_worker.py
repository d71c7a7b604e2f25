"""The process that a Keras teacher lives in: it builds the network of a recipe, loads its weights, answers windows.

``python -m vesu.distill.adapters.keras_worker``: requests come on standard input, answers go to standard output, see
:mod:`vesu.distill.pipes`. Keras runs on its torch backend. The process ends with its standard input and its parent.
"""

import contextlib
import importlib
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.distill.pipes import array_bytes, array_of, read_message, write_message

__all__ = ["RECIPES", "Refused", "h5_arrays", "main"]

RECIPES: dict[str, frozenset[str]] = {
    "medicai.models": frozenset(
        {
            *("AttentionUNet", "DeepLabV3Plus", "SegFormer", "SwinUNETR", "TransUNet"),
            *("UNETR", "UNETRPlusPlus", "UNet", "UNetPlusPlus", "UPerNet"),
        }
    )
}
"""Modules and their classes that a recipe may name: segmentation networks, no layer of free code."""


class Refused(Exception):
    """What is wrong with weights or recipe, in words for the user."""


def main() -> None:
    """Answer until standard input ends."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not come between the answers
    network: Any = None
    while (request := read_message(sys.stdin.buffer)) is not None:
        header, windows = request
        try:
            if windows:
                write_message(answers, {"kind": "answer"}, array_bytes(_answer(network, array_of(windows))))
            else:
                network, told = _load(header)
                write_message(answers, told)
        except Refused as error:
            write_message(answers, {"kind": "refused", "message": str(error)})
        except Exception as error:  # noqa: BLE001 (the parent raises it again, named)
            kind = "out_of_memory" if type(error).__name__ == "OutOfMemoryError" else "failed"
            write_message(answers, {"kind": kind, "message": f"{type(error).__name__}: {error}"})


def h5_arrays(path: Path | io.BytesIO) -> Iterator[tuple[str, Any]]:
    """(name, dataset) of an HDF5 file of plain arrays of numbers.

    Raises
    ------
    Refused
        Links, data outside the file, filters, or anything that is no array of numbers.
    """
    h5py = importlib.import_module("h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise Refused(f"not an HDF5 file: {error}") from error
    with file:
        if "model_config" in file.attrs or "layer_names" in file.attrs:
            raise Refused(
                "a whole model or weights of Keras 2; load it there and `save_weights('x.weights.h5')` in Keras 3"
            )
        waiting = [file]
        while waiting:
            group = waiting.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise Refused(f"{where}: a link; accepted: data in the file itself")
                member = group[name]
                if isinstance(member, h5py.Group):
                    waiting.append(member)
                    continue
                plain = isinstance(member, h5py.Dataset) and not member.is_virtual and not member.external
                if not plain or member.dtype.kind not in "fiub" or member.chunks is not None:
                    raise Refused(f"{where}: accepted: a plain array of numbers, in the file itself, not compressed")
                yield where, member


def _load(recipe: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Build, load, and prove that what the network holds is the file, name by name and bit by bit."""
    path = Path(recipe["weights"])
    _check_finite(path)
    network = _build(recipe)
    try:
        network.load_weights(str(path))
    except Exception as error:
        raise Refused(f"the weights do not fit the network of the recipe: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "loaded.weights.h5")
        network.save_weights(str(saved))
        _compare(path, saved)
    told = {"kind": "ready", "n_parameters": int(network.count_params())}
    return network, told | {"input": list(network.input_shape), "output": list(network.output_shape)}


def _check_finite(path: Path) -> None:
    bad = [name for name, data in h5_arrays(path) if data.dtype.kind == "f" and not np.isfinite(data[()]).all()]
    if bad:
        raise Refused(f"NaN or infinite weights in {', '.join(bad[:8])}")


def _build(recipe: Mapping[str, Any]) -> Any:
    module, name = recipe["module"], recipe["class"]
    if name not in RECIPES.get(module, ()):
        raise Refused(f"architecture: got {module}.{name}; accepted: {RECIPES}")
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in recipe["kwargs"].items()}
    import torch

    torch.set_num_threads(recipe["threads"])
    network_class = getattr(importlib.import_module(module), name)
    try:
        return network_class(**kwargs)
    except Exception as error:
        raise Refused(f"architecture: {module}.{name} refuses kwargs {recipe['kwargs']}: {error}") from error


def _compare(given: Path, loaded: Path) -> None:
    """Every array of the one file is in the other, with the same bits; a training's optimizer is no weight."""
    h5py = importlib.import_module("h5py")
    one = {name: data.shape for name, data in h5_arrays(given) if not name.startswith("/optimizer/")}
    two = {name: data.shape for name, data in h5_arrays(loaded)}
    if differing := sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name)):
        told = [f"{name}: file {one.get(name, 'lacks it')}, network {two.get(name, 'lacks it')}" for name in differing]
        raise Refused(f"{len(told)} arrays of the file and the network differ: {'; '.join(told[:8])}")
    with h5py.File(given, "r") as a, h5py.File(loaded, "r") as b:
        if wrong := [name for name in one if not np.array_equal(a[name][()], b[name][()])]:
            raise Refused(f"the network did not take {', '.join(wrong[:8])} from the file")


def _answer(network: Any, windows: NDArray[Any]) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        answer = network(windows, training=False)
    if not isinstance(answer, torch.Tensor):
        raise Refused(f"the network gives {type(answer).__name__}; accepted: one tensor")
    array: NDArray[np.float32] = answer.detach().to("cpu", torch.float32).numpy()
    return array


def _end_with_parent(parent: int) -> None:
    """A killed parent closes no pipe in the middle of our work: look for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
