"""How far a mask agrees with a reference, and whether an alignment moved it the way it should (R24)."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.segmentation.confusion import confusion

__all__ = ["Agreement", "Delta", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """A mask beside a reference, over the voxels that the reference knows; all in [0, 1].

    Examples
    --------
    >>> Agreement(iou=0.5, dice=2 / 3, density_gap=0.01).to_json()["iou"]
    0.5
    """

    iou: float
    """Intersection over union."""
    dice: float
    """Dice coefficient, which is F1."""
    density_gap: float
    """Absolute difference of the shares of surface."""

    def to_json(self) -> dict[str, float]:
        """The three figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class Delta:
    """What an alignment changed, on voxels that it did not see.

    Examples
    --------
    >>> moved = Delta(Agreement(0.4, 0.57, 0.03), Agreement(0.5, 0.67, 0.01))
    >>> moved.intended, round(moved.iou, 3), round(moved.density_gap, 3)
    (True, 0.1, -0.02)
    >>> Delta(Agreement(0.4, 0.57, 0.01), Agreement(0.5, 0.67, 0.02)).missed
    ('density_gap',)
    """

    before: Agreement
    after: Agreement

    @property
    def iou(self) -> float:
        """After less before; above 0 is meant."""
        return self.after.iou - self.before.iou

    @property
    def dice(self) -> float:
        """After less before; above 0 is meant."""
        return self.after.dice - self.before.dice

    @property
    def density_gap(self) -> float:
        """After less before; 0 or below is meant."""
        return self.after.density_gap - self.before.density_gap

    @property
    def missed(self) -> tuple[str, ...]:
        """The figures that did not move as they should."""
        good = {"iou": self.iou > 0, "dice": self.dice > 0, "density_gap": self.density_gap <= 0}
        return tuple(name for name, is_good in good.items() if not is_good)

    @property
    def intended(self) -> bool:
        """Whether IoU and Dice rose and the density gap did not."""
        return not self.missed

    def to_json(self) -> dict[str, Any]:
        """``before``, ``after``, ``delta`` and ``intended``."""
        delta = {name: getattr(self, name) for name in ("iou", "dice", "density_gap")}
        before, after = self.before.to_json(), self.after.to_json()
        return {"before": before, "after": after, "delta": delta, "intended": self.intended}


def agreement(mask: NDArray[Any], reference: NDArray[np.uint8]) -> Agreement:
    """Compare a mask with a reference where that knows.

    Parameters
    ----------
    mask : ndarray of uint8 or bool, shape (z, y, x)
        Non-zero is surface.
    reference : ndarray of uint8, same shape
        0 background, 1 surface, 2 unknown (counts nowhere).

    Returns
    -------
    Agreement
        Of two empty masks: 1, 1, 0.

    Raises
    ------
    ArgumentError
        Shapes that differ, values other than 0, 1, 2.

    Notes
    -----
    Requirement R24.

    Examples
    --------
    >>> agreement(np.array([[[1, 1, 0, 1]]]), np.array([[[1, 0, 0, 2]]], np.uint8))
    Agreement(iou=0.5, dice=0.666..., density_gap=0.333...)
    """
    found = confusion(mask, reference)
    known = found.tp + found.fp + found.fn + found.tn
    return Agreement(found.iou, found.f1, abs(found.fp - found.fn) / max(1, known))
