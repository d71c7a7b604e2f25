"""What stands in an environment before vesu comes: the packages of Kaggle's image, put in while there is a network."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from offline.interpreters import Interpreter

PINS = {"numpy": "2.0.2", "tifffile": "2026.4.11"}
"""Versions of Kaggle's image, late 2026, that vesu could collide with."""

STAND_INS = {
    ("3.11", "tifffile"): ("2026.3.3", "tifffile 2026.4.11 needs Python 3.12"),
    ("3.13", "numpy"): ("2.1.3", "numpy 2.0.2 has no wheel for Python 3.13"),
}
"""Where a pinned version does not exist for a Python, the nearest that does, and why."""

FOR_THE_REPORT = ("matplotlib", "jinja2", "tqdm")
"""In the image too, at whatever version goes with the pins."""

IMAGES = ("kaggle", "newest")


def requirements(image: str, minor: str) -> tuple[list[str], list[str]]:
    """What pip is asked for, and the deviations from the image, in words."""
    if image == "newest":
        return [*PINS, *FOR_THE_REPORT], []
    pins, notes = dict(PINS), []
    for (python, name), (version, why) in STAND_INS.items():
        if python == minor:
            pins[name] = version
            notes.append(f"{name} {version}: {why}")
    return [*(f"{name}=={version}" for name, version in pins.items()), *FOR_THE_REPORT], notes


def make_environment(interpreter: Interpreter, packages: Sequence[str], folder: Path) -> Path:
    """A fresh virtual environment with these packages from the network; returns its interpreter."""
    _call([interpreter.path, "-m", "venv", folder], "virtual environment")
    python = folder / "bin" / "python"
    if packages:
        quickly = ("-q", "--no-compile", "--only-binary", ":all:")  # what is imported is compiled then
        _call([python, "-m", "pip", "install", *quickly, *packages], "packages of the image")
    return python


def borrow(package: str, python: Path) -> None:
    """Link an installed package of this interpreter into another environment of the same version: no network needed."""
    import importlib.metadata
    import importlib.util

    ask = [python, "-I", "-c", "import sysconfig; print(sysconfig.get_paths()['platlib'])"]
    into = Path(_call(ask, "site-packages").strip())
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, package
    site = Path(spec.origin).parents[1]
    metadata = Path(str(importlib.metadata.distribution(package)._path)).name  # type: ignore[attr-defined]
    for name in (package, f"{package}.libs", metadata):
        if (site / name).exists():
            (into / name).symlink_to(site / name)


def _call(command: Sequence[str | Path], what: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if answer.returncode:
        raise RuntimeError(f"{what}: {' '.join(map(str, command))}\n{answer.stdout}{answer.stderr}")
    return answer.stdout
