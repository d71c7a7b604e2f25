"""The event log as the report needs it: how many events of each name, the training curves, the run along its time."""

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FileError, FormatError
from vesu.report.jsonfile import Node, parse_json
from vesu.report.student import Curves, CurvesReader
from vesu.report.submission import WRITTEN_EVENT, Written, read_written
from vesu.report.timeline import Timeline, TimelineReader

ITERATION_EVENT = "TRAIN_ITERATION"
QUANTITIES = ("loss", "grad_norm", "nonzero")


@dataclass(frozen=True)
class Curve:
    """One quantity over the search: over all candidates at each step, and of one candidate."""

    step: NDArray[np.int64]
    minimum: NDArray[np.float64]
    median: NDArray[np.float64]
    maximum: NDArray[np.float64]
    winner: NDArray[np.float64] | None


@dataclass(frozen=True)
class Training:
    """The ``TRAIN_ITERATION`` records, a step being one iteration of one epoch, counted from 1."""

    n_records: int
    n_candidates: int
    n_epochs: int
    n_steps: int
    n_not_finite: int
    curves: Mapping[str, Curve]


@dataclass(frozen=True)
class Events:
    """What the event log holds."""

    n_records: int
    counts: Mapping[str, int]
    torn_tail: bool
    training: Training | None
    timeline: Timeline
    student: Curves | None
    written: Written | None


@dataclass
class _Columns:
    """The iteration records as flat columns: tens of bytes a record, so that millions of them fit."""

    epoch: "array[int]" = field(default_factory=lambda: array("q"))
    iteration: "array[int]" = field(default_factory=lambda: array("q"))
    candidate: "array[int]" = field(default_factory=lambda: array("q"))
    quantities: dict[str, "array[float]"] = field(default_factory=lambda: {name: array("d") for name in QUANTITIES})

    def append(self, node: Node) -> None:
        keys = [node.integer(name) for name in ("epoch", "iter", "candidate")]
        if None in keys or any(abs(key) >= 2**62 for key in keys if key is not None):
            raise FormatError(f"{node.where}: {ITERATION_EVENT} without a usable epoch, iter or candidate")
        for column, key in zip((self.epoch, self.iteration, self.candidate), keys, strict=True):
            column.append(key or 0)
        for name, column_of in self.quantities.items():
            value = node.number(name)  # null: not finite, the candidate diverged
            column_of.append(float("nan") if value is None else value)


def read_events(path: Path, *, winner: int | None = None) -> Events | None:
    """Read an event log once, line by line; None where there is none.

    Parameters
    ----------
    path
        A file of JSON lines.
    winner
        The candidate whose own curves are kept beside the summary over all.

    Raises
    ------
    FormatError
        A line that is not a JSON object; the message names the file and the line, counted from 1. A last
        line without its line feed is a torn tail, as a killed run leaves it, and only reported.
    """
    counts: Counter[str] = Counter()
    columns, timeline, student = _Columns(), TimelineReader(), CurvesReader()
    written: Written | None = None
    torn = False
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and not _is_json(line):
                    torn = True
                    break
                node = Node(parse_json(line, f"{path}: line {number}"), f"{path}: line {number}")
                name = node.text("event") or "(no name)"
                counts[name] += 1
                timeline.take(name, node)
                student.take(name, node)
                if name == ITERATION_EVENT:
                    columns.append(node)
                elif name == WRITTEN_EVENT:
                    written = read_written(node)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    training = _training(columns, winner)
    by_name = dict(sorted(counts.items()))
    return Events(counts.total(), by_name, torn, training, timeline.timeline(), student.curves(), written)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _training(columns: _Columns, winner: int | None) -> Training | None:
    if not columns.epoch:
        return None
    epoch, iteration = np.asarray(columns.epoch), np.asarray(columns.iteration)
    candidate = np.asarray(columns.candidate)
    # A step is a distinct (epoch, iter); sorted, they number 1, 2, 3, ... across epochs.
    steps, step = np.unique(np.stack([epoch, iteration]), axis=1, return_inverse=True)
    order = np.argsort(step.ravel(), kind="stable")
    firsts = np.searchsorted(step.ravel()[order], np.arange(steps.shape[1]))
    curves = {}
    n_not_finite = 0
    for name in QUANTITIES:
        values = np.asarray(columns.quantities[name])
        if name == "loss":
            n_not_finite = int(np.count_nonzero(np.isnan(values)))
        if not np.isnan(values).all():
            curves[name] = _curve(values[order], firsts, candidate[order] == winner)
    return Training(
        n_records=len(epoch),
        n_candidates=len(np.unique(candidate)),
        n_epochs=len(np.unique(epoch)),
        n_steps=steps.shape[1],
        n_not_finite=n_not_finite,
        curves=curves,
    )


def _curve(values: NDArray[np.float64], firsts: NDArray[np.intp], is_winner: NDArray[np.bool_]) -> Curve:
    """Summarise values that are grouped by step; ``firsts`` holds where each step's group begins."""
    rows = []
    own = np.full(len(firsts), np.nan)
    for row, (group, mine) in enumerate(
        zip(np.split(values, firsts[1:]), np.split(is_winner, firsts[1:]), strict=True)
    ):
        finite = group[np.isfinite(group)]
        rows.append((finite.min(), np.median(finite), finite.max()) if finite.size else (np.nan,) * 3)
        if mine.any():
            own[row] = group[mine][-1]
    minimum, median, maximum = np.array(rows, dtype=np.float64).T
    step = np.arange(1, len(firsts) + 1)
    return Curve(step, minimum, median, maximum, own if np.isfinite(own).any() else None)
