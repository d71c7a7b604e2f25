"""Grey values as a teacher learned to see them: the normalisations that ``teacher.json`` names."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import torch

__all__ = ["GREY_RANGES", "GreyType", "Kind", "Normalisation", "Scope", "normalise_volume", "normalise_windows"]

Kind: TypeAlias = Literal["zscore", "scale", "none"]
Scope: TypeAlias = Literal["volume", "patch"]
GreyType: TypeAlias = Literal["uint8", "uint16", "float32"]

GREY_RANGES: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0}
"""White of each integer type."""


@dataclass(frozen=True)
class Normalisation:
    """What is done to the grey values before a network sees them.

    Parameters
    ----------
    kind : {"zscore", "scale", "none"}
        "zscore" is (x - mean) / std, "scale" is (x - offset) / divisor, "none" leaves them as they are.
    scope : {"volume", "patch"}
        Over what mean and deviation are taken where they are not given.
    clip : (float, float), optional
        Grey values are first limited to these.
    mean, std : float, optional
        Of a z-score with fixed statistics (nnU-Net's CT scheme); both or neither.
    nonzero : bool
        Of a z-score: statistics over the voxels that are not zero, and zeros stay zero (MONAI's
        ``NormalizeIntensity(nonzero=True)``).
    offset, divisor : float
        Of a scale.

    Raises
    ------
    ArgumentError
        A value out of range, or one that belongs to another kind.

    Notes
    -----
    R18. A deviation of zero divides by one, as in MONAI.

    Examples
    --------
    >>> Normalisation("scale", divisor=255.0).to_json()
    {'kind': 'scale', 'scope': 'volume', 'divisor': 255.0}
    """

    kind: Kind = "zscore"
    scope: Scope = "volume"
    clip: tuple[float, float] | None = None
    mean: float | None = None
    std: float | None = None
    nonzero: bool = False
    offset: float = 0.0
    divisor: float = 1.0

    def __post_init__(self) -> None:
        def require(name: str, good: bool, accepted: str) -> None:
            if not good:
                raise ArgumentError(f"normalisation.{name}: got {getattr(self, name)!r}; accepted: {accepted}")

        require("kind", self.kind in get_args(Kind), "'zscore', 'scale' or 'none'")
        require("scope", self.scope in get_args(Scope), "'volume' or 'patch'")
        clip = self.clip
        good = clip is None or (isinstance(clip, tuple) and len(clip) == 2 and all(map(_finite, clip)))
        require("clip", good and (clip is None or clip[0] < clip[1]), "two numbers, the lower first, or null")
        require("mean", self.mean is None or (self.kind == "zscore" and _finite(self.mean)), "a number of a z-score")
        require("std", (self.std is None) == (self.mean is None), "given together with mean")
        require("std", self.std is None or (_finite(self.std) and self.std > 0), "a positive number")
        good = isinstance(self.nonzero, bool) and (not self.nonzero or (self.kind == "zscore" and self.mean is None))
        require("nonzero", good, "true for a z-score without fixed mean, or false")
        require("offset", _finite(self.offset) and (self.kind == "scale" or not self.offset), "a number of a scale")
        good = _finite(self.divisor) and self.divisor > 0 and (self.kind == "scale" or self.divisor == 1)
        require("divisor", good, "a positive number of a scale")

    @property
    def per_patch(self) -> bool:
        """Whether every window needs statistics of its own."""
        return self.scope == "patch" and self.kind == "zscore" and self.mean is None

    def to_json(self) -> dict[str, Any]:
        """Kind, scope, and what differs from its default."""
        members = {"kind": self.kind, "scope": self.scope}
        rest = {name: getattr(self, name) for name in ("clip", "mean", "std", "nonzero", "offset", "divisor")}
        members |= {name: value for name, value in rest.items() if value != getattr(Normalisation, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}


def normalise_volume(volume: NDArray[Any], normalisation: Normalisation, grey: GreyType = "uint8") -> NDArray[Any]:
    """A volume as the network shall see it; all but what is done window by window.

    Parameters
    ----------
    volume : ndarray (z, y, x)
        uint8, uint16 or float32, as read.
    normalisation : Normalisation
        Of the teacher.
    grey : {"uint8", "uint16", "float32"}
        Type of the volumes that the teacher learned from. An integer volume of the other type is rescaled white to
        white (factor 257); float32, on either side, is taken as it comes.

    Returns
    -------
    ndarray (z, y, x) of float32
        A new array.

    Raises
    ------
    ArgumentError
        Not three-dimensional, empty, or of another type.
    DataError
        NaN or infinite voxels.

    Notes
    -----
    R18. Statistics are sums in float64, plane by plane in order: the same bits on any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> volume = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    >>> normalise_volume(volume, Normalisation("zscore")).round(2).ravel().tolist()[:3]
    [-1.5299999713897705, -1.090000033378601, -0.6499999761581421]
    >>> float(normalise_volume(volume.astype(np.uint16) * 257, Normalisation("scale", divisor=7.0)).max())
    1.0
    """
    if volume.ndim != 3 or not volume.size or volume.dtype not in (np.uint8, np.uint16, np.float32):
        got = f"shape {volume.shape} of {volume.dtype}"
        raise ArgumentError(f"volume: got {got}; accepted: (z, y, x), not empty, of uint8, uint16 or float32")
    factor = _grey_factor(volume.dtype.name, grey)
    result = np.empty(volume.shape, np.float32)
    for z, plane in enumerate(volume):
        result[z] = _clipped(plane, factor, normalisation)
    if volume.dtype == np.float32 and not all(np.isfinite(plane).all() for plane in volume):
        raise DataError("volume: holds NaN or infinite voxels; accepted: finite grey values")
    if normalisation.kind == "none" or normalisation.per_patch:
        return result
    mask = normalisation.kind == "zscore" and normalisation.nonzero
    shift, divisor = _shift_and_divisor(result, normalisation)
    for plane in result:
        changed = ((plane - shift) / divisor).astype(np.float32)
        plane[...] = np.where(plane != 0, changed, plane) if mask else changed
    return result


def normalise_windows(windows: "torch.Tensor", normalisation: Normalisation) -> "torch.Tensor":
    """What is left to do for each window: a z-score of its own, where the teacher's scope is the patch.

    Parameters
    ----------
    windows : torch.Tensor (b, 1, z, y, x) of float32
        Cut from a volume of :func:`normalise_volume`.
    normalisation : Normalisation
        Of the teacher.

    Returns
    -------
    torch.Tensor (b, 1, z, y, x) of float32
        The same tensor where there is nothing to do.

    Notes
    -----
    R18. Statistics are taken in float64; a window's mirror image may differ from it in the last bits of them.

    Examples
    --------
    >>> import torch
    >>> windows = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    >>> normalise_windows(windows, Normalisation("zscore", "patch")).flatten()[0].item()
    -1.527525...
    """
    import torch

    if not normalisation.per_patch:
        return windows
    wide = windows.to(torch.float64)
    counted = (wide != 0) if normalisation.nonzero else torch.ones_like(wide, dtype=torch.bool)
    axes = (1, 2, 3, 4)
    n = counted.sum(axes, keepdim=True).clamp(min=1)
    mean = torch.where(counted, wide, 0).sum(axes, keepdim=True) / n
    variance = torch.where(counted, (wide - mean) ** 2, 0).sum(axes, keepdim=True) / n
    std = torch.where(variance > 0, variance.sqrt(), 1)
    return torch.where(counted, (wide - mean) / std, wide).to(torch.float32)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _grey_factor(volume: str, teacher: GreyType) -> float:
    if volume in GREY_RANGES and teacher in GREY_RANGES:
        return GREY_RANGES[teacher] / GREY_RANGES[volume]
    return 1.0


def _clipped(plane: NDArray[Any], factor: float, normalisation: Normalisation) -> NDArray[np.float64]:
    grey = plane.astype(np.float64) * factor
    return grey if normalisation.clip is None else np.clip(grey, *normalisation.clip)


def _shift_and_divisor(volume: NDArray[np.float32], normalisation: Normalisation) -> tuple[float, float]:
    if normalisation.kind == "scale":
        return normalisation.offset, normalisation.divisor
    if normalisation.mean is not None and normalisation.std is not None:
        return normalisation.mean, normalisation.std
    planes = [plane[plane != 0] if normalisation.nonzero else plane for plane in volume]
    n = max(1, sum(plane.size for plane in planes))
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in planes) / n
    variance = sum(float(((plane - mean) ** 2).sum(dtype=np.float64)) for plane in planes) / n
    return mean, math.sqrt(variance) or 1.0
