"""A part's folder: ``plan.json`` first, a record for each volume that is done, ``part.json`` last."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vesu.data.cache import content_id
from vesu.data.jsonfiles import read_object, refusing_misplaced
from vesu.data.storage import write_json_atomic
from vesu.errors import DataError, EvidenceError, FormatError
from vesu.ledger import verify
from vesu.run.parts.plan import Plan

__all__ = [
    "ARRAYS",
    "EVENTS",
    "MODEL",
    "PART",
    "PLAN",
    "VOLUMES",
    "PartReport",
    "VolumeRecord",
    "kept_record",
    "listed",
    "read_part",
    "read_plan",
    "record_of",
    "sealed",
    "write_part",
    "write_record",
]

PLAN, PART, EVENTS = "plan.json", "part.json", "events.jsonl"
VOLUMES = "volumes"
"""Folder of the volumes' records."""
ARRAYS = "arrays"
"""Folder of the sampled rows and soft labels, laid out as a cache."""
MODEL = "model"
"""Folder of the model that masks were made with."""

_DIGEST = "digest"


@dataclass(frozen=True)
class VolumeRecord:
    """One volume that is done: what it was made from, and the files that hold the result."""

    volume_id: str
    sources: Mapping[str, str]
    """BLAKE3 of the files that were read: ``image``, and ``label`` where there is one."""
    files: Mapping[str, str]
    """BLAKE3 of each file, by its path below the part's folder."""
    facts: Mapping[str, Any]
    """What else there is to say of it: the mask's shape, how many rows were drawn."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "volume_id": self.volume_id,
            "sources": dict(self.sources),
            "files": dict(self.files),
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class PartReport:
    """A part that is whole and verified.

    Attributes
    ----------
    folder : Path
    plan : Plan
        What it is of.
    records : tuple of VolumeRecord
        Its volumes, by id.
    run_id : str
        Of its event log.
    entries : int
        Number of the log's records.
    root : str
        The log's Merkle tree head, hexadecimal.
    digest : str
        BLAKE3 of ``part.json``'s content: the part's name among others.
    """

    folder: Path
    plan: Plan
    records: tuple[VolumeRecord, ...]
    run_id: str
    entries: int
    root: str
    digest: str

    def __str__(self) -> str:
        """What the command line says of it."""
        plan = self.plan
        return (
            f"part        {plan.part_id} of {plan.num_parts}, phase {plan.phase}: {len(self.records)} of "
            f"{len(plan.volumes)} volumes\n"
            f"evidence    {self.folder / EVENTS}: {self.entries} entries, root {self.root[:16]}...\n"
            f"digest      {self.digest}"
        )

    def _repr_html_(self) -> str:
        plan = self.plan
        return (
            f"<b>vesu part</b> {plan.part_id} of {plan.num_parts} ({plan.phase}): {len(self.records)} volumes, "
            f"log root <code>{self.root[:16]}</code>"
        )


def listed(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Files of a part with their BLAKE3, by their path below ``folder``."""
    return {path.relative_to(folder).as_posix(): content_id(path) for path in sorted(paths)}


def write_record(folder: Path, record: VolumeRecord) -> None:
    """Say that a volume is done; its files must be there before."""
    write_json_atomic(_record_path(folder, record.volume_id), record.to_json())


def kept_record(folder: Path, volume_id: str, sources: Mapping[str, str]) -> VolumeRecord | None:
    """What an earlier session left of a volume, if it was made from these files and all of it is still there."""
    path = _record_path(folder, volume_id)
    if not path.exists():
        return None
    try:
        record = record_of(read_object(path), str(path))
        _verify_files(folder, record.files)
    except (FormatError, EvidenceError):
        return None
    return record if record.sources == dict(sources) else None


def write_part(folder: Path, plan: Plan, records: Sequence[VolumeRecord], run_id: str) -> None:
    """Seal the part: everything that it holds, and the log as it stands, which must be closed before."""
    log = verify(folder / EVENTS)
    content = {
        **plan.to_json(),
        "volumes": [record.to_json() for record in records],
        "log": {"run_id": run_id, "entries": log.entries, "root": log.root},
    }
    write_json_atomic(folder / PART, {**content, _DIGEST: sealed(content)})


def read_part(folder: str | Path) -> PartReport:
    """Read a part and verify all of it: its seal, its log, every file.

    Parameters
    ----------
    folder : path
        What :func:`make_part` filled, on this machine or another.

    Returns
    -------
    PartReport

    Raises
    ------
    DataError
        No part, one that is not finished yet, or one that does not hold the volumes that fall to it.
    FormatError
        A ``part.json`` that is none.
    EvidenceError
        Damage: a seal, a log or a file that is not what was written. The message names the file.
    FileError
        A file cannot be read.

    Examples
    --------
    >>> read_part("nowhere")
    Traceback (most recent call last):
    vesu.errors.DataError: nowhere: holds no part.json; accepted: the folder of a finished part
    """
    folder = Path(folder)
    path = folder / PART
    if not path.exists():
        unfinished = " yet: go on with the same command" if (folder / PLAN).exists() else ""
        raise DataError(f"{folder}: holds no {PART}{unfinished}; accepted: the folder of a finished part")
    values = read_object(path)
    digest = values.pop(_DIGEST, None)
    plan = Plan.of_json(values, str(path))
    if digest != sealed(values):
        raise EvidenceError(f"{path}: its content is not what was sealed")
    with refusing_misplaced(path):
        records = tuple(record_of(each, str(path)) for each in values["volumes"])
        log = values["log"]
        run_id, entries, root = str(log["run_id"]), int(log["entries"]), str(log["root"])
    found = verify(folder / EVENTS)
    if (found.entries, found.root) != (entries, root):
        got = f"{found.entries} records with root {found.root[:16]}..."
        raise EvidenceError(f"{folder / EVENTS}: got {got}; accepted: {entries} with root {root[:16]}..., as sealed")
    names = tuple(record.volume_id for record in records)
    if names != plan.assigned:
        raise DataError(f"{path}: holds volumes {_some(names)}; accepted: {_some(plan.assigned)}, which fall to it")
    for record in records:
        _verify_files(folder, record.files)
    _verify_files(folder, {f"{MODEL}/{name}": blake3 for name, blake3 in plan.model.items()})
    return PartReport(folder, plan, records, run_id, entries, root, str(digest))


def read_plan(folder: Path) -> Plan | None:
    """What an earlier session began in this folder; None where nothing was."""
    path = folder / PLAN
    return Plan.of_json(read_object(path), str(path)) if path.exists() else None


def _record_path(folder: Path, volume_id: str) -> Path:
    return folder / VOLUMES / f"{volume_id}.json"


def record_of(values: Any, where: str) -> VolumeRecord:
    with refusing_misplaced(where):
        name = str(values["volume_id"])
        files = {str(path): str(blake3) for path, blake3 in values["files"].items()}
        record = VolumeRecord(name, dict(values["sources"]), files, dict(values["facts"]))
    if PurePosixPath(name).name != name:
        raise FormatError(f"{where}: got the volume id {name!r}; accepted: a file's name")
    for path in files:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise FormatError(f"{where}: got the path {path!r}; accepted: a path below the part's folder")
    return record


def _verify_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, blake3 in files.items():
        path = folder / name
        if not path.is_file():
            raise EvidenceError(f"{path}: is missing, and {PART} lists it")
        if content_id(path) != blake3:
            raise EvidenceError(f"{path}: its content is not what was sealed")


def sealed(content: Mapping[str, Any]) -> str:
    """BLAKE3 of JSON values, whatever order they stand in."""
    return content_id(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "none"
