"""The run's one source of time, so that a test can put its own in."""

import os
import time
from collections.abc import Mapping

from vesu.errors import ArgumentError

__all__ = ["Clock", "SessionClock", "session_start_ns"]

SESSION_START = "VESU_SESSION_START"


class Clock:
    """The system's clocks. A test passes an object with the same two methods.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.monotonic() <= clock.monotonic()
    True
    """

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never runs backwards. For durations."""
        return time.monotonic()

    def ts_ns(self) -> int:
        """Nanoseconds since 1970; may step when the machine's clock is set. For time stamps."""
        return time.time_ns()


class SessionClock:
    """How long the platform's session has lasted, and the run in all its sessions (R33).

    Parameters
    ----------
    clock : Clock, optional
        Where the time comes from.
    session_started_ns : int, optional
        When the session began, in nanoseconds since 1970, where that was before this object was made.
    earlier_s : float
        Seconds that earlier sessions of the same run took, as the checkpoint has them.

    Raises
    ------
    ArgumentError
        A start in the future; seconds that are negative or not finite.

    Notes
    -----
    The wall clock is read once, to see how old the session is; from then on only the monotonic clock counts, so
    that a machine whose clock is set neither loses nor wins time.

    Examples
    --------
    >>> clock = SessionClock(earlier_s=3600.0)
    >>> clock.session_s() < 60.0 < 3600.0 <= clock.total_s()
    True
    """

    def __init__(
        self, clock: Clock | None = None, *, session_started_ns: int | None = None, earlier_s: float = 0.0
    ) -> None:
        if not 0.0 <= earlier_s < float("inf"):
            raise ArgumentError(f"earlier_s: got {earlier_s!r}; accepted: seconds, 0 or more")
        self._clock = clock or Clock()
        self._made_at = self._clock.monotonic()
        self._earlier_s = earlier_s
        age_ns = 0 if session_started_ns is None else self._clock.ts_ns() - session_started_ns
        if age_ns < 0:
            raise ArgumentError(
                f"session_started_ns: got {session_started_ns}, {-age_ns / 1e9:.0f} s in the future; "
                f"accepted: when the session began ({SESSION_START}: seconds since 1970)"
            )
        self._age_s = age_ns / 1e9

    def session_s(self) -> float:
        """Seconds since this session began."""
        return self._age_s + self._clock.monotonic() - self._made_at

    def total_s(self) -> float:
        """Seconds of all sessions together."""
        return self._earlier_s + self.session_s()


def session_start_ns(environment: Mapping[str, str] | None = None) -> int | None:
    """When the platform's session began: ``VESU_SESSION_START``, seconds since 1970; None where it is not set.

    Raises
    ------
    ArgumentError
        The variable holds no positive number.

    Examples
    --------
    >>> session_start_ns({"VESU_SESSION_START": "1790000000.5"})
    1790000000500000000
    """
    text = (os.environ if environment is None else environment).get(SESSION_START)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0.0 < seconds < float("inf"):
        raise ArgumentError(f"{SESSION_START}: got {text!r}; accepted: seconds since 1970")
    return round(seconds * 1e9)
