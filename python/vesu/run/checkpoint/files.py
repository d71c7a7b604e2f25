"""A checkpoint as a folder of files: written whole, read only where every digest holds."""

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from vesu.data.storage import atomic_folder, make_folder, new_file, remove_tree_atomic
from vesu.errors import ArgumentError, FileError, FormatError, VesuError
from vesu.run.checkpoint.manifest import MANIFEST, MAX_BYTES, Manifest, Part

__all__ = [
    "Checkpoint",
    "folder_name",
    "import_checkpoint",
    "is_damage",
    "load_checkpoint",
    "read_manifest",
    "sequence_of",
    "write_checkpoint",
]

_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EAGAIN})
"""What a sound checkpoint is refused with in a process out of descriptors, or to a user without permission."""
_FOLDER = re.compile(r"ckpt-([0-9]{8,12})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every part held its digest when it was loaded; see :class:`CheckpointStore`."""

    path: Path
    """Its folder."""
    manifest: Manifest

    def read(self, part: str) -> bytes:
        """One part's bytes, verified once more.

        Raises
        ------
        ArgumentError
            The manifest names no such part.
        FileError
            The file cannot be read.
        FormatError
            Its bytes are not those that were saved.
        """
        record = self.manifest.parts.get(part)
        if record is None:
            raise ArgumentError(f"part: got {part!r}; accepted: one of {sorted(self.manifest.parts)} ({self.path})")
        with _opened(self.path / part) as file:
            data = file.read(record.n_bytes + 1)
        _check(self.path / part, Part.of(data), record)
        return data


def folder_name(sequence: int) -> str:
    """Folder of the checkpoint of this number.

    Examples
    --------
    >>> folder_name(12), sequence_of("ckpt-00000012"), sequence_of("ckpt-12")
    ('ckpt-00000012', 12, None)
    """
    if not 0 <= sequence < 10**12:
        raise ArgumentError(f"sequence: got {sequence}; accepted: 0 to 10**12 - 1")
    return f"ckpt-{sequence:08d}"


def sequence_of(name: str) -> int | None:
    """The number in a checkpoint folder's name; None for any other name."""
    match = _FOLDER.fullmatch(name)
    return int(match[1]) if match is not None and f"ckpt-{int(match[1]):08d}" == name else None


def write_checkpoint(path: Path, manifest: Manifest, read: Callable[[str], bytes]) -> Checkpoint:
    """Make the folder, whole and durable; ``read`` gives each part's bytes.

    Raises
    ------
    FileError
        The operating system refused a step, or something stands under the name.
    FormatError
        ``read`` gave other bytes than the manifest says.
    """
    with atomic_folder(path) as folder:
        for name, record in manifest.parts.items():
            data = read(name)
            _check(path / name, Part.of(data), record)
            with new_file(folder / name) as file:
                file.write(data)
        with new_file(folder / MANIFEST) as file:
            file.write(manifest.encode())
    return Checkpoint(path, manifest)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint's folder and verify its manifest and every part.

    Raises
    ------
    FileError
        A file is missing or cannot be read.
    FormatError
        A file's content is not what was saved, or the folder's name carries another number than its manifest.

    Examples
    --------
    >>> load_checkpoint("no/such/ckpt-00000001")
    Traceback (most recent call last):
    ...
    vesu.errors.FileError: [Errno 2] No such file or directory: 'no/such/ckpt-00000001/ckpt_manifest.json'
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, record in manifest.parts.items():
        with _opened(folder / name) as file:
            size = os.fstat(file.fileno()).st_size
            # The digest of a file of another size is not worth its time.
            sha512 = hashlib.file_digest(file, "sha512").hexdigest() if size == record.n_bytes else ""
        _check(folder / name, Part(size, sha512), record)
    return Checkpoint(folder, manifest)


def import_checkpoint(manifest: Manifest, read: Callable[[str], bytes], into: Path) -> Path:
    """Copy a checkpoint into a store's folder under its own number; the copy's folder. ``read`` gives each part.

    The same checkpoint there is left as it is, a damaged one under its number is replaced.

    Raises
    ------
    FileError
        The operating system refused a step, or another sound checkpoint has the number.
    FormatError
        The checkpoint is not what was saved.
    """
    target = into / folder_name(manifest.sequence)
    if target.exists():
        try:
            present = load_checkpoint(target)
        except VesuError as error:
            if not is_damage(error):
                raise
            remove_tree_atomic(target)
        else:
            if present.manifest == manifest:
                return target
            raise FileError(errno.EEXIST, "another checkpoint has this number", str(target))
    make_folder(into)
    return write_checkpoint(target, manifest, read).path


def is_damage(error: VesuError) -> bool:
    """Whether a load failed by the checkpoint's own fault, so that an older one may stand in for it.

    Examples
    --------
    >>> is_damage(FileError(errno.ENOENT, "No such file")), is_damage(FileError(errno.EMFILE, "Too many open files"))
    (True, False)
    """
    return isinstance(error, FormatError) or (isinstance(error, FileError) and error.errno not in _NOT_ITS_FAULT)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, verified; the parts may be anything. Raises as :func:`load_checkpoint`."""
    with _opened(folder / MANIFEST) as file:
        manifest = Manifest.decode(file.read(MAX_BYTES + 1), str(folder / MANIFEST))
    number = sequence_of(folder.name)
    if number is not None and number != manifest.sequence:
        raise FormatError(f"{folder}: holds checkpoint {manifest.sequence}; accepted: that of its name")
    return manifest


def _check(path: Path, got: Part, record: Part) -> None:
    if got.n_bytes != record.n_bytes:
        raise FormatError(f"{path}: {got.n_bytes} bytes or more; accepted: the {record.n_bytes} that were saved")
    if got != record:
        raise FormatError(f"{path}: its content does not match its sha512")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file to read; a named pipe, say, would keep the caller waiting."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FormatError(f"{path}: not a regular file")
            yield file
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
