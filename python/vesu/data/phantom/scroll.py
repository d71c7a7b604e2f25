"""Geometry of a generated scroll: an Archimedean spiral of sheets, deformed, pressed together and torn."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vesu.data.phantom._checks import check_memory, check_range, check_seed, check_shape
from vesu.data.phantom._fields import Float32, SmoothField, slabs, smooth_plane, stream

FRAME = 3
"""Voxels of label 2 around a labelled volume, as in the competition."""

_PLANE_STEP = 4.0
"""Voxels between samples of the unrolled sheet's displacement."""


@dataclass(frozen=True)
class ScrollParams:
    """How a generated scroll lies in its volume; lengths in voxels of the competition's size.

    Parameters
    ----------
    pitch : mean distance between neighbouring wraps (voxels)
    sheet_thickness : thickness of label 1 across the sheet (voxels)
    axis_tilt_deg : inclination of the scroll's axis from z; its azimuth is drawn from the seed
    axis_distance : distance of the axis from the volume's centre (voxels); None draws 0.6 to 3 volume widths
    wobble : amplitude of the smooth displacement field (voxels)
    contact : how hard wraps are pressed together, 0 (even spacing) to 1 (many touch)
    torn : share of the sheet's area that is missing, 0 to 0.5
    """

    pitch: float = 52.0
    sheet_thickness: float = 3.2
    axis_tilt_deg: float = 12.0
    axis_distance: float | None = None
    wobble: float = 7.0
    contact: float = 0.8
    torn: float = 0.04

    def check(self) -> None:
        """Raise ArgumentError naming the first parameter out of its range."""
        ranges = {
            "pitch": (6.0, 1e4),
            "sheet_thickness": (1.0, 32.0),
            "axis_tilt_deg": (0.0, 80.0),
            "axis_distance": (0.0, 1e5),
            "wobble": (0.0, 100.0),
            "contact": (0.0, 1.0),
            "torn": (0.0, 0.5),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "axis_distance" and value is None:
                continue
            check_range(field.name, value, *ranges[field.name])


class Wraps(NamedTuple):
    """The scroll before it is written as a label."""

    label: NDArray[np.uint8]
    """0 background, 1 surface; no frame yet."""
    wrap: NDArray[np.int16]
    """Index of the wrap whose surface is nearest."""
    torn: NDArray[np.bool_]
    """Where the surface would be, were it not torn away."""


class _Axis(NamedTuple):
    point: NDArray[np.float64]
    across: NDArray[np.float64]
    """(2, 3): two unit vectors across the axis; the first points from the axis to the volume's centre."""


class _Sheet(NamedTuple):
    """The unrolled sheet: displacement and tears over (winding angle, z)."""

    offset: Float32
    tear: Float32
    first_turn: float
    step: float
    """Winding angle between columns (radians)."""


def generate_scroll(shape: tuple[int, int, int], *, seed: int, params: ScrollParams | None = None) -> NDArray[np.uint8]:
    """Label volume of a generated scroll, as the competition labels its own.

    The sheet is an Archimedean spiral around an inclined axis; the space around it is displaced by a smooth
    field, and the unrolled sheet by another, creased along z, that lets neighbouring wraps touch. Smooth
    islands of the sheet are torn away.

    Parameters
    ----------
    shape : (z, y, x), each 16 or more
    seed : non-negative integer; the same seed gives the same volume
    params : geometry, see ScrollParams

    Returns
    -------
    label : uint8 (z, y, x): 1 the papyrus surface (recto), 0 background, 2 a frame of three voxels

    Raises
    ------
    ArgumentError
        A shape, seed or parameter out of its range.
    MemoryLimitError
        More than 2^29 voxels.

    Notes
    -----
    Geometry alone; :func:`vesu.data.phantom.dress` makes CT of it. Each wrap ``k`` lies at
    ``rho / pitch - theta / (2 pi) = k + delta(theta + 2 pi k, z)`` with ``|delta| < 1/2``, so wraps may touch but
    never cross.

    Examples
    --------
    >>> label = generate_scroll((48, 48, 48), seed=1)
    >>> label.shape, label.dtype.name, sorted(set(label.ravel().tolist()))
    ((48, 48, 48), 'uint8', [0, 1, 2])
    """
    label = trace_wraps(shape, seed=seed, params=params).label
    interior = label[FRAME:-FRAME, FRAME:-FRAME, FRAME:-FRAME]
    return np.pad(interior, FRAME, constant_values=2)


def trace_wraps(shape: tuple[int, int, int], *, seed: int, params: ScrollParams | None = None) -> Wraps:
    """The scroll of :func:`generate_scroll` with the wrap that each voxel belongs to and the torn places."""
    params = params or ScrollParams()
    check_shape(shape, minimum=16)
    check_memory(shape)
    check_seed(seed)
    params.check()

    axis = _draw_axis(shape, seed, params)
    displacement = [SmoothField(shape, max(32.0, 1.5 * params.pitch), stream(seed, f"displace{i}")) for i in range(2)]
    sheet = _draw_sheet(shape, axis, seed, params)
    label = np.empty(shape, np.uint8)
    wrap = np.empty(shape, np.int16)
    torn = np.empty(shape, np.bool_)
    for start, stop in slabs(shape[0]):
        along = [np.float32(params.wobble) * field.slab(start, stop) for field in displacement]
        radius, angle = _polar(axis, shape, (start, stop), along)
        at = slice(start, stop)
        label[at], wrap[at], torn[at] = _surfaces(radius, angle, start, sheet, params)
    return Wraps(label, wrap, torn)


def _draw_axis(shape: tuple[int, int, int], seed: int, params: ScrollParams) -> _Axis:
    rng = stream(seed, "axis")
    azimuth, tilt_azimuth = rng.uniform(0, 2 * math.pi, 2)
    distance = rng.uniform(0.6, 3.0) * max(shape) if params.axis_distance is None else params.axis_distance
    tilt = math.radians(params.axis_tilt_deg)
    axis = np.array([math.cos(tilt), math.sin(tilt) * math.cos(tilt_azimuth), math.sin(tilt) * math.sin(tilt_azimuth)])
    outward = np.array([0.0, math.cos(azimuth), math.sin(azimuth)])
    outward -= outward @ axis * axis
    outward /= np.linalg.norm(outward)
    centre = (np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3) * params.pitch
    return _Axis(centre - distance * outward, np.stack([outward, np.cross(axis, outward)]))


def _polar(
    axis: _Axis, shape: tuple[int, int, int], planes: tuple[int, int], displacement: list[Float32]
) -> tuple[Float32, Float32]:
    """Distance from the axis (voxels) and angle around it (radians) of a slab's displaced voxels."""
    z, y, x = (
        (np.arange(lo, hi) - origin).astype(np.float32)
        for (lo, hi), origin in zip([planes, (0, shape[1]), (0, shape[2])], axis.point, strict=True)
    )
    u, v = (
        (np.float32(e[0]) * z)[:, None, None] + (np.float32(e[1]) * y)[:, None] + np.float32(e[2]) * x + moved
        for e, moved in zip(axis.across, displacement, strict=True)
    )
    return np.hypot(u, v), np.arctan2(v, u)


def _draw_sheet(shape: tuple[int, int, int], axis: _Axis, seed: int, params: ScrollParams) -> _Sheet:
    """Displacement (in pitches, within half of one) and tear field of the unrolled sheet."""
    corners = np.array([[z, y, x] for z in (0, shape[0]) for y in (0, shape[1]) for x in (0, shape[2])])
    reach = np.linalg.norm((corners - axis.point) @ axis.across.T, axis=1).max() + 4 * params.wobble
    turns = reach / params.pitch + 3.0
    typical_radius = max(float(np.linalg.norm(((np.array(shape) / 2) - axis.point) @ axis.across.T)), 0.3 * max(shape))
    step = _PLANE_STEP / typical_radius
    rows = int(shape[0] / _PLANE_STEP) + 2
    columns = int(2 * math.pi * (turns + 2) / step) + 2
    rng = stream(seed, "sheet")
    pitch = max(params.pitch / _PLANE_STEP, 4.0)  # in samples; the sheet's folds grow with it
    # Broad folds, and creases: knots joined by straight lines along z, as the real labels show.
    fold = smooth_plane((rows, columns), (1.75 * pitch, 1.75 * pitch), rng)
    crease = _creased_plane((rows, columns), (1.15 * pitch, 1.75 * pitch), rng)
    slack = 0.5 - 0.5 * params.sheet_thickness / params.pitch
    press = (0.15 + 0.75 * params.contact) * (0.85 * fold + 0.55 * crease)
    offset = (slack * np.clip(press, -1, 1)).astype(np.float32)
    tear = smooth_plane((rows, columns), (0.5 * pitch, 0.5 * pitch), rng) + 0.25 * smooth_plane(
        (rows, columns), (2.0, 2.0), rng
    )
    level = np.quantile(tear, 1.0 - params.torn) if params.torn > 0 else np.inf
    return _Sheet(offset, (tear - np.float32(level)).astype(np.float32), -2 * math.pi, step)


def _creased_plane(shape: tuple[int, int], length: tuple[float, float], rng: np.random.Generator) -> Float32:
    """Like smooth_plane, but piecewise linear along the rows' axis."""
    knots = int(shape[0] / length[0]) + 2
    values = smooth_plane((knots, shape[1]), (1.5, length[1]), rng)
    position = np.arange(shape[0]) / length[0]
    first = position.astype(np.intp)
    t = (position - first)[:, None].astype(np.float32)
    return np.asarray(values[first] * (1 - t) + values[first + 1] * t, np.float32)


def _surfaces(
    radius: Float32, angle: Float32, first_plane: int, sheet: _Sheet, params: ScrollParams
) -> tuple[NDArray[np.uint8], NDArray[np.int16], NDArray[np.bool_]]:
    """Label, nearest wrap and torn places of a slab, from its polar coordinates."""
    turn = np.asarray(radius / np.float32(params.pitch) - angle / np.float32(2 * math.pi), np.float32)
    below = np.floor(turn)
    nearest = np.full(turn.shape, np.inf, np.float32)
    wrap = np.zeros(turn.shape, np.int16)
    tear = np.zeros(turn.shape, np.float32)
    for k in (below, below + 1):  # |offset| < 1/2: no other wrap can be nearer
        offset, slope, torn = _look_up(
            sheet, np.asarray(angle + np.float32(2 * math.pi) * k, np.float32), radius, first_plane
        )
        distance = np.abs(turn - k - offset) / np.sqrt(np.float32(params.pitch**-2) + slope)
        closer = (distance < nearest) & (k >= 0)
        nearest = np.where(closer, distance, nearest)
        wrap = np.where(closer, k.astype(np.int16), wrap)
        tear = np.where(closer, torn, tear)
    on_sheet = nearest <= np.float32(params.sheet_thickness / 2)
    return (on_sheet & (tear < 0)).astype(np.uint8), wrap, on_sheet & (tear >= 0)


def _look_up(sheet: _Sheet, winding: Float32, radius: Float32, first_plane: int) -> tuple[Float32, Float32, Float32]:
    """Bilinear offset, its squared slope per voxel, and tear at (winding angle, z)."""
    column = (winding - np.float32(sheet.first_turn)) / np.float32(sheet.step)
    column = np.clip(column, 0, sheet.offset.shape[1] - 1.001)
    left = column.astype(np.int32)
    t = column - left
    row = (np.arange(first_plane, first_plane + winding.shape[0]) / _PLANE_STEP)[:, None, None]
    top = row.astype(np.int32)
    s = (row - top).astype(np.float32)
    start = top * np.int32(sheet.offset.shape[1]) + left
    flat, width = sheet.offset.ravel(), sheet.offset.shape[1]
    a, b, c, d = flat[start], flat[start + 1], flat[start + width], flat[start + width + 1]
    upper, lower = a + t * (b - a), c + t * (d - c)
    along_z = (lower - upper) / np.float32(_PLANE_STEP)
    across = ((1 - s) * (b - a) + s * (d - c)) / (np.float32(sheet.step) * np.maximum(radius, 1))
    return upper + s * (lower - upper), along_z**2 + across**2, sheet.tear.ravel()[start]
