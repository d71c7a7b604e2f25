"""One run of a campaign in a process of its own: its crash is its own, and its end is told in words."""

import ctypes
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vesu.errors import FileError
from vesu.run.folder import MARK, locked
from vesu.run.interrupts import StopRequested, Stops

__all__ = ["Ended", "run_to_its_end", "wait_until_free"]

STOP_S = 120.0
"""A run that is asked to stop saves its state; one that has not ended after so long is killed."""

LOOK_S = 0.25
"""Between two looks for a request to stop."""

FREE_S = 60.0
POLL_S = 0.5

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from vesu.cli import main; sys.exit(main())"
"""``python -m vesu``, with the modules that are found here: of several installed versions, this one."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Its exit code; negative is the signal that killed it."""
    last_words: str

    def __str__(self) -> str:
        """In words.

        Examples
        --------
        >>> str(Ended(-9, "")), str(Ended(2, "vesu: DataError: nothing there"))
        ('killed by SIGKILL', 'exit code 2: vesu: DataError: nothing there')
        """
        if self.code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-self.code).name}"
            return f"killed by signal {-self.code}"
        return f"exit code {self.code}" + (f": {self.last_words}" if self.last_words else "")


def run_to_its_end(words: Sequence[str], stops: Stops) -> Ended:
    """Run the command ``vesu`` with these words and wait for its end.

    A request to stop is handed on, once; the run saves its state and ends, and the request goes on from here. It is
    looked for, not raised anywhere: in the midst of a fork an exception would be lost, or the process.

    Raises
    ------
    FileError
        The process cannot be started.
    StopRequested, KeyboardInterrupt
        After the run has ended too.
    """
    with stops.deferred():
        process = _started(words)
        try:
            errors = _errors_at_its_end(process, stops)
        except BaseException as stop:
            by_term = isinstance(stop, StopRequested) and stop.reason == "SIGTERM"
            _stop(process, signal.SIGTERM if by_term else signal.SIGINT)
            raise
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return Ended(process.returncode, lines[-1] if lines else "")


def _started(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(sys.path), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C reaches the campaign alone, which hands it on
            preexec_fn=_end_with_its_parent(),
        )
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), sys.executable) from error


def _errors_at_its_end(process: "subprocess.Popen[bytes]", stops: Stops) -> bytes:
    while True:
        try:
            return process.communicate(timeout=LOOK_S)[1]
        except subprocess.TimeoutExpired:
            stops.poll_deferred()


def wait_until_free(folder: Path) -> None:
    """Wait for a run that an earlier, killed campaign left at work and that is saving its state now.

    Raises
    ------
    FileError
        It still writes there after a minute.
    """
    deadline = time.monotonic() + FREE_S
    while (folder / MARK).exists():
        try:
            with locked(folder):
                return
        except FileError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() > deadline:
                raise
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(folder)) from error
        time.sleep(POLL_S)


def _stop(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        process.communicate(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _end_with_its_parent() -> Callable[[], None] | None:
    """On Linux: a killed campaign's run gets SIGTERM and saves its state, rather than working on unwatched."""
    if not sys.platform.startswith("linux"):
        return None
    set_option, parent_death, term = ctypes.CDLL(None).prctl, 1, int(signal.SIGTERM)

    def ask() -> None:
        set_option(parent_death, term)

    return ask
