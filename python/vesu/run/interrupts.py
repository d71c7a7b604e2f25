"""How a run is asked to stop: SIGTERM, SIGINT and the deadline end the main thread's work by one exception (R33).

The kernels' gate looks for Python's signals every 50 ms, so that an exception raised by a signal's handler ends a long
kernel too, well within half a second. The deadline takes the same way: a thread that watches the clock sends the main
thread a signal.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Literal, Protocol, TypeAlias

from vesu.errors import VesuError

__all__ = ["Reason", "StopRequested", "Stops", "stop_on_signals"]

Reason: TypeAlias = Literal["SIGINT", "SIGTERM", "DEADLINE", "MODEL_READY"]
"""``MODEL_READY``: a run that was to go no further than its model."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: How often the deadline is looked at; it moves with what the rest of the run is expected to take.
DEADLINE_POLL_S = 0.25


class StopRequested(BaseException):
    """The run was asked to stop: save the state and leave. No error, hence no Exception, as KeyboardInterrupt is none.

    Examples
    --------
    >>> StopRequested("DEADLINE").reason
    'DEADLINE'
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"asked to stop: {reason}")
        self.reason = reason


class _Deadline(Protocol):
    """As much of a :class:`vesu.run.governor.Governor` as is needed here."""

    def must_stop(self) -> bool: ...


class Stops:
    """The requests to stop that came, as :func:`stop_on_signals` hands it out."""

    def __init__(self, governor: _Deadline | None, emit: Callable[..., object] | None, *, held: bool = False) -> None:
        self.requests: list[Reason] = []
        """Every request in its order, those that were only noted too."""
        self.reason: Reason | None = None
        """The request that was raised, since the start or since :meth:`rearm`."""
        self.polled_only = threading.current_thread() is not threading.main_thread()
        """Whether nothing is raised but by :meth:`poll`: signals reach the main thread only."""
        self._governor = governor
        self._emit = emit
        self._pending: Reason | None = None
        self._noted: Reason | None = None
        self._deadline_sent = False
        self._deferring = int(held)
        self._closed = threading.Event()

    # -- for the run -----------------------------------------------------------------------------------------------

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Nothing is raised inside, for what must not be cut in two; what came meanwhile is raised at the end.

        In a thread other than the main one nothing is ever raised from outside, and this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
        self._raise_pending()

    @contextmanager
    def taken_over(self) -> Iterator[None]:
        """As :meth:`deferred`, and the end of what :func:`stop_on_signals` held back: whoever is here can answer it."""
        try:
            yield
        finally:
            self._deferring -= 1
        self._raise_pending()

    def poll(self) -> None:
        """Raise StopRequested if one is due: once an iteration or so, where :attr:`polled_only` is true."""
        if self.polled_only and self.reason is None and self._governor is not None and self._governor.must_stop():
            self._note("DEADLINE")
        self._raise_pending()

    def poll_deferred(self) -> None:
        """As :meth:`poll`, inside :meth:`deferred` too: for work that knows where it may be cut."""
        deferring, self._deferring = self._deferring, 0
        try:
            self.poll()
        finally:
            self._deferring = deferring

    def rearm(self) -> None:
        """The state is saved: from here on the next request is raised again, and so is the next deadline.

        That deadline is another one only inside the governor's phase ``segment``: call this there.

        Raises
        ------
        StopRequested
            At once, when a signal came while the state was saved.
        """
        self.reason, self._pending, self._noted = None, self._noted, None
        self._raise_pending()

    @contextmanager
    def rearmed(self) -> Iterator[None]:
        """:meth:`rearm` for the body; what comes behind it is noted again, the deadline that has long passed too."""
        self.rearm()
        try:
            yield
        finally:
            self.reason, self._pending = self.reason or self._pending or "DEADLINE", None

    # -- how requests come -----------------------------------------------------------------------------------------

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Handler of the signals, in the main thread; the deadline's thread sends one too, having said so."""
        reason: Reason = "SIGINT" if number == signal.SIGINT else "SIGTERM"
        if self._deadline_sent:
            reason, self._deadline_sent = "DEADLINE", False
        self._note(reason)
        self._raise_pending()

    def _note(self, reason: Reason) -> None:
        self.requests.append(reason)
        answer = "raised"
        if self.reason is not None or self._closed.is_set():
            answer = "noted"  # the state is being saved: that is not to be interrupted
            if reason != "DEADLINE":
                self._noted = reason
        else:
            self._pending = self._pending or reason
            answer = "deferred" if self._deferring else "raised"
        if self._emit is not None:
            with suppress(VesuError):  # a disk that refuses the event must not keep the run from stopping
                self._emit("STOP_REQUESTED", reason=reason, answer=answer)

    def _raise_pending(self) -> None:
        if self._pending is not None and not self._deferring and not self._closed.is_set():
            self.reason, self._pending = self._pending, None
            raise StopRequested(self.reason)

    def watch_deadline(self) -> None:
        """Send the main thread a signal once the deadline has passed; the thread's body."""
        assert self._governor is not None
        main = threading.main_thread().ident
        while not self._closed.wait(DEADLINE_POLL_S):
            waiting = self.reason is not None or self._pending is not None or self._deadline_sent
            if not waiting and main is not None and self._governor.must_stop():
                self._deadline_sent = True
                # A signal of the system, not of the interpreter: it also wakes a main thread that sleeps in a call.
                signal.pthread_kill(main, signal.SIGTERM)

    def close(self) -> None:
        """From here on requests are noted and nothing is raised."""
        self._closed.set()


@contextmanager
def stop_on_signals(
    governor: _Deadline | None = None, *, emit: Callable[..., object] | None = None, held: bool = False
) -> Iterator[Stops]:
    """Inside, SIGTERM, SIGINT and the governor's deadline raise :class:`StopRequested` in the main thread, once.

    What saves the state belongs inside too: a second request is then noted, not raised. Outside the main thread no
    handler can be set; there :meth:`Stops.poll` raises at the deadline, signals take their usual course, and an event
    ``STOP_POLLED_ONLY`` says so.

    Parameters
    ----------
    governor : Governor, optional
        Whose deadline counts; without one there is none.
    emit : callable, optional
        Gets the events ``STOP_REQUESTED`` (reason; answer: raised, deferred or noted) and ``STOP_POLLED_ONLY``.
    held : bool
        Raise nothing until :meth:`Stops.taken_over`: while a session is being opened nobody could answer.

    Yields
    ------
    Stops

    Raises
    ------
    StopRequested

    Notes
    -----
    Requirement R33. A kernel returns within 0.5 s of the request. Handlers that were there before are put back.

    Examples
    --------
    >>> import signal
    >>> with stop_on_signals() as stops:
    ...     try:
    ...         signal.raise_signal(signal.SIGTERM)
    ...     except StopRequested as stop:
    ...         saved = f"state saved on {stop.reason}"
    >>> saved, stops.requests
    ('state saved on SIGTERM', ['SIGTERM'])
    """
    stops = Stops(governor, emit, held=held)
    if stops.polled_only:
        if emit is not None:
            emit("STOP_POLLED_ONLY", thread=threading.current_thread().name)
        yield stops
        return
    before: dict[signal.Signals, Any] = {}
    watch = threading.Thread(target=stops.watch_deadline, name="vesu-deadline", daemon=True)
    try:
        try:
            for number in SIGNALS:
                before[number] = signal.signal(number, stops.on_signal)
            if governor is not None:
                watch.start()
            yield stops
        finally:
            stops.close()
    finally:
        # Twice, as a request may come between the body's end and the first; that one can be raised only once.
        stops.close()
        if watch.ident is not None:
            watch.join()  # before the handlers go: its signal must still find ours
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
