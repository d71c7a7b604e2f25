"""Forward model: from a label volume to the CT that could have been labelled so."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vesu.data.phantom._checks import check_memory, check_range, check_seed
from vesu.data.phantom._fields import Float32, SmoothField, gaussian_blur, periodic_texture, slabs, stream
from vesu.data.phantom._layers import LayerFrame, Layers, find_layers, sheet_coordinates
from vesu.errors import ArgumentError, DataError

_TEXTURE_SHAPE = (64, 192, 192)
"""Samples (across, along, around) of the periodic textures, one voxel apart."""


@dataclass(frozen=True)
class DressParams:
    """What the papyrus and the scanner do; lengths in voxels at ``scale`` 1, contrasts in grey values.

    Parameters
    ----------
    scale : all lengths are multiplied by it; 1 for the competition's voxels, 2.5 for a scan 2.5 times finer
    thickness : of a papyrus sheet, from the labelled face (recto) to the other (verso)
    centring : 0 puts the label on the sheet's face, 1 in its middle
    gap_width : mean width of an open air gap between sheets
    gap_open : share of the sheets' area where the gap is open; elsewhere they are stuck, 0 to 1
    papyrus, air : mean grey values
    fibre_contrast, lamina_contrast, grain_contrast : standard deviations of the papyrus textures
    recto_contrast : how much brighter the labelled lamina is than its sheet
    crack_density : share of the volume near which a sheet may be cracked across, 0 to 1
    inclusion_density : bright mineral grains in 100^3 voxels
    psf_sigma : deviation of the scanner's Gaussian point spread
    noise_sigma : deviation of the reconstruction noise, correlated over about one voxel
    drift : amplitude of the slow drift of grey value across the volume
    exposure_jitter : relative spread of gain between volumes
    """

    scale: float = 1.0
    thickness: float = 13.0
    centring: float = 0.0
    gap_width: float = 4.0
    gap_open: float = 0.6
    papyrus: float = 118.0
    air: float = 28.0
    fibre_contrast: float = 14.0
    lamina_contrast: float = 18.0
    grain_contrast: float = 16.0
    recto_contrast: float = 34.0
    crack_density: float = 0.12
    inclusion_density: float = 3.0
    psf_sigma: float = 0.8
    noise_sigma: float = 3.0
    drift: float = 5.0
    exposure_jitter: float = 0.03

    def check(self) -> None:
        """Raise ArgumentError naming the first parameter out of its range."""
        ranges = {
            "scale": (0.25, 8.0),
            "thickness": (2.0, 200.0),
            "centring": (0.0, 1.0),
            "gap_open": (0.0, 1.0),
            "crack_density": (0.0, 1.0),
            "exposure_jitter": (0.0, 0.5),
            "psf_sigma": (0.0, 16.0),
            "gap_width": (0.0, 100.0),
        }
        for field in fields(self):
            check_range(field.name, getattr(self, field.name), *ranges.get(field.name, (0.0, 255.0)))


class _Textures(NamedTuple):
    """Periodic textures in sheet coordinates, each (across, along, around)."""

    fibres_around: Float32
    fibres_along: Float32
    laminae: Float32
    opening: Float32


class _Fields(NamedTuple):
    """Smooth fields in the volume's own coordinates."""

    thickness: SmoothField
    stuck: SmoothField
    edge: SmoothField
    recto: SmoothField
    crack: SmoothField
    cracked_region: SmoothField
    density: SmoothField
    drift: SmoothField


def dress(label: NDArray[np.integer], seed: int, *, params: DressParams | None = None) -> NDArray[np.uint8]:
    """CT volume in which the given label would be right.

    Papyrus fills the volume; sheets with a fibre layer at either face (around the scroll at the recto, along it at
    the verso), laminae, cracks and thin air gaps follow the labelled surfaces and go on between them as unlabelled
    layers. The labelled lamina is a little brighter than its sheet and lies at a gap where that gap is open. Then
    come bright inclusions, the point spread, correlated noise and a slow drift.

    Parameters
    ----------
    label : integer (z, y, x), at least 8 in each axis; 0 background, 1 surface, 2 unlabelled. A frame of 2 is
        peeled off and the surface continued into it.
    seed : non-negative integer; the same seed and label give the same volume
    params : see DressParams

    Returns
    -------
    volume : uint8 (z, y, x)

    Raises
    ------
    ArgumentError
        Not a 3-D integer array, too small, or a seed or parameter out of range.
    MemoryLimitError
        More than 2^29 voxels.
    DataError
        A label value other than 0, 1, 2.

    Notes
    -----
    What is still unlike real CT is measured in docs/phantom.md. Single-threaded; memory about 32 bytes a voxel.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((24, 24, 24), np.uint8)
    >>> label[:, 11:14] = 1
    >>> volume = dress(label, seed=0)
    >>> volume.shape, volume.dtype.name
    ((24, 24, 24), 'uint8')
    """
    params = params or DressParams()
    surface = _checked_surface(label)
    check_seed(seed)
    params.check()

    layers = find_layers(surface)
    textures = _draw_textures(seed, params)
    smooth = _draw_fields(surface.shape, seed, params)
    grain = stream(seed, "grain")
    volume = np.empty(surface.shape, np.float32)
    for start, stop in slabs(len(volume)):
        volume[start:stop] = _compose(layers, textures, smooth, (start, stop), params, grain)
    _add_inclusions(volume, stream(seed, "inclusions"), params)
    volume = gaussian_blur(volume, params.psf_sigma * params.scale)
    return _expose(volume, smooth.drift, seed, params)


def _checked_surface(label: NDArray[np.integer]) -> NDArray[np.bool_]:
    """The mask of class 1, continued into the frame of 2."""
    if not isinstance(label, np.ndarray) or label.dtype.kind not in "iu":
        got = getattr(label, "dtype", type(label).__name__)
        raise ArgumentError(f"label: got {got}; accepted: an integer NumPy array")
    if label.ndim != 3 or min(label.shape) < 8 or max(label.shape) > 2048:
        raise ArgumentError(f"label: got shape {label.shape}; accepted: (z, y, x), each from 8 to 2048")
    check_memory(label.shape)
    if label.min() < 0 or label.max() > 2:
        values = np.unique(label)
        raise DataError(f"label: got values {values[:8].tolist()}; accepted: 0 background, 1 surface, 2 unlabelled")
    depth = _frame_depth(label)
    if 2 * depth >= min(label.shape):  # nothing is labelled at all
        return np.zeros(label.shape, np.bool_)
    inner = label[(slice(depth, -depth or None),) * 3] == 1
    return np.pad(inner, depth, mode="edge")


def _frame_depth(label: NDArray[np.integer]) -> int:
    """How many outer layers of voxels hold nothing but 2."""
    depth = 0
    while 2 * depth < min(label.shape):
        inner = label[(slice(depth, -depth or None),) * 3]
        faces = (inner.take(i, axis) for axis in range(3) for i in (0, -1))
        if not all((face == 2).all() for face in faces):
            return depth
        depth += 1
    return depth


def _draw_textures(seed: int, params: DressParams) -> _Textures:
    def draw(name: str, *sigma: float, high_pass: float | None = None) -> Float32:
        across, along, around = (params.scale * s for s in sigma)
        cut = None if high_pass is None else params.scale * high_pass
        return periodic_texture(_TEXTURE_SHAPE, (across, along, around), stream(seed, name), high_pass=cut)

    return _Textures(
        fibres_around=draw("fibres_around", 0.8, 0.8, 22.0),
        fibres_along=draw("fibres_along", 0.8, 22.0, 0.8),
        laminae=draw("laminae", 0.6, 20.0, 13.0, high_pass=1.3),
        opening=draw("opening", 3.5, 22.0, 12.0),
    )


def _draw_fields(shape: tuple[int, ...], seed: int, params: DressParams) -> _Fields:
    def draw(name: str, length: float) -> SmoothField:
        z, y, x = shape
        return SmoothField((z, y, x), length, stream(seed, name))

    s = params.scale
    return _Fields(
        thickness=draw("thickness", 30 * s),
        stuck=draw("stuck", 34 * s),
        edge=draw("edge", 8 * s),
        recto=draw("recto", 18 * s),
        crack=draw("crack", 9 * s),
        cracked_region=draw("cracked_region", 26 * s),
        density=draw("density", 12 * s),
        drift=draw("drift", 0.6 * max(shape)),
    )


def _compose(
    layers: Layers,
    textures: _Textures,
    smooth: _Fields,
    planes: tuple[int, int],
    params: DressParams,
    grain: np.random.Generator,
) -> Float32:
    """Grey values of a slab before inclusions and scanner."""
    start, stop = planes
    s = np.float32(params.scale)
    depth = layers.depth[start:stop]
    thickness = params.thickness * s * np.clip(1 + 0.22 * smooth.thickness.slab(start, stop), 0.55, 1.6)
    depth = depth + 0.7 * s * smooth.edge.slab(start, stop) * np.clip((np.abs(depth) - 2) / (6 * s), 0, 1)

    # Sheets repeat on both sides of the labelled one; `into` is the way from the last gap into this sheet.
    face = np.float32(-1.9) - np.float32(params.centring / 2) * thickness
    behind = (depth - face) / thickness
    index = np.floor(behind)
    into = behind - index
    labelled = index == 0

    sampled = _sample(textures, layers.frame, layers.depth.shape, planes, depth)
    air = _air(index, into * thickness, thickness, sampled.opening, smooth.stuck.slab(start, stop), params)

    recto_to_verso = np.clip((into - 0.5) * 5 + 0.5, 0, 1)
    fibres = sampled.fibres_around * (1 - recto_to_verso) + sampled.fibres_along * recto_to_verso
    calm = 1 - 0.6 * np.exp(-0.5 * (depth / (2.5 * s)) ** 2)  # the recto is one even lamina
    body = params.fibre_contrast * fibres + params.lamina_contrast * calm * sampled.laminae
    body += params.grain_contrast * s**1.5 * grain.standard_normal(depth.shape, np.float32)
    body += 9.0 * smooth.density.slab(start, stop) + 4.0 * sampled.opening
    body += _recto(depth, into * thickness, labelled, smooth.recto.slab(start, stop), params)
    body -= _cracks(smooth, planes, params)
    papyrus = params.papyrus + body
    return np.asarray(papyrus + air * (params.air + 0.25 * body - papyrus), np.float32)


def _sample(
    textures: _Textures, frame: LayerFrame, shape: tuple[int, ...], planes: tuple[int, int], depth: Float32
) -> _Textures:
    """Textures at a slab's voxels: the nearest sample in sheet coordinates.

    Each is sheared along its own fibres, so that sheets one above the other differ though the texture repeats.
    """
    along, around, across = sheet_coordinates(frame, shape, planes)
    u = np.rint(depth).astype(np.int32) % _TEXTURE_SHAPE[0]

    def look_up(texture: Float32, shear_along: float, shear_around: float) -> Float32:
        v = np.rint(along + np.float32(shear_along) * across).astype(np.int32) % _TEXTURE_SHAPE[1]
        w = np.rint(around + np.float32(shear_around) * across).astype(np.int32) % _TEXTURE_SHAPE[2]
        return np.asarray(texture.ravel()[(u * _TEXTURE_SHAPE[1] + v) * _TEXTURE_SHAPE[2] + w])

    return _Textures(
        look_up(textures.fibres_around, 0.0, 2.3),
        look_up(textures.fibres_along, 2.3, 0.0),
        look_up(textures.laminae, 1.1, 0.7),
        look_up(textures.opening, 0.6, 0.4),
    )


def _air(
    index: Float32, inward: Float32, thickness: Float32, opening: Float32, stuck: Float32, params: DressParams
) -> Float32:
    """Share of air, 0 to 1: each sheet's gap lies before its recto, wide in the middle and tapering to nothing."""
    s = np.float32(params.scale)
    # Two standard normals added; the quantile that gap_open asks for, by a logistic fit of the normal.
    share = min(max(params.gap_open, 1e-3), 1 - 1e-3)
    level = np.float32(np.log(share / (1 - share)) / 1.702)
    spread = (0.8 * opening + 0.6 * stuck) + level
    width = np.minimum(params.gap_width * s * np.clip(1.25 * spread, 0, 2.2), 0.5 * thickness)
    # Unlabelled sheets hang together more than labelled ones; sheet -1 ends where the labelled one begins.
    width *= np.where(index == -1, np.float32(1), np.float32(0.7))
    before = thickness - inward  # distance to the next sheet's recto
    return np.asarray(np.clip((width - before) + 0.5, 0, 1) * (width > 0.3), np.float32)


def _recto(
    depth: Float32, inward: Float32, labelled: NDArray[np.bool_], patches: Float32, params: DressParams
) -> Float32:
    """Brighter lamina at the label, and weaker ones at the faces of unlabelled sheets."""
    width = 1.5 * params.scale**0.5
    strength = params.recto_contrast * np.clip(1 + 0.45 * patches, 0.1, 2)
    # A dense layer with looser ones beside it: the mean stays, so that brightness alone tells little.
    own = labelled | (np.abs(depth) < 4 * width)
    square = (np.where(own, depth, inward - 1.9) / width) ** 2
    ridge = np.exp(-0.5 * square) - 0.62 * np.exp(-0.125 * square)
    return np.asarray(strength * np.where(own, np.float32(1), np.float32(0.4)) * ridge, np.float32)


def _cracks(smooth: _Fields, planes: tuple[int, int], params: DressParams) -> Float32:
    """Dark thin surfaces across the sheets, in some regions."""
    if params.crack_density == 0:
        return np.zeros((planes[1] - planes[0], 1, 1), np.float32)
    level = (
        np.float32(np.log((1 - params.crack_density) / params.crack_density) / 1.702)
        if params.crack_density < 1
        else -3
    )
    region = np.clip(2 * (smooth.cracked_region.slab(*planes) - level), 0, 1)
    line = np.clip(1 - np.abs(smooth.crack.slab(*planes)) * 9, 0, 1)
    return np.asarray(0.6 * (params.papyrus - params.air) * region * line, np.float32)


def _add_inclusions(volume: Float32, rng: np.random.Generator, params: DressParams) -> None:
    """Stamp bright grains, ragged unions of small ellipsoids, into the volume."""
    s = params.scale
    count = rng.poisson(params.inclusion_density * volume.size / (100.0 * s) ** 3)
    for _ in range(min(int(count), 20_000)):
        place = rng.uniform(0, 1, 3) * volume.shape
        size = s * rng.lognormal(0.35, 0.45)
        bright = rng.uniform(50, 190)
        for _ in range(int(rng.integers(1, 4))):
            radii = np.minimum(size * rng.uniform(0.6, 1.7, 3), 12 * s)
            centre = place + rng.normal(0, size, 3)
            lo = np.maximum(np.floor(centre - radii), 0).astype(int)
            hi = np.minimum(np.ceil(centre + radii) + 1, volume.shape).astype(int)
            if (hi <= lo).any():
                continue
            z, y, x = ((np.arange(a, b) - c) / r for a, b, c, r in zip(lo, hi, centre, radii, strict=True))
            inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 1
            box = volume[lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]]
            box[inside] = np.maximum(box[inside], np.float32(params.papyrus + bright))


def _expose(volume: Float32, drift: SmoothField, seed: int, params: DressParams) -> NDArray[np.uint8]:
    """Gain, drift, noise and rounding to uint8."""
    rng = stream(seed, "noise")
    gain = np.float32(1 + params.exposure_jitter * rng.standard_normal())
    if params.noise_sigma > 0:
        white = rng.standard_normal(volume.shape, np.float32)
        sigma = 0.6 * params.scale
        loss = (2 * np.sqrt(np.pi) * sigma) ** 1.5  # of the deviation, when white noise is blurred
        volume = volume + gaussian_blur(white, sigma) * np.float32(params.noise_sigma * max(loss, 1.0))
    out = np.empty(volume.shape, np.uint8)
    for start, stop in slabs(len(out)):
        grey = gain * (volume[start:stop] + np.float32(params.drift) * drift.slab(start, stop))
        out[start:stop] = np.clip(np.rint(grey), 0, 255)
    return out
