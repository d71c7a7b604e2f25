"""What a run hands to its caller."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.submission import SubmissionReport

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """What a run left, or a session of it that ran out of time."""

    folder: Path
    submission: SubmissionReport
    summary: dict[str, Any]
    report: Path | None
    """The HTML report; None where it could not be made."""
    report_problem: str | None = None
    """Why there is no report: matplotlib or Jinja2 is missing, say."""

    @property
    def finished(self) -> bool:
        """Whether every phase was done; else the run goes on with ``resume="latest"``."""
        return bool(self.summary["status"] == "finished")

    def _repr_html_(self) -> str:
        validation = self.summary.get("validation")
        scored = (
            f"validation score {validation['score']:.3f}, F1 {validation['f1']:.3f}"
            if validation
            else "no labelled volume to score"
        )
        stopped = "" if self.finished else "stopped for lack of time, to be resumed; "
        return (
            f"<b>vesu run</b> ({self.summary['pipeline']}) {self.summary['elapsed_s']:.0f} s, "
            f"{stopped}{len(self.submission.members)} masks, {scored}; files in <code>{self.folder}</code>"
        )
