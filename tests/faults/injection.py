"""Kills and refused calls at every point of a workload."""

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.disk import State, after, materialise, snapshot
from faults.shim import CHANGES, FOREVER, LOOKS, Action, Fault, Op, Outcome, run_child
from faults.workloads import Broken, Workload, emptied, is_temporary, promise, run_without_fault
from vesu.errors import VesuError

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EINTR)
IN_A_ROW = 20
"""How often a persistent EINTR interrupts: forever, PEP 475 would try again forever."""


@dataclass
class Tally:
    """Cases by kind, what was found after them, and those that broke a promise."""

    cases: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def take(self, kind: str, case: str, judge: Callable[[], str]) -> None:
        """Count one case and judge it."""
        self.cases[kind] += 1
        try:
            self.found[judge()] += 1
        except (Broken, VesuError, OSError) as error:
            self.broken.append(f"{case}: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Bench:
    """A workload, its old state and its record without a fault, ready for many tries."""

    workload: Workload
    before: State
    clean: Outcome
    changes: tuple[Op, ...]
    """Operations of the points that change something."""
    all_points: tuple[Op, ...]
    """Of these and of those that look."""
    room: Path

    @classmethod
    def of(cls, workload: Workload, room: Path) -> "Bench":
        """Run the workload without a fault, and check that the record tells all that happened."""
        run_without_fault(workload, emptied(room / "work"))
        workload.prepare(emptied(room / "work"))
        before = snapshot(room / "work")
        clean = run_child(workload.act, room / "work", traced=True)
        promise(clean.how == "done", f"{workload.name}: without a fault: {clean.how} {clean.error}")
        seen = after(before, clean.trace) == snapshot(room / "work")
        promise(seen, f"{workload.name}: calls went past the shim: the record does not lead to what is there")
        materialise(before, emptied(room / "work"))
        every = run_child(workload.act, room / "work", points=CHANGES | LOOKS)
        return cls(workload, before, clean, tuple(clean.points), tuple(every.points), room)

    def attempt(self, fault: Fault, points: frozenset[Op] = CHANGES, *, traced: bool = False) -> Outcome:
        """The act under a fault, on the old state, in ``room / "work"``."""
        materialise(self.before, emptied(self.room / "work"))
        return run_child(self.workload.act, self.room / "work", fault, points=points, traced=traced)


def kills(bench: Bench, tally: Tally, *, until_broken: bool = False) -> None:
    """SIGKILL before every call that changes something, and in the middle of every write."""
    faults = [Fault(Action.KILL, at) for at in range(len(bench.changes))]
    faults += [Fault(Action.KILL_HALFWAY, at) for at, op in enumerate(bench.changes) if op is Op.WRITE]
    for fault in faults:
        if until_broken and tally.broken:
            return
        outcome = bench.attempt(fault)
        op = bench.changes[fault.at].name.lower()

        def judge(outcome: Outcome = outcome) -> str:
            promise(outcome.how == "killed", f"not killed: {outcome.how} {outcome.error}")
            return bench.workload.judge(bench.room / "work", outcome.acks)

        half = " halfway" if fault.action is Action.KILL_HALFWAY else ""
        tally.take(f"kill at {op}{half}", f"{bench.workload.name}: kill at call {fault.at} ({op}{half})", judge)


def refusals(bench: Bench, tally: Tally, *, every: int = 1, until_broken: bool = False) -> None:
    """Every error at every point, once and from there on; of all these cases each ``every``-th, and the first short
    writes, which are few."""
    ops = bench.all_points
    for index, (fault, text) in enumerate(_faults(ops)):
        if index % every and (fault.action is Action.REFUSE or text in tally.cases):
            continue
        if until_broken and tally.broken:
            return
        outcome = bench.attempt(fault, CHANGES | LOOKS, traced=True)
        case = f"{bench.workload.name}: {text} at call {fault.at} ({ops[fault.at].name.lower()})"
        once = "once" if fault.times == 1 else "from then on"
        kind = text.split(" ", 1)[0] + " " + once

        def judge(outcome: Outcome = outcome, fault: Fault = fault, op: Op = ops[fault.at]) -> str:
            return _judge_refusal(bench, outcome, fault, op)

        tally.take(kind, case, judge)


def _faults(ops: tuple[Op, ...]) -> Iterator[tuple[Fault, str]]:
    for at, op in enumerate(ops):
        for error in ERRORS:
            name = errno.errorcode[error]
            yield Fault(Action.REFUSE, at, 1, error), f"{name} once"
            times = IN_A_ROW if error == errno.EINTR else FOREVER
            yield Fault(Action.REFUSE, at, times, error), f"{name} from then on"
        if op is Op.WRITE:
            yield Fault(Action.SHORTEN, at, 1), "short once"
            yield Fault(Action.SHORTEN, at, FOREVER), "short from then on"


def _judge_refusal(bench: Bench, outcome: Outcome, fault: Fault, op: Op) -> str:
    promise(outcome.how in ("done", "refused"), f"the program {outcome.how}: {outcome.error}")
    promise(outcome.how == "done" or fault.action is Action.REFUSE, f"a short write became an error: {outcome.error}")
    # A refused look or read may be told as the damage that it looks like.
    told = outcome.errno == fault.error or outcome.how == "done" or op in LOOKS
    promise(told, f"the error does not carry the system's number {fault.error}: {outcome.error}")
    work = bench.room / "work"
    if outcome.how == "refused" and fault.times == 1 and op in (Op.WRITE, Op.SYNC, Op.RENAME):
        left = [path.name for path in work.rglob("*") if is_temporary(path.name) and path.name not in _names(bench)]
        promise(not left, f"an error that was told left files behind: {left}")
    found = bench.workload.judge(work, outcome.acks)
    # The power goes right after: what a failed fsync promised must not have been acknowledged.
    durable = [ack for ack in outcome.acks if ack.startswith("kept")]
    materialise(after(bench.before, outcome.trace, {}), emptied(work))
    bench.workload.judge(work, durable)
    return found


def _names(bench: Bench) -> set[str]:
    return {path.rsplit("/", 1)[1] for path in bench.before}
