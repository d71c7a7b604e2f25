"""What results look like in a notebook: well-formed, escaped, bounded, in nobody's colours but the page's."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesu
from vesu import notebook
from vesu.data.discover import Inventory, Pair, Problem, TestVolume
from vesu.data.findings import Finding, PreflightReport
from vesu.data.volumes import write_volume
from vesu.features import FeatureSpec
from vesu.grid_search import ProxFitModel
from vesu.ledger import LedgerReport
from vesu.run.result import RunResult
from vesu.scoring import ScoreReport
from vesu.scoring.report import ScoreSummary
from vesu.segmentation import Dust, SegmentConfig, Threshold, ThresholdRule
from vesu.submission import MemberReport, SubmissionReport

HOSTILE = "<script>alert('&\")</script>"


def page_of(shown: Any) -> ElementTree.Element:
    """The parsed HTML of an object, which must stand by itself on a light and on a dark page."""
    text = shown if isinstance(shown, str) else shown._repr_html_()
    assert not re.search(r"<script|<style|background|[^t]color:|#[0-9a-fA-F]{6}", text), text
    return ElementTree.fromstring(f"<page>{text}</page>")


def text_of(shown: Any) -> str:
    return " ".join(page_of(shown).itertext())


def rows_of(shown: Any) -> list[list[str]]:
    """The texts of the cells of the table's body, row by row."""
    return [["".join(cell.itertext()) for cell in row] for row in page_of(shown).findall(".//tbody/tr")]


def pair(name: str, root: Path) -> Pair:
    return Pair(name, root / "train_images" / f"{name}.tif", root / "train_labels" / f"{name}.tif")


def inventory(root: Path, count: int, *, problems: tuple[Problem, ...] = ()) -> Inventory:
    pairs = tuple(pair(f"{number:04}", root) for number in range(count))
    test = TestVolume(HOSTILE, root / "test_images" / "t.tif")
    return Inventory(root, pairs, (test,), (root / "lone.tif",), (), {}, problems, ())


def result(summary: dict[str, Any], report: Path | None = None) -> RunResult:
    members = (MemberReport("1.tif", "1", (2, 3, 4), 0.25, "ab" * 32),)
    submission = SubmissionReport(Path("run/submission.zip"), members, "cd" * 32, 1234)
    common = {
        "pipeline": "vesu",
        "elapsed_s": 12.34,
        "status": "finished",
        "ledger": {"entries": 16540, "root": "ef" * 32},
        "go_no_go": {"summary": ["GO: all gates passed"], "failed": []},
    }
    return RunResult(Path("run") / HOSTILE, submission, common | summary, report, "no matplotlib")


@pytest.fixture(scope="module")
def score() -> ScoreReport:
    label = np.zeros((16, 16, 16), np.uint8)
    label[6:8, 2:-2, 2:-2] = 1
    mask = label.copy()
    mask[12, 4, 4] = 1
    return vesu.score(mask, label)


# ---- the pieces


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.floats() | st.none()), max_size=8))
def test_any_text_and_number_is_shown_as_it_is(rows: list[tuple[str, float | None]]) -> None:
    shown = rows_of(notebook.table("title", ["name", "value"], rows, most=1000))
    assert [name for name, _ in shown] == [name for name, _ in rows]
    assert all((value == "–") == (given is None) for (_, value), (_, given) in zip(shown, rows, strict=True))


def test_values_by_their_kind() -> None:
    values = {"flag": np.True_, "count": np.int64(12345), "share": np.float32(0.125), "path": Path("a&b"), "none": None}
    page = page_of(notebook.facts("t", values))
    assert [cell.text for cell in page.findall(".//td") if len(cell) == 0] == ["yes", "12,345", "0.125", "–"]
    assert page.findtext(".//td/code") == "a&b"


def test_numbers_stand_right_and_a_long_table_is_cut_aloud() -> None:
    page = page_of(notebook.table("t", ["a", "b"], [("x", n) for n in range(100)], most=3))
    assert ["right" in cell.attrib["style"] for cell in page.findall(".//td")] == [False, True] * 3
    assert "and 97 more" in "".join(page.itertext())


def test_a_line_of_many_values_keeps_its_shape() -> None:
    values = np.repeat([0.0, 1.0], 4800)
    points = page_of(notebook.sparkline(values.tolist(), "density")).find(".//polyline").attrib["points"].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(heights) == 240 and len(set(heights)) == 2 and heights == sorted(heights, reverse=True)
    assert notebook.sparkline([], "nothing") == ""
    page_of(notebook.sparkline([0.0, float("nan")], "dark & empty"))


# ---- the results


def test_an_inventory_lists_volumes_and_counts_what_is_wrong(tmp_path: Path) -> None:  # R01
    problems = (Problem(tmp_path / "bad.tif", "damaged"),)
    text = text_of(inventory(tmp_path, 3, problems=problems))
    for said in ("3 labelled volumes, 1 to segment", HOSTILE, "header not readable", "1 train images without a label"):
        assert said in text
    assert "1 files that cannot be used" in text and "labels without an image" not in text
    assert len(rows_of(inventory(tmp_path, 1000))) == notebook.MOST_ROWS


def test_an_inventory_of_files(tmp_path: Path) -> None:  # R01
    (tmp_path / "test_images").mkdir()
    write_volume(tmp_path / "test_images" / "7.tif", np.zeros((3, 4, 5), np.uint8), compression="lzw")
    assert rows_of(vesu.discover(tmp_path)) == [["7", "test", "3 x 4 x 5", "uint8", "lzw", "0"]]


def test_preflight_names_what_blocks_first() -> None:  # R02
    findings = (
        Finding("NO_TEST_VOLUMES", "warning", None, "no test volume"),
        Finding("UNREADABLE", "blocking", Path("x") / HOSTILE, "damaged"),
    )
    report = PreflightReport(findings, 1, 2, (), 0.5)
    assert [row[0] for row in rows_of(report)] == ["blocking", "warning"]
    assert "Preflight: 1 blocking finding" in text_of(report) and "1 pair and 2 test volumes" in text_of(report)
    assert "nothing blocks" in text_of(PreflightReport((), 1, 1, (), 0.1))


def test_a_grid_before_and_after_the_fit() -> None:  # R13
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2)).astype(np.float32)
    grid = vesu.ElasticNetLogisticGrid(meta_neurons=2, l1=(1e-3, 1e-2), l2=(1e-3, 1e-2), max_iter=5)
    assert "not fitted" in text_of(grid) and not rows_of(grid)
    rows = rows_of(grid.fit(x, x[:, 0] > 0))
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0][4] == f"{grid.leaderboard_['objective'][0]:.4g}"
    assert "8 candidates, best first" in text_of(grid) and "and 3 more" in text_of(grid)


def test_a_score_term_by_term(score: ScoreReport) -> None:  # R45
    rows = rows_of(score)
    assert [row[0].strip("· ") for row in rows] == [
        "topology", "components", "tunnels", "cavities", "surface Dice", "VOI",
    ]  # fmt: skip
    assert f"Score {score.score:.4f}" in text_of(score)
    assert rows[4][2] == f"{score.surface.score:.4g}" and rows[3][2] == "–"
    summary = ScoreSummary(score.score, 0.1, 0.2, 0.3, {HOSTILE: score}, ("lost",))
    assert [row[0] for row in rows_of(summary)] == ["mean", HOSTILE]
    assert "1 label without a prediction" in text_of(summary)


def test_a_segmentation_step_by_step_with_its_density() -> None:  # R30
    probability = np.full((4, 8, 8), 0.1, np.float32)
    probability[2, 4] = 0.9
    ladder = SegmentConfig((Threshold(ThresholdRule("fixed", 0.5)), Dust(4)))
    plain, counted = (vesu.segment(probability, ladder, topology=topology) for topology in (False, True))
    assert [row[0] for row in rows_of(plain)] == ["threshold", "dust"] and rows_of(plain)[0][3] == "8"
    assert [len(rows_of(each)[0]) for each in (plain, counted)] == [5, 8]
    assert "3.12% surface" in text_of(plain) and "0.0% to 12.5%" in text_of(plain)
    assert page_of(plain).find(".//polyline") is not None


def test_a_model_says_what_it_is_made_of() -> None:  # R12 R17
    spec = FeatureSpec()
    prox = ProxFitModel(np.zeros((2, 4)), np.zeros(2), np.zeros(2), np.ones(2), spec.names[:2], 0.5, False, (57, 3))
    text = text_of(vesu.SurfaceModel(prox, spec, (0, 1), SegmentConfig()))
    for said in ("2 candidates, best first: 57, 3", f"2 of {len(spec.names)}", "smooth_z, threshold, dust", "none"):
        assert said in text


def test_a_run_that_finished_and_one_that_was_stopped() -> None:
    validation, search = {"score": 0.472, "f1": 0.25}, {"candidates": 135, "max_iter": 120}
    text = text_of(result({"validation": validation, "search": search}))
    for said in (
        "finished, 12.3 s",
        "score 0.472, F1 0.250",
        "135 candidates x 120 iterations",
        "1 mask, valid",
        "GO: all",
    ):
        assert said in text
    assert "no report: no matplotlib" in text and "16,540 records" in text
    stopped = text_of(result({"status": "stopped"}, Path("run/report.html")))
    assert "stopped for lack of time" in stopped and "no labelled volume" in stopped and "no report" not in stopped
    assert "weight 0.5" in text_of(result({"student": {"fusion": {"weight": 0.5}}}))


def test_a_submission_and_a_log() -> None:  # R05 R38
    text = text_of(result({}).submission)
    assert "Valid submission of 1 mask" in text and "2 x 3 x 4" in text and "25.00%" in text and "cd" * 32 in text
    report = LedgerReport(3, "ab" * 32, "cd" * 32, 1_700_000_000_000_000_000, 1_700_000_001_000_000_000, 7)
    assert "2023-11-14 22:13:20 UTC" in text_of(report) and "7 bytes of a torn last record" in text_of(report)
    empty = LedgerReport(0, "ab" * 32, "0" * 64, None, None, 0)
    assert "torn" not in text_of(empty) and text_of(empty).count("–") == 2
