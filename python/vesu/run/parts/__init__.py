"""A run's per-volume work, split over processes and machines without any server between them.

Each part takes the volumes that :func:`assign` gives it and leaves a folder that proves what it holds; :func:`merge`
puts the folders of all parts together, or says by name why it does not. Phases: ``features`` (training volumes loaded
and sampled, the teachers' answers where a student is due) comes before a search, ``segment`` after it. docs/parts.md
has the commands.

>>> from vesu.run.parts import assign
>>> assign({"a": 8, "b": 4, "c": 4}, 2)
(('a',), ('b', 'c'))
"""

from vesu.run.parts.merging import MergeReport, merge
from vesu.run.parts.plan import PHASES, Phase, assign
from vesu.run.parts.record import PartReport, read_part
from vesu.run.parts.work import make_part

__all__ = ["PHASES", "MergeReport", "PartReport", "Phase", "assign", "make_part", "merge", "read_part"]
