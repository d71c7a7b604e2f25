"""The dashboard's charts and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.report import text
from vesu.report.canvas import ACCENT, BAND, INK, SECOND, SOFT, as_svg, drawing
from vesu.report.dashboard import Coverage, Dashboard, PostMortem, Profile, Quality
from vesu.report.timeline import Series, Timeline

MAX_POINTS = 1500
TONES = {"finished": "good", "stopped": "warn", "running": "warn"}
KINDS = (("compute", "computation", ACCENT), ("io", "files", SECOND), ("logging", "logging", SOFT))

TRUTH = "Where the two lines lie together, the percentage shown told the truth about the time."
UNFINISHED = "The percentage shown, as far as the run came."


@dataclass(frozen=True)
class Tile:
    """One figure with its label and a note."""

    label: str
    value: str
    note: str = ""


def glance(dashboard: Dashboard, timeline: Timeline | None, scores: Mapping[str, float]) -> dict[str, Any]:
    """What the template needs: tiles, charts as SVG by name, the end's tone."""
    profile, end = dashboard.profile, dashboard.post_mortem
    finished = end is not None and end.cause == "finished"
    charts: dict[str, str | None] = {}
    if timeline is not None:
        charts["progress"] = progress_chart(timeline, finished=finished)
        charts["memory"] = memory_chart(timeline.memory)
    if profile is not None:
        charts["quality"] = quality_chart(profile.quality)
        charts["cost"] = cost_chart(profile)
    return {
        "tiles": [
            *_place_tiles(end, timeline),
            _coverage_tile(dashboard.coverage),
            *_quality_tiles(profile, scores),
            *_cost_tiles(profile),
            _memory_tile(timeline),
        ],
        "charts": {name: svg for name, svg in charts.items() if svg},
        "caption": TRUTH if finished else UNFINISHED,
        "tone": "bad" if end is None or end.cause is None else TONES.get(end.cause, "bad"),
    }


def _place_tiles(end: PostMortem | None, timeline: Timeline | None) -> list[Tile]:
    """Phase, progress, ETA: from the post-mortem, else as the log left them."""
    shown = timeline.progress.values[-1] if timeline is not None and len(timeline.progress) else None
    percent = end.reached_pct if end is not None else None if shown is None else float(shown[0])
    remaining_s = end.remaining_s if end is not None else None if shown is None else _finite(shown[1])
    phase = end.phase if end is not None else None if timeline is None else timeline.phase
    over = end is not None and end.cause == "finished"
    cursor = timeline.cursor if timeline is not None and not over else None
    band = ""
    if shown is not None and not over and np.isfinite(shown[2:4]).all():
        band = f"between {text.duration(float(shown[2]))} and {text.duration(float(shown[3]))}"
    return [
        Tile("Phase", "all done" if over else text.title(phase) if phase else text.ABSENT, cursor or ""),
        Tile("Progress", text.percent(None if percent is None else percent / 100), "of all phases, as shown"),
        Tile("Still to go (ETA)", "nothing" if over else text.duration(remaining_s), band),
    ]


def _coverage_tile(coverage: Coverage | None) -> Tile:
    if coverage is None:
        return Tile("Training coverage", text.ABSENT)
    note = f"{text.counted(coverage.sampled)} of {text.counted(coverage.discovered)} pairs"
    if coverage.reason not in (None, "none"):
        note += f"; {coverage.reason} ({'justified' if coverage.justified else 'not justified'})"
    return Tile("Training coverage", text.percent(None if coverage.percent is None else coverage.percent / 100), note)


def _quality_tiles(profile: Profile | None, scores: Mapping[str, float]) -> list[Tile]:
    best = [each.objective for each in profile.quality if each.objective is not None] if profile else []
    note = ", ".join(f"{words} {text.decimal(scores[key])}" for key, words in (("score", "score"), ("f1", "F1"))
                     if key in scores)  # fmt: skip
    return [Tile("Best objective", text.decimal(min(best, default=None), 4), f"validation {note}" if note else "")]


def _cost_tiles(profile: Profile | None) -> list[Tile]:
    if profile is None:
        return [Tile("Candidates a second", text.ABSENT), Tile("Speed-up", text.ABSENT)]
    each_s = profile.seconds_per_iteration
    cost = "" if each_s is None else f"{1e3 * each_s:.3g}\u00a0ms an iteration of one"
    factor = "–" if profile.speed_up is None else f"{profile.speed_up:.2f}\u202f×"
    why = profile.no_speed_up or "against the previous run on the same seeds"
    return [Tile("Candidates a second", text.decimal(profile.candidates_per_s, 2), cost), Tile("Speed-up", factor, why)]


def _memory_tile(timeline: Timeline | None) -> Tile:
    held = timeline.memory.values[:, 0] if timeline is not None else np.empty(0)
    if not np.isfinite(held).any():
        return Tile("Memory held", text.ABSENT)
    return Tile("Memory held", text.size(float(np.nanmax(held)) * 2**30), "the most that was seen")


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _thin(series: Series) -> Series:
    """At most ``MAX_POINTS`` of the points, evenly, the last one kept: for drawing only, the log has them all."""
    if len(series) <= MAX_POINTS:
        return series
    kept: NDArray[np.int64] = np.unique(np.linspace(0, len(series) - 1, MAX_POINTS).round().astype(np.int64))
    return Series(series.at_s[kept], series.values[kept])


def _time_axis(axes: Any, at_s: NDArray[np.float64]) -> float:
    """Label the time axis in the unit that suits; returns that unit in seconds."""
    longest = float(at_s.max(initial=0.0))
    unit, words = next(each for each in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
                       if longest >= 3 * each[0] or each[0] == 1.0)  # fmt: skip
    axes.set_xlabel(f"{words} since the start, pauses left out")
    return unit


def progress_chart(timeline: Timeline, *, finished: bool) -> str | None:
    """Percent shown over time; of a finished run beside the share of time that had gone by."""
    if len(timeline.progress) < 2:
        return None
    series = _thin(timeline.progress)
    with drawing(215) as (figure, axes):
        unit = _time_axis(axes, series.at_s)
        at, shown = series.at_s / unit, series.values[:, 0]
        alt = f"Progress shown over {len(timeline.progress)} points, up to {shown[-1]:.1f} %"
        if finished and series.at_s[-1] > 0:
            share = 100 * series.at_s / series.at_s[-1]
            label = "share of the time gone by"
            axes.plot(at, share, color=SECOND, linewidth=1.3, linestyle=(0, (4, 3)), label=label)
            late = share >= 10
            if late.any():
                alt += f"; at most {np.abs(shown - share)[late].max():.1f} points off the share of time after a tenth"
        axes.plot(at, shown, color=ACCENT, linewidth=1.8, drawstyle="steps-post", label="progress shown")
        axes.set_ylim(0, 102)
        axes.set_xlim(0, max(float(at[-1]), 1e-9))
        axes.set_ylabel("%")
        axes.legend(loc="lower right", handlelength=1.8)
        return as_svg(figure, "progress", alt)


def memory_chart(memory: Series) -> str | None:
    """What the process held over time."""
    if len(memory) < 2 or not np.isfinite(memory.values[:, 0]).any():
        return None
    series = _thin(memory)
    with drawing(175) as (figure, axes):
        unit = _time_axis(axes, series.at_s)
        held = series.values[:, 0]
        axes.fill_between(series.at_s / unit, 0, held, color=BAND, linewidth=0)
        axes.plot(series.at_s / unit, held, color=ACCENT, linewidth=1.5)
        axes.set_ylim(bottom=0)
        axes.set_xlim(float(series.at_s[0] / unit), max(float(series.at_s[-1] / unit), 1e-9))
        axes.set_ylabel("GiB resident")
        used = memory.values[:, 1]
        most = f"; at most {np.nanmax(used):.0f} % of all memory in use" if np.isfinite(used).any() else ""
        if most:
            axes.set_title(most[2:], loc="right", fontsize=9.5, color=SECOND)
        return as_svg(figure, "memory", f"Memory held by the run: up to {np.nanmax(memory.values[:, 0]):.2f} GiB{most}")


def quality_chart(quality: Sequence[Quality]) -> str | None:
    """The best validation objective against the iterations behind it; nothing to draw of a single epoch."""
    points = [(each.iterations, each.objective) for each in quality
              if each.iterations is not None and each.objective is not None]  # fmt: skip
    if len(points) < 2:
        return None
    iterations, objective = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    with drawing(175) as (figure, axes):
        axes.plot(iterations, objective, color=ACCENT, linewidth=1.6, marker="o", markersize=4)
        axes.set_xlabel("iterations of all candidates, one an epoch marked")
        axes.set_ylabel("objective")
        alt = f"Best validation objective over {len(points)} epochs: from {objective[0]:.4f} to {objective[-1]:.4f}"
        return as_svg(figure, "quality", alt)


def cost_chart(profile: Profile) -> str | None:
    """Where the measured time went, as one bar."""
    if profile.shares is None:
        return None
    parts = [(words, getattr(profile.shares, name), colour) for name, words, colour in KINDS]
    parts = [(words, share, colour) for words, share, colour in parts if share is not None]
    with drawing(62) as (figure, axes):
        left = 0.0
        for words, share, colour in parts:
            axes.barh([0], [100 * share], left=left, height=0.5, color=colour, label=f"{words} {share:.1%}")
            left += 100 * share
        axes.set_xlim(0, 100)
        axes.set_yticks([])
        axes.grid(False)
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.95), ncols=3, handlelength=0.9, labelcolor=INK)
        return as_svg(
            figure, "cost", "Measured time: " + ", ".join(f"{words} {share:.1%}" for words, share, _ in parts)
        )
