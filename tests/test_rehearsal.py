"""The rehearsal of the whole run, with a few small pairs through the same code (R33, R36, R37, R40, R51, R54)."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHES = Path(__file__).resolve().parents[1] / "benches"
sys.path.insert(0, str(BENCHES))

from rehearsal_scale import scaled  # noqa: E402
from rehearsal_watch import Sample, phase_costs, read_samples, totals, watched  # noqa: E402
from vesu.run.events import EventLog  # noqa: E402
from vesu.run.history import PhaseSpan, read_history  # noqa: E402

PHASES = ["discovery", "preflight", "load", "features", "train_data", "fit", "segment", "package", "after the phases"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, str(BENCHES / "rehearsal.py"), "--out", str(folder), "--train", "10", "--test", "3"]
    command += ["--size", "16", "--real-size", "20", "--governor-train", "4", "--limit-s", "0.5"]
    command += ["--set", "sampling.voxels_per_volume=300"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return folder


def found(out: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((out / f"{name}.json").read_text()))


def test_every_pair_and_every_iteration_is_in_the_log(out: Path) -> None:  # R40, R51
    run = found(out, "run")
    assert (run["pairs"], run["tests"], run["coverage_pct"], run["coverage_gap"]) == (10, 3, 100.0, "none")
    assert run["candidates"] == 135
    assert run["iterations"] == {"records": 16_200, "expected": 16_200, "complete": True}
    assert run["voxels"]["volumes"] == 10 and run["voxels"]["all"] == 3000 and run["samples"] == 8 * 300
    assert run["log"]["records"] == len((out / "run" / "events.jsonl").read_bytes().splitlines())
    assert run["events"]["VOXELS_SAMPLED"] == 10


def test_every_phase_has_its_costs(out: Path) -> None:  # R41
    run = found(out, "run")
    assert [row["phase"] for row in run["phases"]] == PHASES
    whole = run["whole"]
    assert 0 < sum(row["cpu_s"] for row in run["phases"]) <= whole["cpu_s"] * 1.01
    assert whole["peak_bytes"] >= max(row["rss_bytes"] for row in run["phases"]) > 1 << 20
    assert run["segment"]["volumes"] == 2 and run["segment"]["test_s"] > 0


def test_too_little_time_gives_a_valid_zip_and_in_the_end_the_same_bits(out: Path) -> None:  # R33, R37
    governor = found(out, "governor")
    assert governor["stops"] and all(stop["members"] == 1 for stop in governor["stops"])
    assert governor["same_bits"] and governor["iterations"] == 16_200
    assert len(governor["sessions"]) == len(governor["stops"]) + 1
    names = [event["event"] for event in governor["events"]]
    assert {"RUNTIME_ACCELERATION_MODE_ON", "PRETIMEOUT_FLUSH", "RUN_STOPPED", "RUNTIME_BUDGET_FINAL"} <= set(names)
    actions = {event["action"]: event["applied"] for event in governor["events"] if "action" in event}
    assert actions == {"all_cores": True, "defer_report": True}  # never the grid, the iterations or the log (R50)


def test_the_tables_tell_all_of_it(out: Path) -> None:
    text = (out / "rehearsal.md").read_text()
    assert "16,200 of 16,200, complete" in text and "## 786 pairs and 120 test volumes of 20^3 on 2 cores" in text
    assert "the bits of the undisturbed run" in text


def test_the_forecast_is_its_arithmetic() -> None:  # R54
    def phases(**cpu_s: float) -> list[dict[str, Any]]:
        return [{"phase": name, "cpu_s": seconds, "wall_s": seconds / 2} for name, seconds in cpu_s.items()]

    run = {"pairs": 10, "features": 20, "phases": phases(train_data=3.0, fit=50.0, **{"after the phases": 7.0})}
    size = {
        "pairs": 2,
        "tests": 1,
        "features": 30,
        "phases": phases(preflight=1.0, load=4.0, features=6.0, segment=12.0, package=0.5),
        "segment": {"volumes": 1, "calibration_s": 2.0, "test_s": 4.0},
    }
    seconds = {each.phase: each.cpu_s for each in scaled(run, size, n_train=100, n_test=20)}
    assert seconds == {
        "preflight": 20.0,
        "load": 200.0,
        "features": 300.0,
        "train_data": 30.0,
        "fit": 50.0 * 10 * 1.5,
        "calibration": 2.0 * 2 * 8,  # two processor seconds went into each second of the phase
        "segment": 4.0 * 2 * 20,
        "package": 10.0,
        "after the phases": 7.0,
    }


def test_processor_seconds_go_to_the_phase_in_which_they_were_spent(tmp_path: Path) -> None:
    ms = 1_000_000
    with EventLog(tmp_path / "events.jsonl", run_id="r") as log:
        log.emit("RUN_START")
    spans = [
        PhaseSpan(name, 1, at * ms, s, True, None, None) for name, at, s in (("load", 1000, 2.0), ("fit", 3000, 1.0))
    ]
    history = replace(read_history(tmp_path / "events.jsonl"), phases=tuple(spans))
    seen = [Sample((1000 + 500 * n) * ms, 1, 0.25 * n if n < 4 else 1 + 0.5 * (n - 4), n, n, 1.0) for n in range(9)]
    rows = {row["phase"]: row for row in phase_costs(history, seen)}
    assert [(name, row["wall_s"], row["cpu_s"]) for name, row in rows.items()] == [
        ("load", 2.0, 1.0),
        ("fit", 1.0, 1.0),
        ("after the phases", 1.0, 1.0),
    ]
    assert totals(seen) == {"sessions": 1, "cpu_s": 3.0, "peak_bytes": 8, "load": 1.0}


def test_sessions_of_a_watched_command_add_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; sum(range(10**6)); time.sleep(0.7); raise SystemExit(3)"]
    assert [watched(command, tmp_path / "seen.jsonl") for _ in range(2)] == [3, 3]
    seen = read_samples(tmp_path / "seen.jsonl")
    assert totals(seen)["sessions"] == 2 and totals(seen)["cpu_s"] > 0 and totals(seen)["peak_bytes"] > 1 << 20
