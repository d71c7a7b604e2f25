"""The historical scorers, kept as baselines: NX46 and NX47 V61 (R32).

Neither learns anything: a volume's mask follows from the volume alone. They run through the whole pipeline with
``vesu run --pipeline nx46``; :func:`segment` is the same on one volume. ``docs/baselines.md`` has the formulas, where
they come from, and what in them is ours.
"""

from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.config import NX46Config, NX47Config
from vesu.errors import ArgumentError
from vesu.segmentation import Segmentation, SegmentConfig, Threshold, ThresholdRule
from vesu.segmentation import segment as apply_steps

__all__ = ["PIPELINES", "Baseline", "ladder", "nx46_score", "nx47_mask", "nx47_score", "score", "segment"]

Baseline: TypeAlias = Literal["nx46", "nx47"]

PIPELINES: dict[str, type[NX46Config] | type[NX47Config]] = {"nx46": NX46Config, "nx47": NX47Config}
"""The baselines by name, each with the class of its parameters."""


def nx46_score(
    volume: NDArray[Any], config: NX46Config | None = None, *, n_threads: int | None = None
) -> NDArray[np.float32]:
    """Energy of the differences around each voxel, blended with the same projected along z.

    Parameters
    ----------
    volume : ndarray of uint8, uint16 or float32, shape (z, y, x)
        CT; finite.
    config : NX46Config, optional
        None: the defaults. Its `threshold_quantile` plays no part here.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        0 or more, at most 1.1; 0 throughout for a constant volume.

    Raises
    ------
    ArgumentError
        NaN or infinite voxels (with their number and the first one's place); another dtype or number of axes; an axis
        of length 0; more than 2**32 - 1 voxels.

    Notes
    -----
    With v the volume scaled to [0, 1], d the backward difference (0 at the first face), M the moving average over
    ``2 r + 1`` slices (the end slices repeat) and w the blend weight, the score is ``w * M(e) + (1 - w) * p``, where

    - ``e = 0.34 |dz v| + 0.22 |dy v| + 0.22 |dx v| + 0.12 |v - M(v)| + 0.10 |second difference of v along z|``,
    - ``p`` is the mean of ``0.45 |dz v| + 0.30 |dy v| + 0.25 |dx v|`` over the whole of z.

    The history averaged e, too, over the whole of z and so had one picture for all slices. Memory: the output, and nine
    rows (z, x) of float32 a thread. Requirement R32.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.baselines import nx46_score
    >>> volume = np.zeros((9, 8, 8), dtype=np.uint8)
    >>> volume[4] = 200
    >>> nx46_score(volume)[:, 4, 4].argmax()
    np.int64(4)
    """
    config = _checked("nx46", config, NX46Config)
    return _core.nx46_score(volume, config.score_blend_3d_weight, config.z_smoothing_radius, n_threads)


def nx47_score(
    volume: NDArray[Any], config: NX47Config | None = None, *, n_threads: int | None = None
) -> NDArray[np.float32]:
    """The soft blend of two cuts through each slice's residual against a Gaussian blur.

    Parameters
    ----------
    volume : ndarray of uint8, uint16 or float32, shape (z, y, x)
        CT; finite.
    config : NX47Config, optional
        None: the defaults. Its `blend_threshold` plays no part here.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        In [0, 1]; 0 throughout for a constant volume.

    Raises
    ------
    ArgumentError
        As in :func:`nx46_score`.

    Notes
    -----
    With v the volume scaled to [0, 1]: the residual is v less its Gaussian blur of sigma ``sigma_gain * std(v) +
    sigma_base``, and m is its mean over the slices z - 1 to z + 1. In each slice, with P the percentile and std the
    deviation of m there:

    - ``high = clip(percentile_base + percentile_gain * (P(95) - P(90)) / std, percentile_base, percentile_max)``,
      ``low = max(high - percentile_gap, percentile_floor)``;
    - ``w`` runs from 0 where ``m = P(low)`` to 1 where ``m = P(high)``;
    - the score is ``w * (both) + (1 - w) * (either)`` of ``m > P(high)`` and ``m > P(low)``: 1 above the high cut, and
      between the two it *falls* from 1 to 0, as it did in the history.

    The blur is ``scipy.ndimage.gaussian_filter(v, sigma, mode="nearest", truncate=4)`` and the percentiles are
    ``numpy.percentile``'s. Memory: the output, and up to a dozen slices of float32 a thread (more where a larger sigma
    is asked for). Requirement R32.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.baselines import nx47_score
    >>> volume = np.zeros((4, 16, 16), dtype=np.uint8)
    >>> volume[:, 8] = 200
    >>> nx47_score(volume)[2, :, 0].argmax()
    np.int64(8)
    """
    config = _checked("nx47", config, NX47Config)
    return _core.nx47_score(
        volume,
        config.sigma_base,
        config.sigma_gain,
        config.percentile_base,
        config.percentile_gain,
        config.percentile_max,
        config.percentile_gap,
        config.percentile_floor,
        n_threads,
    )


def nx47_mask(
    volume: NDArray[Any], config: NX47Config | None = None, *, n_threads: int | None = None
) -> NDArray[np.uint8]:
    """The mask of NX47: where :func:`nx47_score` reaches ``blend_threshold``.

    Parameters
    ----------
    volume, config, n_threads
        As in :func:`nx47_score`.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 and 1.

    Raises
    ------
    ArgumentError
        As in :func:`nx46_score`.

    Notes
    -----
    Requirement R32.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.baselines import nx47_mask
    >>> volume = np.zeros((4, 32, 16), dtype=np.uint8)
    >>> volume[:, 8] = 200
    >>> nx47_mask(volume)[2, :, 0].nonzero()
    (array([8]),)
    """
    config = _checked("nx47", config, NX47Config)
    return (nx47_score(volume, config, n_threads=n_threads) >= np.float32(config.blend_threshold)).view(np.uint8)


def score(
    volume: NDArray[Any],
    pipeline: Baseline = "nx46",
    config: NX46Config | NX47Config | None = None,
    *,
    n_threads: int | None = None,
) -> NDArray[np.float32]:
    """What :func:`segment` cuts: the baseline's score in [0, 1].

    Parameters
    ----------
    volume, pipeline, config, n_threads
        As in :func:`segment`.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        :func:`nx47_score`, or :func:`nx46_score` divided by its greatest value. No probability: nothing was fitted.

    Raises
    ------
    ArgumentError
        As in :func:`segment`.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.baselines import score
    >>> float(score(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), "nx46").max())
    1.0
    """
    if _class_of(pipeline) is NX47Config:
        return nx47_score(volume, cast("NX47Config | None", config), n_threads=n_threads)
    found = nx46_score(volume, cast("NX46Config | None", config), n_threads=n_threads)
    peak = found.max()
    return found if peak == 0 else np.divide(found, peak, out=found)


def segment(
    volume: NDArray[Any],
    pipeline: Baseline = "nx46",
    config: NX46Config | NX47Config | None = None,
    *,
    n_threads: int | None = None,
) -> Segmentation:
    """The mask of one CT volume by a historical scorer, with the diagnostics of :func:`vesu.segment`.

    Parameters
    ----------
    volume : ndarray of uint8, uint16 or float32, shape (z, y, x)
        CT; finite.
    pipeline : {"nx46", "nx47"}
        Which scorer.
    config : NX46Config or NX47Config, optional
        Its parameters. None: the defaults.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    Segmentation
        The mask has the volume's shape. `probability_percentiles` are those of :func:`score`.

    Raises
    ------
    ArgumentError
        An unknown `pipeline`; parameters of another scorer; a volume as in :func:`nx46_score`.

    Notes
    -----
    The threshold is that of :func:`vesu.segment` and nothing else of it runs: no smoothing, no hysteresis, no dust.
    NX46 is cut at a quantile of the volume's own score (to one part in 4096 of its range), NX47 at a fixed soft blend.
    Requirements R30 and R32.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.baselines import segment
    >>> volume = np.random.default_rng(0).integers(0, 256, (16, 32, 32), dtype=np.uint8)
    >>> found = segment(volume, "nx46")
    >>> found.mask.shape, 0.01 < found.diagnostics.ink_ratio_global <= 0.015
    ((16, 32, 32), True)
    """
    steps = ladder(pipeline, config)
    return apply_steps(score(volume, pipeline, config, n_threads=n_threads), steps, n_threads=n_threads)


def ladder(pipeline: Baseline = "nx46", config: NX46Config | NX47Config | None = None) -> SegmentConfig:
    """How a baseline's :func:`score` is cut: its own threshold, and no other step.

    Parameters
    ----------
    pipeline, config
        As in :func:`segment`.

    Returns
    -------
    SegmentConfig
        For :func:`vesu.segment`; with more steps, the comparison that the history never made.

    Raises
    ------
    ArgumentError
        As in :func:`segment`.

    Examples
    --------
    >>> from vesu.baselines import ladder
    >>> ladder("nx46").threshold.rule.value
    0.985
    """
    kind = _class_of(pipeline)
    settings = _checked(pipeline, config, kind)
    if kind is NX46Config:
        rule = ThresholdRule("quantile", settings.threshold_quantile, low_factor=1.0)
    else:
        rule = ThresholdRule("fixed", settings.blend_threshold, low_factor=1.0)
    return SegmentConfig((Threshold(rule),))


def _class_of(pipeline: str) -> type[NX46Config] | type[NX47Config]:
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        raise ArgumentError(f"pipeline: got {pipeline!r}; accepted: {' or '.join(map(repr, PIPELINES))}")
    return PIPELINES[pipeline]


def _checked(pipeline: str, config: Any, kind: type[Any]) -> Any:
    if config is not None and not isinstance(config, kind):
        raise ArgumentError(f"config: got {type(config).__name__} for {pipeline}; accepted: {kind.__name__} or None")
    return config or kind()
