"""A generated data set in the competition's layout, with the hidden truth beside it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vesu import _core
from vesu.data.phantom._checks import check_count, check_seed, check_shape
from vesu.data.phantom._fields import stream
from vesu.data.phantom.forward import DressParams, dress
from vesu.data.phantom.scroll import ScrollParams, generate_scroll
from vesu.data.storage import write_bytes_atomic, write_json_atomic
from vesu.data.volumes import write_volume
from vesu.errors import ArgumentError, DataError, FileError

MANIFEST = "phantom.json"
"""Written last: a folder without it is not finished."""

_UNFINISHED = "phantom.unfinished.json"
"""Written first, removed last: the folder is ours, and these files may be replaced."""

_GENERATOR_VERSION = 1
"""Raised whenever the same arguments give other voxels, so that an old folder is not taken for a new one."""

_FOLDERS = ("train_images", "train_labels", "test_images", "truth")
_SCROLL_IDS = (26002, 34117, 35360)


class _Volume(NamedTuple):
    volume_id: str
    scroll_id: int
    seed: int
    is_test: bool

    def files(self) -> tuple[str, str]:
        """Image and label, relative to the root."""
        image, label = ("test_images", "truth") if self.is_test else ("train_images", "train_labels")
        return f"{image}/{self.volume_id}.tif", f"{label}/{self.volume_id}.tif"


def write_dataset(
    root: str | os.PathLike[str],
    *,
    n_train: int = 8,
    n_test: int = 2,
    shape: tuple[int, int, int] = (128, 128, 128),
    seed: int = 0,
    scroll: ScrollParams | None = None,
    params: DressParams | None = None,
    n_workers: int | None = None,
) -> Path:
    """Generate scrolls, dress them and write them as the competition lays out its data (R01).

    ``train_images/ID.tif``, ``train_labels/ID.tif``, ``test_images/ID.tif`` (LZW), ``train.csv`` and ``test.csv``
    (``id,scroll_id``). The labels of the test volumes lie in ``truth/ID.tif``, where discovery does not look.
    ``phantom.json`` names every argument and every file's SHA-256; it is written last.

    Parameters
    ----------
    root : folder to write; created if need be. A finished folder of the same arguments whose files verify is left
        as it is; an unfinished one, or one of other arguments, is replaced file by file.
    n_train, n_test : how many volumes, together 1 to 10,000
    shape : (z, y, x) of each, 16 to 2048
    seed : non-negative integer; decides ids and voxels
    scroll, params : geometry and forward model, see ScrollParams and DressParams
    n_workers : volumes made at a time (threads); default: the number of threads vesu uses

    Returns
    -------
    root : Path

    Raises
    ------
    ArgumentError
        An argument out of its range.
    DataError
        The folder holds files that this function did not write; nothing is touched.
    FileError
        The operating system refused a step.

    Notes
    -----
    The result does not depend on ``n_workers``. Peak memory is about 32 bytes a voxel and worker.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = write_dataset(pathlib.Path(folder, "demo"), n_train=1, n_test=1, shape=(32, 32, 32))
    ...     sorted(path.name for path in root.iterdir())
    ['phantom.json', 'test.csv', 'test_images', 'train.csv', 'train_images', 'train_labels', 'truth']
    """
    check_count("n_train", n_train, 0, 10_000)
    check_count("n_test", n_test, 0, 10_000)
    if n_train + n_test == 0:
        raise ArgumentError("n_train, n_test: got 0 and 0; accepted: at least one volume")
    check_shape(shape, minimum=16)
    check_seed(seed)
    workers = _core.thread_count() if n_workers is None else n_workers
    check_count("n_workers", workers, 1, 4096)
    scroll, params = scroll or ScrollParams(), params or DressParams()
    scroll.check()
    params.check()
    if not isinstance(root, (str, os.PathLike)):
        raise ArgumentError(f"root: got {type(root).__name__}; accepted: a path")

    folder = Path(os.fspath(root))
    arguments = {
        "generator_version": _GENERATOR_VERSION,
        "n_train": int(n_train),
        "n_test": int(n_test),
        "shape": [int(n) for n in shape],
        "seed": int(seed),
        "scroll": asdict(scroll),
        "params": asdict(params),
    }
    with _os_errors(folder):
        if _is_finished(folder, arguments):
            return folder
        volumes = _plan(n_train, n_test, seed)
        files = ["train.csv", "test.csv", *(name for volume in volumes for name in volume.files())]
        _claim(folder, files)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(_write_pair, folder, volume, shape, scroll, params) for volume in volumes]
            try:
                for future in futures:
                    future.result()
            except BaseException:  # the first failure, Ctrl-C included: start no further volume
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        _write_table(folder / "train.csv", [v for v in volumes if not v.is_test])
        _write_table(folder / "test.csv", [v for v in volumes if v.is_test])
        digests = {name: _digest(folder / name) for name in sorted(files)}
        write_json_atomic(folder / MANIFEST, {"arguments": arguments, "files": digests})
        (folder / _UNFINISHED).unlink()
    return folder


@contextlib.contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    """The operating system's refusals as FileError."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else str(folder)
        raise FileError(error.errno, error.strerror or str(error), name) from error


def _plan(n_train: int, n_test: int, seed: int) -> list[_Volume]:
    """Distinct ids as the competition has them, and a seed for each volume."""
    rng = stream(seed, "dataset")
    ids: list[int] = []
    while len(ids) < n_train + n_test:
        candidate = int(rng.integers(1_000_000, 2**32 - 1))
        if candidate not in ids:
            ids.append(candidate)
    return [
        _Volume(str(i), _SCROLL_IDS[int(rng.integers(len(_SCROLL_IDS)))], int(rng.integers(2**62)), n >= n_train)
        for n, i in enumerate(ids)
    ]


def _write_pair(
    folder: Path, volume: _Volume, shape: tuple[int, int, int], scroll: ScrollParams, params: DressParams
) -> None:
    label = generate_scroll(shape, seed=volume.seed, params=scroll)
    image_name, label_name = volume.files()
    write_volume(folder / image_name, dress(label, volume.seed, params=params), compression="lzw", n_threads=1)
    write_volume(folder / label_name, label, compression="lzw", n_threads=1)


def _write_table(path: Path, volumes: list[_Volume]) -> None:
    rows = ["id,scroll_id", *(f"{v.volume_id},{v.scroll_id}" for v in volumes)]
    write_bytes_atomic(path, ("\n".join(rows) + "\n").encode())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    """A manifest, or nothing if it is absent or not one of ours."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_finished(folder: Path, arguments: dict[str, Any]) -> bool:
    record = _read_record(folder / MANIFEST)
    files = record.get("files")
    if record.get("arguments") != arguments or not isinstance(files, dict) or (folder / _UNFINISHED).exists():
        return False
    return all((folder / name).is_file() and _digest(folder / name) == digest for name, digest in files.items())


def _claim(folder: Path, files: list[str]) -> None:
    """Make the folder ours and empty but for the mark, or refuse because something foreign lies in it."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"root: got {folder}, which is a file; accepted: a new, an empty or a generated folder")
    ours: set[str] = {MANIFEST, _UNFINISHED}
    for name in (MANIFEST, _UNFINISHED):
        ours.update(_listed(_read_record(folder / name)))
    present = _present(folder)
    stray = sorted(name for name in present if name not in ours and not _is_temporary(name, ours))
    if stray:
        raise DataError(
            f"root: {folder} holds {stray[0]} (and {len(stray) - 1} more), not written by this generator;"
            " accepted: a new, an empty or a generated folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / _UNFINISHED, {"files": sorted(set(files) | (ours - {MANIFEST, _UNFINISHED}))})
    for name in sorted(present - {_UNFINISHED}, key=lambda name: name != MANIFEST):  # the manifest goes first
        (folder / name).unlink()
    for sub in _FOLDERS:
        (folder / sub).mkdir(exist_ok=True)


def _listed(record: dict[str, Any]) -> list[str]:
    files = record.get("files", [])
    return [name for name in files if isinstance(name, str)] if isinstance(files, (dict, list)) else []


def _present(folder: Path) -> set[str]:
    """Every file below the folder, relative; our own sub-folders do not count when they are empty."""
    if not folder.exists():
        return set()
    paths = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or _is_foreign(path, folder))
    return {path.relative_to(folder).as_posix() for path in paths}


def _is_foreign(path: Path, folder: Path) -> bool:
    return path.relative_to(folder).as_posix() not in _FOLDERS


def _is_temporary(name: str, ours: set[str]) -> bool:
    """A temporary file that an interrupted atomic write left beside one of ours."""
    parent, _, leaf = name.rpartition("/")
    prefix = f"{parent}/" if parent else ""
    return (
        leaf.startswith(".")
        and leaf.endswith(".tmp")
        and any(own.startswith(prefix) and own[len(prefix) :] in leaf for own in ours)
    )
