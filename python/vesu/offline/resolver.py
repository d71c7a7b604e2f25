"""From "this package is needed" to a package that can be imported, or to every reason why not (R06)."""

import html
import importlib
import importlib.util
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vesu.offline.install import check_import, install, place_of, refusal, targets
from vesu.offline.interpreter import Interpreter, OfflineError
from vesu.offline.search import KAGGLE_ROOT, Limits, Searched, search, search_roots
from vesu.offline.stock import Plan, Rejection, Stock
from vesu.offline.wheels import shown

__all__ = ["Emit", "Resolution", "require", "resolve"]

Emit: TypeAlias = Callable[[str, Mapping[str, Any]], object]
"""Gets the name and the fields of each decision."""

INSTALL_S = 180.0
IMPORT_S = 60.0

_LISTED = 40
# Two threads that need one package must not install it twice.
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Resolution:
    """How a package was resolved.

    Attributes
    ----------
    package, module : str
        What was asked for, and the module that it brings.
    status : {"present", "installed", "unavailable"}
        Importable already; installed now (or found installed in vesu's folder) and importable; neither.
    version : str or None
    folder : Path or None
        Where it was installed; it stands at the end of ``sys.path`` now.
    wheel : Path or None
        What was installed.
    searched : tuple of Searched
        Roots, in the order in which they were searched.
    rejections : tuple of Rejection
        Every wheel of the package that is not used.
    reason : str or None
        Why it is unavailable.
    decisions : tuple of (str, dict)
        All events, in order.
    """

    package: str
    module: str
    status: Literal["present", "installed", "unavailable"]
    version: str | None = None
    folder: Path | None = None
    wheel: Path | None = None
    searched: tuple[Searched, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    reason: str | None = None
    decisions: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @property
    def available(self) -> bool:
        """Whether the package can be imported now."""
        return self.status != "unavailable"

    def raise_if_unavailable(self) -> None:
        """Raise OfflineError with every path, wheel and reason; do nothing if the package is there."""
        if not self.available:
            raise OfflineError(str(self))

    def __str__(self) -> str:
        if self.status == "present":
            return f"{self.package} {self.version or ''} is importable".replace("  ", " ")
        if self.status == "installed":
            return f"{self.package} {self.version} is installed in {self.folder}, from {self.wheel}"
        return "\n  ".join([f"{self.package}: {self.reason}", *self._account()])

    def _account(self) -> list[str]:
        """A line for each root and each wheel that was passed over."""
        lines = []
        for each in self.searched:
            cut = f"; {each.cut}" if each.cut else ""
            found = ", ".join(map(shown, each.wheelhouses)) or "no wheels"
            lines.append(f"searched {shown(each.root)} ({each.why}): {found}{cut}")
        lines += [f"rejected {shown(each.path)}: {each.reason}" for each in self.rejections[:_LISTED]]
        if more := len(self.rejections) - _LISTED:
            lines += [f"and {more} wheels more"] if more > 0 else []
        return lines

    def _repr_html_(self) -> str:
        head = str(self).splitlines()[0]
        rows = "".join(f"<li>{html.escape(line)}</li>" for line in self._account())
        return f"<b>{html.escape(head)}</b>" + (f"<ul>{rows}</ul>" if rows else "")


def resolve(
    package: str,
    *,
    module: str | None = None,
    probe: str = "",
    wheelhouse: str | Path | None = None,
    target: str | Path | None = None,
    kaggle_root: str | Path = KAGGLE_ROOT,
    limits: Limits | None = None,
    install_s: float = INSTALL_S,
    import_s: float = IMPORT_S,
    emit: Emit | None = None,
) -> Resolution:
    """Make a package importable without a network, if that can be done.

    Parameters
    ----------
    package : str
        Its name on a package index, such as ``"imagecodecs"``.
    module : str, optional
        The module that it brings; default: the package's name with ``_`` for ``-``.
    probe : str
        A dotted attribute of the module that must be true for the import to count.
    wheelhouse : path, optional
        A folder of wheels to look in first; then come ``VESU_WHEELHOUSE`` and `kaggle_root`.
    target : path, optional
        A folder to install below; where it cannot be written: the user's own, then one of this process.
    kaggle_root : path
        Where Kaggle mounts inputs; all its mount styles are searched.
    limits : Limits, optional
        Where the search of a root ends whatever is left.
    install_s, import_s : float
        Seconds that pip and a trial import may take.
    emit : callable, optional
        ``emit(name, fields)`` gets each decision when it is made.

    Returns
    -------
    Resolution
        Never raises for a package that cannot be had: see :attr:`Resolution.status`, or use :func:`require`.

    Raises
    ------
    OfflineError
        Neither pip nor `packaging` is there to say what this interpreter takes.

    Notes
    -----
    Requirement R06. What is importable is left alone. A wheel must be listed in its folder's manifest (where there is
    one), have one of this interpreter's tags and its Python, need nothing that is missing, replace nothing that is
    installed, and have the SHA-256 that the manifest lists. It is installed by pip in a process of its own into a
    folder of its own, imported in a fresh process, and only then is its folder put at the end of ``sys.path``: what
    fails leaves no trace, and ``site-packages`` is never written to.

    Examples
    --------
    >>> resolve("numpy").status
    'present'
    """
    given = None if wheelhouse is None else Path(wheelhouse)
    roots = search_roots(given, Path(kaggle_root))
    work = _Work(package, module or package.replace("-", "_"), probe, import_s, install_s, emit)
    with _LOCK:
        return work.resolve(roots, limits, None if target is None else Path(target))


def require(package: str, **how: Any) -> Resolution:
    """As :func:`resolve`, but a package that cannot be had is an error.

    Parameters
    ----------
    package : str
        Its name on a package index.
    **how
        See :func:`resolve`.

    Returns
    -------
    Resolution
        Of status "present" or "installed".

    Raises
    ------
    OfflineError
        The message lists every path, every wheel and the reason against each.

    Examples
    --------
    >>> require("no-such-package", kaggle_root="no/such/folder")
    Traceback (most recent call last):
    vesu.offline.interpreter.OfflineError: no-such-package: cannot be imported (...), and no wheel of it was found ...
    """
    found = resolve(package, **how)
    found.raise_if_unavailable()
    return found


@dataclass
class _Work:
    """One resolution: its steps, and what was decided so far."""

    package: str
    module: str
    probe: str
    import_s: float
    install_s: float
    emit: Emit | None
    decisions: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    searched: list[Searched] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    told: int = 0
    """How many of the rejections have had their event."""

    def resolve(self, roots: list[tuple[Path, str]], limits: Limits | None, target: Path | None) -> Resolution:
        top = self.module.partition(".")[0]
        if importlib.util.find_spec(top) is not None:
            there = check_import(self.module, self.probe, _path(), self.import_s)
            self._say("OFFLINE_PRESENT", module=self.module, version=there.version, problem=there.problem)
            if there.problem is None:
                return self._result("present", version=there.version)
            return self._result("unavailable", reason=f"is installed, but cannot be imported: {there.problem}")
        for root, why in roots:
            self.searched.append(search(root, why, limits))
            self._say("OFFLINE_SEARCH", **self.searched[-1].fields())
        folders = list(dict.fromkeys(folder for each in self.searched for folder in each.wheelhouses))
        stock = Stock(folders, Interpreter.current(), self.rejections)
        for plan in stock.plans(self.package):
            self._tell_rejections()
            if (done := self._installed(plan, target)) is not None:
                return done
        self._tell_rejections()
        what = "no wheel of it could be used" if self.rejections else "no wheel of it was found"
        return self._result("unavailable", reason=f"cannot be imported (No module named {top!r}), and {what}")

    def _installed(self, plan: Plan, target: Path | None) -> Resolution | None:
        """The package installed by a plan and proved importable; None, and a rejection, if it is not."""
        wheel = plan.chosen.wheel
        assert wheel is not None
        self._say(
            "OFFLINE_WHEEL_CHOSEN",
            wheels=[shown(offer.path) for offer in plan.wheels],
            verified=["sha256" if offer.listed else "no manifest" for offer in plan.wheels],
        )
        for folder in targets(target):
            if (problem := refusal(folder)) is not None:
                self._say("OFFLINE_TARGET_REFUSED", folder=shown(folder), reason=problem)
                continue
            place = place_of(plan, folder)
            problem = self._put(plan, place)
            if problem is None:
                self.rejections += plan.passed_over()
                self._tell_rejections()
                sys.path.append(str(place))
                importlib.invalidate_caches()
                self._say("OFFLINE_PATH_ADDED", folder=shown(place))
                return self._result("installed", version=wheel.version, folder=place, wheel=plan.chosen.path)
            self.rejections.append(Rejection(plan.chosen.path, problem))
            return None
        self.rejections.append(Rejection(plan.chosen.path, "there is no folder that it could be installed into"))
        return None

    def _put(self, plan: Plan, place: Path) -> str | None:
        """Have a plan's wheels in a folder, importable; why they are not, if they are not."""
        if place.is_dir():
            if self._importable(place) is None:
                return None  # installed by an earlier session
            shutil.rmtree(place, ignore_errors=True)
        outcome = install(plan, place, self.install_s)
        self._say(
            "OFFLINE_INSTALL", folder=shown(place), ok=outcome.ok, seconds=outcome.seconds, message=outcome.text[-500:]
        )
        if not outcome.ok:
            return f"pip failed: {outcome.text.splitlines()[-1] if outcome.text else 'without a word'}"
        problem = self._importable(place)
        if problem is not None:
            shutil.rmtree(place, ignore_errors=True)
            return f"installed, it cannot be imported: {problem}"
        return None

    def _importable(self, place: Path) -> str | None:
        found = check_import(self.module, self.probe, [*_path(), place], self.import_s)
        self._say(
            "OFFLINE_IMPORT_CHECK",
            module=self.module,
            folder=shown(place),
            version=found.version,
            problem=found.problem,
            seconds=found.seconds,
        )
        return found.problem

    def _tell_rejections(self) -> None:
        """An event for each rejection that has none yet."""
        for each in self.rejections[self.told :]:
            self._say("OFFLINE_WHEEL_REJECTED", **each.fields())
        self.told = len(self.rejections)

    def _say(self, name: str, **fields: Any) -> None:
        whole = {"package": self.package, **fields}
        self.decisions.append((name, whole))
        if self.emit is not None:
            self.emit(name, whole)

    def _result(self, status: Literal["present", "installed", "unavailable"], **fields: Any) -> Resolution:
        self._say("OFFLINE_RESOLVED", status=status, **{k: str(v) for k, v in fields.items() if v is not None})
        return Resolution(
            self.package,
            self.module,
            status,
            searched=tuple(self.searched),
            rejections=tuple(self.rejections),
            decisions=tuple(self.decisions),
            **fields,
        )


def _path() -> list[Path]:
    """Where this process looks for modules: a fresh one has not what a notebook or an earlier resolution added."""
    return [Path(each) for each in sys.path if each]
