"""Power cuts between any two calls of a workload, replayed on the model of a disk."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faults.disk import Disk, State, crash_states, materialise
from faults.injection import Bench
from faults.shim import Action, Fault, Record, run_child
from faults.workloads import Broken, emptied
from vesu.errors import VesuError


@dataclass
class Losses:
    """Distinct states by workload, what was recovered from them, and those that broke a promise."""

    states: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def judge(self, name: str, case: str, judge: Callable[[], str]) -> None:
        """Count one state and judge it."""
        self.states[name] += 1
        try:
            self.found[f"{name}: {judge()}"] += 1
        except (Broken, VesuError, OSError) as error:
            self.broken.append(f"{case}: {type(error).__name__}: {error}")


def power_cuts(
    bench: Bench,
    losses: Losses,
    *,
    n_random: int,
    seed: int = 0,
    trace: Sequence[Record] | None = None,
    until_broken: bool = False,
    every: int = 1,
) -> None:
    """Judge each ``every``-th distinct state that a power cut may leave of the workload.

    Its calls are by default those of its record without a fault; ``until_broken`` stops at the first broken promise.
    """
    name, seen = bench.workload.name, set()
    record = bench.clean.trace if trace is None else trace
    for done, acks, state in crash_states(bench.before, record, seed=seed, n_random=n_random):
        durable = tuple(ack for ack in acks if ack.startswith("kept"))
        key = (durable, _key(state))
        if key in seen:
            continue
        seen.add(key)
        if len(seen) % every:
            continue
        case = f"{name}: power cut after {done} calls"
        losses.judge(name, case, lambda state=state, durable=durable: _judged(bench, state, durable))
        if until_broken and losses.broken:
            return


def _judged(bench: Bench, state: State, acks: Sequence[str]) -> str:
    materialise(state, emptied(bench.room / "disk"))
    return bench.workload.judge(bench.room / "disk", acks)


def power_cuts_after_kills(bench: Bench, losses: Losses, *, n_random: int = 0, every: int = 1) -> None:
    """A process is killed, the next one goes on and acknowledges, then the power goes: what the first had not synced is
    still not durable unless the second saw to it."""
    name = f"{bench.workload.name}, killed before"
    for at in range(0, len(bench.changes), every):
        killed = bench.attempt(Fault(Action.KILL, at), traced=True)
        again = run_child(bench.workload.again, bench.room / "work", traced=True)
        if again.how != "done":
            losses.broken.append(f"{name} call {at}: the next process {again.how}: {again.error}")
            continue
        disk = Disk.of(bench.before)
        for trace in (killed.trace, again.trace):
            disk.opened.clear()
            for record in trace:
                disk.step(record)
        seen = set()
        for choose in disk.choices(random.Random(at), n_random):
            state = disk.state(choose)
            if _key(state) in seen:
                continue
            seen.add(_key(state))
            case = f"{name} call {at} ({bench.changes[at].name.lower()}), then power cut"
            losses.judge(name, case, lambda state=state, acks=again.acks: _judged_again(bench, state, acks))


def _judged_again(bench: Bench, state: State, acks: Sequence[str]) -> str:
    materialise(state, emptied(bench.room / "disk"))
    return bench.workload.judge_again(bench.room / "disk", acks)


def _key(state: State) -> int:
    return hash(frozenset(state.items()))
