"""Patches drawn where surfaces are; a patch is a pure function of seed, stage and index (R19)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.distill.augment import Augmentation
from vesu.distill.values import TrainingVolume
from vesu.errors import ArgumentError, DataError

__all__ = ["Patch", "PatchPlan", "PatchSampler", "PreparedVolume", "moments", "standardise"]

BACKGROUND, SURFACE, UNLABELLED = 0, 1, 2
SHARES = {SURFACE: 0.6, BACKGROUND: 0.15}
"""Of the patches, those whose middle is near a surface, and near known background; the rest lie anywhere."""
JITTER = 0.25
"""How far, in patch lengths, a patch's middle may lie from the voxel that it was drawn for."""
PLAN_STREAM, NOISE_STREAM, ORDER_STREAM = 0, 1, 2

Skeletonise: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class PatchPlan:
    """Where a patch lies and what is done to it: plain values, nothing is cut yet."""

    volume: int
    """Which of the sampler's volumes."""
    corner: tuple[int, int, int]
    """First voxel (z, y, x)."""
    augmentation: Augmentation


@dataclass(frozen=True, eq=False)
class Patch:
    """One sample of a training step; arrays (z, y, x)."""

    volume_id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    """0 background, 1 surface, 2 unlabelled or outside of the volume; None where there is no ground truth."""
    soft_logit: NDArray[np.float32] | None
    confidence: NDArray[np.float32] | None
    """Weight of the soft label, 0 outside of the volume."""
    skeleton: NDArray[np.uint8] | None
    """Of the label's surfaces; None where there is no ground truth."""


class PreparedVolume:
    """A checked volume with the counts that draws need; beside it only a bit a voxel is kept, of its skeleton.

    Parameters
    ----------
    volume : TrainingVolume
        Its image, label and soft labels are of one shape.
    skeletonise : callable, optional
        From a whole label to its skeleton, uint8 0/1; called once, when the first patch is cut.

    Raises
    ------
    DataError
        Shapes or types that do not fit, label values beyond 2, image values that are not finite; the message names
        the volume.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((8, 8, 8), np.uint8)
    >>> label[4] = 1
    >>> PreparedVolume(TrainingVolume("a", label * np.uint8(100), label)).available(SURFACE)
    64
    """

    def __init__(self, volume: TrainingVolume, skeletonise: Skeletonise | None = None) -> None:
        _check(volume)
        self.volume = volume
        self._skeletonise = skeletonise
        self.mean, self.deviation = moments(volume.image)
        slices = range(volume.image.shape[0])
        self._counts = {
            kind: np.array([np.count_nonzero(self._members(kind, z)) for z in slices], np.int64) for kind in SHARES
        }

    def available(self, kind: int) -> int:
        """How many voxels of a kind there are: by the label, without one by the sign of the teachers' mean logit."""
        return int(self._counts[kind].sum())

    def locate(self, kind: int, rank: int) -> tuple[int, int, int]:
        """The voxel of a kind with this rank in C order."""
        ends = np.cumsum(self._counts[kind])
        z = int(np.searchsorted(ends, rank, side="right"))
        members = np.flatnonzero(self._members(kind, z))
        y, x = divmod(int(members[rank - (ends[z] - self._counts[kind][z])]), self.volume.image.shape[2])
        return z, y, x

    def skeleton(self, corner: tuple[int, int, int], patch: tuple[int, int, int]) -> NDArray[np.uint8] | None:
        """A box of the label's skeleton; None without a label, or where none is asked for."""
        if self._packed is None:
            return None
        (z, y, x), (depth, height, width) = corner, patch
        rows = self._packed[z : z + depth, y : y + height]
        return np.unpackbits(rows, axis=2, count=self.volume.image.shape[2])[:, :, x : x + width]

    @cached_property
    def _packed(self) -> NDArray[np.uint8] | None:
        if self.volume.label is None or self._skeletonise is None:
            return None
        return np.packbits(self._skeletonise(self.volume.label), axis=2)

    def _members(self, kind: int, z: int) -> NDArray[np.bool_]:
        if self.volume.label is not None:
            return np.asarray(self.volume.label[z] == kind)
        if self.volume.soft is not None:
            return np.asarray((self.volume.soft.mean_logit[z] > 0) == (kind == SURFACE))
        return np.zeros(self.volume.image.shape[1:], bool)


class PatchSampler:
    """Cuts patches; the same (seed, stage, index) gives the same patch, in any order and on any worker (R19).

    Parameters
    ----------
    volumes : sequence of PreparedVolume
        Each is drawn from once in every ``len(volumes)`` patches, in an order drawn anew each time.
    patch : tuple of int
        Voxels (z, y, x). A volume that is smaller is reflected at its faces; what is added counts in no loss.
    seed : int
        0 or more.
    stage : str
        Name of the stage: each has its own stream of draws.

    Raises
    ------
    ArgumentError
        No volume.

    Notes
    -----
    R19. Six patches of ten lie about a surface voxel, three of twenty about a voxel known to be background, the
    others anywhere; the middle is up to a quarter of a patch off. Philox-4x64 keyed by seed and stage, the index in
    its counter, as :mod:`vesu.data.sampling`. NumPy may change its distributions between releases.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((16, 16, 16), np.uint8)
    >>> label[8] = 1
    >>> volume = PreparedVolume(TrainingVolume("a", label * np.uint8(100), label))
    >>> sampler = PatchSampler([volume], (8, 8, 8), seed=0, stage="distil")
    >>> sampler.plan(3) == sampler.plan(3)
    True
    >>> sampler.cut(sampler.plan(3)).image.shape
    (8, 8, 8)
    """

    def __init__(
        self,
        volumes: Sequence[PreparedVolume],
        patch: tuple[int, int, int],
        *,
        seed: int,
        stage: str,
    ) -> None:
        if not volumes:
            raise ArgumentError("volumes: got none; accepted: at least one to draw patches from")
        self.volumes = tuple(volumes)
        self.patch = patch
        self._key = int(_core.blake3_bytes(f"vesu.patches.v1;{int(seed)};{stage}".encode())[:32], 16)

    def __getitem__(self, index: int) -> Patch:
        return self.cut(self.plan(index), self._generator(NOISE_STREAM, index))

    def plan(self, index: int) -> PatchPlan:
        """Volume, corner and augmentation of the patch ``index``, 0 or more."""
        generator = self._generator(PLAN_STREAM, index)
        turn, place = divmod(index, len(self.volumes))
        number = int(self._generator(ORDER_STREAM, turn).permutation(len(self.volumes))[place])
        corner = self._corner(self.volumes[number], generator)
        square = self.patch[1] == self.patch[2]
        return PatchPlan(number, corner, Augmentation.draw(generator, square=square))

    def cut(self, plan: PatchPlan, noise: np.random.Generator | None = None) -> Patch:
        """The patch of a plan; ``noise`` is the generator of its white noise, without one there is none."""
        prepared = self.volumes[plan.volume]
        volume, geometric = prepared.volume, plan.augmentation.geometric

        def cut(array: NDArray[Any], outside: int | None) -> NDArray[Any]:
            return geometric(_padded(_box(array, plan.corner, self.patch), self.patch, outside))

        image = standardise(cut(volume.image, None), prepared.mean, prepared.deviation)
        if noise is not None:
            image = plan.augmentation.intensity(image, noise)
        label = None if volume.label is None else cut(volume.label, UNLABELLED)
        soft = volume.soft
        skeleton = prepared.skeleton(plan.corner, self.patch)
        return Patch(
            volume_id=volume.volume_id,
            image=image,
            label=label,
            soft_logit=None if soft is None else cut(soft.mean_logit, 0).astype(np.float32),
            confidence=None if soft is None else _confidence(cut(soft.disagreement, 1)),
            skeleton=None if skeleton is None else geometric(_padded(skeleton, self.patch, 0)),
        )

    def _corner(self, prepared: PreparedVolume, generator: np.random.Generator) -> tuple[int, int, int]:
        choice, rank, *rest = generator.random(8)
        room = [max(length - size, 0) for length, size in zip(prepared.volume.image.shape, self.patch, strict=True)]
        kind = self._kind(prepared, choice)
        if kind is None:
            z, y, x = (min(int(u * (r + 1)), r) for u, r in zip(rest[:3], room, strict=True))
            return z, y, x
        available = prepared.available(kind)
        middle = prepared.locate(kind, min(int(rank * available), available - 1))
        offsets = [int((u * 2 - 1) * JITTER * size) - size // 2 for u, size in zip(rest[3:], self.patch, strict=True)]
        z, y, x = (min(max(m + o, 0), r) for m, o, r in zip(middle, offsets, room, strict=True))
        return z, y, x

    def _kind(self, prepared: PreparedVolume, choice: float) -> int | None:
        for kind, share in SHARES.items():
            if choice < share:
                return kind if prepared.available(kind) else None
            choice -= share
        return None

    def _generator(self, stream: int, index: int) -> np.random.Generator:
        # The lowest counter word counts the generated numbers; the two upper ones keep the streams apart.
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, stream, index]))


def standardise(image: NDArray[Any], mean: float | None = None, deviation: float | None = None) -> NDArray[np.float32]:
    """Subtract the mean and divide by the standard deviation: the student's only input scale.

    Parameters
    ----------
    image : ndarray, shape (z, y, x), uint8, uint16 or float32
    mean, deviation : float, optional
        Of the whole volume that `image` is a part of; without them its own.

    Returns
    -------
    ndarray, shape (z, y, x), float32
        All zero where every voxel is the same.

    Raises
    ------
    DataError
        An image of another type or rank, or with values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> standardise(np.array([[[0, 10]]], np.uint8)).tolist()
    [[[-1.0, 1.0]]]
    """
    if mean is None or deviation is None:
        _check_image(image, "image")
        mean, deviation = moments(image)
    factor = 1.0 / deviation if deviation > 0 else 0.0
    return (image.astype(np.float32) - np.float32(mean)) * np.float32(factor)


def moments(image: NDArray[Any]) -> tuple[float, float]:
    """Mean and deviation, slice by slice in float64."""
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in image) / image.size
    squares = sum(float(((plane.astype(np.float64) - mean) ** 2).sum()) for plane in image)
    return mean, float(np.sqrt(squares / image.size))


def _confidence(disagreement: NDArray[np.float16]) -> NDArray[np.float32]:
    """As :attr:`vesu.distill.values.SoftLabels.confidence`, of a part of the volume."""
    weight: NDArray[np.float32] = np.clip(np.float32(1) - disagreement.astype(np.float32), 0, 1)
    return weight


def _box(array: NDArray[Any], corner: tuple[int, int, int], patch: tuple[int, int, int]) -> NDArray[Any]:
    """As much of a box as lies inside of the array."""
    return array[tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))]


def _padded(part: NDArray[Any], patch: tuple[int, int, int], outside: int | None) -> NDArray[Any]:
    """A part made as large as a patch: behind it lies `outside`, or its reflection where that is None."""
    missing = [(0, size - length) for size, length in zip(patch, part.shape, strict=True)]
    if not any(after for _, after in missing):
        return part
    return np.pad(part, missing, mode="reflect") if outside is None else np.pad(part, missing, constant_values=outside)


def _check_image(image: Any, what: str) -> None:
    kinds = (np.uint8, np.uint16, np.float32)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.size == 0 or image.dtype not in kinds:
        got = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"{what}: got {got}; accepted: a 3-D array of uint8, uint16 or float32")
    if image.dtype == np.float32 and not all(np.isfinite(plane).all() for plane in image):
        raise DataError(f"{what}: got values that are NaN or infinite; accepted: finite ones")


def _check(volume: TrainingVolume) -> None:
    what = f"volume {volume.volume_id}"
    _check_image(volume.image, f"{what}: image")
    shape = volume.image.shape
    if (label := volume.label) is not None:
        if label.dtype != np.uint8 or label.shape != shape:
            raise DataError(f"{what}: label: got {label.dtype} of shape {label.shape}; accepted: uint8 of {shape}")
        if (highest := int(label.max())) > UNLABELLED:
            raise DataError(f"{what}: label: got the value {highest}; accepted: 0, 1 and 2")
    if (soft := volume.soft) is not None:
        for name in ("mean_logit", "variance", "disagreement"):
            array = getattr(soft, name)
            if array.shape != shape:
                raise DataError(f"{what}: soft.{name}: got shape {array.shape}; accepted: {shape}")
            if not all(np.isfinite(plane).all() for plane in array):
                raise DataError(f"{what}: soft.{name}: got values that are NaN or infinite; accepted: finite ones")
