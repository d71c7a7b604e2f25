"""The stored slices of one volume (``segment/ID_views.npz``), checked before anything large is allocated."""

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FileError, FormatError

AXES = ("z", "y", "x")
LAYERS = ("volume", "probability", "mask")
MAX_MEMBER_BYTES = 256 * 2**20  # an 8192 x 8192 float32 slice; views are a few hundred kilobytes


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
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            layers: tuple[str, ...] = LAYERS
            if any(name.endswith("_uncertainty.npy") for name in names):  # then every slice must have it
                layers = (*LAYERS, "uncertainty")
            return tuple(_view(archive, axis, layers, path) for axis in AXES if f"{axis}_index.npy" in names)
    except FileNotFoundError:
        return ()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{path}: malformed npz: {error}") from error
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


def _view(archive: zipfile.ZipFile, axis: str, names: tuple[str, ...], path: Path) -> View:
    index = _array(archive, f"{axis}_index", path)
    if index.size != 1 or index.dtype.kind not in "iu":
        raise FormatError(f"{path}: {axis}_index: got {index.dtype} {index.shape}; accepted: one whole number")
    layers = {layer: _array(archive, f"{axis}_{layer}", path) for layer in names}
    shape = layers["volume"].shape
    for layer, array in layers.items():
        if array.ndim != 2 or array.size == 0 or array.shape != shape or array.dtype.kind not in "biuf":
            raise FormatError(
                f"{path}: {axis}_{layer}: got {array.dtype} {array.shape}; accepted: a 2-D array of numbers as {shape}"
            )
    return View(
        axis=axis,
        index=int(index.reshape(())),
        volume=layers["volume"],
        probability=layers["probability"].astype(np.float32),
        mask=layers["mask"] != 0,
        uncertainty=layers["uncertainty"].astype(np.float32) if "uncertainty" in layers else None,
    )


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise FormatError(f"{path}: {name}: no such array") from error
    if info.file_size > MAX_MEMBER_BYTES:
        raise FormatError(f"{path}: {name}: got {info.file_size} bytes; accepted: up to {MAX_MEMBER_BYTES}")
    with archive.open(info) as member:
        shape, order, dtype = _header(member, name, path)
        expected = math.prod(shape) * dtype.itemsize
        # One byte more than expected would also show a member that is longer than its header says.
        data = member.read(expected + 1) if expected <= info.file_size else b""
    if len(data) != expected:
        raise FormatError(f"{path}: {name}: got {len(data)} bytes of data; accepted: {expected} as its header says")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _header(member: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(member)
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError, tokenize.TokenError) as error:
        raise FormatError(f"{path}: {name}: malformed npy header: {error}") from error
    if dtype.hasobject:
        raise FormatError(f"{path}: {name}: got objects; accepted: numbers")
    return shape, "F" if fortran else "C", dtype
