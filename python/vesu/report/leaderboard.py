"""The leaderboard of the search (``leaderboard.json``)."""

from dataclasses import dataclass
from pathlib import Path

from vesu.errors import FormatError
from vesu.report.jsonfile import Node, parse_json, read_bytes


@dataclass(frozen=True)
class Candidate:
    """One row of the leaderboard (R13)."""

    rank: int | None
    candidate: int | None
    neuron: int | None
    l1: float | None
    l2: float | None
    objective: float | None
    cross_entropy: float | None
    sparsity: float | None
    f1: float | None
    f_beta: float | None
    iou: float | None
    threshold: float | None
    n_nonzero: int | None
    diverged: bool | None


def read_leaderboard(path: Path) -> tuple[Candidate, ...] | None:
    """The rows, best first; None where there is no such file.

    Raises
    ------
    FormatError
        Malformed JSON, or a field of the wrong type; the message names file and field.
    """
    data = read_bytes(path)
    if data is None:
        return None
    rows = parse_json(data, str(path))
    if not isinstance(rows, list):
        raise FormatError(f"{path}: got {type(rows).__name__}; accepted: a list of rows")
    nodes = (Node(row, f"{path}: row {index}") for index, row in enumerate(rows))
    return tuple(sorted((_candidate(node) for node in nodes), key=_place))


def _place(row: Candidate) -> tuple[bool, int]:
    return row.rank is None, row.rank or 0


def _candidate(node: Node) -> Candidate:
    return Candidate(
        rank=node.integer("rank"),
        candidate=node.integer("candidate"),
        neuron=node.integer("neuron"),
        l1=node.number("l1"),
        l2=node.number("l2"),
        objective=node.number("objective"),
        cross_entropy=node.number("cross_entropy"),
        sparsity=node.number("sparsity"),
        f1=node.number("f1"),
        f_beta=node.number("f_beta"),
        iou=node.number("iou"),
        threshold=node.number("threshold"),
        n_nonzero=node.integer("n_nonzero"),
        diverged=node.flag("diverged"),
    )
