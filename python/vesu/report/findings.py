"""What preflight found before any long work (``preflight.json``)."""

from dataclasses import dataclass
from pathlib import Path

from vesu.report.jsonfile import Node


@dataclass(frozen=True)
class Finding:
    """One preflight finding (R02)."""

    code: str | None
    severity: str | None
    path: str | None
    message: str | None


@dataclass(frozen=True)
class Preflight:
    """``preflight.json``."""

    findings: tuple[Finding, ...]
    checked_pairs: int | None
    checked_tests: int | None
    seconds: float | None


def read_preflight(path: Path) -> Preflight | None:
    """The findings; None where there is no such file.

    Raises
    ------
    FormatError
        Malformed JSON, or a field of the wrong type; the message names file and field.
    """
    node = Node.read(path)
    if node is None:
        return None
    return Preflight(
        findings=tuple(
            Finding(each.text("code"), each.text("severity"), each.text("path"), each.text("message"))
            for each in node.children("findings")
        ),
        checked_pairs=node.integer("checked_pairs"),
        checked_tests=node.integer("checked_tests"),
        seconds=node.number("seconds"),
    )
