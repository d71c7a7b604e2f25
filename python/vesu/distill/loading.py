"""Patches as batches of tensors, cut ahead by threads where a GPU would wait for them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vesu.distill.losses import Target
from vesu.distill.patches import Patch, PatchSampler

__all__ = ["PatchLoader", "collate"]


class PatchLoader:
    """Takes patches from a sampler; with workers, those announced are cut meanwhile.

    Which thread cuts a patch, and when, changes none of its bits.

    Parameters
    ----------
    sampler : PatchSampler
    n_workers : int
        Threads; 0 cuts when asked.
    """

    def __init__(self, sampler: PatchSampler, n_workers: int = 0) -> None:
        self._sampler = sampler
        self._pool = ThreadPoolExecutor(n_workers, "vesu-patches") if n_workers else None
        self._ahead: dict[int, Future[Patch]] = {}

    def take(self, indices: Sequence[int], announced: Iterable[int] = ()) -> list[Patch]:
        """The patches of these indices; those `announced` will be asked for next."""
        if self._pool is None:
            return [self._sampler[index] for index in indices]
        for index in (*indices, *announced):
            if index not in self._ahead:
                self._ahead[index] = self._pool.submit(self._sampler.__getitem__, index)
        return [self._ahead.pop(index).result() for index in indices]

    def __enter__(self) -> "PatchLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def collate(patches: Sequence[Patch], device: torch.device) -> tuple[torch.Tensor, Target]:
    """Stack patches of one size into the network's input and the loss' target.

    Parameters
    ----------
    patches : sequence of Patch
        With and without labels or soft labels.
    device : torch.device

    Returns
    -------
    image : torch.Tensor, shape (b, 1, z, y, x), float32
    target : Target
        A patch without label is 2 (unlabelled) everywhere, one without soft labels has confidence 0.

    Examples
    --------
    >>> image = np.zeros((2, 2, 2), np.float32)
    >>> known = Patch("a", image, image.astype(np.uint8), None, None, None)
    >>> pseudo = Patch("b", image, None, image, image + 1, None)
    >>> x, target = collate([known, pseudo], torch.device("cpu"))
    >>> tuple(x.shape), target.has_label.tolist(), target.confidence.flatten(1).amax(1).tolist()
    ((2, 1, 2, 2, 2), [True, False], [0.0, 1.0])
    """

    def stacked(arrays: Sequence[Any], dtype: Any, missing: int) -> torch.Tensor | None:
        if all(array is None for array in arrays):
            return None
        filled = [np.full(patches[0].image.shape, missing, dtype) if array is None else array for array in arrays]
        return torch.from_numpy(np.stack(filled)[:, None]).to(device)

    image = stacked([patch.image for patch in patches], np.float32, 0)
    assert image is not None
    return image, Target(
        label=stacked([patch.label for patch in patches], np.uint8, 2),
        soft_logit=stacked([patch.soft_logit for patch in patches], np.float32, 0),
        confidence=stacked([patch.confidence for patch in patches], np.float32, 0),
        has_label=torch.tensor([patch.label is not None for patch in patches], device=device),
        skeleton=stacked([patch.skeleton for patch in patches], np.uint8, 0),
    )
