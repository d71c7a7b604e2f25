"""The exponential moving average of the weights: smoother than any single step's, it is the student (R19)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

__all__ = ["averaged_model"]


def averaged_model(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An average of a model's weights, to be told of every step by ``update_parameters(model)``.

    Parameters
    ----------
    model : torch.nn.Module
        Its present weights are copied.
    decay : float
        In [0, 1). After ``n`` updates it is at most ``(1 + n) / (10 + n)``, so that a young average is not held back
        by the weights that it began with; 0 follows the model exactly.

    Returns
    -------
    torch.optim.swa_utils.AveragedModel
        In evaluation mode, frozen; ``.module`` is the averaged network.

    Notes
    -----
    R19. Polyak averaging with the warm-up of TensorFlow's ``ExponentialMovingAverage(num_updates=...)``. Element by
    element: the bits do not depend on threads.

    Examples
    --------
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> ema = averaged_model(model, 0.0)
    >>> _ = model.weight.data.fill_(3.0)
    >>> ema.update_parameters(model)
    >>> ema.module.weight.item()
    3.0
    """
    averaged = AveragedModel(model, multi_avg_fn=_average(decay), use_buffers=False)
    averaged.n_averaged += 1  # the copy is the first average: the next update is no copy
    averaged.requires_grad_(False)
    return averaged.eval()


def _average(decay: float) -> Callable[[Sequence[Any], Sequence[Any], Any], None]:
    @torch.no_grad()
    def update(averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], n_averaged: Any) -> None:
        n = int(n_averaged)
        weight = 1.0 - min(decay, (1 + n) / (10 + n))
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value.to(mean.dtype), weight)

    return update
