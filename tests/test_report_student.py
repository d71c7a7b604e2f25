"""What the report shows of teachers and student, and how it takes files that anyone may have written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesu.errors import FormatError
from vesu.report import write_report
from vesu.report.jsonfile import Node
from vesu.report.student import CurvesReader, draw_student_views, read_student, read_student_views, student_charts

LAYERS = ("volume", "label", "probability", "uncertainty", "teachers", "disagreement")


def write_views(path: Path, **changed: Any) -> Path:
    rng = np.random.default_rng(0)
    views: dict[str, Any] = {}
    for axis in "zyx":
        views[f"{axis}_index"] = np.int64(3)
        views |= {f"{axis}_{layer}": rng.random((9, 7), np.float32) for layer in LAYERS}
        views[f"{axis}_volume"] = rng.integers(0, 255, (9, 7)).astype(np.uint8)
        views[f"{axis}_label"] = rng.integers(0, 3, (9, 7)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **(views | changed))
    return path


def summary() -> dict[str, Any]:
    return {
        "run_id": "demo",
        "status": "finished",
        "go_no_go": {"verdict": "GO", "failed": [], "gates": {"distillation": {"state": "pass", "reason": "proved"}}},
        "student": {
            "teachers": [{"name": "<unet>", "digest": "blake3:ab", "framework": "onnx"}],
            "refused": [{"path": "old", "reason": "a pickle"}],
            "nominal": 9,
            "kpis": {"teacher_coverage_pct": 11.1, "student_knowledge_retention_score": 0.75},
            "alignment": {"before": 0.5, "distilled": 0.9, "final": 0.8},
            "stages": ["distil", "head"],
            "device": "cpu",
            "proof": {"teachers": [{"name": "<unet>", "volumes": ["1", "2"], "from_cache": 1}]},
            "fusion": {
                "weight": 0.5,
                "weights": [0.0, 0.5, 1.0],
                "scores": [[0.1, 0.3], [0.4, 0.6], [0.2, 0.2]],
                "reason": "the best",
                "held_out_score": 0.5,
                "mean_scores": {"prox": 0.2, "nx46_fused": 0.3},
            },
        },
    }


def test_everything_that_is_recorded_is_shown(tmp_path: Path) -> None:  # R21 R23
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    write_views(tmp_path / "student_views" / "7.npz")
    gain = {"by_seed": [0.01, 0.02], "mean": 0.015, "low": 0.001, "high": 0.03}
    rows = [{"teacher": "<unet>", "kept": True, "gain": gain}]
    (tmp_path / "v3_teacher_ablation.json").write_text(json.dumps({"rows": rows}))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for words in ("&lt;unet&gt;", "a pickle", "1 of 9", "0.750", "0.0150", "uncertainty, 0 to"):
        assert words in page, words
    assert "<unet>" not in page and page.count("uncertainty, 0 to") >= 3


def test_a_run_that_failed_for_want_of_teachers_says_so(tmp_path: Path) -> None:  # R22
    gate = {"state": "fail", "reason": "DISTILLATION_NOT_EXECUTED_HARD_FAIL: no teacher"}
    verdict = {"verdict": "NO_GO_SUBMISSION", "failed": ["distillation"], "gates": {"distillation": gate}}
    (tmp_path / "summary.json").write_text(json.dumps({"status": "failed", "go_no_go": verdict}))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "NO_GO_SUBMISSION" in page and "no teacher" in page


def test_an_older_run_without_any_of_it_is_shown_as_before(tmp_path: Path) -> None:
    assert read_student(None) is None
    (tmp_path / "summary.json").write_text("{}")
    assert "Teachers and student: not recorded" in write_report(tmp_path).read_text(encoding="utf-8")


def test_steps_that_were_done_twice_count_once() -> None:
    reader = CurvesReader()
    steps = [("distil", 1), ("distil", 2), ("distil", 2), ("head", 1)]
    for number, (stage, step) in enumerate(steps):
        event = {"stage": stage, "step": step, "terms": {"total": 4.0 - number}}
        reader.take("DISTILLATION_LOSS_STEP", Node(event, "log"))
    reader.take("STUDENT_VALIDATED", Node({"stage": "head", "step": 1, "f_beta": 0.5}, "log"))
    reader.take("STUDENT_VALIDATED", Node({"stage": "head", "step": 9, "f_beta": 0.7}, "log"))  # of no known step
    curves = reader.curves()
    assert curves is not None
    assert (curves.step.tolist(), curves.loss.tolist()) == ([1, 2, 3], [4.0, 2.0, 1.0])
    assert curves.stages == (("distil", 1), ("head", 3))
    assert (curves.validated.tolist(), curves.f_beta.tolist()) == ([3], [0.5])
    assert student_charts(None, curves).keys() == {"student_loss", "student_score"}
    assert CurvesReader().curves() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"z_index": np.float32(3)},
        {"y_uncertainty": np.zeros((9, 8), np.float32)},
        {"x_teachers": np.zeros((0, 7), np.float32)},
        {"z_label": np.zeros((9, 7), np.complex64)},
    ],
)
def test_slices_that_are_none_are_refused_by_name(changed: dict[str, Any], tmp_path: Path) -> None:
    path = write_views(tmp_path / "views" / "1.npz", **changed)
    with pytest.raises(FormatError, match=rf"1\.npz: {next(iter(changed))}"):
        read_student_views(path)


def test_values_that_are_not_finite_are_drawn(tmp_path: Path) -> None:
    odd = np.full((9, 7), np.nan, np.float32)
    path = write_views(tmp_path / "views" / "1.npz", z_uncertainty=odd, z_probability=odd)
    ((first, *_),) = draw_student_views([("1", read_student_views(path))])
    assert len(first) == 5
