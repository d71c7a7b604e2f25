"""The scores of an ablation, each kept in a file as soon as it is known."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from vesu.comparison import ONE_NUMBER
from vesu.data.storage import write_json_atomic
from vesu.errors import MISPLACED, ArgumentError, FileError, FormatError, ResumeIncompatible

__all__ = ["ByVolume", "ScoreFile"]

FORMAT = "vesu-ablation/1"

ByVolume: TypeAlias = dict[str, float]
"""Score by volume id; of the one key ``all`` where a score was one number."""


class ScoreFile:
    """Scores by what was kept and by seed, in a file where there is one.

    Parameters
    ----------
    path : Path, optional
        A JSON file, written anew and whole with each score; one that is there already is read.
    kind : str
        What is ablated, such as ``"teacher"``; in the file, what a score's model kept stands under its plural.
    context : str
        What the scores depend on besides.

    Raises
    ------
    FormatError
        The file holds no scores of such an ablation.
    ResumeIncompatible
        It holds scores of another context.
    FileError
        It cannot be read.

    Examples
    --------
    >>> known = ScoreFile(None, "teacher", "")
    >>> known.add(("a", "b"), 0, 0.5)
    {'all': 0.5}
    >>> known.scores
    {(('a', 'b'), 0): {'all': 0.5}}
    """

    def __init__(self, path: Path | None, kind: str, context: str) -> None:
        self._path, self._context, self._kept = path, context, f"{kind}s"
        self.scores: dict[tuple[tuple[str, ...], int], ByVolume] = {}
        if path is not None and path.exists():
            self._load(path)

    def add(self, kept: tuple[str, ...], seed: int, score: float | Mapping[str, float]) -> ByVolume:
        """Keep a score; it is on disk when this returns. Gives it by volume.

        Raises
        ------
        ArgumentError
            A score that is not finite, or none: nothing is kept of it.
        FileError
            The file cannot be written.
        """
        given = score if isinstance(score, Mapping) else {ONE_NUMBER: score}
        found = {name: float(value) for name, value in given.items()}
        if not found or not all(map(math.isfinite, found.values())):
            raise ArgumentError(f"score: got {found} with {kept} seed {seed}; accepted: finite numbers, at least one")
        self.scores[kept, seed] = found
        if self._path is not None:
            entries = [{self._kept: list(names), "seed": s, "score": v} for (names, s), v in self.scores.items()]
            write_json_atomic(self._path, {"format": FORMAT, "context": self._context, "scores": entries})
        return found

    def _load(self, path: Path) -> None:
        try:
            document = json.loads(path.read_bytes())
            self.scores = dict(map(self._entry, document["scores"]))
            form, context = document["format"], document["context"]
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(path)) from error
        except MISPLACED as error:
            raise FormatError(f"{path}: no scores of an ablation of {self._kept} ({error!r})") from error
        if form != FORMAT:
            raise FormatError(f"{path}: format {form!r}; accepted: {FORMAT!r}")
        if context != self._context:
            raise ResumeIncompatible(
                f"RESUME_INCOMPATIBLE: field context: {path} has {context!r}, this ablation has {self._context!r}"
            )

    def _entry(self, entry: Mapping[str, Any]) -> tuple[tuple[tuple[str, ...], int], ByVolume]:
        kept, seed = tuple(map(str, entry[self._kept])), int(entry["seed"])
        score = {str(name): float(value) for name, value in entry["score"].items()}
        if not score or not all(map(math.isfinite, score.values())):
            raise ValueError(f"the score {score}")
        return (kept, seed), score
