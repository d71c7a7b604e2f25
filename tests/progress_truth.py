"""Whether a recorded run showed the truth: the percentage in its log against the share of its time that had passed."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vesu.ledger import iter_events

SESSION_BEGINS = ("RUN_START", "SESSION_START")


@dataclass(frozen=True)
class Shown:
    """One recorded percentage."""

    elapsed_s: float
    """Of the run, in all its sessions; the time between two sessions is nobody's."""
    percent: float


def recorded(path: Path, begins: Collection[str] = SESSION_BEGINS) -> list[Shown]:
    """Every percentage in a log, in order; each of ``begins`` starts a session."""
    found, elapsed_ns, last_ns = [], 0, None
    for event in iter_events(path):
        now_ns = int(event["ts_ns"])
        if last_ns is not None and event["event"] not in begins:
            elapsed_ns += now_ns - last_ns
        last_ns = now_ns
        if "global_progress_reel" in event:
            found.append(Shown(elapsed_ns / 1e9, event["global_progress_reel"]))
    return found


def worst_points(path: Path, begins: Collection[str] = SESSION_BEGINS, after: float = 0.1) -> float:
    """The largest difference, in points, between percentage shown and share of time passed, from a tenth of it on."""
    shown = recorded(path, begins)
    assert shown and shown[-1].percent == 100, "not the log of a finished run"
    whole_s = next(each.elapsed_s for each in shown if each.percent == 100)
    assert whole_s > 0
    counted = [each for each in shown if after * whole_s <= each.elapsed_s <= whole_s]
    assert len(counted) > 10, "too few recorded percentages to judge by"
    return max(abs(each.percent - 100 * each.elapsed_s / whole_s) for each in counted)
