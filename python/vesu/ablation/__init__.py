"""What each of several things is worth: the score with all of them, and without each, over several seeds (R10, R21).

:func:`leave_one_out` is the one runner: it knows neither features nor teachers, only names and a function that scores
a set of them. What is ablated with it: feature groups and ladder steps (:mod:`vesu.run.ablations`), teachers
(:func:`vesu.distill.ablation.leave_one_teacher_out`).
"""

from vesu.ablation.runner import ScoreOf, leave_one_out
from vesu.ablation.scores import ScoreFile
from vesu.ablation.table import AblationRow, AblationTable, Verdict

__all__ = [
    "AblationRow",
    "AblationTable",
    "ScoreFile",
    "ScoreOf",
    "Verdict",
    "leave_one_out",
]
