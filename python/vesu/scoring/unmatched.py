"""Where the features lie that Betti matching leaves without a partner."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.scoring.inputs import foregrounds
from vesu.scoring.report import DIMENSION_NAMES

__all__ = ["FeaturePlaces", "UnmatchedFeatures", "unmatched_features"]


@dataclass(frozen=True, eq=False)
class FeaturePlaces:
    """One voxel a feature, int64 of shape (n, 3): (z, y, x) in the whole volume, in C order.

    Attributes
    ----------
    components : ndarray
        A component's first voxel within its octant.
    tunnels : ndarray
        The last voxel of the loop that closes around the tunnel.
    cavities : ndarray
        A background voxel, the last one of the cavity.
    """

    components: NDArray[np.int64]
    tunnels: NDArray[np.int64]
    cavities: NDArray[np.int64]

    @property
    def dimensions(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The places by dimension: 0, 1, 2."""
        return self.components, self.tunnels, self.cavities

    def to_json(self) -> dict[str, list[list[int]]]:
        """Lists of [z, y, x] by name."""
        return {name: places.tolist() for name, places in zip(DIMENSION_NAMES, self.dimensions, strict=True)}


@dataclass(frozen=True, eq=False)
class UnmatchedFeatures:
    """Features without a partner.

    Attributes
    ----------
    prediction : FeaturePlaces
        What the prediction has too much: p - m in each dimension.
    label : FeaturePlaces
        What it lacks: g - m.
    """

    prediction: FeaturePlaces
    label: FeaturePlaces

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"axes": ["z", "y", "x"], "prediction": self.prediction.to_json(), "label": self.label.to_json()}


def unmatched_features(
    prediction: NDArray[Any], label: NDArray[Any], *, ignore_label: int | None = 2, n_threads: int | None = None
) -> UnmatchedFeatures:
    """Say where the score's unmatched components, tunnels and cavities are.

    Parameters
    ----------
    prediction, label, ignore_label, n_threads
        As for :func:`score`.

    Returns
    -------
    UnmatchedFeatures
        A voxel of each, for the prediction and for the label.

    Raises
    ------
    ArgumentError
        What :func:`score` refuses.

    Warns
    -----
    UserWarning
        As :func:`score`.

    Notes
    -----
    Octant by octant, as the score counts: a feature that reaches several octants is listed in each, one that is cut by
    an octant's face may be none, and in each octant one component is not listed because it never ends. So there are
    p - m and g - m of them, (m, p, g) being the score's counts. A matched pair is one in the union of both masks; where
    several components of one mask lie in one of the union, which of them is called the matched one follows the order of
    voxels. Requirement R45; Betti matching is that of Stucki et al., arXiv 2407.04683.

    Examples
    --------
    >>> import numpy as np, vesu
    >>> label = np.zeros((24, 24, 24), np.uint8)
    >>> label[8:11, 2:-2, 2:-2] = 1
    >>> prediction = label.copy()
    >>> prediction[8:11, 5, 6] = 0  # a hole through the sheet
    >>> found = vesu.scoring.unmatched_features(prediction, label)
    >>> found.prediction.tunnels.tolist(), len(found.label.tunnels)
    ([[8, 6, 7]], 0)
    """
    ours, theirs = foregrounds(prediction, label, ignore_label)
    sides = _core.betti_unmatched(ours, theirs, n_threads)
    return UnmatchedFeatures(*(FeaturePlaces(*places) for places in sides))
