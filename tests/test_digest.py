"""BLAKE3 through the gate, against PyPI's blake3."""

import errno
import os
import resource
import signal
import threading
import time
from pathlib import Path

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reference_data import digest_array
from vesu import _core
from vesu.errors import ArgumentError, FileError, FormatError


# R09
@settings(deadline=None)
@given(st.binary(max_size=5000))
def test_bytes_agree_with_the_oracle(data: bytes) -> None:
    assert _core.blake3_bytes(data) == blake3.blake3(data).hexdigest()


# R09
@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        dtype=hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.complex_number_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_arrays_agree_with_the_reference(array: np.ndarray) -> None:
    wanted = digest_array(array)
    assert _core.blake3_array(array) == wanted
    assert _core.blake3_array(np.array(array, order="F")) == wanted
    assert _core.blake3_array(array.astype(array.dtype.newbyteorder(">"))) == wanted


def test_strided_readonly_and_unaligned_arrays() -> None:
    base = np.arange(4 * 6 * 8, dtype=np.int32).reshape(4, 6, 8)
    for view in (base[::2, ::-1, 1:], base.T, base[:, :1]):
        assert _core.blake3_array(view) == digest_array(view)
    unaligned = np.frombuffer(b"\0" + base.tobytes(), np.uint8)[1:].view(np.int32).reshape(base.shape)
    assert not unaligned.flags.writeable
    assert _core.blake3_array(unaligned) == digest_array(base)


# R09: the id does not depend on the number of threads; sizes around the pieces of 4 MiB
@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (9 << 20) + 3])
def test_every_thread_count_gives_the_same_digest(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    wanted = blake3.blake3(data).hexdigest()
    for n_threads in (1, 2, 3, 8):
        assert _core.blake3_bytes(data, n_threads) == wanted
        assert _core.blake3_file(path, n_threads) == wanted


def test_a_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(400 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _core.blake3_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_ctrl_c_stops_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a TiB of holes: minutes of hashing, no disk
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _core.blake3_file(path)
    assert time.monotonic() - start < 0.2 + 0.5


@pytest.mark.parametrize("array", [np.array([None]), np.array(["text"]), np.zeros(2, "M8[s]"), [1, 2], None])
def test_what_is_no_array_of_numbers_is_refused(array: object) -> None:
    with pytest.raises(ArgumentError, match=r"array: got .*; accepted: a numpy array"):
        _core.blake3_array(array)  # type: ignore[arg-type]


def test_text_is_not_bytes() -> None:
    with pytest.raises(ArgumentError, match="data: got str; accepted: bytes"):
        _core.blake3_bytes("text")  # type: ignore[arg-type]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        _core.blake3_file(tmp_path / "pipe")
    for path, code in ((tmp_path / "missing", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(FileError) as caught:
            _core.blake3_file(path)
        assert (caught.value.errno, caught.value.filename) == (code, str(path))
