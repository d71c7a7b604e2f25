"""Power cuts between any two calls of a workload, replayed on the model of a disk."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from faults.disk import State, crash_states, materialise
from faults.injection import Bench
from faults.shim import Record
from faults.workloads import Broken, emptied
from vesu.errors import VesuError


@dataclass
class Losses:
    """Distinct states by workload, what was recovered from them, and those that broke a promise."""

    states: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


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
    """Judge each ``every``-th distinct state that a power cut may leave of the workload, by default of its record without
    a fault; ``until_broken`` stops at the first promise that does not hold.
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
        materialise(state, emptied(bench.room / "disk"))
        losses.states[name] += 1
        try:
            losses.found[f"{name}: {bench.workload.judge(bench.room / 'disk', durable)}"] += 1
        except (Broken, VesuError, OSError) as error:
            losses.broken.append(f"{name}: power cut after {done} calls: {type(error).__name__}: {error}")
            if until_broken:
                return


def _key(state: State) -> int:
    return hash(frozenset(state.items()))
