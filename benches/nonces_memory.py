"""What unlimited golden nonces cost: memory, log, timeline, seconds, by their number.

Each row is made in a process of its own, from the same generated probability of a volume: its nonces are found, logged
and written as a run does it, with only the threshold changed. Prints a Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from vesu.config import NonceConfig, RunConfig
from vesu.ledger import verify
from vesu.run import nonces
from vesu.run.events import EventLog


def measured(size: int, share: float, folder: Path) -> dict[str, Any]:
    """One row: the most confident ``share`` of a volume of ``size`` cubed."""
    (folder / "segment").mkdir()
    probability = np.random.default_rng(0).random((size, size, size), dtype=np.float32)
    image = np.zeros(probability.shape, np.uint8)
    config = RunConfig(nonces=NonceConfig(use=True, threshold=1 - share, top_k=0))
    with EventLog(folder / "events.jsonl", run_id="0" * 32) as log:
        stops = SimpleNamespace(poll=lambda: None)
        session = cast("Any", SimpleNamespace(folder=folder, config=config, log=log, stops=stops))
        before, start = peak_mib(), time.perf_counter()
        cpu = time.process_time()
        nonces.keep(session, "1407735", image, probability)
        found_s = time.perf_counter() - start
        nonces.record(session, cast("Any", [SimpleNamespace(volume_id="1407735")]))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    report = verify(folder / "events.jsonl")
    sizes = {name: (folder / name).stat().st_size for name in ("events.jsonl", nonces.TIMELINE)}
    return {
        "found": report.entries - 2,
        "before_mib": before,
        "growth_mib": peak_mib() - before,
        "find_s": found_s,
        "seconds": seconds,
        "cpu_s": cpu,
        "log_bytes": sizes["events.jsonl"],
        "timeline_bytes": sizes[nonces.TIMELINE],
    }


def peak_mib() -> float:
    """Largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--shares", type=float, nargs="+", default=[0.001, 0.06, 0.25])
    arguments.add_argument("--one", type=float, help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.one is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(asked.size, asked.one, Path(folder))))
        return
    print("| nonces | memory before (MiB) | growth (MiB) | found (s) | all (s) | CPU (s) | log (MB) | timeline (MB) |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for share in asked.shares:
        command = [sys.executable, __file__, "--size", str(asked.size), "--one", str(share)]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"| {row['found']:,} | {row['before_mib']:.0f} | {row['growth_mib']:.0f} | {row['find_s']:.1f} "
            f"| {row['seconds']:.1f} | {row['cpu_s']:.1f} | {row['log_bytes'] / 1e6:.1f} "
            f"| {row['timeline_bytes'] / 1e6:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
