"""The folder of a study: one process at a time, and nobody else's files are ever removed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesu.data.storage import make_folder, remove_abandoned
from vesu.errors import DataError, FileError
from vesu.run.folder import locked

__all__ = ["EVENTS", "HTML", "MARKDOWN", "RESULT", "SCORES", "TEACHERS_TABLE", "claimed"]

EVENTS = "events.jsonl"
SCORES = "scores.json"
RESULT = "ablation.json"
MARKDOWN = "ablation.md"
HTML = "ablation.html"
TEACHERS_TABLE = "v3_teacher_ablation.json"
"""What the report of a run shows where it lies in the run's folder."""

OUTPUTS = (EVENTS, SCORES, RESULT, MARKDOWN, HTML, TEACHERS_TABLE)
MARK = ".vesu-ablation"


@contextmanager
def claimed(folder: Path, *, restart: bool) -> Iterator[Path]:
    """Make the folder ready for a study, and keep other processes out until the end.

    Raises
    ------
    DataError
        Files of an output's name that no study wrote.
    FileError
        Another process writes here, or the system refuses a step.
    """
    try:
        make_folder(folder)
        foreign = [name for name in OUTPUTS if os.path.lexists(folder / name)]
        if foreign and not (folder / MARK).exists():
            raise DataError(
                f"out: got {folder}, which holds {', '.join(foreign)} that no ablation wrote; accepted: a new or empty "
                "folder, or the folder of this ablation"
            )
        with locked(folder, MARK):
            remove_abandoned(folder)
            for name in OUTPUTS if restart else ():
                (folder / name).unlink(missing_ok=True)
            yield folder
    except FileError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror, error.filename or str(folder)) from error
