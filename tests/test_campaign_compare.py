"""What a campaign concludes from its runs' figures, and how it shows that (R26, R43)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from report_page import Page
from vesu.campaign import Comparison, Matrix, RunRecord, parse_matrix
from vesu.campaign.compare import compare
from vesu.campaign.markdown import markdown
from vesu.campaign.page import render

VOLUMES = ("v1", "v2", "v3")
NOISE = {0: 0.00, 1: 0.03, 2: -0.02}


def matrix(ids: Sequence[str] = ("base", "good", "idle"), **more: Any) -> Matrix:
    return parse_matrix({"format": "vesu-campaign/1", "name": "t", "runs": [{"id": each} for each in ids], **more})


def record(name: str, seed: int, score: float, volumes: Sequence[str] = VOLUMES, seconds: float = 2.0) -> RunRecord:
    """A run whose score differs from volume to volume."""
    figures = {
        volume: {"score": score + 0.01 * place, "topology": 0.1, "surface": 0.5, "voi": 0.4, "density": 0.05}
        | {"label_density": 0.06}
        for place, volume in enumerate(volumes)
    }
    sealed = {"entries": 1234, "root": "ab" * 32, "submission_sha256": "cd" * 32, "verdict": "GO"}
    return RunRecord(name, seed, "finished", volumes=figures, seconds=seconds, **sealed)


def records(gains: Mapping[str, Mapping[int, float]], volumes: Sequence[str] = VOLUMES) -> list[RunRecord]:
    return [
        record(name, seed, 0.5 + NOISE.get(seed, 0.0) + gain, volumes)
        for name, by_seed in gains.items()
        for seed, gain in by_seed.items()
    ]


def flat(value: float, seeds: Sequence[int] = (0, 1, 2)) -> dict[int, float]:
    return dict.fromkeys(seeds, value)


def decided(found: Comparison) -> dict[str, bool]:
    return {each.variant: each.promoted for each in found.promotions}


GOOD = {"base": flat(0.0), "good": {0: 0.02, 1: 0.03, 2: 0.01}, "idle": {0: 0.02, 1: -0.01, 2: 0.03}}


def test_only_a_stable_gain_is_promoted() -> None:  # R26, R43
    told: list[tuple[str, Mapping[str, Any]]] = []
    found = compare(matrix(), records(GOOD), VOLUMES, emit=lambda name, fields: told.append((name, fields)))
    assert decided(found) == {"good": True, "idle": False}
    assert found.standing == "good"
    assert [(name, fields["variant"], fields["promoted"]) for name, fields in told] == [
        ("VARIANT_PROMOTION", "good", True),
        ("VARIANT_PROMOTION", "idle", False),
    ]
    assert found.gains["good"]["score"].mean == pytest.approx(0.02)
    assert found.gains["good"]["seconds"].mean == found.gains["good"]["density"].mean == 0
    assert found.of("good").spread("score").mean == pytest.approx(0.5 + 0.02 + 0.01 + 0.01 / 3)  # type: ignore[union-attr]


def test_two_seeds_promote_nothing() -> None:  # R43
    two = {name: flat(each[0], (0, 1)) for name, each in GOOD.items()}
    found = compare(matrix(seeds=[0, 1]), records(two), VOLUMES)
    assert decided(found) == {"good": False, "idle": False} and found.standing == "base"
    assert "2 seeds, 3 are needed" in found.promotions[0].reason


def test_a_variant_with_a_failed_run_is_not_promoted() -> None:
    four = matrix(seeds=[0, 1, 2, 3])
    rows = records({name: {**each, 3: 0.02} for name, each in GOOD.items()})
    rows = [RunRecord("good", 3, "failed", "killed by SIGKILL") if (r.id, r.seed) == ("good", 3) else r for r in rows]
    found = compare(four, rows, VOLUMES)
    assert "good" not in decided(found) and found.standing == "base"
    assert found.gains["good"]["score"].seeds == (0, 1, 2)  # what there is, is shown all the same
    assert [(each.id, each.reason) for each in found.failed] == [("good", "killed by SIGKILL")]
    for text in (str(found), markdown(found), found._repr_html_(), json.dumps(found.to_json())):
        assert "killed by SIGKILL" in text


def test_copies_of_one_result_are_no_seeds() -> None:  # R43
    same = [record(name, seed, score, ("v1",)) for name, score in (("base", 0.5), ("good", 0.6)) for seed in range(3)]
    found = compare(matrix(("base", "good")), same, ("v1",))
    assert found.seedless == ("base", "good") and decided(found) == {"good": False}
    assert "seeds change nothing here, and 1 scoring volumes are no sample" in found.promotions[0].reason
    three = [record(name, seed, score) for name, score in (("base", 0.5), ("good", 0.6)) for seed in range(3)]
    assert decided(compare(matrix(("base", "good")), three, VOLUMES)) == {"good": True}


def test_steps_compare_with_the_best_so_far() -> None:  # R26
    gains = {"P1": flat(0.0), "P2": {0: 0.05, 1: 0.04, 2: 0.06}, "P3": {0: 0.03, 1: 0.05, 2: 0.04}}
    found = compare(matrix(("P1", "P2", "P3"), promotion="steps"), records(gains), VOLUMES)
    assert [(each.baseline, each.variant, each.promoted) for each in found.promotions] == [
        ("P1", "P2", True),
        ("P2", "P3", False),
    ]
    assert found.standing == "P2"


def test_nothing_finished_is_said() -> None:
    rows = [RunRecord(name, seed, "missing", "not begun") for name in ("base", "good", "idle") for seed in range(3)]
    for kind in ("baseline", "steps"):
        found = compare(matrix(promotion=kind), rows, VOLUMES)
        assert found.promotions == () and len(found.failed) == 9 and found.label_density is None
        assert "None could be decided" in markdown(found) and "0/9 runs finished" in str(found)


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    rows = records(GOOD)
    rows[-1] = RunRecord("idle", 2, "failed", "<script>alert(1)</script>")
    found = compare(matrix(), rows, VOLUMES)
    path = tmp_path / "page.html"
    path.write_text(render(found, tmp_path), encoding="utf-8")
    page = Page(path)
    assert not page.all("script") and not page.all("link")
    assert all((each["src"] or "").startswith("data:") for each in page.all("img"))
    assert "1 of 9 runs have no score" in page.text and "idle, seed 2: failed: <script>" in page.text
    charts = [each["aria-label"] or "" for each in page.all("svg")]
    assert len(charts) == 4 and any("good +0.0200" in words for words in charts)
    assert "Pictures of the scoring volumes: not recorded" in page.text  # no data lies in this folder
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_name_does_not_break_the_markdown_table() -> None:
    runs = [{"id": "base", "tags": ["a|b\nc"]}, {"id": "good"}]
    found = compare(parse_matrix({"format": "vesu-campaign/1", "runs": runs}), records(GOOD)[:6], VOLUMES)
    rows = [line for line in markdown(found).splitlines() if line.startswith("| `base`")]
    assert len(rows) == 2 and "a\\|b c" in rows[0]
