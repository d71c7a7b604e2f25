"""The packages that decode foreign compressions, resolved once a process."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vesu.errors import FormatError
from vesu.offline import Resolution, resolve

__all__ = ["Emit", "Packages"]

Emit: TypeAlias = Callable[[str, Mapping[str, Any]], object]

FAILURE_LIFE_S = 60.0
"""Hundreds of volumes must not search hundreds of times; after a minute somebody may have added wheels."""


@dataclass
class Packages:
    """What was resolved, and when; safe to use from several threads."""

    known: dict[tuple[str, str], tuple[Resolution, float]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def resolved(
        self, package: str, probe: str = "", emit: Emit | None = None, target: Path | None = None
    ) -> Resolution:
        """A package's resolution; ``emit`` gets its decisions, those of an earlier call too."""
        with self.lock:
            found, when = self.known.get((package, probe), (None, 0.0))
            if found is None or not (found.available or time.monotonic() - when < FAILURE_LIFE_S):
                found = resolve(package, probe=probe, emit=emit, target=target)
                self.known[package, probe] = (found, time.monotonic())
            elif emit is not None:
                for name, fields in found.decisions:
                    emit(name, fields)
            return found

    def needed(self, package: str, path: Path, compression: str, emit: Emit | None = None) -> None:
        """A package without which a file cannot be read. Raises FormatError with the whole account."""
        found = self.resolved(package, emit=emit)
        if not found.available:
            raise FormatError(f"{path}: compression {compression} cannot be decoded: {found}")
