"""The differentiable skeleton of soft clDice, by minima and maxima of neighbours."""

import torch
from torch.nn import functional

__all__ = ["soft_skeleton"]


def soft_skeleton(x: torch.Tensor, steps: int) -> torch.Tensor:
    """What each of ``steps`` + 1 openings takes away from ever more eroded ``x``; (b, c, z, y, x), of values in [0, 1].

    As in Shit et al. (arXiv 2003.07311). Minima and maxima of shifted copies in place of ``max_pool3d``, whose backward
    pass adds in any order on CUDA; the values are the same.

    Examples
    --------
    >>> slab = torch.zeros(1, 1, 7, 7, 7)
    >>> slab[:, :, 2:5] = 1
    >>> soft_skeleton(slab, 3)[0, 0, :, 3, 3].tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    skeleton = functional.relu(x - _opened(x))
    for _ in range(steps):
        x = _eroded(x)
        lost = functional.relu(x - _opened(x))
        skeleton = skeleton + functional.relu(lost - skeleton * lost)
    return skeleton


def _opened(x: torch.Tensor) -> torch.Tensor:
    return _dilated(_eroded(x))


def _eroded(x: torch.Tensor) -> torch.Tensor:
    """Minimum over the six face neighbours and the voxel itself; beyond the faces nothing is."""
    result = x
    for axis in (2, 3, 4):
        for neighbour in _neighbours(x, axis):
            result = torch.minimum(result, neighbour)
    return result


def _dilated(x: torch.Tensor) -> torch.Tensor:
    """Maximum over 3 x 3 x 3 voxels, axis by axis."""
    for axis in (2, 3, 4):
        before, after = _neighbours(x, axis)
        x = torch.maximum(torch.maximum(x, before), after)
    return x


def _neighbours(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The voxels before and after along an axis; at a face the voxel itself, which changes no minimum or maximum."""
    n = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    return before, after
