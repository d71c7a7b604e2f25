"""benches/check.py: ratios to peers, and the failure beyond the tolerance (R46)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).resolve().parents[1] / "benches" / "check.py"
SPEC = importlib.util.spec_from_file_location("bench_check", CHECK)
assert SPEC is not None and SPEC.loader is not None
check = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check)


def result(vesu_s: float, peer_s: float) -> dict[str, object]:
    def entry(name: str, median: float) -> dict[str, object]:
        return {"group": "dust 64", "name": name, "fullname": name, "stats": {"median": median}}

    return {
        "machine_info": {"cpu": {"brand_raw": "test", "count": 2}},
        "datetime": "2026-01-01T00:00:00",
        "benchmarks": [entry("test_vesu_dust", vesu_s), entry("test_peer_cc3d", peer_s)],
    }


def test_a_ratio_is_peer_over_vesu() -> None:  # R46
    assert check.ratios(result(0.1, 0.5)) == {"dust 64: peer_cc3d": 5.0}


def run(tmp_path: Path, action: str, measured: dict[str, object]) -> subprocess.CompletedProcess[str]:
    (tmp_path / "run.json").write_text(json.dumps(measured))
    command = [sys.executable, str(CHECK), action, str(tmp_path / "run.json"), str(tmp_path / "ratios.json")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_store_then_check_passes_and_a_fall_fails(tmp_path: Path) -> None:  # R46
    assert run(tmp_path, "store", result(0.1, 0.5)).returncode == 0
    assert run(tmp_path, "check", result(0.2, 1.0)).returncode == 0, "a slower machine is no regression"
    fallen = run(tmp_path, "check", result(0.3, 0.5))
    assert fallen.returncode == 1
    assert "dust 64: peer_cc3d: 1.67 x, stored 5.00 x" in fallen.stderr


def test_what_needs_the_research_volumes_may_be_absent() -> None:  # R46
    assert check.check({}, {"tiff read real CT 256: peer_tifffile": 2.0}) == []


def test_a_benchmark_that_vanished_fails(tmp_path: Path) -> None:  # R46
    run(tmp_path, "store", result(0.1, 0.5))
    other = result(0.1, 0.5)
    for entry in other["benchmarks"]:  # type: ignore[attr-defined]
        entry["group"] = "labels 64"
    assert "not measured now" in run(tmp_path, "check", other).stderr
