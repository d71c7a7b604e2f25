"""Scores of a threshold sweep, and the places of unmatched features."""

import json
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
from vesu.errors import ArgumentError
from vesu.scoring import ScoreReport, UnmatchedFeatures, unmatched_features

few = settings(max_examples=40, deadline=None)


def volumes(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A probability that knows something of the label, with NaN here and there, and a label with ignored voxels."""
    rng = np.random.default_rng(seed)
    prediction, mask = reference.pair(seed)
    probability = np.round(0.5 * prediction + 0.5 * rng.random(mask.shape), 2).astype(np.float32)
    probability[rng.random(mask.shape) < 0.01] = np.nan
    label = mask.astype(np.uint8)
    label[rng.random(mask.shape) < 0.1] = 2
    return probability, label


def without_times(report: ScoreReport) -> Any:
    return report.score, report.topology, report.surface, report.voi


# ---- the sweep ----


@few
@given(st.integers(1000, 9999), st.lists(st.integers(-5, 105), min_size=1, max_size=6))
def test_a_sweep_is_the_score_of_each_mask_to_the_last_bit(seed: int, percents: list[int]) -> None:  # R45
    probability, label = volumes(seed)
    thresholds = [percent / 100 for percent in percents]
    options: dict[str, Any] = {"tolerance": 1.5, "spacing": (1.0, 0.7, 2.0), "voi_alpha": 0.5}
    swept = vesu.score_sweep(probability, label, thresholds, **options)
    assert len(swept) == len(thresholds)
    for threshold, report in zip(thresholds, swept, strict=True):
        alone = vesu.score(probability >= threshold, label, **options)
        assert without_times(report) == without_times(alone), threshold


@pytest.mark.parametrize("label_of", [lambda label: label == 1, lambda label: np.where(label == 2, np.nan, label)])
def test_a_sweep_takes_the_labels_that_the_score_takes(label_of: Any) -> None:  # R45
    probability, label = volumes(8)
    given_label = label_of(label)
    for wide in (probability, probability.astype(np.float64), np.asfortranarray(probability)):
        for n_threads in (1, 3):
            (report,) = vesu.score_sweep(wide, given_label, [0.4], ignore_label=None, n_threads=n_threads)
            expected = vesu.score(wide >= 0.4, given_label, ignore_label=None)
            assert without_times(report) == without_times(expected)


def test_the_labels_side_is_computed_once_and_equal_masks_too(monkeypatch: pytest.MonkeyPatch) -> None:  # R45
    labels, matchings = [], []
    real_label, real_matching = _core.ScoreLabel, _core.betti_matching_octants
    monkeypatch.setattr(_core, "ScoreLabel", lambda *args: labels.append(args) or real_label(*args))
    monkeypatch.setattr(
        _core, "betti_matching_octants", lambda *args: matchings.append(args[0].sum()) or real_matching(*args)
    )
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:6] = 1
    probability = np.where(label == 1, 0.8, 0.1)
    probability[9, 3, 3] = 0.6
    reports = vesu.score_sweep(probability, label, [0.7, 0.2, 0.3, 0.55, 0.79, 0.05])
    assert len(labels) == 1
    assert matchings == [2 * 144, 2 * 144 + 1, 12**3]  # three different masks
    assert reports[0] is reports[4] and reports[1] is reports[2] is reports[3]
    assert set(reports[0].timings_s) == {"masks", "surface", "voi", "topology", "total"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": []}, "thresholds: got"),
        ({"thresholds": [0.5, np.nan]}, "thresholds: got"),
        ({"thresholds": [np.inf]}, "thresholds: got"),
        ({"thresholds": 0.5}, "thresholds: got 0.5; accepted: one or more finite numbers"),
        ({"thresholds": ["high"]}, "thresholds: got"),
        ({"probability": np.ones((3, 4, 5), np.uint8)}, "probability: got dtype uint8; accepted: floats"),
        ({"probability": np.ones((3, 4), np.float32)}, "probability: got shape"),
        ({"probability": np.ones((3, 4, 6), np.float32)}, "probability: got shape .* the label's"),
        ({"probability": [[[0.5]]]}, "probability: got list"),
        ({"label": np.ones((3, 4, 5)) * 0.5}, "label: got float64"),
        ({"label": None}, "label: got NoneType"),
        ({"tolerance": -1}, "tolerance: got -1"),
        ({"voi_alpha": np.inf}, "voi_alpha: got inf"),
        ({"spacing": 0.0}, "spacing: got"),
        ({"ignore_label": "2"}, "ignore_label: got '2'"),
        ({"n_threads": 0}, "n_threads: got 0"),
    ],
)
def test_a_sweep_names_what_it_refuses(change: dict[str, Any], message: str) -> None:  # R45
    good = {"probability": np.ones((3, 4, 5), np.float32), "label": np.ones((3, 4, 5), np.uint8), "thresholds": [0.5]}
    assert len(vesu.score_sweep(**good)) == 1
    with pytest.raises(ArgumentError, match=message):
        vesu.score_sweep(**{**good, **change})


def test_a_sweep_warns_of_odd_labels() -> None:
    probability = np.ones((2, 3, 4), np.float32)
    with pytest.warns(UserWarning, match="label: values from 7 to 7"):
        (report,) = vesu.score_sweep(probability, np.full((2, 3, 4), 7), [0.5])
    assert report.score == 1.0


def test_a_prepared_label_refuses_other_shapes() -> None:
    prepared = _core.ScoreLabel(np.ones((3, 4, 5), np.uint8))
    for call in (lambda mask: prepared.voi(mask), lambda mask: prepared.surface(mask, (1.0, 1.0, 1.0), 2.0)):
        with pytest.raises(ArgumentError, match="prediction: got shape"):
            call(np.ones((5, 4, 3), np.uint8))
    with pytest.raises(ArgumentError, match="tolerance: got"):
        prepared.surface(np.ones((3, 4, 5), np.uint8), (1.0, 1.0, 1.0), np.nan)
    with pytest.raises(ArgumentError, match="label: got"):
        _core.ScoreLabel(np.ones((3, 4)))


# ---- where features have no partner ----


def counts(found: UnmatchedFeatures) -> list[list[int]]:
    return [[len(places) for places in side.dimensions] for side in (found.prediction, found.label)]


@few
@given(st.integers(1000, 9999))
def test_unmatched_features_are_those_that_the_score_counts(seed: int) -> None:  # R45
    prediction, _ = reference.pair(seed)
    _, label = volumes(seed)
    found, dimensions = unmatched_features(prediction, label), vesu.score(prediction, label).topology.dimensions
    assert counts(found) == [[d.predicted - d.matched for d in dimensions], [d.label - d.matched for d in dimensions]]
    ours, theirs = prediction & (label != 2), label == 1
    for side, mask in ((found.prediction, ours), (found.label, theirs)):
        for places in side.dimensions:
            assert places.dtype == np.int64 and places.shape[1:] == (3,)
            assert ((places >= 0) & (places < mask.shape)).all()
        assert mask[tuple(side.components.T)].all()  # a component's voxel is foreground,
        assert not mask[tuple(side.cavities.T)].any()  # a cavity's is not
    assert counts(unmatched_features(prediction, label, n_threads=3)) == counts(found)


def damaged() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A sheet with a hole and a bubble and a speck above it, against the whole sheet and an island it lacks."""
    label = np.zeros((40, 40, 40), np.uint8)
    label[22:27, 22:38, 22:38] = 1
    prediction = label.copy()
    prediction[22:27, 30, 31] = 0
    prediction[24, 34, 25] = 0
    prediction[35, 33, 34] = 1
    label[36, 24, 24] = 1
    return prediction, label


def test_places_are_where_the_damage_is() -> None:  # R45
    found = unmatched_features(*damaged())
    assert counts(found) == [[1, 1, 1], [1, 0, 0]]
    assert found.prediction.components.tolist() == [[35, 33, 34]]
    assert found.prediction.cavities.tolist() == [[24, 34, 25]]
    assert found.label.components.tolist() == [[36, 24, 24]]
    (tunnel,) = found.prediction.tunnels
    assert (np.abs(tunnel[1:] - (30, 31)) <= 1).all() and 22 <= tunnel[0] < 27


def test_ignored_features_are_not_listed() -> None:  # R45
    prediction, label = damaged()
    label[33:] = 2
    label[22:27, 33:36, 24:27] = 2
    assert counts(unmatched_features(prediction, label))[0][0] == 0
    plain = unmatched_features(prediction, np.where(label == 2, 0, label), ignore_label=None)
    assert counts(plain)[0][0] > 0
    with pytest.raises(ArgumentError, match="prediction: got dtype"):
        unmatched_features(prediction * 0.5, label)


def test_the_command_writes_the_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R45
    files = [tmp_path / "prediction.tif", tmp_path / "label.tif"]
    for file, mask in zip(files, damaged(), strict=True):
        vesu.write_volume(file, mask)
    out = tmp_path / "places.json"
    assert main(["score", *map(str, files), "--unmatched", str(out)]) == 0
    assert "matched 0 of 1 predicted, 1 in the label" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found == {"shape": [40, 40, 40], **unmatched_features(*damaged()).to_json()}
    assert found["prediction"]["components"] == [[35, 33, 34]]
    assert main(["score", str(tmp_path), str(tmp_path), "--unmatched", str(out)]) == 2
    assert "--unmatched: got" in capsys.readouterr().err
    assert main(["score", *map(str, files), "--unmatched", str(tmp_path / "no" / "places.json")]) == 2


@pytest.mark.real_data
def test_a_real_mask_against_another(real_data: Path) -> None:  # R45
    masks = [vesu.read_volume(real_data / f"labels/{name}.tif") for name in ("2656396745", "3281388561")]
    prediction, label = masks[0] == 1, masks[1]
    report = vesu.score(prediction, label)
    (swept,) = vesu.score_sweep(prediction.astype(np.float32), label, [0.5])
    assert without_times(swept) == without_times(report)
    dimensions = report.topology.dimensions
    found = unmatched_features(prediction, label)
    assert counts(found) == [[d.predicted - d.matched for d in dimensions], [d.label - d.matched for d in dimensions]]
