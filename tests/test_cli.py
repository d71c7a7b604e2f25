"""The command line: help for a newcomer, exit codes, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vesu
from vesu.cli import main
from vesu.run.pipeline import RunResult

COMMANDS = ["demo", "run", "discover", "preflight", "segment", "score", "check-submission", "report", "post-mortem"]
COMMANDS += ["merge", "campaign", "tune", "gates"]


def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vesu", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    "words",
    [
        [],
        *[[command] for command in COMMANDS],
        ["ledger"],
        *[["ledger", name] for name in ("verify", "prove", "head")],
        ["ablate"],
        *[["ablate", name] for name in ("features", "steps", "teachers")],
        ["wheels"],
        *[["wheels", name] for name in ("check", "manifest")],
    ],
)
def test_help_explains(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    assert "usage: vesu" in capsys.readouterr().out


def test_a_run_from_the_command_line(dataset: Path, tmp_path: Path) -> None:
    words = ["--set", "sampling.voxels_per_volume=1000", "--set", "segment.dust.min_voxels=30"]
    answer = call("run", dataset, "--out", tmp_path / "run", "--quiet", *words)
    assert answer.returncode == 0, answer.stderr
    assert "135 candidates x 120 iterations" in answer.stdout
    validation = json.loads((tmp_path / "run" / "summary.json").read_text())["validation"]
    brightest, nothing = (validation["baselines"][name]["score"] for name in ("intensity_quantile", "all_background"))
    assert f"score       {validation['score']:.3f}: topology {validation['topology']:.3f}, surface" in answer.stdout
    assert f"the brightest voxels {brightest:.3f}, nothing at all {nothing:.3f}" in answer.stdout
    assert call("ledger", "verify", tmp_path / "run" / "events.jsonl").stdout.startswith("intact:")
    checked = call("check-submission", tmp_path / "run" / "submission.zip", "--test-images", dataset / "test_images")
    assert checked.returncode == 0 and "valid: 2 masks" in checked.stdout
    test = vesu.discover(dataset).tests[0]
    mask, probability = tmp_path / "mask.tif", tmp_path / "probability.tif"
    cut = call("segment", test.image, "--model", tmp_path / "run", "--out", mask, "--probability", probability)
    assert cut.returncode == 0, cut.stderr
    np.testing.assert_array_equal(
        vesu.read_volume(mask), vesu.read_volume(tmp_path / "run" / "masks" / f"{test.volume_id}.tif")
    )
    assert vesu.read_volume(probability).dtype == np.float32


def test_discover_prints_json(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R01
    assert main(["discover", str(dataset)]) == 0
    inventory = json.loads(capsys.readouterr().out)
    assert len(inventory["pairs"]) == 3


def test_preflight_passes_on_good_data(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R02
    assert main(["preflight", str(dataset)]) == 0
    assert "ok:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "{tmp}/nothing"], "nothing"),
        (["run", "{data}", "--set", "search.max_iter=5"], "search.max_iter"),
        (["discover", "{tmp}"], "{tmp}"),
        (["segment", "{tmp}/none.tif", "--model", "{run}", "--out", "{tmp}/m.tif"], "none.tif"),
        (["segment", "{tmp}/none.tif", "--model", "{tmp}", "--out", "{tmp}/m.tif"], "model.json"),
        (["check-submission", "{tmp}/none.zip"], "none.zip"),
        (["segment", "{ct}", "--model", "{run}", "--out", "{ct}"], "{ct} twice"),
        (["segment", "{ct}", "--model", "{run}", "--out", "."], "--out"),
        (["segment", "{ct}", "--model", "{run}", "--out", "{tmp}/no/m.tif"], "no/m.tif"),
        (["demo", "--out", "{tmp}/d", "--train", "1"], "--train"),
        (["demo", "--out", "{tmp}/d", "--set", "bogus=1"], "bogus"),
        (["ledger", "verify", "{tmp}/none.jsonl"], "none.jsonl"),
        (["report", "{tmp}"], "{tmp}"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], named: str, dataset: Path, finished: RunResult, tmp_path: Path
) -> None:
    places = {"{tmp}": str(tmp_path), "{data}": str(dataset), "{run}": str(finished.folder)}
    places["{ct}"] = str(vesu.discover(dataset).tests[0].image)

    def fill(text: str) -> str:
        for mark, place in places.items():
            text = text.replace(mark, place)
        return text

    answer = call(*map(fill, words), cwd=tmp_path)
    assert answer.returncode == 2
    assert fill(named) in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stderr.startswith("vesu: ")


def test_ctrl_c_ends_a_run_quickly_with_130(dataset: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vesu",
        "run",
        str(dataset),
        "--out",
        str(tmp_path / "run"),
        "--quiet",
        "--set",
        "sampling.voxels_per_volume=60000",
        "--set",
        "search.meta_neurons=200",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "VESU_NUM_THREADS": "2"})
    log = tmp_path / "run" / "events.jsonl"
    deadline = time.monotonic() + 60
    while '"TRAIN_ITERATION"' not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    # Half a second is the kernel's promise; the rest is closing the log and the interpreter on a busy machine.
    assert time.monotonic() - sent < 5
    assert process.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    vesu.check_submission(tmp_path / "run" / "submission.zip", dataset / "test_images")  # the one in reserve
    assert vesu.ledger.verify(log).entries > 0
