"""The profile: where the time went, from the log of one session or several."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from evidence_log import CONFIG, START_NS, Log
from test_events import FakeClock
from vesu.data.cache import content_id
from vesu.run.history import events_named, read_history
from vesu.run.pipeline import RunResult
from vesu.run.profile import PROFILE, profile_of, read_profile, write_profile
from vesu.run.stopwatch import StopWatch, TimedCache


def whole_run(folder: Path, *, fit_s: float = 3.0, config: dict[str, Any] | None = None, pairs: int = 4) -> Path:
    """Load 2 s, fit as asked, package 1 s; four candidates, three iterations."""
    with Log(folder) as log:
        log.start(config=config)
        log.emit("INVENTORY", pairs=pairs, tests=2)
        log.phase("load", 2.0, logging_s=0.0, io_s=1.5)
        log.emit("PHASE_START", phase="fit")
        log.emit("EPOCH_START", epoch=0, samples=2_000_000)
        log.iterations(1, 3, step_s=fit_s / 3)
        log.emit("EPOCH_END", epoch=0, best_objective=0.25, best_candidate=2, judged_on="validation")
        log.emit("PHASE_END", phase="fit", seconds=fit_s, logging_s=0.5, io_s=0.0)
        log.emit("CALIBRATED", validation={"score": 0.5, "f1": 0.4, "volumes": ["a"]})
        log.phase("package", 1.0, logging_s=0.0, io_s=1.0)
        log.emit("RUN_END", elapsed_s=log.now_s)
    return folder


def test_time_by_phase_and_by_kind(tmp_path: Path) -> None:  # R41
    profile = write_profile(whole_run(tmp_path))
    assert json.loads((tmp_path / PROFILE).read_text()) == profile and PROFILE == "RUN_PROFILE_SUMMARY.json"
    rows = {row["name"]: row for row in profile["phases"]}
    assert [(name, row["seconds"], row["complete"]) for name, row in rows.items()] == [
        ("load", 2.0, True), ("fit", 3.0, True), ("package", 1.0, True)]  # fmt: skip
    assert math.fsum(row["share"] for row in rows.values()) == pytest.approx(1.0)
    assert rows["load"]["shares"] == {"compute": 0.25, "logging": 0.0, "io": 0.75, "measured_s": 2.0}
    shares = profile["shares"]
    assert (shares["logging"], shares["io"]) == pytest.approx((0.5 / 6, 2.5 / 6))
    assert math.fsum(shares[kind] for kind in ("compute", "logging", "io")) == pytest.approx(1.0)
    assert (profile["status"], profile["elapsed_s"], profile["input"]) == ("finished", 6.0, {"pairs": 4, "tests": 2})


def test_the_search_has_its_cost_and_its_quality(tmp_path: Path) -> None:  # R41
    profile = write_profile(whole_run(tmp_path))
    search = profile["search"]
    assert (search["candidates"], search["iterations"], search["iterations_computed_again"]) == (4, 12, 0)
    assert search["candidates_per_s"] == pytest.approx(4 / 3)
    assert search["seconds_per_iteration"] == pytest.approx(3 / 12)
    assert search["seconds_per_iteration_of_all"] == pytest.approx(1.0)
    assert search["seconds_per_iteration_and_million_samples"] == pytest.approx(3 / 12 / 2)
    (point,) = profile["quality"]
    assert (point["iterations"], point["since_start_s"], point["best_objective"]) == (12, 5.0, 0.25)
    assert profile["validation"] == {"score": 0.5, "f1": 0.4}


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:  # R54
    with Log(tmp_path) as log:
        log.start()
        log.phase("load", 2.0)
    profile = write_profile(tmp_path)
    assert profile["shares"] is None and profile["phases"][0]["shares"] is None
    assert profile["search"] is None and profile["quality"] == [] and profile["validation"] is None
    assert profile["status"] == "unfinished"


def test_parts_beyond_the_whole_are_no_measure(tmp_path: Path) -> None:  # R54
    with Log(tmp_path) as log:
        log.start()
        log.phase("load", 2.0, logging_s=0.5, io_s=1.6)
        log.phase("features", 4.0, logging_s=1.0, io_s=3.0)
    profile = write_profile(tmp_path)
    assert [row["shares"] is None for row in profile["phases"]] == [True, False]
    assert profile["shares"] == {"compute": 0.0, "logging": 0.25, "io": 0.75, "measured_s": 4.0}


def resumed_run(folder: Path) -> Path:
    """Killed in the second iteration of epoch 0, an hour's pause, resumed before that iteration."""
    with Log(folder) as log:
        log.start()
        log.phase("load", 2.0)
        log.emit("PHASE_START", phase="fit")
        log.iterations(1, 2)
    with Log(folder) as log:
        log.now_s = 3604.0
        log.emit("LATEST_VALID_CKPT", path="ckpt-00000001")
        log.start("RUN_RESUMED")
        log.phase("load", 1.0)
        log.emit("PHASE_START", phase="fit")
        log.iterations(2, 3)
        log.emit("EPOCH_END", epoch=0, best_objective=0.3)
        log.iterations(1, 3, epoch=1)
        log.emit("EPOCH_END", epoch=1, best_objective=0.2)
        log.emit("PHASE_END", phase="fit", seconds=5.0)
        log.emit("RUN_END", elapsed_s=10.0)
    return folder


def test_sessions_add_up_without_the_pause_between_them(tmp_path: Path) -> None:  # R41
    profile = write_profile(resumed_run(tmp_path))
    assert [each["elapsed_s"] for each in profile["sessions"]] == [4.0, 6.0] and profile["elapsed_s"] == 10.0
    assert [each["status"] for each in profile["sessions"]] == [None, "finished"]
    rows = {row["name"]: row for row in profile["phases"]}
    assert (rows["load"]["seconds"], rows["load"]["sessions"]) == (3.0, 2)
    assert (rows["fit"]["seconds"], rows["fit"]["complete"]) == (2.0 + 5.0, True)
    search = profile["search"]
    assert (search["iterations"], search["iterations_computed_again"]) == (24, 4)
    assert search["candidate_passes_done"] == 8 and search["candidates_per_s"] == pytest.approx(8 / 7)
    assert [point["iterations"] for point in profile["quality"]] == [12, 24]


def test_the_fast_reader_agrees_with_a_plain_one(finished: RunResult) -> None:  # R41, R51
    log = finished.folder / "events.jsonl"
    history = read_history(log)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    records = [event for event in events if event["event"] == "TRAIN_ITERATION"]
    assert history.records == len(events) and history.n_bytes == log.stat().st_size
    assert history.iterations.records == len(records) == history.counts["TRAIN_ITERATION"] == 135 * 120
    reached: dict[tuple[int, int], int] = {}
    for record in records:
        key = record["epoch"], record["candidate"]
        reached[key] = max(record["iter"], reached.get(key, 0))
    assert history.iterations.reached == reached and history.iterations.distinct == sum(reached.values())
    assert sum(history.counts.values()) == len(events)
    names = {"VOXELS_SAMPLED", "PHASE_END"}
    assert list(events_named(log, names)) == [event for event in events if event["event"] in names]
    measured = {row["name"]: row["seconds"] for row in finished.summary["phases"]}
    for span in history.phases:
        if span.name != "discovery":  # which began before there was a log
            assert span.complete and span.seconds == pytest.approx(measured[span.name])


def test_iterations_in_another_shape_are_counted_too(tmp_path: Path) -> None:  # R51
    with Log(tmp_path) as log:
        log.emit("TRAIN_ITERATION", epoch=2, candidate=5, iter=7, a_first_member=1)
        log.iterations(1, 2, candidates=1)
    found = read_history(tmp_path / "events.jsonl").iterations
    assert (found.records, found.reached) == (3, {(2, 5): 7, (0, 0): 2})


# ---- speed-up ----


def profiles(tmp_path: Path, **second: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, options in (("first", {"fit_s": 6.0}), ("second", second)):
        (tmp_path / name).mkdir()
        whole_run(tmp_path / name, **options)
    write_profile(tmp_path / "first")
    previous = read_profile(tmp_path / "first")
    assert previous is not None
    return previous, write_profile(tmp_path / "second", previous)


def test_speed_up_against_the_previous_run(tmp_path: Path) -> None:  # R41
    _, profile = profiles(tmp_path, config=CONFIG | {"n_threads": 4})
    found = profile["speed_up"]
    assert found["factor"] == pytest.approx(9 / 6) and found["reason"] is None
    assert found["phases"] == pytest.approx({"load": 1.0, "fit": 2.0, "package": 1.0})
    assert found["settings_changed"] == [{"field": "n_threads", "previous": None, "this": 4}]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"config": CONFIG | {"seed": 1}}, "seed"), ({"pairs": 5}, "input.pairs"),
     ({"config": CONFIG | {"search": {"max_iter": 3, "l1": [0.1, 0.2]}}}, "search.l1")],
)  # fmt: skip
def test_other_work_gives_no_speed_up(tmp_path: Path, change: dict[str, Any], field: str) -> None:  # R41, R54
    _, profile = profiles(tmp_path, **change)
    assert profile["speed_up"]["factor"] is None
    assert [each["field"] for each in profile["speed_up"]["differences"]] == [field]


def test_an_unfinished_run_gives_no_speed_up(tmp_path: Path) -> None:  # R54
    previous, _ = profiles(tmp_path)
    found = profile_of(read_history(tmp_path / "second" / "events.jsonl"), previous | {"status": "stopped"})
    assert found["speed_up"]["factor"] is None and "the previous run is not" in found["speed_up"]["reason"]


def test_a_later_session_still_knows_the_previous_run(tmp_path: Path) -> None:  # R41
    previous, profile = profiles(tmp_path)
    third = tmp_path / "third"
    third.mkdir()
    with Log(third) as log:
        log.emit("PREVIOUS_RUN_PROFILE", profile=previous)
    found = write_profile(whole_run(third))["speed_up"]
    assert found["factor"] == profile["speed_up"]["factor"] == pytest.approx(1.5)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{}", b'{"format": 1, "elapsed_s": NaN}', b"\xff", b'{"format": 2}'])
def test_a_damaged_previous_profile_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / PROFILE).write_bytes(data)
    assert read_profile(tmp_path) is None
    assert write_profile(whole_run(tmp_path), read_profile(tmp_path))["speed_up"]["factor"] is None


# ---- stop watch ----


def test_times_are_exclusive_and_laps_add_up() -> None:  # R41
    clock = FakeClock()
    watch = StopWatch(clock)
    with watch.measure("io"):
        clock.now_s += 2
        with watch.measure("logging"):
            clock.now_s += 0.5
            with watch.measure("io"):
                clock.now_s += 0.25
        clock.now_s += 1
    assert watch.lap() == {"io_s": 3.25, "logging_s": 0.5}
    with pytest.raises(ZeroDivisionError), watch.measure("logging"):
        clock.now_s += 4
        _ = 1 / 0
    assert watch.lap() == {"io_s": 0.0, "logging_s": 4.0} and watch.seconds() == {"io_s": 3.25, "logging_s": 4.5}


def test_other_threads_cost_the_run_nothing() -> None:  # R41
    import threading

    clock = FakeClock()
    watch = StopWatch(clock)

    def beside() -> None:
        with watch.measure("logging"):
            clock.now_s += 9

    thread = threading.Thread(target=beside)
    with watch.measure("io"):
        thread.start()
        thread.join()
        clock.now_s += 1
    assert watch.seconds() == {"io_s": 10.0, "logging_s": 0.0}  # this thread waited; the other's is not counted


def test_a_cache_measures_its_files_and_not_the_computation(tmp_path: Path) -> None:  # R41
    import numpy as np

    clock = FakeClock()
    watch = StopWatch(clock)

    def tick(name: str, **fields: Any) -> None:
        clock.now_s += 1  # each event stands for the files' time

    def compute() -> dict[str, Any]:
        clock.now_s += 100
        return {"values": np.arange(4)}

    cache = TimedCache(tmp_path / "cache", max_bytes=10**6, min_free_bytes=0, events=tick, watch=watch)
    for _ in range(2):
        assert cache.get_or_compute(cache.key("k", of=content_id(b"a")), compute)["values"].tolist() == [0, 1, 2, 3]
    assert watch.seconds() == {"io_s": 3.0, "logging_s": 0.0}  # a miss, a store, a hit


def test_times_stand_in_the_log_as_the_run_measured_them(tmp_path: Path) -> None:  # R41
    history = read_history(whole_run(tmp_path) / "events.jsonl")
    assert [(span.logging_s, span.io_s) for span in history.phases] == [(0.0, 1.5), (0.5, 0.0), (0.0, 1.0)]
    assert history.sessions[0].first_ns == START_NS
