"""From a probability volume to a mask: the ladder's steps one after the other, and what each of them did."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.notebook import sparkline, table
from vesu.segmentation.config import SegmentConfig
from vesu.segmentation.diagnostics import DensityDiagnostics, OnStep, StepLog, StepReport, density_diagnostics
from vesu.segmentation.step import Array, Detail, Step
from vesu.segmentation.threshold import N_BINS, Thresholds


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The mask (uint8 0/1, shape (z, y, x)), the thresholds used, a report a step, and diagnostics.

    Examples
    --------
    >>> segment(np.zeros((2, 2, 2), dtype=np.float32)).mask.sum()
    np.uint64(0)
    """

    mask: NDArray[np.uint8]
    thresholds: Thresholds
    steps: tuple[StepReport, ...]
    diagnostics: DensityDiagnostics

    def _repr_html_(self) -> str:
        columns = ["step", "added", "removed", "voxels", "ms"]
        rows: list[tuple[Any, ...]] = [
            (each.name, each.voxels_added, each.voxels_removed, each.voxels_after, round(1000 * each.seconds, 1))
            for each in self.steps
        ]
        if any(each.components is not None for each in self.steps):
            columns += ["components", "tunnels", "cavities"]
            rows = [
                (*row, each.components, each.tunnels, each.cavities) for row, each in zip(rows, self.steps, strict=True)
            ]
        found = self.diagnostics
        shape = " x ".join(map(str, self.mask.shape))
        notes = [f"thresholds {self.thresholds.low:.4g} and {self.thresholds.high:.4g}", found.density_warning or ""]
        title = f"Mask of {shape} voxels, {found.ink_ratio_global:.2%} surface"
        by_slice = found.ink_ratio_by_slice
        line = sparkline(by_slice, f"surface by slice z, {min(by_slice):.1%} to {max(by_slice):.1%}")
        return table(title, columns, rows, notes=notes) + line


def segment(
    probability: NDArray[np.float32],
    config: SegmentConfig | None = None,
    *,
    uncertainty: NDArray[np.float32] | None = None,
    n_threads: int | None = None,
    topology: bool = False,
    on_step: OnStep | None = None,
) -> Segmentation:
    """Turn a probability volume into a mask.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1].
    config : SegmentConfig, optional
        The ladder of steps; None: the default one.
    uncertainty : ndarray of float32, shape (z, y, x), optional
        The ensemble's standard deviation, in [0, 1]; only the step `Suppress` looks at it.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.
    topology : bool
        Count components, tunnels and cavities after each step.
    on_step : callable, optional
        Called after each step with its report and the masks before and after it, uint8 0/1, which must be left as
        they are.

    Returns
    -------
    Segmentation
        With a report for each step of the ladder, in its order.

    Raises
    ------
    ArgumentError
        NaN or probabilities outside [0, 1] (with their number and the first one's place); another dtype or
        number of axes; an axis of length 0; a step `Suppress` without `uncertainty`, or one of another shape, dtype
        or range.

    Notes
    -----
    Requirements R28, R29, R30. A constant volume gives an empty mask under any rule but a fixed one, and a density
    warning. Memory: one float32 volume for each probability step, kept until the threshold is known; after it, two
    masks and what the kernel of the step takes.

    Examples
    --------
    >>> import numpy as np, vesu
    >>> from vesu.segmentation import Dust, SegmentConfig, SmoothZ, Threshold, ThresholdRule
    >>> probability = np.full((8, 16, 16), 0.1, dtype=np.float32)
    >>> probability[:, 8] = 0.9
    >>> steps = (SmoothZ(1), Threshold(ThresholdRule("fixed", 0.5)), Dust(100))
    >>> found = vesu.segment(probability, SegmentConfig(steps))
    >>> int(found.mask.sum()), found.diagnostics.ink_ratio_global
    (128, 0.0625)
    >>> [(step.name, step.voxels_removed) for step in found.steps]
    [('smooth_z', 0), ('threshold', 0), ('dust', 0)]
    """
    config = config or SegmentConfig()
    # Refuses NaN and values outside [0, 1] before anything is averaged away.
    histogram = _core.probability_histogram(probability, None, N_BINS, n_threads).sum(axis=0)
    if config.needs_uncertainty:
        _check_uncertainty(uncertainty, probability.shape)

    prepared: list[tuple[Step, NDArray[np.float32], float, Detail]] = []
    current = probability
    for step in config.before:
        start = time.perf_counter()
        current, detail = step.apply(current, uncertainty=uncertainty, n_threads=n_threads)
        prepared.append((step, current, time.perf_counter() - start, detail))
    start = time.perf_counter()
    thresholds = config.threshold.rule.thresholds(current, n_threads=n_threads)
    thresholds_s = time.perf_counter() - start

    log = StepLog(_candidates(probability, thresholds), topology, on_step, n_threads)
    for step, values, seconds, detail in prepared:
        log.add(step.name, _candidates(values, thresholds), seconds, detail)
    prepared.clear()
    start = time.perf_counter()
    mask, detail = config.threshold.cut(current, thresholds, n_threads=n_threads)
    log.add(config.threshold.name, mask, thresholds_s + time.perf_counter() - start, detail)
    del current
    for step in config.after:
        start = time.perf_counter()
        mask, detail = step.apply(mask, n_threads=n_threads)
        log.add(step.name, mask, time.perf_counter() - start, detail)
    return Segmentation(
        mask, thresholds, tuple(log.reports), density_diagnostics(mask, histogram, config.density_range)
    )


def _candidates(probability: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.uint8]:
    """What stands for the mask before there is one: the voxels at or above the high threshold."""
    return (probability >= np.float32(thresholds.high)).view(np.uint8)


def _check_uncertainty(uncertainty: Any, shape: tuple[int, ...]) -> None:
    accepted = f"a float32 array of shape {shape} with values in [0, 1], for the step 'suppress'"
    if not isinstance(uncertainty, np.ndarray):
        got = "none" if uncertainty is None else type(uncertainty).__name__
        raise ArgumentError(f"uncertainty: got {got}; accepted: {accepted}")
    if uncertainty.dtype != np.float32 or uncertainty.shape != shape:
        raise ArgumentError(f"uncertainty: got {uncertainty.dtype} of shape {uncertainty.shape}; accepted: {accepted}")
    low, high = _extremes(uncertainty)
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ArgumentError(f"uncertainty: got values from {low:g} to {high:g}; accepted: {accepted}")


def _extremes(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())
