"""The types of a preflight report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vesu.errors import PreflightError
from vesu.notebook import counted, table

Severity = Literal["info", "warning", "blocking"]

_LISTED = 20


@dataclass(frozen=True)
class Finding:
    """One thing that preflight found; the codes are listed in :mod:`vesu.data.preflight`."""

    code: str
    severity: Severity
    path: Path | None
    message: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path is not None else ""
        return f"{self.code}: {place}{self.message}"


@dataclass(frozen=True)
class VolumeCheck:
    """What was measured on one decoded volume: of an image the grey values, of a label the voxels of each value."""

    path: Path
    minimum: float
    maximum: float
    percentiles: dict[str, float]
    label_counts: dict[str, int] | None
    seconds: float


@dataclass(frozen=True)
class PreflightReport:
    """Findings, and on what they rest.

    Attributes
    ----------
    findings : tuple of Finding
    checked_pairs, checked_tests : int
        How many were decoded; headers were checked for all.
    volumes : tuple of VolumeCheck
        What was measured on each decoded volume.
    seconds : float
    """

    findings: tuple[Finding, ...]
    checked_pairs: int
    checked_tests: int
    volumes: tuple[VolumeCheck, ...]
    seconds: float

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.severity == "blocking")

    def raise_if_blocked(self) -> None:
        """Raise :class:`~vesu.errors.PreflightError` that lists every blocking finding; else do nothing."""
        if not self.blocking:
            return
        lines = [str(finding) for finding in self.blocking[:_LISTED]]
        if more := len(self.blocking) - len(lines):
            lines.append(f"and {more} more")
        raise PreflightError(f"preflight: got {len(self.blocking)} blocking findings:\n  " + "\n  ".join(lines))

    def _repr_html_(self) -> str:
        verdict = counted(len(self.blocking), "blocking finding") if self.blocking else "nothing blocks"
        rows = [
            (each.severity, each.code, each.path and each.path.name, each.message)
            for severity in ("blocking", "warning", "info")
            for each in self.findings
            if each.severity == severity
        ]
        decoded = f"decoded {counted(self.checked_pairs, 'pair')} and {counted(self.checked_tests, 'test volume')} "
        decoded += f"in {self.seconds:.2f} s"
        columns = ["severity", "code", "file", "message"]
        return table(f"Preflight: {verdict}", columns, rows, notes=[decoded], most=_LISTED)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        record = asdict(self) | {"blocked": bool(self.blocking)}
        for each in (*record["findings"], *record["volumes"]):
            each["path"] = each["path"] and str(each["path"])
        return record
