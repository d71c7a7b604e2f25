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
    """Both masks without what is ignored."""
    _check_volumes("prediction", prediction, label)
    if prediction.dtype.kind not in "biu":
        hint = "bool or integers (threshold a probability first, such as probability >= 0.5)"
        raise ArgumentError(f"prediction: got dtype {prediction.dtype}; accepted: {hint}")
    label = _whole_label(label, ignore_label)
    _warn_of_values("prediction", prediction, set())
    _warn_of_values("label", label, {ignore_label})
    theirs, counted = _counted(label, ignore_label)
    ours = prediction != 0
    return (ours if counted is None else ours & counted), theirs


def sweep_volumes(
    probability: Any, label: Any, ignore_label: int | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """The label's mask, and where it counts (None: everywhere), for a probability that is yet to be thresholded."""
    _check_volumes("probability", probability, label)
    if probability.dtype.kind != "f":
        raise ArgumentError(f"probability: got dtype {probability.dtype}; accepted: floats")
    label = _whole_label(label, ignore_label)
    _warn_of_values("label", label, {ignore_label})
    return _counted(label, ignore_label)


def _check_volumes(name: str, array: Any, label: Any) -> None:
    for each, volume in ((name, array), ("label", label)):
        if not isinstance(volume, np.ndarray):
            raise ArgumentError(f"{each}: got {type(volume).__name__}; accepted: a 3-D numpy array")
        if volume.ndim != 3 or volume.size == 0:
            raise ArgumentError(f"{each}: got shape {volume.shape}; accepted: 3-D (z, y, x), no axis of length 0")
    if array.shape != label.shape:
        raise ArgumentError(f"{name}: got shape {array.shape}; accepted: the label's, {label.shape}")


def _counted(label: NDArray[Any], ignore_label: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    if ignore_label is None or label.dtype.kind == "b":
        return label != 0, None
    counted = label != ignore_label
    return (label != 0) & counted, counted


def _whole_label(label: NDArray[Any], ignore_label: int | None) -> NDArray[Any]:
    """The label without floats: NaN is background, and any other float must be whole."""
    if ignore_label is not None and not isinstance(ignore_label, int | np.integer):
        raise ArgumentError(f"ignore_label: got {ignore_label!r}; accepted: an integer, or None")
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
