"""The voxels of greatest probability, in a total order."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.volume.arguments import real, whole

CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class ExtremeVoxels:
    """Voxels by score, the greatest first; of equal scores the one earlier in (z, y, x).

    Parameters
    ----------
    positions : ndarray of int64, shape (n, 3)
        (z, y, x) of each.
    scores : ndarray of float32, shape (n,)
        Its probability.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def extreme_voxels(
    probability: NDArray[np.float32], top_k: int, *, at_least: float = 0.0, n_threads: int | None = None
) -> ExtremeVoxels:
    """The voxels of greatest probability, exactly so many, whatever the ties.

    Parameters
    ----------
    probability : ndarray of float32, shape (z, y, x)
        In [0, 1].
    top_k : int
        At most so many; 0 takes all that qualify. The answer takes 28 bytes a voxel: for long ones see
        :func:`iter_extreme_voxels`.
    at_least : float
        Voxels of a smaller probability do not qualify; compared as float32.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ExtremeVoxels
        By score (descending), then z, y, x (ascending): a total order, so the same bits on any machine.

    Raises
    ------
    ArgumentError
        NaN or probabilities outside [0, 1] (with their number and the first one's place); another dtype or number of
        axes; `top_k` or `at_least` out of range; more than 2**32 - 1 voxels.

    Notes
    -----
    Four or five passes that count, and a sort of the answer alone: memory is the answer and some 650 KiB a thread.
    ``-0.0`` counts as 0. Requirement R31.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> p = np.array([[[0.25, 1.0, 0.5], [0.5, 0.0, 0.5]]], dtype=np.float32)
    >>> best = vesu.volume.extreme_voxels(p, 3)
    >>> best.positions.tolist(), best.scores.tolist()
    ([[0, 0, 1], [0, 0, 2], [0, 1, 0]], [1.0, 0.5, 0.5])
    """
    limit = whole("top_k", top_k, "0 (all) or more")
    return _found(probability, _level(at_least), limit or None, None, n_threads)[0]


def iter_extreme_voxels(
    probability: NDArray[np.float32],
    top_k: int = 0,
    *,
    at_least: float = 0.0,
    chunk: int = CHUNK,
    n_threads: int | None = None,
) -> Iterator[ExtremeVoxels]:
    """:func:`extreme_voxels` in pieces of one list, so that memory does not grow with its length.

    Parameters
    ----------
    probability, top_k, at_least, n_threads
        As in :func:`extreme_voxels`; the array must not change meanwhile.
    chunk : int
        Voxels of a piece, 1 or more.

    Yields
    ------
    ExtremeVoxels
        One behind the other, none of them empty; together what :func:`extreme_voxels` gives.

    Raises
    ------
    ArgumentError
        As :func:`extreme_voxels`; a `chunk` of 0.

    Notes
    -----
    Each piece passes over the volume anew, from behind the last voxel of the one before. Requirement R31.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> p = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    >>> [piece.positions.tolist() for piece in vesu.volume.iter_extreme_voxels(p, 3, chunk=2)]
    [[[1, 1, 1], [1, 1, 0]], [[1, 0, 1]]]
    """
    limit, level, size = whole("top_k", top_k, "0 (all) or more"), _level(at_least), whole("chunk", chunk, "1 or more")
    if size == 0:
        raise ArgumentError("chunk: got 0; accepted: 1 or more")
    left = limit or None
    after: tuple[float, int] | None = None
    while left is None or left > 0:
        piece, after, behind = _found(probability, level, size if left is None else min(size, left), after, n_threads)
        if len(piece):
            yield piece
        if behind == 0:
            return
        left = None if left is None else left - len(piece)


def _found(
    probability: NDArray[np.float32],
    at_least: float,
    limit: int | None,
    after: tuple[float, int] | None,
    n_threads: int | None,
) -> tuple[ExtremeVoxels, tuple[float, int] | None, int]:
    """A piece, the last voxel of it, and how many qualify behind that one."""
    voxels, scores, qualifying = _core.extreme_voxels(probability, at_least, limit, after, n_threads)
    positions = np.stack(np.unravel_index(voxels, probability.shape), axis=1)
    last = (float(scores[-1]), int(voxels[-1])) if len(voxels) else after
    return ExtremeVoxels(positions, scores), last, qualifying - len(voxels)


def _level(at_least: float) -> float:
    level = real("at_least", at_least)
    if not 0 <= level <= 1:
        raise ArgumentError(f"at_least: got {at_least!r}; accepted: a number in [0, 1]")
    return level
