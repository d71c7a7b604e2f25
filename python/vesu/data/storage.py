"""Files that are there whole or not at all."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vesu.errors import ArgumentError, FileError, VesuError

__all__ = ["atomic_write", "write_bytes_atomic", "write_json_atomic"]


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
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(6)}.tmp")
    try:
        with _opened(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        _sync_folder(final.parent)
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
def _opened(temporary: Path) -> Iterator[BinaryIO]:
    """A new file with the permissions that the user's umask gives."""
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    # `fdopen` would name the file by its number.
    with open(str(temporary), "r+b", opener=lambda *_: descriptor) as file:
        yield file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_about(error: OSError, temporary: Path) -> bool:
    return error.filename is not None and str(error.filename) == str(temporary)
