"""What a part is of: decided before any work, from the data and the settings alone, and alike on every machine."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from vesu import _core
from vesu.data.cache import content_id
from vesu.data.discover import Inventory, Pair, TestVolume
from vesu.data.jsonfiles import refusing_misplaced
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.run.checkpoint import compare_compat

__all__ = ["PHASES", "Phase", "Plan", "Volume", "assign", "differences", "made_by", "volumes_of"]

FORMAT = "vesu-part/1"
NAMED = 8
"""So many differences are named in a message."""
EDGE = 1 << 16
"""Bytes at either end of a file that its fingerprint covers."""

Phase: TypeAlias = Literal["features", "segment"]
"""``features``: training volumes loaded and sampled, teachers asked. ``segment``: masks of the test volumes."""

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class Volume:
    """A volume of the whole phase, told by what can be read of it quickly."""

    volume_id: str
    voxels: int
    files: tuple[str, ...]
    """Of the CT, and of the label where the phase reads it: size, and BLAKE3 of the first and last 64 KiB."""


@dataclass(frozen=True)
class Plan:
    """One part among all: what it works on, and everything that its results depend on."""

    phase: Phase
    num_parts: int
    part_id: int
    volumes: tuple[Volume, ...]
    """Of the whole phase, all parts together."""
    config: Mapping[str, Any]
    """Every setting that a result depends on, by its dotted key."""
    made_by: Mapping[str, Any]
    """Version of vesu, and how its arithmetic rounds."""
    model: Mapping[str, str]
    """BLAKE3 of each of the model's files; empty where none is used."""
    teachers: Mapping[str, str]
    """Digest of each teacher that answers; empty where none is asked."""

    @property
    def assigned(self) -> tuple[str, ...]:
        """Ids of the volumes that fall to this part, sorted."""
        return assign({volume.volume_id: volume.voxels for volume in self.volumes}, self.num_parts)[self.part_id]

    def shared(self) -> dict[str, Any]:
        """What all parts of one work have in common."""
        listing = {each.volume_id: [each.voxels, *each.files] for each in self.volumes}
        return {
            "phase": self.phase,
            "num_parts": self.num_parts,
            "vesu": dict(self.made_by),
            "config": dict(self.config),
            "data": listing,
            "model": dict(self.model),
            "teachers": dict(self.teachers),
        }

    def to_json(self) -> dict[str, Any]:
        """Content of ``plan.json``."""
        return {"format": FORMAT, "part_id": self.part_id, **self.shared()}

    @classmethod
    def of_json(cls, values: Any, where: str) -> Self:
        """What :meth:`to_json` gave.

        Raises
        ------
        FormatError
            Something else; the message begins with ``where``.
        """
        with refusing_misplaced(where):
            if values["format"] != FORMAT:
                raise FormatError(f"{where}: format {values['format']!r}; accepted: {FORMAT!r}")
            if values["phase"] not in PHASES or not 0 <= values["part_id"] < values["num_parts"]:
                got = f"part {values['part_id']} of {values['num_parts']}, phase {values['phase']!r}"
                raise FormatError(f"{where}: got {got}; accepted: parts from 0 on, phases {PHASES}")
            return cls(
                phase=values["phase"],
                num_parts=int(values["num_parts"]),
                part_id=int(values["part_id"]),
                volumes=tuple(
                    Volume(str(name), int(voxels), tuple(map(str, files)))
                    for name, (voxels, *files) in sorted(values["data"].items())
                ),
                config=dict(values["config"]),
                made_by=dict(values["vesu"]),
                model=_texts(values["model"]),
                teachers=_texts(values["teachers"]),
            )


def assign(voxels: Mapping[str, int], num_parts: int) -> tuple[tuple[str, ...], ...]:
    """Which volumes fall to which part.

    Parameters
    ----------
    voxels : mapping of str to int
        Size of each volume, by its id.
    num_parts : int
        Number of parts, 1 or more.

    Returns
    -------
    tuple of tuple of str
        Of each part the ids of its volumes, sorted; together every volume once. A part may have none where there are
        fewer volumes than parts.

    Raises
    ------
    ArgumentError
        ``num_parts`` is not a positive integer.

    Notes
    -----
    The largest volume first, each to the part that has least so far, the first of equals (Graham, "Bounds on
    Multiprocessing Timing Anomalies", 1969): no part has more than 4/3 of what the best division's largest part has.
    Nothing but ids and sizes decides, so every machine comes to the same division.

    Examples
    --------
    >>> assign({"1": 64, "2": 27, "3": 27, "4": 8}, 2)
    (('1',), ('2', '3', '4'))
    """
    if isinstance(num_parts, bool) or not isinstance(num_parts, int) or num_parts < 1:
        raise ArgumentError(f"num_parts: got {num_parts!r}; accepted: an integer, 1 or more")
    parts: list[list[str]] = [[] for _ in range(num_parts)]
    loads = [0] * num_parts
    for name in sorted(voxels, key=lambda name: (-voxels[name], name)):
        least = loads.index(min(loads))
        parts[least].append(name)
        loads[least] += voxels[name]
    return tuple(tuple(sorted(part)) for part in parts)


def volumes_of(inventory: Inventory, items: Iterable[Pair | TestVolume]) -> tuple[Volume, ...]:
    """The phase's volumes; one whose header cannot be read counts as empty, and preflight will name it.

    Raises
    ------
    FileError
        A file cannot be read.
    """
    found = []
    for item in items:
        paths = [item.image, item.label] if isinstance(item, Pair) else [item.image]
        info = inventory.infos.get(item.image)
        voxels = 0 if info is None else math.prod(info.shape)
        found.append(Volume(item.volume_id, voxels, tuple(map(_fingerprint, paths))))
    return tuple(sorted(found, key=lambda volume: volume.volume_id))


def _fingerprint(path: Path) -> str:
    """Tells another data set of the same names at once; whole contents are compared where they are read anyway."""
    try:
        with path.open("rb") as file:
            head, size = file.read(EDGE), file.seek(0, os.SEEK_END)
            file.seek(max(len(head), size - EDGE))
            return f"{size} {content_id(head + file.read(EDGE))}"
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error


def made_by() -> dict[str, Any]:
    """What of this machine's vesu a result depends on."""
    # AVX2, AVX-512 and NEON give the same bits; only the portable path rounds differently.
    path = _core.simd_path()
    return {"version": _core.__version__, "arithmetic": "portable" if path == "portable" else "fused"}


def differences(first: Plan, second: Plan, names: Sequence[str]) -> list[str]:
    """In words, in what two parts are not of one work; ``names`` is what each is called."""
    found = compare_compat(first.shared(), second.shared())
    words = [f"{each.field}: {each.old!r:.80} in {names[0]}, {each.new!r:.80} in {names[1]}" for each in found[:NAMED]]
    return words + ([f"and {len(found) - NAMED} more"] if len(found) > NAMED else [])


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}
