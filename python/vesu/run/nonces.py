"""Golden nonces: the voxels of extreme confidence of each test volume, an event each, and their timeline (R31).

Two steps, so that a run that is cut anywhere leaves the same timeline. :func:`keep` finds a volume's nonces while its
probability is there and leaves them beside its mask. :func:`record`, when all masks are there, writes them into the
log, volume by volume, and then the timeline from what the log holds; what an earlier session wrote is not repeated.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vesu.config import RunConfig
from vesu.data.cache import content_id
from vesu.data.discover import TestVolume
from vesu.data.storage import atomic_write
from vesu.errors import DataError, EvidenceError, FileError, FormatError, VesuError
from vesu.run.events import EventLog
from vesu.run.history import events_named
from vesu.run.outputs import write_nonce_views
from vesu.run.session import Session
from vesu.volume import ExtremeVoxels, iter_extreme_voxels

__all__ = ["FINAL", "FOUND", "START", "TIMELINE", "are_kept", "files_of", "keep", "record"]

TIMELINE = "v3_golden_nonce_timeline.jsonl"
START, FOUND, FINAL = "GOLDEN_NONCE_TIMELINE_START", "GOLDEN_NONCE_FOUND", "GOLDEN_NONCE_TOPK_FINAL"
FAILED = "GOLDEN_NONCES_FAILED"
RETRAIN = "RESUME_PARTIAL_RETRAIN"
"""What was found before it is of masks that were given up."""

ROW = np.dtype([("z", "<u4"), ("y", "<u4"), ("x", "<u4"), ("score", "<f4")])
"""One nonce in ``segment/ID_nonces.npy``."""
BATCH = 1 << 13
"""Nonces that are held and logged at a time."""
PICTURED = 300
"""The best so many are marked in the report."""
BYTES_EACH = 640
"""Room that one takes in log, timeline and results.zip together, the volume's id and all."""


class Place(Protocol):
    """As much of a session as a volume's nonces need; a part of a run has it too."""

    @property
    def folder(self) -> Path: ...
    @property
    def config(self) -> RunConfig: ...
    @property
    def log(self) -> EventLog: ...


# ---- a volume's nonces, beside its mask


def keep(place: Place, volume_id: str, image: Any, probability: NDArray[np.float32]) -> None:
    """Find a volume's nonces and leave them in its files; nothing is done where none were asked for.

    Parameters
    ----------
    place : Place
        Where to.
    volume_id : str
    image : ndarray, shape (z, y, x)
        The CT, for the pictures.
    probability : ndarray of float32, shape (z, y, x)
        What the nonces are the extremes of.
    """
    asked = place.config.nonces
    if not asked.use:
        return
    rows_path, views_path = files_of(place, volume_id)
    count = min(asked.limit(probability.size), int(np.count_nonzero(probability >= np.float32(asked.threshold))))
    pieces = iter_extreme_voxels(
        probability, count, at_least=asked.threshold, n_threads=place.config.n_threads
    )  # `count` of 0 would be unlimited, and gives none: nothing qualifies
    best = ExtremeVoxels(np.empty((0, 3), np.int64), np.empty(0, np.float32))
    with atomic_write(rows_path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            best = best if len(best) else ExtremeVoxels(piece.positions[:PICTURED], piece.scores[:PICTURED])
            with place.log.watch.measure("io"):
                file.write(_rows(piece).tobytes())
    write_nonce_views(views_path, image, best.positions, count)


def files_of(place: Place, volume_id: str) -> list[Path]:
    """The files of a volume's nonces: the list, and the slices for the report; none where none were asked for."""
    ends = ("_nonces.npy", "_nonce_views.npz") if place.config.nonces.use else ()
    return [place.folder / "segment" / f"{volume_id}{end}" for end in ends]


def are_kept(place: Place, volume_id: str) -> bool:
    """Whether an earlier session left a volume's nonces, as far as they were asked for."""
    return all(path.exists() for path in files_of(place, volume_id))


def _rows(piece: ExtremeVoxels) -> NDArray[Any]:
    rows = np.empty(len(piece), ROW)
    for axis, name in enumerate("zyx"):
        rows[name] = piece.positions[:, axis]
    rows["score"] = piece.scores
    return rows


@dataclass(frozen=True)
class _Kept:
    """A volume's list on disk."""

    path: Path
    count: int
    content: str
    """BLAKE3 of the file."""

    @classmethod
    def at(cls, path: Path) -> "_Kept":
        """Look at the file, but for the rows.

        Raises
        ------
        DataError
            It is not there: the masks come from parts that were made without nonces.
        FormatError
            Not such a file, or not all of it.
        """
        if not path.exists():
            raise DataError(f"nonces: got no {path.name}; accepted: masks that were made with nonces.use = true")
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                whole = dtype == ROW and len(shape) == 1
                whole = whole and path.stat().st_size == file.tell() + shape[0] * ROW.itemsize
        except ValueError as error:
            raise FormatError(f"{path}: {error}") from error
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(path)) from error
        if not whole:
            raise FormatError(f"{path}: got {dtype} {shape}; accepted: all rows of {ROW}")
        return cls(path, shape[0], content_id(path))

    def batches(self, first: int) -> Iterator[NDArray[Any]]:
        """The rows from number ``first`` on."""
        with self.path.open("rb") as file:
            file.seek(-(self.count - first) * ROW.itemsize, 2)
            while data := file.read(BATCH * ROW.itemsize):
                yield np.frombuffer(data, ROW)


# ---- all nonces, into the log and the timeline


def record(session: Session, tests: Sequence[TestVolume]) -> None:
    """Write the nonces of all volumes into the log, then the timeline, then that it is whole (R31).

    Parameters
    ----------
    session : Session
        Its log goes on; what stands in it of these very lists is kept.
    tests : sequence of TestVolume
        Their masks, and with them their nonces, are there.

    Notes
    -----
    Memory does not depend on how many there are. Lists that are missing or damaged, and a disk without room for them,
    cost the timeline (``GOLDEN_NONCES_FAILED``), not the run: the masks are there.
    """
    if not session.config.nonces.use:
        return
    try:
        lists = {test.volume_id: _Kept.at(files_of(session, test.volume_id)[0]) for test in tests}
        _require_room(session.folder, sum(each.count for each in lists.values()))
    except VesuError as error:
        session.log.emit(FAILED, reason=str(error))
        return
    plan = {name: getattr(session.config.nonces, name) for name in ("top_k", "threshold", "quantile")}
    plan["volumes"] = [[name, each.count, each.content] for name, each in lists.items()]
    session.log.flush()
    begun = _Begun.found(session.log.path, plan) or _Begun(session.log.emit(START, plan=plan))
    _log_rest(session, lists, begun.found_so_far)
    sha256 = _write_timeline(session.folder / TIMELINE, session.log, begun.sequence)
    if not begun.final:
        counts = {name: each.count for name, each in lists.items()}
        top_k = session.config.nonces.top_k
        session.log.emit(FINAL, top_k=top_k, found=sum(counts.values()), volumes=counts, timeline_sha256=sha256)


def _require_room(folder: Path, count: int) -> None:
    needed, free = count * BYTES_EACH, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"nonces: got {count} of them, which need some {needed / 2**30:.1f} GiB of log and timeline with "
            f"{free / 2**30:.1f} GiB free; accepted: fewer (nonces.top_k, nonces.threshold), or a larger disk"
        )


@dataclass(frozen=True)
class _Begun:
    """How far the log is with these lists."""

    sequence: int
    """Number of the record that began them."""
    found_so_far: int = 0
    final: bool = False

    @classmethod
    def found(cls, log: Path, plan: Mapping[str, Any]) -> "_Begun | None":
        """What the log holds of a plan; None where the last one that was begun is another, or none was."""
        begun, found, final, of_plan = 0, 0, False, False
        for event in events_named(log, (START, FOUND, FINAL, RETRAIN)):
            name = event["event"]
            if name in (START, RETRAIN):
                begun, found, final, of_plan = event["seq"], 0, False, name == START and event["plan"] == plan
            elif name == FOUND:
                found += 1
            else:
                final = True
        return cls(begun, found, final) if of_plan else None


def _log_rest(session: Session, lists: Mapping[str, _Kept], done: int) -> None:
    """One event a nonce, in the lists' order, but for the first ``done``."""
    for name, kept in lists.items():
        skipped = min(done, kept.count)
        done -= skipped
        for rows in kept.batches(skipped):
            session.stops.poll()
            session.log.emit_table(FOUND, {key: rows[key] for key in ROW.names or ()}, volume_id=name)
    session.log.flush()


# A record as the ledger writes it, canonical JSON: of the members that it adds, a line of the timeline keeps the time.
_RECORD = re.compile(
    rb'\{"event":"GOLDEN_NONCE_FOUND","hash":"[0-9a-f]{64}","prev":"[0-9a-f]{64}","run_id":"(?:[^"\\]|\\.)*",'
    rb'("score":[^,]+,)"seq":\d+,("ts_ns":"\d+",.*\})\n'
)


def _write_timeline(path: Path, log: EventLog, since: int) -> str:
    """One line for each nonce that the log holds behind record ``since``, in its order; the file's SHA-256."""
    digest = hashlib.sha256()
    with log.watch.measure("io"), log.path.open("rb") as lines, atomic_write(path) as file:
        for line in islice(lines, since, None):
            if b'"event":"GOLDEN_NONCE_FOUND"' not in line:
                continue
            found = _RECORD.fullmatch(line)
            if found is None:
                raise EvidenceError(f"{log.path}: a {FOUND} that this run did not write: {line[:200]!r}")
            entry = b"{" + found[1] + found[2] + b"\n"
            digest.update(entry)
            file.write(entry)
    return digest.hexdigest()
