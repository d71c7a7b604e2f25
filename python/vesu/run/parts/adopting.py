"""Masks that parts made, taken into the run whose model made them: :func:`adopt`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.data.cache import content_id
from vesu.data.discover import TestVolume
from vesu.data.jsonfiles import read_object, refusing_misplaced
from vesu.errors import DataError, EvidenceError, FormatError
from vesu.ledger import verify
from vesu.run.parts.masks import mask_name, model_files
from vesu.run.parts.merging import FORMAT, MERGED, copy_file
from vesu.run.parts.plan import made_by
from vesu.run.parts.record import EVENTS, VolumeRecord, record_of, sealed
from vesu.run.session import Session, file_sha512
from vesu.run.state import MaskRecord

__all__ = ["Merged", "adopt", "read_masks"]


@dataclass(frozen=True)
class Merged:
    """Masks out of parts, as ``merge.json`` tells of them."""

    folder: Path
    model: Mapping[str, str]
    """BLAKE3 of each file of the model that they were made with."""
    made_by: Mapping[str, Any]
    records: Mapping[str, VolumeRecord]
    digest: str
    root: str
    """Of the merge's log."""


def read_masks(folder: Path) -> Merged:
    """What :func:`vesu.run.parts.merge` wrote of the phase ``"segment"``; seal and log are verified, masks not yet.

    Raises
    ------
    DataError
        No ``merge.json``, or one of another phase.
    FormatError, EvidenceError
        Another file of that name; damage.
    FileError
        It cannot be read.
    """
    path = folder / MERGED
    if not path.exists():
        raise DataError(f"masks: got {folder}, which holds no {MERGED}; accepted: the folder that `vesu merge` wrote")
    values = read_object(path)
    digest = values.pop("digest", None)
    if values.get("format") != FORMAT:
        raise FormatError(f"{path}: format {values.get('format')!r}; accepted: {FORMAT!r}")
    if digest != sealed(values):
        raise EvidenceError(f"{path}: its content is not what was sealed")
    with refusing_misplaced(path):
        if values["phase"] != "segment":
            raise DataError(f"masks: got {folder} of the phase {values['phase']!r}; accepted: of 'segment'")
        log = verify(folder / EVENTS)
        if (log.entries, log.root) != (values["log"]["entries"], values["log"]["root"]):
            raise EvidenceError(f"{folder / EVENTS}: is not the log of this merge")
        records = {str(name): record_of(each, str(path)) for name, each in values["volumes"].items()}
        return Merged(folder, dict(values["model"]), dict(values["vesu"]), records, str(digest), log.root)


def adopt(session: Session, tests: Sequence[TestVolume], merged: Merged) -> dict[str, MaskRecord]:
    """Copy what parts made into the run's folder: of this model and of these very CT files, or not at all.

    Raises
    ------
    DataError
        The masks are of another model or another version of vesu; the message names what differs.
    EvidenceError
        A file of a mask is not what its part sealed.
    """
    own = {"model": model_files(session.folder), "vesu": made_by()}
    other = {"model": dict(merged.model), "vesu": dict(merged.made_by)}
    if names := [name for name in own if own[name] != other[name]]:
        raise DataError(f"masks: got {merged.folder}, made with another {' and '.join(names)} than this run's")
    session.log.emit("MASKS_FROM_PARTS", digest=merged.digest, root=merged.root, volumes=sorted(merged.records))
    taken = {}
    for test in tests:
        record = merged.records.get(test.volume_id)
        image = content_id(test.image)
        if record is None or record.sources.get("image") != image:
            session.log.emit("MASK_NOT_FROM_PARTS", volume_id=test.volume_id, image=image)
            continue
        # The mask last, so that a mask that is there has its evidence beside it.
        for name in sorted(record.files, key=lambda name: name == mask_name(test.volume_id)):
            copy_file(merged.folder / name, session.folder / name, record.files[name])
        taken[test.volume_id] = MaskRecord(image, file_sha512(session.folder / mask_name(test.volume_id)))
        session.log.emit("MASK_FROM_PARTS", volume_id=test.volume_id, sha512=taken[test.volume_id].sha512)
    return taken
