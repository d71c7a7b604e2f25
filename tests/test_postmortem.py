"""The post-mortem: how runs ended, read from their folders, those that were killed included."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evidence_log import Log, tear
from vesu.errors import ArgumentError, DataError
from vesu.run.folder import MARK
from vesu.run.history import read_history
from vesu.run.pipeline import RunResult
from vesu.run.postmortem import POST_MORTEM, examine, write_postmortem


def begun(log: Log) -> Log:
    """A run that stands in the second iteration of its search."""
    log.start()
    log.emit("INVENTORY", pairs=4, tests=2)
    log.phase("load", 2.0)
    log.emit("PHASE_START", phase="fit")
    log.progress(30.0, 60.0, phase="fit", epoch=0, iter=1)
    log.iterations(1, 2)
    return log


def test_a_finished_run(finished: RunResult) -> None:  # R41
    found = examine(finished.folder)
    assert (found["cause"], found["blocking_point"], found["reached_pct"]) == ("finished", None, 100.0)
    assert found["submission"] == {
        "present": True,
        "sha256": finished.submission.sha256,
        "as_recorded": True,
    }
    assert (found["masks"], found["tests"], found["suspects"], found["alerts"]) == (2, 2, [], {})
    assert found["elapsed_s"] == finished.summary["elapsed_s"] and found["run_id"] == finished.summary["run_id"]
    ledger = finished.summary["ledger"]
    assert found["ledger"] == {"verifies": True, "problem": None, "torn_bytes": 0, **ledger}


def test_a_killed_run_with_a_torn_log(tmp_path: Path) -> None:  # R41
    folder = begun(Log(tmp_path)).close()
    tear(folder, 17)
    found = examine(folder)
    assert found["cause"] == "killed" and "breaks off" in found["reason"]
    point = found["blocking_point"]
    assert (point["phase"], point["seconds_in_phase"]) == ("fit", 2.0)
    assert point["last_iteration"] == {"epoch": 0, "candidate": 2, "iter": 2}  # the last record is torn
    assert point["cursor"] == {"phase": "fit", "epoch": 0, "iter": 1}
    assert (point["last_event"], found["reached_pct"]) == ("GLOBAL_PROGRESS_REALTIME", 30.0)
    assert found["remaining_estimate_s"] == 60.0 and found["elapsed_s"] == 4.0
    assert found["submission"]["present"] is False and found["ledger"]["torn_bytes"] > 0
    assert not (folder / POST_MORTEM).exists()  # looking changes nothing


def test_a_run_killed_between_two_phases(tmp_path: Path) -> None:  # R41
    with Log(tmp_path) as log:
        log.start()
        log.phase("load", 2.0)
    point = examine(tmp_path)["blocking_point"]
    assert (point["phase"], point["phase_after"], point["last_event"]) == (None, "load", "PHASE_END")


def test_every_cut_of_a_log_is_examined(tmp_path: Path) -> None:  # R41
    with begun(Log(tmp_path)) as log:
        log.emit("PHASE_END", phase="fit", seconds=2.0)
        log.emit("RUN_END", elapsed_s=4.0)
    path = tmp_path / "events.jsonl"
    whole = path.read_bytes()
    causes = []
    for size in range(0, len(whole) + 1, 37):
        path.write_bytes(whole[:size])
        found = examine(tmp_path)
        assert found["ledger"]["torn_bytes"] == size - (whole[:size].rfind(b"\n") + 1)
        causes.append(found["cause"])
    path.write_bytes(whole)
    assert set(causes) == {"killed"} and examine(tmp_path)["cause"] == "finished"


def test_a_failed_run(tmp_path: Path) -> None:  # R41
    with begun(Log(tmp_path)) as log:
        log.emit("RUN_FAILED", error="FileError", message="no space left")
    found = write_postmortem(tmp_path)
    assert (found["cause"], found["reason"]) == ("failed", "FileError: no space left")
    assert found["blocking_point"]["phase"] == "fit" and found["suspects"] == []
    assert json.loads((tmp_path / POST_MORTEM).read_text()) == found and POST_MORTEM == "post_mortem.json"


@pytest.mark.parametrize("sealed", [False, True], ids=["signal", "deadline"])
def test_a_stopped_run(tmp_path: Path, sealed: bool) -> None:  # R41
    with begun(Log(tmp_path)) as log:
        log.emit("RUN_STOPPED", reason="DEADLINE")
        if sealed:
            log.emit("RUN_END", status="stopped", elapsed_s=4.0)
    found = examine(tmp_path)
    assert (found["cause"], found["reason"]) == ("stopped", "DEADLINE")
    assert found["sessions"] == [{"number": 1, "status": "stopped", "elapsed_s": 4.0}]


def test_only_the_last_session_tells_the_end(tmp_path: Path) -> None:  # R41
    with begun(Log(tmp_path)) as log:
        log.emit("MEMORY_ALERT", memory="cpu", level="alert", used_fraction=0.95)
        log.emit("RUN_STOPPED", reason="SIGTERM")
    with Log(tmp_path) as log:
        log.now_s = 9000.0
        log.emit("LATEST_VALID_CKPT", path="x")
        log.start("RUN_RESUMED")
        log.emit("PHASE_START", phase="segment")
        log.now_s += 3.0
        log.progress(80.0)
    found = examine(tmp_path)
    assert found["cause"] == "killed" and found["blocking_point"]["phase"] == "segment"
    assert [each["status"] for each in found["sessions"]] == ["stopped", "broken off"]
    assert [each["elapsed_s"] for each in found["sessions"]] == [4.0, 3.0] and found["elapsed_s"] == 7.0
    assert found["blocking_point"]["last_iteration"] is None
    assert not any("memory" in each["suspect"] for each in found["suspects"])  # that was the session before


def test_suspects_have_evidence(tmp_path: Path) -> None:  # R41, R54
    with begun(Log(tmp_path)) as log:
        log.emit("MEMORY_ALERT", memory="cpu", level="alert", used_fraction=0.97, threshold=0.92)
        log.emit("STALL_SUSPECTED", kind="stuck")
        log.now_s = 97.0
        log.emit("RUN_STOPPING", reason="SIGTERM")
    found = examine(tmp_path)
    by_name = {each["suspect"]: each["evidence"] for each in found["suspects"]}
    assert by_name["memory ran out"]["used_fraction"] == 0.97
    assert by_name["it was stuck, and somebody ended it"]["kind"] == "stuck"
    assert by_name["it was told to stop, and ended before that was done"]["reason"] == "SIGTERM"
    assert by_name["the platform's time limit"] == {"session_s": 97.0, "limit_s": 100.0}
    assert found["alerts"] == {"MEMORY_ALERT": 1, "STALL_SUSPECTED": 1}


def test_what_was_cleared_is_no_suspect(tmp_path: Path) -> None:  # R54
    with begun(Log(tmp_path)) as log:
        log.emit("STALL_SUSPECTED", kind="slow")
        log.emit("STALL_CLEARED")
        log.emit("MEMORY_ALERT", memory="cpu", level="alert", used_fraction=0.97)
        log.emit("MEMORY_ALERT", memory="cpu", level="ok", used_fraction=0.4)
    assert not {"memory ran out", "it was stuck, and somebody ended it"} & {
        each["suspect"] for each in examine(tmp_path)["suspects"]
    }


def test_a_held_folder_is_a_running_run(tmp_path: Path) -> None:  # R41
    begun(Log(tmp_path)).close()
    with (tmp_path / MARK).open("w") as mark:
        fcntl.flock(mark.fileno(), fcntl.LOCK_EX)
        assert examine(tmp_path)["cause"] == "running"
        assert write_postmortem(tmp_path, cause="stopped", reason="SIGTERM")["reason"] == "SIGTERM"  # by the run itself
    assert examine(tmp_path)["cause"] == "killed"


def test_a_changed_zip_and_a_damaged_log_are_told(tmp_path: Path) -> None:  # R54
    with begun(Log(tmp_path)) as log:
        log.emit("SAFE_SUBMISSION_WRITTEN", sha256="0" * 64)
    (tmp_path / "submission.zip").write_bytes(b"other")
    path = tmp_path / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{oops\n", *lines[3:]]))
    found = examine(tmp_path)
    assert found["submission"]["as_recorded"] is None  # that event lies behind the damage
    assert found["ledger"]["verifies"] is False and "record 3" in found["ledger"]["problem"]
    path.write_bytes(b"".join(lines))
    found = examine(tmp_path)
    assert found["submission"]["as_recorded"] is False and found["ledger"]["verifies"] is True


def test_the_newest_checkpoint_is_named(tmp_path: Path) -> None:  # R41
    begun(Log(tmp_path)).close()
    for number, manifest in enumerate((b'{"epoch": 0, "iter": 10, "phase": "fit"}', b"{torn")):
        folder = tmp_path / "checkpoints" / f"ckpt-{number:08d}"
        folder.mkdir(parents=True)
        (folder / "ckpt_manifest.json").write_bytes(manifest)
    found = examine(tmp_path)["goes_on_from"]
    assert (found["name"], found["phase"], found["iter"]) == ("ckpt-00000000", "fit", 10)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without events\.jsonl"):
        examine(tmp_path)
    begun(Log(tmp_path)).close()
    with pytest.raises(ArgumentError, match="cause: got 'bored'"):
        write_postmortem(tmp_path, cause="bored")  # type: ignore[arg-type]


def test_a_run_that_was_really_killed(dataset: Path, tmp_path: Path) -> None:  # R41
    command = [sys.executable, "-m", "vesu", "run", str(dataset), "--out", str(tmp_path / "run"), "--quiet",
               "--set", "sampling.voxels_per_volume=20000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        log = tmp_path / "run" / "events.jsonl"
        until = time.monotonic() + 60
        while time.monotonic() < until and not (log.exists() and b'"TRAIN_ITERATION"' in log.read_bytes()):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        assert examine(log.parent)["cause"] == "running"
        os.kill(process.pid, signal.SIGKILL)
    found = write_postmortem(log.parent)
    assert found["cause"] == "killed" and found["blocking_point"]["phase"] == "fit"
    assert 0 < found["reached_pct"] < 100 and found["ledger"]["verifies"] is True
    assert not (log.parent / "summary.json").exists()
    iteration = found["blocking_point"]["last_iteration"]
    assert iteration is not None and 1 <= iteration["iter"] <= 120
    assert read_history(log).open_phase is not None
