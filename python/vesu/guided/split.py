"""Which part of a volume is aligned to, and which judges: two boxes with a margin between them (R24)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import DataError
from vesu.guided.reference import density_of

__all__ = ["HeldOut", "hold_out"]

AXES = "zyx"
LEAST_SHARE = 0.1
"""Of the reference's own share of surface, what either part must have at least."""


@dataclass(frozen=True)
class HeldOut:
    """A volume cut across one axis: the part at one face judges, the rest beyond the margin is aligned to."""

    axis: int
    """0 is z."""
    held_out: slice
    """Along that axis."""
    fit: slice
    margin: int
    """Voxels between the two that belong to neither."""

    def judging(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part that judges, as an array of its own."""
        return self._part(array, self.held_out)

    def fitting(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part that is aligned to, as an array of its own."""
        return self._part(array, self.fit)

    def to_json(self) -> dict[str, Any]:
        """Axis by name, both parts as [first, behind the last], and the margin."""
        parts = {"held_out": self.held_out, "fit": self.fit}
        return {
            "axis": AXES[self.axis],
            **{name: [part.start, part.stop] for name, part in parts.items()},
            "margin": self.margin,
        }

    def _part(self, array: NDArray[Any], part: slice) -> NDArray[Any]:
        place = tuple(part if axis == self.axis else slice(None) for axis in range(3))
        return np.ascontiguousarray(array[place])


def hold_out(reference: NDArray[np.uint8], share: float, margin: int, seed: int) -> HeldOut:
    """Cut a volume into the part that judges and the part that is aligned to.

    Parameters
    ----------
    reference : ndarray of uint8, shape (z, y, x)
        0, 1, and 2 where nothing is known.
    share : float
        Length of the part that judges, of the volume's, in (0, 1).
    margin : int
        How far, in voxels, an answer looks around itself: so many slices lie between the two parts, and no answer in
        the part that judges sees a voxel of the other.
    seed : int
        0 or more; draws the face, of the six, at which that part lies.

    Returns
    -------
    HeldOut
        At the first face in the seed's order for which both parts have background, and surface at least a tenth as
        dense as in the whole reference.

    Raises
    ------
    DataError
        No face gives two such parts: the volume is too small for the margin, or the surface lies in one corner.

    Notes
    -----
    Requirement R24. One box at a face costs one margin; blocks within the volume would cost one on each side, and a
    margin as wide as a network's window (63 of 320 voxels) would leave nothing to align to.

    Examples
    --------
    >>> reference = np.indices((20, 20, 20)).sum(axis=0).astype(np.uint8) % 2
    >>> found = hold_out(reference, 0.25, margin=4, seed=0)
    >>> found.held_out.stop - found.held_out.start, found.fit.stop - found.fit.start
    (5, 11)
    """
    density = density_of(reference)
    for face in np.random.Generator(np.random.Philox(seed)).permutation(6).tolist():
        found = _at_face(reference.shape, face // 2, face % 2, share, margin)
        if found is None:
            continue
        parts = (found.judging(reference), found.fitting(reference))
        if all((part == 0).any() and density_of(part) >= LEAST_SHARE * density for part in parts):
            return found
    raise DataError(
        f"guided.reference: got a volume of {reference.shape}; accepted: one that can be cut into a part of "
        f"{share:g} of its length, a margin of {margin} voxels and a rest, with surface and background in both (a "
        "smaller student.patch or features.scales makes the margin smaller)"
    )


def _at_face(shape: tuple[int, ...], axis: int, at_end: int, share: float, margin: int) -> HeldOut | None:
    length = shape[axis]
    judged = max(1, round(share * length))
    if length - judged - margin < 1:
        return None
    if at_end:
        return HeldOut(axis, slice(length - judged, length), slice(0, length - judged - margin), margin)
    return HeldOut(axis, slice(0, judged), slice(judged + margin, length), margin)
