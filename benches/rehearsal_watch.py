"""What a process costs, from outside: its processor time, memory and the machine's load, beside the phases of its log.

A run's log has the wall seconds of its phases. On a machine that others use too these say little, so the process's own
processor seconds are sampled beside it and put down to the phases by time stamp. Several sessions of a run add up.
"""

import bisect
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.run.history import History

SAMPLE_S = 0.2
AFTER = "after the phases"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look at the process."""

    ts_ns: int
    session: int
    cpu_s: float
    rss_bytes: int
    peak_bytes: int
    """Its high-water mark (VmHWM), which no sampling misses."""
    load: float
    """Runnable processes of the whole machine, a minute's average."""


def watched(command: Sequence[object], samples: Path) -> int:
    """Run a command to its end, look at it every :data:`SAMPLE_S`, append what was seen to the file; its exit code."""
    samples.parent.mkdir(parents=True, exist_ok=True)
    session = 1 + max((sample.session for sample in read_samples(samples)), default=0)
    with samples.open("a") as file, subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                if (sample := _look(process.pid, session)) is not None:
                    file.write(json.dumps(vars(sample)) + "\n")
                time.sleep(SAMPLE_S)
        except BaseException:
            process.terminate()  # it saves its state and says so
            raise
    return process.returncode


def _look(pid: int, session: int) -> Sample | None:
    """None where the process has just gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    rows = [line.split() for line in status.splitlines()]
    memory = {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
    if "VmHWM:" not in memory:
        return None
    ticks = int(after_name[11]) + int(after_name[12])  # user and system time, all threads
    return Sample(time.time_ns(), session, ticks / _TICKS, memory["VmRSS:"], memory["VmHWM:"], os.getloadavg()[0])


def read_samples(path: Path) -> list[Sample]:
    """What :func:`watched` has seen so far, of all sessions."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [Sample(**json.loads(line)) for line in lines if line.endswith("}")]


def phase_costs(history: History, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Wall and processor seconds of each phase over all sessions, most memory in it, mean load of the machine."""
    stamps = [sample.ts_ns for sample in samples]
    rows: dict[str, dict[str, Any]] = {}
    for span in history.phases:
        ended_ns = span.started_ns + round(span.seconds * 1e9)
        first = max(bisect.bisect_left(stamps, span.started_ns) - 1, 0)
        seen = samples[first : bisect.bisect_right(stamps, ended_ns) + 1]
        row = rows.setdefault(
            span.name, {"phase": span.name, "wall_s": 0.0, "cpu_s": 0.0, "rss_bytes": 0, "loads": [], "sessions": 0}
        )
        row["wall_s"] += span.seconds
        row["cpu_s"] += _cpu_at(samples, stamps, ended_ns) - _cpu_at(samples, stamps, span.started_ns)
        row["rss_bytes"] = max([row["rss_bytes"], *(sample.rss_bytes for sample in seen)])
        row["loads"] += [sample.load for sample in seen]
        row["sessions"] += 1
    if history.phases and samples:  # what comes when the log is sealed: its verification, report, results.zip
        last = history.phases[-1]
        ended_ns = last.started_ns + round(last.seconds * 1e9)
        after = [sample for sample in samples if sample.ts_ns > ended_ns] or [samples[-1]]
        rows["after"] = {
            "phase": AFTER,
            "wall_s": max(after[-1].ts_ns - ended_ns, 0) / 1e9,
            "cpu_s": max(after[-1].cpu_s - _cpu_at(samples, stamps, ended_ns), 0.0),
            "rss_bytes": max(sample.rss_bytes for sample in after),
            "loads": [sample.load for sample in after],
            "sessions": 1,
        }
    for row in rows.values():
        loads = row.pop("loads")
        row["load"] = sum(loads) / len(loads) if loads else None
    return list(rows.values())


def _cpu_at(samples: Sequence[Sample], stamps: Sequence[int], at_ns: int) -> float:
    """Processor seconds of the process that ran then, between two looks by straight line."""
    after = min(bisect.bisect_left(stamps, at_ns), len(samples) - 1)
    if after < 0:
        return 0.0
    here = samples[after]
    before = samples[after - 1] if after else here
    if before.session != here.session or here.ts_ns == before.ts_ns:
        return here.cpu_s
    part = min(max((at_ns - before.ts_ns) / (here.ts_ns - before.ts_ns), 0.0), 1.0)
    return before.cpu_s + part * (here.cpu_s - before.cpu_s)


def totals(samples: Sequence[Sample]) -> Mapping[str, Any]:
    """Of all sessions: processor seconds, high-water mark, load."""
    sessions = sorted({sample.session for sample in samples})
    last = [max((s for s in samples if s.session == each), key=lambda sample: sample.ts_ns) for each in sessions]
    return {
        "sessions": len(sessions),
        "cpu_s": sum(sample.cpu_s for sample in last),
        "peak_bytes": max((sample.peak_bytes for sample in samples), default=0),
        "load": sum(sample.load for sample in samples) / max(len(samples), 1),
    }
