"""Probability maps as a network might give them, made from a real label by known damage.

A map starts as the label's surface, blurred and with correlated noise, so that thresholds matter. On top comes one
kind of damage at one of three strengths: holes in sheets, bridges between neighbouring sheets, specks in the open,
more blur, or a little of everything. The label itself stays the truth.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]

STRENGTHS = (1, 2, 3)
_MARGIN_TO_FAR = 24  # voxels: sheets further apart than this are never bridged


def degraded(label: NDArray[np.uint8], kind: str, strength: int, seed: int) -> Volume:
    """The label's surface as a damaged probability map, float32 in [0, 1]."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind), strength])
    surface = label == 1
    logits = _logits_of(surface, sigma=(0.8 if kind != "blur" else 0.6 + 0.5 * strength))
    KINDS[kind](logits, surface, strength, rng)
    logits += 0.9 * _noise(label.shape, 1.2, rng)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _logits_of(surface: NDArray[np.bool_], sigma: float) -> Volume:
    """From -4 far away to +4 within a sheet: a blur's edge is where a network is unsure."""
    blurred = ndimage.gaussian_filter(surface.astype(np.float32), sigma)
    return np.asarray(8 * blurred - 4, dtype=np.float32)


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Volume:
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(field / field.std(), dtype=np.float32)


def _balls(
    logits: Volume, centres: NDArray[np.intp], radii: NDArray[np.float64], value: float, keep: Callable[..., Any]
) -> None:
    """Set ragged balls to about `value`; `keep` combines old and new (np.minimum makes holes, np.maximum blobs)."""
    for centre, radius in zip(centres, radii, strict=True):
        reach = int(np.ceil(radius))
        box = tuple(slice(max(0, c - reach), c + reach + 1) for c in centre)
        axes = [np.arange(s.start, min(s.stop, n)) - c for s, n, c in zip(box, logits.shape, centre, strict=True)]
        distance = np.sqrt(sum(a.astype(np.float32) ** 2 for a in np.meshgrid(*axes, indexing="ij")))
        inside = np.clip(radius - distance + 0.5, 0, 1)  # one voxel of transition
        logits[box] += inside * (keep(logits[box], value) - logits[box])


def _some(places: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    found = np.flatnonzero(places)
    chosen = rng.choice(found, size=min(count, found.size), replace=False)
    return np.stack(np.unravel_index(chosen, places.shape), axis=1)


def _holes(logits: Volume, surface: NDArray[np.bool_], strength: int, rng: np.random.Generator) -> None:
    count = 40 * strength
    centres = _some(surface, count, rng)
    _balls(logits, centres, rng.uniform(1.5, 2.0 + 2.0 * strength, len(centres)), -2.0, np.minimum)
    pinholes = _some(surface, 10 * count, rng)
    _balls(logits, pinholes, rng.uniform(0.6, 1.6, len(pinholes)), -1.5, np.minimum)


def _merges(logits: Volume, surface: NDArray[np.bool_], strength: int, rng: np.random.Generator) -> None:
    """Bridges across the gap at its narrow places, midway between two different sheets."""
    sheets, _ = ndimage.label(surface, np.ones((3, 3, 3)))
    distance, nearest = ndimage.distance_transform_edt(~surface, return_indices=True)
    owner = sheets[tuple(nearest)]
    midway = np.zeros(surface.shape, bool)
    for axis in range(3):
        midway |= np.diff(owner, axis=axis, append=np.take(owner, [-1], axis)) != 0
    midway &= (distance > 1.5) & (distance < _MARGIN_TO_FAR / 2)
    narrow = midway & (distance <= np.quantile(distance[midway], 0.3)) if midway.any() else midway
    centres = _some(narrow, 12 * strength, rng)
    radii = distance[tuple(centres.T)] + 1.0
    _balls(logits, centres, radii, 0.8, np.maximum)


def _specks(logits: Volume, surface: NDArray[np.bool_], strength: int, rng: np.random.Generator) -> None:
    open_space = ndimage.distance_transform_edt(~surface) > 4
    centres = _some(open_space, 400 * strength**2, rng)
    _balls(logits, centres, rng.gamma(2.0, 0.4 + 0.3 * strength, len(centres)) + 0.5, 1.5, np.maximum)


def _blur(logits: Volume, surface: NDArray[np.bool_], strength: int, rng: np.random.Generator) -> None:
    """The wider blur is in the map already; here the sheets' strength drifts along them."""
    drift = _noise(logits.shape, 12.0, rng)
    logits += (0.4 * strength * drift).astype(np.float32)


def _all(logits: Volume, surface: NDArray[np.bool_], strength: int, rng: np.random.Generator) -> None:
    for damage in (_blur, _holes, _merges, _specks):
        damage(logits, surface, strength, rng)


KINDS: dict[str, Callable[[Volume, NDArray[np.bool_], int, np.random.Generator], None]] = {
    "holes": _holes,
    "merges": _merges,
    "specks": _specks,
    "blur": _blur,
    "all": _all,
}


def cases() -> tuple[tuple[str, int], ...]:
    """Every kind at every strength."""
    return tuple((kind, strength) for kind in KINDS for strength in STRENGTHS)
