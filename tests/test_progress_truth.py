"""Whether the percentage and the remaining time are true: runs on a fake clock, whole, cut, and misjudged."""

import itertools
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from progress_truth import recorded, worst_points
from test_events import FakeClock
from vesu.errors import ArgumentError
from vesu.ledger import iter_events
from vesu.run.events import EventLog
from vesu.run.progress import Progress
from vesu.run.weights import EARLIER, Plan

COSTS = {
    "discovery": 1.0,
    "preflight": 3.0,
    "load": 20.0,
    "features": 200.0,
    "train_data": 4.0,
    "fit": 400.0,
    "segment": 150.0,
    "package": 12.0,
}
UNITS = {"discovery": 1, "preflight": 1, "load": 50, "features": 50, "train_data": 1, "segment": 30, "package": 30}
CURSOR = {"epoch": 0, "candidate_first": 0, "candidate_last": 134}


class CutHere(BaseException):
    """The session ends."""


class Simulation:
    """A run of phases with known costs, beaten every five seconds as the thread would."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self.clock = FakeClock()
        self.bands: list[tuple[float, float, float]] = []
        self.cut_at = math.inf

    def spend(self, seconds: float) -> None:
        end = self.clock.now_s + seconds
        while (due := (self.clock.now_s // 5 + 1) * 5) < end:
            self.clock.now_s = due
            if due >= self.cut_at:
                raise CutHere
            self.progress.beat()
            shown = self.progress.snapshot()
            self.bands.append((due, shown["remaining_low_s"], shown["remaining_high_s"]))
        self.clock.now_s = end

    def session(self, costs: Mapping[str, float], expected: Mapping[str, float], **options: Any) -> dict[str, Any]:
        """One session from the saved state on; returns the state that it leaves."""
        done = options.pop("done", {})
        with EventLog(self.path, run_id="r", clock=self.clock) as log:
            log.emit("RUN_START")
            self.progress = Progress(log, expected, display="none", clock=self.clock, **options)
            try:
                for name, seconds in costs.items():
                    self._fit(seconds, done) if name == "fit" else self._phase(name, seconds, done)
            except CutHere:
                pass
            return self.progress.state()

    def _phase(self, name: str, seconds: float, done: dict[str, int]) -> None:
        rng = random.Random(name)
        shares = [rng.lognormvariate(0, 0.4) for _ in range(UNITS[name])]
        before = done.get(name, 0) if name == "segment" else 0
        with self.progress.phase(name, len(shares), done_units=before) as phase:
            for unit in range(before, len(shares)):
                self.spend(seconds * shares[unit] / sum(shares))
                phase.advance()
                done[name] = unit + 1

    def _fit(self, seconds: float, done: dict[str, int]) -> None:
        at = done.get("fit", 0)
        resume_from = {"epoch": 0, "candidate_first": 0, "candidate_index": 134, "iter": at} if at else None
        with self.progress.fit(n_epochs=1, n_candidates=135, max_iter=120, resume_from=resume_from) as fit:
            for iteration in range(at + 1, 121):
                self.spend(seconds / 120)
                fit.at(**CURSOR, iteration=iteration)
                done["fit"] = iteration

    def covered(self) -> float:
        """The share of beats at which the truth lay in the band."""
        end = self.clock.now_s
        return sum(low <= end - at <= high for at, low, high in self.bands) / len(self.bands)


def misjudged(seed: int, spread: float, machine: float = 1.0) -> dict[str, float]:
    rng = random.Random(seed)
    return {name: seconds * rng.lognormvariate(0, spread) / machine for name, seconds in COSTS.items()}


@pytest.mark.parametrize("seed", range(6))
def test_with_honest_costs_the_percentage_is_within_ten_points(tmp_path: Path, seed: int) -> None:  # R34
    run = Simulation(tmp_path)
    run.session(COSTS, misjudged(seed, 0.15), spreads=dict.fromkeys(COSTS, 0.25))
    assert worst_points(run.path) <= 10
    assert run.covered() >= 0.7
    shown = [each.percent for each in recorded(run.path)]
    assert shown == sorted(shown)
    assert not [event for event in iter_events(run.path) if event["event"] == "PROGRESS_INTEGRITY_ALERT"]


def test_a_machine_three_times_slower_or_faster_shows_by_itself(tmp_path: Path) -> None:  # R34
    for machine in (3.0, 1 / 3):
        folder = tmp_path / str(machine)
        folder.mkdir()
        run = Simulation(folder)
        run.session(COSTS, misjudged(1, 0.1, machine))
        assert worst_points(run.path) <= 12


def test_a_warm_cache_does_not_make_the_number_run_ahead(tmp_path: Path) -> None:  # R09 R34
    run = Simulation(tmp_path)
    run.session({**COSTS, "load": 0.5, "features": 0.6}, COSTS)
    assert worst_points(run.path) <= 10
    events = [event for event in iter_events(run.path) if event["event"] == "PHASE_WEIGHT_CALIBRATION"]
    at_features = [event for event in events if event["phase"] == "features"]
    assert len(at_features) > 1, "the phase's own pace moves the weights before it ends"
    assert at_features[-1]["weights_after"]["features"] < 0.05 < at_features[0]["weights_before"]["features"]
    assert at_features[-1]["speed_factor"] > 0.5, "work found done says nothing of the machine"


def test_the_checker_sees_a_number_that_is_not_true(tmp_path: Path) -> None:  # R34: it stood at 33.33 % for hours
    clock = FakeClock()
    with EventLog(tmp_path / "log", run_id="r", clock=clock) as log:
        log.emit("RUN_START")
        for percent in [*range(34), *[33.33] * 66, 100]:
            clock.now_s += 5
            log.emit("GLOBAL_PROGRESS_REALTIME", global_progress_reel=percent)
    assert worst_points(tmp_path / "log") > 60
    with EventLog(tmp_path / "cut", run_id="r", clock=clock) as log:
        log.emit("GLOBAL_PROGRESS_REALTIME", global_progress_reel=50)
    with pytest.raises(AssertionError, match="finished"):
        worst_points(tmp_path / "cut")


def test_the_band_holds_four_of_five(tmp_path: Path) -> None:  # R34
    shares = []
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        run = Simulation(folder)
        run.session(COSTS, misjudged(seed, math.log(2)))
        shares.append(run.covered())
    assert sum(shares) / len(shares) >= 0.8
    widths = [high / low for at, low, high in run.bands if low > 0]
    assert widths[0] > 3 and widths[-1] < 2, "it narrows as the run shows its pace"


# -- resumed runs ------------------------------------------------------------------------------------------------------

WARM = {**COSTS, "load": 1.0, "features": 2.0, "train_data": 0.5}
"""What the later sessions find in the cache."""


def test_a_chain_of_sessions_shows_one_truth(tmp_path: Path) -> None:  # R34 R37
    run = Simulation(tmp_path)
    saved: dict[str, Any] = {}
    done: dict[str, int] = {}
    for lasts_s in (300.0, 200.0, 250.0, math.inf):
        run.cut_at = run.clock.now_s + lasts_s
        costs = COSTS if not saved else {**WARM, "fit": COSTS["fit"]}
        before = saved
        saved = json.loads(json.dumps(run.session(costs, COSTS, done=done, **saved)))
        if before:
            first = run.progress.weights
            assert EARLIER in first
            assert saved["earlier_shown"] > before["earlier_shown"]
            for name, seconds in before["earlier_s"].items():
                assert saved["earlier_s"][name] >= seconds
        run.clock.now_s += 7200  # hours between two sessions are nobody's
    assert (done["fit"], done["segment"]) == (120, 30)
    shown = [each.percent for each in recorded(run.path)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(shown))
    assert worst_points(run.path) <= 10
    trained = [event["train_progress_reel"] for event in iter_events(run.path) if "train_progress_reel" in event]
    assert trained == sorted(trained)


def test_a_resumed_run_goes_on_where_the_state_was(tmp_path: Path) -> None:  # R34 R37
    clock = FakeClock()
    with EventLog(tmp_path / "log", run_id="r", clock=clock) as log:
        saved = {
            "earlier_s": {"load": 10.0, "fit": 45.0},
            "earlier_parts": {"load": 1.0, "fit": 0.5},
            "earlier_shown": 55.0,
        }
        progress = Progress(log, {"load": 10, "fit": 90}, display="none", clock=clock, **saved)
        assert progress.global_progress_reel == pytest.approx(55, abs=1)
        assert progress.train_progress_reel == 50
        assert 44 <= progress.remaining_estimate_s <= 48
        with progress.phase("load", 1) as load:
            load.advance()
        assert progress.global_progress_reel < 58
        cursor = {"epoch": 0, "candidate_first": 0, "candidate_index": 3, "iter": 5}
        with progress.fit(n_epochs=1, n_candidates=4, max_iter=10, resume_from=cursor) as fit:
            assert (progress.train_progress_reel, fit.fraction) == (50, 0.5)
            before = progress.global_progress_reel
            clock.now_s += 9
            fit.at(epoch=0, candidate_first=0, candidate_last=3, iteration=6)
            assert progress.global_progress_reel == pytest.approx(before + (100 - before) / 5, abs=1)
            fit.at(epoch=0, candidate_first=0, candidate_last=3, iteration=10)
        assert progress.global_progress_reel == 100
        assert progress.whole_costs() == {"load": 10.0, "fit": 54.0}
        assert progress.phase_seconds() == {"load": 0.0, "fit": 9.0}


def test_segment_goes_on_after_the_volumes_that_are_done(tmp_path: Path) -> None:  # R37
    with EventLog(tmp_path / "log", run_id="r", clock=FakeClock()) as log:
        saved = {"earlier_s": {"segment": 70.0}, "earlier_parts": {"segment": 0.7}}
        progress = Progress(log, {"segment": 100.0}, display="none", clock=FakeClock(), **saved)
        with progress.phase("segment", 10, done_units=7) as phase:
            assert phase.fraction == 0.7
            assert progress.global_progress_reel == pytest.approx(70, abs=1)
            phase.advance(3)
        assert progress.global_progress_reel == 100
        reported = progress.state()
        assert reported["earlier_parts"] == {"segment": 1.0}


def test_what_is_left_is_known_by_phase() -> None:  # R33 R34
    plan = Plan({"fit": 100.0, "segment": 30.0})
    state = plan.start("fit", 10, 0.0)
    for unit in range(1, 6):
        plan.step(state, unit, 20.0 * unit)
    left = plan.remaining_by_phase(100.0)
    assert 60 < left["fit"] <= 100
    assert 30 < left["segment"] <= 60, "a slow phase makes the others' forecast longer"
    assert sum(left.values()) == pytest.approx(plan.remaining(100.0).seconds)
    overdue = plan.remaining(1000.0)
    assert overdue.seconds > 180, "a step that does not come does not make the rest shorter"


@pytest.mark.parametrize(
    ("saved", "name"),
    [
        ({"earlier_s": {"lunch": 1.0}}, "earlier_s"),
        ({"earlier_s": {"fit": -1.0}}, "earlier_s"),
        ({"earlier_parts": {"fit": 1.5}}, "earlier_parts"),
        ({"earlier_shown": 101.0}, "earlier_shown"),
        ({"spreads": {"fit": math.nan}}, "spreads"),
    ],
)
def test_a_saved_state_that_cannot_be_is_refused(tmp_path: Path, saved: dict[str, Any], name: str) -> None:  # R37
    with EventLog(tmp_path / "log", run_id="r") as log, pytest.raises(ArgumentError, match=name):
        Progress(log, {"fit": 1.0}, display="none", **saved)


def test_more_units_done_than_there_are_is_refused(tmp_path: Path) -> None:  # R37
    with EventLog(tmp_path / "log", run_id="r") as log:
        progress = Progress(log, {"segment": 1.0}, display="none")
        with pytest.raises(ArgumentError, match="done_units"), progress.phase("segment", 3, done_units=4):
            pass
