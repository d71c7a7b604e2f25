"""Alignment to somebody else's mask of a test volume, judged where it was not aligned (R24).

Pure functions: a reference is read and checked, the volume is cut into a part that is aligned to and one that judges,
the threshold's rule is fitted, and masks are compared. ``vesu.run.guiding`` puts them into a run; the student's part,
which needs torch, is ``vesu.distill.aligning``.
"""

from vesu.guided.calibration import align_rule
from vesu.guided.measures import Agreement, Delta, agreement
from vesu.guided.reference import Reference, read_reference, reference_id
from vesu.guided.split import HeldOut, hold_out

__all__ = [
    "Agreement",
    "Delta",
    "HeldOut",
    "Reference",
    "agreement",
    "align_rule",
    "hold_out",
    "read_reference",
    "reference_id",
]
