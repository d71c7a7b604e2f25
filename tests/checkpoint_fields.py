"""Fields and parts of a checkpoint for tests: every member of R36, with values that a run could have."""

import random
from typing import Any

from vesu.run.checkpoint import EMPTY_ROOT


def fields(**changes: Any) -> dict[str, Any]:
    """What `CheckpointStore.save` asks for, some of it changed."""
    return {
        "run_id": "0123456789abcdef",
        "git_sha": None,
        "phase": "fit",
        "epoch": 1,
        "candidate_first": 0,
        "candidate_index": 134,
        "candidate_total": 135,
        "iter": 40,
        "max_iter": 120,
        "model_state": {"part": "search.npz", "arrays": {"w": "solver.params", "b": "solver.params"}},
        "optimizer_state": {"part": "search.npz", "arrays": {"momentum": "solver.momentum"}},
        "rng_states": {"numpy": {"bit_generator": "PCG64", "state": 2**127 + 1}, "python": None, "torch": None},
        "distillation_state": {},
        "best_metrics": {"f1": 0.625, "iou": float("nan")},
        "data_cursor": {"epoch": 1, "volume": 3},
        "dataset_context": {"files": [{"id": "1", "offset": 0, "blake3": "ab" * 32}]},
        "merkle_curr": EMPTY_ROOT,
        "compat": {"features": {"version": 3, "scales": [1.0, 2.0]}, "seed": 7},
        "progress": {"fit": 0.25},
        "time": {"elapsed_s": 12.5},
        **changes,
    }


def parts(n_bytes: int = 4096, seed: int = 0) -> dict[str, bytes]:
    """A part of bytes drawn at random and a small one."""
    return {"search.npz": random.Random(seed).randbytes(n_bytes), "cursor.json": b'{"epoch": 1}'}


class Events:
    """Collects what is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, /, **given: Any) -> None:
        self.all.append((name, given))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.all]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [given for each, given in self.all if each == name]
