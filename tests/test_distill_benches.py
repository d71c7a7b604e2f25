"""The scripts of the experiments at toy size: they run where there is no GPU and no research data (R27, R45)."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).resolve().parents[1] / "benches"


def test_gpu_bench_runs_in_one_call(tmp_path: Path) -> None:  # R27
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHES / "distill_gpu.py"), "--toy", "--out", str(tmp_path / "found.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["training"]["resume_has_the_same_bits"] and found["training"]["steps"] == 4
    assert found["step"][0]["tflop_per_patch"] > 0 and found["training"]["patches_per_s"] > 0
    assert [row["flips"] for row in found["prediction"]] == [True, True, False]
    assert found["kpis"]["gpu_phase_coverage_pct"] == 0.0 and found["kind"] == "cpu"
