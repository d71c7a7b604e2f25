"""The HTML report: what it says, and what it does not invent."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_page import Page, edit, light_fixture, made_fixture, page_fixture, run_fixture  # noqa: F401 (found by name)
from vesu.report import write_report
from vesu.report.steps import ADDED, KEPT, REMOVED, StepSlices, draw_steps, step_picture
from vesu.report.training import read_events
from vesu.report.unmatched import (
    BOTH,
    BUDGET_BYTES,
    MARKS,
    OURS,
    THEIRS,
    Marked,
    draw_marked,
    marked_picture,
    read_marked,
)
from vesu.run.postmortem import write_postmortem

# ---- what it says ----


def test_outcome_evidence_and_baselines_are_told(made: Path, page: Page) -> None:  # item 10, R34
    summary = json.loads((made / "summary.json").read_text())
    for fact in (
        "finished",
        "0.712",
        "0.739",
        "0.553",
        "5.19\u202f%",
        "5.83\u202f%",
        "2\u00a0min 33\u00a0s",
        "F1 0.304 above the best trivial baseline (intensity quantile, 0.408)",
        "All background",
        "3281388561",
        summary["submission"]["sha256"],
        "the digest matches",
        "vesu check-submission submission.zip",
        summary["ledger"]["root"],
        "verifies, and its root is the recorded one",
        "vesu ledger verify events.jsonl",
        "1407735.tif",
        "ORPHAN_IMAGE",
        "41.2 GiB free",
        "Example CPU @ 3.8 GHz",
        "train_images/99.tif",
        '"meta_neurons": 9',
    ):
        assert fact in page.text, fact
    assert page.text.index("Validation F1") < page.text.index("1415654") < page.text.index("Leaderboard")


def test_every_volume_is_pictured_in_three_axes(page: Page) -> None:  # R30, item 10
    images = page.all("img")
    assert len(images) == 2 * (3 * 4 + 3) + 3  # a picture for each step; and of the unmatched features
    for image in images:
        assert (image["src"] or "").startswith("data:image/jpeg;base64,")
        assert len(image["alt"] or "") > 20
    alts = " ".join(image["alt"] or "" for image in images)
    assert all(f"volume 1407735, slice {axis} = " in alts for axis in "zyx")
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    # Density of two volumes; heat map, three training charts, phases; calibration; progress, memory and cost.
    assert len(charts) == 2 + 5 + 2 + 3
    assert all(len(chart["aria-label"] or "") > 30 for chart in charts)


def test_what_each_step_changed_is_told_and_pictured(made: Path, page: Page) -> None:  # R29, R30
    entry = json.loads((made / "segment" / "1407735.json").read_text())
    text = re.sub(" +", " ", page.text)
    assert "What each step changed" in text
    alts = [image["alt"] or "" for image in page.all("img") if (image["alt"] or "").startswith("Step ")]
    with np.load(made / "segment" / "1407735_steps.npz") as stored:
        masks = stored["masks"].astype(np.int8)
    for number, step in enumerate(entry["steps"]):
        keys = ("voxels_after", "voxels_added", "voxels_removed", "components", "tunnels", "cavities")
        row = " ".join(f"{step[key]:,}".replace(",", "\u202f") for key in keys)
        assert f"{step['name'].replace('_', ' ').capitalize()} {row}" in text
        change = masks[number + 1] - masks[number]
        counts = f"{(change == 1).sum()} voxels added, {(change == -1).sum()} removed" if change.any() else "no change"
        assert any(alt.endswith(f"in volume 1407735, slice z = 24: {counts}") for alt in alts)


def test_the_colours_of_a_step_are_its_changes() -> None:  # R29
    masks = np.zeros((2, 4, 5), bool)
    masks[:, 0], masks[1, 1], masks[0, 2] = True, True, True
    slices = StepSlices(3, np.zeros((4, 5), np.uint8), masks)
    ((panel,),) = draw_steps([("a", ["Dust"], slices)])
    assert panel.title == "1. Dust: 5 voxels added, 5 removed"
    picture = step_picture(slices, 0)
    for row, colour in enumerate((KEPT, ADDED, REMOVED)):
        assert np.all(picture[row] == colour)
    assert np.all(picture[3] == picture[3, 0, 0])  # the CT, grey


def test_steps_without_names_or_slices_are_not_invented(run: Path) -> None:  # R54
    edit(run / "segment" / "1407735.json", lambda v: v.update(steps=[{}]))
    text = Page(write_report(run)).text
    assert "step 3: " in text and "1. (no name): " in text
    (run / "segment" / "1407735_steps.npz").unlink()
    edit(run / "segment" / "1407735.json", lambda v: v.pop("steps") and None)
    text = Page(write_report(run)).text
    assert "Segmentation steps: not recorded" in text and "Pictures of the steps: not recorded" in text


def test_the_full_leaderboard_is_there(made: Path, page: Page) -> None:  # R13
    rows = json.loads((made / "leaderboard.json").read_text())
    assert page.source.count(f"<td>{rows[0]['objective']:.4f}</td>") >= 2  # the top table and the full one
    assert all(f"<tr><td>{row['rank']}</td><td>{row['candidate']}</td>" in page.source for row in rows[1:])
    assert "All 135 candidates" in page.text
    heat = next(svg["aria-label"] or "" for svg in page.all("svg") if "Objective of" in (svg.get("aria-label") or ""))
    assert "134 candidates" in heat and f"best at neuron {rows[0]['neuron']}" in heat  # one diverged


def test_the_score_is_told_volume_by_volume_and_term_by_term(made: Path, page: Page) -> None:  # R45
    validation = json.loads((made / "summary.json").read_text())["validation"]
    text = re.sub(" +", " ", page.text)
    assert "Score 0.302 above the best trivial baseline (intensity quantile, 0.258)" in text
    (ours,), (bright,) = (each["by_volume"] for each in (validation, validation["baselines"]["intensity_quantile"]))
    terms = " ".join(f"{ours[name]:.3f}" for name in ("score", "topology", "surface", "voi"))
    assert f"3281388561 vesu {terms} 22 / 36 / 27 1 / 48 / 3 0 / 0 / 0" in text
    assert f"Intensity quantile {bright['score']:.3f} 0.003 0.513 0.220 7 / 9\u202f214 / 27" in text
    assert "Mean vesu" not in text  # there is but one volume


def test_several_volumes_have_their_means_first(run: Path) -> None:  # R45
    def doubled(summary: dict[str, Any]) -> None:
        for scores in (summary["validation"], *summary["validation"]["baselines"].values()):
            scores["by_volume"].append(scores["by_volume"][0] | {"volume_id": "77", "tunnels": None})

    edit(run / "summary.json", doubled)
    text = re.sub(" +", " ", Page(write_report(run)).text)
    assert re.search(r"77 vesu 0\.560 0\.215 0\.803 0\.612 22 / 36 / 27 – 0 / 0 / 0", text)
    assert text.index("Mean vesu 0.560 0.215 0.803 0.612 – – –") < text.index("77 vesu")


def test_unmatched_features_are_pictured(made: Path, page: Page) -> None:  # R45
    alts = [image["alt"] or "" for image in page.all("img") if "marked: prediction" in (image["alt"] or "")]
    views = read_marked(made / "validation" / "3281388561.npz")
    assert len(alts) == len(views) == 3
    for alt, view in zip(alts, views, strict=True):
        assert f"within 4 slices of {view.axis} = {view.index} in volume 3281388561" in alt
        tunnels = int(((view.marks[:, 0] == 0) & (view.marks[:, 1] == 1)).sum())
        assert len(view.marks) > 0 and f" {tunnels} tunnels" in alt
        assert f"{view.axis} = {view.index}, " in page.text and f"{view.found} unmatched" in page.text
    for words in ("both masks", "prediction only", "label only", "unmatched cavities", "full disc", "a ring"):
        assert words in page.text


def test_marks_are_discs_and_rings_in_the_colours_of_their_kind() -> None:  # R45
    zero = np.zeros((320, 320), np.uint8)
    mask, label = zero.copy(), zero.copy()
    mask[:40], label[20:60], label[:, 300:] = 1, 1, 2
    marks = np.array([(0, 0, 100, 50), (0, 2, 100, 100), (1, 1, 100, 150), (1, 0, 0, 0)])
    picture = marked_picture(Marked("z", 5, 4, zero, mask, label, marks, 4))
    assert tuple(picture[10, 30]) == OURS and tuple(picture[30, 30]) == BOTH and tuple(picture[50, 30]) == THEIRS
    assert tuple(picture[10, 310]) not in (OURS, BOTH)  # ignored
    assert tuple(picture[100, 50]) == MARKS[0] and tuple(picture[100, 100]) == MARKS[2]
    assert tuple(picture[100, 150]) == tuple(picture[200, 200])  # a ring is open, and this one
    assert tuple(picture[100, 153]) == MARKS[1]
    assert tuple(picture[0, 4]) == MARKS[0]  # cut by the picture's corner


def test_without_scores_or_slices_none_are_invented(run: Path) -> None:  # R45 R54
    shutil.rmtree(run / "validation")

    def stripped(summary: dict[str, Any]) -> None:
        for scores in (summary["validation"], *summary["validation"]["baselines"].values()):
            del scores["by_volume"], scores["score"]

    edit(run / "summary.json", stripped)
    text = Page(write_report(run)).text
    assert "Score by volume: not recorded" in text and "Pictures of unmatched features: not recorded" in text
    assert "F1 0.304 above" in text and "Score 0." not in text


def test_many_validation_volumes_keep_the_page_small(run: Path) -> None:  # R45
    rng = np.random.default_rng(0)
    noise: dict[str, Any] = {"reach": np.int64(4)}
    for axis in "zyx":
        noise |= {f"{axis}_index": np.int64(9), f"{axis}_found": np.int64(5000)}
        noise[f"{axis}_volume"] = rng.integers(0, 256, (320, 320), np.uint8)
        noise |= {f"{axis}_{layer}": rng.integers(0, 2, (320, 320), np.uint8) for layer in ("mask", "label")}
        noise[f"{axis}_marks"] = rng.integers(0, (2, 3, 320, 320), (1500, 4))
    for number in range(9):
        np.savez(run / "validation" / f"{number}.npz", **noise)
    panels = draw_marked([(path.stem, read_marked(path)) for path in sorted((run / "validation").glob("?.npz"))])
    assert sum(len(panel.source) for row in panels for panel in row) < 1.4 * BUDGET_BYTES
    page = Page(write_report(run))
    assert "The first 4 of 10 volumes" in page.text and "1500 of 5000 marked" in page.text


def test_the_dashboard_tells_phase_eta_quality_and_cost(made: Path, page: Page) -> None:  # R41
    text = re.sub(" +", " ", page.text)
    profile = json.loads((made / "RUN_PROFILE_SUMMARY.json").read_text())
    for words in (
        "Phase all done",
        "Progress 100.00\u202f% of all phases, as shown",
        "Still to go (ETA) nothing",
        "Training coverage 100.00\u202f% 8 of 8 pairs",
        "Best objective 0.3100 validation score 0.560, F1 0.712",
        f"Candidates a second {profile['search']['candidates_per_s']:.2f}",
        "Speed-up – no previous run to compare with",
        "Memory held 2.2 GiB",
        "Trouble met none",
        "Fit 1\u00a0min 28\u00a0s 57.5\u202f% 79.0\u202f% 20.0\u202f% 1.0\u202f% 1 yes",
        "0 4\u202f050 ",
    ):
        assert words in text, words
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    (progress,) = (label for label in labels if label.startswith("Progress shown over 40 points, up to 100.0 %"))
    assert "points off the share of time after a tenth" in progress
    assert "Measured time: computation 79.0%, files 20.0%, logging 1.0%" in labels
    assert any(label.startswith("Memory held by the run: up to 2.25 GiB; at most 65 %") for label in labels)


def test_the_dashboard_of_a_killed_run_says_where_it_stood(run: Path) -> None:  # R41
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"phase":"segment","total":5' in line and b'"done":2' in line)
    (run / "events.jsonl").write_bytes(b"".join(lines[: last + 1]) + lines[last + 1][:50])
    for name in ("summary.json", "post_mortem.json"):
        (run / name).unlink()
    text = re.sub(" +", " ", Page(write_report(run)).text)
    assert "Phase Segment 2 of 5" in text and "Post-mortem: not recorded" in text
    assert re.search(r"Still to go \(ETA\) 15\.7\u00a0s between 12\.6\u00a0s and 20\.5\u00a0s", text)
    write_postmortem(run)
    text = re.sub(" +", " ", Page(write_report(run)).text)
    assert "killed the log breaks off" in text and "Stood in phase Segment" in text and "Phase Segment" in text
    assert "Reached 89.7" in text


def test_calibration_is_drawn_and_names_its_prior(made: Path, page: Page) -> None:  # R17
    entry = json.loads((made / "summary.json").read_text())["validation"]["calibration"]
    for name, words in (("raw", "As predicted"), ("corrected", "Corrected to the volumes' density")):
        figures = (f"{entry[name][key]:.3f}" for key in ("ece", "max_error", "brier"))
        assert " ".join([words, *figures]) in re.sub(" +", " ", page.text)
    assert "60\u202f000 labelled voxels" in page.text
    assert (
        f"{100 * entry['density']:.2f}\u202f% are surface; of what the search was trained on, 50.00\u202f%" in page.text
    )
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    (diagram,) = (label for label in labels if label.startswith("Reliability diagram"))
    assert f"as predicted: expected calibration error {entry['raw']['ece']:.3f}" in diagram
    (bars,) = (label for label in labels if label.startswith("Share of wrong calls"))
    groups = entry["uncertainty"]["groups"]
    assert f"{100 * groups[0]['error_rate']:.1f} % where the ensemble is surest" in bars
    assert f"with probability {entry['uncertainty']['auroc']:.2f} " in page.text


@pytest.mark.parametrize("kept", [{}, {"raw": {"bins": [{"count": 0}]}}, {"raw": {}, "uncertainty": {"groups": [{}]}}])
def test_a_run_with_less_calibration_invents_none(run: Path, kept: dict[str, object]) -> None:  # R54
    edit(run / "summary.json", lambda s: s["validation"].update(calibration=kept))
    text = Page(write_report(run)).text
    assert "Reliability diagram: not recorded" in text and "Errors by uncertainty: not recorded" in text
    edit(run / "summary.json", lambda s: s["validation"].pop("calibration") and None)
    text = Page(write_report(run)).text
    assert "Calibration: not recorded" in text


TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "div", "p",
    "span", "b", "i", "h1", "h2", "h3", "h4", "a", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd",
    "ul", "li", "code", "pre", "details", "summary", "figure", "figcaption", "img", "svg", "g", "defs", "path",
    "text", "use", "clippath", "rect", "image", "tspan",
}  # fmt: skip


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("#", "data:image/")), (tag, value)
    assert "url(http" not in page.source and "@import" not in page.source


def test_the_same_folder_gives_the_same_bytes(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run, run / "again.html").read_bytes()


def test_losing_to_a_baseline_is_said(run: Path) -> None:  # R54
    edit(run / "summary.json", lambda s: s["validation"].update(f1=0.3))
    assert "F1 0.108 below the best trivial baseline" in Page(write_report(run)).text


def test_a_changed_submission_is_noticed(run: Path) -> None:  # R54
    with (run / "submission.zip").open("ab") as file:
        file.write(b"!")
    assert "submission.zip differs from the recorded digest" in Page(write_report(run)).text


def test_a_changed_ledger_is_noticed(run: Path) -> None:  # R38
    path = run / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"epoch":0', b'"epoch":1')
    path.write_bytes(b"".join(lines))
    assert "does not verify" in Page(write_report(run)).text


def test_a_ledger_that_went_on_is_told_apart(run: Path) -> None:  # R38
    edit(run / "summary.json", lambda s: s["ledger"].update(entries=7))
    assert "entries where 7 are recorded" in Page(write_report(run)).text


def test_a_torn_last_line_is_told_not_fatal(run: Path) -> None:  # R38
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"TRAIN_ITER')
    assert "The last line of events.jsonl is torn" in Page(write_report(run)).text


def test_a_failed_run_says_so_first(run: Path) -> None:
    (run / "summary.json").unlink()
    (run / "failure.json").write_text(json.dumps({"error": "DataError", "message": "no pairs"}))
    text = Page(write_report(run)).text
    assert text.index("The run failed") < text.index("DataError: no pairs") < text.index("Validation")


def test_training_curves_summarise_every_record(made: Path) -> None:  # R51
    events = read_events(made / "events.jsonl", winner=3)
    assert events is not None and events.training is not None
    records = [json.loads(line) for line in (made / "events.jsonl").read_text().splitlines()]
    records = [record for record in records if record["event"] == "TRAIN_ITERATION"]
    assert events.training.n_records == len(records) == 135 * 30 == events.counts["TRAIN_ITERATION"]
    losses = [[r["loss"] for r in records if r["iter"] == i and r["loss"] is not None] for i in range(1, 31)]
    curve = events.training.curves["loss"]
    assert curve.minimum.tolist() == [min(values) for values in losses]
    assert curve.maximum.tolist() == [max(values) for values in losses]
    assert curve.median.tolist() == [np.median(values) for values in losses]
    assert curve.winner is not None
    assert curve.winner.tolist() == [r["loss"] for r in records if r["candidate"] == 3]
    assert events.training.n_not_finite == 15


# ---- what is missing ----

PARTS = {
    "summary.json": "Validation scores: not recorded",
    "config.json": "Configuration: not recorded",
    "events.jsonl": "Loss by iteration: not recorded",
    "inventory.json": "Orphans",
    "preflight.json": "Preflight: not recorded",
    "leaderboard.json": "Leaderboard: not recorded",
    "submission.zip": "submission.zip is not in this folder",
    "segment": "Segmented volumes: not recorded",
    "post_mortem.json": "Post-mortem: not recorded",
    "RUN_PROFILE_SUMMARY.json": "Profile: not recorded",
    "v3_train_coverage_report.json": "Training coverage not recorded",
    "masks": "1407735",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_not_invented(run: Path, name: str) -> None:  # R54
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert PARTS[name] in Page(write_report(run)).text


@pytest.mark.parametrize("name", sorted(set(PARTS) - {"submission.zip", "masks", "segment"}))
def test_one_file_alone_is_enough(run: Path, tmp_path: Path, name: str) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / name, alone / name)
    assert "not recorded" in Page(write_report(alone)).text


def test_missing_fields_and_views_are_not_invented(run: Path) -> None:  # R54
    edit(
        run / "summary.json",
        lambda s: {"status": None, "validation": {}, "submission": {}, "ledger": {}, "phases": [{}]},
    )
    (run / "post_mortem.json").unlink()
    edit(run / "leaderboard.json", lambda rows: [{}, {"rank": 1}])
    edit(run / "preflight.json", lambda p: {"findings": [{}]})
    for path in (run / "segment").glob("*.json"):
        path.write_text("{}")
    for path in (run / "segment").glob("*.npz"):
        path.unlink()
    text = Page(write_report(run)).text
    for words in ("status not recorded", "Slices of this volume: not recorded", "Density by slice: not recorded"):
        assert words in text
    assert "nan" not in text.lower().split() and "None" not in text.split()
