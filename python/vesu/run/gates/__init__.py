"""GO or NO-GO before a submission, judged on what the run's verified log holds (R44, R54).

:func:`judge` reads a run folder, during the run or years later, and gives the same answer: no gate looks at a flag of
the process, at ``summary.json``, or at a file that the log does not know. ``docs/gates.md`` has the table of the gates
and of the events that each one reads.
"""

from vesu.run.gates.best import BEST_RECORDED, BestRecorded, RecordedScore
from vesu.run.gates.files import V3_FILES, FileEvidence, v3_files
from vesu.run.gates.judging import GO_NO_GO_FILE, judge
from vesu.run.gates.verdict import GO, NO_GO, Gate, GateReport, State

__all__ = [
    "BEST_RECORDED",
    "GO",
    "GO_NO_GO_FILE",
    "NO_GO",
    "V3_FILES",
    "BestRecorded",
    "FileEvidence",
    "Gate",
    "GateReport",
    "RecordedScore",
    "State",
    "judge",
    "v3_files",
]
