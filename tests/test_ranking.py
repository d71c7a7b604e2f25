"""The search's final ranking by the competition's score itself."""

import dataclasses
import json
import threading
from _thread import interrupt_main
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vesu
from vesu.calibration import ThresholdCalibrator
from vesu.errors import ArgumentError
from vesu.features import FeatureSpec, extract_features
from vesu.grid_search import ElasticNetLogisticGrid, ProxFitModel, ensemble_order
from vesu.grid_search.selection import LEADERBOARD_DTYPE
from vesu.ledger import iter_events
from vesu.run.pipeline import RunResult
from vesu.run.ranking import pool_of, rank_by_score
from vesu.segmentation import SegmentConfig

SPEC = FeatureSpec(scales=(1.0, 2.0))
CHANNELS = (0, 2, 3, 7, 9)
N_CANDIDATES = 5
Volumes = dict[str, tuple[NDArray[Any], NDArray[Any]]]


def config(*changes: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=["segment.dust.min_voxels=20", *changes], environment={})


def sheet(shape: tuple[int, int, int], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A bright sheet in noise, with an unlabelled corner."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 2 : shape[0] // 2 + 3, 2:-2, 2:-2] = 1
    image = rng.normal(90 + 70 * label.astype(np.float32), 18).clip(0, 255).astype(np.uint8)
    label[:3, :3, :3] = 2
    return image, label


@pytest.fixture(scope="module")
def volumes() -> Volumes:
    return {"a": sheet((24, 30, 26), 1), "b": sheet((18, 28, 32), 2)}


def surface_model(coef: NDArray[np.float64], number: int, ladder: SegmentConfig) -> vesu.SurfaceModel:
    """A candidate alone, on standardised features of a typical sheet."""
    values = extract_features(sheet((24, 30, 26), 1)[0], SPEC).values[list(CHANNELS)].reshape(len(CHANNELS), -1)
    prox = ProxFitModel(
        coef=coef[None],
        intercept=np.zeros(1),
        mean=values.mean(axis=1, dtype=np.float64),
        scale=values.std(axis=1, dtype=np.float64) + 1e-3,
        feature_names=tuple(SPEC.names[channel] for channel in CHANNELS),
        threshold=0.5,
        uses_gradient=True,
        candidates=(number,),
    )
    return vesu.SurfaceModel(prox, SPEC, CHANNELS, ladder)


def table(candidates: list[int]) -> NDArray[Any]:
    """Leaderboard rows in this order, one a meta-neuron."""
    rows = np.zeros(len(candidates), LEADERBOARD_DTYPE)
    rows["candidate"], rows["neuron"] = candidates, np.arange(len(candidates))
    rows["rank"], rows["objective"] = np.arange(1, len(candidates) + 1), np.linspace(0.1, 0.2, len(candidates))
    return rows


def candidates(ladder: SegmentConfig) -> tuple[NDArray[Any], list[vesu.SurfaceModel]]:
    """Some that see the sheet more or less, and in the middle one that says the same everywhere."""
    rng = np.random.default_rng(5)
    coefs = rng.normal(0, 0.4, (N_CANDIDATES, 3 * len(CHANNELS)))
    coefs[:, 0] += np.linspace(-1, 3, N_CANDIDATES)
    coefs[2] = 0
    numbers = [40, 7, 33, 12, 101]
    return table(numbers), [surface_model(coef, n, ladder) for coef, n in zip(coefs, numbers, strict=True)]


def slow_reference(
    rows: NDArray[Any], models: list[vesu.SurfaceModel], volumes: Volumes, settings: vesu.RunConfig
) -> list[tuple[int, list[float]]]:
    """Each candidate by itself, on the whole features of each whole volume: its scores, best first."""
    found = []
    for row, model in zip(rows, models, strict=True):
        probabilities = [
            model.prox.predict_volume(extract_features(image, SPEC).values[list(CHANNELS)])[0]
            for image, _ in volumes.values()
        ]
        labels = [label for _, label in volumes.values()]
        spreads = [np.zeros_like(each) for each in probabilities]
        fit = settings.segment.calibration
        ladder = model.segment_config
        if fit.fit and not all(np.ptp(each) == 0 for each in probabilities):
            metric = "f1" if fit.metric == "score" else fit.metric
            calibrator = ThresholdCalibrator(ladder, modes=fit.modes, low_factors=fit.low_factors, metric=metric)
            ladder = calibrator.fit(probabilities, labels, spreads).ladder_
        scores = [
            vesu.score(vesu.segment(probability, ladder, uncertainty=spread).mask, label).score
            for probability, spread, label in zip(probabilities, spreads, labels, strict=True)
        ]
        found.append((-sum(scores) / len(scores), int(row["rank"]), int(row["candidate"]), scores))
    return [(candidate, scores) for _, _, candidate, scores in sorted(found)]


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("segment.calibration.metric=score", 'segment.calibration.modes=["fixed"]'),
        ("segment.calibration.fit=false", "segment.steps=suppress,threshold,dust"),
    ],
)
@pytest.mark.parametrize("max_feature_gib", [6.0, 1e-9])
def test_the_order_is_that_of_a_slow_reference(
    volumes: Volumes, changes: tuple[str, ...], max_feature_gib: float
) -> None:  # R45
    settings = config(
        *changes, f"max_feature_gib={max_feature_gib}"
    )  # the small one: a slice and a candidate at a time
    rows, models = candidates(settings.segment.ladder)
    ranking = rank_by_score(rows, models, volumes, settings)
    expected = slow_reference(rows, models, volumes, settings)
    assert [(each.candidate, list(each.by_volume)) for each in ranking.candidates] == expected
    assert ranking.order == tuple(candidate for candidate, _ in expected) != tuple(rows["candidate"].tolist())
    assert len({each.score for each in ranking.candidates}) >= N_CANDIDATES - 1
    assert ranking.volumes == ("a", "b")
    for place, each in enumerate(ranking.candidates, start=1):
        row = rows[rows["candidate"] == each.candidate][0]
        assert (each.score_rank, each.objective_rank) == (place, row["rank"])
        assert each.score == pytest.approx(np.mean(each.by_volume), abs=1e-15)
        assert each.objective == row["objective"]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_ranking_does_not_depend_on_threads(volumes: Volumes, n_threads: int) -> None:  # R45 R10
    settings = config()
    rows, models = candidates(settings.segment.ladder)
    found = rank_by_score(rows, models, volumes, dataclasses.replace(settings, n_threads=n_threads))
    assert found == rank_by_score(rows, models, volumes, settings)


def test_the_better_score_wins_over_the_better_objective(volumes: Volumes) -> None:  # R45
    settings = config()
    seeing, blind = np.zeros(3 * len(CHANNELS)), np.zeros(3 * len(CHANNELS))
    seeing[0], blind[1] = 3.0, 1.0
    rows = table([8, 3])  # the objective prefers the blind one
    models = [surface_model(coef, n, settings.segment.ladder) for coef, n in ((blind, 8), (seeing, 3))]
    seen: list[tuple[int, str]] = []
    ranking = rank_by_score(rows, models, volumes, settings, lambda *each: seen.append(each))
    assert ranking.order == (3, 8)
    assert ranking.candidates[0].score > ranking.candidates[1].score + 0.1
    assert seen == [(8, "a"), (8, "b"), (3, "a"), (3, "b")]
    summary = ranking.summary()
    assert (summary["best_by_score"]["candidate"], summary["best_by_objective"]["candidate"]) == (3, 8)


def test_of_equals_the_objectives_choice_comes_first(volumes: Volumes) -> None:  # R45
    settings = config()
    coef = np.zeros(3 * len(CHANNELS))
    coef[0] = 2.0
    models = [surface_model(coef, number, settings.segment.ladder) for number in (9, 4, 6)]
    assert rank_by_score(table([9, 4, 6]), models, volumes, settings).order == (9, 4, 6)


def test_it_can_be_interrupted(volumes: Volumes) -> None:  # R45
    settings = config()
    rows, models = candidates(settings.segment.ladder)
    seen: list[tuple[int, str]] = []

    def on_mask(candidate: int, name: str) -> None:
        seen.append((candidate, name))
        if len(seen) == 3:  # Ctrl-C from outside, while a kernel of the next mask runs or is about to
            threading.Timer(0.002, interrupt_main).start()

    with pytest.raises(KeyboardInterrupt):
        rank_by_score(np.tile(rows, 40), models * 40, volumes, settings, on_mask)
    assert 3 <= len(seen) < 40 * 2 * N_CANDIDATES


def fitted_grid() -> ElasticNetLogisticGrid:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 4)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=800) > 0).astype(np.uint8)
    return ElasticNetLogisticGrid(max_iter=5).fit(x, y)


def test_the_ensemble_takes_an_order_of_its_own() -> None:  # R45 R17
    grid = fitted_grid()
    board = grid.leaderboard_
    everyone = board["candidate"].tolist()
    assert grid.model(9, order=everyone).candidates == grid.model(9).candidates
    backwards = everyone[::-1]
    neuron_of = {int(row["candidate"]): int(row["neuron"]) for row in board}
    chosen = grid.model(12, order=backwards).candidates
    firsts = [next(c for c in backwards if neuron_of[c] == neuron) for neuron in range(9)]
    assert sorted(chosen[:9], key=backwards.index) == sorted(firsts, key=backwards.index) == list(chosen[:9])
    assert list(chosen[9:]) == [c for c in backwards if c not in firsts][:3]
    pair = grid.model(2, order=backwards[:2])
    np.testing.assert_array_equal(pair.coef, grid.search_.params[list(pair.candidates), :-1])
    assert len(grid.model(order=[17]).candidates) == 1


@pytest.mark.parametrize("order", [[], [1, 1], [135], [-1]])
def test_an_order_of_no_candidates_is_refused(order: list[int]) -> None:  # R45
    with pytest.raises(ArgumentError, match="order: got"):
        fitted_grid().model(order=order)


def test_the_pool_holds_the_ensemble_and_no_diverged_candidate() -> None:  # R45 R17
    board = fitted_grid().leaderboard_.copy()
    board["diverged"][-20:] = True
    pool = pool_of(board, vesu.RunConfig().search)
    assert len(pool) == 18 and set(pool["neuron"]) == set(range(9))
    np.testing.assert_array_equal(pool, ensemble_order(board)[:18])
    assert len(pool_of(board, config("search.ranking_pool=135").search)) == len(board) - 20
    assert len(pool_of(board, config("search.ranking_pool=30").search)) == 30


def test_unknown_rankings_and_pools_below_the_ensemble_are_refused() -> None:  # R45
    with pytest.raises(ArgumentError, match=r"search\.ranking: got 'f1'; accepted: 'objective' or 'score'"):
        config("search.ranking=f1")
    with pytest.raises(ArgumentError, match=r"search\.ranking_pool: got 8; accepted: none, or the ensemble's 9"):
        config("search.ranking_pool=8")
    assert config("search.ranking_pool=8", "search.ensemble_size=8").search.ranking_pool == 8
    assert config("search.ranking_pool=none").search.ranking_pool is None


@pytest.fixture(scope="module")
def by_score(
    finished: RunResult, dataset: Path, small_config: vesu.RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> RunResult:
    search = dataclasses.replace(small_config.search, ranking="score", ranking_pool=12)
    settings = dataclasses.replace(small_config, search=search)
    out = tmp_path_factory.mktemp("by_score")
    return vesu.run(dataset, out, config=settings, display="none", cache=finished.folder / "cache")


def named(result: RunResult, name: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(result.folder / "events.jsonl") if event["event"] == name]


def test_a_run_ranks_by_the_score(by_score: RunResult, finished: RunResult, dataset: Path) -> None:  # R45
    stored = json.loads((by_score.folder / "score_ranking.json").read_text())
    (event,) = named(by_score, "CANDIDATES_RANKED_BY_SCORE")
    assert {key: event[key] for key in stored} == stored
    board = json.loads((by_score.folder / "leaderboard.json").read_text())
    assert board == json.loads((finished.folder / "leaderboard.json").read_text())
    rank_of = {row["candidate"]: row["rank"] for row in board}
    rows = stored["candidates"]
    assert len(rows) == 12 and len({row["neuron"] for row in rows}) == 9
    assert [row["score_rank"] for row in rows] == list(range(1, 13))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert all(row["objective_rank"] == rank_of[row["candidate"]] for row in rows)
    assert [row["objective_rank"] for row in rows] != sorted(row["objective_rank"] for row in rows)
    # The ensemble is the best of each meta-neuron in this order.
    model = vesu.SurfaceModel.load(by_score.folder)
    order = [row["candidate"] for row in rows]
    firsts = [next(row["candidate"] for row in rows if row["neuron"] == neuron) for neuron in range(9)]
    assert list(model.prox.candidates) == sorted(firsts, key=order.index)
    # And the scores are those of each candidate alone.
    (volume_id,) = stored["volumes"]
    (pair,) = [pair for pair in vesu.discover(dataset).pairs if pair.volume_id == volume_id]
    image, label = vesu.read_volume(pair.image), vesu.read_volume(pair.label)
    place = list(model.prox.candidates).index(order[0])
    alone = dataclasses.replace(
        model.prox,
        coef=model.prox.coef[[place]],
        intercept=model.prox.intercept[[place]],
        candidates=(order[0],),
    )
    probability = dataclasses.replace(model, prox=alone).predict(image).probability
    settings = vesu.load_config(overrides=["segment.dust.min_voxels=30"], environment={}).segment
    ladder = ThresholdCalibrator(settings.ladder).fit([probability], [label]).ladder_
    assert vesu.score(vesu.segment(probability, ladder).mask, label).score == rows[0]["score"]


def test_the_summary_says_so(by_score: RunResult) -> None:  # R45
    entry = by_score.summary["search"]["ranking"]
    assert (entry["by"], entry["pool"]) == ("score", 12)
    assert entry["best_by_score"]["score"] >= entry["best_by_objective"]["score"]
    assert entry["best_by_objective"]["objective_rank"] == 1 and entry["best_by_score"]["score_rank"] == 1
    shown = [event["global_progress_reel"] for event in named(by_score, "PROGRESS_UPDATE")]
    assert shown == sorted(shown) and shown[-1] == pytest.approx(100)


def test_by_default_the_objective_ranks_as_ever(finished: RunResult) -> None:  # R45
    assert not (finished.folder / "score_ranking.json").exists()
    assert not named(finished, "CANDIDATES_RANKED_BY_SCORE")
    assert "ranking" not in finished.summary["search"]
    board = json.loads((finished.folder / "leaderboard.json").read_text())
    firsts = [next(row["candidate"] for row in board if row["neuron"] == neuron) for neuron in range(9)]
    rank_of = {row["candidate"]: row["rank"] for row in board}
    model = vesu.SurfaceModel.load(finished.folder)
    assert list(model.prox.candidates) == sorted(firsts, key=rank_of.__getitem__)
