"""Types of the Rust core. Public functions with documentation live in the modules that wrap these."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

# ---- gate ----
def thread_count() -> int: ...
def _gate_probe(
    behaviour: Literal["sleep", "panic", "no_space"] | str, seconds: float = 0.0, n_threads: int | None = None
) -> int: ...

# ---- tiff ----

# ---- features ----

# ---- prox ----

# ---- volume ----

# ---- ledger ----
class LedgerLog:
    def append(self, name: str, fields: dict[str, Any], ts_ns: int | None = None) -> int: ...
    def append_many(self, events: list[tuple[str, dict[str, Any]]], ts_ns: int | None = None) -> int: ...
    def append_iterations(
        self,
        name: str,
        iteration: int,
        max_iter: int,
        candidate_first: int,
        loss: NDArray[np.float64],
        gradient_norm: NDArray[np.float64],
        nonzero: NDArray[np.int64],
        common: dict[str, Any],
        ts_ns: int | None = None,
    ) -> int: ...
    def flush(self) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def root(self) -> str: ...
    @property
    def head(self) -> str: ...
    @property
    def torn_bytes(self) -> int: ...

def ledger_open(path: str) -> LedgerLog: ...
def ledger_verify(path: str) -> dict[str, Any]: ...
def ledger_canonical(value: Any) -> bytes: ...
def ledger_tree_head(entries: list[bytes]) -> str: ...
