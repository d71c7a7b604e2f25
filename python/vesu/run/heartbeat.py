"""Signs of life around long computations, and whether a quiet one is slow, stuck, or long and healthy (R35)."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vesu.run.clock import Clock

__all__ = ["Heartbeat", "Ticker", "Verdict"]

Verdict: TypeAlias = Literal["healthy", "long_but_healthy", "slow", "stuck"]
"""'healthy': steps come as expected. 'long_but_healthy': quiet for some beats, computing, and within what was expected.
'slow': computing, and well beyond what was expected. 'stuck': quiet, and the process does not compute."""

#: Beats without a step before anything is suspected: shorter pauses are nobody's business.
QUIET_BEATS = 3

#: Beats over which a process that computes nothing is stuck and does not only wait for a disk.
IDLE_BEATS = 12

#: Processor seconds a second below which a process does not compute; the beats themselves take a hundredth of this.
IDLE_SHARE = 0.05


@dataclass
class _Activity:
    """A computation under watch."""

    name: str
    expected_s: float | None
    """Seconds that its next step is expected to take; None where nobody knows."""
    began_at: float
    stepped_at: float


class Heartbeat:
    """Watches the running computation; :meth:`beat` is called every few seconds by a thread.

    Parameters
    ----------
    emit : callable
        Gets each event: ``emit(name, **fields)``.
    interval_s : float
        Seconds between two beats.
    stall_factor : float
        A step that takes so many times what was expected of it is suspected to stall.
    clock : Clock, optional
        For tests.
    cpu_s : callable, optional
        Processor seconds that this process has used, all threads together; for tests.

    Notes
    -----
    Requirement R35. ``HEARTBEAT`` at each beat while a computation runs, with ``verdict``; ``STALL_SUSPECTED`` when it
    becomes slow or stuck, ``STALL_CLEARED`` when a step comes after all, the computation ends or computes again. The
    kernels let the interpreter go while they run, so that no long one starves the thread; ``late_s`` says how late
    a beat came, should anything else do so. Processor time of child processes is not seen.

    Examples
    --------
    >>> events = []
    >>> heartbeat = Heartbeat(lambda name, **fields: events.append((name, fields["verdict"])), interval_s=5.0)
    >>> with heartbeat.around("calibration"):
    ...     heartbeat.beat()
    'healthy'
    >>> events
    [('HEARTBEAT', 'healthy')]
    """

    def __init__(
        self,
        emit: Callable[..., object],
        *,
        interval_s: float = 5.0,
        stall_factor: float = 4.0,
        clock: Clock | None = None,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._emit = emit
        self._interval_s = interval_s
        self._stall_factor = stall_factor
        self._clock = clock or Clock()
        self._cpu_s = cpu_s
        self._lock = threading.RLock()
        self._activities: list[_Activity] = []
        self._used: deque[tuple[float, float]] = deque(maxlen=IDLE_BEATS + 1)
        self._suspected: tuple[Verdict, float] | None = None

    # -- what is watched -------------------------------------------------------------------------------------------

    @contextmanager
    def around(self, name: str, *, expected_s: float | None = None) -> Iterator[None]:
        """Watch one computation; one inside another is watched in its place.

        Parameters
        ----------
        name : str
            As it stands in the events.
        expected_s : float, optional
            Seconds that it, or its first step, is expected to take; without them it may be stuck, but not slow.
        """
        now = self._clock.monotonic()
        activity = _Activity(name, expected_s, now, now)
        try:
            with self._lock:
                self._restart("began")
                self._activities.append(activity)
            yield
        finally:
            with self._lock:
                self._restart("ended")
                self._activities = [each for each in self._activities if each is not activity]
                if self._activities:  # the outer one was not quiet: this was a part of it
                    self._activities[-1].stepped_at = self._clock.monotonic()

    def step(self, next_s: float | None = None) -> None:
        """Something got done; the next step is expected to take ``next_s`` seconds (default: as said before)."""
        with self._lock:
            self._restart("step")
            if self._activities:
                activity = self._activities[-1]
                activity.stepped_at = self._clock.monotonic()
                if next_s is not None:
                    activity.expected_s = next_s

    def _restart(self, why: str) -> None:
        self._clear(why)
        self._used.clear()
        self._used.append((self._clock.monotonic(), self._cpu_s()))

    # -- the beat --------------------------------------------------------------------------------------------------

    def beat(self, late_s: float = 0.0) -> Verdict | None:
        """Log how the running computation fares; returns the verdict, None while nothing runs.

        Parameters
        ----------
        late_s : float
            How much later than due this beat comes.
        """
        with self._lock:
            if not self._activities:
                return None
            activity, now = self._activities[-1], self._clock.monotonic()
            quiet_s = now - activity.stepped_at
            self._used.append((now, self._cpu_s()))
            share = self._cpu_share()
            verdict = self._judge(activity, quiet_s, share)
            fields = {
                "activity": activity.name,
                "elapsed_s": now - activity.began_at,
                "quiet_s": quiet_s,
                "expected_step_s": activity.expected_s,
                "cpu_share": share,
                "verdict": verdict,
            }
            self._emit("HEARTBEAT", **fields, cpu_s=self._used[-1][1], late_s=late_s)
            known = self._suspected[0] if self._suspected else None
            if verdict in ("slow", "stuck") and verdict != known:
                self._suspected = (verdict, self._suspected[1] if self._suspected else now)
                self._emit("STALL_SUSPECTED", **fields)
            elif verdict in ("healthy", "long_but_healthy"):
                self._clear("computes again")
            return verdict

    def _cpu_share(self) -> float:
        """Processor seconds a second since the last step, or over the last :data:`IDLE_BEATS` beats."""
        (first_at, first_s), (last_at, last_s) = self._used[0], self._used[-1]
        return (last_s - first_s) / (last_at - first_at) if last_at > first_at else 0.0

    def _judge(self, activity: _Activity, quiet_s: float, share: float) -> Verdict:
        if quiet_s < QUIET_BEATS * self._interval_s:
            return "healthy"
        if share < IDLE_SHARE and quiet_s >= IDLE_BEATS * self._interval_s:
            return "stuck"
        if activity.expected_s is not None and quiet_s > self._stall_factor * activity.expected_s:
            return "slow"
        return "long_but_healthy"

    def _clear(self, why: str) -> None:
        if self._suspected is None:
            return
        (verdict, since), self._suspected = self._suspected, None
        activity = self._activities[-1].name if self._activities else None
        self._emit(
            "STALL_CLEARED", activity=activity, verdict=verdict, why=why, suspected_s=self._clock.monotonic() - since
        )


class Ticker:
    """Calls a function every few seconds on a thread of its own, until it is stopped.

    Parameters
    ----------
    tick : callable
        Called with the seconds by which the call is late.
    interval_s : float
        Seconds between two calls.

    Examples
    --------
    >>> import time
    >>> late = []
    >>> ticker = Ticker(late.append, 0.01)
    >>> ticker.start()
    >>> while not late:
    ...     time.sleep(0.01)
    >>> ticker.stop()
    >>> late[0] >= 0
    True
    """

    def __init__(self, tick: Callable[[float], None], interval_s: float) -> None:
        self._tick = tick
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """The first call comes after one interval."""
        self._thread = threading.Thread(target=self._run, name="vesu-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No call comes after this returns."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while not self._stopped.wait(max(due - time.monotonic(), 0.0)):
            self._tick(max(time.monotonic() - due, 0.0))
            now = time.monotonic()
            due = due + self._interval_s if due + self._interval_s > now else now + self._interval_s
