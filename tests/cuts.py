"""A run that is cut at a chosen moment, and what its result is: used by the tests and by the kill campaign."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vesu.run.checkpoint import Checkpoint, CheckpointStore

RESULTS = ("model.npz", "model.json", "leaderboard.json", "submission.zip")


class Cut(BaseException):
    """The moment at which the process would have died."""


def result_of(folder: Path) -> dict[str, str]:
    """SHA-512 of the final weights, every mask and the zip."""
    masks = sorted((folder / "masks").glob("*.tif"))
    assert masks
    paths = [*(folder / name for name in RESULTS), *masks]
    return {str(path.relative_to(folder)): hashlib.sha512(path.read_bytes()).hexdigest() for path in paths}


@contextmanager
def snapshots(monkeypatch: pytest.MonkeyPatch, into: Path) -> Iterator[list[Path]]:
    """Copy the run folder (not its cache) whenever a checkpoint was saved: what a kill at that moment leaves."""
    taken: list[Path] = []
    save = CheckpointStore.save

    def saving(self: CheckpointStore, *args: Any) -> Checkpoint:
        checkpoint = save(self, *args)
        copy = into / f"cut{len(taken):03d}-{checkpoint.manifest.phase}-{checkpoint.manifest.iter:03d}"
        shutil.copytree(self.folder.parent, copy, ignore=shutil.ignore_patterns("cache"))
        taken.append(copy)
        return checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", saving)
        yield taken
