"""What a run will do, decided before it starts: phases and their weights, and who trains and who validates."""

import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np

from vesu import _core
from vesu.config import RunConfig, SearchConfig
from vesu.data.discover import Inventory, Pair
from vesu.data.preflight import MEMORY_BYTES_PER_VOXEL
from vesu.errors import DataError, FileError
from vesu.grid_search import EpochSettings
from vesu.run.costs import Costs
from vesu.run.weights import PHASES

__all__ = [
    "CALIBRATION_VOLUMES",
    "DRAWS_PER_PASS",
    "Forecast",
    "Split",
    "candidates_by_epoch",
    "configured_split",
    "distillation_costs",
    "epoch_settings",
    "forecast",
    "memory_bytes",
    "phase_weights",
    "row_bytes",
    "scored_pairs",
    "soft_label_bytes",
    "split_pairs",
]

CALIBRATION_VOLUMES = 8
"""Validation volumes that calibrate and score, held in memory at once; an event of this name says how many."""

# Measured costs on two cores (docs/measured.md), only to weigh the phases against each other before the run's own
# figures replace them.
_READ_S_PER_VOXEL = 4e-9
_FEATURES_S_PER_VOXEL = 2e-7
_SEGMENT_S_PER_VOXEL = 4e-7
_RANK_S_PER_VOXEL = 2.6e-7
_BASELINE_S_PER_VOXEL = 4e-8
_FIT_S_PER_WEIGHT_STEP = 1.7e-11
_NETWORK_S_PER_VOXEL = 2e-6
_TRAINING_FACTOR = 3.0
"""A training step against a forward pass over the same voxels."""
_CUDA_FACTOR = 0.01

_CACHED = ("load", "features")
"""Phases whose results the cache holds."""

_WARM_PART = 0.1
"""Of the cost of such a phase, what is left of it when the cache has everything; only until that was measured once."""

DRAWS_PER_PASS = 4
"""Epochs whose voxels are drawn from one computation of a volume's features: those cost far more than the voxels."""


class Sized(Protocol):
    """Processes that share the samples."""

    @property
    def world(self) -> int: ...


@dataclass(frozen=True)
class Split:
    """Labelled volumes by use. Together they are every discovered pair (R16, R40)."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    left_out: tuple[Pair, ...] = ()
    """Volumes beyond a cap that was asked for."""


def split_pairs(
    pairs: Sequence[Pair],
    fraction: float,
    seed: int,
    *,
    max_train: int | None = None,
    max_validation: int | None = None,
) -> Split:
    """Hold whole volumes out for validation: a neighbouring voxel of a training voxel proves nothing.

    A cap (R40) takes the first of each kind in the seed's order: it never turns a held-out volume into one that is
    learned from, and a higher cap only adds volumes.

    Raises
    ------
    DataError
        Fewer than two labelled pairs.
    """
    if len(pairs) < 2:
        raise DataError(f"labelled pairs: got {len(pairs)}; accepted: 2 or more (one is held out for validation)")
    n_validation = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(pairs)).tolist()
    validation = set(order[:n_validation][:max_validation])
    train = set(order[n_validation:][:max_train])
    return Split(
        train=tuple(pair for i, pair in enumerate(pairs) if i in train),
        validation=tuple(pair for i, pair in enumerate(pairs) if i in validation),
        left_out=tuple(pair for i, pair in enumerate(pairs) if i not in train | validation),
    )


def configured_split(pairs: Sequence[Pair], config: RunConfig) -> Split:
    """:func:`split_pairs` with the configuration's share, caps and seed."""
    sampling = config.sampling
    return split_pairs(
        pairs,
        sampling.validation_fraction,
        config.seed,
        max_train=sampling.max_train_volumes,
        max_validation=sampling.max_val_volumes,
    )


def scored_pairs(pairs: Sequence[Pair], config: RunConfig) -> tuple[Pair, ...]:
    """The labelled volumes on which a run's scores are taken: with the same seed the same ones in every pipeline (R32).

    A pipeline that trains nothing is also scored on an only pair, and on none where there is none.
    """
    if len(pairs) < 2:
        return tuple(pairs)
    return configured_split(pairs, config).validation[:CALIBRATION_VOLUMES]


def epoch_settings(search: SearchConfig) -> EpochSettings:
    """The epochs and what happens between them, as configured."""
    shared = {field.name for field in fields(EpochSettings)} & {field.name for field in fields(SearchConfig)}
    return EpochSettings(epochs=search.supervised_epochs, **{name: getattr(search, name) for name in shared})


def candidates_by_epoch(search: SearchConfig) -> list[int]:
    """Candidates of each epoch that may come."""
    settings, per_neuron = epoch_settings(search), len(search.l1) * len(search.l2)
    return [settings.n_neurons(search.meta_neurons, epoch) * per_neuron for epoch in range(settings.limit)]


def distillation_costs(inventory: Inventory, config: RunConfig, n_teachers: int) -> tuple[float, float, float]:
    """Expected seconds of the teachers' answers, of the student's training, and of its predictions in segmenting."""
    student, teachers = config.student, config.teachers
    used = _voxels(inventory, (pair.image for pair in _used(inventory, config)))
    scored = _voxels(inventory, (pair.image for pair in scored_pairs(inventory.pairs, config)))
    test = _voxels(inventory, (volume.image for volume in inventory.tests))
    voxel_s, own_s = _network_voxel_s(config), _student_voxel_s(config)
    per_step = math.prod(student.patch) * student.batch * student.accumulate
    predicted_s = own_s * _passes(student.overlap, student.flips)
    n_steps = sum(student.stage_steps)
    training_s = n_steps * per_step * own_s * _TRAINING_FACTOR
    validating_s = n_steps / student.validate_every * scored * predicted_s
    return (
        0.1 + n_teachers * used * voxel_s * _passes(teachers.overlap, teachers.flips),
        0.1 + training_s + validating_s,
        (test + scored) * predicted_s,
    )


def _network_voxel_s(config: RunConfig) -> float:
    """Seconds of a voxel of one pass through a network of usual size."""
    return _NETWORK_S_PER_VOXEL * (_CUDA_FACTOR if config.student.device == "cuda" else 1.0)


def _student_voxel_s(config: RunConfig) -> float:
    return _network_voxel_s(config) * (config.student.channels[0] / 16) ** 2


def soft_label_bytes(inventory: Inventory, config: RunConfig, n_teachers: int) -> int:
    """Room in the cache that the volumes, each teacher's answer (float16), and the folded soft labels take."""
    used = _voxels(inventory, (pair.image for pair in _used(inventory, config)))
    return int(used * (2 + 2 * n_teachers + 3 * 2))


def row_bytes(inventory: Inventory, config: RunConfig, n_channels: int, *, most_epochs: int | None = None) -> int:
    """Room that the sampled rows of all volumes and epochs take, x and gradients in float32; 0 without a search."""
    if config.pipeline != "vesu":
        return 0
    infos, most = inventory.infos, config.sampling.voxels_per_volume
    rows = sum(min(most, math.prod(infos[p.label].shape)) for p in _used(inventory, config) if p.label in infos)
    limit = epoch_settings(config.search).limit
    return rows * (8 * n_channels + 1) * min(limit, most_epochs or limit)


def memory_bytes(inventory: Inventory, config: RunConfig, n_channels: int, ranks: Sized | None = None) -> int:
    """Memory that the run needs here: its share of one epoch's samples, or of two, beside the largest volume (R02)."""
    largest = max((math.prod(info.shape) for info in inventory.infos.values()), default=0)
    samples = row_bytes(inventory, config, n_channels, most_epochs=2)
    return largest * MEMORY_BYTES_PER_VOXEL + samples // (1 if ranks is None else ranks.world)


def _passes(overlap: float, flips: bool) -> float:
    """How often each voxel goes through a network in sliding windows."""
    return (8.0 if flips else 1.0) / (1.0 - overlap) ** 3


def phase_weights(
    inventory: Inventory, config: RunConfig, n_channels: int, *, n_teachers: int | None = None
) -> dict[str, float]:
    """Expected seconds of each phase (R34's W before normalisation); 0 for a phase that was not asked for.

    ``n_teachers`` is the number of teachers that a student is distilled from; none where there is no student.
    """
    costs = (0.0, 0.0, 0.0) if n_teachers is None else distillation_costs(inventory, config, n_teachers)
    if config.pipeline != "vesu":
        return _baseline_weights(inventory, config, costs)

    def voxels(paths: Iterable[Path]) -> float:
        return _voxels(inventory, paths)

    pairs = _used(inventory, config)
    train = voxels(pair.image for pair in pairs)
    test = voxels(volume.image for volume in inventory.tests)
    by_epoch = candidates_by_epoch(config.search)
    samples = len(pairs) * config.sampling.voxels_per_volume
    steps = samples * sum(by_epoch) * config.search.max_iter * 3 * n_channels
    later_passes = math.ceil(len(by_epoch) / DRAWS_PER_PASS) - 1
    asked_s, trained_s, predicted_s = costs
    in_reserve = test * _BASELINE_S_PER_VOXEL if config.time.fallback != "empty" else 0.0
    return {
        "discovery": 0.02,
        "preflight": 0.1 + in_reserve,
        "load": 0.1 + train * 2 * _READ_S_PER_VOXEL,
        "features": train * _FEATURES_S_PER_VOXEL,
        "train_data": 0.2 + samples * 1e-6,
        "fit": steps * _FIT_S_PER_WEIGHT_STEP + later_passes * train * _FEATURES_S_PER_VOXEL,
        "distillation": asked_s + trained_s,
        "segment": predicted_s
        + (test + train * config.sampling.validation_fraction) * _SEGMENT_S_PER_VOXEL
        + _ranking_s(inventory, config, by_epoch[-1])
        + _guided_s(inventory, config, student=n_teachers is not None),
        "package": 0.1 + test * _READ_S_PER_VOXEL * 5,
    }


@dataclass(frozen=True)
class Forecast:
    """What a run's phases are expected to take, by the plan's constants and by what earlier runs took."""

    expected_s: dict[str, float]
    """Seconds of each phase."""
    spreads: dict[str, float]
    """How sure each is: the standard deviation of its logarithm."""
    nominal_s: dict[str, float]
    """The same by the plan's constants alone."""
    kinds: dict[str, str]
    inputs: str
    costs: Costs

    def learn(self, measured_s: Mapping[str, float]) -> None:
        """Keep what a finished run took, for the next one; a disk that refuses is noted in ``costs.problem``."""
        self.costs.record(self.nominal_s, self.kinds, measured_s)
        self.costs.remember(self.inputs)
        try:
            self.costs.write()
        except FileError as error:
            self.costs.problem = str(error)


def forecast(
    inventory: Inventory, config: RunConfig, n_channels: int, costs: Costs, *, n_teachers: int | None = None
) -> Forecast:
    """:func:`phase_weights`, corrected by what earlier runs of the same kind took (R34).

    A run whose inputs an earlier one has seen finds its volumes and rows in the cache: that is a kind of its own.
    """
    nominal_s, inputs = phase_weights(inventory, config, n_channels, n_teachers=n_teachers), _inputs(inventory, config)
    warm = costs.seen(inputs)
    if warm:
        nominal_s |= {phase: nominal_s[phase] * _WARM_PART for phase in _CACHED}
    kinds = _kinds(config, warm, student=n_teachers is not None)
    return Forecast(costs.expected(nominal_s, kinds), costs.spreads(kinds), nominal_s, kinds, inputs, costs)


def _kinds(config: RunConfig, warm: bool, *, student: bool) -> dict[str, str]:
    """What decides the cost of each phase's work besides its amount: runs of the same kind learn from each other."""
    threads = config.n_threads or _core.thread_count()
    path = f"{platform.machine()} {_core.simd_path()}"
    machine = f"vesu {_core.__version__}, {path}, {os.cpu_count()} cores, {threads} threads"
    steps = " ".join(step.name for step in config.segment.steps) if config.pipeline == "vesu" else ""
    network = f"{config.student.stem} {config.student.channels} on {config.student.device}"
    particular = {
        "fit": f"{config.search.solver} on {config.search.device}",
        "distillation": network,
        "segment": f"{config.pipeline} {config.search.ranking} {steps}"
        + (f" student {network}" if student else "")
        + (" guided" if config.guided.reference else ""),
        **dict.fromkeys(_CACHED, "from the cache" if warm else ""),
    }
    return {phase: f"{phase} ({machine}) {particular.get(phase, '')}".rstrip() for phase in PHASES}


def _inputs(inventory: Inventory, config: RunConfig) -> str:
    """Names what the cached phases work on: files with their sizes, and what is drawn from them."""
    files = [path for pair in _used(inventory, config) for path in (pair.image, pair.label)]
    named = [[str(path), path.stat().st_size if path.exists() else 0] for path in files]
    drawn = [config.features.scales, *dataclasses.astuple(config.sampling), config.seed, config.pipeline]
    return hashlib.sha256(json.dumps([named, drawn]).encode("utf-8", "surrogatepass")).hexdigest()


def _used(inventory: Inventory, config: RunConfig) -> Sequence[Pair]:
    """The pairs that a search learns from and validates on."""
    if len(inventory.pairs) < 2:
        return inventory.pairs
    split = configured_split(inventory.pairs, config)
    return split.train + split.validation


def _ranking_s(inventory: Inventory, config: RunConfig, n_candidates: int) -> float:
    """Seconds of a ranking by the score itself: a mask of each scored volume by each candidate of the pool (R45)."""
    if config.search.ranking != "score":
        return 0.0
    pool = min(config.search.ranking_pool or 2 * config.search.ensemble_size, n_candidates)
    scored = _voxels(inventory, (pair.image for pair in scored_pairs(inventory.pairs, config)))
    return pool * scored * _RANK_S_PER_VOXEL


def _guided_s(inventory: Inventory, config: RunConfig, *, student: bool) -> float:
    """Seconds of an alignment to a reference of a test volume, the validation volumes' masks included (R24)."""
    if not config.guided.reference:
        return 0.0
    largest = max((_voxels(inventory, [volume.image]) for volume in inventory.tests), default=0.0)
    scored = _voxels(inventory, (pair.image for pair in scored_pairs(inventory.pairs, config)))
    seconds = (largest + scored) * _SEGMENT_S_PER_VOXEL
    if student and config.guided.target != "calibration":
        settings, own_s = config.student, _student_voxel_s(config)
        seconds += (2 * largest + scored) * own_s * _passes(settings.overlap, settings.flips)
        seconds += config.guided.steps * math.prod(settings.patch) * settings.batch * own_s * _TRAINING_FACTOR
    return seconds


def _baseline_weights(inventory: Inventory, config: RunConfig, costs: tuple[float, float, float]) -> dict[str, float]:
    """Of a run without a search, which loads the volumes that it is scored on, and those that a student learns from."""
    scored = _voxels(inventory, (pair.image for pair in scored_pairs(inventory.pairs, config)))
    loaded = _voxels(inventory, (pair.image for pair in _used(inventory, config))) if any(costs) else scored
    asked_s, trained_s, predicted_s = costs
    test = _voxels(inventory, (volume.image for volume in inventory.tests))
    return {
        "discovery": 0.02,
        "preflight": 0.1,
        "load": 0.1 + loaded * 2 * _READ_S_PER_VOXEL if inventory.pairs else 0.0,
        "features": 0.0,
        "train_data": 0.0,
        "fit": 0.0,
        "distillation": asked_s + trained_s,
        "segment": 0.1 + predicted_s + (test + scored) * _BASELINE_S_PER_VOXEL,
        "package": 0.1 + test * _READ_S_PER_VOXEL * 5,
    }


def _voxels(inventory: Inventory, paths: Iterable[Path]) -> float:
    return float(sum(math.prod(inventory.infos[path].shape) for path in paths if path in inventory.infos))
