"""Auto-tuning: what may be tuned, and between which bounds (R39). Off unless asked for."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vesu.config.checks import require

__all__ = ["AutoTuneConfig", "Tuned"]

Tuned: TypeAlias = Literal["dust_min_size", "mutation_noise", "convergence_patience", "meta_neurons"]
"""A parameter that can be tuned, by the history's name."""

MOST = 1 << 20


@dataclass(frozen=True)
class AutoTuneConfig:
    """Which settings a run may change by itself, within which bounds, and what keeps it from flapping (R39)."""

    use: bool = False
    """Tune at all."""
    parameters: tuple[Tuned, ...] = get_args(Tuned)
    """What is tuned."""
    dust_min_size: tuple[int, ...] = (0, 100_000)
    """Bounds of `segment.dust.min_voxels`."""
    mutation_noise: tuple[float, ...] = (0.0125, 0.4)
    """Bounds of `search.mutation_noise`."""
    convergence_patience: tuple[int, ...] = (1, 12)
    """Bounds of `search.patience`."""
    meta_neurons: tuple[int, ...] = (9, 27)
    """Bounds of the number of meta-neurons; they only grow."""
    cooldown: int = 1
    """Epochs for which a parameter rests after a change was judged; each rollback in a row doubles them."""
    tolerance: float = 1e-4
    """A validation objective is worse when it is higher by more than this: the change is rolled back."""

    def __post_init__(self) -> None:
        name = "auto_tune.parameters"
        good = bool(self.parameters) and len(set(self.parameters)) == len(self.parameters)
        require(name, self.parameters, good, f"some of {', '.join(get_args(Tuned))}, each once")
        for name in get_args(Tuned):
            bounds = getattr(self, name)
            good = len(bounds) == 2 and all(0 <= each <= MOST**2 for each in bounds) and bounds[0] <= bounds[1]
            require(f"auto_tune.{name}", bounds, good, "two numbers, low and high, 0 <= low <= high")
        low = self.convergence_patience[0]
        require("auto_tune.convergence_patience", self.convergence_patience, low >= 1, "a low bound of 1 or more")
        high = self.meta_neurons[1]
        require("auto_tune.meta_neurons", self.meta_neurons, high <= MOST, f"a high bound of {MOST} or less")
        require("auto_tune.cooldown", self.cooldown, 0 <= self.cooldown <= MOST, f"0 to {MOST} epochs")
        require("auto_tune.tolerance", self.tolerance, 0 <= self.tolerance < math.inf, "0 or more")

    def require_inside(self, parameter: Tuned, key: str, value: float) -> None:
        """Refuse a setting that its own bounds leave out, where it is tuned.

        Raises
        ------
        ArgumentError
            Naming both.
        """
        if self.use and parameter in self.parameters:
            low, high = getattr(self, parameter)
            require(key, value, low <= value <= high, f"{low} to {high}, the bounds of auto_tune.{parameter}")
