"""The binding's one gate: errors, panics, Ctrl-C, thread counts."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from vesu import _core
from vesu.errors import ArgumentError, FileError, InternalError, VesuError


def test_a_panic_becomes_an_internal_error() -> None:
    with pytest.raises(InternalError, match="probe"):
        _core._gate_probe("panic")
    assert _core._gate_probe("sleep", 0.0) >= 1  # the pool survives


def test_an_os_error_keeps_errno_and_filename() -> None:
    with pytest.raises(FileError) as caught:
        _core._gate_probe("no_space")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, VesuError)
    assert (caught.value.errno, caught.value.filename) == (28, "/probe")


def test_ctrl_c_is_answered_within_half_a_second() -> None:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _core._gate_probe("sleep", 20.0)
    assert time.monotonic() - start < 0.2 + 0.5


def test_no_text_of_a_dtype_is_made_around_a_kernel() -> None:
    # Python code makes it, whose exceptions nobody sees: a Ctrl-C that came just then was lost.
    called: list[str] = []
    array = np.ones((4, 4, 4), np.uint8)
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        _core.median(array)
        before = len(called)
        str(array.dtype)
    finally:
        sys.setprofile(None)
    assert "__str__" in called[before:] and "__str__" not in called[:before]


def test_the_interpreter_is_released_while_a_kernel_runs() -> None:
    ticks = []
    worker = threading.Thread(target=lambda: _core._gate_probe("sleep", 0.3))
    worker.start()
    while worker.is_alive():
        ticks.append(time.monotonic())
        time.sleep(0.01)
    assert len(ticks) > 10


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_n_threads_is_honoured(n_threads: int) -> None:
    assert _core._gate_probe("sleep", 0.0, n_threads) == n_threads


@pytest.mark.parametrize("n_threads", [-1, 0, 5000])
def test_a_silly_thread_count_is_refused(n_threads: int) -> None:
    with pytest.raises(ArgumentError, match="n_threads: got"):
        _core._gate_probe("sleep", 0.0, n_threads)


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("many", "0", "-2", ""):
        monkeypatch.setenv("VESU_NUM_THREADS", wrong)
        with pytest.raises(ArgumentError, match="VESU_NUM_THREADS"):
            _core.thread_count()
