"""The stored slices of one volume (``segment/ID_views.npz``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FormatError
from vesu.report.npzfile import Npz, open_npz

AXES = ("z", "y", "x")
LAYERS = ("volume", "probability", "mask")


@dataclass(frozen=True)
class View:
    """One slice across one axis: CT, probability, mask, uncertainty (None: not measured), all of one 2-D shape."""

    axis: str
    index: int
    volume: NDArray[Any]
    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    uncertainty: NDArray[np.float32] | None


def read_views(path: Path) -> tuple[View, ...]:
    """Read the slices of one volume, in the order z, y, x; no file means no views.

    Raises
    ------
    FormatError
        Naming the file, and the array where one is at fault.
    """
    with open_npz(path) as archive:
        if archive is None:
            return ()
        measured = any(archive.has(f"{axis}_uncertainty") for axis in AXES)  # then every slice must have it
        layers = (*LAYERS, "uncertainty") if measured else LAYERS
        return tuple(_view(archive, axis, layers) for axis in AXES if archive.has(f"{axis}_index"))


def check_layers(archive: Npz, axis: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The named layers of one slice, all of one 2-D shape.

    Raises
    ------
    FormatError
        Naming file and array.
    """
    layers = {layer: archive.array(f"{axis}_{layer}") for layer in names}
    shape = layers[names[0]].shape
    for layer, array in layers.items():
        if array.ndim != 2 or array.size == 0 or array.shape != shape or array.dtype.kind not in "biuf":
            got = f"{array.dtype} {array.shape}"
            raise FormatError(f"{archive.path}: {axis}_{layer}: got {got}; accepted: a 2-D array of numbers as {shape}")
    return layers


def read_index(archive: Npz, name: str) -> int:
    """Which slice it is.

    Raises
    ------
    FormatError
        Not one whole number; names file and array.
    """
    index = archive.array(name)
    if index.size != 1 or index.dtype.kind not in "iu":
        raise FormatError(f"{archive.path}: {name}: got {index.dtype} {index.shape}; accepted: one whole number")
    return int(index.reshape(()))


def _view(archive: Npz, axis: str, names: Sequence[str]) -> View:
    index = read_index(archive, f"{axis}_index")
    layers = check_layers(archive, axis, names)
    return View(
        axis=axis,
        index=index,
        volume=layers["volume"],
        probability=layers["probability"].astype(np.float32),
        mask=layers["mask"] != 0,
        uncertainty=layers["uncertainty"].astype(np.float32) if "uncertainty" in layers else None,
    )
