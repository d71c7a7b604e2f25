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
