"""Distillation is proved by the log, not declared (R22): each piece of the work is taken away, and missed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_log import (
    STAGES,
    STEPS,
    TEACHERS,
    Event,
    changed,
    complete,
    digest,
    stage_events,
    step_events,
    teacher_events,
    timed,
    without,
)
from vesu.distill.proof import EVENTS, HARD_FAIL, Proof, examine_distillation, require_distilled
from vesu.distill.transfer import FORMULAS
from vesu.errors import ArgumentError, DistillationNotExecuted, VesuError
from vesu.ledger import LedgerWriter, canonical_json, iter_events


def examined(events: list[Event], **changes: Any) -> Proof:
    return examine_distillation(events, **{"teachers": TEACHERS, "due": True, **changes})


def refused(events: list[Event], **changes: Any) -> str:
    """What the error says; it is raised exactly where the verdict is no GO."""
    assert examined(events, **changes).verdict == "NO_GO_SUBMISSION"
    with pytest.raises(DistillationNotExecuted) as caught:
        require_distilled(events, **{"teachers": TEACHERS, "due": True, **changes})
    assert isinstance(caught.value, VesuError) and isinstance(caught.value, RuntimeError)
    message = str(caught.value)
    assert message.startswith(f"{HARD_FAIL}: ") and HARD_FAIL == "DISTILLATION_NOT_EXECUTED_HARD_FAIL"
    return message


def moved(name: str, before: str) -> list[Event]:
    """A sound run's log with the events of one name put before the first of another."""
    events = complete()
    taken = [event for event in events if event["event"] == name]
    rest = [event for event in events if event["event"] != name]
    place = next(i for i, event in enumerate(rest) if event["event"] == before)
    return timed([*rest[:place], *taken, *rest[place:]])


def test_a_sound_run_is_proved() -> None:  # R22
    proof = require_distilled(timed(complete()), teachers=TEACHERS, due=True)
    assert (proof.verdict, proof.status, proof.executed, proof.missing) == ("GO", "proved", True, ())
    assert set(proof.counts) == set(EVENTS) and min(proof.counts.values()) >= 1
    assert [(each.name, each.digest, each.loads, each.volumes) for each in proof.teachers] == [
        (name, digest, 1, ("v1", "v2")) for name, digest in TEACHERS.items()
    ]
    assert proof.steps == dict.fromkeys(STAGES, STEPS)
    assert (proof.student_first, proof.student_last) == (digest(1), digest(300 + STEPS))
    assert proof.first_ts_ns is not None and proof.last_ts_ns is not None
    assert proof.last_ts_ns > proof.first_ts_ns
    assert b'"verdict":"GO"' in canonical_json(proof.to_json())


def test_a_sound_run_is_proved_from_the_ledger_itself(tmp_path: Path) -> None:  # R22, R38
    with LedgerWriter(tmp_path / "events.jsonl") as ledger:
        for event in complete():
            fields = {key: value for key, value in event.items() if key != "event"}
            ledger.append(event["event"], {"run_id": "r1", **fields})
    assert examined(list(iter_events(ledger.path)), run_id="r1").status == "proved"
    assert "no DISTILLATION_START" in refused(list(iter_events(ledger.path)), run_id="another run")


@pytest.mark.parametrize("name", EVENTS)
def test_every_kind_of_work_is_missed(name: str) -> None:  # R22
    assert any(event["event"] == name for event in complete())
    assert name in refused(without(lambda event: event["event"] != name))


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(
    "name", ["DISTILLATION_TEACHER_LOAD_BEGIN", "DISTILLATION_TEACHER_LOAD_END", "TEACHER_BATCH_TRANSFER"]
)
def test_every_teacher_is_missed(name: str, teacher: str) -> None:  # R22
    said = refused(without(lambda event: event["event"] != name or event.get("teacher") != teacher))
    assert f"teacher {teacher!r}" in said and name in said


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_must_change_the_weights(stage: str) -> None:  # R22
    said = refused(
        without(lambda event: event["event"] != "DISTILLATION_STUDENT_UPDATE" or event.get("stage") != stage)
    )
    assert f"no DISTILLATION_STUDENT_UPDATE with a weights_digest in stage {stage!r}" in said


def test_one_volume_of_one_teacher_is_missed() -> None:  # R22
    def keep(event: Event) -> bool:
        return (event["event"], event.get("teacher"), event.get("volume_id")) != ("TEACHER_BATCH_TRANSFER", "b", "v2")

    assert "teacher 'b': no TEACHER_BATCH_TRANSFER of v2" in refused(without(keep))


def test_an_answer_that_no_batch_computed_is_no_answer() -> None:  # R22
    def keep(event: Event) -> bool:
        return "BATCH_END" not in event["event"] or (event.get("teacher"), event.get("volume_id")) != ("c", "v1")

    assert "teacher 'c': a TEACHER_BATCH_TRANSFER of v1 that no batch computed" in refused(without(keep))


def test_flags_prove_nothing() -> None:  # R22, R54: what the historical notebooks did
    flags = {"executed": True, "distillation_executed": True, "teachers": list(TEACHERS), "loss": 0.1}
    names = ["TEACHER_TRANSFER_APPLIED", "DISTILLATION_DONE", "TEACHER_DISTILLATION_DONE", "distillation_start"]
    said = refused(timed([{"event": name, **flags} for name in names]))
    assert "no DISTILLATION_START" in said and "no DISTILLATION_END" in said


def test_a_start_and_an_end_alone_prove_nothing() -> None:  # R22
    told = {"stages": ["distil"], "executed": True}
    ends = [{"event": name, **told, "weights_digest": digest(i)} for i, name in enumerate([EVENTS[0], EVENTS[-1]])]
    said = refused(timed(ends))
    assert "no soft-label loss in any" in said and "no DISTILLATION_STUDENT_UPDATE" in said
    # What was begun must be proved even where it was not due.
    assert examined(timed(ends), due=False).verdict == "NO_GO_SUBMISSION"


@pytest.mark.parametrize("same", [digest(1), digest(77)])
def test_updates_that_change_nothing_are_seen(same: str) -> None:  # R22
    said = refused(
        timed(
            {**event, "weights_digest": same}
            if event.get("weights_digest") and "START" not in event["event"]
            else event
            for event in complete()
        )
    )
    assert "the weights did not change" in said


@pytest.mark.parametrize("forged", [None, True, "", "changed", 12, "0x12"])
@pytest.mark.parametrize("name", ["DISTILLATION_START", "DISTILLATION_STUDENT_UPDATE", "DISTILLATION_END"])
def test_a_digest_must_be_one(name: str, forged: Any) -> None:  # R22
    assert name in refused(changed(name, weights_digest=forged))


def test_the_student_at_the_end_is_one_that_training_made() -> None:  # R22
    assert "that of no DISTILLATION_STUDENT_UPDATE" in refused(changed("DISTILLATION_END", weights_digest=digest(9)))


@pytest.mark.parametrize("forged", ["f" * 64, "", None, "loaded"])
def test_a_teacher_of_another_digest_is_no_teacher(forged: str | None) -> None:  # R18, R22
    assert "teacher 'a': loaded with" in refused(changed("DISTILLATION_TEACHER_LOAD_END", digest=forged))


def test_names_alone_take_any_digest_but_the_same_each_time() -> None:  # R22
    events = complete()
    assert examined(timed(events), teachers=list(TEACHERS)).status == "proved"
    again = [{**event, "digest": "f" * 64} if "LOAD_END" in event["event"] else event for event in teacher_events("a")]
    assert "teacher 'a': loaded with" in refused(timed([*events[:1], *again, *events[1:]]), teachers=list(TEACHERS))


def test_a_stranger_among_the_teachers_is_seen() -> None:  # R22
    assert "teacher 'c' was loaded and is none" in refused(timed(complete()), teachers=["a", "b"])


def test_fewer_teachers_than_nine_are_allowed_and_none_is_the_hard_fail() -> None:  # R22
    of_a = [event for event in changed("DISTILLATION_START", teachers=["a"]) if event.get("teacher") in (None, "a")]
    assert examined(of_a, teachers=["a"]).status == "proved"
    assert "no teacher" in refused(without(lambda event: "teacher" not in event), teachers=[])


def test_not_due_and_not_begun_is_not_applicable() -> None:  # R44
    proof = require_distilled(timed([{"event": "RUN_START"}]), teachers=[], due=False)
    assert (proof.verdict, proof.status, proof.executed) == ("GO", "not_applicable", False)


@pytest.mark.parametrize("soft", [0.0, None, "0.5", True])
def test_without_soft_labels_it_was_no_distillation(soft: Any) -> None:  # R22
    assert "no soft-label loss" in refused(changed("DISTILLATION_LOSS_STEP", terms={"soft": soft, "dice": 1.0}))


def test_thinned_loss_steps_are_seen() -> None:  # R51
    said = refused(without(lambda event: event["event"] != "DISTILLATION_LOSS_STEP" or event["step"] != 2))
    assert "steps of stage 'distil' have gaps" in said
    assert "have gaps" in refused(changed("DISTILLATION_LOSS_STEP", step=None))


def test_every_event_has_its_time_in_order() -> None:  # R22
    events = timed(complete())
    for place in (1, len(events) // 2, len(events) - 2):
        assert events[place]["event"] in EVENTS
        timeless = [{**event, "ts_ns": None} if i == place else event for i, event in enumerate(events)]
        assert "events without ts_ns" in refused(timeless)
    late = [{**event, "ts_ns": 1} if event["event"] == "DISTILLATION_END" else event for event in events]
    assert "DISTILLATION_END at 1 ns stands behind" in refused(late)
    assert examined([{**event, "ts_ns": int(event["ts_ns"])} for event in events]).status == "proved"
    # A clock that steps back makes the log repeat the last time.
    assert examined([{**event, "ts_ns": "7"} for event in events]).status == "proved"


@pytest.mark.parametrize(
    ("name", "before", "said"),
    [
        ("DISTILLATION_TEACHER_LOAD_END", "DISTILLATION_TEACHER_LOAD_BEGIN", "no DISTILLATION_TEACHER_LOAD_END behind"),
        ("DISTILLATION_END", "TRANSFER_MEMORY_PERSISTED", "work behind the last DISTILLATION_END"),
        ("DISTILLATION_CHECKPOINT_WRITTEN", "DISTILLATION_START", "no DISTILLATION_CHECKPOINT_WRITTEN behind"),
        ("TRANSFER_MEMORY_PERSISTED", "DISTILLATION_END", "no TRANSFER_MEMORY_PERSISTED before fine-tuning"),
        ("TRANSFER_MEMORY_RELOADED_FOR_FINETUNE", "DISTILLATION_END", "between persisting and fine-tuning"),
        ("DISTILLATION_LOSS_STEP", "DISTILLATION_START", "before DISTILLATION_START"),
        ("TEACHER_BATCH_TRANSFER", "DISTILLATION_END", "only after the first DISTILLATION_LOSS_STEP"),
    ],
)
def test_the_order_of_the_work_is_checked(name: str, before: str, said: str) -> None:  # R22
    assert said in refused(moved(name, before))


def test_distillation_comes_before_fine_tuning() -> None:  # R22
    events = complete()
    tuned_first = [*events[: events.index(stage_events("distil")[0])], *step_events("head", 1)]
    assert "fine-tuning (head) began before" in refused(timed([*tuned_first, *events[len(tuned_first) - 4 :]]))


def test_the_memory_that_is_reloaded_is_the_one_that_was_kept() -> None:  # R23
    said = refused(changed("TRANSFER_MEMORY_RELOADED_FOR_FINETUNE", weights_digest=digest(5)))
    assert "not the weights that were persisted" in said


def test_a_run_in_sessions_is_one_distillation() -> None:  # R22, R37
    """Killed within a batch of a teacher, then within a step beyond the last checkpoint, which is done again."""
    distil = stage_events("distil")
    events = complete()
    start = next(i for i, event in enumerate(events) if event["event"] == "DISTILLATION_START")
    half_a_teacher = teacher_events("a")[:3]
    resumed = {"event": "DISTILLATION_START", "weights_digest": digest(50), "resumed": True}
    checkpoint = {"event": "DISTILLATION_CHECKPOINT_WRITTEN", "stage": "distil", "step": 1}
    killed = [*distil[:4], checkpoint, *distil[4:9]]
    cached = [event for name in TEACHERS for event in teacher_events(name, from_cache=True)]
    log = [*half_a_teacher, *events[: start + 1], *killed, *cached, resumed, *distil[4:]]
    proof = require_distilled(timed([*log, *events[start + 1 + len(distil) :]]), teachers=TEACHERS, due=True)
    assert proof.steps == dict.fromkeys(STAGES, STEPS) and proof.student_first == digest(1)
    assert [(each.loads, each.from_cache) for each in proof.teachers] == [(3, 2), (2, 2), (2, 2)]


def test_answers_from_the_cache_still_need_the_teacher() -> None:  # R09, R22
    rest = [event for event in complete() if "teacher" not in event]
    cached = [event for name in TEACHERS for event in teacher_events(name, from_cache=True)]
    assert examined(timed([*cached, *rest])).status == "proved"
    said = refused(timed([*(event for event in cached if "LOAD" not in event["event"]), *rest]))
    assert "teacher 'a': no DISTILLATION_TEACHER_LOAD_BEGIN" in said


def test_a_distillation_alone_needs_no_reload() -> None:  # R22
    only = without(lambda event: event.get("stage") in (None, "distil") and "MEMORY" not in event["event"])
    said = {"DISTILLATION_START": {"stages": ["distil"]}, "DISTILLATION_END": {"weights_digest": digest(100 + STEPS)}}
    assert examined([{**event, **said.get(event["event"], {})} for event in only]).status == "proved"


@pytest.mark.parametrize("stages", [None, [], ["head"], "distil", 3])
def test_a_start_names_its_stages(stages: Any) -> None:  # R22, R26
    assert "DISTILLATION_START: stages" in refused(changed("DISTILLATION_START", stages=stages))


@pytest.mark.parametrize("taught", [None, [], ["a", "b"], ["a", "b", "c", "d"], "abc"])
def test_the_soft_labels_are_those_of_all_teachers(taught: Any) -> None:  # R18, R22
    assert "the soft labels' teachers are" in refused(changed("DISTILLATION_START", teachers=taught))


def test_steps_taken_again_from_an_older_checkpoint_are_no_fine_tuning_before_the_distillation() -> None:  # R36
    events = complete()
    begun = next(i for i, event in enumerate(events) if event.get("stage") == "decoder")
    start = next(i for i, event in enumerate(events) if event["event"] == "DISTILLATION_START")
    again = [*events[:begun], *events[start + 5 :]]  # of stage distil from step 2 on
    assert examined(timed(again)).status == "proved"


def test_a_stage_that_was_begun_and_never_trained_is_missed() -> None:  # R22, R26
    said = refused(changed("DISTILLATION_START", stages=[*STAGES, "encoder"]))
    assert "no DISTILLATION_LOSS_STEP of stage 'encoder'" in said


@pytest.mark.parametrize("teachers", [["a", "a"], "abc", [""], [1]])
def test_bad_teachers_are_refused(teachers: Any) -> None:
    with pytest.raises(ArgumentError, match="teachers: got"):
        examine_distillation([], teachers=teachers, due=True)


def test_any_lost_stretch_of_work_is_missed() -> None:  # R22
    """Cut any stretch of the log that holds a step and its update, and something is missing."""
    events = timed(complete())
    generator = np.random.default_rng(0)
    seen = 0
    for _ in range(300):
        first, last = np.sort(generator.integers(0, len(events), 2))
        names = {event["event"] for event in events[first:last]}
        if {"DISTILLATION_LOSS_STEP", "DISTILLATION_STUDENT_UPDATE"} <= names:
            seen += 1
            assert examined([*events[:first], *events[last:]]).verdict == "NO_GO_SUBMISSION", (first, last)
    assert seen > 100


def test_the_guide_names_every_event_and_its_program_runs() -> None:  # R22, R23
    text = (Path(__file__).resolve().parents[1] / "docs" / "distillation.md").read_text(encoding="utf-8")
    whole = text.replace("`, `..._END`", "`, `DISTILLATION_TEACHER_LOAD_END`, `DISTILLATION_BATCH_END`")
    for name in (*EVENTS, "TEACHER_DISTILLATION_START", "TEACHER_DISTILLATION_DONE", *FORMULAS, "VARIANT_PROMOTION"):
        assert name in whole
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(program, {})
