"""Memory health: what is seen, the alerts and their hysteresis, and that looking takes nothing."""

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from test_events import FakeClock
from vesu.data import machine
from vesu.errors import ArgumentError, FileError
from vesu.run import memory
from vesu.run.memory import GpuMemory, MemoryMonitor, MemorySample, read_memory


@dataclass(frozen=True)
class Settings:
    """As [memory] of the configuration has them."""

    warn_fraction: float = 0.8
    alert_fraction: float = 0.92
    interval_s: float = 5.0


@dataclass
class Seen:
    """Collects what is emitted."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields))

    def alerts(self) -> list[tuple[str, str, str]]:
        return [(f["memory"], f["previous"], f["level"]) for name, f in self.events if name == "MEMORY_ALERT"]


def sample_of(fraction: float, gpus: tuple[GpuMemory, ...] = ()) -> MemorySample:
    return MemorySample(10, 20, round((1 - fraction) * 1e6), 1_000_000, gpus)


def after(monkeypatch: pytest.MonkeyPatch, fractions: list[float], settings: Settings | None = None) -> Seen:
    seen = Seen()
    monitor = MemoryMonitor(seen, settings or Settings(), FakeClock())
    for fraction in fractions:
        monkeypatch.setattr(memory, "read_memory", lambda fraction=fraction: sample_of(fraction))
        monitor.sample()
    return seen


def test_every_sample_is_logged_whole(monkeypatch: pytest.MonkeyPatch) -> None:  # R42, R51
    seen = after(monkeypatch, [0.1, 0.1, 0.2])
    assert [name for name, _ in seen.events] == ["MEMORY_HEALTH"] * 3
    fields = seen.events[-1][1]
    assert fields == {"rss_bytes": 10, "peak_rss_bytes": 20, "available_bytes": 800_000, "limit_bytes": 1_000_000,
                      "used_fraction": pytest.approx(0.2), "gpus": []}  # fmt: skip


def test_levels_are_entered_and_left_with_hysteresis(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    fractions = [0.5, 0.81, 0.79, 0.81, 0.93, 0.91, 0.93, 0.88, 0.78, 0.76, 0.5]
    assert after(monkeypatch, fractions).alerts() == [
        ("cpu", "ok", "warn"), ("cpu", "warn", "alert"), ("cpu", "alert", "warn"), ("cpu", "warn", "ok")]  # fmt: skip
    # Swinging about a threshold within the hysteresis is one alert.
    assert len(after(monkeypatch, [0.81, 0.79] * 50).alerts()) == 1
    # Swinging beyond it is told each time.
    assert len(after(monkeypatch, [0.81, 0.70] * 5).alerts()) == 10


def test_a_leap_over_both_thresholds_is_one_alert(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    seen = after(monkeypatch, [0.1, 0.99, 0.1])
    assert seen.alerts() == [("cpu", "ok", "alert"), ("cpu", "alert", "ok")]
    (raised, cleared) = (f for name, f in seen.events if name == "MEMORY_ALERT")
    assert raised["threshold"] == cleared["threshold"] == 0.92 and raised["used_fraction"] == pytest.approx(0.99)


def test_each_memory_has_its_own_level(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    seen = Seen()
    monitor = MemoryMonitor(seen, Settings(), FakeClock())
    gpu = GpuMemory(0, total_bytes=100, free_bytes=5, allocated_bytes=60, reserved_bytes=90)
    monkeypatch.setattr(memory, "read_memory", lambda: sample_of(0.85, (gpu,)))
    monitor.sample()
    assert seen.alerts() == [("cpu", "ok", "warn"), ("cuda:0", "ok", "alert")]
    assert monitor.levels == {"cpu": "warn", "cuda:0": "alert"}
    (found,) = seen.events[0][1]["gpus"]
    assert found == {"device": 0, "total_bytes": 100, "free_bytes": 5, "allocated_bytes": 60, "reserved_bytes": 90,
                     "used_fraction": pytest.approx(0.95)}  # fmt: skip


def test_unknown_memory_gives_no_alert(monkeypatch: pytest.MonkeyPatch) -> None:  # R42, R54
    seen = Seen()
    monkeypatch.setattr(memory, "read_memory", lambda: MemorySample(None, None, None, None))
    MemoryMonitor(seen, Settings(), FakeClock()).sample()
    assert [name for name, _ in seen.events] == ["MEMORY_HEALTH"] and seen.events[0][1]["used_fraction"] is None


def test_it_samples_when_due(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    clock, seen = FakeClock(), Seen()
    monkeypatch.setattr(memory, "read_memory", lambda: sample_of(0.1))
    monitor = MemoryMonitor(seen, Settings(interval_s=5.0), clock)
    taken = []
    for _ in range(12):
        taken.append(monitor.sample_if_due() is not None)
        clock.now_s += 2.0
    assert taken == [True, False, False] * 4


def test_its_thread_samples_until_the_end_and_outlives_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    monkeypatch.setattr(memory, "read_memory", lambda: sample_of(0.1))
    three = threading.Event()
    calls = []

    def emit(name: str, /, **fields: Any) -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise FileError(28, "No space left on device", "events.jsonl")
        if len(calls) >= 3:
            three.set()

    with MemoryMonitor(emit, Settings(interval_s=0.001)):
        assert three.wait(30)
    assert set(calls[:-1]) == {"vesu-memory"} and calls[-1] == threading.current_thread().name  # the peak, at the end
    assert not [thread for thread in threading.enumerate() if thread.name == "vesu-memory"]


def test_this_process_is_measured() -> None:  # R42
    before = read_memory()
    if before.rss_bytes is None:
        pytest.skip("this system does not tell a process its memory")
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    found = read_memory()
    assert found.rss_bytes is not None and found.rss_bytes > before.rss_bytes + (48 << 20)
    assert found.peak_rss_bytes is not None and found.peak_rss_bytes >= found.rss_bytes
    assert found.available_bytes is not None and found.limit_bytes is not None
    assert 0 < found.available_bytes <= found.limit_bytes and found.gpus == ()
    assert len(block) == 64 << 20


# ---- containers ----

MEMINFO = "MemTotal:       1000000 kB\nMemFree:          10 kB\nMemAvailable:    400000 kB\n"


@pytest.mark.parametrize(
    ("files", "limit", "available"),
    [
        ({}, 1_024_000_000, 409_600_000),
        ({"memory.max": "max\n", "memory.current": "5"}, 1_024_000_000, 409_600_000),
        ({"memory.max": "500000000\n", "memory.current": "450000000", "memory.stat": "anon 1\ninactive_file 30000000"},
         500_000_000, 80_000_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "7",
          "memory/memory.stat": ""}, 1_024_000_000, 409_600_000),
        ({"memory/memory.limit_in_bytes": "300000000", "memory/memory.usage_in_bytes": "100000000",
          "memory/memory.stat": "total_inactive_file 0"}, 300_000_000, 200_000_000),
    ],
    ids=["no group", "no limit", "version 2", "version 1 without", "version 1"],
)  # fmt: skip
def test_the_container_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], limit: int, available: int
) -> None:  # R42
    (tmp_path / "memory").mkdir()
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.stat").write_text("")
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert (machine.memory_limit_bytes(), machine.available_memory_bytes()) == (limit, available)


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # R42
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert read_memory() == MemorySample(None, None, None, None)


# ---- GPU ----


class Cuda(SimpleNamespace):
    """torch.cuda with three devices: 0 is current, 2 holds tensors, 1 is nobody's."""

    asked: list[int]
    initialised = True

    def is_initialized(self) -> bool:
        return self.initialised

    def device_count(self) -> int:
        return 3

    def current_device(self) -> int:
        return 0

    def memory_reserved(self, device: int) -> int:
        return (0, 0, 40)[device]

    def memory_allocated(self, device: int) -> int:
        return (0, 0, 30)[device]

    def mem_get_info(self, device: int) -> tuple[int, int]:
        self.asked.append(device)
        return 25, 100


def test_only_gpus_in_use_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    cuda = Cuda(asked=[])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = read_memory().gpus
    assert found == (GpuMemory(0, 100, 25, 0, 0), GpuMemory(2, 100, 25, 30, 40)) and cuda.asked == [0, 2]
    assert read_memory().fractions()["cuda:2"] == 0.75
    cuda.initialised = False
    assert read_memory().gpus == ()


def test_a_lost_gpu_is_left_to_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:  # R42
    def lost(device: int) -> tuple[int, int]:
        raise RuntimeError("CUDA error: device unavailable")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda(asked=[], mem_get_info=lost)))
    assert read_memory().gpus == ()


def test_looking_imports_no_torch() -> None:  # R42
    program = "import sys; from vesu.run.memory import read_memory; read_memory(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    "bad", [{"warn_fraction": 0.0}, {"warn_fraction": 0.95}, {"alert_fraction": 1.1}, {"interval_s": 0.0},
            {"warn_fraction": float("nan")}],
)  # fmt: skip
def test_impossible_thresholds_are_refused(bad: dict[str, float]) -> None:  # R42
    with pytest.raises(ArgumentError, match=r"memory\.\w+"):
        MemoryMonitor(Seen(), Settings(**bad))
