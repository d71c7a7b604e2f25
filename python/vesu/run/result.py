"""What a run hands to its caller."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.notebook import counted, facts
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
    def done(self) -> bool:
        """Whether everything was done that was asked for: of a run with ``phase="search"``, the model."""
        return self.finished or self.summary.get("phase") == "search"

    @property
    def finished(self) -> bool:
        """Whether every phase was done; else the run goes on with ``resume="latest"``."""
        return bool(self.summary["status"] == "finished")

    @property
    def go(self) -> bool:
        """Whether no gate failed: what ``go_no_go.json`` beside the zip says (R44)."""
        return not self.summary["go_no_go"]["failed"]

    def __str__(self) -> str:
        """What the command line says of it, a line a subject."""
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        summary = self.summary
        validation, search, student = (summary.get(part) for part in ("validation", "search", "student"))
        scored, searched, taught = "no labelled volume to score", "none", "none"
        if validation:
            scored = f"score {validation['score']:.3f}, F1 {validation['f1']:.3f}"
        if search:
            searched = f"{search['candidates']} candidates x {search['max_iter']} iterations"
        if student:
            taught = f"weight {student['fusion']['weight']:g}"
        entries = {
            "validation": scored,
            "search": searched,
            "student": taught,
            "verdict": summary["go_no_go"]["summary"][0],
            "submission": f"{counted(len(self.submission.members), 'mask')}, valid",
            "evidence": f"{summary['ledger']['entries']:,} records, root {summary['ledger']['root'][:16]}...",
            "files": self.folder,
        }
        state = "finished" if self.finished else "stopped for lack of time, to be resumed"
        title = f"vesu run ({summary['pipeline']}): {state}, {summary['elapsed_s']:.1f} s"
        return facts(title, entries, notes=[f"no report: {self.report_problem}" if self.report is None else ""])


def _lines(result: RunResult) -> Iterator[str]:
    summary = result.summary
    validation, search, ledger = summary.get("validation"), summary.get("search"), summary["ledger"]
    if summary.get("tag"):
        yield f"tag         {summary['tag']}"
    if summary.get("phase") == "search":
        yield f"stopped     the model is ready: vesu run DATA --phase segment --model {result.folder} --num-parts N ..."
    elif not result.finished:
        yield f"stopped     the session's time is over; go on with --resume-from-checkpoint --out {result.folder}"
    chosen_by = "labelled volumes"
    if search:
        size = f"{search['candidates']} candidates x {search['max_iter']} iterations on {search['samples']} voxels"
        yield f"search      {size} in {search['seconds']:.1f} s"
        chosen_by = "volumes kept from training (they chose candidates and threshold)"
    elif summary["pipeline"] != "vesu":
        learned = "a student was trained beside it" if "student" in summary else "nothing was trained"
        yield f"pipeline    {summary['pipeline']}: a historical scorer, {learned}"
    if validation:
        held_out = f"{len(validation['volumes'])} {chosen_by}"
        yield f"validation  F1 {validation['f1']:.3f}, F0.5 {validation['f_beta']:.3f} on {held_out}"
        brightest = validation["baselines"]["intensity_quantile"]["f1"]
        yield f"            the brightest voxels, as many: F1 {brightest:.3f}"
        yield from _score_lines(validation)
    yield from _student_lines(summary)
    sealed = f"{len(result.submission.members)} masks, sha256 {result.submission.sha256[:16]}..."
    yield f"submission  {result.submission.path} is valid: {sealed}"
    yield from _verdict_lines(summary["go_no_go"])
    yield f"evidence    {result.folder / 'events.jsonl'}: {ledger['entries']} entries, root {ledger['root'][:16]}..."
    yield f"report      {result.report or f'none: {result.report_problem}'}"
    yield f"elapsed     {summary['elapsed_s']:.1f} s"


def _score_lines(validation: Mapping[str, Any]) -> Iterator[str]:
    """The competition's score on the validation volumes, and of the trivial baselines on the same."""
    terms = (
        f"topology {validation['topology']:.3f}, surface Dice {validation['surface']:.3f}, VOI {validation['voi']:.3f}"
    )
    yield f"score       {validation['score']:.3f}: {terms}"
    rivals = {"the brightest voxels": "intensity_quantile", "nothing at all": "all_background"}
    words = [f"{words} {validation['baselines'][name]['score']:.3f}" for words, name in rivals.items()]
    yield f"            for comparison: {', '.join(words)}"


def _verdict_lines(verdict: Mapping[str, Any]) -> Iterator[str]:
    """The verdict, and of each gate that failed the reason."""
    yield f"verdict     {verdict['summary'][0]}"
    for name in verdict["failed"]:
        yield f"            {name}: {verdict['gates'][name]['reason']}"


def _student_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Whether a student was distilled, and what its part in the result is."""
    if (student := summary.get("student")) is None:
        yield f"student     none: {summary['go_no_go']['gates']['distillation']['reason']}"
        return
    kpis, fusion = student["kpis"], student["fusion"]
    yield (
        f"student     from {len(student['teachers'])} teachers (coverage {kpis['teacher_coverage_pct']:.0f} %), "
        f"alignment gain {kpis['teacher_alignment_gain_before_after']:.3f}, "
        f"retention {kpis['student_knowledge_retention_score']:.2f}"
    )
    words = ", ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in fusion["mean_scores"].items())
    yield f"fusion      student's weight {fusion['weight']:g}; best F0.5: {words}"
