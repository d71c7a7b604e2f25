"""The time governor: session clock, budgets, reserve, deadline, acceleration, KPIs."""

from typing import Any

import pytest

from test_events import FakeClock
from vesu.config import TimeConfig
from vesu.errors import ArgumentError
from vesu.run.clock import SessionClock, session_start_ns
from vesu.run.governor import Governor

EXPECTED = {"discovery": 10.0, "fit": 1000.0, "segment": 200.0, "package": 40.0}


class World:
    """A governor on a clock that a test moves, and the events that it made."""

    def __init__(self, earlier_s: float = 0.0, **config: Any) -> None:
        self.clock = FakeClock()
        self.session = SessionClock(self.clock, earlier_s=earlier_s)
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.governor = Governor(self.emit, TimeConfig(**config), self.session)

    def emit(self, name: str, **fields: Any) -> None:
        self.log.append((name, fields))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for each, fields in self.log if each == name]


# -- the session's clock -----------------------------------------------------------------------------------------------


def test_the_session_began_before_the_process() -> None:  # R33
    clock = FakeClock()
    session = SessionClock(clock, session_started_ns=clock.ts_ns() - 90_000_000_000, earlier_s=1000.0)
    assert (session.session_s(), session.total_s()) == (90.0, 1090.0)
    clock.now_s += 10
    assert (session.session_s(), session.total_s()) == (100.0, 1100.0)


def test_a_wall_clock_that_steps_moves_no_deadline() -> None:  # R33
    clock = FakeClock()
    session = SessionClock(clock, session_started_ns=clock.ts_ns() - 5_000_000_000)
    clock.ts_ns = lambda: 0  # type: ignore[method-assign]  # somebody set the machine's clock
    clock.now_s += 7
    assert session.session_s() == 12.0


def test_a_session_in_the_future_is_refused() -> None:  # R33
    clock = FakeClock()
    with pytest.raises(ArgumentError, match=r"session_started_ns.*30 s in the future.*VESU_SESSION_START"):
        SessionClock(clock, session_started_ns=clock.ts_ns() + 30_000_000_000)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="earlier_s"):
            SessionClock(clock, earlier_s=wrong)


def test_the_platform_says_when_its_session_began(monkeypatch: pytest.MonkeyPatch) -> None:  # R33
    monkeypatch.setenv("VESU_SESSION_START", "1790000000")
    assert session_start_ns() == 1_790_000_000_000_000_000
    assert session_start_ns({}) is None
    for wrong in ("", "yesterday", "-5", "nan", "inf"):
        with pytest.raises(ArgumentError, match="VESU_SESSION_START"):
            session_start_ns({"VESU_SESSION_START": wrong})


# -- budgets and deadline ----------------------------------------------------------------------------------------------


def test_the_deadline_leaves_margin_and_reserve() -> None:  # R33
    world = World(limit_s=2000.0, margin_s=100.0)
    governor = world.governor
    governor.plan(EXPECTED)
    assert governor.reserve_s == 1.5 * 240
    assert governor.seconds_left() == 2000 - 100 - 360
    with governor.phase("fit"):
        world.clock.now_s += 1539
        assert not governor.must_stop()
        world.clock.now_s += 1
        assert governor.must_stop()
    with governor.phase("segment"):  # now only packaging is still to come
        assert governor.reserve_s == 60
        assert not governor.must_stop()
        world.clock.now_s += 300
        assert governor.must_stop()
    with governor.phase("package"):
        world.clock.now_s += 5000
        assert governor.seconds_left() < 0
        assert not governor.must_stop(), "to stop while packaging would save nothing"


def test_nine_hours_are_the_default() -> None:  # R33
    world = World()
    world.governor.plan({"fit": 1e6, "segment": 3600.0, "package": 300.0})
    assert world.governor.seconds_left() == 32_400 - 600 - 1.5 * 3900


def test_without_a_limit_nothing_stops() -> None:  # R33
    world = World(limit_s=None)
    world.governor.plan(EXPECTED)
    world.clock.now_s += 1e9
    world.governor.observe(1e9)
    assert not world.governor.must_stop()
    assert world.events("TIME_BUDGET_STATE")[0]["seconds_left"] is None
    assert world.governor.final()["runtime_margin_to_limit_h"] is None


def test_a_short_session_still_gets_somewhere() -> None:  # R36: a chain of short sessions
    world = World(limit_s=2700.0, margin_s=300.0)
    world.governor.plan({"fit": 1e5, "segment": 9000.0, "package": 300.0})
    assert world.governor.reserve_s == 1200
    assert world.governor.seconds_left() == 1200


def test_the_reserve_follows_what_is_known_later() -> None:  # R33
    world = World(limit_s=10_000.0, margin_s=0.0)
    world.governor.plan(EXPECTED)
    with world.governor.phase("fit"):
        world.governor.observe(500.0, (400.0, 600.0), left_s={"fit": 100.0, "segment": 400.0, "package": 80.0})
        assert world.governor.reserve_s == 1.5 * 480
        assert world.events("RUNTIME_BUDGET_HEARTBEAT")[-1]["reserve_s"] == 720


def test_budgets_fill_the_session_and_an_overrun_is_an_event() -> None:  # R33
    world = World(limit_s=2600.0, margin_s=100.0)
    world.governor.plan(EXPECTED)
    (planned,) = world.events("TIME_BUDGET_STATE")
    assert planned["fits_in_session"] and planned["expected_s"] == 1250
    assert planned["budget_s"] == pytest.approx({name: 2 * seconds for name, seconds in EXPECTED.items()})
    with world.governor.phase("discovery"):
        world.clock.now_s += 19
        world.governor.observe(100.0)
        assert not world.events("PHASE_BUDGET_OVERRUN")
        world.clock.now_s += 2
        world.governor.observe(100.0)
        world.governor.observe(100.0)
    (overrun,) = world.events("PHASE_BUDGET_OVERRUN")
    assert (overrun["phase"], overrun["spent_s"]) == ("discovery", 21)
    assert overrun["budget_s"] == pytest.approx(20)


def test_where_time_is_short_the_reserve_is_kept() -> None:  # R33
    world = World(limit_s=1500.0, margin_s=100.0)
    world.governor.plan(EXPECTED)
    (planned,) = world.events("TIME_BUDGET_STATE")
    budgets = planned["budget_s"]
    assert (budgets["segment"], budgets["package"]) == (300, 60)
    assert budgets["fit"] == pytest.approx(1000 * (1400 - 360) / 1010)
    assert sum(budgets.values()) == pytest.approx(1400)


def test_what_does_not_fit_is_said_at_once() -> None:  # R33
    world = World(limit_s=1000.0, margin_s=100.0)
    world.governor.plan(EXPECTED)
    (planned,) = world.events("TIME_BUDGET_STATE")
    assert not planned["fits_in_session"]
    assert planned["budget_s"]["fit"] < 1000


def test_each_change_is_a_state_event() -> None:  # R33
    world = World(earlier_s=3600.0, limit_s=2000.0, margin_s=100.0)
    world.governor.plan(EXPECTED)
    with pytest.raises(RuntimeError), world.governor.phase("fit"):
        world.clock.now_s += 100
        for eta, high in ((1000.0, 1200.0), (1000.0, 1900.0), (1000.0, 1900.0), (1900.0, 2500.0)):
            world.governor.observe(eta, (eta / 2, high))
        raise RuntimeError("a phase that fails has cost its time too")
    states = world.events("TIME_BUDGET_STATE")
    assert [state["change"] for state in states] == ["planned", "phase_begun", "changed", "changed", "phase_ended"]
    assert [state["state"] for state in states] == ["on_time", "on_time", "tight", "over", "over"]
    assert states[-1]["spent_s"] == {"fit": 100}
    assert (states[-1]["elapsed_session_s"], states[-1]["elapsed_total_s"]) == (100, 3700)
    heartbeat = world.events("RUNTIME_BUDGET_HEARTBEAT")[0]
    assert (heartbeat["eta_low_s"], heartbeat["eta_s"], heartbeat["eta_high_s"]) == (500, 1000, 1200)
    assert (heartbeat["expected_end_s"], heartbeat["phase"]) == (1100, "fit")
    assert len(world.events("RUNTIME_BUDGET_HEARTBEAT")) == 4


def test_what_is_refused() -> None:
    governor = World().governor
    for wrong in ({"lunch": 1.0}, {"fit": -1.0}, {"fit": float("nan")}):
        with pytest.raises(ArgumentError, match="expected_s"):
            governor.plan(wrong)
    with pytest.raises(ArgumentError, match="phase: got 'lunch'"), governor.phase("lunch"):
        pass
    with (
        governor.phase("fit"),
        pytest.raises(ArgumentError, match="'segment' within 'fit'"),
        governor.phase("segment"),
    ):
        pass


# -- acceleration ------------------------------------------------------------------------------------------------------


def test_beyond_a_quarter_past_eight_the_run_accelerates_once() -> None:  # R33 R53
    world = World()
    done: list[str] = []
    world.governor.register_action("all_threads", lambda: done.append("all_threads"))
    world.governor.register_action("nothing_to_do", lambda: False)

    def broken() -> None:
        raise RuntimeError("no such cache")

    world.governor.register_action("broken", broken)
    world.clock.now_s += 3600
    world.governor.observe(29_700.0 - 3600)
    assert not world.governor.accelerating and not done
    for _ in range(3):
        world.governor.observe(29_701.0 - 3600)
    assert done == ["all_threads"]
    (mode,) = world.events("RUNTIME_ACCELERATION_MODE_ON")
    assert mode["acceleration_actions_applied"] == ["all_threads"]
    assert mode["expected_end_s"] == 29_701
    actions = world.events("RUNTIME_ACCELERATION_ACTION")
    assert [(each["action"], each["applied"]) for each in actions] == [
        ("all_threads", True),
        ("nothing_to_do", False),
        ("broken", False),
    ]
    assert "no such cache" in actions[-1]["error"]
    world.governor.register_action("deferred_report", lambda: done.append("later"))
    world.governor.observe(1.0)
    assert done == ["all_threads", "later"], "the mode stays on"
    assert world.governor.final()["acceleration_actions_applied"] == ["all_threads", "deferred_report"]
    assert world.governor.accelerating


def test_the_final_kpis() -> None:  # R33
    world = World(earlier_s=7200.0)
    world.governor.plan(EXPECTED)
    with world.governor.phase("fit"):
        world.clock.now_s += 3600
    final = world.governor.final()
    assert final["elapsed_total_h"] == 3.0
    assert final["runtime_margin_to_9h"] == 8.0
    assert final["runtime_margin_to_limit_h"] == 8.0
    assert final["acceleration_actions_applied"] == []
    assert final["spent_s"] == {"fit": 3600}
    assert world.events("RUNTIME_BUDGET_FINAL") == [final]


def test_nine_hours_on_a_fake_clock_leave_time_to_package() -> None:  # R33
    world = World()
    world.governor.plan({"fit": 80_000.0, "segment": 2400.0, "package": 300.0})
    finished = []
    for phase, seconds, step in (("fit", 80_000, 30), ("segment", 2400, 20), ("package", 300, 300)):
        with world.governor.phase(phase):
            for _ in range(seconds // step):
                if world.governor.must_stop():
                    break
                world.clock.now_s += step
                world.governor.observe(80_000.0)
            else:
                finished.append(phase)
    assert finished == ["segment", "package"], "the search is cut, the submission is made"
    assert 600 <= 32_400 - world.session.session_s() <= 600 + 0.5 * 2700 + 60
    assert len(world.events("RUNTIME_ACCELERATION_MODE_ON")) == 1
