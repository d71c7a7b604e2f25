"""TIFF files of every accepted kind, and hand-made hostile ones. Oracles: tifffile with imagecodecs, Pillow."""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
COMPRESSIONS = {"none": None, "lzw": "lzw", "deflate": "zlib", "packbits": "packbits"}


def volume(shape: Sequence[int], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Smooth runs and noise over the type's whole range; NaN and infinities for floats."""
    rng = np.random.default_rng(seed)
    flat = np.repeat(rng.integers(0, 2**64, int(np.prod(shape)), dtype=np.uint64), rng.integers(1, 6))
    flat = flat[: int(np.prod(shape))]
    if dtype.startswith("float"):
        values = (flat.astype(np.float64) / 2**40 - 1000).astype(dtype)
        values[::17], values[5::31], values[7::37] = np.nan, np.inf, -0.0
        return values.reshape(shape)
    return flat.astype(f"uint{np.dtype(dtype).itemsize * 8}").view(dtype).reshape(shape)


def predictors(compression: str, dtype: str) -> tuple[int, ...]:
    if compression == "none":
        return (1,)
    return (1, 3) if dtype.startswith("float") else (1, 2)


def layouts() -> Iterator[dict[str, Any]]:
    yield {}  # tifffile's default strips
    yield {"rowsperstrip": 1}
    yield {"rowsperstrip": 7}  # the last strip is lower
    yield {"rowsperstrip": 1000}
    yield {"tile": (16, 16)}
    yield {"tile": (16, 48)}  # tiles stick out on both sides


def write(
    path: Path | BinaryIO, data: NDArray[Any], order: str, compression: str, predictor: int, **options: Any
) -> None:
    tifffile.imwrite(
        path,
        data,
        byteorder=order,
        compression=COMPRESSIONS[compression],
        predictor=predictor if predictor != 1 else None,
        photometric="minisblack",
        **options,
    )


Tag = tuple[int, int, int, int]  # tag, field type, count, value field


def tiff(pages: Sequence[Sequence[Tag]], data: bytes = b"", links: Sequence[int] | None = None) -> bytes:
    """A classic little-endian TIFF of these directories, one after the other, and ``data`` at the end."""
    sizes = [2 + 12 * len(tags) + 4 for tags in pages]
    starts = [8 + sum(sizes[:i]) for i in range(len(pages))]
    links = links if links is not None else [*starts[1:], 0]
    out = b"II*\0" + struct.pack("<I", 8)
    for tags, link in zip(pages, links, strict=True):
        out += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        out += struct.pack("<I", link)
    return out + data


def page(width: int, height: int, compression: int, offset: int, count: int, **changed: int) -> list[Tag]:
    """The tags of a uint8 page of one strip. ``t258=1`` changes a tag's value, ``t258=-1`` drops it."""
    values = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: offset, 277: 1, 278: height, 279: count}
    values |= {int(tag[1:]): value for tag, value in changed.items()}
    return [(tag, 4, 1, value) for tag, value in sorted(values.items()) if value >= 0]


def one_page(width: int, height: int, compression: int, data: bytes, **changed: int) -> bytes:
    offset = len(tiff([page(width, height, compression, 0, 0, **changed)]))
    return tiff([page(width, height, compression, offset, len(data), **changed)], data)


def real_data() -> Path:
    """The research volumes' folder; skips aloud without it."""
    folder = Path(os.environ.get("VESU_DATA") or Path(__file__).resolve().parents[1].parent / "shared/data")
    if not (folder / "ct").is_dir():
        pytest.skip(f"no research volumes in {folder}: set VESU_DATA")
    return folder
