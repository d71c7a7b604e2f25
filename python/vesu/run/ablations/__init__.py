"""Ablations on a data set: what feature groups, ladder steps and teachers are worth on volumes that chose nothing.

The runner is :func:`vesu.ablation.leave_one_out`; here is what it scores, and the folder that a study leaves.
"""

from vesu.run.ablations.features import GROUPS, ablate_features
from vesu.run.ablations.report import AblationReport
from vesu.run.ablations.steps import ablate_steps
from vesu.run.ablations.study import Judged, Measure
from vesu.run.ablations.teachers import ablate_teachers

__all__ = ["GROUPS", "AblationReport", "Judged", "Measure", "ablate_features", "ablate_steps", "ablate_teachers"]
