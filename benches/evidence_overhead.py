"""What evidence and checkpoints cost the demo run; prints one JSON line a run and their median.

    python benches/evidence_overhead.py --runs 5
    python benches/evidence_overhead.py --records 1000000   # the search's iteration records alone, on so many samples

Every call that only serves evidence or resumption is timed where the pipeline makes it, outermost call only: events,
log syncs, checkpoints, JSON files, profile, post-mortem, the log's own verification, ``results.zip``. The threads
beside the run (heartbeat, memory, deadline, publishing) are charged with their processor time. The HTML report is a
product, not a cost of safety, and stands beside.
"""

import argparse
import contextlib
import functools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import vesu
from vesu.data.phantom import write_dataset
from vesu.run import ending, events, learning, pipeline, segmenting, session
from vesu.run.checkpoint import CheckpointStore

METHODS = (
    (events.EventLog, ("emit", "emit_iterations", "sync", "tree_head", "close"), "log"),
    (session.Session, ("save",), "checkpoints"),
    (CheckpointStore, ("drain",), "checkpoints"),
)
FUNCTIONS = (
    (pipeline, ("write_json_atomic", "write_profile", "write_postmortem"), "files"),
    (ending, ("write_json_atomic", "write_profile", "write_postmortem", "verify", "read_history"), "files"),
    (ending, ("write_results_zip",), "results.zip"),
    (learning, ("write_json_atomic",), "files"),
    (segmenting, ("write_json_atomic",), "files"),
)


class Costs:
    """Seconds by kind, counted once where calls nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.thread = threading.get_ident()
        self._inside = False

    def timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if self._inside or threading.get_ident() != self.thread:
                return call(*arguments, **named)
            self._inside, start = True, time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._inside = False
                self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start

        return wrapper


@contextlib.contextmanager
def counted(costs: Costs) -> Iterator[None]:
    """Time every listed call while the body runs, and the processor time of threads that begin in it."""
    with contextlib.ExitStack() as stack:
        for owner, names, kind in (*METHODS, *FUNCTIONS):
            for name in names:
                stack.enter_context(mock.patch.object(owner, name, costs.timed(kind, getattr(owner, name))))
        run = threading.Thread.run

        def charged(thread: threading.Thread) -> None:
            try:
                run(thread)
            finally:
                if thread.name.startswith("vesu-"):
                    costs.seconds["threads"] = costs.seconds.get("threads", 0.0) + time.thread_time()

        stack.enter_context(mock.patch.object(threading.Thread, "run", charged))
        yield


def measure(data: Path, out: Path, cache: Path) -> dict[str, Any]:
    """One run of the demo's data set."""
    costs, report_s = Costs(), 0.0
    make_report = ending._report

    def reported(*given: Any) -> Any:
        nonlocal report_s
        start = time.perf_counter()
        try:
            return make_report(*given)
        finally:
            report_s = time.perf_counter() - start

    with counted(costs), mock.patch.object(ending, "_report", reported):
        start = time.perf_counter()
        vesu.run(data, out, cache=cache, display="none")
        whole_s = time.perf_counter() - start
    run_s = whole_s - report_s
    names = [event["event"] for event in vesu.ledger.iter_events(out / "events.jsonl")]
    return {
        "run_s": run_s,
        "report_s": report_s,
        "evidence_s": {kind: round(seconds, 4) for kind, seconds in sorted(costs.seconds.items())},
        "share": sum(costs.seconds.values()) / run_s,
        "checkpoints": names.count("CHECKPOINT_WRITTEN"),
        "events": len(names),
    }


def records(n_samples: int, folder: Path) -> dict[str, Any]:
    """A whole grid with a record of every candidate's every iteration in the log: the log's part of the time."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_samples, 6), dtype=np.float32)
    y = (x[:, 0] + rng.standard_normal(n_samples, dtype=np.float32) > 0).astype(np.uint8)
    log = events.EventLog(folder / "events.jsonl", run_id="overhead")
    start = time.perf_counter()
    with log:
        vesu.ElasticNetLogisticGrid().fit(x, y, x, on_iteration=lambda record: log.emit_iterations(record, 0) and None)
    whole_s, logging_s = time.perf_counter() - start, log.watch.lap()["logging_s"]
    return {"samples": n_samples, "records": log.size, "fit_s": whole_s, "share": logging_s / whole_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, metavar="SAMPLES", help="time the iteration records alone")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis (the demo's: 128)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if arguments.records:
            print(json.dumps(records(arguments.records, Path(place))))
            return
        data = write_dataset(Path(place, "data"), n_train=8, n_test=2, shape=(arguments.size,) * 3, seed=0)
        rows = []
        for number in range(arguments.runs):
            rows.append(measure(data, Path(place, f"run{number}"), Path(place, f"cache{number}")))
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"median_share": statistics.median(row["share"] for row in rows)}))


if __name__ == "__main__":
    main()
