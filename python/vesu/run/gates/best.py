"""``best_recorded.json``: the best score so far on each set of validation volumes, kept across runs (R44)."""

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vesu.data.jsonfiles import read_object_if_any, refusing_misplaced
from vesu.data.storage import make_folder, write_json_atomic
from vesu.errors import FileError, FormatError
from vesu.run.folder import locked

__all__ = ["BEST_RECORDED", "BestRecorded", "RecordedScore"]

BEST_RECORDED = "best_recorded.json"

FORMAT = 1

PATIENCE_S = 60.0
"""How long the end of a run waits for another one that looks at the same file."""

POLL_S = 0.05


@dataclass(frozen=True)
class RecordedScore:
    """What a run that was GO reached, and what with.

    Attributes
    ----------
    metric : str
        ``"score"``: the competition's, the mean over the volumes.
    volumes : mapping of str to (str, str)
        Validation volumes: BLAKE3 of the files of CT and label, by id. Only scores on the very same are compared.
    score : float
    run_id, pipeline, version : str
        Whose it is.
    seed : int
    config_digest : str
        SHA-256 of the configuration's canonical JSON, as the log's first event has it.
    ledger_root : str
        Tree head of the log that was judged.
    """

    metric: str
    volumes: Mapping[str, tuple[str, str]]
    score: float
    run_id: str
    pipeline: str
    version: str
    seed: int
    config_digest: str
    ledger_root: str

    def is_of(self, metric: str, volumes: Mapping[str, tuple[str, str]]) -> bool:
        """Whether it was measured so, on these very files."""
        return self.metric == metric and dict(self.volumes) == dict(volumes)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RecordedScore":
        """From JSON.

        Raises
        ------
        KeyError, TypeError, ValueError
            A field that is missing or none of this type.
        """
        return cls(
            metric=str(values["metric"]),
            volumes={str(name): (str(image), str(label)) for name, (image, label) in values["volumes"].items()},
            score=float(values["score"]),
            run_id=str(values["run_id"]),
            pipeline=str(values["pipeline"]),
            version=str(values["version"]),
            seed=int(values["seed"]),
            config_digest=str(values["config_digest"]),
            ledger_root=str(values["ledger_root"]),
        )


class BestRecorded:
    """The book of the best scores; several runs may look at it, and write into it, at the same time.

    Parameters
    ----------
    path : Path
        The file, made with the first score; its folder too.

    Notes
    -----
    Requirement R44. :meth:`held` is what makes reading, judging and writing one step: a run that reads a score while
    another one is about to replace it waits. The file itself is replaced as a whole: a reader that does not wait sees
    the old book or the new one.

    Examples
    --------
    >>> import tempfile
    >>> mine = RecordedScore("score", {"7": ("a", "b")}, 0.5, "run", "vesu", "1", 0, "digest", "root")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     book = BestRecorded(Path(folder, "best_recorded.json"))
    ...     with book.held():
    ...         book.record(mine), book.record(mine)
    ...     found = book.best("score", {"7": ("a", "b")})
    (True, False)
    >>> found == mine
    True
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """Keep other runs out.

        Raises
        ------
        FileError
            Another run holds it for longer than ``patience_s`` seconds; the folder cannot be written to.
        """
        make_folder(self.path.parent)
        until = time.monotonic() + patience_s
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self.path.parent, f".{self.path.name}.lock"))
                    break
                except OSError as error:
                    if error.errno != errno.EWOULDBLOCK or time.monotonic() > until:
                        raise FileError(error.errno, error.strerror or str(error), str(self.path)) from error
                    time.sleep(POLL_S)
            yield

    def best(self, metric: str, volumes: Mapping[str, tuple[str, str]]) -> RecordedScore | None:
        """The best score on these very volumes; None where there is none.

        Raises
        ------
        FormatError
            The file is damaged, or of another format.
        FileError
            It cannot be read.
        """
        return next((each for each in self._scores() if each.is_of(metric, volumes)), None)

    def count(self) -> int:
        """On how many sets of volumes there are scores. Raises as :meth:`best`."""
        return len(self._scores())

    def record(self, score: RecordedScore) -> bool:
        """Write a score down where it is better than the one that stands there; to be called within :meth:`held`.

        Returns
        -------
        bool
            Whether it was written.

        Raises
        ------
        FormatError, FileError
            As :meth:`best`; the disk refused.
        """
        known = self._scores()
        same = [each for each in known if each.is_of(score.metric, score.volumes)]
        if any(each.score >= score.score for each in same):
            return False
        records = [asdict(each) for each in known if each not in same]
        write_json_atomic(self.path, {"format": FORMAT, "records": [*records, asdict(score)]})
        return True

    def _scores(self) -> list[RecordedScore]:
        found = read_object_if_any(self.path)
        if found is None:
            return []
        with refusing_misplaced(self.path):
            if found["format"] != FORMAT:
                raise FormatError(f"{self.path}: format {found['format']!r}; accepted: {FORMAT}")
            return [RecordedScore.of(each) for each in found["records"]]
