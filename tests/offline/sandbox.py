"""A Linux network namespace with loopback only, and in it, where asked for, a `/kaggle` tree.

Two forms are tried: ``unshare`` as it is (root), and with a user namespace (anyone, where the kernel allows it). The
tree needs no `/kaggle` on the machine: the root folder is put together anew on a tmpfs, from bind mounts of all that is
in the real one, and `/kaggle` is added there. What is mounted vanishes with the namespace's last process.

This file is also the program that runs first inside: ``python sandbox.py '{"view": ..., "command": [...]}'``.
"""

import fcntl
import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

FORMS = (("unshare", "--net", "--mount"), ("unshare", "--map-root-user", "--net", "--mount"))

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class Refused(RuntimeError):
    """This machine allows no namespace; the message says what each form answered."""


@dataclass(frozen=True)
class Mount:
    """A folder of the machine (`source`) at another place of the namespace (`target`, below a tree that it adds)."""

    source: Path
    target: Path
    read_only: bool = True


@functools.cache
def form() -> tuple[str, ...]:
    """The first form that works here; raises Refused."""
    probe, refusals = [sys.executable, "-c", "import socket; print(socket.if_nameindex())"], []
    for words in FORMS:
        if shutil.which(words[0]) is None:
            refusals.append(f"{words[0]}: no such command (util-linux, Linux only)")
            break
        answer = subprocess.run([*words, *probe], capture_output=True, text=True, timeout=60, check=False)
        if answer.returncode == 0:
            return words
        refusals.append(f"{' '.join(words)}: {answer.stderr.strip()}")
    raise Refused("no network namespace can be made here: " + "; ".join(refusals))


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    mounts: Sequence[Mount] = (),
    timeout_s: float = 1800,
) -> subprocess.CompletedProcess[str]:
    """Run a command with loopback only; `environment` is all that it sees of the caller's variables."""
    with tempfile.TemporaryDirectory(prefix="vesu-root-") as root:
        plan = {
            "root": root if mounts else None,
            "mounts": [[str(m.source.resolve()), str(m.target), m.read_only] for m in mounts],
            "cwd": str(cwd),
            "command": [str(word) for word in command],
            "environment": dict(environment),
        }
        inside = [*form(), sys.executable, "-I", str(Path(__file__).resolve()), json.dumps(plan)]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout_s, check=False)


# What follows runs inside.


def enter(plan: dict[str, object]) -> NoReturn:
    """Bring loopback up, put the tree together, become the command."""
    _loopback_up()
    if plan["root"]:
        _build_root(Path(str(plan["root"])), [(Path(s), Path(t), bool(ro)) for s, t, ro in plan["mounts"]])  # type: ignore[attr-defined]
        os.chroot(str(plan["root"]))
    os.chdir(str(plan["cwd"]))
    command: list[str] = plan["command"]  # type: ignore[assignment]
    os.execve(command[0], command, plan["environment"])  # type: ignore[arg-type]


def _loopback_up() -> None:
    """A new namespace's loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _build_root(root: Path, mounts: list[tuple[Path, Path, bool]]) -> None:
    """All of the machine's root folder by bind mounts, and the mounts' targets in place of what may stand there."""
    added = {target.parts[1] for _, target, _ in mounts}
    assert not added & {"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "tmp", "usr"}, added
    entries = [entry for entry in Path("/").iterdir() if entry.name not in added]
    _mount("-t", "tmpfs", "vesu-root", root)
    for entry in entries:
        there = root / entry.name
        if entry.is_symlink():
            there.symlink_to(entry.readlink())
        elif entry.is_dir():
            there.mkdir()
            _mount("--rbind", entry, there)
    for source, target, read_only in mounts:
        there = root / target.relative_to("/")
        there.mkdir(parents=True)
        _mount("--bind", source, there)
        if read_only:
            _mount("-o", "remount,bind,ro", there)


def _mount(*words: str | Path) -> None:
    answer = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise OSError(f"mount {' '.join(map(str, words))}: {answer.stderr.strip()}")


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
