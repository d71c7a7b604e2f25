"""The wheels of other projects: fetch them by a lock of hashes, and say what is wrong with a folder of them (R06).

``python wheels-offline/lock.py`` rewrites the hashes of the versions that ``requirements.lock`` names: change a version
there, run it, look at the difference.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).with_name("requirements.lock")

PYTHONS = ("3.11", "3.12", "3.13")
"""The image's Python, one before and one after."""

GLIBC_MINOR = 35
"""The image's glibc is 2.35: no wheel that asks for more."""

IMAGE = {"numpy": "2.0.2", "torch": "2.10.0"}
"""Packages that the image has and that the locked wheels may ask for, at these versions."""

NEVER = {"numpy", "torch", "scipy"}
"""A second copy of one of these breaks a notebook."""

HEADER = """\
# What Kaggle's image lacks, for Python 3.11, 3.12 and 3.13 on x86-64. pip's hash-checking format; one hash a wheel.
# `python wheels-offline/lock.py` rewrites the hashes of the versions that stand here. Never numpy, torch or scipy.
"""


@dataclass(frozen=True)
class Pin:
    """One locked package: its version and the SHA-256 of each of its wheels."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{h}" for h in self.hashes)])


def read_lock(path: Path = LOCK) -> dict[str, Pin]:
    """The pins of a lock file, by name.

    Raises
    ------
    ValueError
        If a line is not ``name==version`` with SHA-256 hashes, or names a package twice.
    """
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    pins: dict[str, Pin] = {}
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        head, *options = line.split()
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", head)
        hashes = tuple(option.removeprefix("--hash=sha256:") for option in options)
        if not found or not all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes):
            raise ValueError(f"{path}: {line!r} is not NAME==VERSION --hash=sha256:...")
        name = canonicalize_name(found[1])
        if name in pins:
            raise ValueError(f"{path}: {name} stands there twice")
        pins[name] = Pin(name, found[2], hashes)
    return pins


def download(requirements: Path, python: str, into: Path, *options: str) -> None:
    """Fetch wheels, never a source, for one Python version on the image's platform."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 16, -1)]
    target = ["--python-version", python, "--implementation", "cp", *platforms, "--platform=manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *target]
    subprocess.run([*command, *options, "--dest", str(into), "--requirement", str(requirements)], check=True)


def fetch(into: Path, lock: Path = LOCK) -> list[Path]:
    """Every locked wheel into a folder; pip refuses a file whose hash is not in the lock.

    Raises
    ------
    ValueError
        If the folder then holds less or something else than the lock says, or would not install on the image.
    """
    for python in PYTHONS:
        download(lock, python, into, "--require-hashes")
    wheels = sorted(into.glob("*.whl"))
    if problems := [*lock_problems(wheels, read_lock(lock)), *closure_problems(wheels)]:
        raise ValueError("the fetched wheels are not what they should be:\n  " + "\n  ".join(problems))
    return wheels


def name_and_version(wheel: Path) -> tuple[str, str]:
    """From the file name, the name in its normal form."""
    name, version = wheel.name.split("-")[:2]
    return canonicalize_name(name), version


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_problems(wheels: list[Path], pins: dict[str, Pin]) -> Iterator[str]:
    """Wheels that are not in the lock, and hashes of the lock that no wheel has."""
    seen = set()
    for wheel in wheels:
        name, version = name_and_version(wheel)
        digest = sha256(wheel)
        seen.add(digest)
        if name in NEVER:
            yield f"{wheel.name}: the image's own {name} must stay"
        elif name not in pins or version != pins[name].version or digest not in pins[name].hashes:
            yield f"{wheel.name}: not in the lock (sha256 {digest})"
    for pin in pins.values():
        for digest in pin.hashes:
            if digest not in seen:
                yield f"{pin.name}=={pin.version}: no wheel with sha256 {digest}"


def requirements_of(wheel: Path) -> list[Requirement]:
    """What the wheel's METADATA asks for."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        headers = HeaderParser().parsestr(archive.read(member).decode())
    return [Requirement(text) for text in headers.get_all("Requires-Dist", [])]


def closure_problems(wheels: list[Path]) -> Iterator[str]:
    """Requirements, without extras, that neither these wheels nor the image meet, on any of the Pythons."""
    there = IMAGE | dict(map(name_and_version, wheels))
    for wheel in wheels:
        for requirement in requirements_of(wheel):
            name = canonicalize_name(requirement.name)
            environments = ({"python_version": p, "python_full_version": f"{p}.0", "extra": ""} for p in PYTHONS)
            if requirement.marker and not any(map(requirement.marker.evaluate, environments)):
                continue
            if name not in there:
                yield f"{wheel.name} needs {requirement}: neither in the lock nor known of the image"
            elif not requirement.specifier.contains(there[name], prereleases=True):
                yield f"{wheel.name} needs {requirement}: here is {there[name]}"


def rewrite(lock: Path = LOCK) -> None:
    """Fetch the versions that the lock names, whatever their hashes, and write the hashes down."""
    pins = read_lock(lock)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "versions.txt"
        plain.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins.values()), encoding="utf-8")
        for python in PYTHONS:
            download(plain, python, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        if problems := list(closure_problems(wheels)):
            raise ValueError("these versions do not go together:\n  " + "\n  ".join(problems))
        hashes = {name: [sha256(w) for w in wheels if name_and_version(w)[0] == name] for name in pins}
    fresh = [Pin(pin.name, pin.version, tuple(sorted(hashes[pin.name]))) for pin in pins.values()]
    lock.write_text(HEADER + "".join(f"{pin}\n" for pin in fresh), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
