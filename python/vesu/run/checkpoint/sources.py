"""Where a run finds the checkpoint to go on from: model artefact, output folder, results.zip (R37)."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesu.errors import ArgumentError, VesuError
from vesu.run.checkpoint.archive import CHECKPOINTS, fetch_from_zip
from vesu.run.checkpoint.events import Emit, described, teller
from vesu.run.checkpoint.files import Checkpoint, import_checkpoint, load_checkpoint
from vesu.run.checkpoint.manifest import MANIFEST
from vesu.run.checkpoint.publisher import Publisher
from vesu.run.checkpoint.store import CheckpointStore

__all__ = ["find_checkpoint"]

_ACCEPTED = "'latest', a checkpoint's folder, a folder of checkpoints, a run's output folder, or a results.zip"


def find_checkpoint(
    asked: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    artefact: Publisher | None = None,
    results_zip: str | os.PathLike[str] | None = None,
    emit: Emit | None = None,
) -> Checkpoint:
    """The checkpoint to go on from, in the run's own folder.

    Parameters
    ----------
    asked : "latest" or path-like
        A path names a checkpoint's folder, a folder of checkpoints, a run's output folder or a results.zip: only it is
        looked at. "latest" looks at the sources in R37's order, and takes the newest that verifies of the first source
        that has one.
    output : path-like
        The run's output folder; checkpoints lie in its ``checkpoints``, and what is found elsewhere is copied there.
    artefact : Publisher, optional
        The first source.
    results_zip : path-like, optional
        The last source; one that does not exist holds nothing.
    emit : callable, optional
        Takes ``CHECKPOINT_SOURCE`` for each look, ``CHECKPOINT_REFUSED`` for each checkpoint that does not verify, and
        ``LATEST_VALID_CKPT`` for the one that is returned.

    Raises
    ------
    ArgumentError
        No valid checkpoint; the message says where was looked and why each was refused. A run never starts from zero
        in silence.
    FileError
        The output folder cannot be read or written, for a reason that says nothing about the checkpoints in it.
    FormatError
        The one that was asked for is damaged.

    Notes
    -----
    R37.

    Examples
    --------
    >>> find_checkpoint("latest", output="no/such/run")
    Traceback (most recent call last):
    ...
    vesu.errors.ArgumentError: resume_from_checkpoint: got 'latest', and no valid checkpoint is there (output folder
    no/such/run/checkpoints: nothing there)
    """
    tell = teller(emit)
    store = Path(output) / CHECKPOINTS
    if asked != "latest":
        checkpoint = _asked_for(Path(asked), store, tell)
        tell("LATEST_VALID_CKPT", **described(checkpoint), source="asked", refused_newer=0, fallback=False)
        return checkpoint
    looks = [_Look("output folder", store, lambda tell: _newest(store, tell), forgiven=())]
    if artefact is not None:
        # Whatever a network service raises, the next source may have it.
        looks.insert(0, _Look("model artefact", artefact.name, lambda _: artefact.fetch_latest(store), (Exception,)))
    if results_zip is not None:
        archive = Path(results_zip)
        looks.append(_Look("results.zip", archive, lambda tell: _unpacked(archive, store, tell), (VesuError,)))
    for look in looks:
        if (found := look.find(tell)) is not None:
            refused = len(look.refused)
            tell(
                "LATEST_VALID_CKPT",
                **described(found),
                source=look.source,
                refused_newer=refused,
                fallback=refused > 0,
            )
            return found
    places = "; ".join(f"{look.source} {look.place}: {look.outcome}" for look in looks)
    raise ArgumentError(f"resume_from_checkpoint: got 'latest', and no valid checkpoint is there ({places})")


@dataclass
class _Look:
    """One source, and what came of looking there."""

    source: str
    place: str | Path
    look: Callable[[Emit], Path | None]
    """Told of refused checkpoints only."""
    forgiven: tuple[type[Exception], ...]
    """Errors after which the next source is asked."""
    outcome: str = "not looked at"
    refused: list[str] = field(default_factory=list)

    def find(self, tell: Emit) -> Checkpoint | None:
        """The source's checkpoint; every look is an event."""

        def listen(name: str, /, **fields: Any) -> None:
            self.refused.append(fields["reason"])
            tell(name, **fields)

        checkpoint = None
        try:
            path = self.look(listen)
            checkpoint = None if path is None else load_checkpoint(path)
            self.outcome = "nothing there" if checkpoint is None else "found"
        except self.forgiven as error:
            self.outcome = f"{type(error).__name__}: {error}"
        if checkpoint is None and self.refused:
            self.outcome = f"{len(self.refused)} refused, the newest because {self.refused[0]}"
        tell("CHECKPOINT_SOURCE", source=self.source, place=self.place, outcome=self.outcome)
        return checkpoint


def _newest(store: Path, tell: Emit) -> Path | None:
    def refusals(name: str, /, **fields: Any) -> None:
        if name == "CHECKPOINT_REFUSED":
            tell(name, **fields)

    checkpoint = CheckpointStore(store, emit=refusals).latest()
    return None if checkpoint is None else checkpoint.path


def _unpacked(archive: Path, store: Path, tell: Emit) -> Path | None:
    return fetch_from_zip(archive, store, tell) if archive.exists() else None


def _asked_for(path: Path, store: Path, tell: Emit) -> Checkpoint:
    if path.is_file():
        found = fetch_from_zip(path, store, tell)
    elif (path / MANIFEST).exists():
        found = path
    else:
        found = _newest(path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path, tell)
    if found is None:
        raise ArgumentError(f"resume_from_checkpoint: got {path}, with no valid checkpoint; accepted: {_ACCEPTED}")
    checkpoint = load_checkpoint(found)
    if found.parent.resolve() == store.resolve():
        return checkpoint
    return load_checkpoint(import_checkpoint(checkpoint.manifest, checkpoint.read, store))
