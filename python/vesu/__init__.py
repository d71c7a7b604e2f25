"""vesu: find papyrus surfaces in 3-D X-ray CT of the Herculaneum scrolls."""

from vesu._core import __version__

__all__ = ["__version__"]
