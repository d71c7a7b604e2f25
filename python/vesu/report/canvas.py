"""A matplotlib figure as inline SVG whose colours and fonts are the page's own, so that it suits light and dark."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vesu.report.extras import optional
from vesu.report.text import visible

WIDTH = 340
"""Units of a chart's width, which are pixels on a phone: no larger, or its letters would be too small to read there."""
MAX_ALT = 2000

# Stand-ins that no colour map yields, each replaced by a CSS variable of the page after drawing.
INK, SOFT, GRID, ACCENT, SECOND, BAND, CARD = (f"#0102{last:02x}" for last in range(3, 10))
VARIABLES = {INK: "ink", SOFT: "soft", GRID: "line", ACCENT: "accent", SECOND: "second", BAND: "band", CARD: "card"}
SETTINGS = {
    "svg.fonttype": "none",  # text stays text: the page's font, selectable, read by screen readers
    "svg.hashsalt": "vesu",  # the same chart gives the same bytes
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.facecolor": CARD,
    "legend.edgecolor": CARD,
    "legend.framealpha": 1.0,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
}


@contextmanager
def drawing(height: float) -> Iterator[tuple[Any, Any]]:
    """A figure of its own (no pyplot, no global figure list); the settings hold only inside."""
    matplotlib, figures = optional("matplotlib"), optional("matplotlib.figure")
    with matplotlib.rc_context(SETTINGS):
        figure = figures.Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield figure, figure.add_subplot()


def as_svg(figure: Any, name: str, alt: str) -> str:
    """The figure as inline SVG: page colours, ids of its own, no width and height, a text alternative."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', svg)
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    return svg.replace(
        "<svg ", f'<svg role="img" aria-label="{html.escape(visible(alt, MAX_ALT), quote=True)}" class="chart" ', 1
    )
