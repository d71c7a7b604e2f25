"""What each teacher is worth: students taught without it, over several seeds (R21)."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vesu.comparison import ONE_NUMBER, PairedGain, paired_gain
from vesu.data.storage import write_json_atomic
from vesu.distill.values import Emit
from vesu.errors import ArgumentError, FileError, FormatError, ResumeIncompatible
from vesu.notebook import table

__all__ = ["AblationRow", "AblationTable", "ScoreOf", "leave_one_teacher_out"]

ScoreOf: TypeAlias = Callable[[tuple[str, ...], int], float | Mapping[str, float]]
"""Teaches a student by these teachers with this seed; its score, or one a validation volume, higher is better."""

FORMAT = "vesu-ablation/1"


@dataclass(frozen=True)
class AblationRow:
    """One teacher's part in the students' score."""

    teacher: str
    kept: bool
    gain: PairedGain
    """Students of all teachers less students of all but this one."""

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {"teacher": self.teacher, "kept": self.kept, "gain": self.gain.to_json()}


@dataclass(frozen=True)
class AblationTable:
    """Every teacher's part, in the order of the teachers, with the scores that it follows from."""

    rows: tuple[AblationRow, ...]
    full: Mapping[int, float]
    """Mean score of the students of all teachers, by seed."""
    min_gain: float

    @property
    def kept(self) -> tuple[str, ...]:
        """The teachers whose gain is stable.

        Two teachers that say the same cover for each other: each is useless beside the other, and both are missing
        here. Take teachers out one at a time and repeat.
        """
        return tuple(row.teacher for row in self.rows if row.kept)

    @property
    def weakest(self) -> str | None:
        """The one not kept that has the smallest mean gain, to be taken out first; None if all are kept."""
        losers = [row for row in self.rows if not row.kept]
        return min(losers, key=lambda row: row.gain.mean).teacher if losers else None

    def to_json(self) -> dict[str, Any]:
        """JSON types: for the report and ``summary.json``."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "full": {str(seed): score for seed, score in self.full.items()},
            "min_gain": self.min_gain,
            "kept": list(self.kept),
            "weakest": self.weakest,
        }

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        columns = ["without", *(f"seed {seed}" for seed in self.full), "mean loss", "interval", "kept"]
        return table("What each teacher is worth", columns, map(_cells, self.rows), most=len(self.rows))


def _cells(row: AblationRow) -> tuple[Any, ...]:
    figures = (f"{figure:+.4f}" for figure in (*row.gain.by_seed, row.gain.mean))
    return (row.teacher, *figures, f"{row.gain.low:+.4f} to {row.gain.high:+.4f}", row.kept)


def leave_one_teacher_out(
    teachers: Sequence[str],
    seeds: Sequence[int],
    score: ScoreOf,
    *,
    path: str | os.PathLike[str] | None = None,
    context: str = "",
    min_gain: float = 0.0,
    confidence: float = 0.95,
    emit: Emit | None = None,
    poll: Callable[[], None] | None = None,
) -> AblationTable:
    """Teach a student by all teachers, and one without each; a teacher stays only if that costs, whatever the seed.

    Parameters
    ----------
    teachers : sequence of str
        At least two, in the order in which they are folded.
    seeds : sequence of int
        At least two.
    score : callable
        ``score(teachers, seed)``: teaches and scores. It is called ``(n_teachers + 1) * n_seeds`` times: 20 times for
        nine teachers and two seeds, so give it a small student and few steps.
    path : path-like, optional
        A JSON file that keeps every score as soon as it is known. With it an interrupted ablation goes on.
    context : str
        What the scores depend on besides (a digest of settings and data); scores of another context are refused.
    min_gain, confidence : float
        The rule's, see :meth:`PairedGain.is_stable` and :func:`paired_gain`.
    emit : callable, optional
        Gets ``TEACHER_ABLATION_START``, ``TEACHER_ABLATION_SCORE`` after each call of `score`,
        ``TEACHER_ABLATION_DONE``.
    poll : callable, optional
        Called between two scores; may raise to stop.

    Returns
    -------
    AblationTable
        A teacher is *kept* if its gain is positive with every seed and the bootstrap interval of the mean excludes 0.

    Raises
    ------
    ArgumentError
        Fewer than two teachers or seeds, or one twice; scores that do not pair.
    FormatError
        The file is none of this function's.
    ResumeIncompatible
        The file holds scores of another context.
    FileError
        The file cannot be read or written.

    Notes
    -----
    Requirement R21. Students of one seed differ in nothing but their teachers, so that differences are paired. Scores
    by volume make the interval mean something at two seeds; with one number a seed the rule is that all signs agree.
    The gain is that of this student, these steps and these volumes: a smaller student than the real one ranks teachers,
    and its figures are not the real one's.

    Examples
    --------
    >>> def score(teachers, seed):
    ...     return {"v1": 0.5 + 0.1 * ("good" in teachers), "v2": 0.4 + 0.2 * ("good" in teachers) + 0.01 * seed}
    >>> table = leave_one_teacher_out(["good", "idle"], [0, 1], score)
    >>> table.kept, table.weakest
    (('good',), 'idle')
    >>> [round(row.gain.mean, 3) for row in table.rows]
    [0.15, 0.0]
    """
    teachers, seeds = _distinct("teachers", teachers), _distinct("seeds", seeds)
    known = _ScoreFile(None if path is None else Path(path), context)
    subsets = [teachers, *(_without(teachers, teacher) for teacher in teachers)]
    n_todo = sum((subset, seed) not in known.scores for subset in subsets for seed in seeds)
    _tell(emit, "TEACHER_ABLATION_START", teachers=list(teachers), seeds=list(seeds), scores_to_come=n_todo)
    for seed in seeds:  # all students of a seed, then the next: an interrupted table is whole for its first seeds
        for subset in subsets:
            if (subset, seed) in known.scores:
                continue
            if poll is not None:
                poll()
            found = known.add(subset, seed, score(subset, seed))
            left_out = [teacher for teacher in teachers if teacher not in subset]
            _tell(emit, "TEACHER_ABLATION_SCORE", left_out=left_out, teachers=list(subset), seed=seed, score=found)
    table = _table(teachers, seeds, known.scores, min_gain, confidence)
    _tell(emit, "TEACHER_ABLATION_DONE", **table.to_json())
    return table


def _table(
    teachers: tuple[str, ...],
    seeds: tuple[int, ...],
    scores: Mapping[tuple[tuple[str, ...], int], dict[str, float]],
    min_gain: float,
    confidence: float,
) -> AblationTable:
    full = {seed: scores[teachers, seed] for seed in seeds}
    rows = []
    for teacher in teachers:
        rest = {seed: scores[_without(teachers, teacher), seed] for seed in seeds}
        gain = paired_gain(rest, full, confidence=confidence)
        rows.append(AblationRow(teacher, gain.is_stable(min_gain), gain))
    means = {seed: sum(by_volume.values()) / len(by_volume) for seed, by_volume in full.items()}
    return AblationTable(tuple(rows), means, min_gain)


class _ScoreFile:
    """Scores by (teachers, seed), kept in a file where there is one."""

    def __init__(self, path: Path | None, context: str) -> None:
        self._path = path
        self._context = context
        self.scores: dict[tuple[tuple[str, ...], int], dict[str, float]] = {}
        if path is not None and path.exists():
            self._load(path)

    def add(self, teachers: tuple[str, ...], seed: int, score: float | Mapping[str, float]) -> dict[str, float]:
        """Keep a score; it is on disk when this returns. Gives it by volume."""
        found = (
            {name: float(value) for name, value in score.items()}
            if isinstance(score, Mapping)
            else {ONE_NUMBER: float(score)}
        )
        self.scores[teachers, seed] = found
        if self._path is not None:
            entries = [{"teachers": list(names), "seed": s, "score": v} for (names, s), v in self.scores.items()]
            write_json_atomic(self._path, {"format": FORMAT, "context": self._context, "scores": entries})
        return found

    def _load(self, path: Path) -> None:
        try:
            document = json.loads(path.read_bytes())
            entries = [(tuple(map(str, e["teachers"])), int(e["seed"]), e["score"]) for e in document["scores"]]
            self.scores = {
                (names, seed): {str(name): float(value) for name, value in score.items()}
                for names, seed, score in entries
            }
            kind, context = document["format"], document["context"]
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(path)) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(f"{path}: no scores of an ablation ({error!r})") from error
        if kind != FORMAT:
            raise FormatError(f"{path}: format {kind!r}; accepted: {FORMAT!r}")
        if context != self._context:
            raise ResumeIncompatible(
                f"RESUME_INCOMPATIBLE: field context: {path} has {context!r}, this ablation has {self._context!r}"
            )


def _distinct(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(values, str) or len(set(values)) < max(2, len(values)):
        raise ArgumentError(f"{name}: got {values!r}; accepted: two or more, each once")
    return tuple(values)


def _without(teachers: tuple[str, ...], teacher: str) -> tuple[str, ...]:
    return tuple(each for each in teachers if each != teacher)


def _tell(emit: Emit | None, name: str, **fields: Any) -> None:
    if emit is not None:
        emit(name, fields)
