"""The steps of a ladder: small frozen dataclasses with checked parameters and one pure function each.

Probability steps turn a probability into a probability and stand before the one :class:`Threshold`, which makes the
mask; mask steps turn a mask into a mask and stand after it. :class:`Median` may stand on either side.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import volume
from vesu.errors import ArgumentError
from vesu.segmentation.step import Array, Detail, Side, Step, check_connectivity, flag, is_whole, require, whole
from vesu.segmentation.threshold import ThresholdRule, Thresholds, is_number, rule_from

Radius: TypeAlias = int | tuple[int, int, int]


@dataclass(frozen=True)
class Suppress(Step):
    """Lower the probability where the ensemble disagrees: ``max(probability - strength * uncertainty, 0)``.

    Parameters
    ----------
    strength : float
        Standard deviations taken off, in [0, 100]; 0 changes nothing.

    Notes
    -----
    Requirement R29. The result lies in [0, probability], falls with the uncertainty and rises with the probability.
    By Cantelli's inequality at most a share ``1 / (1 + strength**2)`` of the ensemble rates the voxel at or below the
    unclipped value, whatever the distribution: with strength 1 at most half of it, with 2 at most a fifth.

    Examples
    --------
    >>> import numpy as np
    >>> p, u = np.array([[[0.9, 0.9, 0.1]]], np.float32), np.array([[[0.0, 0.3, 0.3]]], np.float32)
    >>> Suppress(strength=1.0).apply(p, uncertainty=u)[0].round(2).tolist()
    [[[0.8999..., 0.6000..., 0.0]]]
    """

    name: str = field(default="suppress", init=False, repr=False)
    strength: float = 1.0
    sides: ClassVar[tuple[Side, ...]] = ("probability",)

    def __post_init__(self) -> None:
        good = is_number(self.strength) and 0 <= self.strength <= 100
        require(self, "strength", good, "a number in [0, 100]")
        object.__setattr__(self, "strength", float(self.strength))

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The probability less `strength` standard deviations; `uncertainty` must be given."""
        if uncertainty is None:
            raise ArgumentError("uncertainty: got none; accepted: the ensemble's spread, for the step 'suppress'")
        lowered = uncertainty * np.float32(-self.strength)
        lowered += array
        return np.maximum(lowered, np.float32(0), out=lowered), {"strength": self.strength}


@dataclass(frozen=True)
class SmoothZ(Step):
    """Moving mean along z: :func:`vesu.volume.smooth_z`.

    Parameters
    ----------
    radius : int
        Slices on either side; 0 does not smooth.

    Examples
    --------
    >>> SmoothZ(radius=2)
    SmoothZ(radius=2)
    """

    name: str = field(default="smooth_z", init=False, repr=False)
    radius: int = 1
    sides: ClassVar[tuple[Side, ...]] = ("probability",)

    def __post_init__(self) -> None:
        whole(self, "radius", 0)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The smoothed probability."""
        return volume.smooth_z(array, self.radius, n_threads=n_threads), {"radius": self.radius}


@dataclass(frozen=True)
class Threshold(Step):
    """The mask: a threshold per volume with hysteresis, :func:`vesu.volume.hysteresis`.

    Parameters
    ----------
    rule : ThresholdRule
        Thresholds from the volume's own probabilities, as the steps before left them.
    connectivity : {26, 18, 6}
        By what weak voxels hang together with a strong one.

    Examples
    --------
    >>> Threshold(ThresholdRule("fixed", 0.5, low_factor=1.0)).rule.value
    0.5
    """

    name: str = field(default="threshold", init=False, repr=False)
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    connectivity: int = 26
    sides: ClassVar[tuple[Side, ...]] = ("threshold",)

    def __post_init__(self) -> None:
        if isinstance(self.rule, Mapping):
            object.__setattr__(self, "rule", rule_from(self.rule))
        if not isinstance(self.rule, ThresholdRule):
            raise ArgumentError(f"threshold.rule: got {type(self.rule).__name__}; accepted: ThresholdRule")
        check_connectivity(self)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The mask of a probability."""
        return self.cut(array, self.rule.thresholds(array, n_threads=n_threads), n_threads=n_threads)

    def cut(
        self, probability: NDArray[np.float32], thresholds: Thresholds, *, n_threads: int | None = None
    ) -> tuple[NDArray[np.uint8], Detail]:
        """The mask at given thresholds."""
        low, high = thresholds.low, thresholds.high
        if low == high:  # nothing is weak, so nothing need be labelled
            return (probability >= np.float32(high)).view(np.uint8), {"low": low, "high": high}
        mask, n_weak, n_kept = volume.hysteresis_counted(probability, low, high, self.connectivity, n_threads=n_threads)
        return mask, {"low": low, "high": high, "components": n_weak, "components_kept": n_kept}


@dataclass(frozen=True)
class Dust(Step):
    """Remove small components: :func:`vesu.volume.remove_dust`.

    Parameters
    ----------
    min_voxels : int
        Components of strictly fewer voxels go; 0 removes none.
    connectivity : {26, 18, 6}
        What hangs together.
    keep_largest : int, optional
        Of the components that are left, keep only so many, the largest.
    spare_border : bool
        Keep small components that touch a face of the volume: they may go on beyond it.

    Examples
    --------
    >>> import numpy as np
    >>> Dust(min_voxels=2).apply(np.array([[[1, 0, 1, 1]]], np.uint8))
    (array([[[0, 0, 1, 1]]], dtype=uint8), {'components': 2, 'components_kept': 1})
    """

    name: str = field(default="dust", init=False, repr=False)
    min_voxels: int = 5000
    connectivity: int = 26
    keep_largest: int | None = None
    spare_border: bool = False

    def __post_init__(self) -> None:
        whole(self, "min_voxels", 0)
        check_connectivity(self)
        if self.keep_largest is not None:
            whole(self, "keep_largest", 1, ", or none")
        flag(self, "spare_border")

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The mask without dust."""
        mask, n_components, n_removed = volume.remove_dust_counted(
            array,
            self.min_voxels,
            self.connectivity,
            keep_largest=self.keep_largest,
            spare_border=self.spare_border,
            n_threads=n_threads,
        )
        return mask, {"components": n_components, "components_kept": n_components - n_removed}


@dataclass(frozen=True)
class Median(Step):
    """Median of 3 x 3 x 3 voxels: of the probability before the threshold, a majority vote after it.

    Notes
    -----
    :func:`vesu.volume.median`.

    Examples
    --------
    >>> Median().sides
    ('probability', 'mask')
    """

    name: str = field(default="median", init=False, repr=False)
    sides: ClassVar[tuple[Side, ...]] = ("probability", "mask")

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The median."""
        return volume.median(array, n_threads=n_threads), {}


@dataclass(frozen=True)
class Plug(Step):
    """Close holes of one voxel by each 2 x 2 x 2 neighbourhood: :func:`vesu.volume.plug_holes`.

    Examples
    --------
    >>> Plug()
    Plug()
    """

    name: str = field(default="plug", init=False, repr=False)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The mask with its one-voxel holes closed."""
        return volume.plug_holes(array, n_threads=n_threads), {}


@dataclass(frozen=True)
class _Morphology(Step):
    """What opening and closing share.

    Parameters
    ----------
    radius : int or (int, int, int)
        In voxels, one for all axes or (z, y, x); 0 on an axis leaves it alone.
    shape : {"ball", "box"}
        The structuring element: an ellipsoid or a cuboid.
    """

    radius: Radius = 1
    shape: Literal["ball", "box"] = "ball"

    def __post_init__(self) -> None:
        if isinstance(self.radius, list | tuple):
            object.__setattr__(self, "radius", tuple(self.radius))
        radii = self.radius if isinstance(self.radius, tuple) else (self.radius,)
        good = len(radii) in (1, 3) and all(is_whole(each, 0) for each in radii)
        require(self, "radius", good, "a whole number, 0 or more, or three of them (z, y, x)")
        require(self, "shape", self.shape in ("ball", "box"), "'ball' or 'box'")


@dataclass(frozen=True)
class Opening(_Morphology):
    """Remove what the structuring element does not fit in: :func:`vesu.volume.opening`.

    Parameters
    ----------
    radius : int or (int, int, int)
        In voxels, one for all axes or (z, y, x); 0 on an axis leaves it alone.
    shape : {"ball", "box"}
        The structuring element: an ellipsoid or a cuboid.

    Examples
    --------
    >>> Opening(radius=(1, 0, 0), shape="box")
    Opening(radius=(1, 0, 0), shape='box')
    """

    name: str = field(default="opening", init=False, repr=False)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The opened mask, a part of the mask."""
        return volume.opening(array, self.radius, self.shape, n_threads=n_threads), {}


@dataclass(frozen=True)
class Closing(_Morphology):
    """Fill what the structuring element does not fit in outside the mask: :func:`vesu.volume.closing`.

    Parameters
    ----------
    radius : int or (int, int, int)
        In voxels, one for all axes or (z, y, x); 0 on an axis leaves it alone.
    shape : {"ball", "box"}
        The structuring element: an ellipsoid or a cuboid.

    Examples
    --------
    >>> Closing(radius=3).shape
    'ball'
    """

    radius: Radius = (2, 1, 1)
    name: str = field(default="closing", init=False, repr=False)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The closed mask, of which the mask is a part."""
        return volume.closing(array, self.radius, self.shape, n_threads=n_threads), {}


@dataclass(frozen=True)
class Fill(Step):
    """Fill cavities: background that does not reach a face of the volume, :func:`vesu.volume.fill_holes`.

    Parameters
    ----------
    connectivity : {6, 18, 26}
        By what the background hangs together. 6 fills the most; 26 only what is sealed at corners too.

    Examples
    --------
    >>> Fill().connectivity
    6
    """

    name: str = field(default="fill", init=False, repr=False)
    connectivity: int = 6

    def __post_init__(self) -> None:
        check_connectivity(self)

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The mask without cavities."""
        mask, n_filled = volume.fill_holes_counted(array, self.connectivity, n_threads=n_threads)
        return mask, {"cavities_filled": n_filled}


@dataclass(frozen=True)
class Patch(Step):
    """Fill the holes of each sheet by its height map, where that closes a tunnel: :func:`vesu.volume.patch_sheets`.

    Parameters
    ----------
    connectivity : {26, 18, 6}
        Of the components that are taken for sheets.
    min_voxels : int
        Smaller components are left as they are, and no fill may touch them: dust goes first.
    max_gap : int
        The widest hole, in voxels, that is bridged; at most 1024.
    max_residual : float
        Largest root mean square distance, in voxels, of a hole's surroundings from the plane that fits them best.

    Examples
    --------
    >>> Patch(max_gap=8).max_residual
    3.0
    """

    name: str = field(default="patch", init=False, repr=False)
    connectivity: int = 26
    min_voxels: int = 1000
    max_gap: int = 32
    max_residual: float = 3.0

    def __post_init__(self) -> None:
        check_connectivity(self)
        whole(self, "min_voxels", 0)
        whole(self, "max_gap", 1)
        require(self, "max_gap", self.max_gap <= 1024, "a whole number, 1 to 1024")
        require(self, "max_residual", is_number(self.max_residual) and self.max_residual >= 0, "a number, 0 or more")
        object.__setattr__(self, "max_residual", float(self.max_residual))

    def apply(
        self, array: Array, *, uncertainty: NDArray[np.float32] | None = None, n_threads: int | None = None
    ) -> tuple[Array, Detail]:
        """The patched mask, of which the mask is a part."""
        mask, report = volume.patch_sheets_counted(
            array,
            connectivity=self.connectivity,
            min_voxels=self.min_voxels,
            max_gap=self.max_gap,
            max_residual=self.max_residual,
            n_threads=n_threads,
        )
        found = {each.name: getattr(report, each.name) for each in fields(report)}
        return mask, {key: value for key, value in found.items() if is_number(value)}
