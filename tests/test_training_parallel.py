"""Two processes train the bits of one with the same global batch, and none of them waits for a dead one (R19)."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import training_ranks
from training_case import one_thread_fixture  # noqa: F401
from vesu.distill.parallel import Ranks
from vesu.errors import ArgumentError

PROGRAM = Path(training_ranks.__file__)


def started(rank: int, port: int) -> subprocess.Popen[str]:
    where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    where |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    where |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env=os.environ | where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_the_bits_of_one() -> None:  # R19
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [started(rank, port) for rank in range(2)]
    alone = training_ranks.outcome()  # meanwhile
    try:
        (first, second), errors = zip(*(process.communicate(timeout=600) for process in processes), strict=True)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    digest, n_saves, n_events, evidence = alone.split(" ", 3)
    theirs, stopped = first.splitlines()
    assert theirs.split(" ", 3)[0] == digest
    assert theirs.split(" ", 3)[3] == evidence  # losses and validations, to the last bit
    assert theirs.split(" ", 3)[1] == n_saves
    assert stopped == "another another"
    ours, stopped = second.splitlines()
    assert ours.split(" ", 3)[:3] == [digest, "0", "0"]  # the second neither saves nor emits
    assert int(n_events) > 0
    assert stopped == "itself itself"


def test_passes_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ArgumentError, match="accumulate: got 3; accepted: a multiple of the 2 processes"):
        Ranks(0, 2).check_divides(3)
