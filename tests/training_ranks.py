"""One process of a data-parallel training: ``RANK=0 WORLD_SIZE=2 ... python training_ranks.py`` prints the outcome."""

from typing import Any

from training_volumes import Events, Stop, config, stopping_after, train
from vesu.distill.parallel import AnotherRankStopped

SETTINGS: dict[str, Any] = {"preset": "P1", "accumulate": 2}


def outcome() -> str:
    events = Events()
    saves: list[Any] = []
    student = train(config(**SETTINGS), emit=events, save=lambda parts, cursor: saves.append(cursor))
    losses = [fields["terms"] for fields in events.named("DISTILLATION_LOSS_STEP")]
    return f"{student.weights_digest} {len(saves)} {len(events)} {losses!r} {student.history!r}"


def stopped(rank: int, calls: int) -> str:
    """Only the second process is stopped: while it looks through its volumes, and in a pass."""
    try:
        train(config(**SETTINGS), poll=stopping_after(calls) if rank == 1 else None)
    except AnotherRankStopped:
        return "another"
    except Stop:
        return "itself"
    return "finished"


if __name__ == "__main__":
    import os

    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    print(outcome())
    print(*(stopped(int(os.environ["RANK"]), calls) for calls in (1, 4)))
    distributed.destroy_process_group()
