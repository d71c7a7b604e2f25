"""What the report shows of the guided phase, and how it takes files that anyone may have written (R24)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesu.errors import FormatError
from vesu.report import write_report
from vesu.report.guided import draw_guided_views, read_guided, read_guided_views


def delta(**changed: Any) -> dict[str, Any]:
    return {
        "volume_id": "<7>",
        "state": "pass",
        "reason": "IoU and Dice rose",
        "target": "student",
        "model_in_use": "aligned",
        "reference": {"path": "7_<theirs>.tif"},
        "split": {"axis": "y", "held_out": [0, 12], "fit": [46, 48], "margin": 34},
        "voxels_fit": 4608,
        "voxels_held_out": 27648,
        "before": {"iou": 0.2361, "dice": 0.3821, "density_gap": 0.2683},
        "after": {"iou": 0.4987, "dice": 0.6655, "density_gap": 0.0299},
        "delta": {"iou": 0.2626, "dice": 0.2834, "density_gap": -0.2384},
        "true_labels": {"before": {"score": 0.4106}, "after": {"score": 0.3341}},
        **changed,
    }


def folder_of(folder: Path, found: Any, **views: Any) -> Path:
    (folder / "summary.json").write_text(json.dumps({"run_id": "demo", "status": "finished"}))
    (folder / "v3_competitor_guided_delta.json").write_text(json.dumps(found))
    rng = np.random.default_rng(0)
    layers: dict[str, Any] = {}
    for axis in "zyx":
        layers[f"{axis}_index"] = np.int64(5)
        layers |= {f"{axis}_{name}": rng.integers(0, 3, (9, 7)).astype(np.uint8) for name in ("volume", "reference")}
        layers |= {f"{axis}_{name}": rng.integers(0, 2, (9, 7)).astype(np.uint8) for name in ("before", "after")}
    (folder / "guided").mkdir()
    np.savez(folder / "guided" / "<7>.npz", **(layers | views))
    return folder


def test_figures_and_slices_are_shown(tmp_path: Path) -> None:  # R24
    page = write_report(folder_of(tmp_path, delta())).read_text(encoding="utf-8")
    for words in ("0.2361", "0.4987", "-0.2384", "27\u202f648", "0.4106", "0.3341", "y from 0 to 11", "34 slices"):
        assert words.replace("-", "−") in page or words in page, words
    assert "The aligned model made the masks." in page and "7_&lt;theirs&gt;.tif" in page
    assert page.count("the guided phase beside the reference") == 6 and "<theirs>" not in page


def test_a_failed_phase_says_which_model_is_in_use(tmp_path: Path) -> None:  # R24
    failed = {name: delta()[name] for name in ("volume_id", "reference")}
    failed |= {"state": "fail", "reason": "DataError: nothing", "model_in_use": "before"}
    page = write_report(folder_of(tmp_path, failed)).read_text(encoding="utf-8")
    assert "The model from before the phase made the masks. DataError: nothing" in page


def test_a_run_without_the_phase_has_no_section(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"run_id": "demo", "status": "finished"}))
    assert 'id="guided"' not in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (delta(before={"iou": "much"}), "iou"),
        (delta(split=[1]), "split"),
        (delta(voxels_fit=1.5), "voxels_fit"),
        ([], "a JSON object"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, found: Any, words: str) -> None:
    with pytest.raises(FormatError, match=rf"v3_competitor_guided_delta\.json.*{words}"):
        read_guided(folder_of(tmp_path, found))


def test_slices_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path, delta(), z_after=np.zeros((2, 2), np.uint8))
    with pytest.raises(FormatError, match="z_after"):
        read_guided_views(tmp_path, "<7>")
    assert read_guided_views(tmp_path, "../<7>") == () and draw_guided_views("7", ()) == ()
