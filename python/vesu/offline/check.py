"""What of a folder of wheels would install on this interpreter, and why the rest would not (R06)."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vesu.offline.interpreter import Interpreter, OfflineError
from vesu.offline.manifest import read_manifest
from vesu.offline.stock import Offer, Stock, offers
from vesu.offline.wheels import normalised

__all__ = ["CheckedWheel", "WheelhouseReport", "check_wheelhouse"]


@dataclass(frozen=True)
class CheckedWheel:
    """One wheel of a folder: whether it would install, is not needed as it is installed, or why it would not."""

    file: str
    package: str
    status: Literal["installs", "installed", "rejected"]
    reason: str


@dataclass(frozen=True)
class WheelhouseReport:
    """A folder of wheels, judged for one interpreter.

    Attributes
    ----------
    folder : Path
    python, platform : str
        Of the interpreter.
    wheels : tuple of CheckedWheel
        Sorted by file.
    faults : tuple of str
        Why the folder does not serve: a needed package of which no wheel would install, a damaged or missing wheel.
    """

    folder: Path
    python: str
    platform: str
    wheels: tuple[CheckedWheel, ...]
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all that is needed would install, and every file is what the manifest lists."""
        return not self.faults

    def raise_if_faulty(self) -> None:
        """Raise OfflineError with every fault; do nothing if there is none."""
        if self.faults:
            raise OfflineError("\n  ".join([f"{self.folder}: does not serve Python {self.python}", *self.faults]))

    def __str__(self) -> str:
        lines = [f"{each.status:9} {each.file}" + (f": {each.reason}" if each.reason else "") for each in self.wheels]
        return "\n".join([f"{self.folder} on Python {self.python}, {self.platform}", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{each.status}</td><td>{html.escape(each.file)}</td><td>{html.escape(each.reason)}</td></tr>"
            for each in self.wheels
        )
        place = f"{html.escape(str(self.folder))} on Python {self.python}"
        faults = "".join(f"<li>{html.escape(fault)}</li>" for fault in self.faults)
        return f"<b>{place}</b><table>{rows}</table>" + (f"<ul>{faults}</ul>" if faults else "")


def check_wheelhouse(folder: str | Path, need: Sequence[str] = ("vesu",)) -> WheelhouseReport:
    """Say of each wheel of a folder whether it would install on this interpreter, and why not.

    Parameters
    ----------
    folder : path
        Holds wheels and their ``MANIFEST.json``.
    need : sequence of str
        Packages that must install, each with all that it needs. An installed one needs no wheel, but for vesu, whose
        own wheel is judged as in an environment without it.

    Returns
    -------
    WheelhouseReport

    Raises
    ------
    FileError, FormatError
        There is no manifest, or it is refused.
    OfflineError
        Neither pip nor `packaging` is there to say what this interpreter takes.

    Notes
    -----
    Requirement R06. Every file is hashed. What is installed is never replaced.

    Examples
    --------
    >>> print(check_wheelhouse("wheels-offline"))  # doctest: +SKIP
    wheels-offline on Python 3.12.1, linux x86_64 glibc 2.35
    installs  imagecodecs-2026.3.6-cp311-abi3-manylinux_2_28_x86_64.whl
    installs  vesu-0.1.0-cp311-abi3-manylinux_2_17_x86_64.whl
    """
    folder = Path(folder)
    read_manifest(folder)
    here = Interpreter.current()
    interpreter = replace(here, installed=lambda name: None if name == "vesu" else here.installed(name))
    found = offers(folder)
    damage = {offer.path.name: problem for offer in found if (problem := offer.problem or offer.damage())}
    packages = sorted({_package(offer) for offer in found} | {normalised(name) for name in need})
    checked: list[CheckedWheel] = []
    faults = [f"{file}: {problem}" for file, problem in damage.items()]
    for package in packages:
        of_package = [offer for offer in found if _package(offer) == package]
        wheels, serves = _checked(package, of_package, damage, folder, interpreter)
        checked += wheels
        if not serves and package in map(normalised, need):
            faults.append(f"{package}: no wheel of it would install")
    return WheelhouseReport(
        folder, here.python, here.platform, tuple(sorted(checked, key=lambda each: each.file)), tuple(faults)
    )


def _checked(
    package: str, found: Sequence[Offer], damage: dict[str, str], folder: Path, interpreter: Interpreter
) -> tuple[list[CheckedWheel], bool]:
    """The wheels of one package, and whether it is installed or would be."""
    installed = interpreter.installed(package)
    stock = Stock((folder,), interpreter)
    plan = next(stock.plans(package), None)
    rejections = stock.rejections + (plan.passed_over() if plan else [])
    reasons = {each.path.name: each.reason for each in rejections} | damage
    wheels = []
    for offer in found:
        file, version = offer.path.name, None if offer.wheel is None else offer.wheel.version
        same = installed is not None and version is not None and interpreter.same_version(installed, version)
        status: Literal["installs", "installed", "rejected"] = "rejected"
        if file not in damage and same and interpreter.misfit(offer.wheel) is None:  # type: ignore[arg-type]
            status = "installed"
        elif plan is not None and offer == plan.chosen:
            status = "installs"
        reason = _with_others(plan.wheels[:-1]) if status == "installs" and plan else reasons.get(file, "")
        wheels.append(CheckedWheel(file, package, status, "" if status == "installed" else reason))
    return wheels, installed is not None or plan is not None


def _with_others(others: Sequence[Offer]) -> str:
    return f"with {', '.join(offer.path.name for offer in others)}" if others else ""


def _package(offer: Offer) -> str:
    return normalised(offer.path.name.split("-")[0] if offer.wheel is None else offer.wheel.name)
