"""The phase ``features`` of a part: sampled voxels, and what the teachers say, under the keys that a run looks for."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Pair, TestVolume
from vesu.data.storage import remove_tree_atomic
from vesu.errors import FileError, VesuError
from vesu.features import FeatureSpec
from vesu.run import stages
from vesu.run.parts.place import Place
from vesu.run.parts.record import ARRAYS, VolumeRecord, listed
from vesu.run.plan import CALIBRATION_VOLUMES, Split, epoch_settings
from vesu.run.teaching import DistillationPlan, hard_fail, prepare_device

__all__ = ["sample", "sources"]

UNBOUNDED = 1 << 62
"""A part keeps everything that it made: only the disk is a bound."""


def sources(item: Pair | TestVolume) -> dict[str, str]:
    """BLAKE3 of the files that a volume's result is made from."""
    found = {"image": content_id(item.image)}
    if isinstance(item, Pair):
        found["label"] = content_id(item.label)
    return found


def sample(place: Place, pairs: Sequence[Pair], split: Split, spec: FeatureSpec, teaching: DistillationPlan) -> None:
    """Rows of every draw of these volumes, and the soft labels of those that a student needs (R07, R16, R18)."""
    folder, config = place.folder / ARRAYS, place.config
    cache = ArrayCache(folder, max_bytes=UNBOUNDED, events=place.log.emit, n_threads=config.n_threads)
    training = {pair.volume_id for pair in split.train}
    limit = epoch_settings(config.search).limit
    rows: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
    for pair in pairs:
        place.stops.poll()
        ids = stages.load(pair, cache, config.n_threads)
        n_epochs = limit if pair.volume_id in training else 1  # the validation voxels stay the same
        rows[pair.volume_id] = _draw(place, pair, ids, spec, cache, n_epochs)
        if not teaching.due:
            _keep(place, cache, pair, ids, *rows[pair.volume_id])
    if teaching.due:
        taught = _ask(place, pairs, split, cache, teaching)
        for pair in pairs:
            keys, facts = rows[pair.volume_id]
            keys |= taught.get(pair.volume_id, {})
            _keep(place, cache, pair, stages.SourceIds(**sources(pair)), keys, facts)
    _remove_all_but(folder, {Path(name).parts[1] for record in place.records.values() for name in record.files})


def _draw(
    place: Place, pair: Pair, ids: stages.SourceIds, spec: FeatureSpec, cache: ArrayCache, n_epochs: int
) -> tuple[dict[str, str], dict[str, Any]]:
    """Keys of the rows of each epoch, and how many there are."""
    config, keys, counts = place.config, {}, []
    for epoch in range(n_epochs):
        drawn = stages.sampled_rows(pair, ids, spec, config, cache, epoch=epoch, n_epochs=n_epochs)
        keys[f"rows {epoch}"] = stages.rows_key(pair, ids, spec, config, cache, epoch)
        counts.append(len(drawn.y))
        surface = int(drawn.y.sum())
        place.log.emit("VOXELS_SAMPLED", volume_id=pair.volume_id, epoch=epoch, voxels=counts[-1], surface=surface)
    return keys, {"voxels_sampled": counts}


def _ask(
    place: Place, pairs: Sequence[Pair], split: Split, cache: ArrayCache, teaching: DistillationPlan
) -> dict[str, dict[str, str]]:
    """Key of the teachers' folded answer for each volume that a student learns from, or is validated on."""
    needed = {pair.volume_id for pair in (*split.train, *split.validation[:CALIBRATION_VOLUMES])}
    asked = [pair for pair in pairs if pair.volume_id in needed]
    if not asked:
        return {}
    device = prepare_device(teaching, place.config, place.tell)
    from vesu.distill.ensemble import teacher_ensemble_infer
    from vesu.distill.soft_labels import SoftLabelCache

    settings = place.config.teachers
    images = {pair.volume_id: _image(place, pair, cache) for pair in asked}
    try:
        teacher_ensemble_infer(
            teaching.teachers,
            images,
            cache=cache,
            config=settings,
            device=device,
            emit=place.tell,
            poll=place.stops.poll,
        )
    except VesuError as error:
        raise hard_fail(f"{type(error).__name__}: {error}") from error
    kept = SoftLabelCache(cache, overlap=settings.overlap, flips=settings.flips)
    return {
        volume_id: {"soft labels": kept.soft_key(teaching.teachers, content_id(image()))}
        for volume_id, image in images.items()
    }


def _image(place: Place, pair: Pair, cache: ArrayCache) -> Callable[[], NDArray[Any]]:
    digest, threads = content_id(pair.image), place.config.n_threads
    return lambda: stages.cached_volume(pair.image, digest, cache, threads, mmap=True)


def _keep(
    place: Place,
    cache: ArrayCache,
    pair: Pair,
    ids: stages.SourceIds,
    keys: dict[str, str],
    facts: dict[str, Any],
) -> None:
    """Write the volume's record, if all its arrays are on disk; its decoded files are not needed any more."""
    for what, key in keys.items():
        if cache.get(key, mmap=True) is None:
            raise FileError(errno.ENOSPC, f"no room for {what} of {pair.volume_id}", str(cache.folder))
    paths = [path for key in keys.values() for path in (cache.folder / key).iterdir()]
    files = listed(place.folder, paths)
    place.keep(VolumeRecord(pair.volume_id, {"image": ids.image, "label": ids.label}, files, {**facts, "arrays": keys}))
    for digest in (ids.image, ids.label):
        remove_tree_atomic(cache.folder / cache.key("volume", file=digest))


def _remove_all_but(folder: Path, keys: set[str]) -> None:
    """What was computed on the way: a part holds what a run looks for, and nothing else."""
    for entry in folder.iterdir():
        if entry.name not in keys:
            remove_tree_atomic(entry)
