"""What this interpreter takes: its wheel tags, its version, and the packages that are installed."""

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vesu.errors import VesuError
from vesu.offline.wheels import Wheel, normalised

__all__ = ["PROTECTED", "Interpreter", "OfflineError", "Requirement"]

PROTECTED = frozenset({"numpy", "scipy", "torch"})
"""Never installed from a wheelhouse: half of what a notebook has loaded is built against them."""

_PACKAGING = ("pip._vendor.packaging", "packaging")


class OfflineError(VesuError, ImportError):
    """A package that is needed can neither be imported nor installed; the message lists what was tried and why not."""


@dataclass(frozen=True)
class Requirement:
    """One thing that a wheel needs here: a package, and which of its versions will do."""

    name: str
    text: str
    admits: Callable[[str], bool]


@dataclass(frozen=True)
class Interpreter:
    """An interpreter as an installer sees it.

    Attributes
    ----------
    python : str
        Its version, such as ``"3.12.1"``.
    tags : mapping of str to int
        Every wheel tag that it takes; the smaller the number, the closer the fit.
    platform : str
        The machine in words.
    installed : callable
        ``installed(name)`` gives the version of an installed package, or None.

    Examples
    --------
    >>> here = Interpreter.current()
    >>> here.installed("no-such-package") is None, "py3-none-any" in here.tags
    (True, True)
    """

    python: str
    tags: Mapping[str, int]
    platform: str
    installed: Callable[[str], str | None]

    @classmethod
    def current(cls) -> "Interpreter":
        """The running one. Raises OfflineError where neither pip nor packaging is there to ask for its tags."""
        ranked: dict[str, int] = {}
        for tag in _packaging("tags").sys_tags():
            ranked.setdefault(str(tag), len(ranked))
        libc = " ".join(platform.libc_ver()).strip()
        machine = " ".join(filter(None, (sys.platform, platform.machine(), libc)))
        return cls(platform.python_version(), ranked, machine, _installed)

    def misfit(self, wheel: Wheel) -> str | None:
        """Why this interpreter cannot take a wheel, whatever else is installed; None if it can."""
        if not self.tags.keys() & set(wheel.tags):
            return self._tag_misfit(wheel)
        if wheel.requires_python is not None:
            try:
                fits = _packaging("specifiers").SpecifierSet(wheel.requires_python).contains(self.python, True)
            except ValueError:  # InvalidSpecifier
                return f"its Requires-Python {wheel.requires_python!r} cannot be read"
            if not fits:
                return f"needs Python {wheel.requires_python}; this is {self.python}"
        try:
            self.order(wheel)
        except ValueError:  # InvalidVersion
            return f"its version {wheel.version!r} cannot be read"
        return None

    def order(self, wheel: Wheel) -> tuple[Any, int]:
        """What fitting wheels of one package are sorted by: the newest version last, of one version the closest fit."""
        rank = min((self.tags[tag] for tag in wheel.tags if tag in self.tags), default=len(self.tags))
        return _packaging("version").Version(wheel.version), -rank

    def same_version(self, one: str, other: str) -> bool:
        """Whether two texts are one version: ``1.0`` and ``1.0.0`` are."""
        version = _packaging("version").Version
        try:
            return bool(version(one) == version(other))
        except ValueError:  # InvalidVersion
            return one == other

    def requirements(self, wheel: Wheel) -> list[Requirement]:
        """What a wheel needs on this interpreter, extras left out. Raises ValueError for one that cannot be read."""
        environment = {**_packaging("markers").default_environment(), "extra": ""}
        found = []
        for text in wheel.requires:
            parsed = _packaging("requirements").Requirement(text)
            if parsed.marker is None or parsed.marker.evaluate(environment):
                plain = f"{parsed.name}{parsed.specifier}"
                found.append(Requirement(normalised(parsed.name), plain, _admits(parsed.specifier)))
        return found

    def _tag_misfit(self, wheel: Wheel) -> str:
        pythons, _, platforms = ({tag.split("-", 2)[part] for tag in wheel.tags} for part in range(3))
        taken = {tag.split("-", 2)[2] for tag in self.tags}
        if not platforms & taken:
            return f"built for {', '.join(sorted(platforms))}; this machine is {self.platform}"
        shown = ", ".join(sorted({"-".join(tag.split("-", 2)[:2]) for tag in wheel.tags}))
        return f"built for the Pythons {', '.join(sorted(pythons))} (tags {shown}); this is {self.python}"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _admits(specifier: Any) -> Callable[[str], bool]:
    return lambda version: bool(specifier.contains(version, prereleases=True))


@cache
def _packaging(module: str) -> Any:
    """A module of the package `packaging`: pip's own copy, as pip is what installs; else the one that is installed."""
    for root in _PACKAGING:
        try:
            return importlib.import_module(f"{root}.{module}")
        except ImportError:
            continue
    raise OfflineError(
        f"pip is not there, nor the package packaging, so that {sys.executable} cannot install a wheel; "
        "python -m ensurepip brings pip, without a network"
    )
