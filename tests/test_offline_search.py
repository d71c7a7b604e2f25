"""R06: the search for folders of wheels is bounded in entries, depth and time, in every mount style."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vesu.offline import Limits
from vesu.offline.search import VARIABLE, search, search_roots
from wheel_factory import make_wheel, write_manifest

STYLES = [
    "wheels",
    "datasets/owner/wheels",
    "competitions/slug/wheels",
    "models/owner/model/pytorch/default/1/wheels",
]


@pytest.mark.parametrize("style", STYLES)
def test_every_mount_style_is_found(tmp_path: Path, style: str) -> None:  # R06
    make_wheel(tmp_path / style, "a")
    (tmp_path / "scrolls/train_images").mkdir(parents=True)
    found = search(tmp_path, "a test")
    assert found.wheelhouses == (tmp_path / style,) and found.cut is None


def test_where_it_looks_and_in_which_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R06
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "two")]))
    roots = [path for path, _ in search_roots(tmp_path / "given")]
    assert roots == [tmp_path / "given", tmp_path / "one", tmp_path / "two", Path("/kaggle/input")]
    monkeypatch.delenv(VARIABLE)
    assert [path for path, _ in search_roots()] == [Path("/kaggle/input")]
    assert search(tmp_path / "none", "a test").cut == "no such folder"


def test_links_in_a_circle_and_hidden_folders(tmp_path: Path) -> None:  # R06
    make_wheel(tmp_path / "b", "a")
    (tmp_path / "b/back").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    make_wheel(tmp_path / ".hidden", "a")
    found = search(tmp_path, "a test")
    assert found.wheelhouses == (tmp_path / "b",) and found.cut is None


class Tree:
    """A directory tree that nobody wrote to a disk: ``fan`` folders and ``files`` files in each folder."""

    def __init__(self, fan: int, files: int, on_entry: Any = lambda: None) -> None:
        self.fan, self.files, self.on_entry, self.listed = fan, files, on_entry, 0

    def scandir(self, folder: Path) -> "Listing":
        return Listing(self, Path(folder))


class Listing:
    def __init__(self, tree: Tree, folder: Path) -> None:
        self.tree, self.folder = tree, folder

    def __enter__(self) -> Iterator["Entry"]:
        return self.entries()

    def __exit__(self, *_: object) -> None:
        pass

    def entries(self) -> Iterator["Entry"]:
        names = [f"d{i}" for i in range(self.tree.fan)], [f"{i}.tif" for i in range(self.tree.files)]
        for is_folder, group in zip((True, False), names, strict=True):
            for name in group:
                self.tree.listed += 1
                self.tree.on_entry()
                yield Entry(name, is_folder)


class Entry:
    def __init__(self, name: str, is_folder: bool) -> None:
        self.name, self._is_folder = name, is_folder

    def is_dir(self) -> bool:
        return self._is_folder


def fake(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    numbers: dict[Path, int] = {}

    def stat(folder: Path, **_: Any) -> os.stat_result:
        number = numbers.setdefault(folder, len(numbers) + 1)
        return os.stat_result((0o40755, number, 1, 1, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "scandir", tree.scandir)
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "is_dir", lambda self: True)


def test_a_boundless_tree_ends_at_its_entries(monkeypatch: pytest.MonkeyPatch) -> None:  # R06
    tree = Tree(fan=100, files=1000)  # 100 million files in three levels
    fake(monkeypatch, tree)
    found = search(Path("/kaggle/input"), "a test", Limits(entries=100_000))
    assert found.cut == "more than 100000 entries"
    assert tree.listed <= 100_000 + 256


def test_a_slow_mount_ends_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:  # R06
    now = [0.0]

    def slow() -> None:
        now[0] += 0.01

    tree = Tree(fan=3, files=5000, on_entry=slow)
    fake(monkeypatch, tree)
    found = search(Path("/kaggle/input"), "a test", Limits(seconds=15), clock=lambda: now[0])
    assert found.cut == "more than 15 seconds"
    assert now[0] <= 15 + 256 * 0.01


def test_a_deep_tree_ends_at_its_depth(monkeypatch: pytest.MonkeyPatch) -> None:  # R06
    tree = Tree(fan=1, files=1)
    fake(monkeypatch, tree)
    found = search(Path("/kaggle/input"), "a test", Limits(depth=4))
    assert found.cut == "deeper than 4 levels" and tree.listed == 2 * 5


def test_wheels_beside_a_crowded_folder_are_found(tmp_path: Path) -> None:  # R06
    """A folder is left after its share of entries, and what lies beside it is still found."""
    images = tmp_path / "competitions/scrolls/train_images"
    images.mkdir(parents=True)
    for i in range(12_000):
        os.mknod(images / f"{i}.tif")
    make_wheel(tmp_path / "datasets/owner/my-wheels", "a")
    write_manifest(tmp_path / "datasets/owner/my-wheels")
    found = search(tmp_path, "a test")
    assert found.wheelhouses == (tmp_path / "datasets/owner/my-wheels",)
    assert found.cut is not None and "train_images has more than 10000 entries" in found.cut
    assert found.entries < 10_100
