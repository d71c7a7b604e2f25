"""Small programs that save, append and replace, and the judges of what they leave behind: the log and the zip."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from vesu.ledger import LedgerWriter, iter_events, root_at, verify
from vesu.submission import check_submission, write_submission

Acknowledge = Callable[[str], None]


class Broken(Exception):
    """A promise of the storage layer that did not hold; the message says which."""


def promise(holds: bool, what: str) -> None:
    """Raise :class:`Broken` where it does not hold; unlike ``assert`` also under ``python -O``."""
    if not holds:
        raise Broken(what)


class Workload(Protocol):
    """One program under test. Acknowledgements are texts; one that begins with "kept" outlives the machine, any other
    one only the process."""

    name: str

    def prepare(self, folder: Path) -> None:
        """Make the old state, which is durable."""

    def act(self, folder: Path, acknowledge: Acknowledge) -> None:
        """Go on to the new state, acknowledging every step that is safe; a VesuError may end it."""

    def remember(self, folder: Path) -> None:
        """Take what a run without a fault left in the folder as what is expected."""

    def judge(self, folder: Path, acks: Sequence[str]) -> str:
        """Recover, twice, and go on working; the word for what was found. Broken where a promise does not hold."""

    def again(self, folder: Path, acknowledge: Acknowledge) -> None:
        """What the next process does where one was killed: recover, one step more, acknowledge."""

    def judge_again(self, folder: Path, acks: Sequence[str]) -> str:
        """What :meth:`again` acknowledged must be there, and whole."""


def number(acks: Sequence[str], kind: str) -> int:
    """The highest number acknowledged under these words; 0 for none."""
    found = [re.fullmatch(rf"{kind} (\d+)", ack) for ack in acks]
    return max((int(match[1]) for match in found if match), default=0)


def run_without_fault(workload: Workload, folder: Path) -> None:
    """Prepare, act and remember what came out."""
    workload.prepare(folder)
    workload.act(folder, lambda text: None)
    workload.remember(folder)


def is_temporary(name: str) -> bool:
    """Whether a name is one of those that the storage layer gives to what is not complete."""
    return name.startswith(".") and name.endswith(".tmp")


def emptied(folder: Path) -> Path:
    """The folder, there and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class LogAppend:
    """Appends to an event log, flushes and syncs; begins a second log beside it."""

    name = "log append"
    old = 4

    def __init__(self, blocks: int = 5, block: int = 6) -> None:
        self.blocks, self.block = blocks, block

    def prepare(self, folder: Path) -> None:
        with LedgerWriter(folder / "events.jsonl") as log:
            log.append_many(_events(self.old), ts_ns=10**18)

    def act(self, folder: Path, acknowledge: Acknowledge) -> None:
        log = LedgerWriter(folder / "events.jsonl")
        for turn in range(self.blocks):
            log.append_many(_events(self.block), ts_ns=10**18 + turn)
            if turn == 1:
                second = LedgerWriter(folder / "second.jsonl")
                second.append("SECOND", ts_ns=10**18)
                second.sync()
                acknowledge("kept second 1")
            if turn % 3 == 2:
                log.sync()
                acknowledge(f"kept {log.size}")
            else:
                log.flush()
                acknowledge(f"flushed {log.size}")
        log.close()
        acknowledge(f"kept {log.size}")

    def remember(self, folder: Path) -> None:
        self._expected = {path.name: path.read_bytes().splitlines(keepends=True) for path in folder.glob("*.jsonl")}

    def judge(self, folder: Path, acks: Sequence[str]) -> str:
        promised = max(self.old, number(acks, "kept"), number(acks, "flushed"))
        judge_log(folder / "second.jsonl", number(acks, "kept second"), self._expected["second.jsonl"])
        return judge_log(folder / "events.jsonl", promised, self._expected["events.jsonl"])

    def again(self, folder: Path, acknowledge: Acknowledge) -> None:
        for name in ("events", "second"):
            with LedgerWriter(folder / f"{name}.jsonl") as log:
                log.append("AGAIN", ts_ns=2 * 10**18)
                log.sync()
                acknowledge(f"kept {name} {log.size}")

    def judge_again(self, folder: Path, acks: Sequence[str]) -> str:
        for name in ("events", "second"):
            path, promised = folder / f"{name}.jsonl", number(acks, f"kept {name}")
            there = verify(path).entries if path.exists() else 0
            promise(there >= promised, f"{path.name}: {there} of {promised} acknowledged records are there")
        return "all there"


class LogMend(LogAppend):
    """Opens a log whose last record is torn, which cuts the tail off and says so, and appends."""

    name = "log recovery"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        with (folder / "events.jsonl").open("ab") as file:
            file.write(b'{"event":"ITERATION","half of a record' + b"x" * 900)

    def act(self, folder: Path, acknowledge: Acknowledge) -> None:
        with LedgerWriter(folder / "events.jsonl") as log:
            log.append("AFTER", ts_ns=2 * 10**18)
        acknowledge(f"kept {log.size}")

    def judge(self, folder: Path, acks: Sequence[str]) -> str:
        # What follows the old records carries the time of the recovery.
        expected = self._expected["events.jsonl"][: self.old]
        return judge_log(folder / "events.jsonl", max(self.old, number(acks, "kept")), expected)


def judge_log(path: Path, promised: int, expected: Sequence[bytes]) -> str:
    """A log must hold the promised records byte for byte, then some of the next, then at most a torn tail."""
    if not path.exists():
        promise(promised == 0, f"{path.name}: {promised} acknowledged records are gone with the file")
        return "nothing there"
    rest = path.read_bytes()
    kept = 0
    while kept < len(expected) and rest.startswith(expected[kept]):
        rest = rest[len(expected[kept]) :]
        kept += 1
    promise(kept >= min(promised, len(expected)), f"{path.name}: {kept} of {promised} acknowledged records are there")
    # A run knows from its checkpoint how many records were on disk; a hole behind them is cut off like a torn tail.
    durable = min(promised, kept)
    with LedgerWriter(path, durable=(durable, root_at(path, durable))) as log:
        recovered, torn = log.size, log.torn_bytes
    after = path.read_bytes()
    promise(recovered >= max(kept, promised), f"{path.name}: recovery kept {recovered} of {kept} whole records")
    promise(after.startswith(b"".join(expected[:kept])), f"{path.name}: recovery changed whole records")
    names = [event["event"] for event in iter_events(path)]
    promise(not torn or "LEDGER_TAIL_TRUNCATED" in names, f"{path.name}: {torn} bytes were cut in silence")
    with LedgerWriter(path) as log:
        promise(log.torn_bytes == 0 and log.size == recovered, f"{path.name}: a second recovery found work to do")
        promise(path.read_bytes() == after, f"{path.name}: a second recovery changed the log")
        log.append("LIFE_GOES_ON")
    promise(verify(path).entries == recovered + 1, f"{path.name}: the recovered log does not verify")
    return "torn tail cut" if torn else "whole"


class Zip:
    """Replaces a submission by a better one."""

    name = "zip"

    def __init__(self, shape: tuple[int, int, int] = (12, 64, 64)) -> None:
        self.shape = shape

    def prepare(self, folder: Path) -> None:
        self._write(folder, 0)

    def act(self, folder: Path, acknowledge: Acknowledge) -> None:
        self._write(folder, 1)
        acknowledge("kept 1")

    def remember(self, folder: Path) -> None:
        new = (folder / "submission.zip").read_bytes()
        self._write(folder, 0)
        self._whole = ((folder / "submission.zip").read_bytes(), new)
        promise(self._whole[0] != new, "the old and the new submission are the same: the test would be empty")

    def judge(self, folder: Path, acks: Sequence[str]) -> str:
        path = folder / "submission.zip"
        found = path.read_bytes() if path.exists() else b""
        promise(found in self._whole, "submission.zip is neither the old one nor the new one")
        promise(not acks or found == self._whole[1], "an acknowledged submission.zip is gone")
        check_submission(path, dict.fromkeys("12", self.shape), n_threads=1)
        return ("old", "new")[self._whole.index(found)]

    def again(self, folder: Path, acknowledge: Acknowledge) -> None:
        self.act(folder, acknowledge)

    def judge_again(self, folder: Path, acks: Sequence[str]) -> str:
        return self.judge(folder, acks)

    def _write(self, folder: Path, version: int) -> None:
        rng = np.random.default_rng(version)
        masks = [(name, (rng.random(self.shape) < 0.5).astype(np.uint8)) for name in "12"]
        shapes = dict.fromkeys("12", self.shape)
        write_submission(folder / "submission.zip", masks, expected=shapes, n_threads=1)


def _events(n: int) -> list[tuple[str, dict[str, object]]]:
    return [("ITERATION", {"i": i, "loss": 1.0 / (i + 3), "text": "papyrus " * (10 * i % 50)}) for i in range(n)]
