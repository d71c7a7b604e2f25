"""The submission: a zip of 3-D masks, written so that it is valid or not there at all (R04, R05)."""

import contextlib
import errno
import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vesu.data.discover import VOLUME_ID
from vesu.data.storage import atomic_write
from vesu.data.volumes import (
    DEFAULT_MAX_BYTES,
    decode_volume,
    encode_volume,
    inspect_bytes,
    inspect_volume,
)
from vesu.errors import ArgumentError, FileError, FormatError, MemoryLimitError, SubmissionError, VesuError
from vesu.notebook import counted, table

__all__ = ["MemberReport", "SubmissionReport", "check_submission", "write_submission"]

Shape = tuple[int, int, int]

_MEMBER = re.compile(rf"({VOLUME_ID.pattern})\.tif")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same bytes whenever it is written
_ZIP_LEVEL = 6
_DEFLATE_MOST = 1032  # no Deflate stream expands further
_ENCRYPTED = 0x1
_MASK_ACCEPTED = "a 3-D numpy array (z, y, x) of uint8 with values 0 and 1"
# What `zipfile` raises on damaged archives, beside OSError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class MemberReport:
    """One checked mask of a submission.

    Attributes
    ----------
    name : str
        The member, ``ID.tif``.
    volume_id : str
        ``ID``.
    shape : tuple of int
        (z, y, x), in voxels.
    ink_ratio : float
        Share of voxels that are 1.
    sha256 : str
        Of the TIFF's bytes.
    """

    name: str
    volume_id: str
    shape: Shape
    ink_ratio: float
    sha256: str


@dataclass(frozen=True)
class SubmissionReport:
    """A checked submission.

    Attributes
    ----------
    path : Path
        The zip.
    members : tuple of MemberReport
        In the archive's order.
    sha256 : str
        Of the zip's bytes.
    n_bytes : int
        Size of the zip.
    """

    path: Path
    members: tuple[MemberReport, ...]
    sha256: str
    n_bytes: int

    def _repr_html_(self) -> str:
        rows = [(each.name, " x ".join(map(str, each.shape)), f"{each.ink_ratio:.2%}") for each in self.members]
        title, columns = f"Valid submission of {counted(len(rows), 'mask')}", ["member", "shape (z, y, x)", "surface"]
        return table(title, columns, rows, notes=[f"{self.path}, {self.n_bytes:,} bytes", f"sha256 {self.sha256}"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "path": str(self.path), "members": [asdict(member) for member in self.members]}


def write_submission(
    path: str | os.PathLike[str],
    masks: Iterable[tuple[str, NDArray[np.uint8]]],
    *,
    expected: Mapping[str, Shape],
    n_threads: int | None = None,
) -> SubmissionReport:
    """Write, read back and only then publish ``submission.zip``.

    Parameters
    ----------
    path : path-like
        The final name of the zip.
    masks : iterable of (str, ndarray of shape (z, y, x))
        Volume id and uint8 mask of 0 and 1, in ascending order of the ids. Taken one at a time: a generator keeps
        one mask in memory.
    expected : mapping of str to (z, y, x)
        Every test volume and its shape, in voxels.
    n_threads : int, optional
        Threads to encode and decode on; the bytes do not depend on it.

    Returns
    -------
    SubmissionReport
        What reading the finished archive back found.

    Raises
    ------
    SubmissionError
        A mask that is not 3-D, not uint8, not of 0 and 1, or of another shape than its volume; a volume that is
        missing, unknown, or out of order. Nothing stands under ``path`` that did not stand there before.
    ArgumentError
        ``expected`` is empty or holds an unusable id or shape.
    FileError
        The operating system refused a step.

    Notes
    -----
    R04, R05. Members are PackBits TIFFs inside ``ZIP_DEFLATED``: of none, PackBits, LZW and Deflate that pair gave the
    smallest archive in the least time on a competitor's mask, and unlike LZW any TIFF reader decodes it without a
    further package. Times and attributes are fixed, so the same masks give the same bytes (with the same zlib).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> mask = np.zeros((2, 3, 4), np.uint8)
    >>> mask[0, 0] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "submission.zip")
    ...     report = write_submission(file, [("7", mask)], expected={"7": (2, 3, 4)})
    >>> report.members[0].name, round(report.members[0].ink_ratio, 3)
    ('7.tif', 0.167)
    """
    shapes = _checked_expected(expected)
    with atomic_write(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_ZIP_LEVEL) as archive:
            for volume_id, mask in _checked_masks(masks, shapes):
                data = encode_volume(mask, "packbits", n_threads=n_threads)
                archive.writestr(_member_info(volume_id), data)
        return _check_archive(file, Path(path), shapes, n_threads)


def check_submission(
    path: str | os.PathLike[str],
    expected: Mapping[str, Shape] | str | os.PathLike[str] | None = None,
    *,
    n_threads: int | None = None,
) -> SubmissionReport:
    """Decode every member of a submission and refuse whatever the competition would.

    Parameters
    ----------
    path : path-like
        The zip.
    expected : mapping of str to (z, y, x), or path-like, optional
        Every test volume's shape in voxels, or the folder of test images (``ID.tif``). Without it, missing and extra
        members and wrong shapes cannot be seen.
    n_threads : int, optional
        Threads to decode on.

    Returns
    -------
    SubmissionReport
        The members' shapes, densities and digests.

    Raises
    ------
    SubmissionError
        Not a zip, truncated, damaged, encrypted; a member nested in a folder, twice there, missing, extra, not named
        ``ID.tif``, not a TIFF, 2-D, not uint8, with values other than 0 and 1, of a wrong shape, or declaring a size
        that no honest mask has. The message names the member.
    ArgumentError
        ``expected`` is unusable.
    FileError
        A file cannot be opened or read.

    Notes
    -----
    R04, R05. Members may be deflated or stored; other methods are refused. One member is in memory at a time.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "submission.zip")
    ...     _ = write_submission(file, [("7", np.ones((2, 3, 4), np.uint8))], expected={"7": (2, 3, 4)})
    ...     check_submission(file, {"7": (2, 3, 5)})
    Traceback (most recent call last):
    vesu.errors.SubmissionError: 7.tif: got shape (2, 3, 4); accepted: (2, 3, 5), the shape of its volume
    """
    shapes = _expected_shapes(expected)
    final = Path(path)
    try:
        if final.exists() and not final.is_file() and not final.is_dir():
            raise SubmissionError(f"{final}: not a regular file")
        with final.open("rb") as file:
            return _check_archive(file, final, shapes, n_threads)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(final)) from error


def _expected_shapes(expected: Any) -> dict[str, Shape] | None:
    if expected is None:
        return None
    if isinstance(expected, Mapping):
        return _checked_expected(expected)
    try:
        folder = Path(expected)
    except TypeError:
        accepted = "a mapping of ids to shapes, a folder of test images, or None"
        raise ArgumentError(f"expected: got {type(expected).__name__}; accepted: {accepted}") from None
    if not folder.is_dir():
        raise ArgumentError(f"expected: got {str(folder)!r}, which is not a folder; accepted: a folder of ID.tif")
    return _checked_expected({file.stem: inspect_volume(file).shape for file in sorted(folder.glob("*.tif"))})


def _checked_expected(expected: Mapping[str, Shape]) -> dict[str, Shape]:
    if not expected:
        raise ArgumentError("expected: got no volume; accepted: at least one test volume and its shape")
    shapes = {}
    for volume_id, shape in expected.items():
        if not isinstance(volume_id, str) or not VOLUME_ID.fullmatch(volume_id):
            raise ArgumentError(f"expected: got the id {volume_id!r}; accepted: letters, digits, '_', '-', '.'")
        axes = tuple(shape)
        if len(axes) != 3 or not all(isinstance(axis, int | np.integer) and axis > 0 for axis in axes):
            raise ArgumentError(f"expected: got shape {shape!r} of {volume_id}; accepted: three positive integers")
        shapes[volume_id] = (int(axes[0]), int(axes[1]), int(axes[2]))
    return shapes


def _checked_masks(
    masks: Iterable[tuple[str, NDArray[np.uint8]]], shapes: dict[str, Shape]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The masks as they come; each is checked before it is handed on, and at the end all were there."""
    previous: str | None = None
    count = 0
    for volume_id, mask in masks:
        if volume_id not in shapes:
            raise SubmissionError(f"{volume_id}.tif: an extra member; accepted: {_some(shapes)}")
        if previous is not None and volume_id <= previous:
            raise SubmissionError(f"{volume_id}.tif: got it after {previous}.tif; accepted: ascending ids, each once")
        _check_mask(f"{volume_id}.tif", mask, shapes[volume_id])
        yield volume_id, mask
        previous = volume_id
        count += 1
    if count < len(shapes):
        raise SubmissionError(f"missing members: got {count} masks; accepted: exactly {_some(shapes)}")


def _check_mask(name: str, mask: Any, shape: Shape | None) -> None:
    if not isinstance(mask, np.ndarray):
        raise SubmissionError(f"{name}: got {type(mask).__name__}; accepted: {_MASK_ACCEPTED}")
    if mask.ndim != 3 or mask.dtype != np.uint8:
        got = f"a {mask.ndim}-D array of {mask.dtype}, shape {mask.shape}"
        raise SubmissionError(f"{name}: got {got}; accepted: {_MASK_ACCEPTED}")
    if shape is not None and mask.shape != shape:
        raise SubmissionError(f"{name}: got shape {mask.shape}; accepted: {shape}, the shape of its volume")
    if mask.size and (highest := int(mask.max())) > 1:
        raise SubmissionError(f"{name}: got values up to {highest}; accepted: 0 and 1")


def _member_info(volume_id: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{volume_id}.tif", _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = 0o644 << 16
    return info


def _check_archive(
    file: BinaryIO, path: Path, shapes: dict[str, Shape] | None, n_threads: int | None
) -> SubmissionReport:
    n_bytes = file.seek(0, os.SEEK_END)
    with _damage_named(str(path)), zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        ids = _check_names(path, infos, shapes, n_bytes)
        members = tuple(
            _check_member(archive, info, volume_id, shapes[volume_id] if shapes else None, n_threads)
            for info, volume_id in zip(infos, ids, strict=True)
        )
    return SubmissionReport(path, members, _sha256(file), n_bytes)


def _check_names(path: Path, infos: list[zipfile.ZipInfo], shapes: dict[str, Shape] | None, n_bytes: int) -> list[str]:
    """The volume ids of the members; everything that the table of contents tells is checked here."""
    if not infos:
        raise SubmissionError(f"{path}: an empty archive; accepted: one ID.tif per test volume")
    ids: dict[str, None] = {}  # an ordered set
    for info in infos:
        # `orig_filename` is what the archive says; `filename` is cut at NUL.
        name = info.orig_filename
        if "/" in name or "\\" in name:
            raise SubmissionError(f"{name}: a member in a folder; accepted: ID.tif at the root")
        match = _MEMBER.fullmatch(name)
        if match is None:
            raise SubmissionError(f"{name!r}: an extra member; accepted: ID.tif")
        if match[1] in ids:
            raise SubmissionError(f"{name}: twice in the archive; accepted: each member once")
        if shapes is not None and match[1] not in shapes:
            raise SubmissionError(f"{name}: an extra member; accepted: {_some(shapes)}")
        ids[match[1]] = None
        _check_sizes(info, shapes[match[1]] if shapes else None)
    missing = sorted(set(shapes or ()) - set(ids))
    if missing:
        raise SubmissionError(f"{path}: missing members: {_some(missing)}")
    if sum(info.compress_size for info in infos) > n_bytes:
        raise SubmissionError(f"{path}: members lie over each other (a zip bomb?)")
    return list(ids)


def _check_sizes(info: zipfile.ZipInfo, shape: Shape | None) -> None:
    """Refuse by what the header declares, before anything is unpacked."""
    name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        raise SubmissionError(f"{name}: encrypted; accepted: deflated or stored members")
    if info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        raise SubmissionError(f"{name}: compression method {info.compress_type}; accepted: deflated (8), stored (0)")
    limit = DEFAULT_MAX_BYTES
    if shape is not None:
        # Room for the widest sample type and for headers, so that a wrong type is named as such.
        limit = min(limit, 16 * shape[0] * shape[1] * shape[2] + 1024 * shape[0] + 2**20)
    if info.file_size > min(limit, _DEFLATE_MOST * info.compress_size + 1024):
        got = f"{info.file_size} bytes from {info.compress_size}"
        raise SubmissionError(f"{name}: declares {got} (a zip bomb?); accepted: at most {limit} bytes")


def _check_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, volume_id: str, shape: Shape | None, n_threads: int | None
) -> MemberReport:
    name = info.orig_filename
    with _damage_named(name):
        data = archive.read(info)
    try:
        header = inspect_bytes(data, name=name)
        if header.shape[0] == 1 and (shape is None or shape[0] != 1):
            raise SubmissionError(f"{name}: a 2-D image of shape {header.shape[1:]}; accepted: {_MASK_ACCEPTED}")
        if header.dtype != "uint8":
            raise SubmissionError(f"{name}: got dtype {header.dtype}; accepted: {_MASK_ACCEPTED}")
        if shape is not None and header.shape != shape:
            raise SubmissionError(f"{name}: got shape {header.shape}; accepted: {shape}, the shape of its volume")
        mask = decode_volume(data, name=name, n_threads=n_threads)
    except (FormatError, MemoryLimitError) as error:
        raise SubmissionError(str(error)) from error
    _check_mask(name, mask, shape)
    ink_ratio = int(np.count_nonzero(mask)) / mask.size
    return MemberReport(name, volume_id, header.shape, ink_ratio, hashlib.sha256(data).hexdigest())


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """`zipfile`'s many ways to say "damaged" as one error that names the archive or the member."""
    try:
        yield
    except VesuError:
        raise
    except (*_DAMAGE, OSError) as error:
        # A seek to a nonsensical offset is the archive's fault; any other refusal is the system's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise SubmissionError(f"{name}: damaged or truncated zip: {error}") from error


def _some(names: Iterable[str]) -> str:
    """A few names for a message."""
    ordered = sorted(names)
    shown = ", ".join(f"{name}.tif" for name in ordered[:5])
    return shown if len(ordered) <= 5 else f"{shown} and {len(ordered) - 5} more"
