"""results.zip: a run's checkpoints and JSON evidence in one file, and the way back out of it (R36, R37)."""

import contextlib
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from vesu.data.storage import atomic_write
from vesu.errors import FileError, FormatError, VesuError
from vesu.run.checkpoint.events import Emit, teller
from vesu.run.checkpoint.files import folder_name, import_checkpoint, sequence_of
from vesu.run.checkpoint.manifest import MANIFEST, MAX_BYTES, Manifest

__all__ = ["CHECKPOINTS", "fetch_from_zip", "write_results_zip"]

CHECKPOINTS = "checkpoints"
"""The store's folder inside a run's output folder, and in the archive."""

_EVIDENCE = (".json", ".jsonl")
_LARGE = 1 << 31
_MANIFEST_MEMBER = re.compile(rf"(?:.*/)?(ckpt-[0-9]+)/{re.escape(MANIFEST)}")
# What `zipfile` raises on damaged archives, beside OSError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def write_results_zip(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Pack a run folder's checkpoints and the JSON files beside them; the archive is there whole or not at all.

    Parameters
    ----------
    path : path-like
        The archive, ``results.zip`` by custom; one of that name is replaced.
    folder : path-like
        The run's output folder. Taken are ``checkpoints/`` and, at its top, ``*.json`` and ``*.jsonl``.

    Raises
    ------
    FileError
        The operating system refused a step.

    Notes
    -----
    R36. Names are in order and times fixed: the same files give the same bytes.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "summary.json").write_text("{}")
    ...     write_results_zip(pathlib.Path(folder, "results.zip"), folder)
    ...     zipfile.ZipFile(pathlib.Path(folder, "results.zip")).namelist()
    ['summary.json']
    """
    root = Path(folder)
    # Level 1: a log shrinks to a fifth at any level. Arrays of coefficients hardly shrink at all: they are stored.
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for source in _sources(root):
            name, size = source.relative_to(root).as_posix(), source.stat().st_size
            packed = source.suffix in _EVIDENCE
            # What is named by a text takes the archive's compression; both have the earliest time a zip can say, so
            # that the same files give the same bytes whenever they are packed.
            info = name if packed else zipfile.ZipInfo(name)
            with source.open("rb") as opened, archive.open(info, "w", force_zip64=size >= _LARGE) as member:
                shutil.copyfileobj(opened, member, 1 << 20)
            archive.getinfo(name).external_attr = 0o644 << 16


def fetch_from_zip(path: Path, into: Path, emit: Emit | None = None) -> Path | None:
    """Unpack the newest checkpoint that verifies into a store's folder; None where the archive holds none.

    Each damaged one is an event ``CHECKPOINT_REFUSED``. Nothing in the archive decides a file's place: members are
    read by the names that a verified manifest gives.

    Raises
    ------
    FileError
        The archive cannot be read, or the checkpoint not be written.
    FormatError
        Not a zip; or there are checkpoints, and none verifies.
    """
    tell = teller(emit)
    refused: FormatError | None = None
    with _archive(path) as archive:
        members = [match for match in map(_MANIFEST_MEMBER.fullmatch, archive.namelist()) if match is not None]
        for match in sorted(members, key=lambda match: -(sequence_of(match[1]) or 0)):
            base = match[0].removesuffix(MANIFEST)
            try:
                manifest = Manifest.decode(_read(archive, match[0], MAX_BYTES), f"{path}: {match[0]}")
                if folder_name(manifest.sequence) != match[1]:
                    raise FormatError(f"{path}: {base}: holds checkpoint {manifest.sequence}")
                return _unpack(archive, base, manifest, into)
            except FormatError as error:
                refused = error
                tell("CHECKPOINT_REFUSED", path=f"{path}: {base}", reason=str(error))
    if refused is not None:
        raise refused
    return None


def _unpack(archive: zipfile.ZipFile, base: str, manifest: Manifest, into: Path) -> Path:
    def read(part: str) -> bytes:
        return _read(archive, base + part, manifest.parts[part].n_bytes)

    return import_checkpoint(manifest, read, into)


def _sources(root: Path) -> list[Path]:
    evidence = [path for path in root.iterdir() if path.suffix in _EVIDENCE]
    checkpoints = [
        path
        for folder in (root / CHECKPOINTS).glob("ckpt-*")
        if sequence_of(folder.name) is not None
        for path in folder.iterdir()
    ]
    return sorted(path for path in (*evidence, *checkpoints) if path.is_file() and not path.is_symlink())


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with path.open("rb") as file, _damage_named(str(path)), zipfile.ZipFile(file) as archive:
            yield archive
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error


def _read(archive: zipfile.ZipFile, member: str, limit: int) -> bytes:
    """One member, never more than one byte beyond the limit."""
    name = f"{archive.filename or 'results.zip'}: {member}"
    with _damage_named(name), archive.open(member) as file:
        return file.read(limit + 1)


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """`zipfile`'s many ways to say "damaged" as one error."""
    try:
        yield
    except VesuError:
        raise
    except KeyError as error:
        raise FormatError(f"{name}: not in the archive") from error
    except _DAMAGE as error:
        raise FormatError(f"{name}: damaged or truncated zip: {error}") from error
