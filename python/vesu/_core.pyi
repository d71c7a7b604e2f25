"""Types of the Rust core. Public functions with documentation live in the modules that wrap these."""

from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

# ---- gate ----
def thread_count() -> int: ...
def _gate_probe(
    behaviour: Literal["sleep", "panic", "no_space"] | str, seconds: float = 0.0, n_threads: int | None = None
) -> int: ...

# ---- digest ----
def blake3_bytes(data: bytes, n_threads: int | None = None) -> str: ...
def blake3_array(array: NDArray[Any], n_threads: int | None = None) -> str: ...
def blake3_file(path: str | PathLike[str], n_threads: int | None = None) -> str: ...

# ---- tiff ----

# ---- features ----

# ---- prox ----

# ---- volume ----

# ---- ledger ----
