"""What is done to a patch before the student sees it: drawn as plain values first, applied afterwards."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Augmentation"]

TURN_AXES = (1, 2)
"""In-plane (y, x): slices of a scan are not always as far apart as its pixels."""

INTENSITY_PROBABILITY = 0.5
SCALE = (0.8, 1.25)
SHIFT = 0.2
GAMMA = (0.7, 1.5)
NOISE = 0.15
BLUR = 0.25
"""Ranges in units of the volume's own deviation, which the images are divided by."""


@dataclass(frozen=True)
class Augmentation:
    """One drawn augmentation: flips and quarter turns of everything, changes of the image's intensity alone (R19).

    Attributes
    ----------
    flips : tuple of bool
        Along z, y, x.
    turns : int
        Quarter turns in the (y, x) plane, 0 to 3.
    scale, shift, gamma : float
        ``scale * image + shift``; then the power of the image's place between its extremes. 1, 0 and 1 change nothing.
    noise : float
        Deviation of white noise, in deviations of the volume.
    blur : float
        Weight of either neighbour along each axis, 0 to 0.25: ``(b, 1 - 2b, b)``.

    Examples
    --------
    >>> import numpy as np
    >>> drawn = Augmentation.draw(np.random.Generator(np.random.Philox(7)), square=True)
    >>> drawn == Augmentation.draw(np.random.Generator(np.random.Philox(7)), square=True)
    True
    >>> turned = Augmentation(turns=1).geometric(np.arange(4).reshape(1, 2, 2))
    >>> turned.tolist()
    [[[1, 3], [0, 2]]]
    """

    flips: tuple[bool, bool, bool] = (False, False, False)
    turns: int = 0
    scale: float = 1.0
    shift: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    blur: float = 0.0

    @classmethod
    def draw(cls, generator: np.random.Generator, *, square: bool) -> "Augmentation":
        """Draw one; always the same number of values is taken, so that no choice moves the next.

        Parameters
        ----------
        generator : numpy.random.Generator
            Advanced by this call.
        square : bool
            Whether patches are as long in y as in x: only then may a quarter turn be odd.

        Returns
        -------
        Augmentation
        """
        flip = generator.random(3) < 0.5
        turns = int(generator.integers(4))
        applied = generator.random(4) < INTENSITY_PROBABILITY
        amount = generator.random(5)
        return cls(
            flips=(bool(flip[0]), bool(flip[1]), bool(flip[2])),
            turns=turns if square else turns // 2 * 2,
            scale=_log_uniform(amount[0], SCALE) if applied[0] else 1.0,
            shift=float(SHIFT * (2 * amount[1] - 1)) if applied[0] else 0.0,
            gamma=_log_uniform(amount[2], GAMMA) if applied[1] else 1.0,
            noise=float(NOISE * amount[3]) if applied[2] else 0.0,
            blur=float(BLUR * amount[4]) if applied[3] else 0.0,
        )

    def geometric(self, array: NDArray[Any]) -> NDArray[Any]:
        """Flips and turns of an array (z, y, x): to be applied to image, label and soft labels alike.

        Parameters
        ----------
        array : ndarray, shape (z, y, x)

        Returns
        -------
        ndarray
            A C-contiguous array of the same type; of the same shape, unless an odd turn swaps y and x.
        """
        flipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return np.ascontiguousarray(np.rot90(flipped, self.turns, TURN_AXES))

    def intensity(self, image: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        """Blur, gamma, scale, shift and noise, in this order, as the scanner would.

        Parameters
        ----------
        image : ndarray, shape (z, y, x), float32
            Standardised.
        generator : numpy.random.Generator
            Of the noise.

        Returns
        -------
        ndarray, shape (z, y, x), float32
            A new array.
        """
        image = blurred(image, np.float32(self.blur)) if self.blur else image
        if self.gamma != 1.0:
            low, span = image.min(), np.ptp(image)
            if span > 0:
                image = low + span * ((image - low) / span) ** np.float32(self.gamma)
        image = np.float32(self.scale) * image + np.float32(self.shift)
        if self.noise:
            image += np.float32(self.noise) * generator.standard_normal(image.shape, np.float32)
        return image


def blurred(image: NDArray[np.float32], weight: np.float32) -> NDArray[np.float32]:
    """The kernel (weight, 1 - 2 weight, weight) along each axis in turn, edges repeated.

    Parameters
    ----------
    image : ndarray, shape (z, y, x), float32
    weight : float32
        0 to 0.25.

    Returns
    -------
    ndarray, shape (z, y, x), float32

    Examples
    --------
    >>> import numpy as np
    >>> blurred(np.array([[[0, 4, 0, 0]]], np.float32), np.float32(0.25)).tolist()
    [[[1.0, 2.0, 1.0, 0.0]]]
    """
    for axis in range(image.ndim):
        before = np.take(image, np.maximum(np.arange(image.shape[axis]) - 1, 0), axis)
        after = np.take(image, np.minimum(np.arange(image.shape[axis]) + 1, image.shape[axis] - 1), axis)
        image = (1 - 2 * weight) * image + weight * (before + after)
    return image


def _log_uniform(uniform: float, bounds: tuple[float, float]) -> float:
    low, high = np.log(bounds)
    return float(np.exp(low + (high - low) * uniform))
