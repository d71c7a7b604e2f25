"""Arrays of an npz that anyone may have written, each checked before anything large is allocated."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FileError, FormatError

MAX_MEMBER_BYTES = 256 * 2**20  # an 8192 x 8192 float32 slice; views are a few hundred kilobytes


@dataclass(frozen=True)
class Npz:
    """An open archive of arrays."""

    archive: zipfile.ZipFile
    path: Path

    def has(self, name: str) -> bool:
        """Whether there is an array of that name."""
        return f"{name}.npy" in self.archive.NameToInfo

    def array(self, name: str) -> NDArray[Any]:
        """An array of numbers.

        Raises
        ------
        FormatError
            Missing, too large, no numbers, or not what its header says; the message names file and array.
        """
        try:
            info = self.archive.getinfo(f"{name}.npy")
        except KeyError as error:
            raise FormatError(f"{self.path}: {name}: no such array") from error
        if info.file_size > MAX_MEMBER_BYTES:
            raise FormatError(f"{self.path}: {name}: got {info.file_size} bytes; accepted: up to {MAX_MEMBER_BYTES}")
        with self.archive.open(info) as member:
            shape, order, dtype = _header(member, name, self.path)
            expected = math.prod(shape) * dtype.itemsize
            # One byte more than expected would also show a member that is longer than its header says.
            data = member.read(expected + 1) if expected <= info.file_size else b""
        if len(data) != expected:
            raise FormatError(
                f"{self.path}: {name}: got {len(data)} bytes of data; accepted: {expected} as its header says"
            )
        return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


@contextmanager
def open_npz(path: Path) -> Iterator[Npz | None]:
    """The archive, or None where there is no file.

    Raises
    ------
    FormatError
        Not an archive, or a damaged one.
    FileError
        The operating system refuses to read it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(archive, path)
    except FileNotFoundError:
        yield None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{path}: malformed npz: {error}") from error
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


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
