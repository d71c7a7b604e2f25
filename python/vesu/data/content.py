"""Decode single volumes and judge what is in them (R02)."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vesu.data.findings import Finding, Severity, VolumeCheck
from vesu.data.volumes import read_volume
from vesu.errors import MemoryLimitError, VesuError

_LABEL_VALUES = 3
_LOW_CONTRAST_LEVELS = 8
_MOSTLY_ONE_VALUE = 0.5
_VALUES_NAMED = 8
_PERCENTILES = (1, 50, 99)


class ContentCheck:
    """Collects findings and measurements over the volumes that it is shown."""

    def __init__(self, n_threads: int | None = None) -> None:
        self.findings: list[Finding] = []
        self.volumes: list[VolumeCheck] = []
        self._n_threads = n_threads

    def image(self, path: Path) -> None:
        """Decode a CT volume and judge its grey values."""
        start = time.perf_counter()
        volume = self._decode(path)
        if volume is None or volume.dtype not in (np.uint8, np.uint16, np.float32):
            return  # the type was judged by its header
        if volume.dtype == np.float32:
            n_bad = sum(plane.size - int(np.count_nonzero(np.isfinite(plane))) for plane in volume)
            if n_bad:
                self._found("VALUE_RANGE", "blocking", path, f"{n_bad} voxels are NaN or infinite")
                return
            values, counts = np.unique(volume, return_counts=True)
        else:
            values, counts = _histogram(volume)
        check = _measured(path, values, counts, time.perf_counter() - start, is_label=False)
        self.volumes.append(check)
        most = int(counts.argmax())
        share = counts[most] / counts.sum()
        if values.size == 1:
            self._found("CONSTANT_VOLUME", "blocking", path, f"every voxel is {values[0]}")
        elif share > _MOSTLY_ONE_VALUE:
            self._found("VALUE_RANGE", "warning", path, f"{share:.1%} of the voxels are {values[most]}")
        elif volume.dtype == np.uint8 and check.percentiles["99"] - check.percentiles["1"] < _LOW_CONTRAST_LEVELS:
            span = f"{check.percentiles['1']:g} to {check.percentiles['99']:g}"
            self._found("VALUE_RANGE", "warning", path, f"hardly any contrast: percentiles 1 to 99 span {span}")

    def label(self, path: Path) -> None:
        """Decode a label volume and judge its values."""
        start = time.perf_counter()
        label = self._decode(path)
        if label is None or label.dtype != np.uint8:
            return  # the type was judged by its header
        values, counts = _histogram(label)
        self.volumes.append(_measured(path, values, counts, time.perf_counter() - start, is_label=True))
        bad = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if v >= _LABEL_VALUES]
        if bad:
            named = ", ".join(f"{value} ({count} voxels)" for value, count in bad[:_VALUES_NAMED])
            more = f" and {len(bad) - _VALUES_NAMED} values more" if len(bad) > _VALUES_NAMED else ""
            self._found("BAD_LABEL_VALUE", "blocking", path, f"got {named}{more}; accepted: 0, 1 and 2")
        elif values.tolist() == [2]:
            self._found("LABEL_ALL_IGNORED", "blocking", path, "every voxel is 2 (unlabelled)")
        elif 1 not in values:
            self._found("LABEL_NO_SURFACE", "warning", path, "no voxel is 1 (surface)")
        elif 0 not in values:
            self._found("LABEL_NO_BACKGROUND", "warning", path, "no voxel is 0 (background)")

    def _decode(self, path: Path) -> NDArray[np.generic] | None:
        try:
            volume: NDArray[np.generic] = read_volume(path, n_threads=self._n_threads)
        except MemoryLimitError as error:
            self._found("MEMORY_ROOM", "blocking", path, str(error))
        except VesuError as error:
            self._found("UNREADABLE", "blocking", path, str(error))
        else:
            return volume
        return None

    def _found(self, code: str, severity: Severity, path: Path, message: str) -> None:
        self.findings.append(Finding(code, severity, path, message))


def _histogram(volume: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Values that occur, ascending, and how often; plane by plane, so that nothing of the volume's size is made."""
    counts = np.zeros(1 << 8 * volume.dtype.itemsize, np.int64)
    for plane in volume:
        counts += np.bincount(plane.ravel(), minlength=counts.size)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _measured(
    path: Path, values: NDArray[np.generic], counts: NDArray[np.int64], seconds: float, *, is_label: bool
) -> VolumeCheck:
    cumulative = np.cumsum(counts)
    ranks = {str(p): min(int(p / 100 * cumulative[-1]), int(cumulative[-1]) - 1) for p in _PERCENTILES}
    percentiles = {p: float(values[np.searchsorted(cumulative, rank, side="right")]) for p, rank in ranks.items()}
    return VolumeCheck(
        path=path,
        minimum=float(values[0]),
        maximum=float(values[-1]),
        percentiles=percentiles,
        label_counts={str(v): int(n) for v, n in zip(values, counts, strict=True)} if is_label else None,
        seconds=seconds,
    )
