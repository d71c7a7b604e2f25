"""Was there a distillation? The answer of the run's event log, not of anybody's flag (R22).

Every check looks at events that only the work itself writes, and yields in words what is not there.
``docs/distillation.md`` has the table of the events and of the fields that are read here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from vesu.distill.proof_checks import CHECKS, EVENTS, DistillationLog
from vesu.errors import ArgumentError, DistillationNotExecuted

__all__ = ["EVENTS", "HARD_FAIL", "Proof", "TeacherEvidence", "Verdict", "examine_distillation", "require_distilled"]

HARD_FAIL = "DISTILLATION_NOT_EXECUTED_HARD_FAIL"
"""What the message of :class:`vesu.errors.DistillationNotExecuted` begins with."""

Verdict: TypeAlias = Literal["GO", "NO_GO_SUBMISSION"]


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
    >>> start = {"event": "DISTILLATION_START", "ts_ns": "1", "stages": ["distil"], "teachers": ["a"]}
    >>> proof = examine_distillation([start], teachers=["a"], due=False)
    >>> proof.verdict, proof.missing[:2]
    ('NO_GO_SUBMISSION', ("no DISTILLATION_LOSS_STEP of stage 'distil'",
                          "teacher 'a': no DISTILLATION_TEACHER_LOAD_BEGIN"))
    """
    expected = _expected(teachers)
    log = DistillationLog(log_events, run_id)
    begun = bool(log["DISTILLATION_START"])
    missing = tuple(text for check in CHECKS for text in check(log, expected)) if due or begun else ()
    times = [record.ts_ns for record in log.in_order() if record.ts_ns is not None]
    digests = [record.digest for record in log["DISTILLATION_START"] + log["DISTILLATION_END"]]
    return Proof(
        verdict="NO_GO_SUBMISSION" if missing else "GO",
        due=due,
        executed=begun and not missing,
        missing=missing,
        counts={name: len(log[name]) for name in EVENTS},
        teachers=tuple(_teacher_evidence(log, name) for name in expected),
        steps={stage: len(numbers) for stage, numbers in log.steps().items()},
        student_first=digests[0] if digests else None,
        student_last=digests[-1] if len(digests) > 1 else None,
        first_ts_ns=min(times, default=None),
        last_ts_ns=max(times, default=None),
    )


def _teacher_evidence(log: DistillationLog, name: str) -> TeacherEvidence:
    ends = log.of_teacher("DISTILLATION_TEACHER_LOAD_END", name)
    cached = [record for record in log.of_teacher("TEACHER_BATCH_TRANSFER", name) if record.fields.get("from_cache")]
    digest = str(ends[-1].fields.get("digest")) if ends else None
    return TeacherEvidence(name, digest, len(ends), tuple(sorted(log.volumes_of(name))), len(cached))


def _expected(teachers: Mapping[str, str] | Sequence[str]) -> dict[str, str | None]:
    names = list(teachers)
    if isinstance(teachers, str) or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"teachers: got {teachers!r}; accepted: names, or digests by name")
    if len(set(names)) < len(names):
        raise ArgumentError(f"teachers: got {names!r}; accepted: each name once")
    return dict(teachers) if isinstance(teachers, Mapping) else dict.fromkeys(names)
