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
def tiff_inspect(path: str) -> dict[str, Any]: ...
def tiff_inspect_bytes(data: bytes, name: str) -> dict[str, Any]: ...
def tiff_read(path: str, max_bytes: int, n_threads: int | None = None) -> NDArray[Any]: ...
def tiff_read_bytes(data: bytes, name: str, max_bytes: int, n_threads: int | None = None) -> NDArray[Any]: ...
def tiff_encode(volume: NDArray[Any], compression: str, n_threads: int | None = None) -> bytes: ...
def tiff_write(path: str, volume: NDArray[Any], compression: str, n_threads: int | None = None) -> None: ...

# ---- features ----

# ---- prox ----

# ---- volume ----

# ---- ledger ----
