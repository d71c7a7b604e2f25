"""The process that decodes: started, fed with nothing but a path, bounded in time and memory, and read from."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import FormatError

__all__ = ["decode"]

_WORKER = Path(__file__).with_name("worker.py")
_START_S, _BYTES_A_SECOND = 120.0, 1_000_000.0
"""What a decoder may take: its imports from a slow disk, and a hundredth of its usual speed."""
_LAST = 2000
# Many a BLAS takes memory for each of its threads when it is imported; here it computes nothing.
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def decode(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], n_threads: int | None) -> NDArray[Any]:
    """The first ``shape[0]`` pages of a file whose headers were checked.

    Parameters
    ----------
    path : Path
    shape : (int, int, int)
        (z, y, x) of what is to be decoded.
    dtype : dtype
        Of the file, in native order.
    n_threads : int, optional

    Returns
    -------
    ndarray, shape (z, y, x)
        C-contiguous, native byte order.

    Raises
    ------
    FormatError
        The decoder's last words, without the path.
    """
    volume = np.empty(shape, dtype)
    limit_s = _START_S + volume.nbytes / _BYTES_A_SECOND
    words = [*map(str, shape), dtype.str, str(n_threads or 0), os.fspath(path.absolute()), *filter(None, sys.path)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **_QUIET},
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        alarm = threading.Timer(limit_s, end)
        alarm.start()
        try:
            assert process.stdout is not None
            complete = _filled(volume.reshape(-1).view(np.uint8).data, process.stdout)
            code = process.wait()
        finally:
            alarm.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if complete and code == 0:
            return volume
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LAST))
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    if late.is_set():
        raise FormatError(f"the decoder was ended after {limit_s:.0f} s")
    if code < 0:
        raise FormatError(f"the decoder was ended by signal {-code}")
    raise FormatError(lines[-1] if lines else f"the decoder ended with code {code}, without a word")


def _filled(view: memoryview, stream: IO[bytes]) -> bool:
    """Read as many bytes as the view has; whether there were so many and no more."""
    place = 0
    while place < len(view):
        chunk = stream.read(min(1 << 20, len(view) - place))
        if not chunk:
            return False
        view[place : place + len(chunk)] = chunk
        place += len(chunk)
    return not stream.read(1)
