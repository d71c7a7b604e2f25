"""Every phase that the history called V3, in one run: each leaves its file, and the gates judge it from the log."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import vesu
from vesu.run.gates import V3_FILES, judge, v3_files
from vesu.run.model import VolumePrediction, fused

pytest.importorskip("torch")
pytest.importorskip("monai")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "v3" / "on_phantoms.py"
FEWER = ["--size", "48", "--train", "4", "--set", "features.scales=[1.0]", "--set", "search.supervised_epochs=2"]


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("v3_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_run_leaves_every_v3_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # R54, R44
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--out", str(tmp_path), *FEWER])
    code, verdict = example().main(), judge(tmp_path / "run")
    files = v3_files(tmp_path / "run")
    assert [each.name for each in files] == list(V3_FILES)
    assert all(each.asked and each.there and each.logged and not each.problem for each in files)
    # On volumes this small the alignment may fail where it was not fitted; nothing else may.
    assert set(verdict.failed) <= {"competitor"} and code == (4 if verdict.failed else 0)
    assert verdict.headline in capsys.readouterr().out
    assert vesu.check_submission(tmp_path / "run/submission.zip", tmp_path / "data/scroll/test_images").members


def test_a_student_that_expects_to_be_wrong_stays_a_deviation() -> None:  # R17, R25
    sure = VolumePrediction(np.full((1, 1, 1), 0.2, np.float32), np.zeros((1, 1, 1), np.float32))
    wrong = VolumePrediction(np.full((1, 1, 1), 0.9, np.float32), np.full((1, 1, 1), 0.8, np.float32))
    assert fused(wrong, sure, weight=1.0).uncertainty.item() == 0.5
    assert 0 < fused(wrong, sure, weight=0.1).uncertainty.item() < 0.5
