"""Messages between this process and a worker of ours: two lengths, a JSON header, bytes. Every wait has an end."""

import contextlib
import io
import json
import os
import selectors
import struct
import subprocess
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_bytes", "array_of", "end_process", "exchange", "frame", "read_message", "write_message"]

LENGTHS = struct.Struct(">IQ")
"""Bytes of the header, bytes of the body."""

MAX_HEADER = 16 << 20


def frame(header: Mapping[str, Any], body: bytes = b"") -> list[bytes]:
    """A message, as pieces to write one after the other."""
    text = json.dumps(header).encode()
    return [LENGTHS.pack(len(text), len(body)) + text, body]


def array_bytes(array: NDArray[Any]) -> bytes:
    """An array as ``.npy``."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def array_of(body: bytes) -> NDArray[Any]:
    """What :func:`array_bytes` was given.

    Raises
    ------
    ValueError
        Something else.
    """
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    return array


def read_message(file: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a file that may block; None at its end."""
    lengths = file.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    n_header, n_body = LENGTHS.unpack(lengths)
    return json.loads(file.read(n_header)), file.read(n_body)


def write_message(sink: int, header: Mapping[str, Any], body: bytes = b"") -> None:
    """Write a message to a descriptor."""
    for piece in frame(header, body):
        view = memoryview(piece)
        while view:
            view = view[os.write(sink, view) :]


def exchange(
    process: "subprocess.Popen[bytes]", message: list[bytes], *, limit_s: float, max_bytes: int
) -> tuple[dict[str, Any], bytes]:
    """Write a message of :func:`frame` (or nothing) to a process and read its answer.

    Raises
    ------
    TimeoutError
        It took longer than ``limit_s`` seconds.
    EOFError, BrokenPipeError
        The process ended.
    ValueError
        An answer of more than ``max_bytes``, or that is no message.
    """
    deadline = time.monotonic() + limit_s
    assert process.stdout is not None
    if process.stdin is not None:
        sink = process.stdin.fileno()
        os.set_blocking(sink, False)
        for piece in message:
            view = memoryview(piece)
            while view:
                _wait(sink, selectors.EVENT_WRITE, deadline)
                view = view[os.write(sink, view[: 1 << 16]) :]
    source = process.stdout.fileno()
    n_header, n_body = LENGTHS.unpack(_read(source, LENGTHS.size, deadline))
    if n_header > MAX_HEADER or n_body > max_bytes:
        raise ValueError(f"a message of {n_header} and {n_body} bytes; accepted: up to {MAX_HEADER} and {max_bytes}")
    header = json.loads(_read(source, n_header, deadline))
    if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
        raise ValueError("a header without its kind")
    return header, _read(source, n_body, deadline)


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """Kill it, wait for it, close its pipes; nothing happens to one that ended."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _read(source: int, n_bytes: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < n_bytes:
        _wait(source, selectors.EVENT_READ, deadline)
        if not (piece := os.read(source, min(1 << 20, n_bytes - len(data)))):
            raise EOFError
        data += piece
    return bytes(data)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
