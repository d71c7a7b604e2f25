"""The student's training in several processes: what the first sends, and what the others make of it (R19).

Volumes and the teachers' answers are not sent: they lie in the cache, which all processes must see.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.discover import Pair
from vesu.distill.soft_labels import SoftLabelCache
from vesu.distill.values import SoftLabels, TrainingVolume
from vesu.errors import ArgumentError, DataError
from vesu.run import stages
from vesu.run.ranks import RankFailed, Ranks
from vesu.run.session import Session

if TYPE_CHECKING:
    from vesu.distill.teacher import TeacherSpec

__all__ = ["serve_run", "train_together"]

PREPARE, TRAIN = "student_volumes", "student_training"


@contextmanager
def train_together(
    session: Session,
    volumes: Mapping[str, Sequence[tuple[Pair, TrainingVolume]]],
    ids: Mapping[str, stages.SourceIds],
    teachers: "Sequence[TeacherSpec]",
    cache: ArrayCache,
    device: str,
    resume: Mapping[str, bytes] | None,
) -> Iterator[Callable[[], object]]:
    """The other processes train while the body does, each its passes.

    Parameters
    ----------
    session : Session
        With ranks or without; without, nothing is sent.
    volumes : mapping of str to sequence of (Pair, TrainingVolume)
        ``train`` and ``validation``.
    ids : mapping of str to SourceIds
    teachers : sequence of TeacherSpec
    cache : ArrayCache
    device : str
    resume : mapping of str to bytes, optional
        Parts of a training to go on with.

    Yields
    ------
    callable
        The training's ``poll``: a request to stop is raised there only, where all processes hear of it.

    Raises
    ------
    RankFailed
        Another process failed or died.
    """
    if session.ranks is None:
        yield session.stops.poll
        return
    from vesu.distill.parallel import AnotherRankStopped

    kept = SoftLabelCache(cache, overlap=session.config.teachers.overlap, flips=session.config.teachers.flips)

    def entry(pair: Pair, volume: TrainingVolume) -> dict[str, Any]:
        key = None if volume.soft is None else kept.soft_key(teachers, content_id(volume.image))
        files = {"image": str(pair.image.resolve()), "label": str(pair.label.resolve())}
        return files | {"volume_id": pair.volume_id, "ids": list(vars(ids[pair.volume_id]).values()), "soft": key}

    fields = {
        "config": session.config.to_json(),
        "device": device,
        "teachers": [teacher.name for teacher in teachers],
        "resume": list(resume or ()),
        **{name: [entry(*each) for each in listed] for name, listed in volumes.items()},
    }
    parts = {name: np.frombuffer(content, np.uint8) for name, content in (resume or {}).items()}
    for rank in range(1, session.ranks.world):  # what cannot begin says so here, and leaves nobody waiting
        session.ranks.ask(PREPARE, fields, parts, only=rank)
    with session.ranks.together(TRAIN, {}, {}) as answers:
        try:
            yield session.stops.poll_deferred
            return
        except AnotherRankStopped as error:
            stopped = error
    said = [message.fields["error"] for message in answers if message.word == "failed"]
    raise RankFailed("; ".join(said) or str(stopped)) from stopped


def serve_run(ranks: Ranks, config: RunConfig, cache: Path) -> None:
    """Serve the first process until its run is over.

    Raises
    ------
    RankFailed
        It died.
    """
    trainee = _Trainee(config, cache)
    ranks.serve({PREPARE: trainee.prepare, TRAIN: trainee.train})


class _Trainee:
    """A process that takes its passes of a training."""

    def __init__(self, config: RunConfig, cache: Path) -> None:
        self._config, self._cache = config, cache
        self._begin: Callable[[], object] | None = None

    def prepare(self, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        """Have everything at hand that the first process named."""
        config = self._config
        _check_same(config, fields["config"])
        n_threads = fields["config"]["n_threads"]
        cache = ArrayCache(self._cache, max_bytes=int(config.cache_gib * 2**30), n_threads=n_threads)
        volumes = {
            name: [_volume(entry, fields["teachers"], cache, n_threads) for entry in fields[name]]
            for name in ("train", "validation")
        }
        resume = {name: arrays[name].tobytes() for name in fields["resume"]}
        from vesu.distill.training import train_student_distilled  # needs torch: after all that may be refused

        self._begin = partial(
            train_student_distilled,
            volumes["train"],
            volumes["validation"],
            config.student,
            seed=config.seed,
            device=_own_device(fields["device"]),
            emit=lambda name, fields: None,
            resume=resume or None,
            n_threads=n_threads,
        )

    def train(self, *_: object) -> None:
        """Train with the others."""
        assert self._begin is not None
        begin, self._begin = self._begin, None
        begin()


def _check_same(config: RunConfig, first: Mapping[str, Any]) -> None:
    own = json.loads(json.dumps(config.to_json()))  # as it comes over the link: lists, no tuples
    differing = sorted(name for name in first if name != "n_threads" and own.get(name) != first[name])
    if differing:
        raise ArgumentError(f"config: got other settings than the first process' ({', '.join(differing)})")


def _own_device(first: str) -> str:
    if first == "cpu":
        return first
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def _volume(
    entry: Mapping[str, Any], teachers: Sequence[str], cache: ArrayCache, n_threads: int | None
) -> TrainingVolume:
    ids = stages.SourceIds(*entry["ids"])
    image = stages.cached_volume(Path(entry["image"]), ids.image, cache, n_threads, mmap=True)
    label = stages.cached_volume(Path(entry["label"]), ids.label, cache, n_threads, mmap=True)
    soft = None
    if entry["soft"] is not None:
        found = cache.get(entry["soft"], mmap=True)
        if found is None:
            way_out = "all processes must see one cache folder, and cache_gib must hold the answers"
            raise DataError(f"{entry['volume_id']}: the teachers' answer is not in {cache.folder}: {way_out}")
        soft = SoftLabels(entry["volume_id"], **found, teachers=tuple(teachers))
    return TrainingVolume(entry["volume_id"], image, label.astype(np.uint8, copy=False), soft)
