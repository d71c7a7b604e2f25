"""Paired gains and the rule by which a variant is promoted (R10, R21, R26, R43).

A gain counts when it is stable, not when it is the largest of many.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError

__all__ = ["PairedGain", "Promotion", "Scores", "paired_gain", "promote", "promote_in_steps"]

Emit: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Writes an event: its name, then its fields."""

Scores: TypeAlias = Mapping[int, float | Mapping[str, float]]
"""A variant's score by seed: one number, or one a validation volume; higher is better."""

ONE_NUMBER = "all"
"""Stands for the volumes where a score is one number."""

N_RESAMPLES = 10_000
RESAMPLING_SEED = 26


@dataclass(frozen=True)
class PairedGain:
    """Differences of two variants' scores, seed by seed and volume by volume.

    Attributes
    ----------
    seeds : tuple of int
    volumes : tuple of str
        ``("all",)`` where a seed's score was one number.
    differences : tuple of tuple of float, seeds x volumes
        Variant less baseline.
    mean, low, high : float
        Mean of all differences, and its bootstrap interval.
    confidence : float
        Of the interval.
    """

    seeds: tuple[int, ...]
    volumes: tuple[str, ...]
    differences: tuple[tuple[float, ...], ...]
    mean: float
    low: float
    high: float
    confidence: float

    @property
    def by_seed(self) -> tuple[float, ...]:
        """Mean difference of each seed."""
        return tuple(float(np.mean(row)) for row in self.differences)

    def is_stable(self, min_gain: float = 0.0, min_seeds: int = 2) -> bool:
        """The rule: `min_seeds` or more, a gain above `min_gain` in every one, and the interval above it too."""
        return len(self.seeds) >= max(min_seeds, 2) and min(self.by_seed) > min_gain and self.low > min_gain

    def to_json(self) -> dict[str, Any]:
        """JSON types: the content of events and files."""
        return {
            "seeds": list(self.seeds),
            "volumes": list(self.volumes),
            "differences": [list(row) for row in self.differences],
            "by_seed": list(self.by_seed),
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
        }


@dataclass(frozen=True)
class Promotion:
    """Whether a variant takes the baseline's place, and why."""

    baseline: str
    variant: str
    promoted: bool
    reason: str
    gain: PairedGain

    def to_json(self) -> dict[str, Any]:
        """JSON types: the fields of ``VARIANT_PROMOTION``."""
        return {
            "baseline": self.baseline,
            "variant": self.variant,
            "promoted": self.promoted,
            "reason": self.reason,
            "gain": self.gain.to_json(),
        }


def paired_gain(baseline: Scores, variant: Scores, *, confidence: float = 0.95) -> PairedGain:
    """How much better a variant is than a baseline on the same seeds and volumes.

    Parameters
    ----------
    baseline, variant : mapping of int to float, or of int to mapping of str to float
        Scores by seed, and by volume where there are several; the same seeds and volumes in both.
    confidence : float
        Of the interval, in (0, 1).

    Returns
    -------
    PairedGain

    Raises
    ------
    ArgumentError
        No scores; seeds or volumes that differ; a score that is not finite; `confidence` out of range.

    Notes
    -----
    Requirement R26. The interval is the percentile bootstrap of the mean with seeds and volumes drawn independently of
    each other (Owen 2007, "The pigeonhole bootstrap"), because differences of one seed share a student and those of
    one volume its difficulty; 10,000 resamples of a fixed seed, so the same scores give the same bits. With one volume
    the interval lies above 0 wherever all differences do: then only the signs are tested, and a useless variant passes
    once in four times with two seeds, once in 32 with five.

    Examples
    --------
    >>> gain = paired_gain({0: 0.50, 1: 0.53}, {0: 0.52, 1: 0.54})
    >>> round(gain.mean, 3), round(gain.low, 3), round(gain.high, 3), gain.is_stable()
    (0.015, 0.01, 0.02, True)
    """
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence: got {confidence!r}; accepted: a number between 0 and 1")
    seeds, volumes, before = _table("baseline", baseline)
    other_seeds, other_volumes, after = _table("variant", variant)
    if (seeds, volumes) != (other_seeds, other_volumes):
        got = f"seeds {other_seeds} and volumes {other_volumes}"
        raise ArgumentError(f"variant: got {got}; accepted: those of baseline, {seeds} and {volumes}")
    difference = after - before
    tail = 50 * (1 - confidence)
    # Both ends are values that a resample took: between two of them there is nothing.
    low, high = np.percentile(_resampled_means(difference), [tail, 100 - tail], method="nearest")
    rows = tuple(tuple(row) for row in difference.tolist())
    return PairedGain(seeds, volumes, rows, float(difference.mean()), float(low), float(high), confidence)


def promote(
    baseline: Scores,
    variant: Scores,
    *,
    names: tuple[str, str] = ("baseline", "variant"),
    min_gain: float = 0.0,
    min_seeds: int = 2,
    confidence: float = 0.95,
    emit: Emit | None = None,
) -> Promotion:
    """Whether a variant is promoted: only on a stable gain.

    Parameters
    ----------
    baseline, variant, confidence
        See :func:`paired_gain`.
    names : (str, str)
        Of baseline and variant, for the record.
    min_gain : float
        Smaller gains than this are not worth the change.
    min_seeds : int
        Fewer seeds than this promote nothing (at least two).
    emit : callable, optional
        Gets ``VARIANT_PROMOTION`` with the decision and its figures.

    Returns
    -------
    Promotion
        Promoted if there are `min_seeds` or more, the gain of each exceeds `min_gain`, and so does the interval's lower
        end; `reason` says which did not.

    Raises
    ------
    ArgumentError
        See :func:`paired_gain`.

    Notes
    -----
    Requirement R26.

    Examples
    --------
    >>> promote({0: 0.50, 1: 0.53}, {0: 0.58, 1: 0.52}).reason
    'seed 1: gain -0.01, not above 0'
    """
    gain = paired_gain(baseline, variant, confidence=confidence)
    decision = Promotion(*names, gain.is_stable(min_gain, min_seeds), _reason(gain, min_gain, min_seeds), gain)
    if emit is not None:
        emit("VARIANT_PROMOTION", decision.to_json())
    return decision


def promote_in_steps(
    variants: Mapping[str, Scores],
    *,
    min_gain: float = 0.0,
    min_seeds: int = 2,
    confidence: float = 0.95,
    emit: Emit | None = None,
) -> tuple[str, tuple[Promotion, ...]]:
    """The campaign: each variant in turn against the best so far, as P1, P2, P3 (R26).

    Parameters
    ----------
    variants : mapping of str to scores
        In the order of the campaign, the simplest first.
    min_gain, min_seeds, confidence, emit
        See :func:`promote`.

    Returns
    -------
    name : str
        The variant that stands at the end; the first, unless others won.
    promotions : tuple of Promotion
        The decisions, one a variant after the first.

    Raises
    ------
    ArgumentError
        No variant; see :func:`paired_gain`.

    Examples
    --------
    >>> scores = {"P1": {0: 0.5, 1: 0.6}, "P2": {0: 0.7, 1: 0.5}, "P3": {0: 0.6, 1: 0.7}}
    >>> best, promotions = promote_in_steps(scores)
    >>> best, [(each.baseline, each.variant, each.promoted) for each in promotions]
    ('P3', [('P1', 'P2', False), ('P1', 'P3', True)])
    """
    if not variants:
        raise ArgumentError("variants: got none; accepted: at least one")
    best, *others = variants
    decisions = []
    for name in others:
        decision = promote(
            variants[best],
            variants[name],
            names=(best, name),
            min_gain=min_gain,
            min_seeds=min_seeds,
            confidence=confidence,
            emit=emit,
        )
        decisions.append(decision)
        best = name if decision.promoted else best
    return best, tuple(decisions)


def _reason(gain: PairedGain, min_gain: float, min_seeds: int) -> str:
    if len(gain.seeds) < 2:
        return "one seed: nothing is known of its stability"
    if len(gain.seeds) < min_seeds:
        return f"{len(gain.seeds)} seeds, {min_seeds} are needed"
    for seed, each in zip(gain.seeds, gain.by_seed, strict=True):
        if not each > min_gain:
            return f"seed {seed}: gain {each:.3g}, not above {min_gain:g}"
    interval = f"{gain.confidence:.0%} interval {gain.low:.3g} to {gain.high:.3g}"
    where = "above" if gain.low > min_gain else "not above"
    return f"mean gain {gain.mean:.3g}, {interval}, {where} {min_gain:g}"


def _table(name: str, scores: Scores) -> tuple[tuple[int, ...], tuple[str, ...], NDArray[np.float64]]:
    """Seeds, volumes, and the scores as float64 (seeds, volumes), both sorted."""
    if not scores:
        raise ArgumentError(f"{name}: got no scores; accepted: at least one seed's")
    seeds = tuple(sorted(scores))
    rows = [_by_volume(scores[seed]) for seed in seeds]
    volumes = tuple(sorted(rows[0]))
    for seed, row in zip(seeds, rows, strict=True):
        if not row or tuple(sorted(row)) != volumes:
            got = f"volumes {sorted(row)} of seed {seed}"
            raise ArgumentError(f"{name}: got {got}; accepted: the same volumes with every seed, one or more")
    values = np.array([[row[volume] for volume in volumes] for row in rows], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ArgumentError(f"{name}: got scores {values.tolist()}; accepted: finite numbers")
    return seeds, volumes, values


def _by_volume(score: float | Mapping[str, float]) -> Mapping[str, float]:
    return score if isinstance(score, Mapping) else {ONE_NUMBER: score}


def _resampled_means(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of bootstrap resamples of rows and of columns."""
    generator = np.random.Generator(np.random.Philox(RESAMPLING_SEED))
    shares: Sequence[NDArray[np.float64]] = [
        generator.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) / n for n in difference.shape
    ]
    means: NDArray[np.float64] = np.einsum("bs,sv,bv->b", shares[0], difference, shares[1])
    return means
