"""Figures to look at in a notebook or to save; each is a matplotlib ``Figure`` that shows itself once.

Nothing of pyplot's global state is touched: a figure that is not kept is gone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError
from vesu.report.drawing import BLUE, FALSE, GREEN, GREY, ORANGE, PURPLE, Figure, drawing
from vesu.report.overlays import overlays

__all__ = ["autotune_trace", "density_by_slice", "leaderboard_heat_map", "overlays", "sweep_curves"]

Measure: TypeAlias = Literal["objective", "cross_entropy", "sparsity", "f1", "f_beta", "iou", "threshold", "n_nonzero"]
LOWER_IS_BETTER = ("objective", "cross_entropy")


class Report(Protocol):
    """What is drawn of a :class:`vesu.ScoreReport`."""

    @property
    def score(self) -> float: ...
    @property
    def terms(self) -> Mapping[str, float]: ...


def sweep_curves(thresholds: Sequence[float], reports: Sequence[Report]) -> Figure:
    """The score and its terms over the threshold, with the best threshold marked.

    Parameters
    ----------
    thresholds : sequence of float
        In any order.
    reports : sequence of ScoreReport
        One a threshold, as :func:`vesu.score_sweep` gives them.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        No threshold, one that is not finite, or another number of reports.
    MissingExtraError
        matplotlib is not installed: ``pip install vesu[report]``.

    Notes
    -----
    Requirements R28, R45.

    Examples
    --------
    >>> import vesu
    >>> label = np.zeros((16, 16, 16), np.uint8)
    >>> label[6:8] = 1
    >>> probability = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    >>> thresholds = [0.05, 0.5]
    >>> figure = sweep_curves(thresholds, vesu.score_sweep(probability, label, thresholds))
    >>> figure.axes[0].get_title()
    'best score 1.000 at threshold 0.5'
    """
    values = np.asarray(thresholds, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or len(values) != len(reports):
        raise ArgumentError(
            f"thresholds, reports: got {values.size} and {len(reports)}; accepted: finite thresholds, one or more, and "
            "a report for each"
        )
    order = np.argsort(values, kind="stable")
    x = values[order]
    scores = np.array([reports[i].score for i in order])
    best = int(np.argmax(scores))
    lines = {name: [reports[i].terms[name] for i in order] for name in reports[0].terms}
    with drawing(6.4, 3.6) as figure:
        axes = figure.subplots()
        marker = "o" if len(x) <= 30 else None
        for (name, y), colour in zip(lines.items(), (BLUE, GREEN, PURPLE), strict=False):
            title = {"surface": "surface Dice", "voi": "VOI"}.get(name, name)
            axes.plot(x, y, color=colour, linewidth=1.2, marker=marker, markersize=2.5, label=title)
        axes.plot(x, scores, color="black", linewidth=2.2, marker=marker, markersize=3.5, label="score")
        axes.axvline(x[best], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set(xlabel="threshold", ylabel="score of the mask", ylim=(-0.02, 1.04))
        axes.set_title(f"best score {scores[best]:.3f} at threshold {x[best]:g}")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=len(lines) + 1)
    return figure


def leaderboard_heat_map(
    leaderboard: NDArray[Any] | Sequence[Mapping[str, Any]], measure: Measure = "objective"
) -> Figure:
    """Every candidate of the search: l1 by meta-neuron, a panel for each l2, the best one ringed.

    Parameters
    ----------
    leaderboard : structured ndarray or sequence of mappings
        ``grid.leaderboard_``, or what a run's ``leaderboard.json`` holds.
    measure : str
        The column in colour: of ``"objective"`` and ``"cross_entropy"`` less is better, of the others more. The
        colours run over the better 98 % of the candidates, so that one that diverged does not flatten the rest.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        An empty leaderboard, a column that it has not, no finite value.
    MissingExtraError
        matplotlib is not installed: ``pip install vesu[report]``.

    Notes
    -----
    Requirements R11, R13.

    Examples
    --------
    >>> rows = [{"neuron": n, "l1": 1e-3, "l2": l2, "f1": 0.1 * n + l2} for n in range(3) for l2 in (0.01, 0.1)]
    >>> figure = leaderboard_heat_map(rows, "f1")
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['l2 = 0.01', 'l2 = 0.1']
    """
    neurons, l1, l2, values = (_column(leaderboard, name) for name in ("neuron", "l1", "l2", measure))
    if not np.isfinite(values).any():
        raise ArgumentError(f"leaderboard: got no finite {measure!r}; accepted: one at least")
    less = measure in LOWER_IS_BETTER
    best = int(np.nanargmin(values) if less else np.nanargmax(values))
    low, high = np.nanpercentile(values, (0, 98) if less else (2, 100))
    rows, columns, panels = np.unique(neurons), np.unique(l1), np.unique(l2)
    with drawing(1.4 + 2.3 * len(panels), 1.1 + 0.26 * len(rows)) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, panels, strict=True):
            cells = np.full((len(rows), len(columns)), np.nan)
            here = l2 == panel
            cells[np.searchsorted(rows, neurons[here]), np.searchsorted(columns, l1[here])] = values[here]
            colours = "viridis_r" if less else "viridis"
            image = axes.imshow(cells, cmap=colours, vmin=low, vmax=max(high, low + 1e-12), aspect="auto")
            axes.set_title(f"l2 = {panel:g}")
            axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], rotation=60)
            axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
            axes.tick_params(length=0)
            axes.set_xlabel("l1")
            axes.spines[:].set_visible(False)
            if panel == l2[best]:
                where = np.searchsorted(columns, l1[best]), np.searchsorted(rows, neurons[best])
                axes.plot(*where, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3)
                axes.plot(*where, "o", markersize=9, markerfacecolor="none", markeredgecolor="black")
        grid[0].set_ylabel("meta-neuron")
        bar = figure.colorbar(image, ax=list(grid), pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(f"{measure} ({'less' if less else 'more'} is better; ring: {values[best]:.4g})")
    return figure


def density_by_slice(
    densities: Sequence[float] | Mapping[str, Sequence[float]], *, usual: tuple[float, float] | None = None
) -> Figure:
    """Share of surface voxels in each z slice, of one mask or of several.

    Parameters
    ----------
    densities : sequence of float, or mapping of str to such
        In [0, 1], one a slice: ``Segmentation.diagnostics.ink_ratio_by_slice``, or a name for each.
    usual : (float, float), optional
        A range to shade: what is usual, such as ``SegmentConfig().density_range``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        No slices, or values outside [0, 1].
    MissingExtraError
        matplotlib is not installed: ``pip install vesu[report]``.

    Notes
    -----
    Requirement R30.

    Examples
    --------
    >>> figure = density_by_slice({"mask": [0.0, 0.1], "label": [0.05, 0.05]}, usual=(0.02, 0.15))
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['mask, mean 5.00 %', 'label, mean 5.00 %']
    """
    named = densities if isinstance(densities, Mapping) else {"surface": densities}
    series = {name: np.asarray(values, np.float64) for name, values in named.items()}
    if not series:
        raise ArgumentError("densities: got none; accepted: one mask's or several")
    for name, values in series.items():
        if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
            raise ArgumentError(
                f"densities: {name!r} has {values.size} values; accepted: shares in [0, 1], one a slice"
            )
    with drawing(6.4, 3.0) as figure:
        axes = figure.subplots()
        if usual is not None:
            axes.axhspan(100 * usual[0], 100 * usual[1], color="#f0f0f0", zorder=0, label="usual")
        for place, (name, values) in enumerate(series.items()):
            colour = (BLUE, ORANGE, GREEN, PURPLE)[place % 4]
            title = f"{name}, mean {100 * values.mean():.2f} %"
            axes.plot(100 * values, drawstyle="steps-mid", color=colour, linewidth=1.4, label=title)
        axes.set(xlabel="slice z", ylabel="% surface", xlim=(-0.5, max(map(len, series.values())) - 0.5))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def autotune_trace(trace: Mapping[str, Any]) -> Figure:
    """A tuned run: the validation objective by epoch, and below it each parameter within its bounds.

    Parameters
    ----------
    trace : mapping
        What a run's ``v3_autotune_trace.json`` holds.

    Returns
    -------
    matplotlib.figure.Figure
        A row for the objective, and one a parameter; what changed one is marked, a rollback with a cross.

    Raises
    ------
    ArgumentError
        No trace.
    MissingExtraError
        matplotlib is not installed: ``pip install vesu[report]``.

    Notes
    -----
    Requirement R39.

    Examples
    --------
    >>> decision = {"parameter": "mutation_noise", "epoch": 1, "action": "raise", "before": 0.05, "after": 0.1}
    >>> trace = {"objectives": [0.4, 0.4], "bounds": {"mutation_noise": [0.01, 0.4]}, "decisions": [decision]}
    >>> [axes.get_ylabel() for axes in autotune_trace(trace).axes]
    ['objective', 'mutation_noise']
    """
    try:
        objectives, bounds = [math.nan if each is None else each for each in trace["objectives"]], trace["bounds"]
        by_name = {name: [each for each in trace["decisions"] if each["parameter"] == name] for name in bounds}
        courses = {
            name: [(d["epoch"], d["before"], d["after"], d["action"]) for d in own] for name, own in by_name.items()
        }
    except (KeyError, TypeError) as error:
        raise ArgumentError(f"trace: got no entry {error}; accepted: what v3_autotune_trace.json holds") from error
    shown = {name: course for name, course in courses.items() if course}
    with drawing(6.4, 1.6 + 1.1 * len(shown)) as figure:
        rows = figure.subplots(1 + len(shown), 1, squeeze=False, sharex=True)[:, 0]
        rows[0].plot(range(len(objectives)), objectives, color="black", marker="o", markersize=3)
        rows[0].set(ylabel="objective", title="validation objective at each epoch's end (lower is better)")
        for axes, (name, course), colour in zip(rows[1:], shown.items(), (BLUE, ORANGE, GREEN, PURPLE), strict=False):
            epochs = [course[0][0] - 0.5, *(epoch + 0.5 for epoch, *_ in course)]
            axes.step(epochs, [course[0][1], *(after for _, _, after, _ in course)], where="post", color=colour)
            for action, mark in (("raise", "^"), ("lower", "v"), ("rollback", "x")):
                at = [(epoch + 0.5, after) for epoch, _, after, each in course if each == action]
                axes.plot([x for x, _ in at], [y for _, y in at], mark, color=FALSE, label=action)
            axes.set_ylabel(name)
            axes.set_title(f"bounds {bounds[name][0]:g} to {bounds[name][1]:g}", loc="right", color=GREY)
        rows[-1].set_xlabel("epoch")
        rows[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


# ---- inside


def _column(leaderboard: Any, name: str) -> NDArray[np.float64]:
    """A column as float64; what is missing (None) is NaN."""
    if not len(leaderboard):
        raise ArgumentError("leaderboard: got no candidate; accepted: one at least")
    try:
        column: ArrayLike = leaderboard[name] if isinstance(leaderboard, np.ndarray) else [r[name] for r in leaderboard]
        return np.asarray(column, np.float64)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArgumentError(f"leaderboard: no column {name!r} of numbers ({error}); accepted: a search's") from error
