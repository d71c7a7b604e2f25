"""Python interpreters on this machine, in the versions that are to be proved."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "VESU_PYTHONS"
WANTED = ("3.11", "3.12", "3.13")
_ASK = (
    "import ensurepip, platform, sys, venv;"
    "print(sys.implementation.name, platform.python_version(), sys.executable, sep='\\n')"
)


@dataclass(frozen=True)
class Interpreter:
    """A CPython that can make a virtual environment."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        """``3.12`` of ``3.12.1``."""
        return ".".join(self.version.split(".")[:2])


def find(
    wanted: Sequence[str] = WANTED, environment: Mapping[str, str] | None = None
) -> tuple[list[Interpreter], dict[str, str]]:
    """The first usable interpreter of each wanted version, and why there is none of the others.

    Looked for in the list ``VESU_PYTHONS`` (paths, separated as in ``PATH``), then on ``PATH``, then among pyenv's.
    """
    environment = os.environ if environment is None else environment
    found: dict[str, Interpreter] = {}
    tried: list[str] = []
    for path in candidates(wanted, environment):
        if set(found) >= set(wanted):
            break
        answer = ask(path)
        if isinstance(answer, str):
            tried.append(f"{path} ({answer})")
        elif answer.minor in wanted:
            found.setdefault(answer.minor, answer)
    seen = "; not usable: " + ", ".join(tried) if tried else ""
    why = f"not in {VARIABLE}, on PATH or among pyenv's versions{seen}"
    return [found[minor] for minor in wanted if minor in found], {m: why for m in wanted if m not in found}


def candidates(wanted: Iterable[str], environment: Mapping[str, str]) -> Iterator[Path]:
    """Where an interpreter may be, in the order of preference."""
    yield from (Path(entry) for entry in environment.get(VARIABLE, "").split(os.pathsep) if entry)
    pyenv = Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME", "/")) / ".pyenv") / "versions"
    for minor in wanted:
        on_path = shutil.which(f"python{minor}", path=environment.get("PATH", ""))
        if on_path:
            yield Path(on_path)
        yield from sorted(pyenv.glob(f"{minor}.*/bin/python"), reverse=True)


def ask(path: Path) -> Interpreter | str:
    """The interpreter at `path`, or why it cannot be used."""
    try:
        answer = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if answer.returncode:
        return (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
    name, version, itself = answer.stdout.splitlines()  # itself: not a shim that finds it
    return Interpreter(Path(itself), version) if name == "cpython" else f"{name}, not CPython"
