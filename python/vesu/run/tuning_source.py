"""What a finished run gives to a tuning: its settings, its model, and the model's answer on its validation volumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.config import RunConfig, config_from_json
from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Pair, discover
from vesu.data.jsonfiles import read_object, refusing_misplaced
from vesu.errors import DataError
from vesu.run import stages
from vesu.run.checkpoint import CHECKPOINTS, CheckpointStore
from vesu.run.model import SurfaceModel

__all__ = ["Volume", "finished_run", "predicted", "run_id_of", "validation_pairs"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A validation volume as the trials see it."""

    volume_id: str
    probability: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    label: NDArray[np.uint8]


def finished_run(run: Path) -> tuple[RunConfig, SurfaceModel]:
    """The configuration and the model of a run that is done."""
    if read_object(run / "summary.json").get("status") != "finished":
        raise DataError(f"{run}: the run is not finished; accepted: one whose summary.json says so")
    config = config_from_json(read_object(run / "config.json"))
    if config.pipeline != "vesu":
        raise DataError(f"{run}: pipeline {config.pipeline} has no model; accepted: a run of pipeline vesu")
    return config, SurfaceModel.load(run)


def run_id_of(run: Path) -> str:
    return _text(run / "summary.json", "run_id")


def validation_pairs(run: Path, data: str | Path | None, most: int) -> list[Pair]:
    """Validation volumes of the run: the first half chooses, the rest, from the end of the list, judges."""
    found = CheckpointStore(run / CHECKPOINTS).latest()
    if found is None:
        raise DataError(f"{run}: holds no checkpoint, which says what it validated on; accepted: a whole run folder")
    held_out = {each["volume_id"]: each for each in found.manifest.dataset_context.get("validation", ())}
    if len(held_out) < 2:
        got = f"{len(held_out)} validation volume{'' if len(held_out) == 1 else 's'}"
        raise DataError(f"{run}: got {got}; accepted: 2 or more, for one chooses and another judges")
    names = list(held_out)  # in the run's own order: it calibrates on the first ones
    n_used = min(most, len(names))
    names = [*names[: n_used // 2], *names[len(names) - (n_used - n_used // 2) :]]
    inventory = discover(data or _text(run / "inventory.json", "root"))
    pairs = {pair.volume_id: pair for pair in inventory.pairs}
    for name in names:
        pair, known = pairs.get(name), held_out[name]
        if pair is None or (content_id(pair.image), content_id(pair.label)) != (known["image"], known["label"]):
            problem = "is not there" if pair is None else "is another one than the run validated on"
            raise DataError(f"{inventory.root}: volume {name} {problem}; accepted: the run's own data")
    return [pairs[name] for name in names]


def _text(path: Path, name: str) -> str:
    with refusing_misplaced(path):
        return str(read_object(path)[name])


def predicted(
    pair: Pair,
    model: SurfaceModel,
    config: RunConfig,
    files: Mapping[str, str],
    cache: ArrayCache,
    n_threads: int | None,
) -> Volume:
    """The model's answer on a volume, from the cache where it is there.

    ``files``: the BLAKE3 of each of the model's files, by name.
    """
    ids = stages.SourceIds(content_id(pair.image), content_id(pair.label))

    def predict() -> dict[str, NDArray[Any]]:
        image = stages.cached_volume(pair.image, ids.image, cache, n_threads)
        found = model.predict(image, max_feature_bytes=int(config.max_feature_gib * 2**30), n_threads=n_threads)
        return {"probability": found.probability, "uncertainty": found.uncertainty}

    key = cache.key("prediction/1", image=ids.image, model=dict(files), isa=_core.simd_path())
    arrays = cache.get_or_compute(key, predict, mmap=True)
    label = stages.cached_volume(pair.label, ids.label, cache, n_threads)
    return Volume(pair.volume_id, arrays["probability"], arrays["uncertainty"], label)
