"""From a probability volume to a mask: smooth along z, threshold per volume, hysteresis, dust; and what it did.

Each step is a pure function of :mod:`vesu.volume`; :func:`segment` runs them and reports.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.calibration import BETA, N_BINS, ThresholdRule, Thresholds, f_score
from vesu.errors import ArgumentError
from vesu.volume import hysteresis_counted, remove_dust_counted, smooth_z

DENSITY_RANGE = (0.02, 0.15)
"""Shares of foreground that raise no warning.

The two real labels at hand have 0.047 and 0.058 (0.051 and 0.062 of what is labelled), a competitor's mask has 0.094,
and the history aimed at 0.06 to 0.12. The range leaves a factor of two below the lowest and a quarter above the
highest of these. It is a hint to look, never a clamp.
"""

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class SegmentConfig:
    """How :func:`segment` works.

    Parameters
    ----------
    smooth_z_radius : int
        Slices on either side in the moving mean along z; 0 does not smooth.
    rule : ThresholdRule
        Thresholds from the volume's (smoothed) probabilities.
    connectivity : {26, 18, 6}
        For hysteresis and dust.
    min_voxels : int
        Components of strictly fewer voxels are dust; 0 keeps all.
    hysteresis : bool
        False: every voxel at or above the high threshold, and nothing else.
    density_range : (float, float)
        Share of foreground outside which the diagnostics carry a warning. Never changes the mask.

    Raises
    ------
    ArgumentError
        A value out of range.

    Examples
    --------
    >>> SegmentConfig(min_voxels=200).connectivity
    26
    """

    smooth_z_radius: int = 1
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    connectivity: int = 26
    min_voxels: int = 100
    hysteresis: bool = True
    density_range: tuple[float, float] = DENSITY_RANGE

    def __post_init__(self) -> None:
        if self.connectivity not in (6, 18, 26):
            raise ArgumentError(f"connectivity: got {self.connectivity!r}; accepted: 6, 18 or 26")
        for name in ("smooth_z_radius", "min_voxels"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 0:
                raise ArgumentError(f"{name}: got {value!r}; accepted: a whole number, 0 or more")
        if not isinstance(self.rule, ThresholdRule):
            raise ArgumentError(f"rule: got {type(self.rule).__name__}; accepted: ThresholdRule")
        limits = tuple(float(limit) for limit in self.density_range)  # a list when read back from JSON
        if len(limits) != 2 or not 0 <= limits[0] <= limits[1] <= 1:
            raise ArgumentError(f"density_range: got {self.density_range!r}; accepted: 0 <= low <= high <= 1")
        object.__setattr__(self, "density_range", limits)


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    `voxels_before` and `voxels_after` count foreground: for ``"smooth_z"`` and ``"threshold"`` the voxels at or above
    the high threshold (before the threshold, every voxel is a candidate).

    Examples
    --------
    >>> StepReport("dust", voxels_before=120, voxels_after=100, seconds=0.01, detail={}).voxels_after
    100
    """

    name: str
    voxels_before: int
    voxels_after: int
    seconds: float
    detail: dict[str, float | int]


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


@dataclass(frozen=True)
class Confusion:
    """Counts of a mask against a label, and the scores from them.

    A score without voxels to divide by is 1 when mask and label are both empty, else 0.

    Examples
    --------
    >>> Confusion(tp=8, fp=2, fn=2, tn=88).iou
    0.666...
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall (Dice)."""
        return float(f_score(self.tp, self.fp, self.fn, 1.0))

    @property
    def f_beta(self) -> float:
        """F score with beta 0.5: precision counts more."""
        return float(f_score(self.tp, self.fp, self.fn, BETA))

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard)."""
        return self._share(self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the mask that is surface."""
        return self._share(self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the surface that is in the mask."""
        return self._share(self.tp + self.fn)

    def _share(self, whole: int) -> float:
        if whole > 0:
            return self.tp / whole
        return 1.0 if self.fp + self.fn == 0 else 0.0


def segment(
    probability: NDArray[np.float32], config: SegmentConfig | None = None, *, n_threads: int | None = None
) -> Segmentation:
    """Turn a probability volume into a mask.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1].
    config : SegmentConfig, optional
        None: the defaults.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    Segmentation
        With the steps ``"smooth_z"``, ``"threshold"``, ``"hysteresis"`` (where asked for) and ``"dust"``.

    Raises
    ------
    ArgumentError
        NaN or probabilities outside [0, 1] (with their number and the first one's place); another dtype or
        number of axes; an axis of length 0.

    Notes
    -----
    Requirements R28, R29, R30. A constant volume gives an empty mask under a quantile or ratio rule, and a density
    warning.

    Examples
    --------
    >>> import numpy as np, vesu
    >>> probability = np.full((8, 16, 16), 0.1, dtype=np.float32)
    >>> probability[:, 8] = 0.9
    >>> found = segment(probability, SegmentConfig(rule=ThresholdRule("fixed", 0.5)))
    >>> int(found.mask.sum()), found.diagnostics.ink_ratio_global
    (128, 0.0625)
    >>> [step.name for step in found.steps]
    ['smooth_z', 'threshold', 'hysteresis', 'dust']
    """
    config = config or SegmentConfig()
    # Refuses NaN and values outside [0, 1] before anything is averaged away.
    histogram = _core.probability_histogram(probability, None, N_BINS, n_threads).sum(axis=0)
    log = _StepLog()

    with log.timed():
        smooth = smooth_z(probability, config.smooth_z_radius, n_threads=n_threads)
    smoothing_s = log.seconds
    with log.timed():
        thresholds = config.rule.thresholds(smooth, n_threads=n_threads)
        if not config.hysteresis:
            thresholds = Thresholds(low=thresholds.high, high=thresholds.high)
        mask = (smooth >= np.float32(thresholds.high)).view(np.uint8)
    before, strong = int(np.count_nonzero(probability >= np.float32(thresholds.high))), int(np.count_nonzero(mask))
    log.add("smooth_z", before, strong, smoothing_s, radius=config.smooth_z_radius)
    log.add("threshold", smooth.size, strong, log.seconds, low=thresholds.low, high=thresholds.high)

    if config.hysteresis:
        with log.timed():
            mask, n_components, n_kept = hysteresis_counted(
                smooth, thresholds.low, thresholds.high, config.connectivity, n_threads=n_threads
            )
        log.add_mask("hysteresis", mask, components=n_components, components_kept=n_kept)
    with log.timed():
        mask, n_components, n_removed = remove_dust_counted(
            mask, config.min_voxels, config.connectivity, n_threads=n_threads
        )
    log.add_mask("dust", mask, components=n_components, components_kept=n_components - n_removed)
    return Segmentation(mask, thresholds, tuple(log.steps), _diagnostics(mask, histogram, config.density_range))


def confusion(mask: NDArray[Any], label: NDArray[np.uint8], ignore: int = 2) -> Confusion:
    """Count a mask's voxels against a label.

    Parameters
    ----------
    mask : ndarray of uint8 or bool
        Non-zero is foreground.
    label : ndarray of uint8, same shape
        0 background, 1 surface, `ignore` counts nowhere.
    ignore : int
        The unlabelled value.

    Returns
    -------
    Confusion

    Raises
    ------
    ArgumentError
        Shapes or dtypes that do not fit, zero-size arrays, label values other than 0, 1 and `ignore`.

    Examples
    --------
    >>> import numpy as np
    >>> confusion(np.array([1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 2], dtype=np.uint8))
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    mask, label = np.asarray(mask), np.asarray(label)
    if mask.dtype.kind not in "buif" or label.dtype.kind not in "bui":
        raise ArgumentError(
            f"mask, label: got dtypes {mask.dtype} and {label.dtype}; accepted: a mask and whole numbers"
        )
    if mask.shape != label.shape or mask.size == 0:
        raise ArgumentError(f"mask: got shape {mask.shape} for a label of {label.shape}; accepted: the same, not empty")
    foreground, surface, background = mask != 0, label == 1, label == 0
    n_surface, n_background = int(np.count_nonzero(surface)), int(np.count_nonzero(background))
    unknown = label.size - n_surface - n_background - int(np.count_nonzero(label == ignore))
    if unknown > 0:
        raise ArgumentError(f"label: got {unknown} voxels of other values; accepted: 0, 1 and {ignore} (ignored)")
    tp = int(np.count_nonzero(foreground & surface))
    fp = int(np.count_nonzero(foreground & background))
    return Confusion(tp=tp, fp=fp, fn=n_surface - tp, tn=n_background - fp)


class _StepLog:
    """Collects the reports; each mask step begins with the voxels that the last one left."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - start

    def add(self, name: str, before: int, after: int, seconds: float, **detail: float | int) -> None:
        self.steps.append(StepReport(name, before, after, seconds, detail))

    def add_mask(self, name: str, mask: NDArray[np.uint8], **detail: int) -> None:
        self.add(name, self.steps[-1].voxels_after, int(np.count_nonzero(mask)), self.seconds, **detail)


def _diagnostics(
    mask: NDArray[np.uint8], histogram: NDArray[np.int64], density_range: tuple[float, float]
) -> DensityDiagnostics:
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
