"""Tuning what comes after the model: a space of ladder and calibration settings, and the studies that walk it (R43).

The grid of the search is never in such a space (R50). ``vesu.run.tuning`` joins this with a finished run.
"""

from vesu.tuning.result import Metric, Tuning
from vesu.tuning.space import Choice, Range, Space, changed, default_space, read_space
from vesu.tuning.study import Studies, Trial

__all__ = [
    "Choice",
    "Metric",
    "Range",
    "Space",
    "Studies",
    "Trial",
    "Tuning",
    "changed",
    "default_space",
    "read_space",
]
