"""What a study leaves: the table as JSON, Markdown and HTML, and the seal of its log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.ablation import AblationTable
from vesu.data.storage import write_bytes_atomic, write_json_atomic
from vesu.errors import EvidenceError
from vesu.ledger import verify
from vesu.run.ablations.folder import HTML, MARKDOWN, RESULT, SCORES
from vesu.run.ablations.page import page
from vesu.run.events import EventLog

__all__ = ["AblationReport", "write_report"]

FORMAT = "vesu-ablation-report/1"


@dataclass(frozen=True)
class AblationReport:
    """A finished study.

    Attributes
    ----------
    folder : Path
        Holds ``ablation.json``, ``.md`` and ``.html``, every score in ``scores.json``, and the log.
    table : AblationTable
    facts : mapping
        What was measured on what: measure, seeds, judged and other volumes, the log's size and Merkle root.
    """

    folder: Path
    table: AblationTable
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The table with what it was measured on."""
        return f"# {self.table.title}\n\n{self.table.to_markdown()}\n\n{sentence(self.table, self.facts)}\n"

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return self.table._repr_html_()


def write_report(folder: Path, table: AblationTable, facts: Mapping[str, Any], log: EventLog) -> AblationReport:
    """Seal the log and write what a reader looks at.

    Raises
    ------
    EvidenceError
        The log's file is not what was written into it.
    """
    log.sync()
    checked = verify(log.path)
    if (checked.entries, checked.root) != (log.size, log.root):
        raise EvidenceError(f"{log.path}: the file is not what this study wrote")
    ledger = {"entries": checked.entries, "root": checked.root}
    report = AblationReport(folder, table, {**facts, "ledger": ledger})
    scores = json.loads((folder / SCORES).read_bytes())["scores"]
    document = {"format": FORMAT, "kind": table.kind, **report.facts, "scores": scores, "table": table.to_json()}
    write_json_atomic(folder / RESULT, document)
    write_bytes_atomic(folder / MARKDOWN, report.to_markdown().encode())
    write_bytes_atomic(folder / HTML, page(table, report.facts, sentence(table, report.facts)).encode())
    return report


def sentence(table: AblationTable, facts: Mapping[str, Any]) -> str:
    """In words: what was measured, on what, and how a verdict comes about."""
    measures = {
        "score": "the competition's score of whole masks",
        "objective": "the F-beta of probabilities" if table.kind == "teacher" else "minus the search's objective",
    }
    seeds, judged = len(table.full), len(facts["judged"])
    mean = sum(table.full.values()) / seeds
    return (
        f"Measured: {measures[facts['measure']]}, mean {mean:.4f} with every {table.words}, on {judged} "
        f"volume{'s' if judged > 1 else ''} that chose nothing, with {seeds} seeds. A loss is what leaving out costs: "
        f"it pays (or harms) where the loss is above (below) {table.min_gain:g} with every seed, and so is the "
        "bootstrap interval of the mean; with fewer than three seeds everything is neutral. "
        + ("With one volume only the signs over the seeds are tested. " if judged == 1 else "")
        + "".join(f"With seed {seed} leaving out changed no score at all. " for seed in _unmoved(table))
        + "Each row is a test of its own: a few of many are called by chance."
    )


def _unmoved(table: AblationTable) -> list[int]:
    """Seeds whose scores are all the same: their masks are likely all empty, and say nothing."""
    return [
        seed for place, seed in enumerate(table.full) if not any(any(row.gain.differences[place]) for row in table.rows)
    ]
