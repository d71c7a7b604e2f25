"""What all figures share: colours, settings, and a ``Figure`` that shows itself in a notebook."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

from vesu.report.extras import optional

__all__ = ["BLUE", "FALSE", "GREEN", "GREY", "MISSED", "ORANGE", "PURPLE", "Figure", "drawing"]

Figure: TypeAlias = Any
"""A ``matplotlib.figure.Figure``; matplotlib is imported when a figure is drawn."""

# Colours that people with any colour vision tell apart (Okabe and Ito), on grey CT and on white.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#6b6b6b"
FALSE, MISSED = "#d55e00", "#56b4e9"
SETTINGS = {
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "figure.facecolor": "white",  # readable on a dark page too
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure (inches); the settings hold only inside."""
    with optional("matplotlib").rc_context(SETTINGS):
        yield _figure_class()(figsize=(width, height), layout="constrained")


@cache
def _figure_class() -> Any:
    """A ``Figure`` that a notebook shows even where pyplot, which would arrange for it, was never imported."""
    base: Any = optional("matplotlib.figure").Figure

    class NotebookFigure(base):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return NotebookFigure
