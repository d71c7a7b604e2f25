"""What the machine has left, asked of the machine itself: memory, disk, a GPU that computes (R02)."""

import importlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory_bytes() -> int | None:
    """Memory that this process can still take: the least of what the system and the container leave; None if unknown.

    Examples
    --------
    >>> from vesu.data.machine import available_memory_bytes
    >>> (available_memory_bytes() or 1) > 0
    True
    """
    known = [value for value in (_system_available(), _container_available()) if value is not None]
    return max(0, min(known)) if known else None


def memory_limit_bytes() -> int | None:
    """All the memory that there is for this process: the machine's, or the container's where that is less.

    Examples
    --------
    >>> from vesu.data.machine import memory_limit_bytes
    >>> (memory_limit_bytes() or 1) > 0
    True
    """
    container = _container()
    known = [value for value in (_meminfo("MemTotal"), container[0] if container else None) if value is not None]
    return min(known) if known else None


def _system_available() -> int | None:
    return _meminfo("MemAvailable")


def _meminfo(name: str) -> int | None:
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def _container_available() -> int | None:
    container = _container()
    return container[1] if container else None


def _container() -> tuple[int, int] | None:
    """The control group's limit, and the room under it: version 2, else version 1; None without a limit.

    Page cache can be given back, so it counts as room.
    """
    for limit_file, used_file, stat_file, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            limit = (_CGROUP / limit_file).read_text().strip()
            used = int((_CGROUP / used_file).read_text())
            match = re.search(rf"^{cached} (\d+)", (_CGROUP / stat_file).read_text(), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if limit.isdigit():  # "max": no limit
            return int(limit), int(limit) - used + (int(match[1]) if match else 0)
    return None


def free_disk_bytes(folder: Path) -> int:
    """Free bytes where `folder` is or will be made, after proving that a file can be written there.

    Raises
    ------
    OSError
        Nothing can be written there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from vesu.data.machine import free_disk_bytes
    >>> free_disk_bytes(Path("a/folder/yet/to/be/made")) > 0
    True
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    with tempfile.TemporaryFile(dir=existing) as probe:
        probe.write(b"vesu")
        probe.flush()
    return shutil.disk_usage(existing).free


def gpu_problem() -> str | None:
    """Why no GPU can be used through torch, or None when every visible one computes correctly.

    That a GPU is listed proves little: the build of torch may lack code for it. Its architecture is looked up, and
    a product of matrices is computed on it and compared.

    Examples
    --------
    >>> from vesu.data.machine import gpu_problem
    >>> problem = gpu_problem()  # a sentence, or None on a machine with a working GPU
    """
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing or damaged
        return f"torch cannot be imported: {error}"
    try:
        if not torch.cuda.is_available() or torch.cuda.device_count() == 0:
            return f"torch {torch.__version__} sees no GPU"
        for device in range(torch.cuda.device_count()):
            if problem := _device_problem(torch, device):
                return f"GPU {device} ({torch.cuda.get_device_name(device)}): {problem}"
    except (RuntimeError, AssertionError) as error:  # what torch raises for driver and build faults
        return f"torch {torch.__version__}: {error}"
    return None


def _device_problem(torch: Any, device: int) -> str | None:
    capability = tuple(torch.cuda.get_device_capability(device))
    built_for = list(torch.cuda.get_arch_list())
    if not any(_runs_on(arch, capability) for arch in built_for):
        return f"its compute capability is {capability}; this torch is built for {built_for}"
    matrix = torch.ones((64, 64), dtype=torch.float32, device=f"cuda:{device}")
    total = float((matrix @ matrix).sum().item())
    return None if total == 64.0**3 else f"a product of matrices sums to {total} instead of {64.0**3}"


def _runs_on(arch: str, capability: tuple[int, ...]) -> bool:
    """Machine code (sm_86) runs on its own major version from its minor on; portable code (compute_80) on all later."""
    match = re.fullmatch(r"(sm|compute)_(\d+)[a-z]?", arch)
    if match is None:
        return False
    version = divmod(int(match[2]), 10)
    return version <= capability and (match[1] == "compute" or version[0] == capability[0])
