"""The distance transform by looking at every pair of voxels: slow and obvious."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def squared_distances(mask: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Squared distance of every foreground voxel to the nearest background voxel; 0 in the background."""
    background = np.argwhere(mask == 0) * np.array(spacing)
    squared = np.zeros(mask.shape)
    for place in np.argwhere(mask != 0):
        away = (background - place * np.array(spacing)) ** 2
        squared[tuple(place)] = away.sum(axis=1).min() if len(background) else np.inf
    return squared
