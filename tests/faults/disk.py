"""A disk that loses what was not synced: every state that a power cut may leave of a recorded run.

The model is the harshest that POSIX allows. An fsync of a file makes its content durable, but not its name; an fsync of
a folder makes durable the names that were made, moved and removed in it. Whatever is not durable is on disk or not,
each operation for itself and in any order; a write may be there in some of its 512-byte sectors only, or as zeros.
A rename is one operation: both of its names change or neither.
"""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from faults.shim import Op, Record

SECTOR = 512

State = Mapping[str, bytes | None]
"""Content by path below the folder, from "/" on; None for a folder. The folder itself is always there."""


class Kept(Enum):
    """What is left of a write without loss of generality; a tuple of sector numbers says which of them are."""

    ALL = "all"
    NONE = "none"
    ZEROS = "zeros"


Treatment = Kept | frozenset[int]


@dataclass(frozen=True)
class Write:
    """A write or (``data`` is None) a truncation of one file that no fsync has followed."""

    node: int
    offset: int
    data: bytes | None

    def sectors(self) -> range:
        """Those it touches, by their number in the file."""
        end = self.offset + len(self.data or b"")
        return range(self.offset // SECTOR, -(-end // SECTOR))

    def apply(self, content: bytearray, kept: Treatment) -> None:
        if kept is Kept.NONE:
            return
        if self.data is None:
            _resize(content, self.offset)
        elif kept is Kept.ZEROS:
            # The new size reached the disk, the bytes did not.
            _resize(content, max(len(content), self.offset + len(self.data)))
        else:
            for sector in self.sectors():
                if kept is Kept.ALL or (isinstance(kept, frozenset) and sector in kept):
                    begin = max(self.offset, sector * SECTOR)
                    end = min(self.offset + len(self.data), (sector + 1) * SECTOR)
                    _resize(content, max(len(content), end))
                    content[begin:end] = self.data[begin - self.offset : end - self.offset]


@dataclass(frozen=True)
class Naming:
    """Names that one call sets (to a node) or removes (None), as (folder's node, name, node)."""

    edits: tuple[tuple[int, str, int | None], ...]

    def touches(self, folder: int) -> bool:
        return any(where == folder for where, _, _ in self.edits)


@dataclass
class Disk:
    """What is durable, and in order what is not yet; nodes are numbers, 0 is the folder itself."""

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    live: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    """Names as the running program sees them."""
    pending: list[Naming | Write] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    opened: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State) -> "Disk":
        """A disk on which the state is durable."""
        disk = cls()
        for path in sorted(state):
            content = state[path]
            folder, name = disk._split(path)
            node = disk._new(None if content is None else content)
            disk.live[folder][name] = node
            disk.names[folder][name] = node
        return disk

    def step(self, record: Record) -> None:
        """Take the next call of the recorded run."""
        match record.op:
            case Op.MARK:
                self.acks.append(record.text)
            case Op.OPEN:
                self._open(record)
            case Op.CLOSE:
                self.opened.pop(record.fd, None)
            case Op.WRITE:
                self.pending.append(Write(self.opened[record.fd], record.number, record.data))
            case Op.TRUNCATE:
                self.pending.append(Write(self.opened[record.fd], record.number, None))
            case Op.SYNC:
                self._sync(self.opened[record.fd])
            case Op.MKDIR:
                self._name((*self._split(record.text), self._new(None)))
            case Op.UNLINK | Op.RMDIR:
                self._name((*self._split(record.text), None))
            case Op.RENAME:
                folder, name = self._split(record.text)
                target = self._split(os.fsdecode(record.data))
                self._name((folder, name, None), (*target, self.live[folder][name]))
            case _:
                raise ValueError(record)

    def state(self, choose: Mapping[int, Treatment] | None = None) -> State:
        """What is on the disk if of each pending operation (by its index) this is left; all of it by default."""
        names = {node: dict(entries) for node, entries in self.names.items()}
        contents: dict[int, bytearray] = {}
        for index, operation in enumerate(self.pending):
            kept = choose.get(index, Kept.NONE) if choose is not None else Kept.ALL
            if isinstance(operation, Write):
                content = contents.setdefault(operation.node, bytearray(self.files[operation.node]))
                operation.apply(content, kept)
            elif kept is not Kept.NONE:
                _rename(names, operation)
        found: dict[str, bytes | None] = {}
        todo = [(0, "")]
        while todo:
            folder, path = todo.pop()
            for name, node in names[folder].items():
                here = f"{path}/{name}"
                if node in names:
                    found[here] = None
                    todo.append((node, here))
                else:
                    found[here] = bytes(contents[node]) if node in contents else self.files[node]
        return found

    def choices(self, rng: random.Random, n_random: int) -> Iterator[Mapping[int, Treatment]]:
        """Ways to lose: nothing, all, each alone, all but each, every prefix, names or contents only, torn, random."""
        all_of = range(len(self.pending))
        writes = [i for i in all_of if isinstance(self.pending[i], Write)]
        yield dict.fromkeys(all_of, Kept.ALL)
        yield {}
        yield {i: Kept.ALL for i in all_of if i not in writes}
        yield dict.fromkeys(writes, Kept.ALL)
        for one in all_of:
            yield {one: Kept.ALL}
            yield {i: Kept.ALL for i in all_of if i != one}
            yield {i: Kept.ALL for i in all_of if i < one}
        for one in writes:
            for torn in self._torn(one, rng):
                yield {i: torn if i == one else Kept.ALL for i in all_of}
        for _ in range(n_random if self.pending else 0):
            share = rng.random()
            yield {i: self._treatment(i, share, rng) for i in all_of}

    def _torn(self, index: int, rng: random.Random) -> Iterator[Treatment]:
        write = self.pending[index]
        if not isinstance(write, Write) or write.data is None:
            return
        yield Kept.ZEROS
        sectors = write.sectors()
        if len(sectors) > 1:
            yield frozenset(sectors[: len(sectors) // 2])
            yield frozenset(sectors[len(sectors) // 2 :])
            yield frozenset(sector for sector in sectors if rng.random() < 0.5)

    def _treatment(self, index: int, share: float, rng: random.Random) -> Treatment:
        if rng.random() >= share:
            return Kept.NONE
        operation = self.pending[index]
        if isinstance(operation, Write) and operation.data is not None and rng.random() < 0.5:
            kept = rng.random()
            sectors = frozenset(sector for sector in operation.sectors() if rng.random() < kept)
            return sectors or Kept.ZEROS
        return Kept.ALL

    def _open(self, record: Record) -> None:
        if record.text in ("", "/"):
            self.opened[record.fd] = 0
            return
        folder, name = self._split(record.text)
        node = self.live[folder].get(name)
        if node is None:
            node = self._new(b"")
            self._name((folder, name, node))
        elif record.number & os.O_TRUNC:
            self.pending.append(Write(node, 0, None))
        self.opened[record.fd] = node

    def _sync(self, node: int) -> None:
        left: list[Naming | Write] = []
        content = None if node in self.names else bytearray(self.files[node])
        for operation in self.pending:
            if isinstance(operation, Write):
                mine = operation.node == node and content is not None
                if mine and content is not None:
                    operation.apply(content, Kept.ALL)
            else:
                mine = operation.touches(node)
                if mine:
                    _rename(self.names, operation)
            if not mine:
                left.append(operation)
        if content is not None:
            self.files[node] = bytes(content)
        self.pending = left

    def _name(self, *edits: tuple[int, str, int | None]) -> None:
        operation = Naming(edits)
        _rename(self.live, operation)
        self.pending.append(operation)

    def _new(self, content: bytes | None) -> int:
        node = len(self.files) + len(self.names)
        if content is None:
            self.names[node], self.live[node] = {}, {}
        else:
            self.files[node] = content
        return node

    def _split(self, path: str) -> tuple[int, str]:
        *folders, name = path.strip("/").split("/")
        node = 0
        for folder in folders:
            node = self.live[node][folder]
        return node, name


def crash_states(
    before: State, trace: Sequence[Record], *, seed: int, n_random: int
) -> Iterator[tuple[int, Sequence[str], State]]:
    """Each way the disk may look if the power goes between two calls: (calls done, acknowledged so far, state)."""
    rng = random.Random(seed)
    disk = Disk.of(before)
    for done in range(len(trace) + 1):
        acks = tuple(disk.acks)
        for choose in disk.choices(rng, n_random):
            yield done, acks, disk.state(choose)
        if done < len(trace):
            disk.step(trace[done])


def after(before: State, trace: Sequence[Record], choose: Mapping[int, Treatment] | None = None) -> State:
    """The state behind the whole trace, with all that is pending, or what is chosen of it."""
    disk = Disk.of(before)
    for record in trace:
        disk.step(record)
    return disk.state(choose)


def snapshot(folder: Path) -> State:
    """What a folder on the real disk holds."""
    found: dict[str, bytes | None] = {}
    for path in folder.rglob("*"):
        found[f"/{path.relative_to(folder)}"] = path.read_bytes() if path.is_file() else None
    return found


def materialise(state: State, folder: Path) -> None:
    """Make an empty folder hold the state."""
    for path in sorted(state):
        content = state[path]
        target = f"{folder}{path}"
        if content is None:
            Path(target).mkdir()
        else:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            os.write(descriptor, content)
            os.close(descriptor)


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _rename(names: dict[int, dict[str, int]], operation: Naming) -> None:
    for folder, name, node in operation.edits:
        if node is None:
            names[folder].pop(name, None)
        else:
            names[folder][name] = node
