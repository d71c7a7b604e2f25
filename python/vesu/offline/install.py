"""Installation in a process of its own, into a folder of its own, and the proof in another that it can be imported."""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesu.offline.stock import Plan

__all__ = ["Import", "Outcome", "check_import", "install", "place_of", "refusal", "run_python", "targets"]

_LAST = 2000
"""Characters of a process's errors that are kept."""

_IMPORT = """
import importlib, json, sys
module, probe, *folders = sys.argv[1:]
sys.path.extend(folders)
found = importlib.import_module(module)
value = found
for name in filter(None, probe.split(".")):
    value = getattr(value, name)
if not value:
    sys.exit(f"{module}.{probe} is {value!r}")
print(json.dumps({"version": str(getattr(found, "__version__", "")), "file": str(getattr(found, "__file__", ""))}))
"""


@dataclass(frozen=True)
class Outcome:
    """How a process ended: whether well, its last words, and the seconds it took."""

    ok: bool
    text: str
    seconds: float


@dataclass(frozen=True)
class Import:
    """What a fresh process says of a module: its version and file, or why it cannot be imported."""

    problem: str | None
    version: str
    file: str
    seconds: float


def check_import(module: str, probe: str = "", folders: Sequence[Path] = (), limit_s: float = 60.0) -> Import:
    """Import a module in a fresh process, with folders added to the end of its path.

    Parameters
    ----------
    module : str
        Dotted name.
    probe : str
        A dotted attribute of it that must be true: what some packages load only when it is asked for.
    folders : sequence of Path
        Appended to ``sys.path``, so that they hide nothing that is installed.
    limit_s : float
        Seconds after which the process is ended.

    Returns
    -------
    Import

    Examples
    --------
    >>> check_import("json", "dumps").problem is None, check_import("no_such_module").problem
    (True, "ModuleNotFoundError: No module named 'no_such_module'")
    """
    outcome = run_python(["-c", _IMPORT, module, probe, *map(str, folders)], limit_s)
    lines = outcome.text.splitlines()
    for line in reversed(lines if outcome.ok else []):  # a library may have words of its own after the answer
        with contextlib.suppress(ValueError, LookupError, TypeError):
            said = json.loads(line)
            return Import(None, said["version"], said["file"], outcome.seconds)
    return Import(lines[-1] if lines else "it ended without a word", "", "", outcome.seconds)


def install(plan: Plan, place: Path, limit_s: float = 180.0) -> Outcome:
    """Install a plan's wheels into a folder of their own: it is there whole or not at all.

    Parameters
    ----------
    plan : Plan
        Its wheels alone are installed, and nothing that they need besides.
    place : Path
        The folder to make, from :func:`place_of`. Its parent can be written.
    limit_s : float
        Seconds after which pip is ended.

    Returns
    -------
    Outcome
        Of pip; ``ok`` also where another process was first.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".installing-", dir=place.parent))
    try:
        folders = {offer.path.parent for offer in plan.wheels}
        words = ["--no-index", "--no-deps", "--no-cache-dir", "--no-input", "--no-warn-script-location"]
        for folder in sorted(folders):
            words += ["--find-links", str(folder)]
        wheels = [str(offer.path) for offer in plan.wheels]
        command = ["-m", "pip", "--isolated", "--disable-pip-version-check", "install", *words]
        outcome = run_python([*command, "--target", str(temporary), *wheels], limit_s)
        if outcome.ok:
            # A folder with files in it is never replaced by a rename: what another process installed stands.
            with contextlib.suppress(OSError):
                temporary.rename(place)
        return outcome
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def place_of(plan: Plan, target: Path) -> Path:
    """The folder below `target` for a plan: named by package, version and content, so that two plans never share one.

    An interpreter of another version has a folder of its own, too.
    """
    wheel = plan.chosen.wheel
    assert wheel is not None
    content = "".join(offer.wheel.sha256 for offer in plan.wheels if offer.wheel is not None)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return target / f"{sys.implementation.cache_tag}" / f"{wheel.name}-{wheel.version}-{digest}"


def refusal(target: Path) -> str | None:
    """Why nothing can be installed below a folder; it is made where it is not there yet. None if something can."""
    folder = target / f"{sys.implementation.cache_tag}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"vesu")
            probe.flush()
    except OSError as error:
        return f"cannot be written: {error.strerror or error}"
    return None


def targets(given: Path | None) -> Iterator[Path]:
    """Folders to install below, in order: a given one, the user's own, and one of this process, removed at its end."""
    if given is not None:
        yield given.absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):  # no home is known
        yield Path(base).expanduser().absolute() / "vesu" / "packages"
    try:
        # Never a name that can be guessed: in a folder that all write to, another could have put a package there.
        last = Path(tempfile.mkdtemp(prefix="vesu-packages-"))
    except OSError:
        return
    atexit.register(shutil.rmtree, last, ignore_errors=True)
    yield last


def run_python(words: Sequence[str], limit_s: float) -> Outcome:
    """Run this interpreter with arguments; what it leaves running when the time is over is ended with it."""
    start = time.monotonic()
    if not sys.executable:
        return Outcome(False, "sys.executable is not known, so that no process can be started", 0.0)
    command = [sys.executable, "-P", *words]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return Outcome(False, f"{sys.executable} cannot be started: {error}", time.monotonic() - start)
        try:
            code = process.wait(limit_s)
            late = ""
        except subprocess.TimeoutExpired:
            code, late = -1, f"\nended after {limit_s:g} s"
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST))
        text = said.read().decode("utf-8", "replace") + late
    return Outcome(code == 0, text.strip(), time.monotonic() - start)
