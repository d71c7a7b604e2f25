"""The preloaded shim from Python: built, loaded into this process, armed in forked children."""

import ctypes
import enum
import os
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vesu.errors import VesuError

Act = Callable[[Path, Callable[[str], None]], None]
"""Works on a folder and acknowledges what is safe from then on, as texts."""

FOREVER = 2**62
SECONDS = 30
"""After which a child counts as hanging."""


class Op(enum.IntEnum):
    """What the shim tells apart (shim.c has the same numbers); OPEN is for writing, LOOK any other look at a name."""

    OPEN, LOOK, READ, WRITE, SYNC, RENAME, MKDIR, UNLINK, RMDIR, TRUNCATE, CLOSE, MARK = range(12)


class Action(enum.IntEnum):
    """What becomes of the chosen calls."""

    PASS, KILL, KILL_HALFWAY, REFUSE, SHORTEN = range(5)


CHANGES = frozenset({Op.OPEN, Op.WRITE, Op.SYNC, Op.RENAME, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.TRUNCATE})
LOOKS = frozenset({Op.LOOK, Op.READ})


@dataclass(frozen=True)
class Fault:
    """Do this to ``times`` calls from number ``at`` on; by default to none."""

    action: Action = Action.PASS
    at: int = 0
    times: int = 1
    error: int = 0


@dataclass(frozen=True)
class Record:
    """One call that succeeded, as the shim recorded it; paths are below the folder, from "/" on."""

    op: Op
    fd: int
    number: int
    text: str
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    how: str
    """ "done", "killed", "refused" (a VesuError), or what it should never be: "wrong", "hangs", "crashed"."""
    acks: Sequence[str] = ()
    error: str = ""
    errno: int = 0
    points: Sequence[Op] = ()
    """The operation of every point that was passed; empty where the child was killed."""
    trace: Sequence[Record] = field(default=(), repr=False)


def reexec_preloaded(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Build the shim and run ``python -m module`` with it preloaded; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "shim.so")
        source = Path(__file__).with_name("shim.c")
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, *flags, "-o", str(library), str(source), "-ldl", "-lpthread"], check=True)
        command = [sys.executable, "-m", module, *arguments]
        others = environment.get("LD_PRELOAD", "").split()
        preload = {"LD_PRELOAD": " ".join([str(library), *others])}
        return subprocess.run(command, env={**environment, **preload}, check=False).returncode


def preloaded() -> bool:
    """Whether this process has the shim in front of its file calls."""
    return hasattr(ctypes.CDLL(None), "faults_arm")


def run_child(
    act: Act, folder: Path, fault: Fault = Fault(), *, points: frozenset[Op] = CHANGES, traced: bool = False
) -> Outcome:
    """``act`` in a forked child under ``fault``; what it acknowledged before it ended."""
    reader, writer = os.pipe()
    trace = os.memfd_create("trace") if traced else -1
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(act, folder, fault, points, writer, trace)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    acks = tuple(line[4:] for line in lines if line.startswith("ack "))
    last = next((line for line in lines if line.startswith("end ")), None)
    records: tuple[Record, ...] = ()
    if traced:
        with os.fdopen(trace, "rb") as file:
            file.seek(0)
            records = _parsed(file.read())
    code = os.waitstatus_to_exitcode(status)
    if last is None:
        how = {-signal.SIGKILL: "killed", -signal.SIGALRM: "hangs"}.get(code, "crashed")
        return Outcome(how, acks, f"exit status {code}", trace=records)
    _, how, number, operations, error = last.split(" ", 4)
    passed = tuple(Op(int(code)) for code in operations.split(",") if code)
    return Outcome(how, acks, error.replace("\x1f", "\n"), int(number), passed, records)


def _be_child(act: Act, folder: Path, fault: Fault, points: frozenset[Op], writer: int, trace: int) -> None:
    """Arm, act, tell, exit: never returns, never runs a finaliser of the parent's objects."""
    signal.alarm(SECONDS)
    library = ctypes.CDLL(None)
    mask = sum(1 << op for op in points)

    def acknowledge(text: str) -> None:
        library.faults_mark(text.encode())
        os.write(writer, f"ack {text}\n".encode())

    how, number, error = "done", 0, ""
    long = ctypes.c_int64
    library.faults_arm(
        str(folder).encode(), trace, mask, int(fault.action), fault.error, long(fault.at), long(fault.times)
    )
    try:
        act(folder, acknowledge)
    except VesuError as caught:
        how, number, error = "refused", getattr(caught, "errno", None) or 0, f"{type(caught).__name__}: {caught}"
    except BaseException:  # noqa: BLE001 (whatever it is, the parent must hear of it)
        how, error = "wrong", traceback.format_exc()
    library.faults_disarm()
    library.faults_points.restype = long
    operations = ",".join(str(library.faults_operation(long(i))) for i in range(library.faults_points()))
    one_line = error.replace("\n", "\x1f")
    os.write(writer, f"end {how} {number} {operations} {one_line}\n".encode())
    os._exit(0)


def _parsed(data: bytes) -> tuple[Record, ...]:
    records, at, head = [], 0, struct.Struct("=5q")
    while at < len(data):
        op, fd, number, n_text, n_data = head.unpack_from(data, at)
        at += head.size
        text, content = data[at : at + n_text], data[at + n_text : at + n_text + n_data]
        records.append(Record(Op(op), fd, number, os.fsdecode(text), content))
        at += n_text + n_data
    return tuple(records)
