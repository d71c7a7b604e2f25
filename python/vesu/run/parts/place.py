"""Where a part is made: its folder, claimed and with what an earlier session left, and what stands beside the work."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesu.config import RunConfig
from vesu.data.storage import make_folder, remove_abandoned, write_json_atomic
from vesu.errors import DataError, FileError, VesuError
from vesu.ledger import iter_events
from vesu.run.events import EventLog
from vesu.run.folder import locked
from vesu.run.heartbeat import Heartbeat, Ticker
from vesu.run.interrupts import Stops
from vesu.run.memory import MemoryMonitor
from vesu.run.parts.plan import Plan, differences
from vesu.run.parts.record import ARRAYS, EVENTS, MODEL, PART, PLAN, VOLUMES, VolumeRecord, read_plan, write_record

__all__ = ["OnVolume", "Place", "claimed", "run_id_of"]

MARK = ".vesu-part"
FOLDERS = (VOLUMES, ARRAYS, MODEL, "masks", "segment")
OUTPUTS = (PART, PLAN, EVENTS, *FOLDERS)

OnVolume = Callable[[str, int, int], object]
"""Told the id of a volume that is done, how many are, and of how many."""


@dataclass
class Place:
    """What the phases need at hand, as a run's session has it."""

    folder: Path
    plan: Plan
    config: RunConfig
    log: EventLog
    stops: Stops
    on_volume: OnVolume
    records: dict[str, VolumeRecord] = field(default_factory=dict)
    """Of the volumes that are done."""

    def __post_init__(self) -> None:
        time = self.config.time
        self.heartbeat = Heartbeat(self.log.emit, interval_s=time.heartbeat_s, stall_factor=time.stall_factor)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Signs of life, and how the memory is, however long a volume takes (R35, R42)."""

        def beat(late_s: float) -> None:
            with suppress(VesuError):  # a disk that refuses: the work itself meets it
                self.heartbeat.beat(late_s)

        ticker = Ticker(beat, self.config.time.heartbeat_s)
        name = f"{self.plan.phase}, part {self.plan.part_id} of {self.plan.num_parts}"
        with MemoryMonitor(self.log.emit, self.config.memory), self.heartbeat.around(name):
            ticker.start()
            try:
                yield
            finally:
                ticker.stop()

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log an event, called as stages call what they are given for that."""
        self.log.emit(name, **fields)

    def keep(self, record: VolumeRecord) -> None:
        """A volume is done, and its files are in place."""
        write_record(self.folder, record)
        self.log.emit("PART_VOLUME_DONE", **record.to_json())
        self._count(record)

    def kept(self, record: VolumeRecord) -> None:
        """A volume was done by an earlier session."""
        self.log.emit("PART_VOLUME_KEPT", volume_id=record.volume_id, files=dict(record.files))
        self._count(record)

    def _count(self, record: VolumeRecord) -> None:
        self.records[record.volume_id] = record
        self.heartbeat.step()
        self.on_volume(record.volume_id, len(self.records), len(self.plan.assigned))


@contextmanager
def claimed(folder: Path, plan: Plan, *, restart: bool) -> Iterator[Path]:
    """Make the folder ready for this part, and keep other processes out until the end.

    Raises
    ------
    DataError
        Files of an output's name that no part wrote; a part of something else, which nobody said to give up.
    FileError
        Another process writes here, or the system refuses a step.
    """
    try:
        make_folder(folder)
        foreign = [name for name in OUTPUTS if os.path.lexists(folder / name)]
        if foreign and not (folder / MARK).exists():
            raise DataError(
                f"out: got {folder}, which holds {', '.join(foreign)} that no part wrote; accepted: a new or empty "
                "folder, or the folder of this part"
            )
        with locked(folder, MARK):
            earlier = None if restart else read_plan(folder)
            if earlier is None:
                _clear(folder)
            else:
                _refuse_other(folder, earlier, plan)
            for name in FOLDERS:
                make_folder(folder / name)
                remove_abandoned(folder / name)
            remove_abandoned(folder)
            if earlier is None:
                write_json_atomic(folder / PLAN, plan.to_json())
            yield folder
    except FileError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror, error.filename or str(folder)) from error


def run_id_of(log: Path) -> str:
    """The run id that a log goes on under; a new one where there is none."""
    try:
        return str(next(iter(iter_events(log)))["run_id"])
    except (FileError, StopIteration, KeyError):
        return uuid.uuid4().hex


def _refuse_other(folder: Path, earlier: Plan, plan: Plan) -> None:
    found = differences(earlier, plan, [str(folder), "this command"])
    if earlier.part_id != plan.part_id:
        found.insert(0, f"part_id: {earlier.part_id} in {folder}, {plan.part_id} in this command")
    if found:
        raise DataError(
            f"out: got {folder}, which holds another part: {'; '.join(found)}; accepted: another folder, or --restart "
            "(restart=True) to give that part up"
        )


def _clear(folder: Path) -> None:
    for name in OUTPUTS:
        old = folder / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
