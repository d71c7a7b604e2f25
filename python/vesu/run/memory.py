"""Memory health of a run: what it holds, what is left to it, on the CPU and on the GPU (R42)."""

import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

from vesu.data.machine import available_memory_bytes, memory_limit_bytes
from vesu.errors import ArgumentError, VesuError
from vesu.run.clock import Clock

__all__ = ["GpuMemory", "MemoryMonitor", "MemorySample", "MemorySettings"]

Level: TypeAlias = Literal["ok", "warn", "alert"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "alert")

HYSTERESIS = 0.03
"""A level is left only this far below its threshold, so that a use that swings about it gives one event, not many."""

_STATUS = Path("/proc/self/status")


class MemorySettings(Protocol):
    """Configuration section ``[memory]``."""

    @property
    def warn_fraction(self) -> float: ...
    @property
    def alert_fraction(self) -> float: ...
    @property
    def interval_s(self) -> float: ...


@dataclass(frozen=True)
class GpuMemory:
    """One CUDA device that this process uses."""

    device: int
    total_bytes: int
    free_bytes: int
    """As the driver has it: other processes count."""
    allocated_bytes: int
    """In tensors of this process."""
    reserved_bytes: int
    """Held by torch's allocator, tensors included."""

    @property
    def used_fraction(self) -> float:
        """Taken by anybody, 0 to 1."""
        return 1.0 - self.free_bytes / self.total_bytes


@dataclass(frozen=True)
class MemorySample:
    """Memory at one moment; None is unknown on this system."""

    rss_bytes: int | None
    """Resident in this process."""
    peak_rss_bytes: int | None
    """The most that ever was."""
    available_bytes: int | None
    """What this process can still take: the least of what the system and the container leave."""
    limit_bytes: int | None
    """What there is: the container's limit, or the machine's memory where that is less."""
    gpus: tuple[GpuMemory, ...] = ()

    @property
    def used_fraction(self) -> float | None:
        """Of the limit, by anybody, 0 to 1: what ends a process is the end of the memory, whoever took it."""
        if self.available_bytes is None or not self.limit_bytes:
            return None
        return min(1.0, max(0.0, 1.0 - self.available_bytes / self.limit_bytes))

    def fractions(self) -> dict[str, float]:
        """The used share by memory: ``cpu``, ``cuda:0``."""
        cpu = {} if self.used_fraction is None else {"cpu": self.used_fraction}
        return cpu | {f"cuda:{gpu.device}": gpu.used_fraction for gpu in self.gpus}

    def to_json(self) -> dict[str, Any]:
        """The fields of ``MEMORY_HEALTH``."""
        return {
            "rss_bytes": self.rss_bytes,
            "peak_rss_bytes": self.peak_rss_bytes,
            "available_bytes": self.available_bytes,
            "limit_bytes": self.limit_bytes,
            "used_fraction": self.used_fraction,
            "gpus": [{**vars(gpu), "used_fraction": gpu.used_fraction} for gpu in self.gpus],
        }


class MemoryMonitor:
    """Samples memory and logs it: ``MEMORY_HEALTH`` each time, ``MEMORY_ALERT`` when a level is entered or left.

    As a context manager it samples every ``config.interval_s`` seconds in a thread of its own, however long a kernel
    runs (kernels release the interpreter), and once more at the end.

    Parameters
    ----------
    emit : callable
        Called as ``emit(name, **fields)``; an event log's ``emit`` fits.
    config : MemorySettings
        ``warn_fraction`` and ``alert_fraction`` of the memory in use, 0 to 1, and ``interval_s``.
    clock : Clock, optional
        For tests.

    Raises
    ------
    ArgumentError
        Not ``0 < warn_fraction <= alert_fraction <= 1``, or an interval that is not above 0.

    Notes
    -----
    Requirement R42. A GPU is looked at only where torch is imported and has initialised CUDA already: looking never
    takes memory. ``MEMORY_ALERT`` has ``memory`` (``cpu``, ``cuda:0``), ``level`` (``ok``, ``warn``, ``alert``),
    ``previous``, ``used_fraction`` and ``threshold``. A disk that refuses the thread's event stops nothing here: the
    run meets that disk itself.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> seen = []
    >>> config = SimpleNamespace(warn_fraction=0.8, alert_fraction=0.92, interval_s=5.0)
    >>> monitor = MemoryMonitor(lambda name, **fields: seen.append(name), config)
    >>> sample = monitor.sample()
    >>> seen[0], (sample.rss_bytes or 1) > 0
    ('MEMORY_HEALTH', True)
    """

    def __init__(self, emit: Callable[..., object], config: MemorySettings, clock: Clock | None = None) -> None:
        if not 0.0 < config.warn_fraction <= config.alert_fraction <= 1.0:
            got = f"{config.warn_fraction!r}, {config.alert_fraction!r}"
            raise ArgumentError(
                f"memory.warn_fraction, memory.alert_fraction: got {got}; accepted: 0 < warn <= alert <= 1"
            )
        if not config.interval_s > 0.0:
            raise ArgumentError(f"memory.interval_s: got {config.interval_s!r}; accepted: above 0 seconds")
        self._emit = emit
        self._thresholds: dict[Level, float] = {
            "ok": 0.0,
            "warn": config.warn_fraction,
            "alert": config.alert_fraction,
        }
        self._interval_s = config.interval_s
        self._clock = clock or Clock()
        self._levels: dict[str, Level] = {}
        self._sampled_at: float | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def sample(self) -> MemorySample:
        """Look now, log what was seen, and the changes of level.

        Raises
        ------
        FileError
            The log's disk refused.
        """
        with self._lock:
            self._sampled_at = self._clock.monotonic()
            found = read_memory()
            self._emit("MEMORY_HEALTH", **found.to_json())
            for memory, fraction in found.fractions().items():
                self._judge(memory, fraction)
            return found

    def sample_if_due(self) -> MemorySample | None:
        """:meth:`sample` when the interval has gone by since the last one: for a heartbeat to call."""
        now = self._clock.monotonic()
        due = self._sampled_at is None or now - self._sampled_at >= self._interval_s
        return self.sample() if due else None

    @property
    def levels(self) -> dict[str, Level]:
        """The level of each memory seen: ``{"cpu": "ok"}``."""
        return dict(self._levels)

    def _judge(self, memory: str, fraction: float) -> None:
        previous = self._levels.get(memory, "ok")
        level = self._level(fraction, previous)
        self._levels[memory] = level
        if level != previous:
            crossed = LEVELS[max(LEVELS.index(level), LEVELS.index(previous))]
            self._emit(
                "MEMORY_ALERT",
                memory=memory,
                level=level,
                previous=previous,
                used_fraction=fraction,
                threshold=self._thresholds[crossed],
            )

    def _level(self, fraction: float, previous: Level) -> Level:
        """The highest level whose threshold is reached; one already entered holds on a little below its threshold."""

        def reached(level: Level) -> bool:
            slack = HYSTERESIS if LEVELS.index(level) <= LEVELS.index(previous) else 0.0
            return level == "ok" or fraction >= self._thresholds[level] - slack

        return [level for level in LEVELS if reached(level)][-1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sample_until_stopped, name="vesu-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(VesuError):
            self.sample()  # the peak of the whole run

    def _sample_until_stopped(self) -> None:
        while True:
            with suppress(VesuError):
                self.sample()
            if self._stop.wait(self._interval_s):
                return


def read_memory() -> MemorySample:
    """Memory as it is now."""
    status = _process_status()
    return MemorySample(
        rss_bytes=status.get("VmRSS"),
        peak_rss_bytes=status.get("VmHWM"),
        available_bytes=available_memory_bytes(),
        limit_bytes=memory_limit_bytes(),
        gpus=_gpus(),
    )


def _process_status() -> dict[str, int]:
    """The kernel's figures of this process, in bytes; empty where there are none."""
    try:
        rows = re.findall(r"^(\w+):\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return {}
    return {name: int(kib) * 1024 for name, kib in rows}


def _gpus() -> tuple[GpuMemory, ...]:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return ()
    try:
        # To ask for the memory of a device that is not in use would make a context on it, which takes memory.
        mine = [n for n in range(cuda.device_count()) if n == cuda.current_device() or cuda.memory_reserved(n)]
        return tuple(_gpu(cuda, number) for number in mine)
    except RuntimeError:  # the device was lost: the computation on it will say so
        return ()


def _gpu(cuda: Any, number: int) -> GpuMemory:
    free, total = cuda.mem_get_info(number)
    return GpuMemory(number, total, free, cuda.memory_allocated(number), cuda.memory_reserved(number))
