"""The score: every term against references and the public scorer's numbers; conventions, bad input, files, Ctrl-C."""

import json
import math
import os
import signal
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_score as reference
import vesu
from vesu import _core
from vesu.cli import main
from vesu.errors import ArgumentError, DataError, FileError
from vesu.scoring import DimensionScore, TopologyScore

few = settings(max_examples=60, deadline=None)
KNOWN = json.loads((Path(__file__).parent / "test_score_known.json").read_text(encoding="utf-8"))
SPACINGS = [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.3, 0.7, 1.9)]


def surface_dice(prediction: Any, label: Any, tolerance: float = 2.0, spacing: Any = (1.0, 1.0, 1.0)) -> float:
    return _core.score_surface(prediction, label, spacing, tolerance)[4]


# ---- surface Dice ----


def test_all_256_areas_of_unit_voxels() -> None:  # R45
    expected = [reference.unit_area(code) for code in range(256)]
    np.testing.assert_allclose(_core.score_area_table((1.0, 1.0, 1.0)), expected, rtol=1e-15)
    assert len(set(np.round(expected, 9))) == 13  # so many different areas are there


def test_all_256_areas_of_any_voxels_are_surface_distances() -> None:  # R45
    tables = pytest.importorskip("surface_distance.lookup_tables")
    theirs = [sum(1 << (7 - bit) for bit in range(8) if code >> bit & 1) for code in range(256)]
    for spacing in [*SPACINGS, (3.0, 0.2, 0.7)]:
        peer = tables.create_table_neighbour_code_to_surface_area(spacing)[theirs]
        np.testing.assert_allclose(_core.score_area_table(spacing), peer, rtol=1e-14)


def test_known_answers_of_the_public_scorer() -> None:  # R45
    assert len(KNOWN["unit"]) == 300
    for seed, dice, split, merge in KNOWN["unit"]:
        prediction, label = reference.pair(seed)
        assert surface_dice(prediction, label) == pytest.approx(dice, abs=1e-12), seed
        assert _core.score_voi(prediction, label)[:2] == pytest.approx((split, merge), abs=1e-12), seed
    assert len(KNOWN["spaced"]) == 60
    for seed, spacing, tolerance, dice in KNOWN["spaced"]:
        prediction, label = reference.pair(seed)
        assert surface_dice(prediction, label, tolerance, tuple(spacing)) == pytest.approx(dice, abs=1e-12), seed


@few
@given(st.integers(1000, 9999), st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.5, 70.0]), st.booleans())
def test_surface_dice_is_the_references(seed: int, tolerance: float, as_bytes: bool) -> None:  # R45
    prediction, label = reference.pair(seed)
    given_prediction = prediction.astype(np.uint8) * 255 if as_bytes else np.asfortranarray(prediction)
    expected = reference.surface_dice(prediction, label, tolerance)
    assert surface_dice(given_prediction, label, tolerance) == pytest.approx(expected, abs=1e-12)
    assert surface_dice(label, prediction, tolerance) == pytest.approx(expected, abs=1e-12)  # symmetric


@few
@given(st.integers(1000, 9999), st.sampled_from(SPACINGS[1:]), st.sampled_from([0.0, 0.7, 2.5, 7.6, 60.0]))
def test_surface_dice_for_any_spacing(seed: int, spacing: tuple[float, float, float], tolerance: float) -> None:
    prediction, label = reference.pair(seed)  # R45
    areas = _core.score_area_table(spacing)
    expected = reference.surface_dice(prediction, label, tolerance, spacing, areas)
    assert surface_dice(prediction, label, tolerance, spacing) == pytest.approx(expected, abs=1e-12)


def test_both_ways_to_the_tolerance_agree_where_they_meet() -> None:
    # Up to 2048 rows of the ball it is dilated, beyond that distances are transformed: tolerances 25 and 26, or so.
    label, prediction = np.zeros((90, 90, 90), bool), np.zeros((90, 90, 90), bool)
    label[5, 5, 5] = prediction[35, 5, 5] = prediction[5, 30, 5] = True
    for tolerance in (23.9, 24.0, 25.0, 26.0, 29.0, 29.9, 30.0, 31.0):
        expected = reference.surface_dice(prediction, label, tolerance)
        assert surface_dice(prediction, label, tolerance) == pytest.approx(expected, abs=1e-12)


@few
@given(st.integers(1000, 9999), st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_flips_and_axis_permutations_change_nothing(seed: int, axes: list[int], flipped: set[int]) -> None:
    pair = reference.pair(seed)
    moved = [np.flip(mask.transpose(axes), tuple(flipped)) for mask in pair]
    areas = _core.score_surface(*pair, (1.0, 1.0, 1.0), 2.0)
    assert _core.score_surface(*moved, (1.0, 1.0, 1.0), 2.0) == pytest.approx(areas, rel=1e-13)
    assert _core.score_voi(*moved)[:2] == pytest.approx(_core.score_voi(*pair)[:2], abs=1e-12)


# ---- variation of information ----


@few
@given(st.integers(1000, 9999))
def test_entropies_are_scikit_images(seed: int) -> None:  # R45
    prediction, label = reference.pair(seed)
    assert _core.score_voi(prediction, label)[:2] == pytest.approx(reference.entropies(prediction, label), abs=1e-12)


def test_a_cut_is_split_and_a_bridge_is_merge() -> None:  # R45
    whole, cut = np.ones((1, 1, 4), bool), np.array([[[1, 0, 1, 1]]], bool)
    split, merge, n_prediction, n_label = _core.score_voi(cut, whole)
    assert split > 0 and merge == 0 and (n_prediction, n_label) == (2, 1)
    assert _core.score_voi(whole, cut)[:2] == (merge, split)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    rng = np.random.default_rng(3)
    prediction, label = rng.random((60, 70, 150)) < 0.1, rng.random((60, 70, 150)) < 0.12
    for tolerance in (2.0, 40.0):
        found = {_core.score_surface(prediction, label, (1.0, 1.0, 1.1), tolerance, n) for n in (1, 2, 3, 8)}
        assert len(found) == 1
    assert len({_core.score_voi(prediction, label, n) for n in (1, 2, 3, 8)}) == 1


# ---- the whole score ----


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.int64]:
    """The counts that the matching is made to find; tests write into them."""
    found = np.zeros((3, 3), np.int64)
    monkeypatch.setattr(_core, "betti_matching_octants", lambda p, g, n_threads=None: found, raising=False)
    return found


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        ([(0, 0, 0)] * 3, 1.0),
        ([(1, 2, 2), (0, 0, 0), (0, 0, 0)], 0.5),
        ([(0, 0, 0), (0, 0, 0), (0, 1, 0)], 1 / 3),  # one spurious cavity
        ([(0, 0, 0), (0, 0, 0), (0, 2, 0)], 0.2),
        ([(0, 0, 0), (0, 0, 3), (0, 0, 0)], 0.0),
        ([(1, 1, 1), (1, 1, 1), (0, 0, 1)], 0.67),
        ([(22, 36, 27), (0, 348, 1), (0, 0, 0)], 0.34 * (44 / 63) / 0.67),
    ],
)
def test_topology_weighs_active_dimensions_only(rows: Any, score: float) -> None:  # R45
    assert TopologyScore.of(np.array(rows)).score == pytest.approx(score, abs=1e-15)


def test_the_known_real_case_from_its_terms(monkeypatch: pytest.MonkeyPatch, counts: NDArray[np.int64]) -> None:  # R45
    counts[:] = [(22, 36, 27), (0, 348, 1), (0, 0, 0)]
    monkeypatch.setattr(_core, "score_surface", lambda *_: (1.0, 1.0, 1.0, 1.0, 0.863970455306))
    monkeypatch.setattr(_core, "score_voi", lambda *_: (2.749248219188, 0.0, 1, 1))
    report = vesu.score(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool))
    assert report.score == pytest.approx(0.600519699837, abs=2e-12)


def test_a_report_adds_up_and_prints(counts: NDArray[np.int64]) -> None:
    counts[:] = [(1, 2, 2), (0, 1, 0), (0, 0, 0)]
    prediction, label = reference.pair(2)
    report = vesu.score(prediction, label)
    split, merge = reference.entropies(prediction, label)
    assert report.voi.score == pytest.approx(1 / (1 + 0.3 * (split + merge)), abs=1e-12)
    assert report.surface.score == pytest.approx(reference.surface_dice(prediction, label, 2.0), abs=1e-12)
    expected = 0.3 * report.topology.score + 0.35 * report.surface.score + 0.35 * report.voi.score
    assert report.score == pytest.approx(expected, abs=1e-15)
    assert set(report.timings_s) == {"masks", "topology", "surface", "voi", "total"}
    assert json.loads(json.dumps(report.to_json()))["topology"]["dimensions"][1]["predicted"] == 1
    text = str(report)
    assert "matched 1 of 2 predicted, 2 in the label" in text and f"{report.score:.6f}" in text


def test_ignored_voxels_count_in_no_term(counts: NDArray[np.int64]) -> None:  # R45
    prediction, label = (mask.astype(np.uint8) for mask in reference.pair(8))
    ignored = np.random.default_rng(0).random(label.shape) < 0.3
    marked = np.where(ignored, 2, label).astype(np.uint8)
    clean = vesu.score(np.where(ignored, 0, prediction), np.where(ignored, 0, label))
    dirty = vesu.score(np.where(ignored, 1, prediction), marked)
    assert (clean.surface, clean.voi) == (dirty.surface, dirty.voi)
    assert vesu.score(prediction, marked, ignore_label=None).surface == vesu.score(prediction, marked > 0).surface


def test_empty_masks_follow_the_public_scorer(counts: NDArray[np.int64]) -> None:  # R45
    empty, full = np.zeros((5, 6, 7), np.uint8), np.ones((5, 6, 7), np.uint8)
    assert vesu.score(empty, empty).score == 1.0
    assert vesu.score(full, np.full_like(full, 2)).score == 1.0  # all ignored
    for prediction, label in ((full, empty), (empty, full)):
        for tolerance in (2.0, math.inf):
            report = vesu.score(prediction, label, tolerance=tolerance)
            assert report.surface.score == 0.0
            assert report.voi.score == 1.0  # one segment each: nothing to split or merge
            assert math.isfinite(report.score)


def test_nan_is_background_and_odd_values_are_foreground(counts: NDArray[np.int64]) -> None:  # R45
    prediction, label = reference.pair(8)
    whole = np.where(label, 1.0, np.nan)
    assert vesu.score(prediction, whole).surface == vesu.score(prediction, label).surface
    for odd in (255, 7):
        with pytest.warns(UserWarning, match=f"prediction: values from 0 to {odd}; other than 0, 1, 2"):
            report = vesu.score(prediction.astype(np.uint8) * odd, label)
        assert report.surface == vesu.score(prediction, label).surface
    with pytest.warns(UserWarning, match="label: values from -1 to 0"):
        vesu.score(prediction, -label.astype(np.int16))


MASK = np.ones((3, 4, 5), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (MASK[:2], MASK, "prediction: got shape"),
        (MASK[0], MASK[0], "prediction: got shape"),
        (MASK[None], MASK[None], "prediction: got shape"),
        (MASK[:0], MASK[:0], "prediction: got shape"),
        (MASK.astype(np.float32), MASK, "prediction: got dtype float32; accepted: .*threshold a probability"),
        (MASK.astype(complex), MASK, "prediction: got dtype"),
        (MASK, MASK * 0.5, "label: got float64 with other values"),
        (MASK, MASK * np.inf, "label: got float64 with other values"),
        (MASK, MASK.astype("S1"), "label: got dtype"),
        (MASK, None, "label: got NoneType"),
        ([[[1]]], MASK, "prediction: got list"),
    ],
)
def test_bad_masks_are_named(prediction: Any, label: Any, message: str) -> None:  # R45
    with pytest.raises(ArgumentError, match=message):
        vesu.score(prediction, label)


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": -1.0},
        {"tolerance": math.nan},
        {"tolerance": "a"},
        {"voi_alpha": -0.1},
        {"voi_alpha": math.inf},
        {"spacing": (1, 1)},
        {"spacing": 0.0},
        {"ignore_label": 1.5},
        {"n_threads": 0},
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(options))}: got"):
        vesu.score(MASK, MASK, **options)


def test_the_core_refuses_what_python_would() -> None:
    for tolerance in (-1.0, math.nan):
        with pytest.raises(ArgumentError, match="tolerance: got"):
            _core.score_surface(MASK, MASK, (1.0, 1.0, 1.0), tolerance)
    with pytest.raises(ArgumentError, match="label: got shape"):
        _core.score_voi(MASK, MASK[:2])


def test_a_dimension_without_features_has_no_f1() -> None:
    assert DimensionScore.of(0, 0, 0).f1 is None


@pytest.mark.parametrize("term", ["surface", "far surface", "voi", "prepared label"])
def test_ctrl_c_is_answered_within_half_a_second(term: str) -> None:
    tile = np.random.default_rng(3).random((64, 384, 384), dtype=np.float32) < 0.3
    prediction = np.concatenate([tile] * 4)
    label = np.roll(prediction, 9, axis=1)
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(50):
            if term == "voi":
                _core.score_voi(prediction, label)
            elif term == "prepared label":
                _core.ScoreLabel(label)
            else:
                _core.score_surface(prediction, label, (1.0, 1.0, 1.0), 2.0 if term == "surface" else 60.0)
    assert time.monotonic() - pressed[0] < 0.5


# ---- files and the command line ----


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    for folder in (predictions, labels):
        folder.mkdir()
    for name, seed in (("10", 1), ("7", 8)):
        for folder, mask in zip((predictions, labels), reference.pair(seed), strict=True):
            vesu.write_volume(folder / f"{name}.tif", mask.astype(np.uint8))
    vesu.write_volume(labels / "9.tif", MASK)
    return predictions, labels


def test_many_volumes_and_their_mean(folders: tuple[Path, Path], counts: NDArray[np.int64], tmp_path: Path) -> None:
    summary = vesu.score_many(*folders)  # R45
    assert list(summary.reports) == ["10", "7"]
    assert summary.labels_without_prediction == ("9",)
    assert summary.reports["7"].voi == vesu.score(*reference.pair(8)).voi
    assert summary.score == pytest.approx(np.mean([report.score for report in summary.reports.values()]), abs=1e-15)
    assert summary.voi == pytest.approx(np.mean([report.voi.score for report in summary.reports.values()]), abs=1e-15)
    with zipfile.ZipFile(tmp_path / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folders[0].iterdir():
            archive.write(file, file.name)
    zipped = vesu.score_many(tmp_path / "submission.zip", folders[1])
    assert {k: r.terms for k, r in zipped.reports.items()} == {k: r.terms for k, r in summary.reports.items()}
    assert f"mean    {summary.topology:8.6f}" in str(summary)


def test_unusable_folders_and_zips_are_named(folders: tuple[Path, Path], counts: Any, tmp_path: Path) -> None:
    predictions, labels = folders
    with pytest.raises(ArgumentError, match=r"labels: got .*nowhere"):
        vesu.score_many(predictions, tmp_path / "nowhere")
    with pytest.raises(FileError, match="nowhere"):
        vesu.score_many(tmp_path / "nowhere.zip", labels)
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"broken.zip: not a folder, and no readable zip"):
        vesu.score_many(tmp_path / "broken.zip", labels)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a/7.tif", b"x")
        archive.writestr("b/7.tif", b"x")
    with pytest.raises(DataError, match="several members of one name"):
        vesu.score_many(tmp_path / "twice.zip", labels)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no prediction"):
        vesu.score_many(tmp_path / "none", labels)
    vesu.write_volume(predictions / "9.tif", MASK[:2])
    with pytest.raises(DataError, match="9: prediction: got shape"):
        vesu.score_many(predictions, labels)
    (labels / "7.tif").unlink()
    with pytest.raises(DataError, match="no label for 7"):
        vesu.score_many(predictions, labels)


def test_the_command_prints_a_table_or_json(
    folders: tuple[Path, Path], counts: Any, capsys: pytest.CaptureFixture[str]
) -> None:  # R45
    files = [str(folder / "7.tif") for folder in folders]
    assert main(["score", *files]) == 0
    table = capsys.readouterr().out
    assert "surface Dice" in table and "components" in table
    assert main(["score", *files, "--json", "--tolerance", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = vesu.score(*reference.pair(8), tolerance=1.0)
    assert report["surface"]["score"] == expected.surface.score
    assert main(["score", *map(str, folders), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["reports"]) == {"7", "10"}
    assert main(["score", files[0], files[1], "--tolerance", "-1"]) == 2
    assert "tolerance: got -1.0" in capsys.readouterr().err


# ---- real masks ----


@pytest.mark.real_data
def test_real_masks_at_full_size(real_data: Path) -> None:  # R45
    """Numbers of the public scorer: surface Dice, split, merge."""
    transunet, speckle = (
        vesu.read_volume(real_data / f"predictions/1407735_{name}.tif") for name in ("transunet", "speckle")
    )
    one, other = (vesu.read_volume(real_data / f"labels/{name}.tif") for name in ("2656396745", "3281388561"))
    for prediction, label, dice, split, merge in (
        (transunet, speckle, 0.48599545791035426, 0.7175089338853836, 3.2128148742102156),
        ((other == 1) & (one != 2), one == 1, 0.1544860761401397, 1.3037001336339336, 1.8615801471752451),
    ):
        assert surface_dice(prediction, label) == pytest.approx(dice, abs=1e-12)
        assert _core.score_voi(prediction, label)[:2] == pytest.approx((split, merge), abs=1e-12)
