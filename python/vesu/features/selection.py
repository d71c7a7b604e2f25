"""Which channels a model sees: by variance, and without those that repeat others (R08)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu import _core
from vesu.features.checks import argument, check_number, describe, integer, strings

T = TypeVar("T")


@dataclass(frozen=True)
class FeatureSelection:
    """Outcome of :func:`select_features`.

    Attributes
    ----------
    indices : tuple of int
        Columns kept, ascending.
    names : tuple of str
        Their names, in the same order.
    variances : tuple of float
        Variance of every column of the input, kept or not.
    dropped : tuple of (str, str)
        Name and reason of every column left out, in column order.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    variances: tuple[float, ...]
    dropped: tuple[tuple[str, str], ...]


def select_features(
    x: NDArray[np.float32],
    names: Sequence[str],
    *,
    y: ArrayLike | None = None,
    min_variance: float = 1e-8,
    max_correlation: float = 0.97,
    top_k: int | None = None,
    n_threads: int | None = None,
) -> FeatureSelection:
    """Choose channels by variance, with a correlation cut.

    1. A column whose variance is 0 or below ``min_variance`` is dropped.
    2. The others are ranked: by absolute correlation with ``y`` where ``y`` is given, else by variance; the higher
       first, equals by column order. (Variances compare columns as they come; with ``normalise=True`` these are all
       in units of the volume's own deviation.)
    3. In that order, a column is dropped when its absolute correlation with one already kept is at least
       ``max_correlation``, and everything after ``top_k`` kept columns is dropped.

    Parameters
    ----------
    x : ndarray of float32, shape (n_samples, n_features)
        Raw columns, as :func:`gather` gives them.
    names
        One name a column.
    y : array_like of shape (n_samples,), optional
        Labels or any finite target.
    min_variance, max_correlation
        Thresholds; ``max_correlation`` in (0, 1], where 1 drops exact copies only.
    top_k
        Keep at most so many; None keeps all that survive, 6 reproduces the historical runs.
    n_threads
        As in :func:`extract_features`.

    Returns
    -------
    FeatureSelection
        Kept columns in column order, and the reason of every dropped one.

    Raises
    ------
    ArgumentError
        NaN or infinity in ``x`` or ``y``, lengths that differ, thresholds out of range.

    Notes
    -----
    Requirement R08. Moments are population moments in double precision, folded in a fixed order: the outcome does
    not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    >>> x = np.stack([a, b, 2 * a, np.zeros_like(a)], axis=1)
    >>> selection = select_features(x, ["a", "b", "twice_a", "flat"])
    >>> selection.names
    ('b', 'twice_a')
    >>> selection.dropped
    (('a', 'correlation +1.000 with twice_a'), ('flat', 'variance 0 below 1e-08'))
    """
    names = strings("names", names)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != len(names):
        raise argument("x", describe(x), f"a 2-D array of {len(names)} columns, one a name")
    table = x if y is None else np.column_stack([x, _target(y, len(x))])
    _, covariance = _core.feature_moments(table, n_threads)
    return _selection(covariance, names, y is not None, min_variance, max_correlation, top_k)


def select_features_of(
    parts: Callable[[], Iterable[tuple[NDArray[np.float32], ArrayLike]]],
    names: Sequence[str],
    *,
    min_variance: float = 1e-8,
    max_correlation: float = 0.97,
    top_k: int | None = None,
    n_threads: int | None = None,
) -> FeatureSelection:
    """:func:`select_features` of rows that come in parts and are never held together; the outcome is the same.

    Parameters
    ----------
    parts : callable
        Gives the parts ``(x, y)`` in their order; it is called twice.
    names, min_variance, max_correlation, top_k, n_threads
        As in :func:`select_features`.

    Returns
    -------
    FeatureSelection

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    >>> select_features_of(lambda: [(x[:30], x[:30, 0] > 0), (x[30:], x[30:, 0] > 0)], ["a", "b"]).names
    ('a', 'b')
    """
    names = strings("names", names)

    def total(centre: list[float] | None) -> tuple[NDArray[np.float64], int]:
        shape = (len(names) + 1,) * (1 if centre is None else 2)
        sums, rest, n_rows = np.zeros(shape), np.empty((0, len(names) + 1), np.float32), 0
        for last, (x, y) in _marked(parts()):
            table = np.concatenate([rest, np.column_stack([x, _target(y, len(x))])])
            whole = len(table) if last else len(table) - len(table) % _core.FEATURE_MOMENT_CHUNK
            n_rows += whole
            rest = table[whole:]
            for chunk in _core.feature_moment_sums(table[:whole], centre, n_threads) if whole else ():
                sums += chunk
        return sums, n_rows

    sums, n_rows = total(None)
    products, _ = total((sums / n_rows).tolist())
    upper = products / n_rows
    covariance = np.triu(upper) + np.triu(upper, 1).T
    return _selection(covariance, names, True, min_variance, max_correlation, top_k)


def _marked(parts: Iterable[T]) -> Iterator[tuple[bool, T]]:
    """Each part, and before it whether it is the last."""
    held: list[T] = []
    for part in parts:
        if held:
            yield False, held.pop()
        held.append(part)
    if held:
        yield True, held.pop()


def _selection(
    covariance: NDArray[np.float64],
    names: Sequence[str],
    has_target: bool,
    min_variance: float,
    max_correlation: float,
    top_k: int | None,
) -> FeatureSelection:
    """Of the columns of these names, from their covariance, with that of a target behind them."""
    check_number("min_variance", min_variance, 0.0, np.inf)
    check_number("max_correlation", max_correlation, np.nextafter(0, 1), 1.0)
    limit = len(names) if top_k is None else integer("top_k", top_k, 1, 2**31)
    variances = np.diag(covariance)[: len(names)]
    informative = [i for i, variance in enumerate(variances) if variance > 0 and variance >= min_variance]
    correlation = _correlation(covariance)
    merit = np.abs(correlation[: len(names), -1]) if has_target else variances
    criterion = "correlation with y" if has_target else "variance"

    reasons = {i: f"variance {variances[i]:.4g} below {min_variance:g}" for i in range(len(names))}
    kept: list[int] = []
    for i in sorted(informative, key=lambda i: -merit[i]):  # stable: equals stay in column order
        twin = next((j for j in kept if abs(correlation[i, j]) >= max_correlation), None)
        if twin is not None:
            reasons[i] = f"correlation {correlation[i, twin]:+.3f} with {names[twin]}"
        elif len(kept) == limit:
            reasons[i] = f"{criterion} {merit[i]:.4g} ranks after the first {limit}"
        else:
            kept.append(i)
    kept.sort()
    dropped = tuple((names[i], reasons[i]) for i in range(len(names)) if i not in kept)
    return FeatureSelection(tuple(kept), tuple(names[i] for i in kept), tuple(variances.tolist()), dropped)


def _correlation(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = np.sqrt(np.diag(covariance))
    deviation[deviation == 0] = np.inf  # a constant correlates with nothing
    # Rounding may leave exact copies a few units in the last place short of 1; do not let them escape a cut at 1.
    return np.asarray(np.round(covariance / deviation[:, None] / deviation[None, :], 12))


def _target(y: ArrayLike, n_rows: int) -> NDArray[np.float32]:
    given = np.asarray(y)
    if given.shape != (n_rows,) or given.dtype.kind not in "biuf":
        raise argument("y", describe(given), f"{n_rows} numbers, one a row of x")
    with np.errstate(over="ignore"):
        target = given.astype(np.float32)
    bad = ~np.isfinite(target)
    if bad.any():
        raise argument("y", f"{bad.sum()} non-finite values, the first at {bad.argmax()}", "finite values only")
    return target
