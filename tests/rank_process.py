"""One of three processes that share a search: ``RANK=0 WORLD_SIZE=3 ... python rank_process.py`` tells how it went."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from test_ranks import case, fitted, grid
from vesu.config import RunConfig
from vesu.errors import VesuError
from vesu.grid_search import SharedSamples
from vesu.run.ranks import Ranks, joined


def outcome(ranks: Ranks | None) -> str:
    """Of a search on four tasks, shared or not."""
    train = case()
    rows: Any = train
    if ranks is not None:
        rows = SharedSamples(ranks, "train", train.n_samples, train.n_features, has_gradient=True)
        rows.put(train.x, train.y, train.gradient)
    found = repr(fitted(grid(max_iter=3).fit_samples(lambda epoch: rows)))
    return hashlib.sha256(found.encode()).hexdigest()


def told(work: Callable[[], object]) -> str:
    try:
        return str(work())
    except VesuError as error:
        return f"{type(error).__name__}: {error}"


def lead(ranks: Ranks) -> None:
    with ranks.leading():
        print(outcome(ranks))
        print(told(lambda: ranks.ask("fail", {}, {}, only=1)))
        print(outcome(ranks))  # a refusal is not the end
        started = time.monotonic()
        print(told(lambda: ranks.ask("die", {}, {}, only=1)))
        print(told(lambda: ranks.ask("hang", {}, {}, only=2)))
        print(time.monotonic() - started)
        sys.stdout.flush()
        os._exit(0)  # without a farewell


def fail(*_: object) -> None:
    raise ValueError("no such luck")


HANDLERS: dict[str, Any] = {
    "fail": fail,
    "die": lambda *_: os._exit(9),
    "hang": lambda *_: time.sleep(8),
}

if __name__ == "__main__":
    with joined(RunConfig()) as found:
        assert found is not None
        if found.is_first:
            lead(found)
        else:
            print(told(lambda: found.serve(HANDLERS)))
