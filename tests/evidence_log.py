"""A run's log as a test wants it: events at times of its own, cut off where a kill would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vesu.ledger import LedgerWriter

START_NS = 1_790_000_000_000_000_000
CONFIG = {"seed": 0, "n_threads": None, "search": {"max_iter": 3, "l1": [0.1]}, "time": {"limit_s": 100.0}}


class Log:
    """Appends to ``events.jsonl`` in a folder; the clock moves only when told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self.now_s = 0.0
        self._ledger = LedgerWriter(self.path)

    def emit(self, name: str, /, **fields: Any) -> int:
        return self._ledger.append(name, {"run_id": "r1", **fields}, ts_ns=START_NS + round(self.now_s * 1e9))

    def start(self, name: str = "RUN_START", config: Mapping[str, Any] | None = None) -> None:
        self.emit(name, version="0.1.0", git_sha="abc", config=dict(config or CONFIG), machine={"cores": 2})

    def phase(self, name: str, seconds: float, **fields: Any) -> None:
        self.emit("PHASE_START", phase=name)
        self.now_s += seconds
        self.emit("PHASE_END", phase=name, seconds=seconds, **fields)

    def progress(self, percent: float, remaining_s: float = 7.0, **cursor: Any) -> None:
        shown = {"global_progress_reel": percent, "train_progress_reel": percent, "remaining_estimate_s": remaining_s}
        self.emit("GLOBAL_PROGRESS_REALTIME", cursor=cursor, **shown)

    def iterations(self, first: int, last: int, *, epoch: int = 0, candidates: int = 4, step_s: float = 1.0) -> None:
        for iteration in range(first, last + 1):
            self.now_s += step_s
            self._ledger.append_iterations(
                "TRAIN_ITERATION",
                iteration=iteration,
                max_iter=3,
                candidate_first=0,
                loss=np.linspace(0.3, 0.4, candidates),
                gradient_norm=np.ones(candidates),
                nonzero=np.ones(candidates, np.int64),
                common={"run_id": "r1", "epoch": epoch},
                ts_ns=START_NS + round(self.now_s * 1e9),
            )

    def close(self) -> Path:
        self._ledger.close()
        return self.path.parent

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def tear(folder: Path, n_bytes: int) -> None:
    """Cut so many bytes off the log's end."""
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-n_bytes])
