"""The guided phase in a run: passed, failed, refused, cut and gone on with (R24)."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from student_case import without_report
from vesu.errors import DataError, PreflightError, ResumeIncompatible
from vesu.ledger import iter_events, verify
from vesu.run import guiding
from vesu.run.pipeline import RunResult
from vesu.run.plan import phase_weights

GUIDED = [*SMALL, "guided.held_out=0.1"]
"""Volumes of 48^3: a tenth judges, 34 slices are the margin, nine are aligned to."""
DELTA = "v3_competitor_guided_delta.json"
NAMES = (
    "COMPETITOR_TIFF_LOAD_OK",
    "COMPETITOR_GUIDED_PHASE_START",
    "COMPETITOR_ALIGNMENT_DELTA",
    "COMPETITOR_GUIDED_PHASE_DONE",
)


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


def config(reference: Path, *more: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=[*GUIDED, f"guided.reference='{reference}'", *more], environment={})


def files(folder: Path) -> dict[str, bytes]:
    """What a run is for: its masks, and the model that made them."""
    paths = [*sorted((folder / "masks").iterdir()), folder / "submission.zip", folder / "model.json"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def reference(finished: RunResult, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the model itself is surest of: the same surfaces, much thinner than its masks."""
    test = vesu.discover(dataset).tests[0]
    probability = vesu.SurfaceModel.load(finished.folder).predict(vesu.read_volume(test.image)).probability
    mask = (probability > np.quantile(probability, 0.97)).astype(np.uint8)
    path = tmp_path_factory.mktemp("reference") / f"{test.volume_id}_theirs.tif"
    vesu.write_volume(path, mask)
    return path


@pytest.fixture(scope="module")
def plain(finished: RunResult) -> Path:
    """A finished run without the phase."""
    return finished.folder


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


def gone_on(plain: Path, folder: Path, dataset: Path, config: vesu.RunConfig, **how: Any) -> RunResult:
    """The finished run with another setting: what does not depend on it is kept."""
    if not folder.exists():
        shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("cache"))
    how = {"retrain_changed": True, "cache": plain / "cache", **how}
    return vesu.run(dataset, folder, config=config, display="none", resume="latest", **how)


@pytest.fixture(scope="module")
def aligned(plain: Path, dataset: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return gone_on(plain, tmp_path_factory.mktemp("aligned") / "run", dataset, config(reference))


def test_the_phase_is_told_of_measured_and_in_use(aligned: RunResult, plain: Path, reference: Path) -> None:  # R24
    report = json.loads((aligned.folder / DELTA).read_text())
    assert report == aligned.summary["guided"] and report["phase"] == guiding.PHASE
    assert (report["state"], report["target"], report["model_in_use"]) == ("pass", "calibration", "aligned")
    told = events(aligned.folder, *NAMES)
    assert tuple(event["event"] for event in told) == NAMES
    load, start, delta, done = told
    assert load["path"] == str(reference) and load["shape"] == [48, 48, 48] and len(load["sha256"]) == 64
    assert start["target"] == "calibration" and start["phase"] == guiding.PHASE
    assert (start["voxels_held_out"], start["voxels_fit"]) == (5 * 48 * 48, 9 * 48 * 48)
    assert start["split"]["margin"] == 34  # the features' reach and that of the smoothing along z
    assert {name: delta[name] for name in ("before", "after", "delta", "intended")} == {
        name: report[name] for name in ("before", "after", "delta", "intended")
    }
    assert delta["delta"]["iou"] == delta["after"]["iou"] - delta["before"]["iou"] > 0
    assert delta["delta"]["dice"] > 0 >= delta["delta"]["density_gap"] and delta["intended"] is True
    assert (done["state"], done["volume_id"]) == ("pass", start["volume_id"])
    assert verify(aligned.folder / "events.jsonl").root == aligned.summary["ledger"]["root"]
    assert files(aligned.folder)["model.json"] != files(plain)["model.json"]


def test_the_figures_are_those_of_the_kept_out_voxels_alone(aligned: RunResult, dataset: Path, reference: Path) -> None:
    # R24: computed once more from the two models, the split and the file.
    report = aligned.summary["guided"]
    (image,) = (test.image for test in vesu.discover(dataset).tests if test.volume_id == report["volume_id"])
    theirs = vesu.read_volume(reference)
    axis, (first, last) = "zyx".index(report["split"]["axis"]), report["split"]["held_out"]
    place = tuple(slice(first, last) if each == axis else slice(None) for each in range(3))
    for moment, folder in (("before", aligned.folder / "guided" / "before"), ("after", aligned.folder)):
        model = vesu.SurfaceModel.load(folder)
        probability = np.ascontiguousarray(model.predict(vesu.read_volume(image)).probability[place])
        ours, known = vesu.segment(probability, model.segment_config).mask == 1, theirs[place] == 1
        assert report[moment]["iou"] == pytest.approx((ours & known).sum() / (ours | known).sum())
        assert report[moment]["density_gap"] == pytest.approx(abs(ours.mean() - known.mean()))


def test_the_cost_on_true_labels_is_measured_too(aligned: RunResult) -> None:  # R54
    found = aligned.summary["guided"]["true_labels"]
    assert found["volumes"] == aligned.summary["validation"]["volumes"]
    assert found["before"]["score"] == aligned.summary["validation"]["score"] != found["after"]["score"]


def test_masks_are_those_of_the_aligned_model(aligned: RunResult, dataset: Path) -> None:
    model = vesu.SurfaceModel.load(aligned.folder)
    for test in vesu.discover(dataset).tests:
        mask = vesu.read_volume(aligned.folder / "masks" / f"{test.volume_id}.tif")
        np.testing.assert_array_equal(mask, model.segment(vesu.read_volume(test.image)).mask)


def test_a_resumed_run_keeps_the_phase_and_needs_no_reference(
    aligned: RunResult, plain: Path, dataset: Path, reference: Path, tmp_path: Path
) -> None:  # R37
    folder = tmp_path / "run"
    shutil.copytree(aligned.folder, folder)
    for name in ("model.json", DELTA):
        (folder / name).unlink()
    again = gone_on(plain, folder, dataset, config(tmp_path / "gone.tif"), retrain_changed=False)
    assert files(folder) == files(aligned.folder)
    assert again.summary["guided"] == aligned.summary["guided"] == json.loads((folder / DELTA).read_text())
    assert len(events(folder, *NAMES)) == len(NAMES)
    (kept,) = events(folder, "COMPETITOR_GUIDED_PHASE_KEPT")
    assert kept["state"] == "pass"


@pytest.fixture
def cut_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C in the midst of the phase, the first time."""
    whole, cut = guiding.align_rule, [True]

    def align_rule(*arguments: Any, **options: Any) -> Any:
        if cut.pop() if cut else False:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return whole(*arguments, **options)

    monkeypatch.setattr(guiding, "align_rule", align_rule)
    yield
    assert not cut


@pytest.mark.usefixtures("cut_once")
def test_a_phase_that_is_cut_is_begun_anew_with_the_same_bits(
    aligned: RunResult, plain: Path, dataset: Path, reference: Path, tmp_path: Path
) -> None:  # R24 R37
    with pytest.raises(KeyboardInterrupt):
        gone_on(plain, tmp_path / "run", dataset, config(reference))
    assert not (tmp_path / "run" / DELTA).exists()
    result = gone_on(plain, tmp_path / "run", dataset, config(reference), retrain_changed=False)
    assert files(result.folder) == files(aligned.folder)
    assert result.summary["guided"] == aligned.summary["guided"]


def test_a_wrong_sign_is_a_failure_and_the_run_goes_on(
    plain: Path, dataset: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R24 R44
    from vesu.segmentation import ThresholdRule

    monkeypatch.setattr(guiding, "align_rule", lambda *_, **__: ThresholdRule("quantile", 0.2, 1.0))
    result = gone_on(plain, tmp_path / "run", dataset, config(reference))
    report = result.summary["guided"]
    assert (report["state"], report["model_in_use"], report["intended"]) == ("fail", "before", False)
    assert "iou -" in report["reason"] and "density_gap +" in report["reason"] and "true_labels" not in report
    (delta,) = events(result.folder, "COMPETITOR_ALIGNMENT_DELTA")
    (done,) = events(result.folder, "COMPETITOR_GUIDED_PHASE_DONE")
    assert delta["intended"] is False and done["state"] == "fail"
    assert result.finished and files(result.folder) == files(plain)
    vesu.check_submission(result.folder / "submission.zip", dataset / "test_images")


def test_an_error_within_the_phase_is_its_failure(
    plain: Path, dataset: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R24
    def broken(*_: Any, **__: Any) -> Any:
        raise DataError("probabilities: nothing to align")

    monkeypatch.setattr(guiding, "align_rule", broken)
    result = gone_on(plain, tmp_path / "run", dataset, config(reference))
    assert result.summary["guided"]["reason"] == "DataError: probabilities: nothing to align"
    assert [event["event"] for event in events(result.folder, *NAMES)] == [NAMES[0], NAMES[1], NAMES[3]]
    assert files(result.folder) == files(plain)


def test_a_finished_run_is_not_aligned_in_silence(
    plain: Path, dataset: Path, reference: Path, tmp_path: Path
) -> None:  # R37
    with pytest.raises(ResumeIncompatible, match=r"guided\.held_out"):
        gone_on(plain, tmp_path / "run", dataset, config(reference), retrain_changed=False)


def test_another_reference_is_no_resume(
    aligned: RunResult, plain: Path, dataset: Path, reference: Path, tmp_path: Path
) -> None:  # R37
    shutil.copytree(aligned.folder, tmp_path / "run")
    other = vesu.read_volume(reference)
    other[0, 0, 0] ^= 1
    vesu.write_volume(tmp_path / reference.name, other)
    with pytest.raises(ResumeIncompatible, match=r"guided\.reference_sha256"):
        gone_on(plain, tmp_path / "run", dataset, config(tmp_path / reference.name), retrain_changed=False)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("15_theirs.tif", [], r"name begins with no test volume's id"),
        ("15_theirs.tif", ["guided.volume_id='15'"], r"guided\.volume_id: got '15'"),
        (None, ["guided.target=student"], r"guided\.target: got 'student' in a run without one"),
        (None, ["guided.held_out=0.5"], r"margin of 34 voxels"),
        (None, ["pipeline=nx46"], r"beside pipeline 'nx46'"),
    ],
)
def test_what_cannot_be_aligned_to_is_found_before_any_work(
    dataset: Path, reference: Path, tmp_path: Path, name: str | None, more: list[str], words: str
) -> None:  # R02 R24
    path = shutil.copy(reference, tmp_path / (name or reference.name))
    with pytest.raises(PreflightError, match=rf"GUIDED_REFERENCE: .*{words}"):
        vesu.run(dataset, tmp_path / "run", config=config(path, *more), display="none")
    assert not events(tmp_path / "run", "TRAIN_ITERATION")
    (finding,) = events(tmp_path / "run", "PREFLIGHT_FINDING")
    assert (finding["code"], finding["severity"]) == ("GUIDED_REFERENCE", "blocking")


def test_the_phase_is_in_the_forecast(dataset: Path, reference: Path) -> None:  # R34
    inventory = vesu.discover(dataset)
    guided, without = (phase_weights(inventory, each, 26) for each in (config(reference), vesu.RunConfig()))
    assert guided["segment"] > without["segment"]
    with_student = phase_weights(inventory, config(reference), 26, n_teachers=2)["segment"]
    rule = config(reference, "guided.target=calibration")
    assert with_student > phase_weights(inventory, rule, 26, n_teachers=2)["segment"]


def test_a_run_without_a_reference_says_nothing_of_it(finished: RunResult) -> None:  # R32
    assert "guided" not in finished.summary and not (finished.folder / DELTA).exists()
    assert not [
        name for name in (each["event"] for each in iter_events(finished.folder / "events.jsonl")) if "GUIDED" in name
    ]


def test_the_command_line_names_the_reference() -> None:
    from vesu.cli import parser
    from vesu.cli.arguments import config_of

    arguments = parser().parse_args(["run", "data", "--guided", "14_theirs.tif"])
    assert config_of(arguments).guided.reference == "14_theirs.tif"
