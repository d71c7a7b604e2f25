"""What each teacher is worth: students taught without it, over several seeds (R21)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vesu import ablation
from vesu.ablation import ScoreOf, leave_one_out
from vesu.distill.values import Emit

__all__ = ["AblationRow", "AblationTable", "ScoreOf", "leave_one_teacher_out"]


@dataclass(frozen=True)
class AblationRow(ablation.AblationRow):
    """One teacher's part in the students' score."""

    @property
    def teacher(self) -> str:
        """Its name."""
        return self.name


@dataclass(frozen=True)
class AblationTable(ablation.AblationTable):
    """Every teacher's part, in the order of the teachers, with the scores that it follows from."""

    rows: tuple[AblationRow, ...]


def leave_one_teacher_out(
    teachers: Sequence[str],
    seeds: Sequence[int],
    score: ScoreOf,
    *,
    path: str | os.PathLike[str] | None = None,
    context: str = "",
    min_gain: float = 0.0,
    min_seeds: int = 2,
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
        ``score(teachers, seed)``: teaches a student by these teachers with this seed, and scores it; higher is better.
        It is called ``(n_teachers + 1) * n_seeds`` times: 20 times for nine teachers and two seeds, so give it a small
        student and few steps.
    path, context, min_gain, min_seeds, confidence, poll
        See :func:`vesu.ablation.leave_one_out`.
    emit : callable, optional
        Gets ``TEACHER_ABLATION_START``, ``TEACHER_ABLATION_SCORE`` after each call of `score`,
        ``TEACHER_ABLATION_DONE``.

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
    Requirement R21. Students of one seed differ in nothing but their teachers, so that differences are paired. The gain
    is that of this student, these steps and these volumes: a smaller student than the real one ranks teachers, and its
    figures are not the real one's.

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
    found = leave_one_out(
        teachers,
        seeds,
        score,
        kind="teacher",
        path=path,
        context=context,
        min_gain=min_gain,
        min_seeds=min_seeds,
        confidence=confidence,
        emit=emit,
        poll=poll,
    )
    rows = tuple(AblationRow(row.name, row.verdict, row.gain) for row in found.rows)
    return AblationTable(found.kind, rows, found.full, found.min_gain)
