"""The labelled volumes that score a campaign's runs, and the data as the runs see it: without those labels."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vesu.campaign.matrix import Matrix
from vesu.data.discover import TEST_IMAGES, TRAIN_IMAGES, TRAIN_LABELS, Inventory, Pair, TestVolume
from vesu.data.storage import make_folder
from vesu.errors import ArgumentError, FileError
from vesu.run.parts.plan import Volume, volumes_of

__all__ = ["DATA", "LABELS", "Holdout", "hold_out", "link_data"]

DATA, LABELS = "data", "labels"
"""Folders of links in the campaign's folder: what the runs are given, and the labels that only the campaign sees."""

TEACHERS = "teachers"


@dataclass(frozen=True)
class Holdout:
    """A data set divided for a campaign."""

    inventory: Inventory
    """As the runs see it: the scoring volumes are its test volumes, and it has no others."""
    scored: tuple[Pair, ...]
    """The scoring volumes, by id, with the labels that no run sees."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the scoring volumes."""
        return tuple(pair.volume_id for pair in self.scored)

    def to_json(self) -> dict[str, Any]:
        """Which volumes they are, with sizes and fingerprints: what a resumed campaign must find again.

        Raises
        ------
        FileError
            A file cannot be read.
        """
        learned, scored = volumes_of(self.inventory, self.inventory.pairs), volumes_of(self.inventory, self.scored)
        return {"root": str(self.inventory.root), "learned": _listing(learned), "scored": _listing(scored)}


def hold_out(inventory: Inventory, matrix: Matrix) -> Holdout:
    """Set the matrix's scoring volumes aside, as test volumes of every run.

    Raises
    ------
    ArgumentError
        `score_volumes` names an id that has no label here; no labelled volume would be left to set aside.
    """
    pairs = {pair.volume_id: pair for pair in inventory.pairs}
    ids = _chosen(sorted(pairs), matrix)
    scored = tuple(pairs.pop(each) for each in ids)
    tests = tuple(TestVolume(pair.volume_id, pair.image) for pair in scored)
    labels = {pair.label for pair in scored}
    gone = labels | {test.image for test in inventory.tests}
    infos = {path: info for path, info in inventory.infos.items() if path not in gone}
    seen = replace(inventory, pairs=tuple(pairs.values()), tests=tests, infos=infos, csv_mismatches=())
    return Holdout(seen, scored)


def _chosen(ids: list[str], matrix: Matrix) -> list[str]:
    if matrix.score_volumes is not None:
        unknown = sorted(set(matrix.score_volumes) - set(ids))
        if unknown:
            raise ArgumentError(
                f"score_volumes: got {', '.join(unknown[:5])}; accepted: ids of labelled volumes, {_some(ids)}"
            )
        return sorted(matrix.score_volumes)
    if not ids:
        raise ArgumentError("data: got no labelled volume; accepted: at least one, to score the runs on")
    count = min(max(1, round(matrix.score_fraction * len(ids))), len(ids))
    order = np.random.Generator(np.random.Philox(matrix.score_seed)).permutation(len(ids))[:count]
    return sorted(ids[place] for place in order.tolist())


def link_data(holdout: Holdout, out: Path) -> None:
    """Lay links to the data in the campaign's folder; what is there already is left, what does not belong goes.

    Raises
    ------
    FileError
        The system refuses a link (some file systems have none).
    """
    wanted = dict(_links(holdout))
    try:
        for folder in (f"{DATA}/{TRAIN_IMAGES}", f"{DATA}/{TRAIN_LABELS}", f"{DATA}/{TEST_IMAGES}", LABELS):
            make_folder(out / folder)
            for link in (out / folder).iterdir():
                if link.is_symlink() and link.relative_to(out).as_posix() not in wanted:
                    link.unlink()
        for name, target in wanted.items():
            _link(out / name, target)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), error.filename or str(out)) from error


def _links(holdout: Holdout) -> Iterator[tuple[str, Path]]:
    """Every link below the campaign's folder, and what it names."""
    root = holdout.inventory.root
    for pair in holdout.inventory.pairs:
        yield f"{DATA}/{TRAIN_IMAGES}/{pair.image.name}", pair.image
        yield f"{DATA}/{TRAIN_LABELS}/{pair.label.name}", pair.label
    for pair in holdout.scored:
        yield f"{DATA}/{TEST_IMAGES}/{pair.image.name}", pair.image
        yield f"{LABELS}/{pair.volume_id}.tif", pair.label
    for folder in (root / TEACHERS, root.parent / TEACHERS):
        if folder.is_dir():  # where a run looks for them by itself
            yield f"{DATA}/{TEACHERS}", folder
            break


def _link(link: Path, target: Path) -> None:
    target = target.absolute()
    if link.is_symlink() and link.readlink() == target:
        return
    beside = link.with_name(f".{link.name}.{secrets.token_hex(6)}.tmp")
    beside.symlink_to(target)
    beside.replace(link)  # another part may lay the same link now


def _listing(volumes: tuple[Volume, ...]) -> Mapping[str, list[Any]]:
    return {volume.volume_id: [volume.voxels, *volume.files] for volume in volumes}


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
