"""Changed bits, cut, swapped and rolled-back files of checkpoints: every one must be seen."""

import itertools
import mmap
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.checkpoints import fields, holds_what_was_saved, parts
from faults.workloads import Broken, emptied
from vesu.errors import EvidenceError, FormatError, VesuError
from vesu.ledger import LedgerWriter, verify
from vesu.run.checkpoint import MANIFEST, Checkpoint, CheckpointStore, Manifest

SIZE = 64 * 1024
"""``bytes`` of the checkpoint whose bits are flipped, its manifest included."""


@dataclass
class Detection:
    """Damages by kind, and those that went unseen."""

    cases: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def expect_refusal(self, kind: str, case: str, load: Callable[[], object]) -> None:
        """``load`` must say that the content is damaged, and say it as vesu does."""
        self.cases[kind] += 1
        try:
            load()
        except (FormatError, EvidenceError):
            return
        except Exception as error:  # noqa: BLE001 (a damage that surfaces as anything else is a fault, too)
            self.missed.append(f"{case}: {type(error).__name__}: {error}")
            return
        self.missed.append(f"{case}: loaded as if it were whole")


def sealed(folder: Path) -> Checkpoint:
    """A checkpoint of exactly ``SIZE`` bytes."""
    spare = 2000
    for _ in range(2):  # the manifest's length hardly depends on the part's
        store = CheckpointStore(emptied(folder))
        checkpoint = store.save("full", fields(1), parts(1, SIZE - spare))
        spare += sum(file.stat().st_size for file in checkpoint.path.iterdir()) - SIZE
    total = sum(file.stat().st_size for file in checkpoint.path.iterdir())
    if total != SIZE:
        raise AssertionError(f"{total} bytes")
    return checkpoint


def flips(room: Path, seen: Detection, *, every: int, whole_every: int, shard: tuple[int, int] = (0, 1)) -> None:
    """Flip each ``every``-th bit, counted over all files, and give it to the store's own verifying readers:
    ``Manifest.decode`` for the manifest, ``Checkpoint.read`` for a part; each ``whole_every``-th to the loader of
    whole checkpoints."""
    checkpoint = sealed(room / "sealed")
    first = 0
    for path in sorted(checkpoint.path.iterdir()):
        with _mapped(path) as content:
            read = _reader(checkpoint, path, content)
            for bit in range(8 * len(content)):
                number = first + bit
                if number % shard[1] != shard[0]:
                    continue
                if number // shard[1] % every and number % whole_every:
                    continue
                content[bit // 8] ^= 1 << bit % 8
                case = f"{path.name}: bit {bit} flipped"
                if number // shard[1] % every == 0:
                    seen.expect_refusal("bit flips", case, read)
                if number % whole_every == 0:
                    seen.expect_refusal("bit flips, whole loader", case, lambda: _load(checkpoint.path))
                content[bit // 8] ^= 1 << bit % 8
            first += 8 * len(content)
    _load(checkpoint.path)  # all is mended: what was refused was refused for its flip


def log_flips(room: Path, seen: Detection, *, every: int) -> None:
    """Flip each ``every``-th bit of an event log (a changed last line feed makes the last record a torn one), and take
    it back to each earlier length, which a run that knows its checkpoint must see."""
    path = emptied(room / "log") / "events.jsonl"
    with LedgerWriter(path) as log:
        log.append_many([("ITERATION", {"i": i, "loss": 0.1 * i, "nan": float("nan")}) for i in range(8)])
        head = (log.size, log.root)

    def check() -> None:
        if verify(path).torn_bytes:
            raise FormatError("the last record is torn")

    with _mapped(path) as content:
        for bit in range(0, 8 * len(content), every):
            content[bit // 8] ^= 1 << bit % 8
            seen.expect_refusal("bit flips, log", f"{path.name}: bit {bit} flipped", check)
            content[bit // 8] ^= 1 << bit % 8
    check()
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        case = f"{path.name}: {kept} of {len(lines)} records"
        seen.expect_refusal("log rolled back", case, lambda: LedgerWriter(path, durable=head))


def truncations(room: Path, seen: Detection, *, every: int) -> None:
    """Cut each file to each ``every``-th length, through the loader of whole checkpoints; and lengthen it by a byte."""
    checkpoint = sealed(room / "cut")
    for path in sorted(checkpoint.path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        seen.expect_refusal("lengthened", f"{path.name}: a byte more", lambda: _load(checkpoint.path))
        with path.open("r+b") as file:
            for length in range(len(content) - 1, -1, -1):
                if length % every and length < len(content) - 64:
                    continue
                file.truncate(length)
                case = f"{path.name}: cut to {length} bytes"
                seen.expect_refusal("truncations", case, lambda: _load(checkpoint.path))
        path.write_bytes(content)
    _load(checkpoint.path)


def exchanges(room: Path, seen: Detection) -> None:
    """Files swapped with each other, taken back to an older generation, missing, whole folders under another's name:
    the newest must be refused, by an event, and the newest whole one taken; where none is whole, none."""
    for case, damage, whole in _exchanges():
        folder = emptied(room / "exchange")
        store = CheckpointStore(folder)
        paths = [store.save("full", fields(n), parts(n)).path for n in (1, 2, 3)]
        damage(paths)
        seen.cases["exchanges"] += 1
        refused: list[str] = []

        def listen(name: str, /, *, refused: list[str] = refused, **more: Any) -> None:
            if name == "CHECKPOINT_REFUSED":
                refused.append(Path(more["path"]).name)

        try:
            found = CheckpointStore(folder, emit=listen).latest()
            number = 0 if found is None else found.manifest.sequence
            if found is not None:
                holds_what_was_saved(found)
            expected = [path.name for path in reversed(paths)][: 3 - whole]
            if number != whole or refused != expected:
                seen.missed.append(f"{case}: found {number}, refused {refused}; expected {whole}, {expected}")
        except (VesuError, Broken) as error:
            seen.missed.append(f"{case}: {type(error).__name__}: {error}")


Damage = Callable[[Sequence[Path]], None]


def _exchanges() -> Iterator[tuple[str, Damage, int]]:
    """Description, what is done to the folders of checkpoints 1 to 3, and the number that must be found."""
    names = (MANIFEST, *parts(0))
    for a, b in itertools.combinations(names, 2):
        yield f"{a} and {b} swapped", lambda paths, a=a, b=b: _swap(paths[2] / a, paths[2] / b), 2
    for older in (0, 1):
        for count in range(1, len(names) + 1):
            for chosen in itertools.combinations(names, count):
                text = f"{', '.join(chosen)} rolled back to checkpoint {older + 1}"
                yield text, lambda paths, c=chosen, o=older: _roll_back(paths[o], paths[2], c), 2
    for name in names:
        yield f"{name} missing", lambda paths, name=name: (paths[2] / name).unlink(), 2
        yield f"{name} a folder", lambda paths, name=name: _make_folder(paths[2] / name), 2
        yield f"{name} of all damaged", lambda paths, name=name: [(p / name).write_bytes(b"?") for p in paths], 0
        text = f"{name} of the newest two exchanged"
        yield text, lambda paths, name=name: _swap(paths[1] / name, paths[2] / name), 1
    yield "the newest two folders exchanged", lambda paths: _swap(paths[1], paths[2]), 1
    yield "an older folder under the newest's name", lambda paths: _replace(paths[0], paths[2]), 2
    yield "an empty folder", lambda paths: emptied(paths[2]), 2
    yield "a file for a folder", lambda paths: (shutil.rmtree(paths[2]), paths[2].write_bytes(b"")), 2


def _reader(checkpoint: Checkpoint, path: Path, content: mmap.mmap) -> Callable[[], object]:
    if path.name == MANIFEST:
        return lambda: Manifest.decode(content[:])
    return lambda: checkpoint.read(path.name)


def _load(path: Path) -> Checkpoint:
    return CheckpointStore(path.parent).load(path)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        yield content


def _swap(a: Path, b: Path) -> None:
    between = a.with_name("between")
    a.rename(between), b.rename(a), between.rename(b)


def _roll_back(older: Path, newest: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.copyfile(older / name, newest / name)


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace(older: Path, newest: Path) -> None:
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
