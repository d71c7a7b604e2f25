"""The run along its own time: progress and remaining estimate as they were shown, and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vesu.report.jsonfile import Node

SESSION_STARTS = ("RUN_START", "RUN_RESUMED")
PROGRESS_EVENTS = ("GLOBAL_PROGRESS_REALTIME", "PROGRESS_UPDATE", "TRAIN_CURSOR")


@dataclass(frozen=True)
class Series:
    """Rows of figures over seconds of the run's time, the pauses between its sessions left out."""

    at_s: NDArray[np.float64]
    values: NDArray[np.float64]
    """One row for each point; NaN where a figure was not recorded."""

    def __len__(self) -> int:
        return len(self.at_s)


@dataclass(frozen=True)
class Timeline:
    """What the log says along the way."""

    progress: Series
    """Percent shown; seconds estimated to remain, and the low and high end of that estimate."""
    memory: Series
    """Resident GiB; used share of all memory in percent."""
    phase: str | None
    """That was running when the log ended."""
    cursor: str | None
    n_sessions: int
    duration_s: float
    run_id: str | None
    started_ns: int | None


class TimelineReader:
    """Takes the events one by one."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._last_ns: int | None = None
        self._progress: list[tuple[float, ...]] = []
        self._memory: list[tuple[float, ...]] = []
        self._phase: str | None = None
        self._cursor: Node | None = None
        self._sessions = 0
        self._run_id: str | None = None
        self._started_ns: int | None = None

    def take(self, name: str, node: Node) -> None:
        """One event; those that are neither progress nor memory only move the time on."""
        if name in SESSION_STARTS:
            self._sessions += 1
            self._last_ns = None  # a pause is no time of the run
        now_ns = node.integer("ts_ns")
        self._run_id = self._run_id or node.text("run_id")
        if now_ns is not None:
            self._started_ns = self._started_ns or now_ns
            self._now_s += 0.0 if self._last_ns is None else max(0, now_ns - self._last_ns) / 1e9
            self._last_ns = now_ns
        if name in PROGRESS_EVENTS:
            self._cursor = node.child("cursor")
            keys = ("global_progress_reel", "remaining_estimate_s", "remaining_low_s", "remaining_high_s")
            self._progress.append((self._now_s, *(_figure(node, key) for key in keys)))
        elif name == "MEMORY_HEALTH":
            figures = (_figure(node, "rss_bytes") / 2**30, 100 * _figure(node, "used_fraction"))
            self._memory.append((self._now_s, *figures))
        elif name == "PHASE_START":
            self._phase = node.text("phase")
        elif name == "PHASE_END":
            self._phase = None

    def timeline(self) -> Timeline:
        """What was taken so far."""
        return Timeline(
            progress=_series(self._progress, 4),
            memory=_series(self._memory, 2),
            phase=self._phase,
            cursor=None if self._cursor is None else _place(self._cursor),
            n_sessions=self._sessions,
            duration_s=self._now_s,
            run_id=self._run_id,
            started_ns=self._started_ns,
        )


def _figure(node: Node, key: str) -> float:
    value = node.number(key)
    return float("nan") if value is None else value


def _series(rows: Sequence[tuple[float, ...]], width: int) -> Series:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), width + 1)
    return Series(table[:, 0], table[:, 1:])


def _place(cursor: Node) -> str | None:
    """The cursor in words."""
    names = ("epoch", "candidate_first", "candidate_index", "iter", "max_iter")
    epoch, first, last, iteration, most = (cursor.integer(name) for name in names)
    if None not in (epoch, first, last, iteration, most):
        return f"epoch {epoch}, candidates {first} to {last}, iteration {iteration} of {most}"
    done, total = cursor.number("done"), cursor.number("total")
    return None if done is None or total is None else f"{done:g} of {total:g}"
