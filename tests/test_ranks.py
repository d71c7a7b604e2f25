"""A search whose samples several processes hold has the bits of one process; here they all live in this one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import solver_cases
from vesu import _core
from vesu.errors import ArgumentError
from vesu.features import select_features, select_features_of
from vesu.grid_search import (
    ElasticNetLogisticGrid,
    EpochSettings,
    IterationRecord,
    Samples,
    SearchState,
    Shards,
    SharedSamples,
)
from vesu.grid_search.shared import Arrays, row_ranges

N = 50_000
"""Four tasks, the last one short."""


class Room:
    """Workers that are objects."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.shards = [Shards(1) for _ in range(world)]

    def ask(
        self, command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, only: int | None = None
    ) -> list[Arrays]:
        asked = self.shards if only is None else [self.shards[only]]
        return [shard.answer(command, fields, arrays) for shard in asked]


def case(n: int = N, n_features: int = 3, seed: int = 0, gradient: bool = True) -> Samples:
    x, y, g = solver_cases.samples(n, n_features, seed)
    x[:, 1] = 0.1  # a constant column
    return Samples(x, y, g if gradient else None)


def shared(samples: Samples, room: Room, name: str = "train") -> SharedSamples:
    """Given in pieces that fit no task."""
    made = SharedSamples(room, name, samples.n_samples, samples.n_features, samples.has_gradient)
    for start in range(0, samples.n_samples, 7001):
        part = slice(start, start + 7001)
        gradient = None if samples.gradient is None else samples.gradient[part]
        made.put(samples.x[part], samples.y[part], gradient)
    return made


def grid(**options: Any) -> ElasticNetLogisticGrid:
    options = {"meta_neurons": 3, "l1": (1e-3, 1e-2), "l2": (1e-3,), "max_iter": 6, "n_threads": 1} | options
    return ElasticNetLogisticGrid(**options)


def fitted(found: ElasticNetLogisticGrid) -> list[bytes | float]:
    arrays = (found.coef_, found.intercept_, found.leaderboard_, found.mean_, found.scale_, found.diverged_)
    return [array.tobytes() for array in arrays] + [found.lipschitz_, found.learning_rate_]


@pytest.mark.parametrize("solver", ["ista", "fista"])
@pytest.mark.parametrize(("n", "n_features", "gradient"), [(N, 3, True), (N, 20, False), (900, 3, True)])
def test_two_three_and_five_processes_have_the_bits_of_one(
    solver: str, n: int, n_features: int, gradient: bool
) -> None:
    # R11 R53
    train, held_out = case(n, n_features, gradient=gradient), case(17_000, n_features, seed=1, gradient=gradient)
    records: dict[int, list[bytes]] = {}

    def watched(world: int) -> Any:
        records[world] = []
        return lambda record: records[world].append(record.loss.tobytes() + record.gradient_norm.tobytes())

    options: dict[str, Any] = {"solver": solver, "class_weight": "balanced"}
    alone = grid(**options).fit_samples(lambda epoch: train, validation=held_out, on_iteration=watched(1))
    arrays = grid(**options).fit(
        train.x, train.y, train.gradient, X_val=held_out.x, y_val=held_out.y, gradient_val=held_out.gradient
    )
    assert fitted(alone) == fitted(arrays)
    for world in (2, 3, 5):
        room = Room(world)
        rows, judged = shared(train, room), shared(held_out, room, "validation")
        found = grid(**options).fit_samples(lambda epoch: rows, validation=judged, on_iteration=watched(world))  # noqa: B023
        assert fitted(found) == fitted(alone)
        assert records[world] == records[1] and len(records[1]) == 6


def test_epochs_with_evolution_have_the_bits_of_one(  # R14 R15
) -> None:
    draws = [case(20_000, seed=seed) for seed in range(3)]
    settings = EpochSettings(epochs=3, meta_neurons_growth=1, stagnation_epochs=1, min_delta=1.0)
    events: dict[int, list[Any]] = {1: [], 2: []}
    options: dict[str, Any] = {"max_iter": 3}
    alone = grid(**options).fit_samples(
        lambda epoch: draws[epoch], settings, on_event=lambda *event: events[1].append(event)
    )
    room = Room(2)
    found = grid(**options).fit_samples(
        lambda epoch: shared(draws[epoch], room), settings, on_event=lambda *event: events[2].append(event)
    )
    assert fitted(found) == fitted(alone)
    assert events[1] == events[2]
    assert {"META_NEURONS_GROWN", "MUTATION_APPLIED"} <= {name for name, _ in events[1]}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1)])
def test_a_resume_on_another_number_of_processes_has_the_same_bits(before: int, after: int) -> None:  # R37
    train = case(20_000)

    def samples(world: int) -> Any:
        return train if world == 1 else shared(train, Room(world))

    kept: list[SearchState] = []

    def keep(record: IterationRecord) -> None:
        if record.iteration == 2:
            kept.append(record.state())

    first = samples(before)
    whole = grid().fit_samples(lambda epoch: first, on_iteration=keep)
    second = samples(after)
    again = grid().fit_samples(lambda epoch: second, state=kept[0])
    assert fitted(again) == fitted(whole)
    other = case(20_000, seed=3)
    with pytest.raises(ArgumentError, match=r"state\.samples"):
        grid().fit_samples(lambda epoch: other, state=kept[0])


def test_each_process_holds_its_own_rows_only() -> None:  # R53: memory divides
    room = Room(3)
    train = case()
    shared(train, room)
    ranges = row_ranges(N, 3)
    assert [first for first, _ in ranges] == [0, 30720, 46080] and ranges[-1][1] == N
    for shard, (first, end) in zip(room.shards, ranges, strict=True):
        rows = shard._held["train"].rows
        assert np.array_equal(rows.x, train.x[first:end]) and np.array_equal(rows.y, train.y[first:end])


def test_dropped_rows_are_gone_and_a_new_draw_replaces_the_old() -> None:
    room = Room(2)
    first = shared(case(900), room)
    second = shared(case(20_000), room)
    assert second.digest(1) == case(20_000).digest(1)
    second.drop()
    assert not any(shard._held for shard in room.shards)
    assert first.n_samples == 900


def test_the_identity_of_rows_is_asked_for_once() -> None:  # R37: within an iteration nobody may be there to ask
    x, y = np.zeros((10, 1), np.float32), np.zeros(10, np.uint8)
    room = Room(2)
    samples = SharedSamples(room, "rows", 10, 1, has_gradient=False)
    samples.put(x, y, None)
    digest, room.shards = samples.digest(1), []
    assert samples.digest(1) == digest == Samples(x, y, None).digest(1)


def test_prox_newton_is_refused_by_name() -> None:
    rows = shared(case(900), Room(2))
    with pytest.raises(ArgumentError, match="solver: got solver 'prox_newton' on 'cpu'; accepted: 'ista' or 'fista'"):
        grid(solver="prox_newton").fit_samples(lambda epoch: rows)
    solver = solver_cases.make(solver_cases.samples(100, 2), "prox_newton")
    with pytest.raises(ArgumentError, match="prox_newton"):
        solver.gradient_points()


def test_bad_rows_are_refused_with_their_place() -> None:
    room = Room(2)
    rows = SharedSamples(room, "train", 10, 2, False)
    x, y = np.zeros((6, 2), np.float32), np.zeros(6, np.uint8)
    rows.put(x[:4], y[:4], None)
    x[1, 1] = np.nan
    with pytest.raises(ArgumentError, match=r"x: got 1 NaN or infinite values, the first at \[5, 1\]"):
        rows.put(x, y, None)
    with pytest.raises(ArgumentError, match="got 4 rows; accepted: 10"):
        rows.standardise(None)
    for bad in ((x[:, :1], y, None), (np.zeros((7, 2), np.float32), np.zeros(7, np.uint8), None), (x, y, x)):
        with pytest.raises(ArgumentError, match="accepted: 10 rows of 2 columns"):
            rows.put(*bad)
    with pytest.raises(ArgumentError, match="y: got class sizes"):
        single = shared(Samples(x[:1], y[:1], None), room)
        grid().fit_samples(lambda epoch: single)


def test_samples_that_cut_a_task_are_refused() -> None:
    x = np.zeros((100, 2), np.float32)
    with pytest.raises(ArgumentError, match="samples 5 to 105 of 50000, which cut a task in two"):
        _core.prox_column_sums(x, None, 5, 50_000)
    with pytest.raises(ArgumentError, match="first: got 100 samples from 1"):
        _core.prox_column_sums(x, None, 1, 100)
    with pytest.raises(ArgumentError, match="n_samples"):
        _core.prox_tasks(0)
    with pytest.raises(ArgumentError, match="centre"):
        _core.prox_column_sums(x, [0.0], 0, 100)


def test_channels_are_chosen_alike_from_volumes_one_by_one() -> None:  # R08
    samples = case(20_000, 5)
    x = samples.x
    x[:, 4] = 2 * x[:, 3]
    names = [f"f{i}" for i in range(5)]
    whole = select_features(x, names, y=samples.y, top_k=3)

    def parts() -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for start in range(0, 20_000, 3001):
            yield x[start : start + 3001], samples.y[start : start + 3001]

    assert select_features_of(parts, names, top_k=3) == whole
    assert len(whole.dropped) == 2
    with pytest.raises(ArgumentError, match="centre"):
        _core.feature_moment_sums(x, [0.0])
