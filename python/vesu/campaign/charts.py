"""The charts of a campaign's page: one row a variant, one dot a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vesu.campaign.compare import Comparison
from vesu.report.canvas import ACCENT, INK, SECOND, SOFT, as_svg, drawing

__all__ = ["charts"]

MAX_ROWS = 60
ROW = 22
"""Units of height of a row."""
TITLES = {"score": "score", "density": "density: share of surface voxels", "seconds": "seconds of a run"}


@dataclass(frozen=True)
class _Row:
    name: str
    values: Sequence[float]
    strong: bool


def charts(comparison: Comparison) -> dict[str, str]:
    """Inline SVG by name: ``score``, ``density``, ``seconds``, ``gain``; one that has nothing to show is left out."""
    drawn = {}
    shown = comparison.results[:MAX_ROWS]
    for figure, title in TITLES.items():
        rows = [
            _Row(each.variant.id, list(spread.by_seed.values()), each.variant.id == comparison.standing)
            for each in shown
            if (spread := each.spread(figure)) is not None
        ]
        if rows:
            mark = comparison.label_density if figure == "density" else None
            drawn[figure] = _dots(figure, title, rows, mark)
    gains = [each.variant.id for each in shown if "score" in comparison.gains.get(each.variant.id, {})]
    if gains:
        drawn["gain"] = _gains(comparison, gains)
    return drawn


def _dots(name: str, title: str, rows: Sequence[_Row], mark: float | None) -> str:
    """Every seed as a dot, their mean as a stroke; what stands in the accent's colour."""
    with drawing(ROW * len(rows) + 46) as (figure, axes):
        for place, row in enumerate(rows):
            colour, mean = ACCENT if row.strong else SECOND, sum(row.values) / len(row.values)
            axes.plot(row.values, [place] * len(row.values), "o", color=colour, markersize=5, alpha=0.6)
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, linewidth=2)
        if mark is not None:
            axes.axvline(mark, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.set_title("dashed: the labels", loc="right", fontsize=9.5, color=SOFT)
        _names(axes, [row.name for row in rows])
        axes.set_xlabel(title)
        words = "; ".join(f"{row.name} {sum(row.values) / len(row.values):.4g}" for row in rows)
        return as_svg(figure, f"campaign-{name}", f"{title}, mean over the seeds: {words}")


def _gains(comparison: Comparison, names: Sequence[str]) -> str:
    """Each variant's mean gain over the baseline with its interval."""
    with drawing(ROW * len(names) + 46) as (figure, axes):
        axes.axvline(0, color=SOFT, linewidth=1.2)
        words = []
        for place, name in enumerate(names):
            gain, decided = comparison.gains[name]["score"], comparison.decision(name)
            colour = ACCENT if decided is not None and decided.promoted else SECOND
            axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2)
            axes.plot([gain.mean], [place], "o", color=colour, markersize=6)
            words.append(f"{name} {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
        _names(axes, names)
        axes.set_xlabel(f"gain in score over {_short(comparison.matrix.baseline)}")
        return as_svg(figure, "campaign-gain", f"Gain in score over {comparison.matrix.baseline}: {'; '.join(words)}")


def _names(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=4)  # four digits each: more would run into each other


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"
