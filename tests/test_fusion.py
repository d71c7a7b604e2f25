"""Student and another model as one probability (R25)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vesu.baselines import score as nx46_score
from vesu.distill.fusion import WEIGHTS, FusionChoice, choose_weight, fuse, surface_f_beta
from vesu.errors import ArgumentError

Array = NDArray[Any]
SHAPE = (4, 12, 12)


def sheet(row: int = 5) -> NDArray[np.uint8]:
    label = np.zeros(SHAPE, np.uint8)
    label[:, row] = 1
    return label


def seen(label: Array, noise: float, seed: int) -> NDArray[np.float32]:
    """A model's probability: right but for noise."""
    values = 0.2 + 0.6 * (label == 1) + np.random.default_rng(seed).normal(0, noise, label.shape)
    return np.clip(values, 0, 1).astype(np.float32)


def pairs_of(noise: tuple[float, float], n: int = 1) -> tuple[list[tuple[Array, Array]], list[Array]]:
    labels = [sheet(3 + i) for i in range(n)]
    return [(seen(label, noise[0], 2 * i), seen(label, noise[1], 2 * i + 1)) for i, label in enumerate(labels)], labels


def slow_f_beta(probability: Array, label: Array, beta: float = 0.5) -> float:
    """Every distinct value as threshold, counted with loops' clarity."""
    best = 0.0
    for threshold in [*np.unique(probability[label != 2]), 2.0]:
        mask = probability >= threshold
        tp, fp, fn = ((mask & (label == 1)).sum(), (mask & (label == 0)).sum(), (~mask & (label == 1)).sum())
        whole = (1 + beta**2) * tp + beta**2 * fn + fp
        best = max(best, (1 + beta**2) * tp / whole if whole else 1.0)
    return float(best)


@given(
    weight=st.floats(0, 1),
    values=st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_fusion_is_the_convex_combination(weight: float, values: list[tuple[float, float]]) -> None:  # R25
    student, other = (np.array([[[pair[i] for pair in values]]], np.float32) for i in (0, 1))
    fused = fuse(student, other, weight)
    assert fused.dtype == np.float32 and fused.min() >= 0 and fused.max() <= 1
    expected = weight * student.astype(np.float64) + (1 - weight) * other.astype(np.float64)
    np.testing.assert_allclose(fused, expected, atol=2e-7)
    if weight == 0 or weight == 1:
        np.testing.assert_array_equal(fused, student if weight else other)


def test_fusion_gives_new_arrays_and_certainty_stays_certain() -> None:  # R25
    ones = np.ones(SHAPE, np.float32)
    for weight in np.linspace(0, 1, 101):
        fused = fuse(ones, ones, weight)
        assert fused.max() <= 1 and fused is not ones and not np.shares_memory(fused, ones)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_the_default_objective_is_that_of_a_slow_reference(seed: int, beta: float) -> None:  # R25
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array([0, 0, 0, 1, 2], np.uint8), SHAPE)
    probability = (rng.integers(0, 4097, SHAPE) / 4096).astype(np.float32)  # on the bins' edges: no rounding
    assert surface_f_beta(probability, label, beta) == pytest.approx(slow_f_beta(probability, label, beta), abs=1e-12)
    assert surface_f_beta(probability, np.where(label == 1, 0, label).astype(np.uint8)) == 1


def test_the_better_model_alone_wins_where_the_other_adds_nothing() -> None:  # R25
    label = sheet()
    perfect, flat = (label == 1).astype(np.float32), np.full(SHAPE, 0.5, np.float32)
    noise = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32)
    assert choose_weight([(noise, perfect)], [label]).weight == 0
    assert choose_weight([(perfect, noise)], [label], weights=[0.0, 1.0]).weight == 1
    assert choose_weight([(flat, perfect)], [label]).weight == 0  # every weight but 1 is as good: the simplest
    assert choose_weight([(perfect, flat)], [label]).weight == 1  # every weight but 0: the student alone


def test_models_that_err_differently_are_mixed_and_the_mixture_pays() -> None:  # R25
    pairs, labels = pairs_of((0.25, 0.25), n=3)
    choice = choose_weight(pairs, labels)
    assert 0 < choice.weight < 1
    means = np.mean(choice.scores, axis=1)
    assert choice.score > max(means[0], means[-1]) + 0.02
    assert choice.held_out_score is not None and choice.held_out_score > max(means[0], means[-1])
    assert len(choice.held_out_weights) == 3 and set(choice.held_out_weights) <= set(WEIGHTS)
    slow = [np.mean([slow_score(pair, label, w) for pair, label in zip(pairs, labels, strict=True)]) for w in WEIGHTS]
    np.testing.assert_allclose(means, slow, atol=1e-12)


def slow_score(pair: tuple[Array, Array], label: Array, weight: float) -> float:
    return surface_f_beta(fuse(*pair, weight), label)


def scripted(table: list[list[float]]) -> tuple[Callable[[Array, Array], float], list[Any], list[Array]]:
    """An objective that gives these scores, weights x volumes, and the pairs and labels to call it with."""
    n_weights, n_volumes = len(table), len(table[0])
    student, other = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    labels = [np.full((1, 1, 1), 1, np.uint8) for _ in range(n_volumes)]
    places = {id(label): i for i, label in enumerate(labels)}

    def objective(probability: Array, label: Array) -> float:
        return table[round(float(probability[0, 0, 0]) * (n_weights - 1))][places[id(label)]]

    return objective, [(student, other)] * n_volumes, labels


def chosen(table: list[list[float]], tolerance: float = 1e-3) -> FusionChoice:
    objective, pairs, labels = scripted(table)
    weights = np.linspace(0, 1, len(table)).tolist()
    return choose_weight(pairs, labels, objective, weights=weights, tolerance=tolerance)


def test_ties_go_to_the_simpler_one() -> None:  # R25
    assert chosen([[0.5], [0.5], [0.5]]).weight == 0
    assert chosen([[0.4], [0.5], [0.5]]).weight == 1
    assert chosen([[0.1], [0.5], [0.5], [0.1]]).weight == pytest.approx(1 / 3)
    assert chosen([[0.5], [0.5005], [0.1]]).weight == 0  # within the tolerance
    assert chosen([[0.5], [0.5005], [0.1]], tolerance=0).weight == 0.5


def test_a_mixture_must_pay_on_volumes_that_it_was_not_chosen_on() -> None:  # R25
    # In-sample the mixtures win on the mean, but each volume wants another one and dislikes its neighbour's.
    fickle = chosen([[0.5, 0.5], [0.9, 0.2], [0.2, 0.9], [0.4, 0.4]])
    assert fickle.held_out_weights == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert fickle.held_out_score == pytest.approx(0.2)
    assert fickle.weight == 0 and fickle.score == 0.5 and "no mixture pays" in fickle.reason
    steady = chosen([[0.5, 0.5], [0.9, 0.8], [0.2, 0.3], [0.4, 0.4]])
    assert steady.weight == pytest.approx(1 / 3) and steady.held_out_score == pytest.approx(0.85)
    student_alone = chosen([[0.3, 0.3], [0.9, 0.2], [0.2, 0.9], [0.4, 0.4]])
    assert student_alone.weight == 1


def test_a_weight_that_was_given_is_kept() -> None:  # R25
    given = choose_weight(*pairs_of((0.25, 0.25), n=2), weights=[0.3])
    assert given.weight == 0.3 and given.held_out_weights == (0.3, 0.3)


def test_unlabelled_voxels_have_no_influence() -> None:  # R25: label 2 is never scored
    pairs, labels = pairs_of((0.3, 0.3), n=2)
    unlabelled = [label.copy() for label in labels]
    for label in unlabelled:
        label[0] = 2
    spoiled = [(student.copy(), other.copy()) for student, other in pairs]
    for student, other in spoiled:
        student[0], other[0] = 1, 0.5
    cut = [tuple(each[1:] for each in pair) for pair in pairs]
    expected = choose_weight(cut, [label[1:] for label in labels])
    assert choose_weight(spoiled, unlabelled) == expected
    assert choose_weight(spoiled, labels) != expected


def test_nx46_is_fused_like_the_ensemble() -> None:  # R25, R32
    label = sheet()
    volume = (60 + 120 * (label == 1) + np.random.default_rng(1).normal(0, 25, SHAPE)).clip(0, 255).astype(np.uint8)
    other = nx46_score(volume, "nx46")
    student = seen(label, 0.3, 3)
    choice = choose_weight([(student, other)], [label])
    assert choice.weight > 0 and choice.score >= surface_f_beta(other, label)
    assert surface_f_beta(fuse(student, other, choice.weight), label) == choice.score


def test_the_choice_is_deterministic_and_an_event(monkeypatch: pytest.MonkeyPatch) -> None:  # R25, R54
    pairs, labels = pairs_of((0.2, 0.3), n=2)
    events: list[tuple[str, Any]] = []
    polled: list[int] = []
    first = choose_weight(
        pairs, labels, emit=lambda name, fields: events.append((name, dict(fields))), poll=lambda: polled.append(1)
    )
    assert first == choose_weight(pairs, labels)
    assert events == [("FUSION_WEIGHT_CHOSEN", first.to_json())] and len(polled) == len(WEIGHTS) * 2


def test_a_poll_that_raises_ends_the_choice() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_weight(*pairs_of((0.2, 0.2)), poll=stop)


good = np.full((1, 2, 2), 0.5, np.float32)


@pytest.mark.parametrize(
    ("student", "other", "weight", "said"),
    [
        (good, good, 1.1, "weight: got 1.1"),
        (good, good, float("nan"), "weight: got nan"),
        (good, good, True, "weight: got True"),
        (good.astype(np.float64), good, 0.5, "student: got float64"),
        (good, good[0], 0.5, "other: got float32 \\(2, 2\\)"),
        (good, good[:, :1], 0.5, "other: got shape"),
        (good, good * 3, 0.5, "other: got NaN or values outside"),
        (good * np.float32("nan"), good, 0.5, "student: got NaN"),
        (good[:0], good, 0.5, "student: got float32 \\(0"),
        (None, good, 0.5, "student: got NoneType"),
    ],
)
def test_fuse_refuses(student: Any, other: Any, weight: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        fuse(student, other, weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": [], "labels": []}, "labels: got 0 for 0 pairs"),
        ({"labels": []}, "labels: got 0 for 1 pairs"),
        ({"labels": [np.full((1, 2, 2), 3, np.uint8)]}, "labels\\[0\\]: got other values"),
        ({"labels": [np.zeros((1, 2, 2), np.int64)]}, "labels\\[0\\]: got other values"),
        ({"labels": [np.zeros((1, 2, 3), np.uint8)]}, "pairs\\[0\\]: got shapes"),
        ({"pairs": [(good, good * 9)]}, "pairs\\[0\\]\\[1\\]: got NaN or values"),
        ({"weights": []}, "weights: got"),
        ({"weights": [0.5, 0.5]}, "weights: got"),
        ({"weights": [0.5, 1.5]}, "weights: got"),
        ({"tolerance": float("nan")}, "tolerance: got nan"),
        ({"objective": lambda p, y: float("nan")}, "objective: got nan"),
        ({"objective": lambda p, y: None}, "objective: got None"),
    ],
)
def test_choose_weight_refuses(changes: dict[str, Any], said: str) -> None:
    given = {"pairs": [(good, good)], "labels": [np.zeros((1, 2, 2), np.uint8)], **changes}
    with pytest.raises(ArgumentError, match=said):
        choose_weight(given.pop("pairs"), given.pop("labels"), given.pop("objective", None), **given)
