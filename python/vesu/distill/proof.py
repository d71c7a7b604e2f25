"""Was there a distillation? The answer of the run's event log, not of anybody's flag (R22).

Every check looks at events that only the work itself writes, and yields in words what is not there.
``docs/distillation.md`` has the table of the events and of the fields that are read here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from vesu.errors import ArgumentError, DistillationNotExecuted

__all__ = ["EVENTS", "HARD_FAIL", "Proof", "TeacherEvidence", "Verdict", "examine_distillation", "require_distilled"]

HARD_FAIL = "DISTILLATION_NOT_EXECUTED_HARD_FAIL"
"""What the message of :class:`vesu.errors.DistillationNotExecuted` begins with."""

Verdict: TypeAlias = Literal["GO", "NO_GO_SUBMISSION"]

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

_DIGEST = re.compile(r"[0-9a-f]{32,128}")


@dataclass(frozen=True)
class TeacherEvidence:
    """What the log says of one teacher."""

    name: str
    digest: str | None
    """Of its weights, as loaded; None if it was not."""
    loads: int
    volumes: tuple[str, ...]
    """Volumes whose soft labels it had a part in, sorted."""
    from_cache: int
    """Transfers that came from the cache of soft labels."""


@dataclass(frozen=True)
class Proof:
    """What the log proves about the distillation, see :func:`examine_distillation`."""

    verdict: Verdict
    due: bool
    executed: bool
    """Whether the log holds the whole of the work."""
    missing: tuple[str, ...]
    """What is not there, in words; empty where the verdict is GO."""
    counts: Mapping[str, int]
    """How many of each of :data:`EVENTS` there are."""
    teachers: tuple[TeacherEvidence, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    """Loss steps by stage, in the order in which the stages were trained."""
    student_first: str | None = None
    """Digest of the student's weights before the first step."""
    student_last: str | None = None
    """The same at the end."""
    first_ts_ns: int | None = None
    last_ts_ns: int | None = None

    @property
    def status(self) -> Literal["proved", "not_applicable", "failed"]:
        """In one word; ``not_applicable`` where nothing was due and nothing was begun."""
        if self.verdict != "GO":
            return "failed"
        return "proved" if self.executed else "not_applicable"

    def to_json(self) -> dict[str, Any]:
        """JSON types, times as decimal strings: for ``summary.json`` and the gate."""
        times = {name: value and str(value) for name, value in self._times().items()}
        listed = {"missing": list(self.missing), "teachers": [asdict(each) for each in self.teachers]}
        return {**asdict(self), **listed, **times, "status": self.status}

    def _times(self) -> dict[str, int | None]:
        return {"first_ts_ns": self.first_ts_ns, "last_ts_ns": self.last_ts_ns}


def require_distilled(
    log_events: Iterable[Mapping[str, Any]],
    *,
    teachers: Mapping[str, str] | Sequence[str],
    due: bool,
    run_id: str | None = None,
) -> Proof:
    """:func:`examine_distillation`, and an error where the verdict is not GO.

    Parameters
    ----------
    log_events, teachers, due, run_id
        See :func:`examine_distillation`.

    Returns
    -------
    Proof
        Its verdict is ``"GO"``.

    Raises
    ------
    DistillationNotExecuted
        The message begins with ``DISTILLATION_NOT_EXECUTED_HARD_FAIL`` and says what is missing.
    ArgumentError
        See :func:`examine_distillation`.

    Notes
    -----
    Requirement R22.

    Examples
    --------
    >>> declared = [{"event": "TEACHER_TRANSFER_APPLIED", "ts_ns": "1", "executed": True}]
    >>> require_distilled(declared, teachers=["a"], due=True)
    Traceback (most recent call last):
    ...
    vesu.errors.DistillationNotExecuted: DISTILLATION_NOT_EXECUTED_HARD_FAIL: no DISTILLATION_START; ...
    >>> require_distilled(declared, teachers=[], due=False).status
    'not_applicable'
    """
    proof = examine_distillation(log_events, teachers=teachers, due=due, run_id=run_id)
    if proof.verdict != "GO":
        raise DistillationNotExecuted(f"{HARD_FAIL}: {'; '.join(proof.missing)}")
    return proof


def examine_distillation(
    log_events: Iterable[Mapping[str, Any]],
    *,
    teachers: Mapping[str, str] | Sequence[str],
    due: bool,
    run_id: str | None = None,
) -> Proof:
    """What a run's log proves about its distillation.

    Parameters
    ----------
    log_events : iterable of mapping
        The log's records in order, all or only those of :data:`EVENTS`, as :func:`vesu.ledger.iter_events` gives them.
        That the log was not changed is for :func:`vesu.ledger.verify` to say.
    teachers : mapping of str to str, or sequence of str
        The run's teachers: digests of their weights by name, or names alone.
    due : bool
        Whether a distillation was asked for, or due because teachers are there.
    run_id : str, optional
        Only this run's records count; None counts all.

    Returns
    -------
    Proof
        ``"NO_GO_SUBMISSION"`` if it was due, or begun, and anything is missing: a load of every teacher with its
        digest, its transfers, complete batches, loss steps without gap, updates that changed the student's weights, a
        checkpoint, the memory of the distilled student persisted and reloaded before any fine-tuning, and the end,
        each with its time and in order.

    Raises
    ------
    ArgumentError
        A teacher's name that is empty or there twice.

    Notes
    -----
    Requirement R22. A run in sessions is one distillation: steps that a killed session took beyond its last checkpoint
    stand twice in the log and count once. Memory is that of the events that are read.

    Examples
    --------
    >>> proof = examine_distillation([{"event": "DISTILLATION_START", "ts_ns": "1"}], teachers=["a"], due=False)
    >>> proof.verdict, proof.missing[0]
    ('NO_GO_SUBMISSION', "teacher 'a': no DISTILLATION_TEACHER_LOAD_BEGIN")
    """
    expected = _expected(teachers)
    log = _Log(log_events, run_id)
    begun = bool(log["DISTILLATION_START"])
    missing = tuple(text for check in _CHECKS for text in check(log, expected)) if due or begun else ()
    records = [record for name in EVENTS for record in log[name]]
    digests = [record.digest for record in log["DISTILLATION_START"] + log["DISTILLATION_END"]]
    return Proof(
        verdict="NO_GO_SUBMISSION" if missing else "GO",
        due=due,
        executed=begun and not missing,
        missing=missing,
        counts={name: len(log[name]) for name in EVENTS},
        teachers=tuple(_teacher_evidence(log, name) for name in expected),
        steps=_distinct_steps(log["DISTILLATION_LOSS_STEP"]),
        student_first=digests[0] if digests else None,
        student_last=digests[-1] if len(digests) > 1 else None,
        first_ts_ns=min((r.ts_ns for r in records if r.ts_ns is not None), default=None),
        last_ts_ns=max((r.ts_ns for r in records if r.ts_ns is not None), default=None),
    )


class _Record:
    """One event: where it stands, when, and what it says."""

    def __init__(self, place: int, fields: Mapping[str, Any]) -> None:
        self.place = place
        self.fields = fields
        self.ts_ns = _natural(fields.get("ts_ns"))

    @property
    def teacher(self) -> str | None:
        return self.fields.get("teacher")

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


class _Log:
    """The events that count, by name, each list in the log's order."""

    def __init__(self, events: Iterable[Mapping[str, Any]], run_id: str | None) -> None:
        self._by_name: dict[str, list[_Record]] = {name: [] for name in EVENTS}
        for place, event in enumerate(events):
            records = self._by_name.get(str(event.get("event")))
            if records is not None and run_id in (None, event.get("run_id")):
                records.append(_Record(place, event))

    def __getitem__(self, name: str) -> list[_Record]:
        return self._by_name[name]

    def of_teacher(self, name: str, teacher: str) -> list[_Record]:
        return [record for record in self[name] if record.teacher == teacher]


_Check: TypeAlias = Callable[[_Log, Mapping[str, str | None]], Iterator[str]]


def _start(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    if not log["DISTILLATION_START"]:
        yield "no DISTILLATION_START"
    if not expected:
        yield "no teacher"


def _times(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    records = sorted((record for name in EVENTS for record in log[name]), key=lambda record: record.place)
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


def _teachers(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    for name, digest in expected.items():
        yield from (f"teacher {name!r}: {text}" for text in _teacher(log, name, digest))
    strangers = {record.teacher for record in log["DISTILLATION_TEACHER_LOAD_END"]} - expected.keys()
    yield from (f"teacher {name!r} was loaded and is none of this run's" for name in sorted(map(str, strangers)))


def _teacher(log: _Log, name: str, digest: str | None) -> Iterator[str]:
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


def _volumes(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    """An ensemble's mean over other teachers in each volume would be no ensemble's."""
    volumes = {name: _volumes_of(log, name) for name in expected}
    everything = set().union(*volumes.values())
    for name, found in volumes.items():
        if found and found != everything:
            yield f"teacher {name!r}: no TEACHER_BATCH_TRANSFER of {', '.join(sorted(everything - found))}"


def _batches(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    """Every end has its begin; a begin without end is what a killed session leaves."""
    if not log["DISTILLATION_BATCH_END"]:
        yield "no complete batch (DISTILLATION_BATCH_BEGIN, DISTILLATION_BATCH_END)"
    records = log["DISTILLATION_BATCH_BEGIN"] + log["DISTILLATION_BATCH_END"]
    is_open = 0
    for record in sorted(records, key=lambda record: record.place):
        is_open += 1 if record.fields["event"] == "DISTILLATION_BATCH_BEGIN" else -1
        if is_open < 0:
            yield "a DISTILLATION_BATCH_END without its begin"
            return


def _loss_steps(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    steps = log["DISTILLATION_LOSS_STEP"]
    distil = [record for record in steps if record.stage == DISTIL]
    tuning = [record for record in steps if record.stage != DISTIL]
    if not distil:
        yield f"no DISTILLATION_LOSS_STEP of stage {DISTIL!r}"
    elif not any(_soft_loss(record) for record in distil):
        yield f"no soft-label loss in any DISTILLATION_LOSS_STEP of stage {DISTIL!r}"
    if distil and tuning and tuning[0].place < distil[-1].place:
        yield f"fine-tuning ({tuning[0].stage}) began before the distillation's last step"
    if steps and (starts := log["DISTILLATION_START"]) and steps[0].place < starts[0].place:
        yield "a DISTILLATION_LOSS_STEP before DISTILLATION_START"
    for stage in dict.fromkeys(record.stage for record in steps):
        numbers = {record.step for record in steps if record.stage == stage}
        known = {number for number in numbers if number is not None}
        if len(known) < len(numbers) or max(known) - min(known) + 1 != len(known):
            yield f"DISTILLATION_LOSS_STEP: the steps of stage {stage!r} have gaps"


def _updates(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
    """Each stage changed the student: successive digests of its weights differ."""
    updates = log["DISTILLATION_STUDENT_UPDATE"]
    trained = dict.fromkeys([DISTIL, *(record.stage for record in log["DISTILLATION_LOSS_STEP"])])
    for stage in trained:
        if not any(record.stage == stage and record.digest for record in updates):
            yield f"no DISTILLATION_STUDENT_UPDATE with a weights_digest in stage {stage!r}"
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


def _memory(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
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


def _end(log: _Log, expected: Mapping[str, str | None]) -> Iterator[str]:
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


_CHECKS: tuple[_Check, ...] = (
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


def _teacher_evidence(log: _Log, name: str) -> TeacherEvidence:
    ends = log.of_teacher("DISTILLATION_TEACHER_LOAD_END", name)
    cached = [record for record in log.of_teacher("TEACHER_BATCH_TRANSFER", name) if record.fields.get("from_cache")]
    digest = str(ends[-1].fields.get("digest")) if ends else None
    return TeacherEvidence(name, digest, len(ends), tuple(sorted(_volumes_of(log, name))), len(cached))


def _volumes_of(log: _Log, teacher: str) -> set[str]:
    return {str(record.fields.get("volume_id")) for record in log.of_teacher("TEACHER_BATCH_TRANSFER", teacher)}


def _distinct_steps(records: Sequence[_Record]) -> dict[str, int]:
    steps: dict[str, set[int | None]] = {}
    for record in records:
        steps.setdefault(record.stage, set()).add(record.step)
    return {stage: len(found) for stage, found in steps.items()}


def _soft_loss(record: _Record) -> bool:
    """Whether the step's loss had a part that only the teachers' answers give."""
    terms = record.fields.get("terms")
    value = terms.get("soft") if isinstance(terms, Mapping) else None
    return isinstance(value, int | float) and value > 0


def _expected(teachers: Mapping[str, str] | Sequence[str]) -> dict[str, str | None]:
    names = list(teachers)
    if isinstance(teachers, str) or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"teachers: got {teachers!r}; accepted: names, or digests by name")
    if len(set(names)) < len(names):
        raise ArgumentError(f"teachers: got {names!r}; accepted: each name once")
    return dict(teachers) if isinstance(teachers, Mapping) else dict.fromkeys(names)


def _natural(value: Any) -> int | None:
    """An integer of 0 or more, also as the decimal string that the log makes of large ones."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None
