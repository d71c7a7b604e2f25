"""Arrays and a JSON text in one .npz: written the same byte for byte, read with nothing in the file trusted."""

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError, FileError, FormatError

__all__ = ["Archive", "read_npz", "write_npz"]

T = TypeVar("T")

META = "meta"
DTYPES = tuple(np.dtype(kind) for kind in (np.float64, np.int64, np.uint64, np.uint8, np.bool_))
"""What a file may hold; a pickled object is none of them."""


def write_npz(
    file: str | os.PathLike[str] | BinaryIO, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the arrays and the JSON text of ``meta``; a path is written atomically.

    Raises
    ------
    FileError
        The operating system refused a step; the old file, if any, is untouched.
    """
    text = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
    buffer = io.BytesIO()
    # Not np.savez: NumPy 2.0, on Kaggle's image, stores its allow_pickle=False as one more array and pickles objects.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {META: np.frombuffer(text, np.uint8), **arrays}.items():
            npy = io.BytesIO()
            np.lib.format.write_array(npy, np.asanyarray(array), allow_pickle=False)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(npy.getbuffer())
    if not isinstance(file, (str, os.PathLike)):
        file.write(buffer.getvalue())
        return
    from vesu.data.storage import write_bytes_atomic

    write_bytes_atomic(file, buffer.getvalue())


class Archive:
    """An opened .npz whose members are parsed one by one, each against what its own bytes can hold."""

    def __init__(self, archive: zipfile.ZipFile, max_member_bytes: int) -> None:
        self._archive = archive
        self._max_member_bytes = max_member_bytes
        self.meta = json.loads(self.array(META, 1, (np.dtype(np.uint8),)).tobytes())

    def names(self) -> list[str]:
        """The arrays' names, without the JSON text's."""
        names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        return [name for name in names if name != META]

    def array(self, name: str, ndim: int | None = None, dtypes: tuple[np.dtype[Any], ...] = DTYPES) -> NDArray[Any]:
        """One .npy member, whose header must agree with the bytes that are there before anything is allocated."""
        member = self._archive.getinfo(f"{name}.npy")
        limit = self._max_member_bytes
        if member.file_size > limit:
            raise ValueError(f"{member.filename} claims {member.file_size} bytes; the limit is {limit}")
        with self._archive.open(member) as opened:
            data = io.BytesIO(opened.read(limit + 1))
        if np.lib.format.read_magic(data) != (1, 0):
            raise ValueError(f"{member.filename}: not .npy version 1.0")
        shape, fortran, found = np.lib.format.read_array_header_1_0(data)
        payload = data.read()
        expected = math.prod(shape) * found.itemsize
        wrong_ndim = len(shape) > 3 if ndim is None else len(shape) != ndim
        if found not in dtypes or wrong_ndim or fortran or len(payload) != expected:
            raise ValueError(f"{member.filename}: {found} of shape {shape} in {len(payload)} bytes")
        return np.frombuffer(payload, found).reshape(shape)


def read_npz(
    file: str | os.PathLike[str] | BinaryIO,
    build: Callable[[Archive], T],
    *,
    format: str,
    max_member_bytes: int,
) -> T:
    """What ``build`` makes of the file; everything that it stumbles over means that the file is not what it should be.

    Raises
    ------
    FileError
        The file cannot be read.
    FormatError
        Not such a file, another version, truncated, or values that ``build`` refuses.
    """
    if not isinstance(file, (str, os.PathLike)):
        return _parse("file", file, build, format, max_member_bytes)
    try:
        with Path(file).open("rb") as opened:
            return _parse(str(file), opened, build, format, max_member_bytes)
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(file)) from error


def _parse(name: str, file: BinaryIO, build: Callable[[Archive], T], format: str, max_member_bytes: int) -> T:
    try:
        with zipfile.ZipFile(file) as opened:
            archive = Archive(opened, max_member_bytes)
            if archive.meta["format"] != format:
                raise FormatError(f"{name}: format {archive.meta['format']!r}; accepted: {format!r}")
            return build(archive)
    except FormatError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        ArgumentError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        EOFError,
        NotImplementedError,  # a compression that zipfile lacks
        RuntimeError,  # an encrypted member, JSON nested too deep
        MemoryError,
    ) as error:
        raise FormatError(f"{name}: not a {format} file: {error}") from error
