"""Walls around a process that reads a hostile file: what it could do to the machine is taken away before it looks.

It needs the standard library alone: :func:`leave_network` comes before every other import, while there is one thread.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

__all__ = ["leave_network", "shut"]

NEW_NAMESPACES = 0x10000000 | 0x40000000 | 0x08000000  # user, network, System V IPC
SET_NO_NEW_PRIVILEGES = 38
CREATE_RULESET, RESTRICT_SELF = 444, 446
"""Landlock's system calls, the same on every architecture."""
FILES_BY_VERSION = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights over files by the version of Landlock that brought them: execute, write, read, list, remove, make, ..."""
STANDARD = 3
"""Descriptors that stay: the file to read, the pipe to answer on, and where errors go."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def leave_network() -> list[str]:
    """First of all: namespaces without a network, where users may make them; gives the walls that stand then."""
    if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).unshare(NEW_NAMESPACES):
        return []
    return ["namespaces: no network"]


def shut(*, memory_bytes: int, cpu_seconds: int) -> list[str]:
    """After all imports, before the first byte of the file: gives the walls that stand then.

    Nothing can be opened, made, changed, removed or run any more; memory and time are bounded.
    """
    memory_bytes += _address_space()
    limits = {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_NOFILE: STANDARD}
    limits |= dict.fromkeys((resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC), 0)
    walls = ["limits: no file opened or written, memory, CPU time"]
    if sys.platform == "linux" and _landlock(ctypes.CDLL(None, use_errno=True)):
        walls.append("landlock: no file opened, made, changed, removed or run")
    os.closerange(STANDARD, 1 << 16)
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    return walls


def _landlock(libc: ctypes.CDLL) -> bool:
    """Give up every right over files, TCP, and signals to others; False where the kernel cannot."""
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        return False  # a thread that a library began would stay outside
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    files = sum(rights for since, rights in FILES_BY_VERSION.items() if since <= version)
    rules = _Ruleset(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    descriptor = libc.syscall(CREATE_RULESET, ctypes.byref(rules), size, 0)
    if descriptor < 0 or libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    refused = libc.syscall(RESTRICT_SELF, descriptor, 0)
    os.close(descriptor)
    return bool(refused == 0)


def _address_space() -> int:
    """Bytes that this process has mapped already, most of them its libraries."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 64 << 30
