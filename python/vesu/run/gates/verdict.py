"""A gate's answer, and the verdict over all of them, in plain words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from vesu.notebook import table

__all__ = ["GO", "NO_GO", "Gate", "GateReport", "State", "failed", "not_applicable", "passed"]

GO, NO_GO = "GO", "NO_GO_SUBMISSION"

FORMAT = 1

State: TypeAlias = Literal["pass", "fail", "not_applicable"]

_WORDS = {"pass": "passed", "fail": "FAILED", "not_applicable": "not applicable"}


@dataclass(frozen=True)
class Gate:
    """One gate's answer.

    Attributes
    ----------
    state : {"pass", "fail", "not_applicable"}
        ``not_applicable`` where its phase was not asked for.
    reason : str
        Why, in words.
    """

    state: State
    reason: str


def passed(reason: str) -> Gate:
    """The log proves it."""
    return Gate("pass", reason)


def failed(reason: str) -> Gate:
    """It was asked for, or claimed, and the log does not prove it."""
    return Gate("fail", reason)


def not_applicable(reason: str) -> Gate:
    """It was not asked for."""
    return Gate("not_applicable", reason)


@dataclass(frozen=True)
class GateReport:
    """The verdict over a run folder; see :func:`vesu.run.gates.judge`.

    Attributes
    ----------
    gates : mapping of str to Gate
        In the order in which they are asked.
    run_id : str or None
        As the log has it.
    entries, root : int, str
        The tree head of the log that was judged; 0 and "" of one that does not verify.
    submission_sha256 : str or None
        Of the zip beside; None where there is none.

    Examples
    --------
    >>> report = GateReport({"coverage": failed("12 of 24 pairs, 50 %"), "nonces": not_applicable("not asked for")})
    >>> report.verdict, report.failed
    ('NO_GO_SUBMISSION', ('coverage',))
    >>> print(report)
    NO-GO: coverage failed
    coverage      FAILED          12 of 24 pairs, 50 %
    nonces        not applicable  not asked for
    """

    gates: Mapping[str, Gate]
    run_id: str | None = None
    entries: int = 0
    root: str = ""
    submission_sha256: str | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that failed, in their order."""
        return tuple(name for name, gate in self.gates.items() if gate.state == "fail")

    @property
    def go(self) -> bool:
        """Whether no gate failed."""
        return not self.failed

    @property
    def verdict(self) -> str:
        """``"GO"`` or ``"NO_GO_SUBMISSION"``."""
        return GO if self.go else NO_GO

    @property
    def headline(self) -> str:
        """The verdict in a few words; a NO-GO names its gates."""
        return "GO: no gate failed" if self.go else f"NO-GO: {', '.join(self.failed)} failed"

    def to_json(self) -> dict[str, Any]:
        """The content of ``go_no_go.json``."""
        return {
            "format": FORMAT,
            "run_id": self.run_id,
            "verdict": self.verdict,
            "failed": list(self.failed),
            "gates": {name: asdict(gate) for name, gate in self.gates.items()},
            "summary": str(self).splitlines(),
            "ledger": {"entries": self.entries, "root": self.root},
            "submission_sha256": self.submission_sha256,
        }

    def __str__(self) -> str:
        """The headline, and a line a gate."""
        lines = (f"{name:<13} {_WORDS[gate.state]:<15} {gate.reason}" for name, gate in self.gates.items())
        return "\n".join((self.headline, *lines))

    def _repr_html_(self) -> str:
        rows = [(name, _WORDS[gate.state], gate.reason) for name, gate in self.gates.items()]
        notes = [f"log of {self.entries:,} records, root {self.root[:16]}..." if self.root else ""]
        return table(self.headline, ["gate", "state", "why"], rows, notes=notes)
