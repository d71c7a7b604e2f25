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
def feature_families() -> list[str]: ...
def feature_plan(scales: list[float], families: list[str]) -> tuple[list[str], int]: ...
def extract_features(
    volume: NDArray[Any],
    scales: list[float],
    families: list[str],
    normalise: bool,
    z_range: tuple[int, int] | None,
    max_bytes: int,
    n_threads: int | None = None,
) -> NDArray[np.float32]: ...
def gather_features(
    values: NDArray[np.float32], flat_index: NDArray[np.int64], n_threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def feature_moments(
    x: NDArray[np.float32], n_threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

# ---- prox ----

# ---- volume ----

# ---- ledger ----
