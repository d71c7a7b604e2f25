"""Negative controls: the program with one safeguard removed must be caught by the part of the campaign that watches it.

A mutant is a copy of the package with one line of one file changed, run in a process of its own. The log's fsyncs are
compiled: those are removed from the record of its calls instead, as is every single fsync of every workload.
"""

import os
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
from faults.workloads import LogAppend, Workload, Zip

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
        kills(Bench.of(workload, room), tally)
        return tally.broken

    return probe


def _after_refusals(workload: Workload) -> Callable[[Path], list[str]]:
    def probe(room: Path) -> list[str]:
        tally = Tally()
        refusals(Bench.of(workload, room), tally, every=3)
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
    resumed = Training(1007).restore(cut.parts(), emit=lambda *event, **more: None).finish()
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


@dataclass(frozen=True)
class Mutant:
    """One safeguard removed: in this file of the package these pieces of text are replaced by those."""

    name: str
    probe: str
    file: str
    edits: tuple[tuple[str, str], ...]

    def write(self, into: Path) -> None:
        """A copy of the package with the edit; what is not edited is linked."""
        source = Path(vesu.__file__).resolve().parent
        shutil.copytree(source, into / "vesu", copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
        target = into / "vesu" / self.file
        text = (source / self.file).read_text(encoding="utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"mutant {self.name!r}: {old!r} is {text.count(old)} times in {self.file}, not once")
            text = text.replace(old, new)
        target.unlink()
        target.write_text(text, encoding="utf-8")


STORAGE, FILES, STORE = "data/storage.py", "run/checkpoint/files.py", "run/checkpoint/store.py"
MANIFEST, RNG = "run/checkpoint/manifest.py", "distill/rng_state.py"


def _skipping(where: str) -> tuple[tuple[str, str], ...]:
    return (('lambda: now.set(saved["state"])]', f'lambda: {where} or now.set(saved["state"])]'),)


MUTANTS = (
    Mutant("file: no fsync", "zip, power", STORAGE, (("            os.fsync(file.fileno())\n", ""),)),
    Mutant("file: no folder sync", "zip, power", STORAGE, (("replace(final)\n        _sync(final.parent)", "replace(final)"),)),
    Mutant("file: written in place", "zip, kills", STORAGE, (
        ("    temporary = _beside(final)\n    try:\n        with _opened", "    temporary = final\n    final.unlink(missing_ok=True)\n    try:\n        with _opened"),
        ("        with contextlib.suppress(OSError):\n            temporary.unlink(missing_ok=True)", "        pass"),
    )),
    Mutant("file: fsync's error ignored", "zip, refusals", STORAGE, (
        ("            os.fsync(file.fileno())\n", "            with contextlib.suppress(OSError):\n                os.fsync(file.fileno())\n"),
    )),
    Mutant("folder: nothing in it synced", "first save, power", STORAGE, (("            _sync_tree(temporary)\n", "            pass\n"),)),
    Mutant("folder: its files not synced", "first save, power", STORAGE, (("            _sync(Path(here, name))\n", "            pass\n"),)),
    Mutant("folder: itself not synced", "first save, power", STORAGE, (("        _sync(Path(here))\n", ""),)),
    Mutant("folder: the one around not synced", "first save, power", STORAGE, (
        ("rename(final)\n        if durable:\n            _sync(final.parent)", "rename(final)"),
    )),
    Mutant("folder: made under its own name", "rotation, kills", STORAGE, (
        ("    temporary = _beside(final)\n    try:\n        if os.path.lexists", "    temporary = final\n    try:\n        if os.path.lexists"),
        ("    finally:\n        shutil.rmtree(temporary, ignore_errors=True)", "    finally:\n        pass"),
    )),
    Mutant("make_folder: no folder sync", "first save, power", STORAGE, (("            _sync(each.parent)\n", ""),)),
    Mutant("remove: no sync of the renaming", "rotation, power", STORAGE, (("            return\n        # Were its files' ends on disk before its own, a power cut would leave half of it under its name.\n        _sync(final.parent)\n", "            return\n"),)),
    Mutant("remove: in place", "rotation, kills", STORAGE, (("            final.rename(grave)\n", "            grave = final\n"),)),
    Mutant("rotation: one generation too few", "rotation, kills", STORE, (("if newer >= self.keep and", "if newer >= self.keep - 1 and"),)),
    Mutant("part: no checksum", "bit flips", FILES, (("    if got != record:\n", "    if False:\n"),)),
    Mutant("manifest: no checksum", "bit flips", MANIFEST, (
        ("            if got != getattr(manifest, seal):\n", "            if False:\n"),
        ("        if manifest.encode() != data:\n", "        if False:\n"),
    )),
    Mutant("manifest: its number not compared", "exchanges", FILES, (
        ("    if number is not None and number != manifest.sequence:\n", "    if False:\n"),
    )),
    Mutant("resume: a refusal told to nobody", "exchanges", STORE, (
        ('                self._tell("CHECKPOINT_REFUSED", path=self.folder / name, reason=str(error))\n', ""),
    )),
    Mutant("resume: the oldest taken", "exchanges", STORE, (
        ("        for name in self._names():\n            try:\n", "        for name in reversed(self._names()):\n            try:\n"),
    )),
    Mutant("training: Python's generator not restored", "resumed training", RNG, _skipping('where == "rng.python"')),
    Mutant("training: numpy's generator not restored", "resumed training", RNG, _skipping('where == "rng.numpy"')),
    Mutant("training: torch's generator not restored", "resumed training", RNG, _skipping('where == "rng.torch"')),
    Mutant("training: named generators not restored", "resumed training", RNG, _skipping('"generators" in where')),
)  # fmt: skip


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
