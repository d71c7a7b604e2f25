"""A wheel of this checkout as it stands, from the core that is built already: quick, for the tests.

`make wheels` builds the wheels that users get, with maturin; this one lets `make test` install the code at hand as a
user would, never a wheel of some earlier day.
"""

import base64
import hashlib
import sysconfig
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pack(core: Path, folder: Path) -> Path:
    """Write the wheel of `python/vesu` with this compiled core into `folder`; returns its path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
    tag = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    package = ROOT / "python" / "vesu"
    members = {
        f"vesu/{file.relative_to(package)}": file.read_bytes()
        for file in sorted(package.rglob("*"))
        if file.is_file() and file.suffix != ".so" and "__pycache__" not in file.parts
    }
    members[f"vesu/{core.name}"] = core.read_bytes()
    members |= {
        f"vesu-{version}.dist-info/{name}": text.encode() for name, text in _about(project, version, tag).items()
    }
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in members.items())
    members[f"vesu-{version}.dist-info/RECORD"] = (record + f"vesu-{version}.dist-info/RECORD,,\n").encode()
    wheel = folder / f"vesu-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return wheel


def stale_members(wheel: Path) -> list[str]:
    """Python files that differ between a wheel and this checkout: a proof of that wheel is not one of this code."""
    package = ROOT / "python" / "vesu"
    here = {f"vesu/{file.relative_to(package)}": file.read_bytes() for file in package.rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        there = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _about(project: dict[str, object], version: str, tag: str) -> dict[str, str]:
    """The files that say what the wheel is, from pyproject.toml."""
    requires: list[str] = project["dependencies"]  # type: ignore[assignment]
    scripts: dict[str, str] = project["scripts"]  # type: ignore[assignment]
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    return {
        "METADATA": "\n".join(metadata) + "\n",
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: vesu-tests\nRoot-Is-Purelib: false\nTag: {tag}\n",
        "entry_points.txt": "[console_scripts]\n" + "".join(f"{name} = {target}\n" for name, target in scripts.items()),
    }


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
