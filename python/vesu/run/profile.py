"""``RUN_PROFILE_SUMMARY.json``: where a run's time went and what it bought, from its log (R41)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vesu.data.storage import write_json_atomic
from vesu.run.history import History, PhaseSpan, read_history

__all__ = ["PROFILE", "profile_of", "read_profile", "write_profile"]

PROFILE = "RUN_PROFILE_SUMMARY.json"
FORMAT = 1

SAME_WORK = ("n_threads", "cache_gib", "max_feature_gib", "search.device", "time", "checkpoint", "memory")
"""Settings, or sections of them, that change how long the same work takes, and not what it is."""

QUALITY_FIELDS = ("epoch", "best_objective", "best_candidate", "diverged", "judged_on", "samples")
SCORES = ("score", "f1", "f_beta", "iou", "precision", "recall", "topology", "surface", "voi")


def write_profile(
    folder: Path, previous: Mapping[str, Any] | None = None, *, history: History | None = None
) -> dict[str, Any]:
    """Write ``RUN_PROFILE_SUMMARY.json`` of a run folder.

    Parameters
    ----------
    folder : path
        With the run's ``events.jsonl``, flushed.
    previous : mapping, optional
        The profile of the run to compare with, from :func:`read_profile`; by default the one that the run put into its
        log when it began (``PREVIOUS_RUN_PROFILE``).
    history : History, optional
        The folder's log where it was read already.

    Returns
    -------
    dict
        What was written, see :func:`profile_of`.

    Raises
    ------
    FileError
        The log cannot be read or the file not be written.

    Notes
    -----
    Requirement R41. A log that ends in the middle (a killed run) gives a profile of what there is.

    Examples
    --------
    >>> import tempfile
    >>> from vesu.run.events import EventLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EventLog(Path(folder, "events.jsonl"), run_id="demo") as log:
    ...         _ = log.emit("RUN_START"), log.emit("PHASE_START", phase="fit")
    ...         _ = log.emit("PHASE_END", phase="fit", seconds=8.0, logging_s=0.5, io_s=1.5)
    ...     profile = write_profile(Path(folder))
    >>> profile["shares"]
    {'compute': 0.75, 'logging': 0.0625, 'io': 0.1875, 'measured_s': 8.0}
    """
    profile = profile_of(history or read_history(folder / "events.jsonl"), previous)
    write_json_atomic(folder / PROFILE, profile)
    return profile


def read_profile(folder: Path) -> dict[str, Any] | None:
    """The profile in a run folder; None where there is none that can be used: it only serves to compare with.

    A new run in the same folder reads it before it clears the folder, and logs it as ``PREVIOUS_RUN_PROFILE``, so that
    a later session still has it.
    """
    try:
        found = json.loads((folder / PROFILE).read_bytes(), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return {name: value for name, value in found.items() if name != "speed_up"}  # which is about yet another run


def _refuse(token: str) -> float:
    raise ValueError(f"{token} is not JSON")


def profile_of(history: History, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A run's profile.

    Parameters
    ----------
    history : History
        The run's log.
    previous : mapping, optional
        Another run's profile; by default the one in the log.

    Returns
    -------
    dict
        ``elapsed_s`` and ``sessions``; ``phases`` with the seconds of each over all sessions; ``shares`` of
        computation, logging and I/O in the phases where they were measured (None where none was); ``search`` with
        ``candidates_per_s`` and the cost of an iteration; ``quality`` against iterations, one point an epoch;
        ``validation``; ``speed_up`` against the previous run. What was not measured is None.
    """
    start = history.start
    profile: dict[str, Any] = {
        "format": FORMAT,
        "run_id": history.run_id,
        "status": history.status or "unfinished",
        "version": start.get("version"),
        "git_sha": start.get("git_sha"),
        "config": start.get("config"),
        "machine": start.get("machine"),
        "input": {name: history.newest.get("INVENTORY", {}).get(name) for name in ("pairs", "tests")},
        "elapsed_s": history.elapsed_s,
        "sessions": [
            {
                "number": each.number,
                "started_ns": str(each.first_ns),
                "elapsed_s": each.elapsed_s,
                "status": each.status,
            }
            for each in history.sessions
        ],
        "phases": _phases(history),
        "shares": _shares(history.phases),
        "log": {
            "records": history.records,
            "bytes": history.n_bytes,
            "iteration_records": history.iterations.records,
        },
        "checkpoints": {
            "written": history.counts.get("CHECKPOINT_WRITTEN", 0),
            "seconds": history.checkpoint_s,
        },
        "cache": {name.lower(): history.counts.get(f"CACHE_{name}", 0) for name in ("HIT", "MISS")},
        "search": _search(history),
        "quality": _quality(history),
        "validation": _validation(history),
    }
    if previous is None:
        previous = history.newest.get("PREVIOUS_RUN_PROFILE", {}).get("profile")
    return profile | {"speed_up": _speed_up(profile, previous)}


def _phases(history: History) -> list[dict[str, Any]]:
    """Each phase over all sessions, in the order of their first start."""
    rows: dict[str, dict[str, Any]] = {}
    for span in history.phases:
        row = rows.setdefault(span.name, {"name": span.name, "seconds": 0.0, "sessions": 0})
        row["seconds"] += span.seconds
        row["sessions"] += 1
        row["complete"] = span.complete
    total = sum(row["seconds"] for row in rows.values())
    for name, row in rows.items():
        row["share"] = row["seconds"] / total if total > 0 else None
        row["shares"] = _shares([span for span in history.phases if span.name == name])
    return list(rows.values())


def _shares(spans: tuple[PhaseSpan, ...] | list[PhaseSpan]) -> dict[str, float] | None:
    """Computation, logging and I/O as parts of the phases that measured them."""
    rows = [
        (span.seconds, span.logging_s, span.io_s)
        for span in spans
        if span.logging_s is not None and span.io_s is not None and span.logging_s + span.io_s <= span.seconds
    ]  # parts that are more than the whole were not measured over it
    total = sum(seconds for seconds, _, _ in rows)
    if total <= 0:
        return None
    logging, io = (sum(row[column] for row in rows) / total for column in (1, 2))
    return {"compute": 1.0 - logging - io, "logging": logging, "io": io, "measured_s": total}


def _search(history: History) -> dict[str, Any] | None:
    """What the grid cost: an iteration here is one iteration of one candidate."""
    iterations = history.iterations
    fit_s = sum(span.seconds for span in history.phases if span.name == "fit")
    if not iterations.records or fit_s <= 0:
        return None
    max_iter = (history.start.get("config") or {}).get("search", {}).get("max_iter")
    candidates = len({candidate for _, candidate in iterations.reached})
    ended = {epoch.get("epoch") for epoch in history.epochs}  # a solver may be done before max_iter
    whole = sum(1 for (epoch, _), reached in iterations.reached.items() if epoch in ended or reached == max_iter)
    each_s = fit_s / iterations.records
    return {
        "seconds": fit_s,
        "candidates": candidates,
        "epochs": len({epoch for epoch, _ in iterations.reached}),
        "max_iter": max_iter,
        "candidate_passes_done": whole,
        "candidates_per_s": whole / fit_s,
        "iterations": iterations.distinct,
        "iterations_computed_again": iterations.records - iterations.distinct,
        "iterations_per_s": iterations.records / fit_s,
        "seconds_per_iteration": each_s,
        "seconds_per_iteration_of_all": each_s * candidates,
        "samples": history.samples,
        "seconds_per_iteration_and_million_samples": each_s / (history.samples / 1e6) if history.samples else None,
    }


def _quality(history: History) -> list[dict[str, Any]]:
    """The best validation objective at each epoch's end, against the iterations behind it and the time so far."""
    began_ns = history.sessions[0].first_ns if history.sessions else 0
    return [
        {name: epoch.get(name) for name in QUALITY_FIELDS}
        | {
            "iterations": history.iterations.until(int(epoch.get("epoch") or 0)),
            "since_start_s": (int(epoch["ts_ns"]) - began_ns) / 1e9,
        }
        for epoch in history.epochs
    ]


def _validation(history: History) -> dict[str, float] | None:
    """The final masks' scores on held-out volumes."""
    for name in ("CALIBRATED", "BASELINE_VALIDATED"):
        entry = history.newest.get(name, {}).get("validation")
        if isinstance(entry, dict):
            return {key: entry[key] for key in SCORES if isinstance(entry.get(key), int | float)}
    return None


def _speed_up(this: Mapping[str, Any], previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """How much faster than the previous run on the same seeds; no figure where the work was not the same."""
    if previous is None:
        return {"factor": None, "reason": "no previous run to compare with"}
    found: dict[str, Any] = {"factor": None, "previous_run_id": previous.get("run_id")}
    for run, words in ((this, "this run"), (previous, "the previous run")):
        if run.get("status") != "finished":
            return found | {"reason": f"{words} is not a finished one"}
    differences = list(_differences(_work(previous), _work(this)))
    if differences:
        return found | {"reason": "the work was not the same", "differences": differences}
    before, now = _seconds_by_phase(previous), _seconds_by_phase(this)
    return found | {
        "factor": _ratio(previous.get("elapsed_s"), this["elapsed_s"]),
        "previous_elapsed_s": previous.get("elapsed_s"),
        "phases": {name: _ratio(before[name], now[name]) for name in now if name in before},
        "settings_changed": list(_differences(_settings(previous), _settings(this))),
        "cache": {"previous": previous.get("cache"), "this": this["cache"]},
        "reason": None,
    }


def _work(profile: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how much there is to do."""
    config = {
        name: value
        for name, value in _flat(profile.get("config"))
        if not any(name == free or name.startswith(f"{free}.") for free in SAME_WORK)
    }
    return {**config, **{f"input.{name}": value for name, value in _flat(profile.get("input"))}}


def _settings(profile: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_flat(profile.get("config"))) | {"version": profile.get("version"), "git_sha": profile.get("git_sha")}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield {"field": name, "previous": old.get(name), "this": new.get(name)}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted names and their values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _seconds_by_phase(profile: Mapping[str, Any]) -> dict[str, float]:
    rows = profile.get("phases")
    return {row["name"]: row["seconds"] for row in rows} if isinstance(rows, list) else {}


def _ratio(before_s: Any, now_s: float) -> float | None:
    return before_s / now_s if isinstance(before_s, int | float) and now_s > 0 else None
