"""Files and folders that are there whole or not at all: the one place that opens surviving files for writing."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from vesu.errors import ArgumentError, FileError, VesuError

__all__ = [
    "atomic_folder",
    "atomic_write",
    "make_folder",
    "new_file",
    "remove_abandoned",
    "remove_tree_atomic",
    "write_bytes_atomic",
    "write_json_atomic",
]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside ``path`` and give it its name only when it is complete and on disk.

    Parameters
    ----------
    path : path-like
        The final name. Its folder must exist; a file of that name is replaced, or left as it was on any failure.

    Yields
    ------
    file : binary file
        Open for writing and reading; ``file.name`` is the temporary file's path.

    Raises
    ------
    FileError
        The operating system refused a step (disk full, no permission, no such folder); ``errno`` and ``filename``
        (the final name) are set.

    Notes
    -----
    Temporary file in the same folder, write, fsync, rename, fsync of the folder: after a crash the name stands for the
    old bytes or the new ones. If the body raises, the temporary file is removed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder, "a.bin")
    ...     with atomic_write(target) as file:
    ...         _ = file.write(b"whole")
    ...         before = target.exists()
    ...     before, target.read_bytes()
    (False, b'whole')
    """
    final = Path(path)
    if not final.name:
        raise FileError(errno.EISDIR, "Is a directory", str(path))
    temporary = _beside(final)
    try:
        with _opened(temporary, "r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        _sync(final.parent)
    except OSError as error:
        if isinstance(error, VesuError) and not _is_about(error, temporary):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(final)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` as the whole content of ``path``; see :func:`atomic_write`.

    Parameters
    ----------
    path : path-like
        The final name.
    data : bytes
        The content.

    Raises
    ------
    FileError
        The operating system refused a step.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes_atomic(pathlib.Path(folder, "a.txt"), b"1")
    ...     pathlib.Path(folder, "a.txt").read_bytes()
    b'1'
    """
    with atomic_write(path) as file:
        file.write(data)


def write_json_atomic(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as JSON (UTF-8, sorted keys, indented by 2); see :func:`atomic_write`.

    Parameters
    ----------
    path : path-like
        The final name.
    obj : object
        Dicts with string keys, lists, tuples, strings, finite numbers, booleans, None.

    Raises
    ------
    ArgumentError
        ``obj`` holds something else, NaN and infinities included; nothing is written.
    FileError
        The operating system refused a step.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json_atomic(pathlib.Path(folder, "a.json"), {"b": 1, "a": [True]})
    ...     print(pathlib.Path(folder, "a.json").read_text(), end="")
    {
      "a": [
        true
      ],
      "b": 1
    }
    """
    try:
        text = json.dumps(obj, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
        # A name that is no UTF-8 holds lone surrogates: they stay as JSON's own escapes.
        data = f"{text}\n".encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"obj: got {error}; accepted: finite JSON values") from error
    write_bytes_atomic(path, data)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Fill a folder under a temporary name beside ``path`` and give it its name only when it is complete and on disk.

    Parameters
    ----------
    path : path-like
        The final name. The folder around it must exist, and nothing may stand under the name.
    durable : bool
        False leaves out every fsync: for what may be lost in a power cut and is verified when read (a cache).

    Yields
    ------
    folder : Path
        Under its temporary name; the body makes files in it with :func:`new_file`.

    Raises
    ------
    FileError
        The operating system refused a step, or something stands under the name; ``filename`` is the final name.

    Notes
    -----
    R36. Every file is fsynced, then every folder, then comes the rename and the fsync of the folder around: after a
    crash the whole folder is there or none. If the body raises, the temporary folder is removed; what a killed process
    left behind goes with :func:`remove_abandoned`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as around:
    ...     target = pathlib.Path(around, "state")
    ...     with atomic_folder(target) as folder:
    ...         with new_file(folder / "a.bin") as file:
    ...             _ = file.write(b"whole")
    ...         before = target.exists()
    ...     before, (target / "a.bin").read_bytes()
    (False, b'whole')
    """
    final = Path(path)
    temporary = _beside(final)
    try:
        if os.path.lexists(final):
            raise FileError(errno.EEXIST, "File exists", str(final))
        temporary.mkdir()
        yield temporary
        if durable:
            _sync_tree(temporary)
        temporary.rename(final)
        if durable:
            _sync(final.parent)
    except OSError as error:
        if isinstance(error, VesuError) and not _is_about(error, temporary):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(final)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that must not exist yet, in a folder of :func:`atomic_folder`, which makes it durable.

    Parameters
    ----------
    path : path-like
        The file's name.

    Yields
    ------
    file : binary file
        Open for writing.

    Raises
    ------
    FileError
        The operating system refused a step; ``filename`` is the file's.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         with new_file(pathlib.Path(folder, "a.bin")) as file:
    ...             _ = file.write(b"1")
    Traceback (most recent call last):
    vesu.errors.FileError: [Errno 17] File exists: '...a.bin'
    """
    try:
        with _opened(Path(path), "wb") as file:
            yield file
    except OSError as error:
        if isinstance(error, VesuError):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those around it where they are missing, so that a power cut does not take them again.

    Parameters
    ----------
    path : path-like
        The folder; one that exists is left as it is.

    Raises
    ------
    FileError
        The operating system refused a step, or something else stands under the name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as around:
    ...     make_folder(pathlib.Path(around, "a", "b"))
    ...     pathlib.Path(around, "a", "b").is_dir()
    True
    """
    folder = Path(path).absolute()
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        # The name of the last one that exists is synced, too: a process that died may have made it just now.
        existing = missing[-1].parent if missing else folder
        existing.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # a folder around it that is somebody else's
            _sync(existing.parent)
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            _sync(each.parent)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(folder)) from error


def remove_tree_atomic(path: str | os.PathLike[str]) -> None:
    """Remove a folder (or file) so that it is there whole or not at all, whenever the process or the machine dies.

    Parameters
    ----------
    path : path-like
        What to remove; nothing happens where it does not exist. A symbolic link goes, not what it names.

    Raises
    ------
    FileError
        The operating system refused a step; ``filename`` is ``path``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as around:
    ...     pathlib.Path(around, "a", "b").mkdir(parents=True)
    ...     remove_tree_atomic(pathlib.Path(around, "a"))
    ...     list(pathlib.Path(around).iterdir())
    []
    """
    final = Path(path)
    grave = _beside(final)
    try:
        try:
            final.rename(grave)
        except FileNotFoundError:
            return
        # Were its files' ends on disk before its own, a power cut would leave half of it under its name.
        _sync(final.parent)
        _remove(grave)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(final)) from error


def remove_abandoned(folder: str | os.PathLike[str], *, older_than_s: float = 0.0) -> None:
    """Remove what killed processes left in a folder under the temporary names of this module.

    Parameters
    ----------
    folder : path-like
        A folder, which may be missing.
    older_than_s : float
        Seconds since the last change: 0 where no other process writes here.

    Raises
    ------
    FileError
        The operating system refused to list the folder; what cannot be removed is left.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, ".state.0123456789ab.tmp").mkdir()
    ...     remove_abandoned(folder)
    ...     list(pathlib.Path(folder).iterdir())
    []
    """
    try:
        names = [path for path in Path(folder).iterdir() if _TEMPORARY.fullmatch(path.name)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(folder)) from error
    for path in names:
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime < older_than_s:
                continue
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _beside(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(6)}.tmp")


@contextlib.contextmanager
def _opened(path: Path, mode: Literal["r+b", "wb"]) -> Iterator[BinaryIO]:
    """A new file with the permissions that the user's umask gives."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    # `fdopen` would name the file by its number.
    with open(str(path), mode, opener=lambda *_: descriptor) as file:
        yield file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Everything in a folder, then the folder."""

    def refused(error: OSError) -> None:
        raise error  # `os.walk` would leave the folder out

    for here, _, files in os.walk(folder, topdown=False, onerror=refused):
        for name in files:
            _sync(Path(here, name))
        _sync(Path(here))


def _is_about(error: OSError, temporary: Path) -> bool:
    return error.filename is not None and Path(str(error.filename)).is_relative_to(temporary)
