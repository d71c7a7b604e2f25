"""What the headers of a foreign TIFF say: its compression by a look of our own, the rest by tifffile."""

import importlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.errors import FileError, FormatError

__all__ = ["NAMES", "compression_of", "inspect"]

NAMES = {
    7: "jpeg",
    33003: "jpeg2000",
    33004: "jpeg2000",
    33005: "jpeg2000",
    34712: "jpeg2000",
    34887: "lerc",
    34925: "lzma",
    34926: "zstd",
    50000: "zstd",
    50002: "jpegxl",
    52546: "jpegxl",
}
"""Names of the values of the tag Compression."""

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_COMPRESSION_TAG, _SHORT = 259, 3


def compression_of(path: Path) -> str | None:
    """The foreign compression of a TIFF's first page; None for every other file, whatever it is.

    Examples
    --------
    >>> compression_of(Path("no/such/file.tif")) is None
    True
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            order = {b"II": "<", b"MM": ">"}[head[:2]]
            big = struct.unpack(f"{order}H", head[2:4])[0] == 43
            (start,) = struct.unpack(f"{order}Q", head[8:16]) if big else struct.unpack(f"{order}I", head[4:8])
            file.seek(start)
            n_entries = struct.unpack(f"{order}Q", file.read(8)) if big else struct.unpack(f"{order}H", file.read(2))
            size = 20 if big else 12
            entries = file.read(min(n_entries[0], 1 << 16) * size)
    except (OSError, KeyError, struct.error, OverflowError, ValueError):
        return None
    for place in range(0, len(entries) - size + 1, size):
        tag, kind = struct.unpack_from(f"{order}HH", entries, place)
        if (tag, kind) == (_COMPRESSION_TAG, _SHORT):
            return NAMES.get(struct.unpack_from(f"{order}H", entries, place + size - (8 if big else 4))[0])
    return None


def inspect(path: Path, compression: str) -> dict[str, Any]:
    """The headers of every page of a volume, as the core's own inspection gives them; tifffile is importable.

    Raises
    ------
    FormatError
        Damaged, or of a kind that is not accepted.
    FileError
        The file cannot be read.
    """
    tifffile: Any = importlib.import_module("tifffile")
    try:
        with tifffile.TiffFile(path) as file:
            pages = [_page(page, path) for page in file.pages]
            order, bigtiff, predictor = file.byteorder, file.is_bigtiff, int(file.pages[0].predictor)
        file_bytes = path.stat().st_size
    except (FormatError, MemoryError):
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except Exception as error:  # a hostile file may raise anything from a library of 20,000 lines
        raise FormatError(f"{path}: compression {compression}: its headers cannot be read: {error}") from error
    for index, page in enumerate(pages):
        if (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
            raise FormatError(
                f"{path}: page {index} is {page.dtype} of {page.shape}, page 0 is {pages[0].dtype} of "
                f"{pages[0].shape}; accepted: pages all alike"
            )
        if page.end > file_bytes:
            raise FormatError(f"{path}: page {index} reaches beyond the file's {file_bytes} bytes: truncated?")
    return {
        "shape": [len(pages), *pages[0].shape],
        "dtype": pages[0].dtype,
        "compression": compression,
        "byte_order": order,
        "bigtiff": bool(bigtiff),
        "predictor": predictor,
        "file_bytes": file_bytes,
    }


@dataclass(frozen=True)
class _Page:
    shape: tuple[int, ...]
    dtype: str
    end: int


def _page(page: Any, path: Path) -> _Page:
    """What counts of a page's header."""
    dtype, depth = str(page.dtype), int(page.imagedepth)
    if page.samplesperpixel != 1 or depth != 1 or dtype not in _DTYPES or len(page.shape) != 2:
        raise FormatError(
            f"{path}: page {page.index}: {page.samplesperpixel} samples a pixel of {dtype}, {depth} slices; accepted: "
            f"one sample of {', '.join(_DTYPES)}, one slice a page"
        )
    chunks = zip(page.dataoffsets, page.databytecounts, strict=True)
    return _Page(tuple(map(int, page.shape)), dtype, max((offset + count for offset, count in chunks), default=0))
