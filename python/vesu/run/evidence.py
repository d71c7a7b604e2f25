"""What a run says about itself: where it ran, what it used, in files that a reader can check."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from vesu import _core

__all__ = ["git_sha", "machine"]


def machine() -> dict[str, Any]:
    """The machine in words and figures, for ``summary.json`` and the log."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": _core.thread_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "isa": _core.simd_path(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
    }


def git_sha() -> str | None:
    """Commit of the checkout that vesu is imported from, or None for an installed wheel."""
    here = Path(__file__).resolve().parent
    # An installed wheel may lie inside somebody else's repository, whose commit says nothing about vesu.
    tracked = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
    return None if tracked is None else _git(here, "rev-parse", "HEAD")


def _git(folder: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the generic name serves
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
