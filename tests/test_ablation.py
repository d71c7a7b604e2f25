"""What a teacher is worth, and what is promoted (R21, R26)."""

import itertools
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from vesu.comparison import paired_gain, promote, promote_in_steps
from vesu.distill.ablation import leave_one_teacher_out
from vesu.errors import ArgumentError, FormatError, ResumeIncompatible
from vesu.ledger import canonical_json

TEACHERS = ("strong", "weak", "idle", "harmful", "moody")
SEEDS = (0, 1, 2)
VOLUMES = ("v1", "v2", "v3", "v4")


class Students:
    """Scores of students whose teachers are worth what they are worth; counts what was taught."""

    WORTH: ClassVar = {"strong": 0.1, "weak": 0.01, "idle": 0.0, "harmful": -0.05}

    def __init__(self, fail_after: int | None = None) -> None:
        self.taught: list[tuple[tuple[str, ...], int]] = []
        self.fail_after = fail_after

    def __call__(self, teachers: tuple[str, ...], seed: int) -> dict[str, float]:
        if self.fail_after is not None and len(self.taught) >= self.fail_after:
            raise KeyboardInterrupt
        self.taught.append((teachers, seed))
        worth = sum(self.WORTH.get(name, 0) for name in teachers)
        worth += 0.2 * (-1) ** seed * ("moody" in teachers)  # helps with one seed, harms with the next
        return {volume: 0.5 + 0.02 * i + worth + 0.03 * seed for i, volume in enumerate(VOLUMES)}


def test_a_teacher_is_kept_only_on_a_stable_gain() -> None:  # R21
    students = Students()
    table = leave_one_teacher_out(TEACHERS, SEEDS, students)
    assert table.kept == ("strong", "weak") and table.weakest == "harmful"
    gains = {row.teacher: row.gain.mean for row in table.rows}
    for name, worth in Students.WORTH.items():
        assert gains[name] == pytest.approx(worth, abs=1e-12)
    assert gains["moody"] == pytest.approx(0.2 / 3, abs=1e-12)  # the larger mean, and still not kept
    assert len(students.taught) == len(set(students.taught)) == (len(TEACHERS) + 1) * len(SEEDS)
    assert {seed: pytest.approx(score) for seed, score in table.full.items()} == {
        seed: float(np.mean(list(Students()(TEACHERS, seed).values()))) for seed in SEEDS
    }


def test_each_student_but_the_full_ones_lacks_one_teacher() -> None:  # R21
    students = Students()
    leave_one_teacher_out(TEACHERS, (3, 5), students)
    for seed in (3, 5):
        subsets = [set(teachers) for teachers, s in students.taught if s == seed]
        assert subsets[0] == set(TEACHERS)
        assert [set(TEACHERS) - subset for subset in subsets[1:]] == [{name} for name in TEACHERS]


def test_twins_cover_for_each_other_and_the_weakest_goes_first() -> None:  # R21
    def score(teachers: tuple[str, ...], seed: int) -> float:
        return 0.5 + 0.1 * bool({"twin a", "twin b"} & set(teachers)) + 0.1 * ("other" in teachers)

    table = leave_one_teacher_out(["twin a", "twin b", "other"], [0, 1], score)
    assert table.kept == ("other",) and table.weakest == "twin a"
    again = leave_one_teacher_out(["twin b", "other"], [0, 1], score)
    assert again.kept == ("twin b", "other") and again.weakest is None


@pytest.mark.parametrize("cut", range(0, 12, 3))
def test_an_ablation_goes_on_where_it_was_cut(cut: int, tmp_path: Path) -> None:  # R21, R37
    whole = leave_one_teacher_out(TEACHERS, (0, 1), Students())
    path = tmp_path / "ablation.json"
    first, second = Students(fail_after=cut), Students()
    with pytest.raises(KeyboardInterrupt):
        leave_one_teacher_out(TEACHERS, (0, 1), first, path=path, context="c")
    table = leave_one_teacher_out(TEACHERS, (0, 1), second, path=path, context="c")
    assert table == whole
    assert not set(first.taught) & set(second.taught) and len(first.taught + second.taught) == 12
    third = Students()
    assert leave_one_teacher_out(TEACHERS, (0, 1), third, path=path, context="c") == whole and not third.taught
    more = Students()  # another seed asks for its own students only
    leave_one_teacher_out(TEACHERS, (0, 1, 2), more, path=path, context="c")
    assert {seed for _, seed in more.taught} == {2}


def test_a_poll_that_raises_ends_it_between_two_students(tmp_path: Path) -> None:  # R21
    polls = itertools.count()

    def poll() -> None:
        if next(polls) == 4:
            raise KeyboardInterrupt

    students = Students()
    with pytest.raises(KeyboardInterrupt):
        leave_one_teacher_out(TEACHERS, (0, 1), students, path=tmp_path / "a.json", poll=poll)
    assert len(students.taught) == len(json.loads((tmp_path / "a.json").read_bytes())["scores"]) == 4


def test_scores_of_another_context_are_refused(tmp_path: Path) -> None:  # R37
    path = tmp_path / "a.json"
    leave_one_teacher_out(TEACHERS, (0, 1), Students(), path=path, context="steps=10")
    with pytest.raises(ResumeIncompatible, match=r"field context: .*'steps=10', this ablation has 'steps=20'"):
        leave_one_teacher_out(TEACHERS, (0, 1), Students(), path=path, context="steps=20")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format":"vesu-ablation/1","context":"","scores":[{"teachers":["a"],"seed":0}]}',
        b'{"format":"vesu-ablation/1","context":"","scores":[{"teachers":["a"],"seed":0,"score":0.5}]}',
        b'{"format":"vesu-ablation/1","context":"","scores":3}',
        b'{"format":"other","context":"","scores":[]}',
    ],
)
def test_a_file_that_is_none_of_an_ablation_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.json"):
        leave_one_teacher_out(TEACHERS, (0, 1), Students(), path=path)
    assert path.read_bytes() == content


def test_an_ablation_is_told_in_events(tmp_path: Path) -> None:  # R21, R54
    events: list[tuple[str, dict[str, Any]]] = []
    table = leave_one_teacher_out(
        TEACHERS, (0, 1), Students(), emit=lambda name, fields: events.append((name, dict(fields)))
    )
    assert [name for name, _ in events] == [
        "TEACHER_ABLATION_START",
        *["TEACHER_ABLATION_SCORE"] * 12,
        "TEACHER_ABLATION_DONE",
    ]
    assert events[0][1]["scores_to_come"] == 12
    assert [fields["left_out"] for _, fields in events[1:7]] == [[], *([name] for name in TEACHERS)]
    assert events[-1][1] == table.to_json() and canonical_json(table.to_json())
    for _, fields in events:
        canonical_json(fields)


def test_the_table_is_shown_in_a_notebook() -> None:
    def score(teachers: tuple[str, ...], seed: int) -> float:
        return 0.125 * len(teachers)

    table = leave_one_teacher_out(["<b>", "idle"], [0, 1], score)
    page = table._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("<tr>") == 3 and page.count("+0.1250") == 2 * 5


@pytest.mark.parametrize(
    ("teachers", "seeds", "said"),
    [
        (["a"], [0, 1], "teachers: got"),
        (["a", "a", "b"], [0, 1], "teachers: got"),
        ("abc", [0, 1], "teachers: got"),
        (["a", "b"], [0], "seeds: got"),
        (["a", "b"], [0, 0], "seeds: got"),
    ],
)
def test_two_teachers_and_two_seeds_are_the_least(teachers: Any, seeds: Any, said: str) -> None:  # R21
    with pytest.raises(ArgumentError, match=said):
        leave_one_teacher_out(teachers, seeds, Students())


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ArgumentError, match="accepted: finite numbers"):
        leave_one_teacher_out(["a", "b"], [0, 1], lambda teachers, seed: float("nan"))


# ---- paired gains and promotion


def table(seeds: int, volumes: int, seed: int, gain: float, noise: float) -> tuple[Any, Any]:
    """Scores of a baseline and of a variant that is so much better, up to noise."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.3, 0.7, (seeds, volumes))
    better = base + gain + rng.normal(0, noise, base.shape)
    return tuple(
        {s: {f"v{v}": float(values[s, v]) for v in range(volumes)} for s in range(seeds)} for values in (base, better)
    )


def test_the_interval_of_all_resamples_of_a_small_table() -> None:  # R26
    """Two seeds and two volumes have sixteen resamples: the interval's ends are quantiles of those."""
    d = np.array([[0.1, 0.4], [0.2, -0.3]])
    baseline = {0: {"a": 0.0, "b": 0.0}, 1: {"a": 0.0, "b": 0.0}}
    variant = {s: {"a": d[s, 0], "b": d[s, 1]} for s in (0, 1)}
    means = [d[np.ix_(rows, columns)].mean() for rows in pairs() for columns in pairs()]
    for confidence in (0.7, 0.8, 0.95):
        gain = paired_gain(baseline, variant, confidence=confidence)
        tail = 50 * (1 - confidence)
        assert (gain.low, gain.high) == pytest.approx(
            tuple(np.percentile(means * 1000, [tail, 100 - tail], method="nearest")), abs=1e-12
        )
        assert gain.mean == pytest.approx(d.mean())


def pairs() -> list[tuple[int, int]]:
    return list(itertools.product((0, 1), repeat=2))


def test_the_interval_is_that_of_a_slow_bootstrap() -> None:  # R26
    baseline, variant = table(3, 5, 1, 0.02, 0.05)
    gain = paired_gain(baseline, variant)
    d = np.array(gain.differences)
    rng = np.random.default_rng(7)
    means = [d[np.ix_(rng.integers(0, 3, 3), rng.integers(0, 5, 5))].mean() for _ in range(4000)]
    assert [gain.low, gain.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.004)
    assert gain.low < gain.mean < gain.high and gain.by_seed == pytest.approx(d.mean(axis=1))
    assert gain == paired_gain(baseline, variant)  # the same bits


def test_promotion_needs_every_seed_and_the_interval() -> None:  # R26
    sure = promote(*table(3, 6, 0, 0.05, 0.01))
    assert sure.promoted and sure.gain.low > 0
    assert not promote(*table(3, 6, 0, 0.05, 0.01), min_seeds=4).promoted
    one_seed = promote({0: 0.1}, {0: 0.9})
    assert not one_seed.promoted and "one seed" in one_seed.reason
    against = promote({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.9, 1: 0.9, 2: 0.49})
    assert not against.promoted and against.gain.mean > 0.2 and "seed 2" in against.reason
    # Every seed gains on the mean, but by one volume alone.
    lucky = promote(
        {s: {"a": 0.5, "b": 0.5, "c": 0.5} for s in (0, 1)}, {s: {"a": 0.9, "b": 0.45, "c": 0.45} for s in (0, 1)}
    )
    assert not lucky.promoted and min(lucky.gain.by_seed) > 0 and "not above 0" in lucky.reason
    equal = promote({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert not equal.promoted


def test_a_gain_below_what_is_worth_it_is_none() -> None:  # R26
    scores = ({0: 0.50, 1: 0.50}, {0: 0.52, 1: 0.53})
    assert promote(*scores).promoted and promote(*scores, min_gain=0.01).promoted
    assert not promote(*scores, min_gain=0.0205).promoted


def test_a_useless_variant_is_rarely_promoted() -> None:  # R26: the rate that the docstring names
    rates = [np.mean([promote(*table(seeds, 1, k, 0.0, 0.1)).promoted for k in range(60)]) for seeds in (2, 5)]
    assert 0.1 < rates[0] < 0.4 and rates[1] < 0.12


def test_a_promotion_is_told() -> None:  # R26, R54
    events: list[tuple[str, Any]] = []
    decision = promote(
        {0: 0.5, 1: 0.5},
        {0: 0.6, 1: 0.6},
        names=("P1", "P2"),
        emit=lambda name, fields: events.append((name, dict(fields))),
    )
    assert events == [("VARIANT_PROMOTION", decision.to_json())]
    assert (decision.baseline, decision.variant) == ("P1", "P2") and canonical_json(decision.to_json())


def test_the_campaign_compares_with_the_best_so_far() -> None:  # R26
    flat = {0: 0.5, 1: 0.5}
    best, decisions = promote_in_steps({"P1": flat, "P2": {0: 0.6, 1: 0.6}, "P3": {0: 0.59, 1: 0.61}})
    assert best == "P2" and [(d.baseline, d.variant, d.promoted) for d in decisions] == [
        ("P1", "P2", True),
        ("P2", "P3", False),
    ]
    assert promote_in_steps({"P1": flat}) == ("P1", ())


@pytest.mark.parametrize(
    ("baseline", "variant", "said"),
    [
        ({}, {0: 1.0}, "baseline: got no scores"),
        ({0: 1.0}, {}, "variant: got no scores"),
        ({0: 1.0}, {1: 1.0}, "variant: got seeds"),
        ({0: {"a": 1.0}}, {0: {"b": 1.0}}, "variant: got seeds .* volumes"),
        ({0: {"a": 1.0}, 1: {"b": 1.0}}, {0: {"a": 1.0}, 1: {"a": 1.0}}, "baseline: got volumes"),
        ({0: {}}, {0: {}}, "baseline: got volumes"),
        ({0: float("inf")}, {0: 1.0}, "baseline: got scores"),
    ],
)
def test_scores_that_do_not_pair_are_refused(baseline: Any, variant: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        paired_gain(baseline, variant)


@pytest.mark.parametrize("confidence", [0, 1, float("nan")])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(ArgumentError, match="confidence: got"):
        paired_gain({0: 1.0}, {0: 1.0}, confidence=confidence)


def test_no_variant_is_refused() -> None:
    with pytest.raises(ArgumentError, match="variants: got none"):
        promote_in_steps({})
