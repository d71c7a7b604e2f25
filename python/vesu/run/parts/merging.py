"""All parts of a phase into one folder, each checked before anything is written: :func:`merge`."""

import html
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.cache import ArrayCache, content_id
from vesu.data.jsonfiles import refusing_misplaced
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.data.volumes import read_volume
from vesu.errors import ArgumentError, DataError, EvidenceError, FileError, FormatError
from vesu.ledger import verify
from vesu.run.events import EventLog
from vesu.run.folder import locked
from vesu.run.parts.agreement import agreed
from vesu.run.parts.masks import mask_name
from vesu.run.parts.record import ARRAYS, EVENTS, MODEL, PartReport, VolumeRecord, read_part, sealed
from vesu.submission import SubmissionReport, write_submission

__all__ = ["FORMAT", "MERGED", "MergeReport", "copy_file", "merge"]

MERGED = "merge.json"
FORMAT = "vesu-merge/1"
CACHE = "cache"
MARK = ".vesu-merge"
FOLDERS = ("masks", "segment", "student", CACHE)
OUTPUTS = (MERGED, EVENTS, "submission.zip", "model.npz", "model.json", *FOLDERS)

UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class MergeReport:
    """What parts came to together.

    Attributes
    ----------
    folder : Path
    phase : {"features", "segment"}
    parts : tuple of PartReport
        By their number.
    n_arrays, n_bytes : int
        Entries of the cache in ``folder``, and their size; 0 after ``"segment"``.
    decoded_bytes : int
        What the volumes of these arrays take beside them in a run's cache.
    submission : SubmissionReport or None
        The checked zip; None after ``"features"``.
    entries, root
        Of the merge's own event log.
    """

    folder: Path
    phase: str
    parts: tuple[PartReport, ...]
    n_arrays: int
    n_bytes: int
    decoded_bytes: int
    submission: SubmissionReport | None
    entries: int
    root: str

    @property
    def n_volumes(self) -> int:
        """Volumes of all parts together."""
        return sum(len(part.records) for part in self.parts)

    def __str__(self) -> str:
        """What the command line says of it, with what comes next."""
        lines = [f"merged      {len(self.parts)} parts, phase {self.phase}: {self.n_volumes} volumes"]
        if self.submission is None:
            cache = self.folder / CACHE
            lines.append(f"arrays      {self.n_arrays} of {self.n_bytes / 2**20:.1f} MiB, verified, in {cache}")
            room = -(-(self.n_bytes + self.decoded_bytes) * 11 // 10 // 2**30) or 1
            lines.append(f"next        vesu run DATA --out RUN --cache {cache} --set cache_gib={max(8, room)}")
        else:
            sealed = f"{len(self.submission.members)} masks, sha256 {self.submission.sha256[:16]}..."
            lines.append(f"submission  {self.submission.path} is valid: {sealed}")
        lines.append(f"evidence    {self.folder / EVENTS}: {self.entries} entries, root {self.root[:16]}...")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        found = f"{self.n_arrays} arrays" if self.submission is None else f"{len(self.submission.members)} masks"
        return (
            f"<b>vesu merge</b> of {len(self.parts)} parts ({self.phase}): {self.n_volumes} volumes, {found}; files in "
            f"<code>{html.escape(str(self.folder))}</code>"
        )


def merge(parts: Sequence[str | Path], out: str | Path) -> MergeReport:
    """Put all parts of a phase together, or refuse by name.

    Parameters
    ----------
    parts : sequence of path
        Folders of finished parts, in any order: every part, once.
    out : path
        A new or empty folder, or one that an earlier merge filled, whose outputs are replaced.

    Returns
    -------
    MergeReport
        After ``"features"`` there is ``out/cache``, for ``vesu.run(..., cache=...)``; after ``"segment"`` there are
        ``out/submission.zip``, ``out/masks`` with ``out/segment``, and the model.

    Raises
    ------
    ArgumentError
        No parts.
    DataError
        A part is missing, twice there, of another config, data set, model, version or number of parts, or holds a
        volume of another part; ``out`` is in use. The message names each, and nothing is written.
    EvidenceError, FormatError
        A part that is damaged: the message names the file.
    FileError
        The system refused a step.

    Notes
    -----
    Requirements R05, R09, R38. Every file of every part is checked against its BLAKE3, every log against its Merkle
    root; ``merge.json`` and the merge's own log name the root of each. The zip is that of a run in one process, bit for
    bit.

    Examples
    --------
    >>> from vesu.run.parts import merge
    >>> print(merge(["part-0", "part-1"], "merged"))  # doctest: +SKIP
    """
    if not parts:
        raise ArgumentError("parts: got none; accepted: the folders of all parts")
    reports = agreed([read_part(part) for part in parts])
    plan = reports[0].plan
    with _claimed(Path(out)) as folder:
        with EventLog(folder / EVENTS, run_id=uuid.uuid4().hex) as log:
            log.emit("MERGE_START", **plan.shared())
            for report in reports:
                log.emit("MERGE_PART", **_named(report))
            if plan.phase == "features":
                arrays, submission = _arrays(reports, folder, log), None
            else:
                arrays, submission = [], _masks(reports, folder, log)
            log.emit("MERGE_END", arrays=len(arrays), submission_sha256=submission.sha256 if submission else None)
        checked = verify(folder / EVENTS)
        if (checked.entries, checked.root) != (log.size, log.root):
            raise EvidenceError(f"{log.path}: the file is not what this merge wrote")
        content = {
            "format": FORMAT,
            **plan.shared(),
            "parts": [_named(report) for report in reports],
            "volumes": {each.volume_id: each.to_json() for report in reports for each in report.records},
            "submission_sha256": submission.sha256 if submission else None,
            "log": {"entries": checked.entries, "root": checked.root},
        }
        write_json_atomic(folder / MERGED, {**content, "digest": sealed(content)})
    decoded = sum(volume.voxels * len(volume.files) for volume in plan.volumes) if arrays else 0
    n_bytes = sum(arrays)
    return MergeReport(
        folder, plan.phase, reports, len(arrays), n_bytes, decoded, submission, checked.entries, checked.root
    )


# ---- what they hold


def _arrays(reports: Sequence[PartReport], folder: Path, log: EventLog) -> list[int]:
    """All arrays in one cache; the bytes of each entry."""
    cache = ArrayCache(folder / CACHE, max_bytes=UNBOUNDED, min_free_bytes=0, events=log.emit)
    sizes = []
    for report in reports:
        for record in report.records:
            for key, names in _entries(record).items():
                arrays = {Path(name).stem: _mapped(report.folder / name) for name in names}
                status = cache.put(key, **arrays)
                if status not in ("stored", "exists"):
                    raise FileError(None, f"an entry of {record.volume_id} was {status}", str(cache.folder))
                sizes.append(sum(array.nbytes for array in arrays.values()))
            log.emit("MERGE_VOLUME", part_id=report.plan.part_id, **record.to_json())
    return sizes


def _entries(record: VolumeRecord) -> dict[str, list[str]]:
    """Array files of each of a volume's cache entries, by key."""
    found: dict[str, list[str]] = {}
    for name in record.files:
        where = PurePosixPath(name).parts
        if len(where) != 3 or where[0] != ARRAYS:
            raise FormatError(f"{record.volume_id}: got the file {name!r}; accepted: {ARRAYS}/KEY/NAME")
        if name.endswith(".npy"):
            found.setdefault(where[1], []).append(name)
    return found


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(
            path, mmap_mode="r" if path.stat().st_size > 1 << 16 else None, allow_pickle=False
        )
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path}: {error}") from error
    return array


def _masks(reports: Sequence[PartReport], folder: Path, log: EventLog) -> SubmissionReport:
    """Masks, their evidence and the model in one folder, and the zip."""
    first = reports[0]
    for name in first.plan.model:
        copy_file(first.folder / MODEL / name, folder / name)
    records: dict[str, VolumeRecord] = {}
    for report in reports:
        for record in report.records:
            for name, blake3 in record.files.items():
                copy_file(report.folder / name, folder / name, blake3)
            log.emit("MERGE_VOLUME", part_id=report.plan.part_id, **record.to_json())
            records[record.volume_id] = record
    shapes = {name: _shape(record) for name, record in records.items()}
    masks = ((name, read_volume(folder / mask_name(name))) for name in sorted(shapes))
    submission = write_submission(folder / "submission.zip", masks, expected=shapes)
    log.emit("SUBMISSION_WRITTEN", sha256=submission.sha256, members=len(submission.members))
    return submission


def _shape(record: VolumeRecord) -> tuple[int, int, int]:
    with refusing_misplaced(f"the record of {record.volume_id}"):
        depth, height, width = (int(length) for length in record.facts["shape"])
        return depth, height, width


def copy_file(source: Path, target: Path, blake3: str | None = None) -> None:
    """Copy a file whole or not at all; its content must have this BLAKE3, where one is given."""
    make_folder(target.parent)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(source)) from error
    if blake3 is not None and content_id(data) != blake3:
        raise EvidenceError(f"{source}: its content is not what was sealed")
    write_bytes_atomic(target, data)


def _named(report: PartReport) -> dict[str, Any]:
    """A part, as log and ``merge.json`` name it."""
    return {
        "part_id": report.plan.part_id,
        "digest": report.digest,
        "volumes": [record.volume_id for record in report.records],
        "log": {"run_id": report.run_id, "entries": report.entries, "root": report.root},
    }


@contextmanager
def _claimed(folder: Path) -> Iterator[Path]:
    try:
        make_folder(folder)
        foreign = [name for name in OUTPUTS if os.path.lexists(folder / name)]
        if foreign and not (folder / MARK).exists():
            raise DataError(
                f"out: got {folder}, which holds {', '.join(foreign)} that no merge wrote; accepted: a new or empty "
                "folder, or that of an earlier merge"
            )
        with locked(folder, MARK):
            for name in OUTPUTS:
                old = folder / name
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                else:
                    old.unlink(missing_ok=True)
            yield folder
    except FileError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror, error.filename or str(folder)) from error
