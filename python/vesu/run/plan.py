"""What a run will do, decided before it starts: phases and their weights, and who trains and who validates."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vesu.config import RunConfig
from vesu.data.discover import Inventory, Pair
from vesu.errors import DataError

__all__ = ["Split", "phase_weights", "split_pairs"]

# Measured costs on two cores (docs/measured.md), only to weigh the phases against each other before the run's own
# figures replace them.
_READ_S_PER_VOXEL = 4e-9
_FEATURES_S_PER_VOXEL = 5e-7
_SEGMENT_S_PER_VOXEL = 1e-6
_FIT_S_PER_WEIGHT_STEP = 6e-11


@dataclass(frozen=True)
class Split:
    """Labelled volumes by use. Together they are every discovered pair (R16, R40)."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> Split:
    """Hold whole volumes out for validation: a neighbouring voxel of a training voxel proves nothing.

    Raises
    ------
    DataError
        Fewer than two labelled pairs.
    """
    if len(pairs) < 2:
        raise DataError(f"labelled pairs: got {len(pairs)}; accepted: 2 or more (one is held out for validation)")
    n_validation = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(pairs))
    held_out = set(order[:n_validation].tolist())
    return Split(
        train=tuple(pair for i, pair in enumerate(pairs) if i not in held_out),
        validation=tuple(pair for i, pair in enumerate(pairs) if i in held_out),
    )


def phase_weights(inventory: Inventory, config: RunConfig, n_channels: int) -> dict[str, float]:
    """Expected seconds of each phase (R34's W before normalisation); 0 for a phase that was not asked for."""

    def voxels(paths: Iterable[Path]) -> float:
        return float(sum(math.prod(inventory.infos[path].shape) for path in paths if path in inventory.infos))

    train = voxels(pair.image for pair in inventory.pairs)
    test = voxels(volume.image for volume in inventory.tests)
    search = config.search
    candidates = search.meta_neurons * len(search.l1) * len(search.l2)
    samples = len(inventory.pairs) * config.sampling.voxels_per_volume
    steps = samples * candidates * search.max_iter * 3 * n_channels
    return {
        "discovery": 0.2,
        "preflight": 0.5,
        "load": 0.1 + train * 2 * _READ_S_PER_VOXEL,
        "features": train * _FEATURES_S_PER_VOXEL,
        "train_data": 0.2 + samples * 1e-6,
        "fit": steps * _FIT_S_PER_WEIGHT_STEP,
        "distillation": 0.0,
        "segment": (test + train * config.sampling.validation_fraction) * _SEGMENT_S_PER_VOXEL,
        "package": 0.1 + test * _READ_S_PER_VOXEL * 5,
    }
