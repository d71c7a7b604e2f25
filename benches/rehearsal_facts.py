"""What the folders of finished runs say, from their verified logs and the samples taken beside them."""

import hashlib
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rehearsal_watch import phase_costs, read_samples, totals
from vesu.ledger import verify
from vesu.run.history import History, events_named, read_history

RESULTS = ("model.npz", "model.json", "leaderboard.json", "submission.zip")
GOVERNED = (
    "RUN_START",
    "RUN_RESUMED",
    "RESUME_EXACT_OK",
    "RESUME_OK",
    "TIME_BUDGET_STATE",
    "PHASE_BUDGET_OVERRUN",
    "RUNTIME_ACCELERATION_MODE_ON",
    "RUNTIME_ACCELERATION_ACTION",
    "PRETIMEOUT_FLUSH",
    "PROVISIONAL_MASK",
    "RUNTIME_BUDGET_FINAL",
    "RUN_STOPPED",
    "RUN_END",
)


def of_run(folder: Path, samples: Path) -> dict[str, Any]:
    """Counts and costs of a finished run."""
    summary = json.loads((folder / "summary.json").read_text())
    coverage = json.loads((folder / "v3_train_coverage_report.json").read_text())
    start = time.perf_counter()
    entries = verify(folder / "events.jsonl").entries
    verify_s, history, seen = time.perf_counter() - start, read_history(folder / "events.jsonl"), read_samples(samples)
    search = summary["search"]
    return {
        "pairs": summary["inventory"]["pairs"],
        "tests": summary["inventory"]["tests"],
        "candidates": search["candidates"],
        "features": search["features"],
        "samples": search["samples"],
        "voxels": voxels_of(folder / "events.jsonl"),
        "coverage_pct": coverage["train_pair_coverage_pct_effective"],
        "coverage_gap": coverage["coverage_gap_reason"],
        "iterations": iterations_of(history, search["candidates"], search["max_iter"], search["epochs"]),
        "log": {"records": entries, "bytes": history.n_bytes, "verify_s": verify_s},
        "events": dict(sorted(history.counts.items(), key=lambda item: -item[1])),
        "checkpoints": {"written": history.counts.get("CHECKPOINT_WRITTEN", 0), "seconds": history.checkpoint_s},
        "discovery_s": next(phase["seconds"] for phase in summary["phases"] if phase["name"] == "discovery"),
        "phases": phase_costs(history, seen),
        "segment": segment_of(folder / "events.jsonl", history),
        "whole": {**totals(seen), "wall_s": seconds_in(history)},
        "bytes": bytes_of(folder),
        "go_no_go": summary["go_no_go"],
    }


def seconds_of(folder: Path) -> float:
    """What a run took, all sessions together."""
    return seconds_in(read_history(folder / "events.jsonl"))


def seconds_in(history: History) -> float:
    return sum(session.elapsed_s for session in history.sessions)


def iterations_of(history: History, candidates: int, max_iter: int, epochs: int) -> dict[str, Any]:
    """Whether the log holds every iteration of every candidate, once at least (R51)."""
    asked, reached = candidates * max_iter * epochs, history.iterations.reached
    whole = len(reached) == candidates * epochs and set(reached.values()) == {max_iter}
    return {
        "records": history.iterations.records,
        "expected": asked,
        "complete": whole and asked == sum(reached.values()),
    }


def voxels_of(log: Path) -> dict[str, Any]:
    """What the volumes gave of each class, in the first epoch's draw."""
    drawn = [event for event in events_named(log, ("VOXELS_SAMPLED",)) if event["epoch"] == 0]
    by_volume = {event["volume_id"]: event for event in drawn}  # a resumed session draws again
    counts = [int(event["voxels"]) for event in by_volume.values()]
    surface = [int(event["surface"]) for event in by_volume.values()]
    return {
        "volumes": len(by_volume),
        "all": sum(counts),
        "surface": sum(surface),
        "least": min(counts),
        "least_surface": min(surface),
        "median_surface": statistics.median(surface),
    }


def segment_of(log: Path, history: History) -> dict[str, Any]:
    """Seconds of the phase segment before the model stood, and from then on for the test volumes.

    None where the end of a session cut the phase: its seconds cannot be told apart then.
    """
    spans = [span for span in history.phases if span.name == "segment"]
    volumes = next(events_named(log, ("CALIBRATION_VOLUMES",)))["used"]
    if len(spans) != 1:
        return {"volumes": volumes, "calibration_s": None, "test_s": None}
    calibrated = next(events_named(log, ("CALIBRATED",)))
    calibration_s = (int(calibrated["ts_ns"]) - spans[0].started_ns) / 1e9
    return {"volumes": volumes, "calibration_s": calibration_s, "test_s": spans[0].seconds - calibration_s}


def of_governor(short: Path, whole: Path) -> dict[str, Any]:
    """What the governor did in a run of too short sessions, and whether its result is the undisturbed run's."""
    log = short / "events.jsonl"
    history = read_history(log)
    verify(log)
    return {
        "sessions": [{"status": each.status, "seconds": each.elapsed_s} for each in history.sessions],
        "events": [told(event) for event in events_named(log, GOVERNED)],
        "same_bits": digests(short) == digests(whole),
        "iterations": history.iterations.distinct,
        "iteration_records": history.iterations.records,
    }


def told(event: Any) -> dict[str, Any]:
    """As much of a governor's event as a table needs."""
    wanted = ("change", "state", "phase", "reason", "action", "applied", "acceleration_actions_applied", "status")
    wanted += ("elapsed_session_s", "expected_end_s", "seconds_left", "reserve_s", "iter", "volume_id")
    return {"event": event["event"], **{name: event[name] for name in wanted if name in event}}


def stopped_in(folder: Path) -> str | None:
    """The phase in which the newest session had to stop."""
    flushes = list(events_named(folder / "events.jsonl", ("PRETIMEOUT_FLUSH",)))
    return str(flushes[-1]["phase"]) if flushes else None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of what a run is for: model, leaderboard, zip, every mask."""
    paths = [*(folder / name for name in RESULTS), *sorted((folder / "masks").glob("*.tif"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def bytes_of(folder: Path) -> dict[str, int]:
    """How large what a run leaves is."""
    found = {name: _size([folder / name]) for name in ("report.html", "results.zip", "submission.zip", "summary.json")}
    for name in ("cache", "checkpoints", "segment", "masks"):
        found[name] = _size(path for path in (folder / name).rglob("*"))
    return found


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
