"""The height-map patch: holes in sheets filled where the sheet is flat enough and topology gains."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.volume.arguments import Mask, whole
from vesu.volume.topology import BettiNumbers


@dataclass(frozen=True)
class PatchReport:
    """What :func:`patch_sheets` found and did; every gap was filled or left for exactly one reason.

    Parameters
    ----------
    n_sheets : int
        Components of at least `min_voxels`.
    n_gaps, n_filled : int
        Enclosed gaps met along the three axes, and those filled.
    too_wide, poor_fit, touching, no_tunnel, cavity : int
        Gaps left: wider than `max_gap`; edges too far from a plane; the fill would touch another component, close no
        tunnel, or enclose a cavity.
    n_added : int
        Voxels added.
    before, after : BettiNumbers
        Of the whole mask at connectivity 6.
    """

    n_sheets: int
    n_gaps: int
    n_filled: int
    too_wide: int
    poor_fit: int
    touching: int
    no_tunnel: int
    cavity: int
    n_added: int
    before: BettiNumbers
    after: BettiNumbers


def patch_sheets(
    mask: Mask,
    *,
    connectivity: int = 26,
    min_voxels: int = 1000,
    max_gap: int = 32,
    max_residual: float = 3.0,
    n_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Fill holes in sheets by interpolating each sheet as a height map.

    Parameters
    ----------
    mask : ndarray of uint8 or bool, shape (z, y, x)
        Non-zero is foreground. At most 2**32 - 1 voxels.
    connectivity : {26, 18, 6}
        Of the components that are taken for sheets.
    min_voxels : int
        Smaller components are left as they are (and no fill may touch them: remove dust first).
    max_gap : int
        Widest gap in columns, 1 to 1024; in each column the shorter of the two directions counts.
    max_residual : float
        Largest root mean square distance, in voxels along the columns, of the columns around a gap from the plane
        that fits them best.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1; contains the input. No Betti number (connectivity 6) is larger than before, components of different
        sheets never join, and tunnels fall by at least the number of gaps filled.

    Raises
    ------
    ArgumentError
        Another dtype, number of axes or connectivity; an axis of length 0; a limit out of range; too many voxels.

    Notes
    -----
    For each sheet, along each axis, the one with the largest projected area first: the runs of its columns are cut
    into layers with one run a column (growing over the smallest step in height first, so stuck wraps part where they
    can). Enclosed gaps of a layer, with the stubs that a slanting wall left around them, are filled from bottom to
    top as interpolated linearly along both directions, the two weighted by the inverse distance to the nearest edge;
    then the fill is plugged against the sheet (:func:`plug_holes`). It stays if the Euler number says that it closes
    a tunnel, and if it touches no other component and encloses no cavity.

    The winners' step, decided gap by gap. Holes that reach the sheet's border or the volume's faces are no tunnels
    and stay. Exact fractions decide the interpolation, so mirrored and transposed input gives mirrored and
    transposed output where a sheet has one run a column and one largest projection. Memory beside the result:
    one label volume (4 bytes a voxel) and the sheets' runs. Requirement R29.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> sheet = np.zeros((9, 30, 30), np.uint8)
    >>> sheet[3:6] = 1
    >>> torn = sheet.copy()
    >>> torn[:, 10:18, 12:20] = 0
    >>> np.array_equal(vesu.volume.patch_sheets(torn), sheet)
    True
    """
    return patch_sheets_counted(
        mask,
        connectivity=connectivity,
        min_voxels=min_voxels,
        max_gap=max_gap,
        max_residual=max_residual,
        n_threads=n_threads,
    )[0]


def patch_sheets_counted(
    mask: Mask,
    *,
    connectivity: int = 26,
    min_voxels: int = 1000,
    max_gap: int = 32,
    max_residual: float = 3.0,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint8], PatchReport]:
    """:func:`patch_sheets`, with its report.

    Examples
    --------
    >>> import numpy as np, vesu.volume
    >>> torn = np.zeros((9, 30, 30), np.uint8)
    >>> torn[3:6] = 1
    >>> torn[:, 10:18, 12:20] = 0
    >>> report = vesu.volume.patch_sheets_counted(torn)[1]
    >>> report.n_filled, report.n_added, report.before.tunnels, report.after.tunnels
    (1, 192, 1, 0)
    """
    patched, found = _core.patch_sheets(
        mask,
        whole("connectivity", connectivity, "6, 18 or 26"),
        whole("min_voxels", min_voxels, "0 or more"),
        whole("max_gap", max_gap, "1 to 1024"),
        _distance("max_residual", max_residual),
        n_threads,
    )
    return patched, PatchReport(
        **{**found, "before": BettiNumbers(*found["before"]), "after": BettiNumbers(*found["after"])}
    )


def _distance(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name}: got {value!r}; accepted: a finite number of voxels, 0 or more") from None
