"""The rehearsal's tables, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rehearsal_scale import BUDGET_S, CORES, memory_bytes, scaled

GIB = 2**30


def document(found: Mapping[str, Mapping[str, Any]], *, n_train: int, n_test: int, size: int) -> str:
    """What was measured, and what follows from it."""
    parts = ["# The rehearsal"]
    if "run" in found:
        parts += [counts(found["run"]), costs(found["run"])]
    if "size" in found:
        parts += [f"## Volumes of {size}^3", costs(found["size"])]
    if "run" in found and "size" in found:
        parts.append(forecast(found["run"], found["size"], n_train, n_test, size))
    if "governor" in found:
        parts.append(governor(found["governor"]))
    return "\n\n".join(parts) + "\n"


def counts(run: Mapping[str, Any]) -> str:
    voxels, iterations, log, sizes = run["voxels"], run["iterations"], run["log"], run["bytes"]
    rows = [
        ("labelled, test volumes", f"{run['pairs']:,}, {run['tests']:,}"),
        ("coverage", f"{run['coverage_pct']:g} % of the pairs, gap: {run['coverage_gap']}"),
        ("voxels drawn", f"{voxels['all']:,} of {voxels['volumes']} volumes, {voxels['surface']:,} of them surface"),
        ("of the poorest volume", f"{voxels['least']:,} voxels; {voxels['least_surface']:,} surface"),
        ("training samples x features", f"{run['samples']:,} x {run['features']}"),
        ("candidates", f"{run['candidates']}"),
        (
            "iterations in the log",
            f"{iterations['records']:,} of {iterations['expected']:,}, "
            + ("complete" if iterations["complete"] else "NOT COMPLETE"),
        ),
        ("log", f"{log['records']:,} records, {log['bytes'] / 1e6:.1f} MB, verified in {log['verify_s']:.2f} s"),
        ("checkpoints", f"{run['checkpoints']['written']}, {run['checkpoints']['seconds']:.1f} s in all"),
        ("memory high-water mark", f"{run['whole']['peak_bytes'] / GIB:.2f} GiB"),
        ("cache", f"{sizes['cache'] / GIB:.2f} GiB"),
        *((name, f"{sizes[name] / 1e6:.2f} MB") for name in ("report.html", "results.zip", "submission.zip")),
    ]
    return table(("what", "measured"), rows)


def costs(found: Mapping[str, Any]) -> str:
    phases, whole = found["phases"], found["whole"]
    everything = {"phase": "all", "wall_s": sum(row["wall_s"] for row in phases), "rss_bytes": whole["peak_bytes"]}
    rows = [
        (
            row["phase"],
            f"{row['wall_s']:.1f}",
            f"{row['cpu_s']:.1f}",
            f"{row['rss_bytes'] / GIB:.2f}",
            "" if row["load"] is None else f"{row['load']:.1f}",
        )
        for row in (*phases, {**everything, "cpu_s": whole["cpu_s"], "load": whole["load"]})
    ]
    return table(("phase", "wall seconds", "processor seconds", "most memory, GiB", "load of the machine"), rows)


def forecast(run: Mapping[str, Any], size: Mapping[str, Any], n_train: int, n_test: int, edge: int) -> str:
    phases = scaled(run, size, n_train, n_test)
    rows = [(each.phase, each.arithmetic, _span(each.low_s, each.high_s)) for each in phases]
    low, high = sum(each.low_s for each in phases), sum(each.high_s for each in phases)
    rows.append(("all", "", _span(low, high)))
    rows.append((f"of {BUDGET_S / 3600:g} h", "", f"{100 * low / BUDGET_S:.0f} to {100 * high / BUDGET_S:.0f} %"))
    memory = memory_bytes(run, size, n_train) / GIB
    return "\n\n".join(
        [
            f"## {n_train} pairs and {n_test} test volumes of {edge}^3 on {CORES} cores",
            table(("phase", "processor seconds", f"wall: {CORES} cores to one"), rows),
            f"Memory: at most {memory:.1f} GiB (all samples, and beside them all that one run on few volumes held).",
        ]
    )


def governor(found: Mapping[str, Any]) -> str:
    same = "the bits of the undisturbed run" if found["same_bits"] else "OTHER BITS THAN THE UNDISTURBED RUN'S"
    ends = f"{len(found['sessions'])} sessions, {found['iterations']:,} iterations; the result has {same}."
    stops = [(i, f"{stop['limit_s']:.0f}", stop["phase"], stop["members"]) for i, stop in enumerate(found["stops"], 1)]
    shown = ("RUNTIME_ACCELERATION_MODE_ON", "RUNTIME_ACCELERATION_ACTION", "PRETIMEOUT_FLUSH", "RUN_STOPPED")
    events = [(e["event"], _fields(e)) for e in found["events"] if e["event"] in shown]
    return "\n\n".join(
        [
            f"## Too little time\n\n{ends}",
            table(("session", "its seconds", "stopped in", "volumes in the valid zip"), stops),
            table(("event", "fields"), events),
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def _fields(event: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in event.items()
        if name != "event"
    )


def _span(low_s: float, high_s: float) -> str:
    return f"{low_s:.0f} to {high_s:.0f} s" if high_s < 7200 else f"{low_s / 3600:.2f} to {high_s / 3600:.2f} h"
