"""The figures of vesu.report.plots: the right numbers in the right place, and nothing left behind."""

import math
import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import vesu
from vesu.errors import ArgumentError
from vesu.report import MissingExtraError, drawing, plots

SHAPE = (4, 5, 6)
VOLUME = np.arange(math.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)


def pixels(axes: Any, image: int = 0) -> np.ndarray:
    return np.asarray(axes.images[image].get_array())


def leaderboard(**changes: Any) -> list[dict[str, Any]]:
    """Eighteen candidates; the best by objective is neuron 2, l1 0.01, l2 0.1."""
    rows: list[dict[str, Any]] = []
    for neuron in range(3):
        for l1 in (0.001, 0.01, 0.1):
            for l2 in (0.1, 1.0):
                objective = abs(neuron - 2) + abs(math.log10(l1) + 2) + l2
                rows.append({"neuron": neuron, "l1": l1, "l2": l2, "objective": objective, "f1": 1 - objective / 10})
    rows[0] |= changes
    return rows


# ---- overlays


def test_a_slice_along_each_axis_in_its_own_orientation() -> None:  # R30
    figure = plots.overlays(VOLUME, at=(1, 2, 3))
    assert [axes.get_title() for axes in figure.axes] == ["z = 1", "y = 2", "x = 3"]
    for axes, expected in zip(figure.axes, (VOLUME[1], VOLUME[:, 2], VOLUME[:, :, 3]), strict=True):
        np.testing.assert_array_equal(pixels(axes), expected)
    assert [axes.get_xlabel() for axes in figure.axes] == ["x", "x", "y"]
    assert [axes.get_ylabel().split()[-1] for axes in figure.axes] == ["y", "z", "z"]


def test_every_voxel_has_the_colour_of_what_it_is() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, SHAPE, dtype=np.uint8)
    label = rng.integers(0, 3, SHAPE, dtype=np.uint8)
    figure = plots.overlays(VOLUME, mask, label=label, at=(2, 0, 0))
    tint = pixels(figure.axes[3], 1)
    ours, theirs = mask[2] == 1, label[2]
    expected = {
        drawing.GREEN: ours & (theirs == 1),
        drawing.FALSE: ours & (theirs == 0),  # where nothing is known nothing is false
        drawing.MISSED: ~ours & (theirs == 1),
    }
    for colour, where in expected.items():
        np.testing.assert_array_equal(np.isclose(tint[..., :3], to_rgba(colour)[:3]).all(axis=-1), where)
    np.testing.assert_array_equal(tint[..., 3] == 0, ~ours & (theirs == 0))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["hit", "false", "missed", "unlabelled"]


def test_a_mask_or_a_label_alone() -> None:
    mask = VOLUME > 60
    tint = pixels(plots.overlays(VOLUME, mask, at=(2, 0, 0)).axes[3], 1)
    np.testing.assert_array_equal(tint[..., 3] > 0, mask[2])
    assert [text.get_text() for text in plots.overlays(VOLUME, label=mask).legends[0].get_texts()] == [
        "label",
        "unlabelled",
    ]
    assert not plots.overlays(VOLUME).legends


def test_a_probability_has_a_row_and_a_fixed_scale() -> None:
    probability = np.linspace(0, 0.5, VOLUME.size, dtype=np.float32).reshape(SHAPE)
    figure = plots.overlays(VOLUME, VOLUME > 60, probability=probability, at=(1, 0, 0))
    np.testing.assert_array_equal(pixels(figure.axes[3]), probability[1])
    assert figure.axes[3].images[0].get_clim() == (0, 1)
    assert len(figure.axes) == 9 + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"volume": VOLUME[0]}, "volume: got shape"),
        ({"volume": VOLUME[:0]}, "volume: got shape"),
        ({"volume": VOLUME.tolist()}, "volume: got list"),
        ({"mask": VOLUME[1:]}, r"mask: got shape \(3, 5, 6\); accepted: an array of the volume's shape \(4, 5, 6\)"),
        ({"label": VOLUME.T}, "label: got shape"),
        ({"probability": VOLUME[0]}, "probability: got shape"),
        ({"at": (4, 0, 0)}, "at: got"),
        ({"at": (0, -1, 0)}, "at: got"),
        ({"at": (0, 0)}, "at: got"),
    ],
)
def test_overlays_refuses_by_name(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        plots.overlays(**{"volume": VOLUME} | arguments)


def test_volumes_without_contrast_or_with_nan_are_drawn() -> None:
    for volume in (np.zeros(SHAPE, np.uint8), np.full(SHAPE, np.nan, np.float32)):
        assert plots.overlays(volume)._repr_png_().startswith(b"\x89PNG")


# ---- curves


def test_the_sweep_shows_what_was_scored() -> None:  # R45
    label = np.zeros((16, 16, 16), np.uint8)
    label[6:8, 2:-2, 2:-2] = 1
    probability = np.where(label == 1, 0.6, 0.1).astype(np.float32)
    probability[12:14, 4, 4] = 0.8
    thresholds = [0.7, 0.05, 0.5]
    reports = vesu.score_sweep(probability, label, thresholds)
    axes = plots.sweep_curves(thresholds, reports).axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    expected = sorted((threshold, report.score) for threshold, report in zip(thresholds, reports, strict=True))
    np.testing.assert_array_equal(lines["score"], expected)
    np.testing.assert_array_equal(lines["VOI"][:, 1], [reports[i].voi.score for i in (1, 2, 0)])
    assert {"topology", "surface Dice", "VOI", "score"} <= lines.keys()
    best = max(range(3), key=lambda i: reports[i].score)
    assert axes.get_title() == f"best score {reports[best].score:.3f} at threshold {thresholds[best]:g}"


@pytest.mark.parametrize(("thresholds", "count"), [([], 0), ([0.5], 0), ([math.nan], 1), ([[0.5]], 1)])
def test_a_sweep_needs_a_report_a_threshold(thresholds: Any, count: int) -> None:
    report = vesu.score(np.ones((4, 4, 4), np.uint8), np.ones((4, 4, 4), np.uint8))
    with pytest.raises(ArgumentError, match="thresholds, reports: got"):
        plots.sweep_curves(thresholds, [report] * count)


def test_density_by_slice_of_one_and_of_several() -> None:  # R30
    axes = plots.density_by_slice([0.0, 0.25, 0.5]).axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0, 25, 50])
    two = plots.density_by_slice({"a": [0.1], "b": np.array([0.2, 0.4])}, usual=(0.02, 0.15)).axes[0]
    assert [line.get_label() for line in two.get_lines()] == ["a, mean 10.00 %", "b, mean 30.00 %"]
    for wrong in ([], {}, [1.5], [math.nan], {"a": [[0.1]]}):
        with pytest.raises(ArgumentError, match="densities: "):
            plots.density_by_slice(wrong)


# ---- the leaderboard


def test_every_candidate_has_its_cell_and_the_best_its_ring() -> None:  # R11 R13
    rows = leaderboard()
    figure = plots.leaderboard_heat_map(rows)
    panels = figure.axes[:2]
    assert [axes.get_title() for axes in panels] == ["l2 = 0.1", "l2 = 1"]
    for axes, l2 in zip(panels, (0.1, 1.0), strict=True):
        expected = np.array([row["objective"] for row in rows if row["l2"] == l2]).reshape(3, 3)
        np.testing.assert_array_equal(pixels(axes), expected)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [line.get_xydata().tolist() for line in panels[0].get_lines()] == [[[1, 2]]] * 2 and not panels[
        1
    ].get_lines()


def test_more_is_better_where_it_is() -> None:
    rows = leaderboard(f1=0.99)
    assert plots.leaderboard_heat_map(rows, "f1").axes[0].get_lines()[0].get_xydata().tolist() == [[0, 0]]
    less, more = (plots.leaderboard_heat_map(rows, name).axes[0].images[0].cmap.name for name in ("objective", "f1"))
    assert (less, more) == ("viridis_r", "viridis")


def test_a_fitted_grid_and_one_that_diverged() -> None:
    x = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    grid = vesu.ElasticNetLogisticGrid(meta_neurons=2, l1=(1e-3,), l2=(1e-3, 1e-2), max_iter=3).fit(x, x[:, 0] > 0)
    assert len(plots.leaderboard_heat_map(grid.leaderboard_).axes) == 2 + 1
    figure = plots.leaderboard_heat_map(leaderboard(objective=None))  # as JSON has a number that is not finite
    assert np.isnan(pixels(figure.axes[0])[0, 0]) and figure._repr_png_()


@pytest.mark.parametrize(
    ("rows", "measure", "said"),
    [
        ([], "objective", "got no candidate"),
        (leaderboard(), "speed", "no column 'speed'"),
        ([{"neuron": 0, "l1": 1, "l2": 1, "f1": None}], "f1", "no finite 'f1'"),
        (np.zeros(3, [("neuron", int)]), "f1", "no column 'l1'"),
    ],
)
def test_a_leaderboard_without_its_columns_is_refused(rows: Any, measure: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        plots.leaderboard_heat_map(rows, measure)


# ---- what they are, and what they leave


def test_a_figure_is_matplotlibs_and_leaves_no_state_behind() -> None:
    before, settings = plt.get_fignums(), dict(mpl.rcParams)
    figure = plots.density_by_slice({"$1 <b>": [0.1, 0.2]})
    assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == before and dict(mpl.rcParams) == settings


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install vesu\[report\]"):
        plots.density_by_slice([0.1])
