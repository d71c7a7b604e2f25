"""Content-addressed, verified cache of arrays: decoded volumes, features (R09).

Layout: ``FOLDER/KEY/NAME.npy`` per array and ``FOLDER/KEY/manifest.json`` with each file's size and BLAKE3. An entry
is written in a folder of its own and renamed into place whole, so a reader sees all of it or nothing. It is not
fsynced: an entry that a power cut damages fails its verification and is computed again.
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.data.storage import atomic_folder, new_file, remove_abandoned, remove_tree_atomic
from vesu.errors import ArgumentError, FormatError, VesuError

PutStatus = Literal["stored", "exists", "refused", "failed"]

_FORMAT = "vesu.cache.v1"
_MANIFEST = "manifest.json"
_TEMPORARY_LIFE_S = 3600.0
_WRITERS = 8
"""So many processes may store at a time without exceeding the bound before one of them looks again."""
# What a damaged entry can raise on the way through stat, digest, JSON and .npy header.
_UNREADABLE = (VesuError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_KEY = re.compile(r"[0-9a-f]{64}")


def content_id(source: str | Path | bytes | NDArray[Any], *, n_threads: int | None = None) -> str:
    """BLAKE3 id of a file, a byte string or an array.

    Parameters
    ----------
    source : path, bytes or ndarray
        An array's id covers element type, shape and elements in C order; memory order and byte order do not matter.
    n_threads : int, optional
        Threads to hash with; the id does not depend on it.

    Returns
    -------
    str
        64 hexadecimal characters.

    Raises
    ------
    ArgumentError
        Neither a path, bytes nor an array of numbers.
    FileError, FormatError
        The file cannot be read, or is not a regular file.

    Notes
    -----
    Requirement R09. Files are streamed: memory does not grow with them.

    Examples
    --------
    >>> from vesu.data.cache import content_id
    >>> content_id(b"")[:16]
    'af1349b9f5f9a1a6'
    """
    if isinstance(source, str | Path):
        return _core.blake3_file(source, n_threads)
    if isinstance(source, bytes):
        return _core.blake3_bytes(source, n_threads)
    if isinstance(source, np.ndarray):
        return _core.blake3_array(source, n_threads)
    raise ArgumentError(f"source: got {type(source).__name__}; accepted: a path, bytes or a numpy array")


class ArrayCache:
    """Named arrays on disk under the digest of what they were made from.

    Parameters
    ----------
    folder : path
        Made when the first entry is stored.
    max_bytes : int
        Bound on the bytes of all entries together; 0 switches the cache off.
    min_free_bytes : int
        Room that is left to others on the file system: the submission matters more than the cache.
    events : callable, optional
        Called as ``events(name, **fields)`` with ``CACHE_HIT``, ``CACHE_MISS``, ``CACHE_STORED``, ``CACHE_REFUSED``,
        ``CACHE_FAILED``, ``CACHE_CORRUPT`` and ``CACHE_EVICTED``; an event log's ``emit`` fits.
    n_threads : int, optional
        Threads to verify with.
    reserved_bytes : int
        Of `max_bytes`, what is kept for entries that are dear to make: cheap ones are stored in the rest only, and
        nothing is evicted for them.

    Notes
    -----
    Requirement R09. A full cache never stops a run: `put` says what happened and the caller goes on with the arrays
    that it holds. To make room, the least recently used entries are evicted, but none that anybody used since this
    cache was opened: epoch after epoch sweeps over the same volumes, and plain least-recently-used eviction would
    then always drop exactly what is needed next. No pickle: ``.npy`` with ``allow_pickle=False``, and no file is
    parsed before its digest was checked. Many threads and processes may share one folder.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from vesu.data.cache import ArrayCache, content_id
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = ArrayCache(folder, max_bytes=10**9)
    ...     volume = np.ones((2, 3, 4), np.uint8)
    ...     key = cache.key("squares", source=content_id(volume), power=2)
    ...     for _ in range(2):  # computed once
    ...         arrays = cache.get_or_compute(key, lambda: print("computing") or {"values": volume**2})
    computing
    >>> arrays["values"].shape
    (2, 3, 4)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_bytes: int,
        min_free_bytes: int = 256 << 20,
        events: Callable[..., object] | None = None,
        n_threads: int | None = None,
        reserved_bytes: int = 0,
    ) -> None:
        bounds = {"max_bytes": max_bytes, "min_free_bytes": min_free_bytes, "reserved_bytes": reserved_bytes}
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ArgumentError(f"{name}: got {value!r}; accepted: an integer, 0 or more")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.min_free_bytes = min_free_bytes
        self.reserved_bytes = reserved_bytes
        self._events = events
        self._n_threads = n_threads
        self._opened_ns = time.time_ns()
        self._total = 0
        """Bytes of all entries when they were last listed, and what was stored here since."""
        self._unlisted = 0
        """Bytes that may be stored before they are listed again: to list thousands at each one would take minutes."""
        self._verified: dict[Path, tuple[int, int, int]] = {}
        self._remove_abandoned()

    def key(self, kind: str, **parts: Any) -> str:
        """Key of what is made from `parts`: the BLAKE3 of their canonical JSON.

        Parameters
        ----------
        kind : str
            What is cached, with its version when the code that makes it may change ("features/3").
        **parts
            Everything that the result depends on: content ids, settings. Strings, finite numbers, booleans, None,
            and lists or string-keyed mappings of these.

        Returns
        -------
        str
            64 hexadecimal characters.

        Raises
        ------
        ArgumentError
            A part that has no canonical JSON form.

        Examples
        --------
        >>> from vesu.data.cache import ArrayCache
        >>> cache = ArrayCache("unused", max_bytes=0)
        >>> cache.key("features/1", source="ab", scales=(1.0, 2.0)) == cache.key(
        ...     "features/1", scales=[1.0, 2.0], source="ab")
        True
        """
        if not isinstance(kind, str) or not kind:
            raise ArgumentError(f"kind: got {kind!r}; accepted: a non-empty string")
        _check_part("parts", parts)
        record = {"format": _FORMAT, "kind": kind, "parts": parts}
        return _core.blake3_bytes(json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())

    def get(self, key: str, *, mmap: bool = False) -> dict[str, NDArray[Any]] | None:
        """Arrays stored under `key`, verified; None when absent.

        Parameters
        ----------
        key : str
            From :meth:`key`.
        mmap : bool
            Give read-only memory maps instead of copies, and verify a file only once a process as long as its size,
            inode and time stamp stay.

        Returns
        -------
        dict of str to ndarray, or None
            None also for an entry that fails its verification: it is dropped and reported (``CACHE_CORRUPT``).

        Raises
        ------
        ArgumentError
            `key` is not a key.
        """
        entry = self._entry(key)
        try:
            arrays = self._load(entry, key, mmap)
        except FileNotFoundError:
            if entry.is_dir():
                self._drop(entry, key, "a file is missing")
            self._emit("CACHE_MISS", key=key)
            return None
        except _UNREADABLE as error:
            self._drop(entry, key, str(error))
            return None
        self._emit("CACHE_HIT", key=key)
        return arrays

    def put(self, key: str, /, **arrays: NDArray[Any]) -> PutStatus:
        """Store arrays under `key`; never raises for a full or failing disk.

        Parameters
        ----------
        key : str
            From :meth:`key`.
        **arrays : ndarray
            At least one; numbers or booleans of any shape.

        Returns
        -------
        {"stored", "exists", "refused", "failed"}
            "exists": another writer was first. "refused": no room within `max_bytes`, or on the disk. "failed": the
            operating system refused; the event ``CACHE_FAILED`` carries the reason.

        Raises
        ------
        ArgumentError
            Not a key, no arrays, a name that is no identifier, or an array of objects.
        """
        return self._store(key, arrays, dear=True)

    def _store(self, key: str, arrays: Mapping[str, NDArray[Any]], *, dear: bool) -> PutStatus:
        """:meth:`put`, of what is dear to make or cheap."""
        entry = self._entry(key)
        _check_arrays(arrays)
        needed = sum(array.nbytes + 1024 for array in arrays.values())
        try:
            if entry.is_dir():
                return "exists"
            if reason := self._make_room(needed, dear):
                self._emit("CACHE_REFUSED", key=key, n_bytes=needed, reason=reason)
                return "refused"
            with atomic_folder(entry, durable=False) as temporary:
                self._write(temporary, key, arrays)
        except (OSError, VesuError) as error:
            # A folder with files in it is never replaced by a rename: the other writer's stands.
            if entry.is_dir():
                return "exists"
            self._emit("CACHE_FAILED", key=key, n_bytes=needed, reason=str(error))
            return "failed"
        self._emit("CACHE_STORED", key=key, n_bytes=needed)
        return "stored"

    def get_or_compute(
        self, key: str, compute: Callable[[], Mapping[str, NDArray[Any]]], *, mmap: bool = False, dear: bool = True
    ) -> dict[str, NDArray[Any]]:
        """Arrays under `key`, computed and stored when they are not there.

        Parameters
        ----------
        key : str
            From :meth:`key`.
        compute : callable
            Gives the named arrays.
        mmap : bool
            As in :meth:`get`; freshly computed arrays come back as they are.
        dear : bool
            Whether they may take the reserved room, and that of what nobody used since the cache was opened.

        Returns
        -------
        dict of str to ndarray
        """
        if (arrays := self.get(key, mmap=mmap)) is not None:
            return arrays
        arrays = dict(compute())
        self._store(key, arrays, dear=dear)
        return arrays

    def total_bytes(self) -> int:
        """Bytes of all entries together, as they are on disk now."""
        return sum(size for _, size, _ in self._entries())

    def _entry(self, key: str) -> Path:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ArgumentError(f"key: got {key!r}; accepted: 64 hexadecimal characters from ArrayCache.key")
        return self.folder / key

    def _load(self, entry: Path, key: str, mmap: bool) -> dict[str, NDArray[Any]]:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT or manifest["key"] != key:
            raise FormatError(f"{entry / _MANIFEST}: not the manifest of this entry")
        arrays: dict[str, NDArray[Any]] = {}
        for name, record in manifest["arrays"].items():
            if not name.isidentifier():
                raise FormatError(f"{entry / _MANIFEST}: {name!r} is no array name")
            path = entry / f"{name}.npy"
            self._verify(path, record, once=mmap)
            # An array without elements cannot be mapped.
            mode: Literal["r"] | None = "r" if mmap and record["elements"] else None
            arrays[name] = np.load(path, mmap_mode=mode, allow_pickle=False)
        _touch(entry / _MANIFEST)
        return arrays

    def _verify(self, path: Path, record: Mapping[str, Any], *, once: bool) -> None:
        stat = path.stat()
        signature = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if once and self._verified.get(path) == signature:
            return
        if stat.st_size != record["n_bytes"] or _core.blake3_file(path, self._n_threads) != record["blake3"]:
            raise FormatError(f"{path}: its content is not what was stored")
        self._verified[path] = signature

    def _write(self, temporary: Path, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        records = {}
        for name, array in arrays.items():
            path = temporary / f"{name}.npy"
            with new_file(path) as file:
                np.lib.format.write_array(file, np.require(array, requirements="C"), allow_pickle=False)
            records[name] = {
                "elements": array.size,
                "n_bytes": path.stat().st_size,
                "blake3": _core.blake3_file(path, self._n_threads),
            }
        manifest = {"format": _FORMAT, "key": key, "arrays": records}
        with new_file(temporary / _MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1).encode())

    def _make_room(self, needed: int, dear: bool) -> str | None:
        """Evict what may be evicted until `needed` bytes fit; the reason when they do not."""
        if needed > self.max_bytes:
            return f"the entry needs {needed} bytes of max_bytes = {self.max_bytes}"
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed <= self._unlisted and free >= needed + self.min_free_bytes and (dear or self._spares(needed)):
            self._total, self._unlisted = self._total + needed, self._unlisted - needed
            return None
        entries = sorted(self._entries())
        self._total, self._unlisted = sum(size for _, size, _ in entries), 0
        if not dear and not self._spares(needed):
            return f"{self.reserved_bytes} of max_bytes = {self.max_bytes} bytes are kept for what is dear to make"
        evictable = [entry for entry in entries if dear and entry[0] < self._opened_ns]
        gain = sum(size for _, size, _ in evictable)
        if self._total - gain + needed > self.max_bytes:
            return f"{self._total} of max_bytes = {self.max_bytes} bytes are in use by this run"
        if free + gain < needed + self.min_free_bytes:
            return f"{free} bytes are free on the disk, of which {self.min_free_bytes} are left to others"
        for _, size, entry in evictable:
            if self._total + needed <= self.max_bytes and free >= needed + self.min_free_bytes:
                break
            self._remove(entry)
            self._emit("CACHE_EVICTED", key=entry.name, n_bytes=size)
            self._total, free = self._total - size, free + size
        self._total += needed
        self._unlisted = (self.max_bytes - self._total) // _WRITERS
        return None

    def _spares(self, needed: int) -> bool:
        """Whether the reserved room stays free beside so many bytes more."""
        return self._total + needed + self.reserved_bytes <= self.max_bytes

    def _entries(self) -> list[tuple[int, int, Path]]:
        """(time of last use in ns, bytes, folder) of each entry; one that vanishes meanwhile is left out."""
        found = []
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if not _KEY.fullmatch(entry.name):
                continue
            try:
                used_ns = (entry / _MANIFEST).stat().st_mtime_ns
                found.append((used_ns, sum(file.stat().st_size for file in entry.iterdir()), entry))
            except OSError:
                continue
        return found

    def _drop(self, entry: Path, key: str, reason: str) -> None:
        self._remove(entry)
        self._emit("CACHE_CORRUPT", key=key, reason=reason)

    def _remove(self, entry: Path) -> None:
        with contextlib.suppress(OSError):  # there is nothing left to remove, or a later eviction will try again
            remove_tree_atomic(entry)

    def _remove_abandoned(self) -> None:
        """Remove what killed writers left behind."""
        with contextlib.suppress(OSError):  # housekeeping only; a folder that cannot be used shows itself in `put`
            remove_abandoned(self.folder, older_than_s=_TEMPORARY_LIFE_S)

    def _emit(self, name: str, **fields: Any) -> None:
        if self._events is not None:
            self._events(name, **fields)


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a cache on read-only storage still serves; only the order of eviction suffers
        os.utime(path)


def _check_part(name: str, value: Any) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float) and np.isfinite(value):
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check_part(name, item)
        return
    if isinstance(value, Mapping) and all(isinstance(each, str) for each in value):
        for each, item in value.items():
            _check_part(f"{name}.{each}", item)
        return
    raise ArgumentError(
        f"{name}: got {value!r}; accepted: strings, finite numbers, booleans, None, lists and string-keyed mappings"
    )


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    if not arrays:
        raise ArgumentError("arrays: got none; accepted: at least one named array")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentError(f"{name}: got {got}; accepted: a numpy array of numbers or booleans")
        if not name.isidentifier() or not name.isascii():
            raise ArgumentError(f"array name: got {name!r}; accepted: an ASCII identifier")
