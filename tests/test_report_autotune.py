"""Auto-tuning in the report and as a figure: what the trace says, nothing else (R39, R54)."""

import json
from pathlib import Path
from typing import Any

import pytest

from vesu.errors import ArgumentError, FormatError
from vesu.report import plots, write_report
from vesu.report.autotune import read_tuning, tuning_charts


def decision(parameter: str, epoch: int, action: str, before: float, after: float, **more: Any) -> dict[str, Any]:
    fields = {"parameter": parameter, "epoch": epoch, "action": action, "before": before, "after": after}
    return {"number": 0, **fields, "reason": f"why {action}", "evidence": {}, "stage": "search", **more}


TRACE: dict[str, Any] = {
    "format": "vesu-autotune-trace/1",
    "run_id": "demo",
    "bounds": {"mutation_noise": [0.0125, 0.4], "dust_min_size": [0, 1000], "meta_neurons": [9, 27]},
    "objectives": [0.5, 0.4, None, 0.35],
    "meta_neurons": [9, 9, 9, 9],
    "decisions": [
        decision("mutation_noise", 0, "keep", 0.05, 0.05),
        decision("meta_neurons", 0, "keep", 9, 9),
        decision("mutation_noise", 1, "raise", 0.05, 0.1),
        decision("mutation_noise", 2, "rollback", 0.1, 0.05),
        decision("dust_min_size", 3, "raise", 30, 889, stage="calibration"),
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "summary.json").write_text(json.dumps({"run_id": "demo", "status": "finished"}))
    (tmp_path / "v3_autotune_trace.json").write_text(json.dumps(TRACE))
    return tmp_path


def test_the_report_tells_what_was_decided(folder: Path) -> None:  # R39
    page = write_report(folder).read_text(encoding="utf-8")
    assert 'id="tuning"' in page and 'href="#tuning"' in page
    assert "5 decisions on mutation_noise, meta_neurons, dust_min_size; 3 of them" in page
    assert "why rollback" in page and "889" in page and "why keep" not in page
    assert page.count('id="tuning-objective') and page.count('id="tuning-parameters')


def test_without_a_trace_there_is_no_section(folder: Path) -> None:  # R54
    (folder / "v3_autotune_trace.json").unlink()
    assert "tuning" not in write_report(folder).read_text(encoding="utf-8").lower()


def test_nothing_is_drawn_of_nothing(folder: Path) -> None:  # R54
    quiet = {**TRACE, "objectives": [0.5], "decisions": TRACE["decisions"][:2]}
    (folder / "v3_autotune_trace.json").write_text(json.dumps(quiet))
    assert tuning_charts(read_tuning(folder / "v3_autotune_trace.json")) == {} == tuning_charts(None)
    assert 'id="tuning"' in write_report(folder).read_text(encoding="utf-8")


def test_a_malformed_trace_is_named(folder: Path) -> None:
    (folder / "v3_autotune_trace.json").write_text(json.dumps({**TRACE, "decisions": [{"epoch": "no"}]}))
    with pytest.raises(FormatError, match=r"v3_autotune_trace\.json: decisions\[0\]: epoch"):
        read_tuning(folder / "v3_autotune_trace.json")


def test_the_figure_has_a_row_a_parameter_that_was_decided_on() -> None:  # R39
    figure = plots.autotune_trace(TRACE)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "objective",
        "mutation_noise",
        "dust_min_size",
        "meta_neurons",
    ]
    noise = figure.axes[1].get_lines()
    assert list(noise[0].get_ydata()) == [0.05, 0.05, 0.1, 0.05]
    assert [list(line.get_xdata()) for line in noise[1:]] == [[1.5], [], [2.5]]  # raise, lower, rollback
    with pytest.raises(ArgumentError, match=r"trace: got no entry 'objectives'"):
        plots.autotune_trace({})
