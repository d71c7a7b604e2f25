"""What the tests of the report share: run folders to read or damage, and a page as a browser sees it."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from make_run_folder import Spec, make_run_folder
from vesu.ledger import LedgerWriter
from vesu.report import write_report


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = make_run_folder(tmp_path_factory.mktemp("made") / "run")
    return folder


@pytest.fixture(scope="module", name="light")
def light_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = Spec(n_volumes=1, shape=(16, 20, 24), neurons=2, iterations=3)
    folder: Path = make_run_folder(tmp_path_factory.mktemp("light") / "run", spec)
    return folder


@pytest.fixture(name="run")
def run_fixture(light: Path, tmp_path: Path) -> Path:
    """A small run folder of the test's own, to damage."""
    return Path(shutil.copytree(light, tmp_path / "run"))


@pytest.fixture(scope="module", name="unpictured")
def unpictured_fixture(light: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with nothing to draw, which is quick to render."""
    folder = Path(shutil.copytree(light, tmp_path_factory.mktemp("unpictured") / "run"))
    for name in ("segment", "validation"):
        shutil.rmtree(folder / name)
    for name in ("leaderboard.json", "RUN_PROFILE_SUMMARY.json", "events.jsonl"):
        (folder / name).unlink()
    start_ns = 1_790_000_000_000_000_000
    with LedgerWriter(folder / "events.jsonl") as log:
        log.append("RUN_START", {"run_id": "demo"}, ts_ns=start_ns)
        log.append("RUN_END", {"run_id": "demo"}, ts_ns=start_ns + 10**9)
        head = {"entries": log.size, "root": log.root}
    edit(folder / "summary.json", lambda s: s.update(ledger=head, phases=[]))
    edit(folder / "summary.json", lambda s: s["validation"].pop("calibration") and None)
    return folder


@pytest.fixture(name="plain")
def plain_fixture(unpictured: Path, tmp_path: Path) -> Path:
    """One of these of the test's own, to damage."""
    return Path(shutil.copytree(unpictured, tmp_path / "run"))


@pytest.fixture(scope="module", name="page")
def page_fixture(made: Path) -> "Page":
    return Page(write_report(made, made.parent / "report.html"))


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._style = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub("[ \n]+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))
