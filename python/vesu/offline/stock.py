"""What folders of wheels offer, and which wheels of it would make a package importable here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesu.errors import VesuError
from vesu.offline.interpreter import PROTECTED, Interpreter, Requirement
from vesu.offline.manifest import MANIFEST_NAME, read_manifest
from vesu.offline.wheels import Wheel, file_sha256, normalised, read_wheel, shown

__all__ = ["Offer", "Plan", "Rejection", "Stock", "offers"]


@dataclass(frozen=True)
class Offer:
    """A wheel in a folder, or what goes by that name there.

    Attributes
    ----------
    path : Path
    wheel : Wheel or None
        None where it cannot be described.
    listed : bool
        Whether a manifest vouches for it.
    problem : str or None
        Why it cannot be used, by what manifest and directory say.
    """

    path: Path
    wheel: Wheel | None
    listed: bool
    problem: str | None = None

    def damage(self) -> str | None:
        """Why the file is not what its manifest lists, by its SHA-256; None if it is, or if no manifest lists it."""
        if self.wheel is None or not self.listed:
            return None
        try:
            size, found = self.path.stat().st_size, file_sha256(self.path)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if (size, found) == (self.wheel.size, self.wheel.sha256):
            return None
        return (
            f"damaged: {MANIFEST_NAME} lists sha256 {self.wheel.sha256} of {self.wheel.size} bytes, "
            f"the file has {found} of {size}"
        )


@dataclass(frozen=True)
class Rejection:
    """A wheel that is not used, and why."""

    path: Path
    reason: str

    def fields(self) -> dict[str, Any]:
        """As an event's fields."""
        return {"wheel": shown(self.path), "reason": self.reason}


@dataclass(frozen=True)
class Plan:
    """A wheel of the package, and before it the wheels of what it needs and is not installed."""

    wheels: tuple[Offer, ...]
    others: tuple[Offer, ...] = ()
    """Wheels of the package that would do too, after this one."""

    @property
    def chosen(self) -> Offer:
        """The wheel of the package itself."""
        return self.wheels[-1]

    def passed_over(self) -> list[Rejection]:
        """The others, once this one is taken."""
        wheel = self.chosen.wheel
        assert wheel is not None
        return [Rejection(each.path, f"{wheel.version} of {shown(self.chosen.path)} is taken") for each in self.others]


def offers(folder: Path, package: str | None = None) -> list[Offer]:
    """What a folder offers: the wheels of its manifest; without a manifest, every wheel as it describes itself.

    Parameters
    ----------
    folder : Path
        Holds wheels, or a manifest, or both.
    package : str, optional
        Only its wheels, by their file names.

    Returns
    -------
    list of Offer
        Sorted by file; what cannot be used is there too, with its problem.

    Notes
    -----
    Where a manifest is, only what it lists is used: a wheel beside it, and every wheel beside a manifest that cannot
    be read, is refused. Hashes are not checked here; :meth:`Offer.damage` does.
    """

    def wanted(file: str) -> bool:
        return file[0] != "." and (package is None or normalised(file.split("-")[0]) == normalised(package))

    try:
        present = {path.name for path in folder.glob("*.whl") if wanted(path.name)}
    except OSError:
        return []
    if not (folder / MANIFEST_NAME).exists():
        return [_described(folder / file) for file in sorted(present)]
    try:
        listed = {wheel.file: wheel for wheel in read_manifest(folder).wheels if wanted(wheel.file)}
    except VesuError as error:
        return [Offer(folder / file, None, False, f"not used: {error}") for file in sorted(present)]
    found = []
    for file in sorted(listed.keys() | present):
        wheel = listed.get(file)
        problem = f"not in {MANIFEST_NAME}" if wheel is None else None
        if file not in present:
            problem = f"listed in {MANIFEST_NAME}, but not there"
        found.append(Offer(folder / file, wheel, wheel is not None, problem))
    return found


def _described(path: Path) -> Offer:
    try:
        return Offer(path, read_wheel(path), False)
    except VesuError as error:
        return Offer(path, None, False, str(error))


@dataclass
class Stock:
    """The wheels of some folders, judged for one interpreter.

    Attributes
    ----------
    folders : sequence of Path
        The first one that has the best wheel of a package gives it.
    interpreter : Interpreter
    rejections : list of Rejection
        Grows with every wheel that is found wanting.
    """

    folders: Sequence[Path]
    interpreter: Interpreter
    rejections: list[Rejection] = field(default_factory=list)

    def plans(self, package: str) -> Iterator[Plan]:
        """Ways to install a package, the best first; every wheel that is passed over is in `rejections`.

        Yields
        ------
        Plan
            Its wheels are verified; take the next one only if this one failed.
        """
        return self._plans(package, None, ())

    def _plans(self, package: str, admitted: Requirement | None, chain: tuple[str, ...]) -> Iterator[Plan]:
        fitting = self._fitting(package, admitted)
        for place, offer in enumerate(fitting):
            if problem := offer.damage():
                self._reject(offer, problem)
                continue
            needed = self._needed(offer, (*chain, normalised(package)))
            if needed is None:
                continue
            yield Plan((*needed, offer), tuple(fitting[place + 1 :]))

    def _fitting(self, package: str, admitted: Requirement | None) -> list[Offer]:
        """The offers that this interpreter takes, the best first."""
        fitting = []
        for folder in self.folders:
            for offer in offers(folder, package):
                if problem := self._misfit(offer, admitted):
                    self._reject(offer, problem)
                else:
                    fitting.append(offer)
        return sorted(fitting, key=self._order, reverse=True)  # stable: of equals, the first folder's comes first

    def _order(self, offer: Offer) -> tuple[Any, int]:
        assert offer.wheel is not None
        return self.interpreter.order(offer.wheel)

    def _misfit(self, offer: Offer, admitted: Requirement | None) -> str | None:
        if offer.problem or offer.wheel is None:
            return offer.problem
        name, version = normalised(offer.wheel.name), offer.wheel.version
        if name in PROTECTED:
            return f"{name} is never installed from a wheelhouse"
        if (problem := self.interpreter.misfit(offer.wheel)) is not None:
            return problem
        if admitted is not None and not admitted.admits(version):
            return f"{admitted.text} is needed"
        installed = self.interpreter.installed(name)
        return None if installed is None else f"{name} {installed} is installed, and is never replaced"

    def _needed(self, offer: Offer, chain: tuple[str, ...]) -> tuple[Offer, ...] | None:
        """Offers of what a wheel needs and is not installed; None, and a rejection, if that cannot be had."""
        found: list[Offer] = []
        wheel = offer.wheel
        assert wheel is not None
        try:
            requirements = self.interpreter.requirements(wheel)
        except ValueError as error:  # InvalidRequirement, or a marker that cannot be evaluated
            self._reject(offer, f"what it needs cannot be read: {error}")
            return None
        for each in requirements:
            installed = self.interpreter.installed(each.name)
            if installed is not None:
                if each.admits(installed):
                    continue
                self._reject(offer, f"needs {each.text}; {each.name} {installed} is installed, and is never replaced")
                return None
            # A package that needs itself by way of others is being installed already.
            if each.name in chain or any(_is(one, each.name) for one in found):
                continue
            if each.name in PROTECTED:
                self._reject(offer, f"needs {each.text}, which is not installed, and never is from a wheelhouse")
                return None
            plan = next(self._plans(each.name, each, chain), None)
            if plan is None:
                self._reject(offer, f"needs {each.text}, which is neither installed nor to be had from a wheelhouse")
                return None
            found += [one for one in plan.wheels if one not in found]
        return tuple(found)

    def _reject(self, offer: Offer, reason: str) -> None:
        rejection = Rejection(offer.path, reason)
        if rejection not in self.rejections:
            self.rejections.append(rejection)


def _is(offer: Offer, name: str) -> bool:
    return offer.wheel is not None and normalised(offer.wheel.name) == name
