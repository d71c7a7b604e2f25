"""What a segmentation says about itself: a report a step, and the density of the mask."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import volume
from vesu.segmentation.step import Detail
from vesu.segmentation.threshold import N_BINS

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Before there is a mask, the voxels at or above the high threshold stand for it: so a probability step shows what
    it changed, and the threshold what its hysteresis added.

    Parameters
    ----------
    name : str
        The step's.
    voxels_before, voxels_after : int
        Foreground.
    voxels_added, voxels_removed : int
        Voxels that became foreground, and that ceased to be.
    seconds : float
        Of the step itself, without this report.
    detail : dict
        Figures of this kind of step, the thresholds of ``"threshold"`` among them.
    components, tunnels, cavities : int or None
        Betti numbers of the mask after the step, foreground at connectivity 6 as the competition's score counts;
        None where they were not asked for.

    Examples
    --------
    >>> StepReport("dust", 120, 100, voxels_added=0, voxels_removed=20, seconds=0.01, detail={}).voxels_removed
    20
    """

    name: str
    voxels_before: int
    voxels_after: int
    voxels_added: int
    voxels_removed: int
    seconds: float
    detail: Detail
    components: int | None = None
    tunnels: int | None = None
    cavities: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types, without the seconds: the same volume gives the same entry."""
        return {key: value for key, value in asdict(self).items() if key != "seconds"}


OnStep: TypeAlias = Callable[[StepReport, NDArray[np.uint8], NDArray[np.uint8]], None]
"""Called with the report and the masks before and after, for looking at; they must be left as they are."""


class StepLog:
    """Collects the reports; each step begins with the mask that the last one left."""

    def __init__(self, mask: NDArray[np.uint8], topology: bool, on_step: OnStep | None, n_threads: int | None) -> None:
        self.mask = mask
        self.n_voxels = int(np.count_nonzero(mask))
        self.topology = topology
        self.on_step = on_step
        self.n_threads = n_threads
        self.reports: list[StepReport] = []

    def add(self, name: str, mask: NDArray[np.uint8], seconds: float, detail: Detail) -> None:
        """Compare a step's mask with the one before it."""
        n_voxels = int(np.count_nonzero(mask))
        n_added = int(np.count_nonzero(mask > self.mask))
        betti: tuple[int | None, int | None, int | None] = (None, None, None)
        if self.topology:
            found = volume.betti_numbers(mask, 6, n_threads=self.n_threads)
            betti = (int(found.components), int(found.tunnels), int(found.cavities))
        n_removed = self.n_voxels + n_added - n_voxels
        report = StepReport(name, self.n_voxels, n_voxels, n_added, n_removed, seconds, detail, *betti)
        self.reports.append(report)
        if self.on_step is not None:
            self.on_step(report, self.mask, mask)
        self.mask, self.n_voxels = mask, n_voxels


@dataclass(frozen=True)
class DensityDiagnostics:
    """How much of a volume is foreground, where, and how its probabilities are spread (R30).

    Parameters
    ----------
    ink_ratio_global : float
        Share of foreground voxels in the mask, in [0, 1].
    ink_ratio_by_slice : tuple of float
        The same of each z slice.
    probability_percentiles : dict of str to float
        "1", "5", "25", "50", "75", "95", "99": percentiles of the probabilities as given, within 1/4096.
    density_warning : str or None
        Set when `ink_ratio_global` lies outside the configured range.

    Examples
    --------
    >>> DensityDiagnostics(0.5, (0.0, 1.0), {"50": 0.25}, None).to_json()["ink_ratio_by_slice"]
    [0.0, 1.0]
    """

    ink_ratio_global: float
    ink_ratio_by_slice: tuple[float, ...]
    probability_percentiles: dict[str, float]
    density_warning: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "ink_ratio_global": self.ink_ratio_global,
            "ink_ratio_by_slice": list(self.ink_ratio_by_slice),
            "probability_percentiles": dict(self.probability_percentiles),
            "density_warning": self.density_warning,
        }


def density_diagnostics(
    mask: NDArray[np.uint8], histogram: NDArray[np.int64], density_range: tuple[float, float]
) -> DensityDiagnostics:
    """Diagnostics of a mask and of the binned probabilities it came from."""
    by_slice = np.count_nonzero(mask.reshape(mask.shape[0], -1), axis=1) / (mask.shape[1] * mask.shape[2])
    ratio = np.count_nonzero(mask) / mask.size
    low, high = density_range
    warning = None
    if not low <= ratio <= high:
        side = "sparser" if ratio < low else "denser"
        warning = f"foreground is {ratio:.4f} of the volume, {side} than the usual {low:g} to {high:g}"
    return DensityDiagnostics(float(ratio), tuple(by_slice.tolist()), _percentiles(histogram), warning)


def _percentiles(histogram: NDArray[np.int64]) -> dict[str, float]:
    """Percentiles of binned probabilities: the middle of the bin that reaches the share; exactly 1 for the last."""
    reached = histogram.cumsum()
    bins = np.searchsorted(reached, np.array(PERCENTILES) / 100 * reached[-1], side="left")
    return {str(p): float(min((k + 0.5) / N_BINS, 1.0)) for p, k in zip(PERCENTILES, bins, strict=True)}
