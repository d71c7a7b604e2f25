"""A training that is cut anywhere and goes on ends with the bits of the one that was not cut (R36, R37)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from training_case import one_thread_fixture  # noqa: F401
from training_volumes import Events, Stop, config, sheet, stopping_after, train
from vesu.distill.memory import BEST_PART, DISTILLED_PART, MEMORY_PART
from vesu.errors import FormatError, ResumeIncompatible


@pytest.fixture(scope="module", name="whole")
def whole_fixture():
    """The uncut training: its student, events, and the state after every step and validation."""
    events, saves = Events(), []
    student = train(
        emit=events,
        save=lambda parts, cursor: saves.append((parts, cursor, len(events))),
        save_due=lambda: True,
    )
    return student, events, saves


def test_the_state_is_saved_after_every_step_that_is_asked_for(whole) -> None:  # R36
    _, _, saves = whole
    cursors = [(cursor["epoch"], cursor["index"]) for _, cursor, _ in saves]
    # after each step, after its validation, and at the end of the stage
    assert cursors == [(s, i) for s in range(3) for i in (1, 1, 2, 2, 2)]


def test_going_on_from_any_state_gives_the_same_bits(whole) -> None:  # R37
    student, events, saves = whole
    for parts, cursor, told in saves:
        again = Events()
        resumed = train(emit=again, resume=parts, save=lambda parts, cursor: None, save_due=lambda: True)
        assert resumed.weights_digest == student.weights_digest, cursor
        assert resumed.history == student.history
        assert resumed.distilled_weights == student.distilled_weights
        assert again.names[0] == "DISTILLATION_RESUMED"
        # What follows is what followed then; the save itself was told after the state was taken.
        assert again.without_times()[1:] == events.without_times()[told + 1 :], cursor


@pytest.mark.parametrize("calls", [0, 3, 4, 6, 8, 11, 14])
def test_a_stop_between_two_steps_loses_no_step(whole, calls: int) -> None:  # R33, R36
    student, _, _ = whole
    saves = []
    with pytest.raises(Stop):
        train(poll=stopping_after(calls), save=lambda parts, cursor: saves.append((parts, cursor)))
    # Three volumes are looked through with a poll each; a step polls once; the validation after it, of eight windows,
    # two at a time, four times.
    n_done = (calls - 3 + 4) // 5
    if n_done == 0:
        assert not saves
        return
    parts, cursor = saves[-1]
    assert 2 * cursor["epoch"] + cursor["index"] == n_done
    assert train(resume=parts).weights_digest == student.weights_digest


def test_what_is_one_piece_is_guarded() -> None:  # R36
    inside = [False]
    told = Events()

    @contextmanager
    def guard() -> Iterator[None]:
        assert not inside[0]
        inside[0] = True
        yield
        inside[0] = False

    def emit(name: str, fields) -> None:
        if name in ("DISTILLATION_LOSS_STEP", "DISTILLATION_STUDENT_UPDATE", "DISTILLATION_CHECKPOINT_WRITTEN"):
            assert inside[0], name
        if name in ("DISTILLATION_BATCH_BEGIN", "DISTILLATION_BATCH_END"):
            assert not inside[0], name
        told(name, fields)

    train(config(preset="P1"), emit=emit, guard=guard, save=lambda parts, cursor: None)
    assert "DISTILLATION_CHECKPOINT_WRITTEN" in told.names


def test_a_finished_training_is_not_done_again(whole) -> None:  # R37
    student, _, saves = whole
    events = Events()
    assert train(resume=saves[-1][0], emit=events).weights_digest == student.weights_digest
    assert events.names == ["DISTILLATION_RESUMED", "DISTILLATION_END"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"settings": config(learning_rate=0.5)}, "student.learning_rate: checkpoint has 0.01, this run has 0.5"),
        ({"settings": config(preset="P3")}, "student.preset"),
        ({"seed": 9}, "field seed: checkpoint has 3, this run has 9"),
        ({"train": [sheet("known")]}, "field train"),
        ({"validation": [sheet("held out", seed=5)]}, "field validation"),
    ],
)
def test_another_training_is_refused_by_field(whole, options, field: str) -> None:  # R37
    _, _, saves = whole
    with pytest.raises(ResumeIncompatible, match=field):
        train(resume=saves[3][0], **options)


def test_settings_without_influence_may_change(whole) -> None:  # R37
    student, _, saves = whole
    resumed = train(config(flips=True, fusion=0.5), resume=saves[3][0])
    assert resumed.weights_digest == student.weights_digest


def test_a_stage_that_there_is_not_is_refused(whole) -> None:  # R36
    parts = whole[2][3][0]
    changed = parts[MEMORY_PART].replace(b'"stage": 0', b'"stage": 7')
    assert changed != parts[MEMORY_PART]
    with pytest.raises(FormatError, match="stage 7; accepted: 0 to 2"):
        train(resume=parts | {MEMORY_PART: changed, DISTILLED_PART: parts[BEST_PART]})


@pytest.mark.parametrize("part", [MEMORY_PART, "training.json", "training_ema.safetensors", BEST_PART])
def test_missing_and_damaged_parts_are_refused(whole, part: str) -> None:  # R36
    parts = dict(whole[2][3][0])
    with pytest.raises(FormatError, match=part):
        train(resume=parts | {part: parts[part][:-9]})
    del parts[part]
    with pytest.raises(FormatError, match=part):
        train(resume=parts)
