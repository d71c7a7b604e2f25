"""Files from outside: read with a bound, hashed, and recognised by their first bytes, whatever they are called."""

import hashlib
import os
import stat
import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

from vesu import _core
from vesu.errors import FileError, FormatError

__all__ = ["MAX_WEIGHT_BYTES", "WeightsKind", "digest_of", "identify", "read_bounded", "refuse_kind"]

WeightsKind: TypeAlias = Literal[
    "safetensors", "torch.export", "hdf5", "pickle", "torchscript", "keras-archive", "zip", "empty", "unknown"
]

MAX_WEIGHT_BYTES = 16 << 30

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WAY_OUT = "`vesu teacher convert` takes its tensors out in a sandbox"
_REFUSED: dict[WeightsKind, str] = {
    "pickle": f"a pickled checkpoint, which runs code when it is loaded; {_WAY_OUT}",
    "torchscript": f"a TorchScript archive, which carries code; {_WAY_OUT}",
    "keras-archive": f"a .keras archive, whose layers may carry code (Lambda); {_WAY_OUT}",
    "zip": "a zip archive of no known kind",
    "empty": "an empty file",
}


def read_bounded(path: Path, max_bytes: int = MAX_WEIGHT_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises
    ------
    FileError
        The operating system refused.
    FormatError
        No regular file, or larger than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{path}: accepted: a regular file")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    if len(data) > max_bytes:
        raise FormatError(f"{path}: more than {max_bytes} bytes")
    return data


def digest_of(source: Path | bytes, algorithm: str = "blake3") -> str:
    """``blake3:`` or ``sha256:`` and the digest of a file or of bytes, in hexadecimal.

    Raises
    ------
    FileError
        The file cannot be read.

    Examples
    --------
    >>> digest_of(b"")[:23]
    'blake3:af1349b9f5f9a1a6'
    """
    if algorithm == "blake3":
        hexadecimal = _core.blake3_bytes(source) if isinstance(source, bytes) else _core.blake3_file(source)
    elif isinstance(source, bytes):
        hexadecimal = hashlib.sha256(source).hexdigest()
    else:
        try:
            with source.open("rb") as file:
                hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(source)) from error
    return f"{algorithm}:{hexadecimal}"


def identify(path: Path) -> WeightsKind:
    """What a file is by its content; nothing in it is run or unpickled.

    Raises
    ------
    FileError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head.startswith(_HDF5):
        return "hdf5"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:  # the length of the header
        return "safetensors"
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:  # PROTO, which every pickle since protocol 2 begins with
        return "pickle"
    return "unknown"


def refuse_kind(path: Path, expected: WeightsKind) -> None:
    """Refuse a file that is something else than ``expected``, with the way out where there is one.

    Raises
    ------
    FormatError
        It is; the message names the file and what it is.
    FileError
        It cannot be read.
    """
    found = identify(path)
    if found != expected:
        raise FormatError(f"{path}: {_REFUSED.get(found, f'looks like {found}')}; expected {expected}")


def _identify_zip(path: Path) -> WeightsKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
            names += archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "zip"
    if "archive_format" in names:
        return "torch.export"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "torchscript"
    if "data.pkl" in names:
        return "pickle"
    if "model.weights.h5" in names:
        return "keras-archive"
    return "zip"
