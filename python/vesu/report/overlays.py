"""Slices of a volume with what was found in it: :func:`overlays`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.report.drawing import FALSE, GREEN, MISSED, ORANGE, Figure, drawing
from vesu.report.extras import optional

__all__ = ["overlays"]

AXES = (("z", "y", "x"), ("y", "z", "x"), ("x", "z", "y"))  # across which a slice lies, what runs down, and right


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
    with drawing(9.0, 3.0 * len(rows) + 0.2 + 0.25 * found) as figure:
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
