"""The log of a distillation, as the work writes it: teachers, soft labels, four stages, the end."""

from collections.abc import Callable, Iterable
from typing import Any

Event = dict[str, Any]

TEACHERS = {name: name * 64 for name in "abc"}
VOLUMES = ("v1", "v2")
STAGES = ("distil", "head", "decoder")
STEPS = 3
START_NS = 1_790_000_000_000_000_000


def digest(number: int) -> str:
    return f"{number:064x}"


def teacher_events(name: str, *, from_cache: bool = False) -> list[Event]:
    told = {"teacher": name, "digest": TEACHERS[name]}
    events = [
        {"event": "DISTILLATION_TEACHER_LOAD_BEGIN", **told},
        {"event": "DISTILLATION_TEACHER_LOAD_END", **told, "seconds": 0.1, "parameters": 10},
    ]
    for volume in VOLUMES:
        batch = {**told, "volume_id": volume, "windows": 8}
        if not from_cache:
            events += [{"event": f"DISTILLATION_BATCH_{end}", **batch} for end in ("BEGIN", "END")]
        events.append({"event": "TEACHER_BATCH_TRANSFER", **told, "volume_id": volume, "from_cache": from_cache})
    return events


def step_events(stage: str, step: int) -> list[Event]:
    place = {"stage": stage, "step": step}
    terms = {"soft": 0.5 if stage == "distil" else 0.0, "dice": 0.4}
    changed = digest(100 * (1 + STAGES.index(stage)) + step)
    return [
        {"event": "DISTILLATION_BATCH_BEGIN", **place},
        {"event": "DISTILLATION_BATCH_END", **place},
        {"event": "DISTILLATION_LOSS_STEP", **place, "loss": 0.9, "terms": terms},
        {"event": "DISTILLATION_STUDENT_UPDATE", **place, "weights_digest": changed if step == STEPS else None},
    ]


def stage_events(stage: str) -> list[Event]:
    events = [event for step in range(1, STEPS + 1) for event in step_events(stage, step)]
    return [*events, {"event": "DISTILLATION_CHECKPOINT_WRITTEN", "stage": stage, "step": STEPS}]


def complete() -> list[Event]:
    """All that a sound run writes, without times."""
    memory = {"weights_digest": digest(100 + STEPS)}
    tuning = [event for stage in STAGES[1:] for event in stage_events(stage)]
    return [
        {"event": "RUN_START", "seed": 0},
        *(event for name in TEACHERS for event in teacher_events(name)),
        {
            "event": "DISTILLATION_START",
            "stages": list(STAGES),
            "teachers": list(TEACHERS),
            "weights_digest": digest(1),
        },
        *stage_events("distil"),
        {"event": "TRANSFER_MEMORY_PERSISTED", **memory},
        {"event": "TRANSFER_MEMORY_RELOADED_FOR_FINETUNE", **memory},
        *tuning,
        {"event": "DISTILLATION_END", "weights_digest": tuning[-2]["weights_digest"]},
        {"event": "RUN_END"},
    ]


def timed(events: Iterable[Event], run_id: str = "r1") -> list[Event]:
    """The events as a log's records have them, a second apart."""
    return [
        {**event, "run_id": run_id, "seq": number, "ts_ns": str(START_NS + number * 10**9)}
        for number, event in enumerate(events)
    ]


def without(keep: Callable[[Event], bool]) -> list[Event]:
    """A sound run's log without the events that are not to be kept."""
    return timed(event for event in complete() if keep(event))


def changed(name: str, **fields: Any) -> list[Event]:
    """A sound run's log in which every event of that name says something else."""
    return timed({**event, **fields} if event["event"] == name else event for event in complete())
