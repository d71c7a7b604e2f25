"""The run's one source of time, so that a test can put its own in."""

import time

__all__ = ["Clock"]


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
