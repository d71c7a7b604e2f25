"""Soft labels: how teachers' logits are folded into one answer, and how both are kept on disk (R18)."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vesu.data.cache import ArrayCache, PutStatus
from vesu.distill.values import SoftLabels
from vesu.errors import ArgumentError

__all__ = ["LOGIT_LIMIT", "SoftLabelCache", "TeacherIdentity", "fold_logits", "to_half"]

LOGIT_LIMIT = 30.0
"""Logits are cut off here: the probability is within 1e-13 of 0 or 1, and half precision still has steps of 1/64."""

CHUNK = 1 << 18
"""Voxels that are folded at a time: what is made on the way stays in the processor's cache."""

NOT_IDENTITY = ("name", "weights", "licence", "source")
"""Members of ``teacher.json`` that the answer does not depend on; the weights are there by their digest."""


class TeacherIdentity(Protocol):
    """As much of a ``TeacherSpec`` as tells teachers apart."""

    @property
    def name(self) -> str: ...
    def to_json(self) -> dict[str, Any]: ...


def to_half(logits: NDArray[np.float32]) -> NDArray[np.float16]:
    """Logits as they are kept: cut off at :data:`LOGIT_LIMIT` and rounded to half precision.

    Examples
    --------
    >>> import numpy as np
    >>> to_half(np.array([0.1, -1e9], np.float32)).tolist()
    [0.0999755859375, -30.0]
    """
    half: NDArray[np.float16] = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT).astype(np.float16)
    return half


def fold_logits(logits: Sequence[NDArray[np.float16]]) -> dict[str, NDArray[np.float16]]:
    """One answer out of the teachers' logits.

    Parameters
    ----------
    logits : sequence of ndarray of float16, shape (z, y, x) each
        Of surface, one array a teacher, in the order in which they are to be folded; memory maps serve.

    Returns
    -------
    dict of str to ndarray of float16, shape (z, y, x)
        ``mean_logit``: mean of the logits. ``variance``: population variance of the probabilities p, 0 to 0.25.
        ``disagreement``: mutual information between the prediction and the choice of teacher,
        H(mean p) - mean H(p) with H the binary entropy in bits, 0 to 1.

    Raises
    ------
    ArgumentError
        No logits, or arrays of another type or of different shapes.

    Notes
    -----
    Requirement R18. Sums are float64, teacher after teacher in the order given: bits do not depend on threads, nor on
    whether logits came from a teacher or from disk. With one teacher, variance and disagreement are exactly 0. The
    mutual information is that of Houlsby et al., "Bayesian Active Learning for Classification and Preference
    Learning", 2011. There are only 65,536 half-precision logits: their probabilities and entropies are looked up.

    Examples
    --------
    >>> import numpy as np
    >>> yes, no = np.full((1, 1, 1), 30, np.float16), np.full((1, 1, 1), -30, np.float16)
    >>> {name: float(values[0, 0, 0]) for name, values in fold_logits([yes, no]).items()}
    {'mean_logit': 0.0, 'variance': 0.25, 'disagreement': 1.0}
    """
    shapes = sorted({array.shape for array in logits})
    if len(shapes) != 1 or any(array.dtype != np.float16 for array in logits):
        kinds = sorted({str(array.dtype) for array in logits})
        raise ArgumentError(f"logits: got shapes {shapes} of {kinds}; accepted: float16 of one shape")
    names = ("mean_logit", "variance", "disagreement")
    folded = {name: np.empty(shapes[0], np.float16) for name in names}
    flat_logits = [np.ravel(array) for array in logits]
    flat_folded = [folded[name].reshape(-1) for name in names]
    for start in range(0, flat_folded[0].size, CHUNK):
        part = slice(start, start + CHUNK)
        for target, values in zip(flat_folded, _fold_chunk([array[part] for array in flat_logits]), strict=True):
            target[part] = values
    return folded


def _fold_chunk(logits: Sequence[NDArray[np.float16]]) -> tuple[NDArray[np.float64], ...]:
    probabilities, entropies = _tables()
    logit, p, squares, entropy = (np.zeros(logits[0].size) for _ in range(4))
    for array in logits:
        pattern = np.ascontiguousarray(array).view(np.uint16)
        of_one = probabilities[pattern]
        logit += array
        p += of_one
        squares += of_one * of_one
        entropy += entropies[pattern]
    n = len(logits)
    mean = p / n
    variance = np.clip(squares / n - mean * mean, 0, 0.25)
    return logit / n, variance, np.clip(_entropy_bits(mean) - entropy / n, 0, 1)


@cache
def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability and its entropy for every half-precision logit, by its bit pattern."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # the patterns of infinities and NaN
        probability = 1 / (1 + np.exp(-every))
        return probability, _entropy_bits(probability)


def _entropy_bits(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Binary entropy; 0 where p is 0 or 1."""
    tiny = np.finfo(np.float64).tiny
    q = 1 - p
    bits: NDArray[np.float64] = -(p * np.log2(np.maximum(p, tiny)) + q * np.log2(np.maximum(q, tiny)))
    return bits


class SoftLabelCache:
    """Teachers' logits and folded soft labels on disk, under what they were made from.

    Parameters
    ----------
    cache : ArrayCache
        Where the arrays go.
    overlap : float
        Of neighbouring windows.
    flips : bool
        Whether all flips of a window are averaged.

    Notes
    -----
    Requirements R09, R18. An answer's key holds the volume's content id, the teacher's digest and everything of its
    contract that the answer depends on (network, normalisation, window, meaning of the output), overlap and flips. It
    does not hold names, folders, the batch or the device: these change nothing but the last bits. The key of folded
    labels holds those of all teachers, in order. Arrays are float16, and come back as read-only memory maps: as many
    volumes as fit on the disk can be held.

    Examples
    --------
    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from vesu.data.cache import ArrayCache, content_id
    >>> teacher = SimpleNamespace(name="unet", to_json=lambda: {"name": "unet", "digest": "blake3:..."})
    >>> volume, logits = np.zeros((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.float16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = SoftLabelCache(ArrayCache(folder, max_bytes=10**6), overlap=0.5, flips=True)
    ...     key = kept.logits_key(teacher, content_id(volume))
    ...     before = kept.logits(key)
    ...     held, status = kept.keep_logits(key, logits)
    ...     before, status, np.array_equal(kept.logits(key), logits)
    (None, 'stored', True)
    """

    def __init__(self, cache: ArrayCache, *, overlap: float, flips: bool) -> None:
        self.cache = cache
        self._asked = {"overlap": float(overlap), "flips": bool(flips)}

    def logits_key(self, teacher: TeacherIdentity, content: str) -> str:
        """Key of one teacher's logits for the volume with that content id."""
        return self.cache.key("teacher-logits/1", teacher=identity(teacher), volume=content, **self._asked)

    def soft_key(self, teachers: Sequence[TeacherIdentity], content: str) -> str:
        """Key of all teachers' folded answer for the volume with that content id."""
        keys = [self.logits_key(teacher, content) for teacher in teachers]
        return self.cache.key("soft-labels/1", logits=keys)

    def logits(self, key: str) -> NDArray[np.float16] | None:
        """One teacher's logits; None where there are none that verify."""
        arrays = self.cache.get(key, mmap=True)
        return None if arrays is None else arrays["logits"]

    def keep_logits(self, key: str, logits: NDArray[np.float16]) -> tuple[NDArray[np.float16], PutStatus]:
        """Store them; the stored ones, or those given where the cache could not take them, and what it did."""
        status = self.cache.put(key, logits=logits)
        kept = self.logits(key) if status in ("stored", "exists") else None
        return (logits if kept is None else kept), ("failed" if kept is None and status == "stored" else status)

    def soft(self, key: str, volume_id: str, teachers: Sequence[TeacherIdentity]) -> SoftLabels | None:
        """The folded answer; None where there is none that verifies."""
        arrays = self.cache.get(key, mmap=True)
        return None if arrays is None else soft_labels(volume_id, teachers, arrays)

    def keep_soft(self, key: str, soft: SoftLabels, teachers: Sequence[TeacherIdentity]) -> SoftLabels:
        """Store it; the stored one, or that given where the cache could not take it."""
        self.cache.put(key, mean_logit=soft.mean_logit, variance=soft.variance, disagreement=soft.disagreement)
        return self.soft(key, soft.volume_id, teachers) or soft


def soft_labels(
    volume_id: str, teachers: Sequence[TeacherIdentity], folded: Mapping[str, NDArray[np.float16]]
) -> SoftLabels:
    """What :func:`fold_logits` gave, under the names of the teachers."""
    return SoftLabels(
        volume_id=volume_id,
        mean_logit=folded["mean_logit"],
        variance=folded["variance"],
        disagreement=folded["disagreement"],
        teachers=tuple(teacher.name for teacher in teachers),
    )


def identity(teacher: TeacherIdentity) -> dict[str, Any]:
    """Everything of a teacher that its answer depends on, as plain values."""
    return {name: value for name, value in teacher.to_json().items() if name not in NOT_IDENTITY}
