"""The run's event log."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.ledger import iter_events, verify
from vesu.run.clock import Clock
from vesu.run.events import EventLog


class FakeClock(Clock):
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def ts_ns(self) -> int:
        return 1_790_000_000_000_000_000 + int(self.now_s * 1e9)


@dataclass
class Record:
    """As the search reports it."""

    iteration: int
    n: int = 5
    max_iter: int = 3
    candidate_first: int = 0
    loss: NDArray[np.float64] = field(init=False)
    gradient_norm: NDArray[np.float64] = field(init=False)
    nonzero: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.candidate_last = self.candidate_first + self.n - 1
        self.loss = np.arange(self.n) / (1.0 + self.iteration)
        self.gradient_norm = np.sqrt(self.loss)
        self.nonzero = np.arange(self.n) + self.iteration


def test_events_carry_the_run_and_the_clock(tmp_path: Path) -> None:  # R38
    clock = FakeClock()
    with EventLog(tmp_path / "log", run_id="r1", clock=clock) as log:
        assert log.emit("RUN_START", name="a field may be called name", self=1) == 0
        clock.now_s -= 50
        log.emit("CLOCK_SET_BACK")
    first, second = iter_events(log.path)
    assert (first["run_id"], first["name"], first["self"]) == ("r1", "a field may be called name", 1)
    assert first["ts_ns"] == second["ts_ns"] == "1790000100000000000"
    assert (log.size, log.root) == (2, verify(log.path).root)


def test_an_emitted_event_is_in_the_file_at_once(tmp_path: Path) -> None:  # R51
    with EventLog(tmp_path / "log", run_id="r1") as log:
        for n in range(1, 4):
            log.emit("TEST")
            assert len(list(iter_events(log.path))) == n


def test_every_iteration_of_every_candidate_is_logged(tmp_path: Path) -> None:  # R51, R54
    with EventLog(tmp_path / "log", run_id="r1") as log:
        records = {(epoch, k): Record(k) for epoch in range(2) for k in range(1, 4)}
        for (epoch, _), record in records.items():
            log.emit_iterations(record, epoch=epoch)
    events = list(iter_events(log.path))
    assert [(e["epoch"], e["iter"], e["candidate"]) for e in events] == list(
        itertools.product(range(2), range(1, 4), range(5))
    )
    for event in events:
        record, c = records[event["epoch"], event["iter"]], event["candidate"]
        assert (event["event"], event["run_id"], event["max_iter"]) == ("TRAIN_ITERATION", "r1", 3)
        assert (event["loss"], event["grad_norm"]) == (record.loss[c], record.gradient_norm[c])
        assert event["nonzero"] == record.nonzero[c]
    assert verify(log.path).entries == 30


@pytest.mark.parametrize("run_id", ["", 3, None])
def test_a_run_needs_an_id(tmp_path: Path, run_id: object) -> None:  # R38
    with pytest.raises(ArgumentError, match="run_id"):
        EventLog(tmp_path / "log", run_id=run_id)  # type: ignore[arg-type]
