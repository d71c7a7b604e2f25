"""The one runner of ablations: verdicts, the file of scores, how a table is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from vesu.ablation import AblationTable, ScoreFile, leave_one_out
from vesu.distill.ablation import leave_one_teacher_out
from vesu.errors import ArgumentError, FormatError
from vesu.ledger import canonical_json
from vesu.run.ablations.page import page

WORTH = {"good": 0.1, "idle": 0.0, "bad": -0.1}
VOLUMES = ("v1", "v2", "v3")


def score(kept: tuple[str, ...], seed: int) -> dict[str, float]:
    """Each thing adds what it is worth; one that is moody helps with one seed and harms with the next."""
    worth = sum(WORTH.get(name, 0) for name in kept) + 0.2 * (-1) ** seed * ("moody" in kept)
    return {volume: 0.5 + 0.02 * i + 0.03 * seed + worth for i, volume in enumerate(VOLUMES)}


def tricks(seeds: int = 3, **how: Any) -> AblationTable:
    return leave_one_out([*WORTH, "moody"], range(seeds), score, kind="trick", min_seeds=3, **how)


def test_what_pays_what_harms_and_what_does_neither() -> None:  # R10
    table = tricks()
    assert {row.name: row.verdict for row in table.rows} == {
        "good": "pays",
        "idle": "neutral",
        "bad": "harms",
        "moody": "neutral",  # the largest mean of all counts for nothing
    }
    assert table.kept == ("good",) and table.harmful == ("bad",) and table.weakest == "bad"
    assert {row.name: row.gain.mean for row in table.rows} == pytest.approx({**WORTH, "moody": 0.2 / 3}, abs=1e-12)
    assert list(table.full) == [0, 1, 2]


def test_two_seeds_decide_nothing_where_three_are_asked_for() -> None:  # R10, R43
    assert {row.verdict for row in tricks(seeds=2).rows} == {"neutral"}


def test_a_difference_that_is_too_small_is_none_either_way() -> None:  # R10
    assert {row.verdict for row in tricks(min_gain=0.11).rows} == {"neutral"}
    small = tricks(min_gain=0.09)
    assert (small.kept, small.harmful) == (("good",), ("bad",))


def test_both_verdicts_follow_the_same_rule() -> None:  # R10
    """Turned round, what paid harms: the score of a set is that of the things that are not in it."""

    def turned(kept: tuple[str, ...], seed: int) -> dict[str, float]:
        return {volume: 1 - value for volume, value in score(kept, seed).items()}

    table = leave_one_out([*WORTH, "moody"], range(3), turned, min_seeds=3)
    assert {row.name: row.verdict for row in table.rows} == {
        "good": "harms",
        "idle": "neutral",
        "bad": "pays",
        "moody": "neutral",
    }


def test_the_kind_names_events_file_and_table(tmp_path: Path) -> None:  # R10, R54
    events: list[tuple[str, dict[str, Any]]] = []
    path = tmp_path / "scores.json"
    table = tricks(path=path, emit=lambda name, fields: events.append((name, dict(fields))))
    names = ["TRICK_ABLATION_START", *["TRICK_ABLATION_SCORE"] * 15, "TRICK_ABLATION_DONE"]
    assert [name for name, _ in events] == names
    assert events[0][1]["tricks"] == [*WORTH, "moody"] and events[0][1]["scores_to_come"] == 15
    assert events[1][1]["left_out"] == [] and events[2][1]["left_out"] == ["good"]
    assert events[-1][1] == table.to_json() and canonical_json(table.to_json())
    assert [row["trick"] for row in table.to_json()["rows"]] == [*WORTH, "moody"]
    kept = [entry["tricks"] for entry in json.loads(path.read_bytes())["scores"]]
    assert len(kept) == 15 and kept[1] == ["idle", "bad", "moody"]
    with pytest.raises(FormatError, match=r"no scores of an ablation of others"):
        leave_one_out([*WORTH, "moody"], range(3), score, kind="other", path=path)


def test_a_file_of_earlier_teachers_goes_on(tmp_path: Path) -> None:  # R21, R37
    """The format is the one that leave_one_teacher_out has always written."""
    scores = [
        {"teachers": list(kept), "seed": 0, "score": score(kept, 0)}
        for kept in (("good", "idle"), ("idle",), ("good",))
    ]
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps({"format": "vesu-ablation/1", "context": "c", "scores": scores}))
    asked = []

    def counted(kept: tuple[str, ...], seed: int) -> dict[str, float]:
        asked.append(seed)
        return score(kept, seed)

    table = leave_one_teacher_out(["good", "idle"], [0, 1], counted, path=path, context="c")
    assert asked == [1, 1, 1] and table.kept == ("good",)
    assert [row.teacher for row in table.rows] == ["good", "idle"]
    assert table.to_json()["rows"][0]["teacher"] == "good" and table.to_json()["rows"][0]["kept"] is True


def test_a_score_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    known = ScoreFile(path, "trick", "")
    known.add(("a", "b"), 0, 0.5)
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match=r"score: got .*nan.*accepted: finite numbers"):
        known.add(("a",), 0, {"v1": 0.5, "v2": float("nan")})
    assert path.read_bytes() == before and list(known.scores) == [(("a", "b"), 0)]


@pytest.mark.parametrize(("things", "least"), [(["a"], 2), ([], 1), (["a", "a"], 1), ("ab", 1)])
def test_too_few_things_are_refused(things: Any, least: int) -> None:
    with pytest.raises(ArgumentError, match=f"things: got .*accepted: {least} or more, each once"):
        leave_one_out(things, [0, 1], score, least=least)


def test_one_thing_is_enough_where_nothing_is_left_without_it() -> None:
    table = leave_one_out(["good"], [0, 1, 2], score, least=1)
    assert table.kept == ("good",)


def test_the_table_as_text_and_as_a_page() -> None:  # R10
    def flat(kept: tuple[str, ...], seed: int) -> float:
        return 0.125 * len(kept)

    table = leave_one_out(["<b>|", "idle"], [0, 1, 2], flat, kind="ladder_step", min_seeds=3)
    lines = table.to_markdown().splitlines()
    assert lines[0].startswith("| without | seed 0 | seed 1 | seed 2 | mean loss |") and len(lines) == 4
    assert lines[2].startswith("| <b>\\| | +0.1250 |") and lines[2].endswith("| pays |")
    text = page(table, {"measure": "score", "judged": ["<i>"]}, "in & words")
    assert "<b>|" not in text and "&lt;b&gt;|" in text and "&lt;i&gt;" in text and "in &amp; words" in text
    assert "What each ladder step is worth: 2 of 2 pay" in text
    assert "<script" not in text and "http:" not in text and "https:" not in text
    assert text.count('<span class="badge good">pays</span>') == 2
    assert text.count("<circle") == 2 * 4  # a disc for the mean, a ring a seed
