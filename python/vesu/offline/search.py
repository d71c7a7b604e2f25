"""Folders of wheels: where they are looked for, and how long at most."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesu.offline.manifest import MANIFEST_NAME
from vesu.offline.wheels import shown

__all__ = ["KAGGLE_ROOT", "VARIABLE", "Limits", "Searched", "search", "search_roots"]

VARIABLE = "VESU_WHEELHOUSE"
KAGGLE_ROOT = Path("/kaggle/input")


@dataclass(frozen=True)
class Limits:
    """Where a search ends whatever is left: a mounted input may hold millions of files beside ours.

    Attributes
    ----------
    entries, folder_entries : int
        Directory entries looked at, in all and in one folder.
    depth : int
        Levels below the root: the deepest of Kaggle's mount styles, a model's version, has seven.
    seconds : float
    """

    entries: int = 200_000
    folder_entries: int = 10_000
    depth: int = 8
    seconds: float = 15.0


@dataclass(frozen=True)
class Searched:
    """One root that was searched.

    Attributes
    ----------
    root : Path
    why : str
        What named it: an argument, an environment variable, Kaggle's mounts.
    wheelhouses : tuple of Path
        Folders with a wheel or a manifest in them, nearest first.
    entries : int
        Directory entries that were looked at.
    cut : str or None
        Which limit ended the search, or why the root cannot be listed; None where everything was seen.
    """

    root: Path
    why: str
    wheelhouses: tuple[Path, ...]
    entries: int
    cut: str | None

    def fields(self) -> dict[str, Any]:
        """As an event's fields."""
        return {
            "root": shown(self.root),
            "why": self.why,
            "wheelhouses": list(map(shown, self.wheelhouses)),
            "entries": self.entries,
            "cut": self.cut,
        }


def search_roots(wheelhouse: Path | None = None, kaggle_root: Path = KAGGLE_ROOT) -> list[tuple[Path, str]]:
    """Where to search, each with what named it, in order: an argument, ``VESU_WHEELHOUSE``, Kaggle's mounts.

    Examples
    --------
    >>> [why for _, why in search_roots(Path("wheels-offline"))][0]
    'the argument wheelhouse'
    """
    roots = [] if wheelhouse is None else [(wheelhouse, "the argument wheelhouse")]
    named = [each for each in os.environ.get(VARIABLE, "").split(os.pathsep) if each]
    roots += [(Path(each), f"the environment variable {VARIABLE}") for each in named]
    return [*roots, (kaggle_root, "Kaggle's mounts")]


def search(root: Path, why: str, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> Searched:
    """Find the folders below a root (itself included) that hold a wheel or a manifest.

    Parameters
    ----------
    root : Path
        Need not exist.
    why : str
        What named it, for the record.
    limits : Limits, optional
    clock : callable
        Seconds; a test's own.

    Returns
    -------
    Searched

    Notes
    -----
    Requirement R06. Level by level, so that a deep or broad neighbour does not hide a folder near the root; folders
    with "wheel" in their name come first on their level. Links are followed, each folder is visited once.

    Examples
    --------
    >>> search(Path("no/such/folder"), "an example").cut
    'no such folder'
    """
    walk = _Walk(limits or Limits(), clock)
    if not root.is_dir():
        return Searched(root, why, (), 0, "no such folder")
    found = tuple(walk.wheelhouses(root.absolute()))
    return Searched(root, why, found, walk.entries, walk.cut)


@dataclass
class _Walk:
    limits: Limits
    clock: Callable[[], float]
    entries: int = 0
    cut: str | None = None
    seen: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.end = self.clock() + self.limits.seconds

    def wheelhouses(self, root: Path) -> Iterator[Path]:
        queue = deque([(root, 0)])
        while queue and not self.over():
            folder, depth = queue.popleft()
            try:
                stat = folder.stat()
                if (stat.st_dev, stat.st_ino) in self.seen:
                    continue  # reached before, through a link
                self.seen.add((stat.st_dev, stat.st_ino))
                subfolders, is_wheelhouse = self.listed(folder)
            except OSError as error:
                self.cut = self.cut or f"{shown(folder)} cannot be listed: {error.strerror or error}"
                continue
            if is_wheelhouse:
                yield folder
            if depth < self.limits.depth:
                queue.extend((each, depth + 1) for each in subfolders)
            elif subfolders:
                self.cut = self.cut or f"deeper than {depth} levels"

    def over(self) -> bool:
        if self.entries >= self.limits.entries:
            self.cut = f"more than {self.limits.entries} entries"
        elif self.clock() >= self.end:
            self.cut = f"more than {self.limits.seconds:g} seconds"
        else:
            return False
        return True

    def listed(self, folder: Path) -> tuple[list[Path], bool]:
        """The subfolders of a folder, likely ones first, and whether it is a wheelhouse itself."""
        subfolders, is_wheelhouse, count = [], False, 0
        with os.scandir(folder) as entries:
            for entry in entries:
                count, self.entries = count + 1, self.entries + 1
                if count > self.limits.folder_entries:
                    self.cut = self.cut or f"{shown(folder)} has more than {self.limits.folder_entries} entries"
                    break
                if count % 256 == 0 and self.over():
                    break
                if entry.name == MANIFEST_NAME or (entry.name.endswith(".whl") and entry.name[0] != "."):
                    is_wheelhouse = True
                elif entry.name[0] != "." and _is_folder(entry):
                    subfolders.append(folder / entry.name)
        return sorted(subfolders, key=lambda each: ("wheel" not in each.name.lower(), each.name)), is_wheelhouse


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself
