"""The submission that is there from early on: of every volume the best mask so far (R33)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.volumes import read_volume
from vesu.run.events import EventLog
from vesu.submission import SubmissionReport, write_submission

__all__ = ["ORIGINS", "SafeSubmission"]

ORIGINS = {"final": "masks", "provisional": "provisional", "scorer": "fallback"}
"""Where masks come from, best first, and the folder of each; a volume without any gets an empty one."""


class SafeSubmission:
    """A zip that is valid at every moment: written early, replaced as a whole whenever better masks are there.

    Parameters
    ----------
    folder : Path
        The run folder.
    expected : mapping of str to shape
        Every test volume's shape (z, y, x).
    log : EventLog
        Gets ``SAFE_SUBMISSION_WRITTEN`` with the number of masks of each origin.
    n_threads : int, optional
        Threads.
    """

    def __init__(
        self, folder: Path, expected: Mapping[str, tuple[int, int, int]], log: EventLog, n_threads: int | None
    ) -> None:
        self._folder, self._expected, self._log, self._n_threads = folder, dict(expected), log, n_threads

    @property
    def path(self) -> Path:
        """The zip."""
        return self._folder / "submission.zip"

    def best(self, volume_id: str) -> tuple[str, Path | None]:
        """Origin and file of the best mask that a volume has; ("empty", None) without any."""
        for origin, name in ORIGINS.items():
            path = self._folder / name / f"{volume_id}.tif"
            if path.exists():
                return origin, path
        return "empty", None

    def write(self, reason: str) -> SubmissionReport:
        """Write the zip anew from the best masks; the old one stands until the new one is whole and checked.

        Raises
        ------
        SubmissionError, FileError
            See :func:`vesu.write_submission`.
        """
        names = sorted(self._expected)
        origins = {name: self.best(name) for name in names}
        with self._log.watch.measure("io"):
            report = write_submission(
                self.path, self._masks(origins), expected=self._expected, n_threads=self._n_threads
            )
        counts = Counter(origin for origin, _ in origins.values())
        self._log.emit("SAFE_SUBMISSION_WRITTEN", reason=reason, sha256=report.sha256, origins=dict(counts))
        return report

    def _masks(self, origins: Mapping[str, tuple[str, Path | None]]) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, (_, path) in origins.items():
            if path is None:
                yield name, np.zeros(self._expected[name], np.uint8)
            else:
                yield name, read_volume(path, n_threads=self._n_threads)
