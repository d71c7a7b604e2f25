"""Signs of life, and slow told from stuck told from long but healthy."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from test_events import FakeClock
from vesu.run.heartbeat import Heartbeat, Ticker
from vesu.volume import closing


class World:
    """A heartbeat on a clock and a processor that a test moves."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.cpu = 0.0
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.heart = Heartbeat(self.emit, clock=self.clock, cpu_s=lambda: self.cpu, **options)

    def emit(self, name: str, **fields: Any) -> None:
        self.log.append((name, fields))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for each, fields in self.log if each == name]

    def live(self, seconds: float, cores: float) -> list[str | None]:
        """Time passes with so many cores computing, and a beat every five seconds; returns the verdicts."""
        verdicts: list[str | None] = []
        for _ in range(int(seconds // 5)):
            self.clock.now_s += 5
            self.cpu += 5 * cores
            verdicts.append(self.heart.beat())
        return verdicts


def test_nothing_beats_while_nothing_runs() -> None:  # R35
    world = World()
    assert world.live(60, 1.0) == [None] * 12
    assert world.log == []


def test_steps_that_come_are_healthy() -> None:  # R35
    world = World()
    with world.heart.around("fit", expected_s=6.0):
        for _ in range(30):
            assert set(world.live(10, 1.5)) == {"healthy"}
            world.heart.step(6.0)
    beats = world.events("HEARTBEAT")
    assert len(beats) == 60 == len(world.log)
    assert beats[-1]["activity"] == "fit"
    assert (beats[-1]["elapsed_s"], beats[-1]["quiet_s"], beats[-1]["expected_step_s"]) == (300, 10, 6.0)
    assert beats[-1]["cpu_share"] == pytest.approx(1.5)


def test_a_long_step_that_was_expected_is_no_stall() -> None:  # R35
    world = World(stall_factor=4.0)
    with world.heart.around("segment", expected_s=600.0):
        verdicts = world.live(2400, 2.0)
    assert set(verdicts) == {"healthy", "long_but_healthy"}
    assert verdicts[:3] == ["healthy", "healthy", "long_but_healthy"]
    assert not world.events("STALL_SUSPECTED")


def test_a_step_far_beyond_its_time_is_slow_until_it_comes() -> None:  # R35
    world = World(stall_factor=4.0)
    with world.heart.around("segment", expected_s=10.0):
        verdicts = world.live(100, 1.0)
        assert verdicts[7] == "long_but_healthy" and verdicts[8] == "slow"  # 40 s and 45 s
        (suspected,) = world.events("STALL_SUSPECTED")
        assert (suspected["verdict"], suspected["quiet_s"], suspected["activity"]) == ("slow", 45, "segment")
        world.heart.step()
        (cleared,) = world.events("STALL_CLEARED")
        assert (cleared["verdict"], cleared["why"], cleared["suspected_s"]) == ("slow", "step", 55)
        assert world.live(10, 1.0) == ["healthy", "healthy"]


def test_a_process_that_computes_nothing_is_stuck_however_long_was_expected() -> None:  # R35
    world = World()
    with world.heart.around("fit", expected_s=3600.0):
        world.live(120, 1.0)
        verdicts = world.live(120, 0.001)
        assert verdicts[:11] == ["long_but_healthy"] * 11, "it computed within the last minute"
        assert verdicts[-1] == "stuck"
        (suspected,) = world.events("STALL_SUSPECTED")
        assert suspected["verdict"] == "stuck" and suspected["cpu_share"] < 0.05
        assert world.live(60, 1.0)[-1] == "long_but_healthy"
        (cleared,) = world.events("STALL_CLEARED")
        assert (cleared["verdict"], cleared["why"]) == ("stuck", "computes again")


def test_slow_that_becomes_stuck_is_said_again() -> None:  # R35
    world = World()
    with world.heart.around("fit", expected_s=5.0):
        world.live(100, 1.0)
        world.live(100, 0.0)
    assert [each["verdict"] for each in world.events("STALL_SUSPECTED")] == ["slow", "stuck"]
    assert [each["why"] for each in world.events("STALL_CLEARED")] == ["ended"]


def test_short_steps_may_pause_for_some_beats() -> None:  # R35
    world = World()
    with world.heart.around("fit", expected_s=0.1):
        assert world.live(10, 0.0) == ["healthy", "healthy"]
        assert world.live(5, 1.0) == ["slow"]


def test_without_an_expectation_it_may_be_stuck_but_not_slow() -> None:  # R35
    world = World()
    with world.heart.around("draw of epoch 1"):
        assert set(world.live(3600, 1.0)[3:]) == {"long_but_healthy"}
        assert world.live(120, 0.0)[-1] == "stuck"


def test_what_runs_inside_is_watched_in_its_place() -> None:  # R35
    world = World()
    with world.heart.around("fit", expected_s=1.0):
        with world.heart.around("draw", expected_s=1000.0):
            assert set(world.live(600, 1.0)) == {"healthy", "long_but_healthy"}
        assert world.live(10, 1.0) == ["healthy", "healthy"], "the outer one was not quiet meanwhile"
    assert {each["activity"] for each in world.events("HEARTBEAT")} == {"draw", "fit"}


def test_a_kernel_on_all_threads_starves_no_heartbeat() -> None:  # R35
    volume = np.random.default_rng(0).random((224, 224, 224), dtype=np.float32)
    beats: list[dict[str, Any]] = []
    heart = Heartbeat(lambda name, **fields: beats.append(fields), interval_s=0.02)
    ticker = Ticker(lambda late_s: heart.beat(late_s), 0.02)
    start = time.monotonic()
    with heart.around("closing"):
        ticker.start()
        closing(volume, 8, "ball")
        ticker.stop()
    took_s = time.monotonic() - start
    assert len(beats) >= 5
    # Between two beats, and before the first, never more than a good part of the whole kernel.
    at = [0.0, *(each["elapsed_s"] for each in beats), took_s]
    assert max(np.diff(at)) < max(0.5 * took_s, 0.25)
    assert all(each["late_s"] >= 0 for each in beats)
    assert beats[-1]["cpu_s"] > beats[0]["cpu_s"]


def test_after_stop_no_tick_comes() -> None:
    ticks: list[float] = []
    ticker = Ticker(ticks.append, 0.01)
    ticker.start()
    deadline = time.monotonic() + 10
    while len(ticks) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    ticker.stop()
    seen = len(ticks)
    assert seen >= 3
    time.sleep(0.05)
    assert len(ticks) == seen
    assert not [thread for thread in threading.enumerate() if thread is ticker._thread]
    Ticker(ticks.append, 1.0).stop()  # one that never started
