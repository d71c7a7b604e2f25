"""A network over a whole volume: overlapping windows, each in all its flips, blended by Gaussian weights (R18, R19)."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.distill.device import BatchLimit, ComputeDevice, memory_errors
from vesu.distill.packages import need_package
from vesu.distill.values import Emit
from vesu.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import torch
else:
    torch = need_package("torch", "distill")

__all__ = ["n_windows", "sliding_logits", "tta_flips", "window_starts"]

Predict: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Axes: TypeAlias = tuple[int, ...]

SPATIAL = 3
SIGMA = 0.125
"""Standard deviation of the Gaussian weights, as a part of the window."""


def tta_flips(flips: bool = True) -> tuple[Axes, ...]:
    """The axes that each of the eight mirror images is flipped along, the image itself first.

    Parameters
    ----------
    flips : bool
        False gives the image itself alone.

    Returns
    -------
    tuple of tuples of int
        0, 1 and 2 are z, y and x.

    Examples
    --------
    >>> tta_flips()
    ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    >>> tta_flips(False)
    ((),)
    """
    counts = range(SPATIAL + 1) if flips else range(1)
    return tuple(axes for n in counts for axes in itertools.combinations(range(SPATIAL), n))


def window_starts(size: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Where windows begin along an axis, the last one shifted back to end with the volume.

    Parameters
    ----------
    size, patch : int
        Voxels of the volume and of a window; the volume is at least a window long.
    overlap : float
        Of neighbouring windows, as a part of a window; in [0, 1).

    Returns
    -------
    tuple of int
        Ascending; the same as MONAI's ``SlidingWindowInferer``.

    Examples
    --------
    >>> window_starts(320, 128, 0.5)
    (0, 64, 128, 192)
    >>> window_starts(100, 64, 0.25)
    (0, 36)
    """
    step = max(1, int(patch * (1 - overlap)))
    n = math.ceil((size - patch) / step) + 1
    return tuple(min(i * step, size - patch) for i in range(n))


def n_windows(shape: Sequence[int], patch: Sequence[int], overlap: float) -> int:
    """Windows that a volume is covered with; each is shown once a flip.

    Parameters
    ----------
    shape, patch : sequence of int
        Voxels (z, y, x) of the volume and of a window.
    overlap : float
        In [0, 1).

    Returns
    -------
    int

    Examples
    --------
    >>> n_windows((320, 320, 320), (128, 128, 128), 0.5)
    64
    """
    axes = zip(shape, patch, strict=True)
    return math.prod(len(window_starts(max(size, side), side, overlap)) for size, side in axes)


def sliding_logits(
    predict: Predict,
    volume: NDArray[np.float32],
    *,
    patch: tuple[int, int, int],
    overlap: float = 0.5,
    flips: bool = True,
    batch: int | BatchLimit = 1,
    device: "ComputeDevice | torch.device | str" = "cpu",
    n_outputs: int = 1,
    emit: Emit | None = None,
    on_part: Callable[[float], object] | None = None,
    poll: Callable[[], object] | None = None,
) -> NDArray[np.float32]:
    """A network's answer for a whole volume: the weighted mean over all windows and their flips.

    Parameters
    ----------
    predict : callable
        Windows (b, 1, z, y, x), float32 on ``device``, to answers (b, n_outputs, z, y, x); called without gradients.
    volume : ndarray of float32, shape (z, y, x)
        Normalised as ``predict`` expects it. Where it is smaller than a window it is padded by reflection.
    patch : (int, int, int)
        Voxels of a window (z, y, x).
    overlap : float
        Of neighbouring windows, as a part of a window; in [0, 1).
    flips : bool
        Show each window in its eight mirror images, and turn the answers back.
    batch : int or BatchLimit
        Windows of one call, each flip counted as one; halved where memory does not suffice.
    device : ComputeDevice, torch.device or str
        Where windows and sums are.
    n_outputs : int
        Channels of the answer.
    emit : callable, optional
        Gets ``OUT_OF_MEMORY_SMALLER_BATCH``, if ``batch`` is a number.
    on_part : callable, optional
        Gets the part done, up to 1, after each batch.
    poll : callable, optional
        Called before each batch; what it raises ends the work.

    Returns
    -------
    ndarray of float32, shape (n_outputs, z, y, x)

    Raises
    ------
    ArgumentError
        A volume, window, overlap or batch that is none; a ``predict`` that answers in another shape.
    DataError
        An answer that is not finite.
    MemoryLimitError
        One window does not fit into the memory.
    MissingPackageError
        MONAI is not installed.

    Notes
    -----
    Requirements R18, R19. Windows, their order and the Gaussian weights are those of MONAI's ``SlidingWindowInferer``
    (``mode="gaussian"``). Sums are kept for one layer of windows, not for the volume: a layer's planes are
    written out when no later window reaches them. Contributions are added in a fixed order, without atomics: the same
    answers of ``predict`` give the same bits, however they are batched.

    Examples
    --------
    >>> import numpy as np
    >>> volume = np.random.default_rng(0).random((5, 20, 9), dtype=np.float32)
    >>> double = sliding_logits(lambda windows: 2 * windows, volume, patch=(8, 8, 8))
    >>> double.shape, bool(np.allclose(double[0], 2 * volume))
    ((1, 5, 20, 9), True)
    """
    _check(volume, patch, overlap, n_outputs)
    limit = batch if isinstance(batch, BatchLimit) else BatchLimit(batch, emit)
    padded, inside = _padded(volume, patch)
    place = torch.device(str(device))
    starts = [window_starts(size, side, overlap) for size, side in zip(padded.shape, patch, strict=True)]
    answer = np.empty((n_outputs, *padded.shape), np.float32)
    mirrored = tta_flips(flips)
    with memory_errors(f"a volume of {volume.shape} and its sums"):
        source = torch.from_numpy(np.require(padded, requirements=["C", "W"])).to(place)
        layer = _Layer(n_outputs, len(mirrored), patch[0], padded.shape[1:], place)
    task = _Task(predict, source, patch, n_outputs, limit, poll, on_part)
    shown = [_Shown(corner, flip) for corner in itertools.product(*starts) for flip in mirrored]
    with torch.inference_mode():
        importance = _importance(patch, place)
        z = 0
        for window, output in task.answers(shown):
            if window.corner[0] > z:  # no later window reaches the planes before it
                answer[:, z : window.corner[0]] = layer.finish(window.corner[0] - z)
                z = window.corner[0]
            layer.add(window, output, importance)
        answer[:, z:] = layer.finish(patch[0])
    if not np.isfinite(answer).all():
        raise DataError("predict: gave answers that are not finite (NaN, or beyond float32)")
    return answer if padded is volume else np.ascontiguousarray(answer[inside])


@dataclass(frozen=True)
class _Shown:
    """A window as the network saw it."""

    corner: Axes
    flip: Axes


@dataclass
class _Task:
    """What does not change from window to window."""

    predict: Predict
    volume: torch.Tensor
    patch: tuple[int, int, int]
    n_outputs: int
    limit: BatchLimit
    poll: Callable[[], object] | None
    on_part: Callable[[float], object] | None

    def answers(self, shown: Sequence[_Shown]) -> Iterator[tuple[_Shown, torch.Tensor]]:
        """The answers one by one, computed batch by batch; on_part hears of a batch when all of it was taken."""
        done = 0

        def first(n: int) -> torch.Tensor:
            return self._predict(shown[done : done + n])

        while done < len(shown):
            if self.poll is not None:
                self.poll()
            outputs, n = self.limit.run(first, len(shown) - done)
            yield from zip(shown[done : done + n], outputs, strict=True)
            del outputs
            done += n
            if self.on_part is not None:
                self.on_part(done / len(shown))

    def _predict(self, shown: Sequence[_Shown]) -> torch.Tensor:
        windows = torch.stack([_flip(_window(self.volume, s.corner, self.patch), s.flip) for s in shown])
        outputs = self.predict(windows.unsqueeze(1))
        expected = (len(shown), self.n_outputs, *self.patch)
        if not isinstance(outputs, torch.Tensor) or tuple(outputs.shape) != expected:
            got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise ArgumentError(f"predict: answered {got} to {tuple(windows.shape)}; accepted: a tensor of {expected}")
        return outputs.to(self.volume.device, torch.float32)


class _Layer:
    """Weighted sums and weights of the planes that one layer of windows covers."""

    def __init__(self, n_outputs: int, n_flips: int, depth: int, plane: Sequence[int], device: torch.device) -> None:
        self._n_flips = n_flips
        self._depth = depth
        self._sums = torch.zeros((n_outputs, depth, *plane), device=device)
        self._weights = torch.zeros((depth, *plane), device=device)

    def add(self, window: _Shown, output: torch.Tensor, importance: torch.Tensor) -> None:
        """Add an answer (n_outputs, z, y, x), turned back."""
        corner = (0, *window.corner[1:])
        _window(self._sums, corner, importance.shape).addcmul_(_flip(output, window.flip), importance)
        if not window.flip:  # once for all its flips: they weigh the same
            _window(self._weights, corner, importance.shape).add_(importance, alpha=self._n_flips)

    def finish(self, n: int) -> NDArray[Any]:
        """The mean of the first n planes, (n_outputs, n, y, x); the planes after them move to the front."""
        mean: NDArray[Any] = (self._sums[:, :n] / self._weights[:n]).cpu().numpy()
        for sums in (self._sums.transpose(0, 1), self._weights):
            for plane in range(self._depth - n):  # one by one: no copy of the whole
                sums[plane] = sums[plane + n]
            sums[self._depth - n :] = 0
        return mean


def _window(tensor: torch.Tensor, corner: Sequence[int], sides: Sequence[int]) -> torch.Tensor:
    """A view of the last three axes."""
    inside: tuple[Any, ...] = tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
    return tensor[(..., *inside)]


def _flip(tensor: torch.Tensor, axes: Axes) -> torch.Tensor:
    return tensor.flip([axis - SPATIAL for axis in axes]) if axes else tensor


def _importance(patch: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    weights = need_package("monai.data.utils", "distill").compute_importance_map(
        patch, mode="gaussian", sigma_scale=SIGMA
    )
    on_device: torch.Tensor = weights.to(device)
    return on_device


def _padded(volume: NDArray[np.float32], patch: Sequence[int]) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """The volume, reflected to at least a window, and where it lies in the answer."""
    missing = [max(0, side - size) for size, side in zip(volume.shape, patch, strict=True)]
    before = [m // 2 for m in missing]
    inside = tuple(slice(b, b + size) for b, size in zip(before, volume.shape, strict=True))
    if not any(missing):
        return volume, (slice(None), *inside)
    both = [(b, m - b) for b, m in zip(before, missing, strict=True)]
    return np.pad(volume, both, mode="reflect"), (slice(None), *inside)


def _check(volume: NDArray[np.float32], patch: Sequence[int], overlap: float, n_outputs: int) -> None:
    if not isinstance(volume, np.ndarray) or volume.ndim != SPATIAL or volume.dtype != np.float32 or not volume.size:
        got = f"{volume.dtype} {volume.shape}" if isinstance(volume, np.ndarray) else type(volume).__name__
        raise ArgumentError(f"volume: got {got}; accepted: a float32 array (z, y, x) with voxels in it")
    if len(patch) != SPATIAL or not all(isinstance(side, int) and side >= 1 for side in patch):
        raise ArgumentError(f"patch: got {patch!r}; accepted: three integers (z, y, x), 1 or more each")
    if not 0 <= overlap < 1:
        raise ArgumentError(f"overlap: got {overlap!r}; accepted: 0 or more, below 1")
    if n_outputs < 1:
        raise ArgumentError(f"n_outputs: got {n_outputs!r}; accepted: 1 or more")
