"""What a built wheel of vesu says of itself: platform, ABI, processor, instruction sets, and how it runs (R06)."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine of an ELF header."""

VECTOR_REGISTERS = {"%ymm": "avx2", "%zmm": "avx512"}
"""Registers that baseline x86-64 code does not have."""

GLIBC = "manylinux_2_17"
SMOKE = Path(__file__).with_name("smoke.py")


def elf_machine(library: bytes) -> str:
    """The processor that a shared library is for."""
    if library[:4] != b"\x7fELF":
        raise ValueError("not an ELF file")
    number = int.from_bytes(library[18:20], "little")
    return MACHINES.get(number, f"e_machine {number}")


def count_instructions(disassembly: str) -> dict[str, int]:
    """Instructions in what ``objdump -d`` printed: all, and those with 256-bit and with 512-bit registers."""
    counts = dict.fromkeys(["all", *VECTOR_REGISTERS.values()], 0)
    for line in disassembly.splitlines():
        counts["all"] += line.startswith(" ")
        for register, name in VECTOR_REGISTERS.items():
            counts[name] += register in line
    return counts


def manylinux(wheel: Path) -> dict[str, Any]:
    """auditwheel's verdict: the lowest platform tag, and the glibc symbols that set it."""
    command = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def abi3(wheel: Path) -> dict[str, Any]:
    """abi3audit's verdict on the extension module: the lowest Python that has all its symbols."""
    command = [sys.executable, "-m", "abi3audit", "--strict", "--report", str(wheel)]
    answer = subprocess.run(command, capture_output=True, text=True)
    try:
        (spec,) = json.loads(answer.stdout)["specs"].values()
        (library,) = spec["wheel"]
    except ValueError:
        raise RuntimeError(f"abi3audit did not answer for {wheel.name}: {answer.stderr}") from None
    result: dict[str, Any] = library["result"]
    return result


def smoke(site: Path, **environment: str) -> dict[str, Any]:
    """``smoke.py`` in a fresh process that takes vesu from an unpacked wheel."""
    isolated = {**os.environ, "PYTHONPATH": str(site), "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1", **environment}
    answer = subprocess.run([sys.executable, str(SMOKE)], env=isolated, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"the wheel does not run: {answer.stderr}")
    found: dict[str, Any] = json.loads(answer.stdout)
    if not Path(found["core"]).is_relative_to(site):
        raise RuntimeError(f"the wheel was not what ran, but {found['core']}")
    return found


def telling(archive: zipfile.ZipFile, folders: tuple[Path, ...]) -> list[str]:
    """Members that hold the name of a folder of the machine that built them."""
    private = [str(folder).encode() for folder in folders]
    return [name for name in archive.namelist() if any(text in archive.read(name) for text in private)]


def audit(wheel: Path, arch: str, scratch: Path, folders: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Everything above for one wheel built from ``folders``; ``problems`` is empty for a clean one."""
    site = scratch / f"audit-{arch}"
    shutil.rmtree(site, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names, told = archive.namelist(), telling(archive, folders)
    library = site / "vesu" / "_core.abi3.so"
    platform, stable = manylinux(wheel), abi3(wheel)
    found: dict[str, Any] = {
        "file": wheel.name,
        "size": wheel.stat().st_size,
        "library_size": library.stat().st_size,
        "machine": elf_machine(library.read_bytes()),
        "manylinux": platform["overall_tag"],
        "abi3": stable["computed"],
        "told_folders": told,
        "instructions": disassemble(library) if arch == "x86_64" else "NEON is part of the baseline",
        "ran": smoke(site) if arch == os.uname().machine else f"not run: this machine is {os.uname().machine}",
    }
    found["problems"] = list(problems(found, names, arch, stable))
    return found


def disassemble(library: Path) -> dict[str, int] | str:
    """Instruction sets in an x86-64 library, where objdump is installed."""
    if shutil.which("objdump") is None:
        return "not looked at: objdump (binutils) is not installed"
    answer = subprocess.run(["objdump", "-d", str(library)], capture_output=True, text=True, check=True)
    return count_instructions(answer.stdout)


def problems(found: dict[str, Any], names: list[str], arch: str, stable: dict[str, Any]) -> list[str]:
    """What is wrong with an audited wheel."""
    wrong = []
    if found["machine"] != arch:
        wrong.append(f"built for {found['machine']}, not {arch}")
    if found["manylinux"] != f"{GLIBC}_{arch}":
        wrong.append(f"auditwheel says {found['manylinux']}, wanted {GLIBC}_{arch}")
    if not (stable["is_abi3"] and stable["is_abi3_baseline_compatible"]) or stable["non_abi3_symbols"]:
        wrong.append(f"abi3audit: {stable}")
    counts = found["instructions"]
    if isinstance(counts, dict) and not (counts["avx2"] and counts["avx512"]):
        wrong.append(f"run-time dispatch is missing: {counts}")
    if found["told_folders"]:
        wrong.append(f"folders of this machine stand in {found['told_folders']}")
    libraries = [name for name in names if name.endswith(".so")]
    if libraries != ["vesu/_core.abi3.so"]:
        wrong.append(f"libraries inside: {libraries}")
    return wrong
