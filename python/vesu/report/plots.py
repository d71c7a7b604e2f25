"""Figures to look at in a notebook or to save; each is a matplotlib ``Figure`` that shows itself once.

Nothing of pyplot's global state is touched: a figure that is not kept is gone.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vesu.errors import ArgumentError
from vesu.report.extras import optional

__all__ = ["autotune_trace", "density_by_slice", "leaderboard_heat_map", "overlays", "sweep_curves"]

Figure: TypeAlias = Any
"""A ``matplotlib.figure.Figure``; matplotlib is imported when a figure is drawn."""
Measure: TypeAlias = Literal["objective", "cross_entropy", "sparsity", "f1", "f_beta", "iou", "threshold", "n_nonzero"]

# Colours that people with any colour vision tell apart (Okabe and Ito), on grey CT and on white.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#6b6b6b"
FALSE, MISSED = "#d55e00", "#56b4e9"
LOWER_IS_BETTER = ("objective", "cross_entropy")
SETTINGS = {
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "figure.facecolor": "white",  # readable on a dark page too
}
AXES = (("z", "y", "x"), ("y", "z", "x"), ("x", "z", "y"))  # across which a slice lies, what runs down, and right


class Report(Protocol):
    """What is drawn of a :class:`vesu.ScoreReport`."""

    @property
    def score(self) -> float: ...
    @property
    def terms(self) -> Mapping[str, float]: ...


def overlays(
    volume: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    label: NDArray[Any] | None = None,
    probability: NDArray[Any] | None = None,
    at: tuple[int, int, int] | None = None,
) -> Figure:
    """A slice along each axis: the CT, the probability, and what was found over the CT.

    Parameters
    ----------
    volume : ndarray of numbers, shape (z, y, x)
        CT. Grey runs from its 0.5th to its 99.5th percentile in the three slices.
    mask : ndarray of bool or integers, shape (z, y, x), optional
        Non-zero is surface. Alone it is tinted; with `label`, hits, false and missed voxels have a colour each.
    label : ndarray of 0, 1, 2, shape (z, y, x), optional
        The truth; where it is 2 nothing is known, and that is veiled.
    probability : ndarray of float, shape (z, y, x), optional
        In [0, 1]; a row of its own.
    at : (int, int, int), optional
        Through which voxel (z, y, x) the slices go; default: the middle.

    Returns
    -------
    matplotlib.figure.Figure
        A row a kind of picture, a column an axis.

    Raises
    ------
    ArgumentError
        Not 3-D, an empty axis, shapes that differ, a place outside the volume.
    MissingExtraError
        matplotlib is not installed: ``pip install vesu[report]``.

    Notes
    -----
    Requirements R30, R41.

    Examples
    --------
    >>> ct = np.zeros((8, 16, 16), np.uint8)
    >>> ct[:, 6:9] = 200
    >>> figure = overlays(ct, ct > 0)
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['z = 4', 'y = 8', 'x = 8']
    """
    _volume("volume", volume)
    for name, array in (("mask", mask), ("label", label), ("probability", probability)):
        if array is not None:
            _volume(name, array, volume.shape)
    place = tuple(n // 2 for n in volume.shape) if at is None else _place(at, volume.shape)
    cuts = [np.s_[place[0]], np.s_[:, place[1]], np.s_[:, :, place[2]]]
    low, high = _contrast(np.concatenate([volume[cut].ravel() for cut in cuts]))
    found = mask is not None or label is not None
    drawn = {"CT": True, "probability": probability is not None, "surface": found}
    rows = [kind for kind, there in drawn.items() if there]
    with _drawing(9.0, 3.0 * len(rows) + 0.2 + 0.25 * found) as figure:
        panels = figure.subplots(len(rows), 3, squeeze=False)
        for column, (cut, (across, down, right)) in enumerate(zip(cuts, AXES, strict=True)):
            for row, kind in enumerate(rows):
                axes = panels[row, column]
                if kind == "probability":
                    assert probability is not None
                    image = axes.imshow(np.asarray(probability[cut], np.float32), cmap="magma", vmin=0, vmax=1)
                else:
                    axes.imshow(np.asarray(volume[cut], np.float32), cmap="gray", vmin=low, vmax=high)
                if kind == "surface":
                    axes.imshow(_tint(mask, label, cut), interpolation="nearest")
                axes.spines[:].set_visible(False)
                axes.set(xticks=[], yticks=[], xlabel=right, ylabel=f"{kind}   {down}" if column == 0 else down)
            panels[0, column].set_title(f"{across} = {place[column]}")
        if probability is not None:
            bar = figure.colorbar(image, ax=list(panels[rows.index("probability")]), pad=0.01, aspect=16)
            bar.outline.set_visible(False)
        if found:
            _legend(figure, mask is not None, label is not None)
    return figure


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
    with _drawing(6.4, 3.6) as figure:
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
    with _drawing(1.4 + 2.3 * len(panels), 1.1 + 0.26 * len(rows)) as figure:
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
    with _drawing(6.4, 3.0) as figure:
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
    with _drawing(6.4, 1.6 + 1.1 * len(shown)) as figure:
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


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
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


def _volume(name: str, array: Any, shape: tuple[int, ...] | None = None) -> None:
    if not isinstance(array, np.ndarray) or array.ndim != 3 or 0 in array.shape or shape not in (None, array.shape):
        got = f"shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        accepted = (
            "a 3-D array (z, y, x), no axis empty" if shape is None else f"an array of the volume's shape {shape}"
        )
        raise ArgumentError(f"{name}: got {got}; accepted: {accepted}")


def _place(at: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[int, ...]:
    place = tuple(at)
    if len(place) != 3 or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise ArgumentError(f"at: got {at}; accepted: a voxel (z, y, x) inside {shape}")
    return place


def _contrast(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _tint(mask: NDArray[Any] | None, label: NDArray[Any] | None, cut: Any) -> NDArray[np.float32]:
    """Colours (rows, columns, RGBA) to lay over a slice."""
    colour = optional("matplotlib.colors").to_rgba
    ours = None if mask is None else mask[cut] != 0
    if label is None:
        assert ours is not None
        layers = [(ours, ORANGE, 0.75)]
    else:
        theirs, known = label[cut] == 1, label[cut] != 2
        layers = [(~known, "white", 0.25)]
        if ours is None:
            layers += [(theirs, GREEN, 0.75)]
        else:
            layers += [(ours & theirs, GREEN, 0.75), (ours & ~theirs & known, FALSE, 0.75)]
            layers += [(~ours & theirs, MISSED, 0.75)]
    tint = np.zeros((*layers[0][0].shape, 4), np.float32)
    for where, name, opacity in layers:
        tint[where] = colour(name, opacity)
    return tint


def _legend(figure: Figure, with_mask: bool, with_label: bool) -> None:
    patch = optional("matplotlib.patches").Patch
    entries = {"mask": ORANGE}
    if with_label:
        entries = {"hit": GREEN, "false": FALSE, "missed": MISSED} if with_mask else {"label": GREEN}
        entries["unlabelled"] = "#cccccc"
    handles = [patch(color=colour, label=name) for name, colour in entries.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _column(leaderboard: Any, name: str) -> NDArray[np.float64]:
    """A column as float64; what is missing (None) is NaN."""
    if not len(leaderboard):
        raise ArgumentError("leaderboard: got no candidate; accepted: one at least")
    try:
        column: ArrayLike = leaderboard[name] if isinstance(leaderboard, np.ndarray) else [r[name] for r in leaderboard]
        return np.asarray(column, np.float64)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArgumentError(f"leaderboard: no column {name!r} of numbers ({error}); accepted: a search's") from error
