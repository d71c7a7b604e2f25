"""Whole runs with epochs, evolution and growth, on generated volumes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from vesu.ledger import iter_events, verify
from vesu.run.pipeline import RunResult
from vesu.run.plan import candidates_by_epoch, epoch_settings, phase_weights

GROWN = [
    "search.supervised_epochs=3",
    "search.meta_neurons_growth=1",
    "search.stagnation_epochs=1",
    "search.min_delta=0.5",
    "search.mutation_noise=0.4",
]


def run(dataset: Path, out: Path, *overrides: str) -> RunResult:
    config = vesu.load_config(overrides=[*SMALL, *overrides], environment={})
    return vesu.run(dataset, out, config=config, display="none", cache=out.parent / "cache")


@pytest.fixture(scope="module")
def grown(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Three epochs, a meta-neuron more in each, everybody stagnates and mutates."""
    return run(dataset, tmp_path_factory.mktemp("epochs") / "run", *GROWN)


def events(result: RunResult, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(result.folder / "events.jsonl") if event["event"] in names]


def test_every_iteration_of_every_epoch_is_in_the_log(grown: RunResult) -> None:  # R14 R50 R51 R52
    rows = events(grown, "TRAIN_ITERATION")
    wanted = {(e, c, i) for e in range(3) for c in range((9 + e) * 15) for i in range(1, 121)}
    assert {(row["epoch"], row["candidate"], row["iter"]) for row in rows} == wanted and len(rows) == len(wanted)
    assert len(json.loads((grown.folder / "leaderboard.json").read_text())) == 11 * 15


def test_every_epoch_draws_other_voxels_of_the_training_volumes(grown: RunResult) -> None:  # R14 R16
    sampled = events(grown, "VOXELS_SAMPLED")
    (plan,) = events(grown, "TRAIN_COVERAGE_PLAN")
    for epoch, volumes in [
        (0, {*plan["train"], *plan["validation"]}),
        (1, set(plan["train"])),
        (2, set(plan["train"])),
    ]:
        assert {event["volume_id"] for event in sampled if event["epoch"] == epoch} == volumes
    rows = list((grown.folder.parent / "cache").glob("*/x.npy"))
    drawn = [np.load(path, allow_pickle=False) for path in rows]
    assert len(drawn) == 3 * len(plan["train"]) + len(plan["validation"])
    assert len({array.tobytes() for array in drawn}) == len(drawn)


def test_epochs_and_decisions_are_events_in_their_order(grown: RunResult) -> None:  # R14 R15 R52 R54
    starts, ends = events(grown, "EPOCH_START"), events(grown, "EPOCH_END")
    assert [event["epoch"] for event in starts] == [event["epoch"] for event in ends] == [0, 1, 2]
    assert [event["meta_neurons"] for event in starts] == [9, 10, 11]
    assert [event["after"] for event in events(grown, "META_NEURONS_GROWN")] == [10, 11]
    applied = events(grown, "MUTATION_APPLIED")
    judged = events(grown, "MUTATION_KEPT", "MUTATION_ROLLED_BACK")
    assert applied and len(applied) == len(judged)
    assert events(grown, "LEARNING_RATE_ADAPTED")
    (pruned,) = events(grown, "WINNER_PRUNED", "WINNER_PRUNE_REJECTED")
    (done,) = events(grown, "SEARCH_DONE")
    assert ends[-1]["best_objective"] == pruned["objective_before"]
    if pruned["event"] == "WINNER_PRUNED":
        assert done["best"]["objective"] == pruned["objective_after"] <= pruned["objective_before"]
    assert (done["epochs"], done["meta_neurons"], done["candidates"], done["device"]) == (3, 11, 165, "cpu")
    assert grown.summary["search"]["solver"] == "ista"


def test_progress_stays_true_over_epochs_that_grow(grown: RunResult) -> None:  # R34
    assert not events(grown, "PROGRESS_INTEGRITY_ALERT")
    cursors = [event["cursor"] for event in events(grown, "TRAIN_CURSOR")]
    done = [cursor["done"] for cursor in cursors]
    assert done == sorted(done) and cursors[-1]["done"] == cursors[-1]["total"] == 120 * 15 * (9 + 10 + 11)
    assert {(cursor["epoch"], cursor["candidate_total"]) for cursor in cursors} == {(0, 135), (1, 150), (2, 165)}


def test_the_run_is_whole(grown: RunResult, dataset: Path) -> None:  # R38
    assert verify(grown.folder / "events.jsonl").root == grown.summary["ledger"]["root"]
    assert grown.report is not None
    assert len(vesu.check_submission(grown.folder / "submission.zip", dataset / "test_images").members) == 2


def test_the_same_run_again_on_one_thread_and_without_cache(grown: RunResult, dataset: Path, tmp_path: Path) -> None:
    # R09 R15: every decision and the masks, bit for bit
    again = run(dataset, tmp_path / "run", *GROWN, "n_threads=1", "cache_gib=0")
    assert again.submission.sha256 == grown.submission.sha256
    names = ("LEARNING_RATE_ADAPTED", "MUTATION_APPLIED", "MUTATION_KEPT", "MUTATION_ROLLED_BACK", "EPOCH_END")
    told = [[told_of(event) for event in events(result, *names)] for result in (grown, again)]
    assert told[0] == told[1] and told[0]


def told_of(event: dict[str, Any]) -> dict[str, Any]:
    """The decision without what differs between any two runs."""
    wanted = ("event", "epoch", "candidate", "before", "after", "objective", "parent_objective", "best_objective")
    return {name: event[name] for name in wanted if name in event}


def test_convergence_ends_a_run_early_and_says_so(dataset: Path, tmp_path: Path) -> None:  # R14 R34
    overrides = ("supervised_epochs=0", "patience=1", "min_delta=0.9", "max_epochs=5", "solver='fista'")
    result = run(dataset, tmp_path / "run", *(f"search.{override}" for override in overrides))
    (done,) = events(result, "EPOCHS_DONE")
    assert done["reason"] == "no better objective for 1 epochs" and done["epochs"] == 2
    assert len(events(result, "TRAIN_ITERATION")) == 2 * 135 * 120
    assert not events(result, "PROGRESS_INTEGRITY_ALERT")
    ends = [event for event in events(result, "PROGRESS_UPDATE") if event["phase"] == "fit"]
    assert ends[-1]["state"] == "finished" and ends[-1]["reason"] == done["reason"]


def test_certified_optima_end_the_iterations(dataset: Path, tmp_path: Path) -> None:  # deliverable 3, R34
    result = run(dataset, tmp_path / "run", "search.solver='prox_newton'", "search.tol=1e-4")
    iterations = {row["iter"] for row in events(result, "TRAIN_ITERATION")}
    assert iterations == set(range(1, max(iterations) + 1)) and max(iterations) < 120
    assert not events(result, "PROGRESS_INTEGRITY_ALERT")


def test_a_gpu_that_is_not_there_is_an_event_of_the_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R27
    monkeypatch.setattr("vesu.grid_search.solver.gpu_problem", lambda: "no GPU today")
    result = run(dataset, tmp_path / "run", "search.device='auto'")
    (fallback,) = events(result, "GPU_FALLBACK_DETECTED")
    assert (fallback["asked"], fallback["used"], fallback["reason"]) == ("auto", "cpu", "no GPU today")
    assert {event["device"] for event in events(result, "PHASE_START") if event["phase"] == "fit"} == {"cpu"}
    with pytest.raises(vesu.VesuError, match="device: got 'cuda', but no GPU today"):
        run(dataset, tmp_path / "run", "search.device='cuda'")


def test_the_plan_knows_every_epoch(dataset: Path) -> None:  # R34
    inventory = vesu.discover(dataset)
    weights = {}
    for epochs in (1, 3, 9):
        config = vesu.load_config(
            overrides=[f"search.supervised_epochs={epochs}", "search.meta_neurons_growth=2"], environment={}
        )
        weights[epochs] = phase_weights(inventory, config, 20)["fit"]
        assert candidates_by_epoch(config.search) == [(9 + 2 * epoch) * 15 for epoch in range(epochs)]
        assert epoch_settings(config.search).meta_neurons_growth == 2
    assert weights[3] == pytest.approx(weights[1] * (9 + 11 + 13) / 9)
    assert weights[9] > weights[1] * sum(range(9, 27, 2)) / 9  # and features are computed again for later draws
