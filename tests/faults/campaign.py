"""The fault campaign: ``python tests/faults/campaign.py --short|--full --out FILE.json``.

Prints the figures and writes them as JSON; the exit status is 1 where a promise did not hold, a damage went unseen or a
mutant survived. What the short form leaves out is in the figures themselves: its numbers are smaller, no check weaker.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.checkpoints import FirstSave, Resume, Rotation
from faults.damage import Detection, exchanges, flips, log_flips, truncations
from faults.injection import Bench, Tally, kills, refusals
from faults.mutants import MUTANTS, PROBES, room_base, run_mutant, without_each_fsync
from faults.power import Losses, power_cuts, power_cuts_after_kills
from faults.shim import preloaded, reexec_preloaded
from faults.workloads import LogAppend, LogMend, Workload, Zip

FIGURES = ("kills", "refusals", "power cuts", "damage", "mutants", "fsyncs removed")


@dataclass(frozen=True)
class Size:
    """How much of the campaign is run: each ``..._every``-th case, and so many random losses a call."""

    refusals_every: int
    n_random: int
    power_every: int
    after_kills_every: int
    flips_every: int
    whole_every: int
    truncations_every: int
    log_flips_every: int
    slow: bool
    """Also the mutants of the training, the slow probes, and each fsync removed of the other workloads than the log."""


SHORT = Size(9, 2, 3, 5, 67, 1021, 127, 31, slow=False)
FULL = Size(1, 500, 1, 1, 1, 61, 1, 1, slow=True)
SLOW_PROBES = frozenset({"resumed training", "zip, refusals"})
SHARDS = 8


@dataclass
class Part:
    """What one task of the campaign found: counts by kind below each figure, and what went wrong."""

    figure: str
    counts: Counter[str]
    wrong: list[str]
    told: dict[str, Any]
    seconds: float = 0.0


Task = Callable[[Path], Part]


def tasks(size: Size) -> Iterator[Task]:
    """Everything there is to do, the longest first."""
    benches: tuple[Callable[[], Workload], ...] = (Rotation, LogAppend, Zip, FirstSave, Resume, LogMend)
    for make in benches:
        # A longer log and a larger archive have more ways to be torn.
        large = {LogAppend: partial(LogAppend, 9, 40), Zip: partial(Zip, (24, 64, 64))}.get(make, make)
        yield partial(_cut_power, large, size)
        yield partial(_refuse, make, size)
    # The log is compiled: its fsyncs are removed here only.
    for make in (Rotation, LogAppend, FirstSave, LogMend, Zip) if size.slow else (LogAppend,):
        yield partial(_remove_fsyncs, make)
    for shard in range(SHARDS):
        yield partial(_flip, size, shard)
    yield partial(_cut_files, size)
    for mutant in MUTANTS:
        if size.slow or mutant.probe not in SLOW_PROBES:
            yield partial(_mutate, mutant)
    if size.slow:
        for probe in PROBES:
            yield partial(_control, probe)
    for make in benches:
        yield partial(_kill, make)
    yield _exchange


def _kill(make: Callable[[], Workload], room: Path) -> Part:
    tally = Tally()
    kills(Bench.of(make(), room), tally)
    return _of_tally("kills", make(), tally)


def _refuse(make: Callable[[], Workload], size: Size, room: Path) -> Part:
    tally = Tally()
    refusals(Bench.of(make(), room), tally, every=size.refusals_every)
    return _of_tally("refusals", make(), tally)


def _of_tally(figure: str, workload: Workload, tally: Tally) -> Part:
    counts = Counter({f"{workload.name}": sum(tally.cases.values())})
    return Part(figure, counts, tally.broken, {"cases": tally.cases, "found": tally.found})


def _cut_power(make: Callable[[], Workload], size: Size, room: Path) -> Part:
    losses = Losses()
    bench = Bench.of(make(), room)
    power_cuts(bench, losses, n_random=size.n_random, every=size.power_every)
    # Few points, each another folder or file: only the long workload can spare some.
    every = size.after_kills_every if isinstance(bench.workload, Rotation) else 1
    power_cuts_after_kills(bench, losses, every=every)
    return Part("power cuts", losses.states, losses.broken, {"found": losses.found})


def _remove_fsyncs(make: Callable[[], Workload], room: Path) -> Part:
    removed = without_each_fsync(make(), room)
    counts = Counter(
        "caught" if each.caught else "idle" if each.idle else "made good by a later one" for each in removed
    )
    harmless = [each.where for each in removed if not each.caught]
    return Part("fsyncs removed", counts, [], {"not caught": harmless})


def _flip(size: Size, shard: int, room: Path) -> Part:
    seen = Detection()
    flips(room, seen, every=size.flips_every, whole_every=size.whole_every, shard=(shard, SHARDS))
    return Part("damage", seen.cases, seen.missed, {})


def _cut_files(size: Size, room: Path) -> Part:
    seen = Detection()
    truncations(room, seen, every=size.truncations_every)
    log_flips(room, seen, every=size.log_flips_every)
    return Part("damage", seen.cases, seen.missed, {})


def _exchange(room: Path) -> Part:
    seen = Detection()
    exchanges(room, seen)
    return Part("damage", seen.cases, seen.missed, {})


def _mutate(mutant: Any, room: Path) -> Part:
    caught, by = run_mutant(mutant)
    wrong = [] if caught else [f"mutant survived: {mutant.name}"]
    return Part("mutants", Counter(caught=caught), wrong, {"by": {mutant.name: by.splitlines()[0] if by else ""}})


def _control(probe: str, room: Path) -> Part:
    caught, by = run_mutant(None, probe)
    return Part("mutants", Counter(controls=1), [f"{probe} without a mutant: {by}"] if caught else [], {})


def _timed(task: Task) -> Part:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=room_base()) as room:
        part = task(Path(room))
    part.seconds = time.perf_counter() - start
    return part


def run(size: Size, workers: int) -> dict[str, Any]:
    """The whole campaign; its figures."""
    start = time.perf_counter()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        parts = list(pool.map(_timed, tasks(size)))
    figures = {figure: _summed([part for part in parts if part.figure == figure]) for figure in FIGURES}
    return {
        "form": "full" if size is FULL else "short",
        "held": not any(part.wrong for part in parts),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {workers} workers",
        "python": platform.python_version(),
        **{name: figure for name, figure in figures.items() if figure["total"]},
    }


def _summed(parts: Sequence[Part]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    told: dict[str, Any] = {}
    for part in parts:
        counts += part.counts
        for name, more in part.told.items():
            if isinstance(more, list):
                told[name] = told.get(name, []) + more
            elif isinstance(more, Counter):
                told[name] = dict(sorted((Counter(told.get(name, {})) + more).items()))
            else:
                told[name] = told.get(name, {}) | more
    return {
        "total": counts.total(),
        "of": dict(counts),
        "seconds": round(sum(part.seconds for part in parts), 1),
        "wrong": [wrong for part in parts for wrong in part.wrong],
        **told,
    }


def main(arguments: Sequence[str]) -> int:
    """Run as the command line asks."""
    parser = argparse.ArgumentParser(prog="campaign.py", description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--short", dest="size", action="store_const", const=SHORT)
    form.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if not preloaded():
        paths = os.pathsep.join(filter(None, sys.path))
        return reexec_preloaded("faults.campaign", arguments, {**os.environ, "PYTHONPATH": paths})
    figures = run(options.size, options.workers)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"fault campaign, {figures['form']} form: {'everything held' if figures['held'] else 'SOMETHING BROKE'}")
    for name in FIGURES:
        if name in figures:
            figure = figures[name]
            print(f"  {name}: {figure['total']} ({', '.join(f'{key} {n}' for key, n in figure['of'].items())})")
            for wrong in figure["wrong"][:20]:
                print(f"    WRONG: {wrong}")
    print(f"  {figures['seconds']} s on {figures['machine']}")
    return 0 if figures["held"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
