"""Sampled voxels of many volumes in one table that is never held twice: at 786 volumes a copy is gigabytes (R16)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.grid_search import Samples

__all__ = ["RowTable", "Rows"]

_BLOCK = 1 << 18
"""Rows that are worked on at a time where a whole column set would be too much."""


@dataclass(frozen=True)
class Rows:
    """Sampled voxels of one volume: raw features, their spatial gradient magnitudes, targets."""

    x: NDArray[np.float32]
    g: NDArray[np.float32]
    y: NDArray[np.uint8]


class RowTable:
    """Rows one volume after the other, in the order in which they come.

    Parameters
    ----------
    capacity : int
        The most rows that will come. Room that is never filled takes no memory: the system gives pages when they are
        written to.
    channels : sequence of int
        The columns of the rows to keep, in this order.

    Examples
    --------
    >>> table = RowTable(capacity=3, channels=(0, 1))
    >>> table.append(Rows(np.float32([[1, 2], [3, 4]]), np.float32([[5, 6], [7, 8]]), np.uint8([0, 1])))
    >>> samples = table.samples((1,))
    >>> samples.x.tolist(), samples.gradient.tolist(), samples.y.tolist()
    ([[2.0], [4.0]], [[6.0], [8.0]], [0, 1])
    """

    def __init__(self, capacity: int, channels: Sequence[int]) -> None:
        self._channels = list(channels)
        self._x = np.empty((capacity, len(self._channels)), np.float32)
        self._g = np.empty_like(self._x)
        self._y = np.empty(capacity, np.uint8)
        self._filled = 0

    @classmethod
    def of(cls, parts: Sequence[Rows], channels: Sequence[int]) -> "RowTable":
        """These columns of volumes whose rows are there already."""
        table = cls(sum(len(rows.y) for rows in parts), channels)
        for rows in parts:
            table.append(rows)
        return table

    def __len__(self) -> int:
        return self._filled

    def append(self, rows: Rows) -> None:
        """Take the rows of one more volume; they are copied."""
        place = slice(self._filled, self._filled + len(rows.y))
        self._x[place] = rows.x[:, self._channels]
        self._g[place] = rows.g[:, self._channels]
        self._y[place] = rows.y
        self._filled = place.stop

    def parts(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        """Features and targets, some rows at a time; copies, so that nobody holds on to the table's memory."""
        for block in _blocks(self._filled):
            yield self._x[block].copy(), self._y[block].copy()

    def samples(self, columns: Iterable[int] | None = None) -> Samples:
        """The rows as the search takes them, of these columns only; and the table is used up."""
        chosen = list(range(len(self._channels)) if columns is None else columns)
        found = Samples(
            _narrowed(self._x, self._filled, chosen),
            _shortened(self._y, (self._filled,)),
            _narrowed(self._g, self._filled, chosen),
        )
        del self._x, self._g, self._y
        return found


def _narrowed(table: NDArray[np.float32], n_rows: int, columns: Sequence[int]) -> NDArray[np.float32]:
    """The first rows and the chosen columns, moved to the front of the same memory; the rest of it is given back."""
    width, flat = len(columns), table.reshape(-1)
    if list(columns) != list(range(table.shape[1])):
        for block in _blocks(n_rows):  # what is written over was read before: narrow rows never overtake wide ones
            flat[block.start * width : block.stop * width] = table[block][:, list(columns)].reshape(-1)
    del flat
    return _shortened(table, (n_rows, width))


def _shortened(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The same memory, cut to the first elements in this shape."""
    array.resize(shape, refcheck=False)  # nobody else holds a view of a table's memory
    return array


def _blocks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, n_rows))
