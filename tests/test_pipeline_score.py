"""The competition's score in a run: on the validation volumes, for the fit, in the summary and the report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vesu
from vesu import baselines
from vesu.ledger import iter_events
from vesu.run.outputs import MARK_REACH, MAX_MARKS, write_unmatched
from vesu.run.pipeline import RunResult
from vesu.run.validation import ScoredVolume, brightest, validation_entry
from vesu.scoring import ScoreReport, unmatched_features

TERMS = ("score", "topology", "surface", "voi")


def pair(dataset: Path, volume_id: str) -> tuple[NDArray[Any], NDArray[Any]]:
    (found,) = [pair for pair in vesu.discover(dataset).pairs if pair.volume_id == volume_id]
    return vesu.read_volume(found.image), vesu.read_volume(found.label)


def entry(volume_id: str, report: ScoreReport) -> dict[str, Any]:
    counts = {
        name: {"matched": d.matched, "predicted": d.predicted, "label": d.label}
        for name, d in zip(("components", "tunnels", "cavities"), report.topology.dimensions, strict=True)
    }
    return {"volume_id": volume_id, "score": report.score, **report.terms, **counts}


def test_the_summary_has_the_score_of_the_final_masks(finished: RunResult, dataset: Path) -> None:  # R45
    validation = finished.summary["validation"]
    (volume_id,) = validation["volumes"]
    image, label = pair(dataset, volume_id)
    report = vesu.score(vesu.SurfaceModel.load(finished.folder).segment(image).mask, label)
    assert validation["by_volume"] == [entry(volume_id, report)]
    assert {name: validation[name] for name in TERMS} == {"score": report.score, **report.terms}
    assert 0 < report.score < 1
    stored = json.loads((finished.folder / "summary.json").read_text())["validation"]
    assert stored["by_volume"] == validation["by_volume"]
    (event,) = [e for e in iter_events(finished.folder / "events.jsonl") if e["event"] == "CALIBRATED"]
    assert event["validation"]["score"] == report.score


def test_the_trivial_baselines_are_scored_alike(finished: RunResult, dataset: Path) -> None:  # R45
    validation = finished.summary["validation"]
    (volume_id,) = validation["volumes"]
    image, label = pair(dataset, volume_id)
    masks = {
        "all_background": np.zeros(label.shape, np.uint8),
        "intensity_quantile": brightest(image, validation["density_label"]),
    }
    for name, mask in masks.items():
        found = validation["baselines"][name]
        assert found["by_volume"] == [entry(volume_id, vesu.score(mask, label))]
        assert found["score"] == found["by_volume"][0]["score"]
    # An empty mask does well where the label is one small sheet, so only the other one must lose.
    assert validation["baselines"]["intensity_quantile"]["score"] < validation["score"]


def test_the_historical_scorers_are_scored_alike(finished: RunResult, dataset: Path, tmp_path: Path) -> None:
    config = vesu.load_config(overrides=["pipeline=nx47"], environment={})  # R45 R32
    ran = vesu.run(dataset, tmp_path, config=config, display="none", cache=finished.folder / "cache")
    validation = ran.summary["validation"]
    (volume_id,) = validation["volumes"]
    image, label = pair(dataset, volume_id)
    report = vesu.score(baselines.segment(image, "nx47").mask, label)
    assert validation["by_volume"] == [entry(volume_id, report)]
    assert validation["baselines"] == finished.summary["validation"]["baselines"]
    assert [path.stem for path in (ran.folder / "validation").iterdir()] == [volume_id]


def test_several_volumes_are_averaged(dataset: Path) -> None:  # R45
    volumes = {each.volume_id: pair(dataset, each.volume_id) for each in vesu.discover(dataset).pairs}
    labels = {name: label for name, (_, label) in volumes.items()}
    images = {name: image for name, (image, _) in volumes.items()}
    masks = {name: np.roll(label == 1, 1, axis=0).astype(np.uint8) for name, label in labels.items()}
    found = validation_entry(masks, labels, images)
    assert len(volumes) == 3 and [each["volume_id"] for each in found["by_volume"]] == list(labels)
    for scores in (found, *found["baselines"].values()):
        for name in TERMS:
            assert scores[name] == pytest.approx(np.mean([each[name] for each in scores["by_volume"]]), abs=1e-15)


def test_the_fit_may_be_on_the_score_itself(
    finished: RunResult, dataset: Path, small_config: vesu.RunConfig, tmp_path: Path
) -> None:  # R45 R28
    changes = ["segment.calibration.metric=score", 'segment.calibration.modes=["fixed"]', "segment.dust.min_voxels=30"]
    segment = vesu.load_config(overrides=changes, environment={}).segment
    config = dataclasses.replace(small_config, segment=segment)
    ran = vesu.run(dataset, tmp_path, config=config, display="none", cache=finished.folder / "cache")
    (volume_id,) = ran.summary["validation"]["volumes"]
    image, label = pair(dataset, volume_id)
    model = vesu.SurfaceModel.load(ran.folder)
    probability = model.predict(image).probability
    best, rule = ran.summary["validation"]["score"], model.segment_config.threshold.rule
    assert rule.mode == "fixed"
    for step in (-1 / 128, 1 / 128):  # the last step of the search: neither neighbour is better
        other = model.segment_config.with_rule(dataclasses.replace(rule, value=rule.value + step, low_factor=1.0))
        assert vesu.score(vesu.segment(probability, other).mask, label).score <= best + 1e-3
    config_then = json.loads((ran.folder / "config.json").read_text())
    assert config_then["segment"]["calibration"]["metric"] == "score"


def test_the_slices_of_unmatched_features_are_stored(finished: RunResult, dataset: Path) -> None:  # R45
    (volume_id,) = finished.summary["validation"]["volumes"]
    image, label = pair(dataset, volume_id)
    mask = vesu.SurfaceModel.load(finished.folder).segment(image).mask
    check_stored(finished.folder / "validation" / f"{volume_id}.npz", image, mask, label)


def check_stored(path: Path, image: NDArray[Any], mask: NDArray[Any], label: NDArray[Any]) -> None:
    """Every mark is a feature, none is left out, and no slice has more of them near it."""
    unmatched = unmatched_features(mask, label)
    sides = (unmatched.prediction.dimensions, unmatched.label.dimensions)
    assert sum(len(places) for side in sides for places in side) > 0
    with np.load(path, allow_pickle=False) as stored:
        assert int(stored["reach"]) == MARK_REACH
        for axis, name in enumerate("zyx"):
            index = int(stored[f"{name}_index"])
            for layer, volume in (("volume", image), ("mask", mask), ("label", label)):
                np.testing.assert_array_equal(stored[f"{name}_{layer}"], volume.take(index, axis))
            everywhere = np.concatenate([places for side in sides for places in side])
            near = [int((np.abs(everywhere[:, axis] - k) <= MARK_REACH).sum()) for k in range(image.shape[axis])]
            assert near[index] == max(near) == int(stored[f"{name}_found"])
            expected = {
                (side, dimension, *np.delete(place, axis).tolist())
                for side, dimensions in enumerate(sides)
                for dimension, places in enumerate(dimensions)
                for place in places
                if abs(place[axis] - index) <= MARK_REACH
            }
            marks = [tuple(row) for row in stored[f"{name}_marks"].tolist()]
            assert set(marks) <= expected and (len(marks) < near[index] or set(marks) == expected)


def test_too_many_marks_are_thinned_by_kind(tmp_path: Path) -> None:  # R45
    rng = np.random.default_rng(0)
    label = np.zeros((24, 80, 80), np.uint8)
    label[10:13, 5:-5, 5:-5] = 1
    mask = np.where(rng.random(label.shape) < 0.2, 1 - label, label).astype(np.uint8)
    image = rng.integers(0, 255, label.shape, np.uint8)
    write_unmatched(tmp_path / "a.npz", ScoredVolume("a", image, mask, label, unmatched_features(mask, label)))
    check_stored(tmp_path / "a.npz", image, mask, label)
    with np.load(tmp_path / "a.npz") as stored:
        kinds = np.unique(stored["z_marks"][:, :2], axis=0, return_counts=True)
        assert len(kinds[0]) >= 2 and MAX_MARKS // 2 < kinds[1].max() <= MAX_MARKS
        assert int(stored["z_found"]) > len(stored["z_marks"])


def test_without_unmatched_features_the_richest_slice_is_stored(tmp_path: Path) -> None:  # R45
    label = np.zeros((6, 7, 8), np.uint8)
    label[4, 2:5] = 1
    write_unmatched(tmp_path / "a.npz", ScoredVolume("a", label, label, label, unmatched_features(label, label)))
    with np.load(tmp_path / "a.npz") as stored:
        assert int(stored["z_index"]) == 4 and stored["z_marks"].shape == (0, 4) and int(stored["z_found"]) == 0


def test_the_report_shows_both(finished: RunResult) -> None:  # R45
    assert finished.report is not None
    text = finished.report.read_text(encoding="utf-8")
    validation = finished.summary["validation"]
    (volume_id,) = validation["volumes"]
    assert f"<td>{validation['score']:.3f}</td><td>{validation['topology']:.3f}</td>" in text
    assert "Where features have no partner" in text
    assert text.count(f"in volume {volume_id}, marked: prediction: ") == 3
