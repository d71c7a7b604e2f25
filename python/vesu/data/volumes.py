"""Multipage TIFF volumes: read, write, look at the headers. No optional package is needed (R03)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.data.storage import atomic_write
from vesu.errors import ArgumentError, FormatError

__all__ = [
    "DEFAULT_MAX_BYTES",
    "Compression",
    "VolumeInfo",
    "decode_volume",
    "encode_volume",
    "inspect_bytes",
    "inspect_volume",
    "read_volume",
    "write_volume",
]

Compression = Literal["none", "deflate", "lzw", "packbits"]

DEFAULT_MAX_BYTES = 8 * 2**30
"""Largest volume that is decoded unless the caller says otherwise: 8 GiB."""


@dataclass(frozen=True)
class VolumeInfo:
    """What a volume's headers say; no pixel was read.

    Attributes
    ----------
    path : Path or None
        The file; None for bytes in memory.
    shape : tuple of int
        (z, y, x), in voxels; z is the number of pages.
    dtype : str
        NumPy's name, such as ``"uint8"``.
    compression : str
        ``"none"``, ``"lzw"``, ``"deflate"`` or ``"packbits"`` (of the first page); with a decoder of others also
        ``"jpeg"``, ``"jpeg2000"``, ``"lerc"``, ``"lzma"``, ``"zstd"`` or ``"jpegxl"``.
    byte_order : str
        ``"<"`` or ``">"``.
    bigtiff : bool
        64-bit offsets.
    file_bytes : int
        Size of the file.
    predictor : int
        1 none, 2 horizontal differences, 3 floating point (of the first page).
    """

    path: Path | None
    shape: tuple[int, int, int]
    dtype: str
    compression: str
    byte_order: str
    bigtiff: bool
    file_bytes: int
    predictor: int = 1

    @property
    def decoded_bytes(self) -> int:
        """Memory that the decoded volume takes, in bytes."""
        z, y, x = self.shape
        return z * y * x * np.dtype(self.dtype).itemsize


def inspect_volume(path: str | os.PathLike[str]) -> VolumeInfo:
    """Read and check the headers of every page of a TIFF volume.

    Parameters
    ----------
    path : path-like
        A TIFF or BigTIFF file; all pages of one shape and one sample type.

    Returns
    -------
    VolumeInfo
        Shape, sample type, compression and so on.

    Raises
    ------
    FormatError
        Not a TIFF, damaged, or of a kind that :func:`read_volume` does not accept.
    FileError
        The file cannot be opened or read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "1.tif")
    ...     write_volume(file, np.zeros((3, 4, 5), np.uint8))
    ...     info = inspect_volume(file)
    >>> info.shape, info.dtype, info.compression
    ((3, 4, 5), 'uint8', 'deflate')
    """
    try:
        fields = _core.tiff_inspect(_checked(path))
    except FormatError as error:
        fields = _foreign_headers(Path(path), error)
    return _info(fields, Path(path))


def inspect_bytes(data: bytes, *, name: str = "<bytes>") -> VolumeInfo:
    """As :func:`inspect_volume`, for a TIFF in memory.

    Parameters
    ----------
    data : bytes
        A whole TIFF file.
    name : str
        Stands for the path in messages.

    Returns
    -------
    VolumeInfo
        With ``path`` None.

    Raises
    ------
    FormatError
        As :func:`inspect_volume`.

    Examples
    --------
    >>> inspect_bytes(encode_volume(np.zeros((3, 4, 5), np.uint8), "lzw")).compression
    'lzw'
    """
    return _info(_core.tiff_inspect_bytes(_checked_bytes(data), name), None)


def read_volume(
    path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES, n_threads: int | None = None
) -> NDArray[Any]:
    """Decode a TIFF volume.

    Accepted: TIFF and BigTIFF in either byte order; strips or tiles; uncompressed, LZW, Deflate, PackBits; predictors 2
    and 3; one sample a pixel of uint8, int8, uint16, int16, uint32, int32, float32 or float64. Other compressions
    (JPEG, JPEG 2000, LERC, LZMA, Zstandard, JPEG XL) need tifffile and imagecodecs, installed or in a wheelhouse.

    Parameters
    ----------
    path : path-like
        The file. One page is one z slice.
    max_bytes : int
        Refuse volumes whose voxels take more memory than this (bytes), before any is taken.
    n_threads : int, optional
        Threads to decode on; None: ``VESU_NUM_THREADS``, else all cores. The result does not depend on it.

    Returns
    -------
    ndarray, shape (z, y, x)
        C-contiguous, native byte order.

    Raises
    ------
    FormatError
        Not a TIFF, truncated, damaged, hostile, or of an unaccepted kind; the message names the file and the page. Of a
        compression for which no decoder can be had: the message lists every path and wheel that was tried, and why.
    MemoryLimitError
        More than ``max_bytes``.
    FileError
        The file cannot be opened or read.

    Notes
    -----
    R03. Headers are checked whole before anything is allocated: a page that claims more pixels than its compressed
    bytes could ever hold is refused at once, and no strip or tile writes beyond its declared size. Deflate's checksum
    is verified; flipped bits in pixels packed otherwise carry no checksum and cannot all be seen.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "1.tif")
    ...     write_volume(file, volume, compression="lzw")
    ...     bool((read_volume(file) == volume).all())
    True
    """
    try:
        return _core.tiff_read(_checked(path), _checked_limit(max_bytes), n_threads)
    except FormatError as error:
        return _foreign_read(Path(path), max_bytes, n_threads, error)


def decode_volume(
    data: bytes, *, name: str = "<bytes>", max_bytes: int = DEFAULT_MAX_BYTES, n_threads: int | None = None
) -> NDArray[Any]:
    """As :func:`read_volume`, for a TIFF in memory (a zip's member, say).

    Parameters
    ----------
    data : bytes
        A whole TIFF file.
    name : str
        Stands for the path in messages.
    max_bytes : int
        Refuse volumes whose voxels take more memory than this (bytes).
    n_threads : int, optional
        Threads to decode on.

    Returns
    -------
    ndarray, shape (z, y, x)
        C-contiguous, native byte order.

    Raises
    ------
    FormatError, MemoryLimitError
        As :func:`read_volume`.

    Examples
    --------
    >>> decode_volume(encode_volume(np.ones((1, 2, 2), np.uint8), "packbits")).tolist()
    [[[1, 1], [1, 1]]]
    """
    return _core.tiff_read_bytes(_checked_bytes(data), name, _checked_limit(max_bytes), n_threads)


def encode_volume(volume: NDArray[Any], compression: Compression = "deflate", *, n_threads: int | None = None) -> bytes:
    """A volume as the bytes of a multipage TIFF file.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)
        uint8, int8, uint16, int16, uint32, int32, float32 or float64, either byte order, any memory layout.
    compression : {"deflate", "lzw", "packbits", "none"}
        How the strips are packed.
    n_threads : int, optional
        Threads to pack on; the bytes do not depend on it.

    Returns
    -------
    bytes
        A TIFF, or a BigTIFF where the file could pass 4 GiB; in the machine's byte order.

    Raises
    ------
    ArgumentError
        Not 3-D, an axis of length 0, another dtype, an unknown compression.

    Notes
    -----
    R04. The same volume gives the same bytes on every run and any number of threads.

    Examples
    --------
    >>> encode_volume(np.zeros((1, 2, 2), np.uint8), "none")[:2] in (b"II", b"MM")
    True
    """
    return _core.tiff_encode(_native(volume), compression, n_threads)


def write_volume(
    path: str | os.PathLike[str],
    volume: NDArray[Any],
    *,
    compression: Compression = "deflate",
    n_threads: int | None = None,
) -> None:
    """Write a volume as a multipage TIFF file, whole or not at all.

    Parameters
    ----------
    path : path-like
        The final name; see :func:`vesu.data.storage.atomic_write`.
    volume, compression, n_threads
        As :func:`encode_volume`.

    Raises
    ------
    ArgumentError
        As :func:`encode_volume`.
    FileError
        The operating system refused a step; nothing half-written stands under ``path``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_volume(pathlib.Path(folder, "1.tif"), np.zeros((3, 4, 5), np.float32))
    ...     sorted(file.name for file in pathlib.Path(folder).iterdir())
    ['1.tif']
    """
    native = _native(volume)
    with atomic_write(_checked(path)) as file:
        _core.tiff_write(file.name, native, compression, n_threads)


def _foreign_headers(path: Path, refusal: FormatError) -> dict[str, Any]:
    """The headers of a file that the core refused; the refusal itself unless its compression is why."""
    from vesu.data import foreign  # loads when such a file is met

    if (compression := foreign.compression_of(path)) is None:
        raise refusal
    return foreign.headers(path, compression)


def _foreign_read(path: Path, max_bytes: int, n_threads: int | None, refusal: FormatError) -> NDArray[Any]:
    """As :func:`_foreign_headers`, for the voxels."""
    from vesu.data import foreign

    if (compression := foreign.compression_of(path)) is None:
        raise refusal
    return foreign.read(path, compression, int(max_bytes), n_threads)


def _native(volume: Any) -> Any:
    """The array in the machine's byte order; everything else is the binding's to check."""
    if isinstance(volume, np.ndarray) and not volume.dtype.isnative:
        return volume.astype(volume.dtype.newbyteorder("="))
    return volume


def _checked(path: Any) -> str:
    try:
        text = os.fspath(path)
    except TypeError:
        raise ArgumentError(f"path: got {type(path).__name__}; accepted: a str or a path-like object") from None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(f"path: got {text!r}; accepted: a str or a path-like object, not empty, without NUL")
    return text


def _checked_bytes(data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ArgumentError(f"data: got {type(data).__name__}; accepted: bytes")
    return bytes(data)


def _checked_limit(max_bytes: Any) -> int:
    if not isinstance(max_bytes, int | np.integer) or isinstance(max_bytes, bool) or not 0 < max_bytes < 2**63:
        raise ArgumentError(f"max_bytes: got {max_bytes!r}; accepted: an int from 1 to 2**63 - 1")
    return int(max_bytes)


def _info(fields: dict[str, Any], path: Path | None) -> VolumeInfo:
    shape = cast(tuple[int, int, int], tuple(fields["shape"]))
    return VolumeInfo(**{**fields, "path": path, "shape": shape})
