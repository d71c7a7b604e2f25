"""What a log must hold to prove a distillation, one check a kind of work; :mod:`vesu.distill.proof` asks all (R22).

A check yields in words what is not there. It believes no field that only declares: it compares digests, counts,
numbers and places of events that the work itself writes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

__all__ = ["CHECKS", "DISTIL", "EVENTS", "DistillationLog", "Record"]

EVENTS = (
    "DISTILLATION_START",
    "DISTILLATION_TEACHER_LOAD_BEGIN",
    "DISTILLATION_TEACHER_LOAD_END",
    "DISTILLATION_BATCH_BEGIN",
    "DISTILLATION_BATCH_END",
    "TEACHER_BATCH_TRANSFER",
    "DISTILLATION_LOSS_STEP",
    "DISTILLATION_STUDENT_UPDATE",
    "DISTILLATION_CHECKPOINT_WRITTEN",
    "TRANSFER_MEMORY_PERSISTED",
    "TRANSFER_MEMORY_RELOADED_FOR_FINETUNE",
    "DISTILLATION_END",
)
"""The events that are read; all others, whatever they claim, prove nothing."""

DISTIL = "distil"
"""The stage in which the student learns from the teachers; all others are fine-tuning."""

_DIGEST = re.compile(r"(?:\w+:)?[0-9a-f]{32,128}")


class Record:
    """One event: where it stands, when, and what it says."""

    def __init__(self, place: int, fields: Mapping[str, Any]) -> None:
        self.place = place
        self.fields = fields
        self.ts_ns = _natural(fields.get("ts_ns"))

    @property
    def teacher(self) -> str | None:
        return self.fields.get("teacher")

    @property
    def volume(self) -> str:
        return str(self.fields.get("volume_id"))

    @property
    def stage(self) -> str:
        return str(self.fields.get("stage"))

    @property
    def step(self) -> int | None:
        return _natural(self.fields.get("step"))

    @property
    def digest(self) -> str | None:
        """Digest of the student's weights; None where it is none."""
        value = self.fields.get("weights_digest")
        return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None


class DistillationLog:
    """The events that count, by name, each list in the log's order."""

    def __init__(self, events: Iterable[Mapping[str, Any]], run_id: str | None) -> None:
        self._by_name: dict[str, list[Record]] = {name: [] for name in EVENTS}
        for place, event in enumerate(events):
            records = self._by_name.get(str(event.get("event")))
            if records is not None and run_id in (None, event.get("run_id")):
                records.append(Record(place, event))

    def __getitem__(self, name: str) -> list[Record]:
        return self._by_name[name]

    def in_order(self, *names: str) -> list[Record]:
        """The events of these names, or all, in the log's order."""
        return sorted((record for name in names or EVENTS for record in self[name]), key=lambda record: record.place)

    def of_teacher(self, name: str, teacher: str) -> list[Record]:
        return [record for record in self[name] if record.teacher == teacher]

    def volumes_of(self, teacher: str) -> set[str]:
        """Volumes whose soft labels a teacher had a part in."""
        return {record.volume for record in self.of_teacher("TEACHER_BATCH_TRANSFER", teacher)}

    def steps(self) -> dict[str, set[int | None]]:
        """Numbers of the loss steps by stage, in the order in which the stages began."""
        steps: dict[str, set[int | None]] = {}
        for record in self["DISTILLATION_LOSS_STEP"]:
            steps.setdefault(record.stage, set()).add(record.step)
        return steps


Check: TypeAlias = Callable[[DistillationLog, Mapping[str, str | None]], Iterator[str]]


def _start(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    if not log["DISTILLATION_START"]:
        yield "no DISTILLATION_START"
    if not expected:
        yield "no teacher"
    for record in log["DISTILLATION_START"]:
        stages = record.fields.get("stages")
        if not isinstance(stages, list | tuple) or DISTIL not in stages:
            yield f"DISTILLATION_START: stages {stages!r}, without {DISTIL!r}"
        else:
            yield from (f"no DISTILLATION_LOSS_STEP of stage {stage!r}" for stage in stages if stage not in log.steps())
        taught = record.fields.get("teachers")
        if not isinstance(taught, list | tuple) or set(taught) != expected.keys():
            yield f"DISTILLATION_START: the soft labels' teachers are {taught!r}, not {list(expected)!r}"
        return  # a session that begins anew says the same


def _times(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    records = log.in_order()
    if any(record.ts_ns is None for record in records):
        yield "events without ts_ns"
        return
    before = 0
    for record in records:
        assert record.ts_ns is not None
        if record.ts_ns < before:
            yield f"{record.fields['event']} at {record.ts_ns} ns stands behind an event at {before} ns"
            return
        before = record.ts_ns


def _teachers(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    for name, digest in expected.items():
        yield from (f"teacher {name!r}: {text}" for text in _teacher(log, name, digest))
    strangers = {record.teacher for record in log["DISTILLATION_TEACHER_LOAD_END"]} - expected.keys()
    yield from (f"teacher {name!r} was loaded and is none of this run's" for name in sorted(map(str, strangers)))


def _teacher(log: DistillationLog, name: str, digest: str | None) -> Iterator[str]:
    """Of one teacher: loaded, with the right digest, and its answers handed over before the first step."""
    begins = log.of_teacher("DISTILLATION_TEACHER_LOAD_BEGIN", name)
    ends = log.of_teacher("DISTILLATION_TEACHER_LOAD_END", name)
    transfers = log.of_teacher("TEACHER_BATCH_TRANSFER", name)
    if not begins:
        yield "no DISTILLATION_TEACHER_LOAD_BEGIN"
        return
    if not ends or ends[0].place < begins[0].place:
        yield "no DISTILLATION_TEACHER_LOAD_END behind its begin"
        return
    loaded = {str(record.fields.get("digest")) for record in ends}
    if not all(_DIGEST.fullmatch(each) for each in loaded):
        yield "loaded without a digest of its weights"
    elif len(loaded) > 1 or digest not in (None, *loaded):
        yield f"loaded with digest {', '.join(sorted(loaded))}, not {digest or 'one and the same'}"
    if not transfers:
        yield "no TEACHER_BATCH_TRANSFER"
    elif (steps := log["DISTILLATION_LOSS_STEP"]) and max(ends[0].place, transfers[0].place) > steps[0].place:
        yield "loaded or transferred only after the first DISTILLATION_LOSS_STEP"


def _volumes(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    """An ensemble's mean over other teachers in each volume would be no ensemble's."""
    volumes = {name: log.volumes_of(name) for name in expected}
    everything = set().union(*volumes.values())
    for name, found in volumes.items():
        if found and found != everything:
            yield f"teacher {name!r}: no TEACHER_BATCH_TRANSFER of {', '.join(sorted(everything - found))}"


def _batches(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    """Every end has its begin, every answer its batch; a begin without end is what a killed session leaves."""
    if not log["DISTILLATION_BATCH_END"]:
        yield "no complete batch (DISTILLATION_BATCH_BEGIN, DISTILLATION_BATCH_END)"
    is_open = 0
    for record in log.in_order("DISTILLATION_BATCH_BEGIN", "DISTILLATION_BATCH_END"):
        is_open += 1 if record.fields["event"] == "DISTILLATION_BATCH_BEGIN" else -1
        if is_open < 0:
            yield "a DISTILLATION_BATCH_END without its DISTILLATION_BATCH_BEGIN"
            return
    computed: dict[tuple[str | None, str], int] = {}
    for record in log["DISTILLATION_BATCH_END"]:
        computed.setdefault((record.teacher, record.volume), record.place)
    for record in log["TEACHER_BATCH_TRANSFER"]:
        done = computed.get((record.teacher, record.volume))
        if record.fields.get("from_cache") is not True and (done is None or done > record.place):
            yield f"teacher {record.teacher!r}: a TEACHER_BATCH_TRANSFER of {record.volume} that no batch computed"
            return


def _loss_steps(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    steps = log["DISTILLATION_LOSS_STEP"]
    distil = [record for record in steps if record.stage == DISTIL]
    tuning = [record for record in steps if record.stage != DISTIL]
    if not any(_soft_loss(record) for record in distil):
        yield f"no soft-label loss in any DISTILLATION_LOSS_STEP of stage {DISTIL!r}"
    # A session that goes on from an older checkpoint may take steps again: they were all there before, once.
    early = {record.step for record in distil if not tuning or record.place < tuning[0].place}
    if early != {record.step for record in distil}:
        yield f"fine-tuning ({tuning[0].stage}) began before the distillation's last step"
    if steps and (starts := log["DISTILLATION_START"]) and steps[0].place < starts[0].place:
        yield "a DISTILLATION_LOSS_STEP before DISTILLATION_START"
    for stage, numbers in log.steps().items():
        if numbers != set(range(1, len(numbers) + 1)):
            yield f"DISTILLATION_LOSS_STEP: the steps of stage {stage!r} have gaps"


def _updates(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    """Each stage changed the student: successive digests of its weights differ."""
    updates = log["DISTILLATION_STUDENT_UPDATE"]
    for stage in dict.fromkeys([DISTIL, *log.steps()]):
        if not any(record.stage == stage and record.digest for record in updates):
            yield f"no DISTILLATION_STUDENT_UPDATE with a weights_digest in stage {stage!r}"
    steps = log.steps()
    for record in updates:
        if record.step not in steps.get(record.stage, ()):
            yield f"DISTILLATION_STUDENT_UPDATE {record.stage} {record.step}: no DISTILLATION_LOSS_STEP of it"
            break
    starts = log["DISTILLATION_START"]
    before = starts[0] if starts else None
    if before is not None and before.digest is None:
        yield "DISTILLATION_START without a weights_digest to compare with"
    for record in (each for each in updates if each.digest):
        again = before is not None and (record.stage, record.step) == (before.stage, before.step)
        if before is not None and not again and record.digest == before.digest:
            yield f"DISTILLATION_STUDENT_UPDATE {record.stage} {record.step}: the weights did not change"
            return
        before = record


def _memory(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    """Where something was fine-tuned, it began from the distilled student, read back."""
    tuning = [record for record in log["DISTILLATION_LOSS_STEP"] if record.stage != DISTIL]
    if not tuning:
        return
    kept, reloaded = log["TRANSFER_MEMORY_PERSISTED"], log["TRANSFER_MEMORY_RELOADED_FOR_FINETUNE"]
    if not kept or kept[0].place > tuning[0].place:
        yield "no TRANSFER_MEMORY_PERSISTED before fine-tuning"
    elif not reloaded or not kept[0].place < reloaded[0].place < tuning[0].place:
        yield "no TRANSFER_MEMORY_RELOADED_FOR_FINETUNE between persisting and fine-tuning"
    elif reloaded[0].digest is None or reloaded[0].digest not in {record.digest for record in kept}:
        yield "TRANSFER_MEMORY_RELOADED_FOR_FINETUNE: not the weights that were persisted"


def _end(log: DistillationLog, expected: Mapping[str, str | None]) -> Iterator[str]:
    """A checkpoint holds an update's work, and the end comes after all of it."""
    updates, checkpoints = log["DISTILLATION_STUDENT_UPDATE"], log["DISTILLATION_CHECKPOINT_WRITTEN"]
    if not checkpoints or (updates and checkpoints[-1].place < updates[0].place):
        yield "no DISTILLATION_CHECKPOINT_WRITTEN behind an update"
    ends = log["DISTILLATION_END"]
    if not ends:
        yield "no DISTILLATION_END"
        return
    work = log["DISTILLATION_START"] + log["DISTILLATION_LOSS_STEP"] + updates
    if work and ends[-1].place < max(record.place for record in work):
        yield "work behind the last DISTILLATION_END"
    made = {record.digest for record in updates} - {None}
    if made and ends[-1].digest not in made:
        yield "DISTILLATION_END: its weights_digest is that of no DISTILLATION_STUDENT_UPDATE"


CHECKS: tuple[Check, ...] = (
    _start,
    _times,
    _teachers,
    _volumes,
    _batches,
    _loss_steps,
    _updates,
    _memory,
    _end,
)


def _soft_loss(record: Record) -> bool:
    """Whether the step's loss had a part that only the teachers' answers give."""
    terms = record.fields.get("terms")
    value = terms.get("soft") if isinstance(terms, Mapping) else None
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _natural(value: Any) -> int | None:
    """An integer of 0 or more, also as the decimal string that the log makes of large ones."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None
