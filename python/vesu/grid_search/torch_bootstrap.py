"""The Rust core's counter-based draws in torch's integers, bit for bit (``prox/bootstrap.rs``).

A draw depends on (seed, neuron, sample) and on nothing else: SplitMix64 read at a position instead of stepped. torch
has no unsigned 64-bit arithmetic: words are int64, whose products wrap around, and logical shifts are made by a mask.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["initial_coefficients", "neuron_pair_keys", "poisson_tails", "poisson_weights"]

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_INITIALISATION = 0x494E4954
_N_TAILS = 13  # P(Poisson(1) > 12) is below the resolution of a draw of 32 bits


def mix(z: int) -> int:
    """SplitMix64's output function on one word."""
    z = ((z ^ (z >> 30)) * _FACTORS[0]) & _MASK
    z = ((z ^ (z >> 27)) * _FACTORS[1]) & _MASK
    return z ^ (z >> 31)


def neuron_pair_keys(seed: int, n_neurons: int) -> list[int]:
    """One stream for two neurons: each takes half of a word."""
    start = mix(seed ^ _GAMMA)
    return [mix(start ^ mix(pair + 1)) for pair in range((n_neurons + 1) // 2)]


def poisson_tails() -> list[int]:
    """``2^32 P(X > k)`` for k = 0, 1, ...: a weight is the number of tails above the draw."""
    mass = [math.exp(-1)]
    for k in range(1, _N_TAILS + 8):
        mass.append(mass[-1] / k)
    return [round(sum(reversed(mass[k + 1 :])) * 2**32) for k in range(_N_TAILS)]


def initial_coefficients(seed: int, n_neurons: int, n_coefficients: int, scale: float) -> NDArray[np.float64]:
    """(n_neurons, n_coefficients): uniform of mean 0 and standard deviation ``scale``, the neuron's own."""
    keys = [mix(mix(seed ^ _INITIALISATION) ^ mix(neuron + 1)) for neuron in range(n_neurons)]
    words = [[mix((key + (i + 1) * _GAMMA) & _MASK) >> 11 for i in range(n_coefficients)] for key in keys]
    unit = np.array(words, np.float64) / 2**53
    coefficients: NDArray[np.float64] = scale * math.sqrt(3) * (2 * unit - 1)
    return coefficients


def poisson_weights(torch: Any, keys: list[int], n_neurons: int, first: int, n: int, device: Any) -> Any:
    """Bootstrap weights of samples ``first`` to ``first + n``: uint8 tensor (n, n_neurons) on ``device``."""
    counter = torch.arange(first + 1, first + n + 1, dtype=torch.int64, device=device).mul_(_signed(_GAMMA))
    tails = torch.tensor(sorted(poisson_tails()), dtype=torch.int64, device=device)
    weights = torch.empty((n, n_neurons), dtype=torch.uint8, device=device)
    for pair, key in enumerate(keys):
        word = _mix(counter + _signed(key))
        for half in range(min(2, n_neurons - 2 * pair)):
            draw = word.bitwise_right_shift(32 * half).bitwise_and_(0xFFFFFFFF)
            at_or_below = torch.bucketize(draw, tails, right=True, out_int32=True)
            weights[:, 2 * pair + half] = at_or_below.neg_().add_(_N_TAILS)
    return weights


def _mix(word: Any) -> Any:
    """:func:`mix` of every element, in place."""
    word.bitwise_xor_(_logical_shift(word, 30)).mul_(_signed(_FACTORS[0]))
    word.bitwise_xor_(_logical_shift(word, 27)).mul_(_signed(_FACTORS[1]))
    return word.bitwise_xor_(_logical_shift(word, 31))


def _logical_shift(word: Any, by: int) -> Any:
    return word.bitwise_right_shift(by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return word - (1 << 64) if word >> 63 else word
