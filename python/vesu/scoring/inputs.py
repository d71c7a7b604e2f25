"""Masks as the score takes them, from arrays, folders and zips."""

import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.volumes import DEFAULT_MAX_BYTES, decode_volume, read_volume
from vesu.errors import ArgumentError, DataError, FileError

_DEFLATE_MOST = 1032  # no Deflate stream expands further


def foregrounds(prediction: Any, label: Any, ignore_label: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    for name, array in (("prediction", prediction), ("label", label)):
        if not isinstance(array, np.ndarray):
            raise ArgumentError(f"{name}: got {type(array).__name__}; accepted: a 3-D numpy array")
        if array.ndim != 3 or array.size == 0:
            raise ArgumentError(f"{name}: got shape {array.shape}; accepted: 3-D (z, y, x), no axis of length 0")
    if prediction.shape != label.shape:
        raise ArgumentError(f"prediction: got shape {prediction.shape}; accepted: the label's, {label.shape}")
    if prediction.dtype.kind not in "biu":
        hint = "bool or integers (threshold a probability first, such as probability >= 0.5)"
        raise ArgumentError(f"prediction: got dtype {prediction.dtype}; accepted: {hint}")
    label = _whole_label(label)
    if ignore_label is not None and not isinstance(ignore_label, int | np.integer):
        raise ArgumentError(f"ignore_label: got {ignore_label!r}; accepted: an integer, or None")
    for name, array in (("prediction", prediction), ("label", label)):
        _warn_of_values(name, array, {ignore_label} if name == "label" else set())
    if ignore_label is None or label.dtype.kind == "b":
        return prediction != 0, label != 0
    counted = label != ignore_label
    return (prediction != 0) & counted, (label != 0) & counted


def _whole_label(label: NDArray[Any]) -> NDArray[Any]:
    """The label without floats: NaN is background, and any other float must be whole."""
    if label.dtype.kind in "biu":
        return label
    accepted = "bool, integers, or floats that are whole numbers or NaN"
    if label.dtype.kind != "f":
        raise ArgumentError(f"label: got dtype {label.dtype}; accepted: {accepted}")
    known = np.where(np.isnan(label), 0, label)
    if not (np.isfinite(known).all() and (known == np.rint(known)).all() and np.abs(known).max() < 2**31):
        raise ArgumentError(f"label: got {label.dtype} with other values; accepted: {accepted}")
    return known.astype(np.int64)


def _warn_of_values(name: str, array: NDArray[Any], allowed: set[int | None]) -> None:
    odd = {int(value) for value in (array.min(), array.max())} - {0, 1, 2} - allowed
    if odd:
        text = f"{name}: values from {int(array.min())} to {int(array.max())}; other than 0, 1, 2 count as foreground"
        warnings.warn(text, UserWarning, stacklevel=4)


def predictions_in(path: Path, labelled: set[str], n_threads: int | None) -> Iterator[tuple[str, NDArray[Any]]]:
    """Id and mask of each prediction in a folder or zip, in ascending order."""
    if path.is_dir():
        files = {file.stem: file for file in path.glob("*.tif")}
        for volume_id in _checked_ids(path, files, labelled):
            yield volume_id, read_volume(files[volume_id], n_threads=n_threads)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            members = {Path(info.filename).stem: info for info in infos}
            if len(members) < len(infos):
                raise DataError(f"{path}: several members of one name; accepted: one ID.tif a volume")
            for volume_id in _checked_ids(path, members, labelled):
                info = members[volume_id]
                if info.file_size > min(DEFAULT_MAX_BYTES, _DEFLATE_MOST * info.compress_size + 1024):
                    raise DataError(f"{info.filename}: declares {info.file_size} bytes (a zip bomb?)")
                data = archive.read(info)
                yield volume_id, decode_volume(data, name=info.filename, n_threads=n_threads)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: not a folder, and no readable zip: {error}") from error


def _checked_ids(path: Path, found: Mapping[str, Any], labelled: set[str]) -> list[str]:
    missing = sorted(set(found) - labelled)
    if not found or missing:
        got = f"no label for {', '.join(missing[:5])}" if missing else "no prediction"
        raise DataError(f"{path}: {got}; accepted: ID.tif files, each with a label of the same name")
    return sorted(found)
