"""The states of the process's random generators, as JSON (R36).

vesu itself draws from counter-based generators keyed by (seed, epoch, index), which have no state to lose. The global
ones belong to the caller, and to training code that uses them: a resumed run puts them back where they were.
"""

import random
import sys
from typing import Any

import numpy as np

from vesu.errors import FormatError

__all__ = ["capture", "restore"]


def capture() -> dict[str, Any]:
    """States of ``random``, of numpy's global generator, and of torch's CPU generator where torch is loaded.

    Examples
    --------
    >>> state = capture()
    >>> first = random.random()
    >>> restore(state)
    >>> random.random() == first
    True
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002  # the global generator
    states: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": [int(word) for word in keys],
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": None,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = bytes(torch.get_rng_state().numpy().tobytes()).hex()
    return states


def restore(states: Any) -> None:
    """Put the generators back to what :func:`capture` found.

    Raises
    ------
    FormatError
        States that no generator takes.
    """
    try:
        python, numpy, torch_state = states["python"], states["numpy"], states["torch"]
        random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
        keys = np.array(numpy["keys"], np.uint32)
        np.random.set_state(  # noqa: NPY002  # the global generator
            (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
        )
        torch = sys.modules.get("torch")
        if torch is not None and torch_state is not None:
            torch.set_rng_state(torch.frombuffer(bytearray.fromhex(torch_state), dtype=torch.uint8))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
        raise FormatError(f"rng_states: not the states of generators: {error}") from error
