"""TIFF volumes in compressions that vesu's own decoder does not read: JPEG, JPEG 2000, LERC, LZMA, Zstandard, JPEG XL.

Their decoders are other people's packages, asked for only when such a file is met (R03): ``tifffile`` reads headers,
and a process of its own decodes with ``imagecodecs``, so that a damaged file can stop neither a run nor a notebook. A
package that is missing is looked for in the folders of wheels that :mod:`vesu.offline` knows. Without imagecodecs
tifffile does what it can alone; where that is not enough, the error has the whole account.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.foreign.headers import NAMES, compression_of, inspect
from vesu.data.foreign.packages import Emit, Packages
from vesu.data.foreign.process import decode
from vesu.errors import FormatError, MemoryLimitError
from vesu.offline import Resolution

__all__ = ["NAMES", "compression_of", "headers", "prove", "read"]

PROBES = {"jpeg": "JPEG", "jpeg2000": "JPEG2K", "lerc": "LERC", "lzma": "LZMA", "zstd": "ZSTD", "jpegxl": "JPEGXL"}
"""What imagecodecs calls them; each has an attribute `available`."""

BY_TIFFFILE_ALONE = frozenset({"lzma"})
"""What tifffile decodes with Python's own library: imagecodecs is not even looked for."""

_PACKAGES = Packages()


def headers(path: Path, compression: str, *, emit: Emit | None = None) -> dict[str, Any]:
    """The headers of all pages, as the core's own inspection gives them.

    Raises
    ------
    FormatError
        tifffile cannot be had, or the file is damaged or of a kind that is not accepted.
    """
    _PACKAGES.needed("tifffile", path, compression, emit)
    return inspect(path, compression)


def read(path: Path, compression: str, max_bytes: int, n_threads: int | None) -> NDArray[Any]:
    """Decode a volume in a process of its own.

    Parameters
    ----------
    path : Path
    compression : str
        From :func:`compression_of`.
    max_bytes : int
        Refuse volumes whose voxels take more memory than this.
    n_threads : int, optional
        Threads to decode on.

    Returns
    -------
    ndarray, shape (z, y, x)

    Raises
    ------
    FormatError
        No decoder can be had (the message has every path, wheel and reason), or the file cannot be decoded.
    MemoryLimitError
        More than `max_bytes`.
    """
    fields = headers(path, compression)
    shape, dtype = fields["shape"], np.dtype(fields["dtype"])
    needed = shape[0] * shape[1] * shape[2] * dtype.itemsize
    if needed > max_bytes:
        raise MemoryLimitError(f"{path}: the volume needs {needed} bytes; the limit (max_bytes) is {max_bytes}")
    imagecodecs = _imagecodecs(compression)
    return _decoded(path, compression, shape, dtype, n_threads, imagecodecs)


def prove(path: Path, compression: str, *, emit: Emit | None = None, target: Path | None = None) -> None:
    """Have a decoder for a compression, and prove on a file's first page that it decodes.

    Parameters
    ----------
    path : Path
        A volume of that compression.
    compression : str
        From :func:`compression_of`.
    emit : callable, optional
        ``emit(name, fields)`` gets every decision on the way, also those that were made before.
    target : Path, optional
        A folder to install below; see :func:`vesu.offline.resolve`.

    Raises
    ------
    FormatError
        As :func:`read`.
    """
    fields = headers(path, compression, emit=emit)
    imagecodecs = _imagecodecs(compression, emit, target)
    first = [1, *fields["shape"][1:]]
    _decoded(path, compression, first, np.dtype(fields["dtype"]), 1, imagecodecs)
    if emit is not None:
        decoder = "imagecodecs" if imagecodecs is not None and imagecodecs.available else "tifffile"
        emit("TIFF_DECODER_PROVED", {"compression": compression, "decoder": decoder, "file": path.name})


def _imagecodecs(compression: str, emit: Emit | None = None, target: Path | None = None) -> Resolution | None:
    """How imagecodecs was resolved; None where tifffile needs no help."""
    if compression in BY_TIFFFILE_ALONE:
        return None
    return _PACKAGES.resolved("imagecodecs", f"{PROBES[compression]}.available", emit, target)


def _decoded(
    path: Path,
    compression: str,
    shape: list[int],
    dtype: np.dtype[Any],
    n_threads: int | None,
    imagecodecs: Resolution | None,
) -> NDArray[Any]:
    """The first ``shape[0]`` pages; whichever decoder there is, tifffile chooses it."""
    try:
        return decode(path, (shape[0], shape[1], shape[2]), dtype, n_threads)
    except FormatError as error:
        account = f"\n  {imagecodecs}" if imagecodecs is not None and not imagecodecs.available else ""
        raise FormatError(f"{path}: compression {compression} cannot be decoded: {error}{account}") from error
