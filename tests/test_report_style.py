"""Whether the page can be read by everyone: contrast, keyboard, screen readers, paper."""

import itertools
import re
from importlib import resources
from pathlib import Path

import pytest

from report_page import Page, light_fixture, made_fixture, page_fixture  # noqa: F401 (found by name)
from vesu.report.canvas import VARIABLES

STYLE = resources.files("vesu.report").joinpath("style.css").read_text(encoding="utf-8")
SCHEMES = dict(zip(("light", "dark"), re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2], strict=True))
WORDS_ON = [
    ("ink", "page"), ("ink", "card"), ("ink", "sunk"), ("soft", "page"), ("soft", "card"), ("soft", "sunk"),
    ("accent", "page"), ("accent", "card"), ("second", "card"), ("good", "page"), ("warn", "page"), ("bad", "page"),
    ("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"),
]  # fmt: skip


def luminance(colour: str) -> float:
    """As WCAG 2 has it."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("words", "ground"), WORDS_ON)
def test_words_stand_out_from_their_ground(scheme: str, words: str, ground: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", SCHEMES[scheme]))
    assert contrast(colours[words], colours[ground]) >= 4.5, (scheme, words, ground)
    assert set(VARIABLES.values()) <= set(colours)  # what the charts are painted with


def test_every_table_that_scrolls_is_reached_by_the_keyboard(page: Page) -> None:
    frames = [div for div in page.all("div") if "scroll" in (div.get("class") or "").split()]
    assert len(frames) > 8
    for frame in frames:
        assert frame["tabindex"] == "0" and frame["role"] == "region" and frame["aria-label"], frame
    assert all(pre.get("tabindex") == "0" for pre in page.all("pre"))


def test_headings_go_down_one_step_at_a_time_and_sections_have_names(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))
    assert {(link["href"] or "")[1:] for link in page.all("a")} <= set(ids)


def test_pictures_charts_and_columns_say_what_they_are(page: Page) -> None:
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    assert all(len(svg["aria-label"] or "") > 20 for svg in page.all("svg") if svg.get("role") == "img")
    heads = page.all("th")
    named = [head for head in heads if head.get("scope") in ("col", "row")]
    assert len(heads) - len(named) == 1  # the empty corner of the table of scores


def test_paper_is_light_and_whole() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in STYLE  # so that a dark screen prints light
    paper = STYLE.split("@media print")[1]
    assert "max-height: none" in paper and "nav" in paper and "details-content" in paper


def test_what_a_style_names_is_on_some_page() -> None:
    folder = resources.files("vesu.report").joinpath("templates")
    written = "\n".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    written += "\n".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].glob("python/vesu/report/*.py")
    )
    rules = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", STYLE, flags=re.DOTALL)
    names = set(re.findall(r"\.([a-z]+)", rules))
    assert len(names) > 30
    assert {name for name in names if not re.search(rf"\b{name}\b", written)} == set()
