"""Real progress: the formula, its calibration, its events, its display."""

import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_events import FakeClock, Record
from vesu import _core
from vesu.errors import ArgumentError, FileError
from vesu.ledger import iter_events, verify
from vesu.run import display as display_module
from vesu.run.events import EventLog
from vesu.run.progress import PHASES, Progress
from vesu.run.weights import Plan

SHOWN_TOGETHER = (
    "global_progress_reel",
    "train_progress_reel",
    "cursor",
    "remaining_estimate_s",
    "remaining_low_s",
    "remaining_high_s",
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "log", run_id="r1", clock=FakeClock()) as events:
        yield events


def events_of(log: EventLog, name: str) -> list[dict[str, Any]]:
    log.flush()
    return [event for event in iter_events(log.path) if event["event"] == name]


def quiet(log: EventLog, weights: dict[str, float], **options: Any) -> Progress:
    return Progress(log, weights, display="none", clock=FakeClock(), **options)


def test_the_number_is_the_sum_of_weights_times_parts(log: EventLog) -> None:  # R34
    progress = quiet(log, {"load": 1, "features": 2, "fit": 5, "distillation": 0})
    assert progress.weights == {"load": 0.125, "features": 0.25, "fit": 0.625}
    with progress.phase("load", 4) as load:
        load.advance(3)
        assert (load.fraction, progress.global_progress_reel) == (0.75, 9.375)
        load.set(0.75)
        assert progress.global_progress_reel == 9.375
        load.advance()
    with progress.phase("features", 10) as features:
        features.set(0.5)
        parts = {"load": 1.0, "features": 0.5, "fit": 0.0}
        expected = 100 * math.fsum(weight * parts[name] for name, weight in progress.weights.items())
        assert progress.global_progress_reel == pytest.approx(expected, abs=1e-9)
        features.advance(5)
    assert progress.train_progress_reel == 0.0


def test_fit_follows_epoch_candidate_and_iteration(log: EventLog) -> None:  # R34
    progress = quiet(log, {"fit": 3, "package": 1})
    seen = []
    with progress.fit(n_epochs=2, n_candidates=6, max_iter=3) as fit:
        for epoch, first, iteration in itertools.product(range(2), (0, 4), range(1, 4)):
            block = Record(iteration, n=4 if first == 0 else 2, candidate_first=first)
            fit.on_record(block, epoch)
            done = epoch * 18 + first * 3 + block.n * iteration
            assert progress.train_progress_reel == pytest.approx(100 * done / 36)
            seen.append(progress.global_progress_reel)
    assert seen == sorted(seen)
    cursors = events_of(log, "TRAIN_CURSOR")
    assert len(cursors) == 12
    assert [e["global_progress_reel"] for e in cursors] == pytest.approx(seen)
    assert cursors[4]["cursor"] == {
        "phase": "fit",
        "done": 16,
        "total": 36,
        "epoch": 0,
        "candidate_first": 4,
        "candidate_index": 5,
        "candidate_total": 6,
        "iter": 2,
        "max_iter": 3,
    }
    assert not events_of(log, "PROGRESS_INTEGRITY_ALERT")


def test_measured_cost_moves_the_weights(log: EventLog) -> None:  # R34
    clock = FakeClock()
    progress = Progress(log, {"load": 10, "fit": 90}, display="none", clock=clock)
    with progress.phase("load", 1) as load:
        clock.now_s += 60
        load.advance()
    (calibration,) = events_of(log, "PHASE_WEIGHT_CALIBRATION")
    speed = (60 + 10) / (10 + 10)
    assert calibration["measured_s"] == 60
    assert calibration["speed_factor"] == pytest.approx(speed)
    assert calibration["weights_before"] == {"load": 0.1, "fit": 0.9}
    assert calibration["weights_after"]["load"] == pytest.approx(60 / (60 + 90 * speed))
    assert progress.global_progress_reel == pytest.approx(100 * progress.weights["load"])
    assert progress.remaining_estimate_s == pytest.approx(90 * speed)
    with progress.phase("fit", 4) as fit:
        clock.now_s += 100
        fit.advance(3)
        # A quarter is left: 100/3 s by its own pace, 90*speed/4 by the plan. Both are heard, the pace more: the
        # logarithm of a step's cost varies by 0.5, that of the plan by log 2.
        pace, prior = 1 / 0.5**2, math.log(2) ** -2
        speed = (60 + 100 + 10) / (10 + 0.75 * 90 + 10)
        log_s = (pace * math.log(100 / 0.75) + prior * math.log(90 * speed)) / (pace + prior)
        assert progress.remaining_estimate_s == pytest.approx(math.exp(log_s) / 4)
        fit.advance()
    assert progress.remaining_estimate_s == 0
    assert progress.phase_seconds() == {"load": 60, "fit": 100}


def test_a_cheaper_phase_than_expected_takes_nothing_back(log: EventLog) -> None:  # R34
    clock = FakeClock()
    progress = Progress(log, {"load": 50, "features": 25, "fit": 25}, display="none", clock=clock)
    with progress.phase("load", 1) as load:
        load.advance()
        assert progress.global_progress_reel == 50
    assert progress.global_progress_reel == 50
    assert progress.weights["features"] == progress.weights["fit"] == pytest.approx(0.25)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1e4), st.floats(0, 1e5), st.integers(1, 7)), min_size=1, max_size=len(PHASES)),
    st.booleans(),
)
def test_whatever_is_measured_it_never_goes_back_and_ends_at_100(work: list[Any], overlap: bool) -> None:  # R34
    plan = Plan({name: expected for name, (expected, _, _) in zip(PHASES, work, strict=False)})
    now, seen, running = 0.0, [0.0], []
    for name, (_, cost, units) in zip(plan.states, work, strict=True):
        running.append(plan.start(name, units, now))
        for _ in range(units):
            now += cost / units
            assert plan.step(running[-1], running[-1].done_units + 1, now) is None
            seen.append(plan.fraction())
        if not overlap or len(running) > 1:
            plan.finish(running.pop(0), now)
            seen.append(plan.fraction())
        assert math.fsum(plan.weights().values()) == pytest.approx(1, abs=1e-9)
        assert all(weight >= 0 for weight in plan.weights().values())
        assert 0 <= plan.remaining(now).low_s <= plan.remaining(now).seconds <= plan.remaining(now).high_s
    for state in running:
        plan.finish(state, now)
        seen.append(plan.fraction())
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(seen))
    assert max(seen[:-1]) <= 0.9999
    assert seen[-1] == 1.0


def test_each_change_of_phase_and_each_point_is_an_update(log: EventLog) -> None:  # R34
    progress = quiet(log, {"load": 1, "fit": 1})
    with progress.phase("load", 1000) as load:
        for _ in range(1000):
            load.advance()
    updates = events_of(log, "PROGRESS_UPDATE")
    assert [updates[0]["state"], updates[-1]["state"]] == ["started", "finished"]
    assert 49 <= len(updates) <= 53
    steps = [event["global_progress_reel"] for event in updates]
    assert steps == sorted(steps)
    for event in updates:
        assert all(name in event for name in SHOWN_TOGETHER)


def test_the_thread_beats_while_a_kernel_runs(tmp_path: Path) -> None:  # R34
    with (
        EventLog(tmp_path / "log", run_id="r1") as log,
        Progress(log, {"fit": 1}, display="none", min_interval_s=0.05) as progress,
        progress.phase("fit", 1) as fit,
    ):
        _core._gate_probe("sleep", 0.6)
        fit.advance()
    hearts = events_of_path(log.path, "HEARTBEAT")  # R35
    assert len(hearts) >= 6
    assert {(heart["activity"], heart["verdict"]) for heart in hearts} <= {
        ("fit", "healthy"),
        ("fit", "long_but_healthy"),
        ("fit", "stuck"),  # a kernel that only sleeps looks like one that is stuck
    }
    beats = events_of_path(log.path, "GLOBAL_PROGRESS_REALTIME")
    assert len(beats) >= 6
    assert all(name in event for event in beats for name in (*SHOWN_TOGETHER, "elapsed_s"))
    assert beats[-1]["global_progress_reel"] == 100
    assert verify(log.path).entries == len(list(iter_events(log.path)))


def events_of_path(path: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(path) if event["event"] == name]


def test_a_failure_of_the_thread_reaches_the_run(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:  # R34
    def full(name: str, /, **fields: Any) -> int:
        raise FileError(28, "No space left on device", "log")

    with quiet(log, {"fit": 1}, min_interval_s=0.01) as progress, progress.phase("fit", 3) as fit:
        with monkeypatch.context() as patch:
            patch.setattr(log, "emit", full)
            deadline = time.monotonic() + 10
            while progress._failure is None and time.monotonic() < deadline:
                time.sleep(0.01)
        with pytest.raises(FileError, match="No space"):
            for _ in range(2):
                fit.set(0.3)
        fit.advance(3)


def test_what_listens_to_the_beat_gets_the_numbers_and_cannot_stop_it(log: EventLog) -> None:  # R33 R34
    heard: list[Any] = []

    def broken(shown: Any) -> None:
        raise RuntimeError("a listener's own fault")

    progress = quiet(log, {"fit": 1}, min_interval_s=0.01)
    progress.on_beat(broken)
    progress.on_beat(heard.append)
    with pytest.raises(RuntimeError, match="own fault"), progress, progress.phase("fit", 2) as fit:
        deadline = time.monotonic() + 10
        while len(heard) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(heard) >= 3
        fit.advance()
    assert set(heard[0]) == set(SHOWN_TOGETHER)
    assert heard[0]["remaining_low_s"] < heard[0]["remaining_estimate_s"] < heard[0]["remaining_high_s"]


def test_a_computation_of_its_own_is_watched_inside_a_phase(log: EventLog) -> None:  # R35
    progress = quiet(log, {"fit": 1})
    with progress.phase("fit", 1) as fit:
        with progress.heartbeat.around("fit of the threshold", expected_s=3.0):
            progress.heartbeat.beat()
        progress.heartbeat.beat()
        fit.advance()
    assert progress.heartbeat.beat() is None
    assert [each["activity"] for each in events_of(log, "HEARTBEAT")] == ["fit of the threshold", "fit"]


class Liar(display_module.Hidden):
    """A display that shows another number."""

    offset = 0.0

    def shown(self) -> float:
        return super().shown() + self.offset


def test_a_display_that_shows_another_number_is_an_alert(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = Liar()  # R34, R54
    monkeypatch.setattr(sys.modules[Progress.__module__], "make_display", lambda kind: (liar, None))
    progress = quiet(log, {"load": 1})
    with progress.phase("load", 4) as load:
        load.advance()
        assert not events_of(log, "PROGRESS_INTEGRITY_ALERT")
        liar.offset = 33.33
        load.advance()
        liar.offset = 0.0
        load.advance(2)
    alerts = events_of(log, "PROGRESS_INTEGRITY_ALERT")
    assert {alert["reason"] for alert in alerts} == {"the display was changed", "shown is not computed"}
    assert (alerts[1]["shown"], alerts[1]["computed"]) == (pytest.approx(83.33), 50)


def test_work_that_was_not_announced_or_not_done_is_an_alert(log: EventLog) -> None:  # R54
    progress = quiet(log, {"load": 1, "features": 1, "fit": 1, "package": 1})
    with progress.phase("load", 2) as load:
        load.advance(3)
        assert load.fraction == 1.0
        load.set(0.5)
        assert load.fraction == 1.0
        load.advance(float("nan"))
    with progress.phase("features", 2) as features:
        features.advance()
    with progress.phase("fit", 100) as fit:
        fit.advance(40)
        fit.finish("converged")
    with progress.phase("package", 0):
        pass
    reasons = [alert["reason"] for alert in events_of(log, "PROGRESS_INTEGRITY_ALERT")]
    assert reasons == [
        "more work than announced",
        "progress of a phase went back",
        "progress of a phase went back",
        "a phase ended before its announced work",
    ]
    assert progress.global_progress_reel == 100
    finished = [event for event in events_of(log, "PROGRESS_UPDATE") if event["phase"] == "fit"]
    assert finished[-1]["reason"] == "converged"


def test_a_phase_that_fails_is_not_finished(log: EventLog) -> None:  # R54
    progress = quiet(log, {"load": 1})
    with pytest.raises(RuntimeError, match="broken"), progress.phase("load", 2) as load:
        load.advance()
        raise RuntimeError("broken")
    assert events_of(log, "PROGRESS_UPDATE")[-1]["state"] == "failed"
    assert progress.global_progress_reel == 50
    assert progress.phase_seconds() == {}


def test_what_is_refused(log: EventLog) -> None:  # R34
    for weights in ({}, {"load": 0.0}, {"lunch": 1.0}, {"load": -1.0}, {"load": float("nan")}):
        with pytest.raises(ArgumentError, match="weights"):
            quiet(log, weights)
    for interval in (0, -1, 15.1, float("nan")):
        with pytest.raises(ArgumentError, match="min_interval_s"):
            quiet(log, {"load": 1}, min_interval_s=interval)
    with pytest.raises(ArgumentError, match="display"):
        Progress(log, {"load": 1}, display="fancy")  # type: ignore[arg-type]
    progress = quiet(log, {"load": 1, "fit": 1})
    with progress.phase("load", 1) as load:
        for fraction in (-0.1, 1.1, float("nan")):
            with pytest.raises(ArgumentError, match="fraction"):
                load.set(fraction)
        load.advance()
    for name, total in [("load", 1.0), ("features", 1.0), ("fit", -1.0), ("fit", float("inf"))]:
        with pytest.raises(ArgumentError), progress.phase(name, total):
            pass
    for count in ("n_epochs", "n_candidates", "max_iter"):
        counts = {"n_epochs": 1, "n_candidates": 2, "max_iter": 3, count: 0}
        with pytest.raises(ArgumentError, match=count), progress.fit(**counts):
            pass
    cursor = {"epoch": 0, "candidate_first": 0, "candidate_last": 1, "iteration": 1}
    with progress.fit(n_epochs=1, n_candidates=2, max_iter=3) as fit:
        for bad in ({"epoch": 1}, {"candidate_last": 2}, {"iteration": 4}, {"candidate_first": 2}, {"epoch": -1}):
            with pytest.raises(ArgumentError, match="cursor"):
                fit.at(**(cursor | bad))
        fit.finish("only refused")


def test_without_tqdm_there_is_one_event_and_no_bar(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:  # R34
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    progress = Progress(log, {"load": 1}, display="auto", clock=FakeClock())
    with progress.phase("load", 1) as load:
        load.advance()
    (event,) = events_of(log, "PROGRESS_DISPLAY_UNAVAILABLE")
    assert "pip install vesu[progress]" in event["reason"]
    with pytest.raises(ArgumentError, match=r"vesu\[progress\]"):
        Progress(log, {"load": 1}, display="tqdm")


def test_the_bar_shows_the_four_together(log: EventLog, capsys: pytest.CaptureFixture[str]) -> None:  # R34
    pytest.importorskip("tqdm")
    with (
        Progress(log, {"fit": 3, "package": 1}, display="tqdm", clock=FakeClock()) as progress,
        progress.fit(n_epochs=1, n_candidates=135, max_iter=120) as fit,
    ):
        fit.at(epoch=0, candidate_first=0, candidate_last=134, iteration=60)
        progress.beat()
        shown = capsys.readouterr().err.rsplit("\r", 1)[-1]
        fit.at(epoch=0, candidate_first=0, candidate_last=134, iteration=120)
    assert " 37.50%|" in shown
    for text in ("global_progress_reel=37.50%", "train_progress_reel=50.00%", "iter 60/120", "remaining_estimate_s="):
        assert text in shown
    assert not events_of(log, "PROGRESS_INTEGRITY_ALERT")


def test_auto_shows_nothing_where_there_is_no_terminal(log: EventLog, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(log, {"load": 1}, display="auto") as progress, progress.phase("load", 1) as load:  # R34
        load.advance()
    assert capsys.readouterr().err == ""
    assert not events_of(log, "PROGRESS_DISPLAY_UNAVAILABLE")
