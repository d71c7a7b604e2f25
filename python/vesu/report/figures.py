"""The charts of outcome, volumes and search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.report.calibration import Calibration
from vesu.report.canvas import ACCENT, BAND, CARD, INK, SECOND, SOFT, as_svg, drawing
from vesu.report.extras import optional
from vesu.report.leaderboard import Candidate
from vesu.report.summary import Phase
from vesu.report.training import Curve

MAX_VECTOR_CELLS = 4000
MAX_POINTS = 2000
MAX_PHASES = 40
MAX_BINS, MAX_GROUPS = 200, 40


def phases_chart(phases: Sequence[Phase]) -> str:
    """Seconds of each phase as bars, in the order of the run."""
    phases = phases[:MAX_PHASES]
    seconds = [phase.seconds or 0.0 for phase in phases]
    total, longest = sum(seconds) or 1.0, max(seconds) or 1.0
    with drawing(21 * len(phases) + 34) as (figure, axes):
        rows = np.arange(len(phases))
        axes.barh(rows, seconds, height=0.62, color=ACCENT)
        axes.set_yticks(rows, [_short(phase.name) for phase in phases])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.spines["bottom"].set_visible(False)
        for row, value in enumerate(seconds):
            axes.annotate(
                f"{value:,.1f} s · {value / total:.0%}", (value, row), (5, 0), textcoords="offset points", va="center"
            )
        axes.set_xlim(0, longest * 1.45)
        axes.set_xlabel("seconds")
        names = "; ".join(f"{phase.name} {value:.1f} s" for phase, value in zip(phases, seconds, strict=True))
        return as_svg(figure, "phases", f"Time per phase: {names}")


def training_chart(name: str, curve: Curve, label: str, *, winner: int | None, log: bool = False) -> str:
    """One quantity of all candidates over the search: range, median, and the winner."""
    n_steps, curve = len(curve.step), _thin(curve)
    with drawing(245) as (figure, axes):
        axes.fill_between(curve.step, curve.minimum, curve.maximum, color=BAND, linewidth=0, label="min to max")
        axes.plot(
            curve.step, curve.median, color=SECOND, linewidth=1.4, linestyle=(0, (3, 1.5)), zorder=3, label="median"
        )
        if curve.winner is not None:
            axes.plot(curve.step, curve.winner, color=ACCENT, linewidth=1.8, label=f"winner (candidate {winner})")
        if log and np.nanmin(curve.minimum) > 0:
            _log_axis(axes)
        else:
            _cut_top(axes, curve)
        axes.margins(x=0)
        axes.set_xlabel("iteration")
        axes.set_title(label, loc="left", fontsize=10.5, color=INK)
        figure.legend(loc="outside lower center", ncols=3, handlelength=1.4, columnspacing=1.2)
        ends = f"median from {curve.median[0]:.4g} to {curve.median[-1]:.4g}"
        if curve.winner is not None:
            ends += f", winner from {curve.winner[0]:.4g} to {curve.winner[-1]:.4g}"
        return as_svg(figure, name, f"{label} over {n_steps} iterations: {ends}")


def _log_axis(axes: Any) -> None:
    """Plain decimal tick labels: powers of ten would be set as formulas, which are off."""
    ticker = optional("matplotlib.ticker")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _thin(curve: Curve) -> Curve:
    """At most ``MAX_POINTS`` points: each group of neighbours keeps its range, its median and the winner's last."""
    size = -(-len(curve.step) // MAX_POINTS)
    if size == 1:
        return curve
    starts = np.arange(0, len(curve.step), size)
    last = np.append(starts[1:], len(curve.step)) - 1
    return Curve(
        step=curve.step[last],
        minimum=np.fmin.reduceat(curve.minimum, starts),
        median=curve.median[last],
        maximum=np.fmax.reduceat(curve.maximum, starts),
        winner=None if curve.winner is None else curve.winner[last],
    )


def _cut_top(axes: Any, curve: Curve) -> None:
    """A candidate that blew up must not flatten the others: the axis then ends at thrice the median's top."""
    body = float(np.nanmax(curve.median))
    if body > 0 and np.nanmax(curve.maximum) > 5 * body:
        axes.set_ylim(top=3 * body)
        axes.annotate("axis cut: a candidate went higher", (0.02, 0.98), xycoords="axes fraction", va="top", color=SOFT)


def density_chart(name: str, volume_id: str, by_slice: Sequence[float], overall: float | None) -> str:
    """Share of surface voxels in each z slice, and in the whole volume."""
    values = 100 * np.asarray(by_slice)
    size = -(-len(values) // MAX_POINTS)  # more slices than points: the mean of each few neighbours
    starts = np.arange(0, len(values), size)
    heights = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    with drawing(175) as (figure, axes):
        axes.fill_between(starts, 0, heights, step="mid", color=BAND, linewidth=0)
        axes.plot(starts, heights, drawstyle="steps-mid", color=ACCENT, linewidth=1.3)
        if overall is not None:
            axes.axhline(100 * overall, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.set_title(f"dashed: whole volume {overall:.2%}", loc="right", fontsize=9.5, color=SECOND)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_ylim(bottom=0, top=max(1e-3, 1.12 * float(values.max(initial=0.0))))
        axes.set_xlabel("slice z")
        axes.set_ylabel("% surface")
        alt = f"Surface density by slice of {volume_id}: {values.min():.2f} % to {values.max():.2f} %"
        if overall is not None:
            alt += f", {overall:.2%} over the whole volume"
        return as_svg(figure, name, alt)


def densities_chart(densities: Sequence[float], label: float | None) -> str | None:
    """Surface share of every volume, from the sparsest to the densest; too few of them need no chart."""
    if len(densities) < 4:
        return None
    ranked = 100 * np.sort(np.asarray(densities))[: 100 * MAX_POINTS]
    kept = np.unique(np.linspace(0, len(ranked) - 1, MAX_POINTS).round().astype(np.int64))
    with drawing(150) as (figure, axes):
        axes.vlines(kept, 0, ranked[kept], color=ACCENT, linewidth=min(4.0, 220 / len(kept)))
        if label is not None:
            axes.axhline(100 * label, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.set_title(f"dashed: labels {label:.2%}", loc="right", fontsize=9.5, color=SECOND)
        axes.set_ylim(bottom=0, top=max(1e-3, 1.1 * float(ranked[-1]), 110 * (label or 0)))
        axes.set_xticks([])
        axes.grid(False, axis="x")
        axes.set_xlabel("volumes, by the density of their masks")
        axes.set_ylabel("% surface")
        alt = f"Surface density of {len(ranked)} volumes: {ranked[0]:.2f} % to {ranked[-1]:.2f} %"
        return as_svg(figure, "densities", alt)


def reliability_chart(calibration: Calibration) -> str | None:
    """Observed share of surface against predicted probability; a point's area grows with the voxels behind it."""
    raw, corrected = calibration.raw, calibration.corrected
    drawn = []
    if raw and raw.bins:
        drawn.append((raw, ACCENT, "o", "as predicted"))
    if corrected and corrected.bins:
        drawn.append((corrected, SECOND, "s", "corrected to the volumes' density"))
    if not drawn:
        return None
    with drawing(300) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        for diagram, colour, marker, label in drawn:
            bins = diagram.bins[:MAX_BINS]
            total = sum(each.count for each in bins)
            x, y = [each.confidence for each in bins], [each.frequency for each in bins]
            area = [12 + 160 * math.sqrt(each.count / total) for each in bins]
            axes.plot(x, y, color=colour, linewidth=1.4)
            axes.scatter(x, y, area, color=colour, marker=marker, edgecolors=CARD, linewidths=0.8, zorder=3)
            axes.plot([], [], color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean predicted probability of a bin")
        axes.set_ylabel("share of surface in the label")
        axes.legend(loc="upper left", handlelength=1.8)
        errors = "; ".join(
            f"{label}: expected calibration error {diagram.ece:.3f}"
            for diagram, _, _, label in drawn
            if diagram.ece is not None
        )
        return as_svg(figure, "reliability", f"Reliability diagram of the validation volumes. {errors}")


def uncertainty_chart(calibration: Calibration) -> str | None:
    """Share of wrong calls in stretches of uncertainty that hold about as many voxels each."""
    groups = calibration.groups[:MAX_GROUPS]
    if not groups:
        return None
    rates = [100 * group.error_rate for group in groups]
    with drawing(300) as (figure, axes):
        places = np.arange(len(groups))
        axes.bar(places, rates, width=0.82, color=ACCENT)
        if calibration.error_rate is not None:
            axes.axhline(100 * calibration.error_rate, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
            note = f"dashed: all voxels {calibration.error_rate:.1%}"
            axes.set_title(note, loc="right", fontsize=9.5, color=SECOND)
        axes.set_xticks(
            places, [f"{group.high:.3f}" for group in groups], rotation=45, ha="right", rotation_mode="anchor"
        )
        axes.set_ylim(0, max(1e-3, 1.08 * max(rates)))
        axes.grid(False, axis="x")
        axes.set_xlabel("uncertainty up to")
        axes.set_ylabel("% wrong")
        alt = (
            f"Share of wrong calls by uncertainty in {len(groups)} groups: {rates[0]:.1f} % where the ensemble is "
            f"surest, {rates[-1]:.1f} % where it is least sure"
        )
        return as_svg(figure, "uncertainty", alt)


def heat_map(rows: Sequence[Candidate]) -> str | None:
    """The objective over neuron (rows) and l1 within l2 (columns); None where the rows hold no grid."""
    usable = [row for row in rows if None not in (row.neuron, row.l1, row.l2, row.objective)]
    if not usable:
        return None
    neurons = sorted({row.neuron for row in usable if row.neuron is not None})
    columns = sorted({(row.l2, row.l1) for row in usable if row.l2 is not None and row.l1 is not None})
    grid = np.full((len(neurons), len(columns)), np.nan)
    for row in usable:
        grid[neurons.index(row.neuron), columns.index((row.l2, row.l1))] = row.objective  # type: ignore[arg-type]
    best = np.unravel_index(np.nanargmin(grid), grid.shape)
    with drawing(min(900, 17 * len(neurons) + 96)) as (figure, axes):
        mesh = _cells(axes, grid)
        axes.set_yticks(*_ticks([str(neuron) for neuron in neurons]))
        axes.set_xticks(*_ticks([_power(l1) for _, l1 in columns]), rotation=90)
        axes.set_ylabel("meta-neuron")
        axes.set_xlabel("l1, within l2")
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.invert_yaxis()
        _group_by_l2(axes, [l2 for l2, _ in columns])
        axes.plot(best[1], best[0], marker="o", markersize=6, markerfacecolor="white", markeredgecolor="black")
        bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=18)
        bar.outline.set_visible(False)
        bar.set_label("objective (lower is better)")
        alt = (
            f"Objective of {len(usable)} candidates over {len(neurons)} meta-neurons and {len(columns)} pairs of l1 "
            f"and l2: {np.nanmin(grid):.4f} to {np.nanmax(grid):.4f}, best at neuron {neurons[best[0]]}, "
            f"l1 {_power(columns[best[1]][1])}, l2 {_power(columns[best[1]][0])}"
        )
        return as_svg(figure, "heat", alt)


def _cells(axes: Any, grid: NDArray[np.float64]) -> Any:
    edges = np.arange(grid.shape[1] + 1) - 0.5, np.arange(grid.shape[0] + 1) - 0.5
    many = grid.size > MAX_VECTOR_CELLS
    # The colours run over the middle of the candidates: one that diverged must not flatten the rest.
    low, high = np.nanpercentile(grid, (0, 98))
    return axes.pcolormesh(
        *edges,
        np.ma.masked_invalid(grid),
        cmap="viridis_r",
        vmin=low,
        vmax=max(high, low + 1e-9),
        edgecolors="face",
        linewidth=0.4,
        rasterized=many,
    )


def _group_by_l2(axes: Any, l2: Sequence[float]) -> None:
    """A gap between the groups of columns, and each group's l2 above it."""
    values = sorted(set(l2))
    if len(values) > 12:
        return
    for value in values:
        members = [column for column, each in enumerate(l2) if each == value]
        axes.annotate(
            f"l2 {_power(value)}",
            (np.mean(members), 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            color=SOFT,
        )
        if members[0] > 0:
            axes.axvline(members[0] - 0.5, color=CARD, linewidth=3)


def _ticks(labels: Sequence[str], most: int = 40) -> tuple[list[int], list[str]]:
    step = -(-len(labels) // most)
    return list(range(0, len(labels), step)), list(labels[::step])


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _short(name: str, most: int = 24) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in name[: most + 1])  # the rest cannot be drawn
    return name if len(name) <= most else name[: most - 1] + "…"


def chart_names() -> Mapping[str, tuple[str, bool]]:
    """Each training quantity's title, and whether its axis is logarithmic."""
    return {
        "loss": ("Loss (objective of the fit)", False),
        "grad_norm": ("Gradient norm", True),
        "nonzero": ("Non-zero weights", False),
    }
