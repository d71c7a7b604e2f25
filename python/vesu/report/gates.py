"""The gates before submission: GO or NO-GO, and why (R44)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vesu.report.jsonfile import Node

GATES_FILE = "go_no_go.json"
GO, NO_GO = "GO", "NO_GO_SUBMISSION"


@dataclass(frozen=True)
class Gate:
    """One gate: ``pass``, ``fail`` or ``not_applicable``, and the reason in words."""

    name: str
    state: str
    reason: str


@dataclass(frozen=True)
class GateResults:
    """The verdict and its gates, in the order in which they were written."""

    verdict: str | None
    gates: tuple[Gate, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that failed."""
        return tuple(gate.name for gate in self.gates if gate.state == "fail")


def read_gates(summary: Node | None, folder: Path) -> GateResults | None:
    """``go_no_go`` of the summary, else the file of that name; None where a run has neither.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    """
    node = None if summary is None else summary.child("go_no_go")
    node = node or Node.read(folder / GATES_FILE)
    if node is None:
        return None
    return GateResults(node.text("verdict"), tuple(_gates(node.child("gates"))))


def _gates(gates: Node | None) -> Iterator[Gate]:
    for name in () if gates is None else gates.values:
        gate = gates.child(name) if gates is not None else None
        if gate is not None:
            yield Gate(name, gate.text("state") or "not recorded", gate.text("reason") or "")
