"""Asked to stop: signals and the deadline, during real kernels, in processes of their own."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vesu.run.interrupts import StopRequested, Stops, stop_on_signals

ROOT = Path(__file__).resolve().parents[1]

HEAD = """
import sys, time, threading
import numpy as np
import vesu, vesu.volume
from vesu.run.interrupts import StopRequested, stop_on_signals
rng = np.random.default_rng(0)
grey = rng.random((256, 256, 256), dtype=np.float32)
x = rng.standard_normal((400_000, 8)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.uint8)
def morphology():
    while True:  # one call takes seconds
        vesu.volume.closing(grey, 12, "ball")
def search():
    vesu.ElasticNetLogisticGrid(max_iter=100_000).fit(x, y, gradient=x)
def say(*words):
    print(*words, flush=True)
"""

KERNELS = ["morphology", "search"]


class Child:
    """A program that says what happens to it, line by line."""

    def __init__(self, body: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + body], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: int) -> float:
        time.sleep(0.2)  # let the kernel get under way
        sent = time.monotonic()
        self.process.send_signal(number)
        return sent

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_signal_ends_a_long_kernel_at_once(kernel: str) -> None:  # R33
    body = f"""
with stop_on_signals() as stops:
    for attempt in range(4):
        try:
            say("ready")
            {kernel}()
        except StopRequested as stop:
            say(stop.reason, time.monotonic())
            stops.rearm()
say("left", *stops.requests)
"""
    sent = [signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT]
    with Child(body) as child:
        waits = []
        for number in sent:
            assert child.line() == "ready"
            at = child.send(number)
            reason, raised = child.line().split()
            assert reason == signal.Signals(number).name
            waits.append(float(raised) - at)
        assert min(waits) < 0.5, waits  # the least of them: a busy machine may hold one up
        assert child.line() == "left SIGTERM SIGINT SIGTERM SIGINT"
        assert child.process.wait(20) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_deadline_ends_a_long_kernel_too(kernel: str) -> None:  # R33
    body = f"""
from vesu.config import TimeConfig
from vesu.run.clock import SessionClock
from vesu.run.governor import Governor
governor = Governor(lambda name, **_: 0, TimeConfig(limit_s=3.0, margin_s=1.0), SessionClock())
governor.plan({{"fit": 1.0, "segment": 0.6, "package": 0.2}})
with stop_on_signals(governor) as stops:
    for phase in ("fit", "segment"):
        with governor.phase(phase):
            if phase == "segment":
                stops.rearm()
            try:
                {kernel}()
            except StopRequested as stop:
                say(phase, stop.reason, governor.seconds_left() <= 0)
    with governor.phase("package"):
        stops.rearm()
        time.sleep(0.6)  # past its deadline too, and never cut
say("left", *stops.requests)
"""
    with Child(body) as child:
        assert child.line() == "fit DEADLINE True"
        assert child.line() == "segment DEADLINE True"
        assert child.line() == "left DEADLINE DEADLINE"
        assert child.process.wait(20) == 0


def test_the_deadline_wakes_a_thread_that_sleeps() -> None:  # R33
    body = """
class Now:
    def must_stop(self):
        return True
start = time.monotonic()
try:
    with stop_on_signals(Now()):
        time.sleep(60)
except StopRequested as stop:
    say(stop.reason, time.monotonic() - start < 30)
"""
    with Child(body) as child:
        assert child.line() == "DEADLINE True"
        assert child.process.wait(20) == 0


def test_a_second_signal_does_not_cut_the_flush() -> None:  # R33
    body = """
with stop_on_signals() as stops:
    try:
        say("ready")
        search()
    except StopRequested as stop:
        say("flush")
        time.sleep(0.5)
        say("flushed", stop.reason)
    try:
        stops.rearm()
    except StopRequested as stop:
        say("then", stop.reason)
say("left", *stops.requests)
"""
    with Child(body) as child:
        assert child.line() == "ready"
        child.send(signal.SIGINT)
        assert child.line() == "flush"
        child.process.send_signal(signal.SIGTERM)
        assert child.line() == "flushed SIGINT"
        assert child.line() == "then SIGTERM"
        assert child.line() == "left SIGINT SIGTERM"
        assert child.process.wait(20) == 0


def test_what_is_deferred_is_raised_at_its_end() -> None:  # R36
    events: list[tuple[str, str]] = []
    done = []
    with stop_on_signals(emit=lambda name, **fields: events.append((fields["reason"], fields["answer"]))) as stops:
        with pytest.raises(StopRequested, match="SIGTERM"), stops.deferred():
            signal.raise_signal(signal.SIGTERM)
            with stops.deferred():
                done.append("first part")
            done.append("second part")
        assert done == ["first part", "second part"]
        assert stops.reason == "SIGTERM"
        signal.raise_signal(signal.SIGINT)
    assert events == [("SIGTERM", "deferred"), ("SIGINT", "noted")]
    assert stops.requests == ["SIGTERM", "SIGINT"]


def test_a_kernel_inside_deferred_is_not_cut() -> None:  # R36
    from vesu import _core

    with stop_on_signals() as stops:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        try:
            with stops.deferred():
                threads = _core._gate_probe("sleep", 0.4)
        except StopRequested:
            assert threads >= 1
        else:
            pytest.fail("the signal was lost")
        timer.join()


def test_the_handlers_that_were_there_are_put_back() -> None:  # R33
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        with stop_on_signals(), pytest.raises(StopRequested):
            signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(RuntimeError, match="its own"), stop_on_signals():
        raise RuntimeError("its own")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


class Deadline:
    passed = False

    def must_stop(self) -> bool:
        return self.passed


def test_outside_the_main_thread_the_run_polls_and_says_so() -> None:  # R33
    events: list[str] = []
    found: list[object] = []

    def work() -> None:
        deadline = Deadline()
        with stop_on_signals(deadline, emit=lambda name, **_: events.append(name)) as stops:
            with stops.deferred():
                stops.poll()
            found.append((stops.polled_only, stops.reason))
            deadline.passed = True
            try:
                stops.poll()
            except StopRequested as stop:
                found.append(stop.reason)
            stops.poll()  # once only
            found.append(list(stops.requests))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, None), "DEADLINE", ["DEADLINE"]]
    assert events == ["STOP_POLLED_ONLY", "STOP_REQUESTED"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stop_is_no_error() -> None:  # a wide `except Exception` must not swallow it
    assert not issubclass(StopRequested, Exception)
    with stop_on_signals() as stops, pytest.raises(StopRequested), suppress(Exception):
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(stops, Stops)


def test_a_disk_that_refuses_the_event_keeps_no_run_from_stopping() -> None:  # R33
    from vesu.errors import FileError

    def full(name: str, **fields: object) -> None:
        raise FileError(28, "No space left on device", "events.jsonl")

    with stop_on_signals(emit=full), pytest.raises(StopRequested):
        signal.raise_signal(signal.SIGTERM)


def test_a_stop_at_any_event_leaves_the_governor_ready_for_the_submission() -> None:  # R33
    from vesu.config import TimeConfig
    from vesu.run.clock import SessionClock
    from vesu.run.governor import Governor

    for cut_at in range(1, 5):
        seen: list[str] = []

        def emit(name: str, seen: list[str] = seen, cut_at: int = cut_at, **_: object) -> None:
            seen.append(name)
            if len(seen) == cut_at:
                signal.raise_signal(signal.SIGTERM)

        governor = Governor(emit, TimeConfig(), SessionClock())
        with stop_on_signals() as stops:
            with suppress(StopRequested):
                governor.plan({"fit": 10.0, "segment": 5.0})
                with governor.phase("fit"):
                    governor.observe(12.0)
            assert stops.reason == "SIGTERM"
            stops.rearm()
            with governor.phase("segment"):
                assert governor.reserve_s == 0.0
        assert len(seen) >= cut_at + 2


def test_behind_a_rearmed_body_nothing_is_raised() -> None:  # R33
    with stop_on_signals() as stops:
        with pytest.raises(StopRequested):
            signal.raise_signal(signal.SIGTERM)
        with stops.rearmed(), pytest.raises(StopRequested):
            signal.raise_signal(signal.SIGTERM)
        with stops.rearmed():
            pass
        signal.raise_signal(signal.SIGTERM)
    assert stops.requests == ["SIGTERM"] * 3


# R33
def test_what_comes_while_a_session_is_opened_waits_for_whoever_can_answer() -> None:
    seen: list[str] = []
    with stop_on_signals(emit=lambda name, **fields: seen.append(fields["answer"]), held=True) as stops:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested) as caught, stops.taken_over():
            stops.poll()  # still nothing
            seen.append("taken over")
        with suppress(StopRequested):
            signal.raise_signal(signal.SIGTERM)  # the state is being saved
    assert caught.value.reason == "SIGTERM" and seen == ["deferred", "taken over", "noted"]


# R33
def test_a_run_stopped_while_it_is_opened_ends_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vesu
    from vesu.data.phantom import write_dataset
    from vesu.run import evidence, history

    data = write_dataset(tmp_path / "data", n_train=2, n_test=1, shape=(16, 16, 16))
    git_sha = evidence.git_sha

    def interrupted() -> str | None:
        signal.raise_signal(signal.SIGTERM)
        return git_sha()

    monkeypatch.setattr(evidence, "git_sha", interrupted)
    with pytest.raises(SystemExit) as ended:
        vesu.run(data, tmp_path / "run", display="none")
    assert ended.value.code == 143
    found = history.read_history(tmp_path / "run" / "events.jsonl")
    assert found.status == "stopped" and "RUN_STOPPING" in found.counts
    assert any((tmp_path / "run" / "checkpoints").glob("ckpt-*"))  # something to go on from
