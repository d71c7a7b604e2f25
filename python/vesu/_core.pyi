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
def connected_components(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint32], int]: ...
def component_sizes(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> NDArray[np.int64]: ...
def remove_dust(
    mask: NDArray[np.uint8] | NDArray[np.bool_], min_voxels: int, connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int, int]: ...
def hysteresis(
    probability: NDArray[np.float32], low: float, high: float, connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int, int]: ...
def smooth_z(volume: NDArray[np.float32], radius: int, n_threads: int | None = None) -> NDArray[np.float32]: ...
def probability_histogram(
    probability: NDArray[np.float32], label: NDArray[np.uint8] | None, n_bins: int, n_threads: int | None = None
) -> NDArray[np.int64]: ...

# ---- ledger ----
