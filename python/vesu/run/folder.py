"""The run folder: one run at a time, and nobody else's files are ever removed."""

import errno
import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vesu.data.storage import make_folder, remove_abandoned
from vesu.errors import MISPLACED, DataError, FileError
from vesu.run.checkpoint import CheckpointStore

__all__ = ["OUTPUTS", "check_claimable", "claimed", "locked"]

# What a run leaves in its folder; a repeated run replaces exactly these and touches nothing else.
OUTPUTS = (
    "config.json",
    "events.jsonl",
    "inventory.json",
    "preflight.json",
    "checkpoints",
    "leaderboard.json",
    "score_ranking.json",
    "model.npz",
    "model.json",
    "student",
    "student_views",
    "guided",
    "v3_competitor_guided_delta.json",
    "v3_transfer_memory_manifest.json",
    "v3_teacher_alignment_report.json",
    "segment",
    "validation",
    "masks",
    "fallback",
    "provisional",
    "submission.zip",
    "summary.json",
    "report.html",
    "failure.json",
    "results.zip",
    "v3_train_coverage_report.json",
    "v3_golden_nonce_timeline.jsonl",
    "v3_autotune_trace.json",
    "RUN_PROFILE_SUMMARY.json",
    "post_mortem.json",
    "tuning",
    "go_no_go.json",
)
FOLDERS = ("segment", "validation", "masks")

ENDINGS = (
    "summary.json",
    "report.html",
    "failure.json",
    "post_mortem.json",
    "RUN_PROFILE_SUMMARY.json",
    "go_no_go.json",
)
"""What tells how a session ended: a session that goes on has not ended yet."""

LATE_PHASES = ("distillation", "segment", "package")
"""A checkpoint of these holds work, and so does one of a search that has begun."""

MARK = ".vesu-run"
"""Says that the outputs beside it are a run's own; locked while a run writes."""


@contextmanager
def claimed(folder: Path, *, goes_on: bool = False, restart: bool = False) -> Iterator[Path]:
    """Make the folder ready for a run, and keep other runs out until the end.

    Parameters
    ----------
    folder : Path
        Made if missing.
    goes_on : bool
        Keep what an earlier session left.
    restart : bool
        Replace even an unfinished run, which is otherwise refused: it could still go on (R37).

    Raises
    ------
    DataError
        Files of an output's name that no run wrote; an unfinished run that nobody said to give up.
    FileError
        Another run writes here, or the system refuses a step.
    """
    try:
        make_folder(folder)
        _refuse_foreign(folder)
        with locked(folder):
            if not (goes_on or restart):
                _refuse_unfinished(folder)
            _clear(folder, ENDINGS if goes_on else OUTPUTS)
            yield folder
    except FileError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror, error.filename or str(folder)) from error


def check_claimable(folder: Path, *, restart: bool = False) -> None:
    """Whether :func:`claimed` would have the folder for a new run; nothing is written.

    Raises
    ------
    DataError, FileError
        As :func:`claimed` does.
    """
    _refuse_foreign(folder)
    if not (folder / MARK).exists():
        return
    with (folder / MARK).open("rb") as file:
        _lock(file, folder)
        if not restart:
            _refuse_unfinished(folder)


def _refuse_foreign(folder: Path) -> None:
    foreign = [name for name in OUTPUTS if (folder / name).exists()]
    if foreign and not (folder / MARK).exists():
        raise DataError(
            f"out: got {folder}, which holds {', '.join(foreign)} that no vesu run wrote; "
            "accepted: a new or empty folder, or the folder of an earlier run"
        )


def _refuse_unfinished(folder: Path) -> None:
    """Work that a checkpoint holds is not thrown away by starting the same command again."""
    try:
        if json.loads((folder / "summary.json").read_bytes())["status"] == "finished":
            return
    except (OSError, *MISPLACED):
        pass  # no end that anyone wrote down
    found = CheckpointStore(folder / "checkpoints").latest()
    if found is None or (found.manifest.phase not in LATE_PHASES and found.manifest.iter == 0):
        return
    manifest = found.manifest
    raise DataError(
        f"out: got {folder}, which holds an unfinished run (phase {manifest.phase}, epoch {manifest.epoch}, iteration "
        f"{manifest.iter} of {manifest.max_iter}); accepted: to go on with it (--resume-from-checkpoint, "
        'resume="latest"), to give it up (--restart, restart=True), or another folder'
    )


@contextmanager
def locked(folder: Path, mark: str = MARK) -> Iterator[None]:
    """Keep other processes out of a folder, which the file ``mark`` in it says is vesu's own.

    Raises
    ------
    FileError
        Another process writes here, or nothing can be written.
    """
    try:
        file = (folder / mark).open("w")
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(folder / mark)) from error
    with file:
        _lock(file, folder)
        yield


def _lock(file: IO[Any], folder: Path) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(errno.EWOULDBLOCK, "another run writes here", str(folder)) from error


def _clear(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in FOLDERS:
        make_folder(folder / name)
    for left in (folder, *(folder / name for name in FOLDERS)):
        remove_abandoned(left)  # what a killed session was writing
