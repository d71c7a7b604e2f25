"""Negative controls: the program with one safeguard removed must be caught by the part of the campaign that watches it.

A mutant is a copy of the package with one line of one file changed, run in a process of its own. The log's fsyncs are
compiled: those are removed from the record of its calls instead, as is every single fsync of every workload.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import vesu
from faults.checkpoints import FirstSave, Rotation
from faults.damage import Detection, exchanges, flips
from faults.disk import Disk
from faults.injection import Bench, Tally, kills, refusals
from faults.power import Losses, power_cuts
from faults.shim import Op, Record
from faults.workloads import Workload, Zip

CAUGHT, SURVIVED = 3, 0


def _after_power_cut(workload: Workload) -> Callable[[Path], list[str]]:
    def probe(room: Path) -> list[str]:
        losses = Losses()
        power_cuts(Bench.of(workload, room), losses, n_random=3, until_broken=True)
        return losses.broken

    return probe


def _after_kills(workload: Workload) -> Callable[[Path], list[str]]:
    def probe(room: Path) -> list[str]:
        tally = Tally()
        kills(Bench.of(workload, room), tally, until_broken=True)
        return tally.broken

    return probe


def _after_refusals(workload: Workload) -> Callable[[Path], list[str]]:
    def probe(room: Path) -> list[str]:
        tally = Tally()
        refusals(Bench.of(workload, room), tally, every=3, until_broken=True)
        return tally.broken

    return probe


def _after_flips(room: Path) -> list[str]:
    seen = Detection()
    flips(room, seen, every=499, whole_every=4999)
    return seen.missed


def _after_exchanges(room: Path) -> list[str]:
    seen = Detection()
    exchanges(room, seen)
    return seen.missed


def _after_resumed_training(room: Path) -> list[str]:
    """A training cut after three steps must end as the uninterrupted one does, to the bit."""
    import torch

    from training_case import Training

    torch.set_num_threads(1)
    whole = Training(7).finish().weights()
    cut = Training(7)
    for _ in range(3):
        cut.step()
    parts = cut.parts()  # before another seed reaches the global generators
    resumed = Training(1007).restore(parts, emit=lambda *event, **more: None).finish()
    return [] if resumed.weights() == whole else ["the resumed training ended with other weights"]


PROBES: Mapping[str, Callable[[Path], list[str]]] = {
    "zip, power": _after_power_cut(Zip()),
    "zip, kills": _after_kills(Zip()),
    "zip, refusals": _after_refusals(Zip()),
    "first save, power": _after_power_cut(FirstSave()),
    "rotation, power": _after_power_cut(Rotation()),
    "rotation, kills": _after_kills(Rotation()),
    "bit flips": _after_flips,
    "exchanges": _after_exchanges,
    "resumed training": _after_resumed_training,
}


Edit = tuple[str, str, str]
"""In this function this text, which must stand there once, becomes that."""


@dataclass(frozen=True)
class Mutant:
    """One safeguard removed by edits of one file of the package, and the probe that must see it."""

    name: str
    probe: str
    file: str
    edits: tuple[Edit, ...]

    def write(self, into: Path) -> None:
        """A copy of the package with the edits; what is not edited is linked."""
        source = Path(vesu.__file__).resolve().parent
        shutil.copytree(source, into / "vesu", copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
        target = into / "vesu" / self.file
        text = (source / self.file).read_text(encoding="utf-8")
        for function, old, new in self.edits:
            text = _edited(text, function, old, new)
        target.unlink()
        target.write_text(text, encoding="utf-8")


def _edited(text: str, function: str, old: str, new: str) -> str:
    # A function ends before the next line that is not deeper than its `def`.
    found = re.search(rf"^( *)def {function}\(.*?(?=^\1(?![ )])\S|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None or found[0].count(old) != 1:
        raise ValueError(f"{function}: {old!r} must stand there once for the mutant to be made")
    return text[: found.start()] + found[0].replace(old, new) + text[found.end() :]


STORAGE, FILES, STORE = "data/storage.py", "run/checkpoint/files.py", "run/checkpoint/store.py"
MANIFEST, RNG = "run/checkpoint/manifest.py", "distill/rng_state.py"
FSYNC = "os.fsync(file.fileno())"
REFUSED = 'self._tell("CHECKPOINT_REFUSED", path=self.folder / name, reason=str(error))'
SET = 'now.set(saved["state"])'


def _mutants(probe: str, file: str, edits: Mapping[str, Edit | tuple[Edit, ...]]) -> list[Mutant]:
    def as_edits(given: Edit | tuple[Edit, ...]) -> tuple[Edit, ...]:
        return (given,) if isinstance(given[0], str) else given  # type: ignore[return-value]

    return [Mutant(name, probe, file, as_edits(given)) for name, given in edits.items()]


MUTANTS = [
    *_mutants(
        "zip, power",
        STORAGE,
        {
            "file: no fsync": ("atomic_write", FSYNC, "pass"),
            "file: no folder sync": ("atomic_write", "_sync(final.parent)", "pass"),
        },
    ),
    *_mutants(
        "zip, refusals",
        STORAGE,
        {"file: fsync's error ignored": ("atomic_write", FSYNC, f"with contextlib.suppress(OSError): {FSYNC}")},
    ),
    *_mutants(
        "zip, kills",
        STORAGE,
        {
            "file: written in place": (
                ("atomic_write", "temporary = _beside(final)", "(temporary := final).unlink(missing_ok=True)"),
                ("atomic_write", "temporary.unlink(missing_ok=True)\n", "pass\n"),
            )
        },
    ),
    *_mutants(
        "first save, power",
        STORAGE,
        {
            "folder: nothing in it synced": ("atomic_folder", "_sync_tree(temporary)", "pass"),
            "folder: its files not synced": ("_sync_tree", "_sync(Path(here, name))", "pass"),
            "folder: itself not synced": ("_sync_tree", "_sync(Path(here))", "pass"),
            "folder: the one around not synced": ("atomic_folder", "_sync(final.parent)", "pass"),
            "make_folder: no folder sync": ("make_folder", "_sync(each.parent)", "pass"),
        },
    ),
    *_mutants(
        "rotation, power", STORAGE, {"remove: no folder sync": ("remove_tree_atomic", "_sync(final.parent)", "pass")}
    ),
    *_mutants(
        "rotation, kills",
        STORAGE,
        {
            "folder: filled under its own name": (
                ("atomic_folder", "temporary = _beside(final)", "temporary = final"),
                ("atomic_folder", "shutil.rmtree(temporary, ignore_errors=True)", "pass"),
            ),
            "remove: under its own name": ("remove_tree_atomic", "final.rename(grave)", "grave = final"),
        },
    ),
    *_mutants(
        "rotation, kills",
        STORE,
        {"rotation: a generation too few": ("_beyond_keep", "newer >= self.keep and", "newer >= self.keep - 1 and")},
    ),
    *_mutants("bit flips", FILES, {"part: no checksum": ("_check", "if got != record:", "if False:")}),
    *_mutants(
        "bit flips",
        MANIFEST,
        {
            "manifest: no checksum": (
                ("decode", "if got != getattr(manifest, seal):", "if False:"),
                ("decode", "if manifest.encode() != data:", "if False:"),
            )
        },
    ),
    *_mutants(
        "exchanges",
        FILES,
        {
            "manifest: number not compared": (
                "read_manifest",
                "if number is not None and number != manifest.sequence:",
                "if False:",
            )
        },
    ),
    *_mutants(
        "exchanges",
        STORE,
        {
            "resume: a refusal told to nobody": ("latest", REFUSED, "pass"),
            "resume: the oldest taken": ("latest", "in self._names():", "in reversed(self._names()):"),
        },
    ),
    *_mutants(
        "resumed training",
        RNG,
        {
            "training: Python's generator not restored": ("_plan_one", SET, f'where == "rng.python" or {SET}'),
            "training: numpy's generator not restored": ("_plan_one", SET, f'where == "rng.numpy" or {SET}'),
            "training: torch's generator not restored": ("_plan_one", SET, f'where == "rng.torch" or {SET}'),
            "training: named generators not restored": ("_plan_one", SET, f'"generators" in where or {SET}'),
        },
    ),
]


def run_mutant(mutant: Mutant | None, probe: str = "") -> tuple[bool, str]:
    """Whether its probe caught it, and by what; without a mutant the probe runs on the program as it is."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(__file__).resolve().parents[1]), *sys.path[1:]]
        if mutant is not None:
            mutant.write(Path(folder))
            paths.insert(0, folder)
            probe = mutant.probe
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "faults.mutants", probe, folder if mutant is not None else ""]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    name = mutant.name if mutant is not None else probe
    if done.returncode not in (CAUGHT, SURVIVED):
        raise RuntimeError(f"{name}: the probe did not run: {done.stdout}{done.stderr}")
    return done.returncode == CAUGHT, done.stdout.strip()


def main(probe: str, package: str) -> int:
    """In the mutant's process: run one probe and say the first promise that did not hold."""
    if package and not Path(vesu.__file__).is_relative_to(package):
        raise RuntimeError(f"the package is {vesu.__file__}, not the mutant in {package}")
    with tempfile.TemporaryDirectory(dir=room_base()) as room:
        broken = PROBES[probe](Path(room))
    print(broken[0] if broken else "")
    return CAUGHT if broken else SURVIVED


def room_base() -> str | None:
    """Where folders are made and removed most quickly: in memory where the system has such a place."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


@dataclass(frozen=True)
class Removed:
    """What became of a workload when one of its fsyncs was removed."""

    where: str
    caught: str
    """The first promise that did not hold; empty where none broke."""
    idle: bool
    """Whether there was nothing for it to make durable."""


def without_each_fsync(workload: Workload, room: Path) -> list[Removed]:
    """Remove each fsync in turn from the record of the workload's calls and replay the power cuts."""
    bench = Bench.of(workload, room)
    syncs = [i for i, record in enumerate(bench.clean.trace) if record.op is Op.SYNC]
    removed = []
    for number, at in enumerate(syncs):
        trace = [record for i, record in enumerate(bench.clean.trace) if i != at]
        losses = Losses()
        power_cuts(bench, losses, n_random=0, trace=trace, until_broken=True)
        where = f"{workload.name}: fsync {number + 1} of {len(syncs)}, of {_opened(bench.clean.trace, at)}"
        removed.append(Removed(where, losses.broken[0] if losses.broken else "", _is_idle(bench, at)))
    return removed


def _opened(trace: tuple[Record, ...] | list[Record], at: int) -> str:
    opens = (record.text for record in reversed(trace[:at]) if record.op is Op.OPEN and record.fd == trace[at].fd)
    return next(opens) or "/"


def _is_idle(bench: Bench, at: int) -> bool:
    disk = Disk.of(bench.before)
    for record in bench.clean.trace[:at]:
        disk.step(record)
    before = len(disk.pending)
    disk.step(bench.clean.trace[at])
    return len(disk.pending) == before


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
