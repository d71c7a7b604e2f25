"""The run folder: one run at a time, and nobody else's files are ever removed."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesu.errors import DataError, FileError

__all__ = ["OUTPUTS", "claimed"]

# What a run leaves in its folder; a repeated run replaces exactly these and touches nothing else.
OUTPUTS = (
    "config.json",
    "events.jsonl",
    "inventory.json",
    "preflight.json",
    "leaderboard.json",
    "score_ranking.json",
    "model.npz",
    "model.json",
    "segment",
    "validation",
    "masks",
    "submission.zip",
    "summary.json",
    "report.html",
    "failure.json",
)

MARK = ".vesu-run"
"""Says that the outputs beside it are a run's own; locked while a run writes."""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Make the folder ready for a run, and keep other runs out until the end.

    Raises
    ------
    DataError
        Files of an output's name that no run wrote.
    FileError
        Another run writes here, or the system refuses a step.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [name for name in OUTPUTS if (folder / name).exists()]
        if foreign and not (folder / MARK).exists():
            raise DataError(
                f"out: got {folder}, which holds {', '.join(foreign)} that no vesu run wrote; "
                "accepted: a new or empty folder, or the folder of an earlier run"
            )
        with (folder / MARK).open("w") as mark:
            _lock(mark.fileno(), folder)
            _clear(folder)
            yield folder
    except FileError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror, error.filename or str(folder)) from error


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(errno.EWOULDBLOCK, "another run writes here", str(folder)) from error


def _clear(folder: Path) -> None:
    for name in OUTPUTS:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in ("segment", "validation", "masks"):
        (folder / name).mkdir()
