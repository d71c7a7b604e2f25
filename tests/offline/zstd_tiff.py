"""Volumes as TIFF with Zstandard pages: a compression that vesu does not decode itself, written with nothing but NumPy.

A Zstandard frame may hold its bytes as they are ("raw blocks", RFC 8878), which any decoder must read: so no compressor
is needed to make such a file.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ZSTD = 50000
"""The TIFF tag's value, as libtiff registers it."""

_SHORT, _LONG = 3, 4
_SHORT_TAGS = (258, 259, 262, 277)

_RAW_BLOCK = 1 << 17  # a block holds at most 128 KiB


def zstd_frame(data: bytes) -> bytes:
    """`data` as one Zstandard frame of raw blocks."""
    # Frame header: magic; descriptor: 4 bytes of content size, single segment (so no window is given), no checksum.
    frame = [struct.pack("<IBI", 0xFD2FB528, 0b10100000, len(data))]
    starts = range(0, max(len(data), 1), _RAW_BLOCK)
    for start in starts:
        piece = data[start : start + _RAW_BLOCK]
        header = len(piece) << 3 | (start == starts[-1])  # type 0: raw; the lowest bit marks the last block
        frame += [header.to_bytes(3, "little"), piece]
    return b"".join(frame)


def encode(volume: NDArray[Any]) -> bytes:
    """A (z, y, x) uint8 volume as a little-endian multipage TIFF, one Zstandard strip a page."""
    if volume.dtype != np.uint8 or volume.ndim != 3:
        raise ValueError(f"volume: got {volume.dtype}, {volume.ndim} axes; accepted: uint8, 3 axes")
    pages, height, width = volume.shape
    file = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for page in range(pages):
        strip = zstd_frame(volume[page].tobytes())
        padding = b"\0" * (len(strip) % 2)  # directories begin at even offsets
        tags = (
            (256, width),
            (257, height),
            (258, 8),
            (259, ZSTD),
            (262, 1),
            (273, 0),
            (277, 1),
            (278, height),
            (279, 0),
        )
        directory = 2 + 12 * len(tags) + 4
        start = len(file) + directory
        values = dict(tags) | {273: start, 279: len(strip)}
        file += struct.pack("<H", len(tags))
        for tag, value in values.items():
            file += struct.pack("<HHII", tag, _SHORT if tag in _SHORT_TAGS else _LONG, 1, value)
        following = 0 if page == pages - 1 else start + len(strip) + len(padding)
        file += struct.pack("<I", following) + strip + padding
    return bytes(file)


def rewrite_dataset(source: Path, target: Path) -> Path:
    """The data set in `source` again, its volumes and labels packed with Zstandard."""
    from vesu import read_volume

    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(encode(read_volume(file)) if file.suffix == ".tif" else file.read_bytes())
    return target
