"""Discovery under every mount style, and the inventory."""

import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_data import label, rows, volume, write, write_layout
from vesu.data.discover import Inventory, discover
from vesu.errors import DataError

SLUG = "vesuvius-challenge-surface-detection"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VESU_DATA_ROOT", raising=False)


def ids(inventory: Inventory) -> list[str]:
    return [pair.volume_id for pair in inventory.pairs]


# R01: all mount styles
@pytest.mark.parametrize(
    "mount",
    [SLUG, f"competitions/{SLUG}", f"datasets/someone/{SLUG}", f"datasets/someone/{SLUG}/versions/3/data", "."],
)
def test_every_mount_style_is_found(tmp_path: Path, mount: str) -> None:
    home = write_layout(tmp_path / "input" / mount)
    write(tmp_path / "input" / "other" / "pictures" / "1.tif", volume(0))
    inventory = discover(kaggle_root=tmp_path / "input")
    assert inventory.root == home
    assert ids(inventory) == ["0001", "0002", "0003"]
    assert [test.volume_id for test in inventory.tests] == ["0100"]
    assert inventory.test_shapes == {"0100": (6, 7, 8)}
    assert (inventory.orphan_images, inventory.orphan_labels, inventory.problems) == ((), (), ())
    assert inventory.csv_mismatches == ()
    assert inventory.infos[inventory.pairs[0].image].compression == "lzw"


# R01
def test_a_plain_folder_a_folder_above_it_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = write_layout(tmp_path / "a" / "b")
    for root in (home, str(home), tmp_path):
        assert discover(root, kaggle_root=tmp_path / "nowhere").root == home
    monkeypatch.setenv("VESU_DATA_ROOT", str(home))
    assert discover(kaggle_root=tmp_path / "nowhere").root == home
    write_layout(tmp_path / "explicit")
    assert discover(tmp_path / "explicit").root == tmp_path / "explicit"  # an argument wins over the environment
    monkeypatch.delenv("VESU_DATA_ROOT")
    monkeypatch.chdir(tmp_path / "a")
    assert discover("b").root == home


# R01
def test_several_data_sets_are_listed_and_a_slug_chooses(tmp_path: Path) -> None:
    first = write_layout(tmp_path / "competitions" / SLUG)
    second = write_layout(tmp_path / "datasets" / "someone" / "mine")
    with pytest.raises(DataError, match="2 data sets") as caught:
        discover(kaggle_root=tmp_path)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert discover(kaggle_root=tmp_path, slug=SLUG).root == first
    assert discover(kaggle_root=tmp_path, slug="someone/mine").root == second
    with pytest.raises(DataError, match="no layout of slug 'min'"):
        discover(kaggle_root=tmp_path, slug="min")


def test_nothing_there_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"root: got .*empty, no layout in 1 folders; accepted: a folder with train_im"):
        discover(tmp_path / "empty")
    with pytest.raises(DataError, match=r"which is no folder .*VESU_DATA_ROOT is not set"):
        discover(kaggle_root=tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file, which is no folder; accepted"):
        discover(tmp_path / "file")
    monkeypatch.setenv("VESU_DATA_ROOT", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="VESU_DATA_ROOT: got"):
        discover()


# R01: the walk is bounded
def test_links_do_not_loop(tmp_path: Path) -> None:
    home = write_layout(tmp_path / "a" / "b" / "set")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "again").symlink_to(home, target_is_directory=True)
    inventory = discover(tmp_path)
    assert inventory.root.resolve() == home  # one data set, although two paths lead to it
    assert len(inventory.pairs) == 3


def test_too_deep_and_too_many_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "1/2/3/4/5/6/7")
    with pytest.raises(DataError, match="the search stopped at its bound"):
        discover(tmp_path)
    monkeypatch.setattr("vesu.data.discover._MAX_FOLDERS", 10)
    for number in range(30):
        (tmp_path / "many" / f"{number:02}" / "more").mkdir(parents=True)
    with pytest.raises(DataError, match="the search stopped at its bound"):
        discover(tmp_path / "many")


def test_a_folder_of_very_many_entries_beside_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vesu.data.discover._MAX_ENTRIES_PER_FOLDER", 20)
    for number in range(100):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    home = write_layout(tmp_path / "set", train=[f"{n:03}" for n in range(30)])
    inventory = discover(tmp_path)
    assert inventory.root == home
    assert len(inventory.pairs) == 30  # the bound is the search's, not the inventory's


# R01: test-only and train-only layouts
def test_parts_of_the_layout_are_enough(tmp_path: Path) -> None:
    home = write_layout(tmp_path / "set", train=(), csv={})
    inventory = discover(home)
    assert (inventory.pairs, len(inventory.tests)) == ((), 1)
    shutil.rmtree(home / "test_images")
    (home / "train_images").mkdir()
    inventory = discover(home)
    assert (inventory.pairs, inventory.tests) == ((), ())


# R01
def test_names_orphans_and_what_is_not_ours(tmp_path: Path) -> None:
    home = write_layout(tmp_path, csv={})
    write(home / "train_images" / "007.tiff", volume(7))
    write(home / "train_labels" / "007.TIF", label(7))
    write(home / "train_images" / "7.tif", volume(8))
    write(home / "train_labels" / "0099.tif", label(9))
    for stray in ("._0001.tif", ".hidden.tif", "notes.txt", "0001.tif.part"):
        (home / "train_images" / stray).write_bytes(b"junk")
    inventory = discover(home)
    assert ids(inventory) == ["0001", "0002", "0003", "007"]
    assert [path.name for path in inventory.orphan_images] == ["7.tif"]
    assert [path.name for path in inventory.orphan_labels] == ["0099.tif"]
    assert inventory.problems == ()


# R01: unusable files are recorded, never raised
def test_unusable_files_are_problems(tmp_path: Path) -> None:
    home = write_layout(tmp_path, csv={})
    images = home / "train_images"
    (images / "0001.tif").write_bytes(b"II*\0 and no more")
    (images / "0002.tif").write_bytes(b"")
    (images / "0005.tif").mkdir()
    (images / "0006.tif").symlink_to("nothing")
    os.mkfifo(images / "0007.tif")
    write(images / "0003.tiff", volume(3))
    (images / os.fsdecode(b"\xff.tif")).write_bytes(b"")
    inventory = discover(home)
    problems = {problem.path.name: problem.message for problem in inventory.problems}
    assert set(problems) == {f"000{n}.tif" for n in (1, 2, 5, 6, 7)} | {"0003.tiff", os.fsdecode(b"\xff.tif")}
    assert "also that of 0003.tif" in problems["0003.tiff"]
    assert "not a regular file" in problems["0007.tif"]
    assert ids(inventory) == ["0001", "0002", "0003"]  # still pairs: preflight says that two are unreadable
    json.dumps(inventory.to_json(), allow_nan=False).encode()


# R01: train.csv and test.csv
def test_tables_are_compared(tmp_path: Path) -> None:
    tables = {"train.csv": "\ufeffID,scroll\n0001,1\n 0002 ,1\n0004,2\n", "test.csv": rows(["0100"])}
    inventory = discover(write_layout(tmp_path, csv=tables))
    (mismatch,) = inventory.csv_mismatches
    assert mismatch.path.name == "train.csv"
    assert (mismatch.ids_without_image, mismatch.ids_not_listed) == (("0004",), ("0003",))


@pytest.mark.parametrize("text", ["", "name,scroll\n1,2\n", "id\n" + "x" * 200_000 + "\n", "id\n\0\n"])
def test_a_table_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    inventory = discover(write_layout(tmp_path, csv={"train.csv": text}))
    (mismatch,) = inventory.csv_mismatches
    assert mismatch.problem or mismatch.ids_not_listed


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    home = write_layout(tmp_path, csv={})
    (home / "train.csv").write_bytes("id,naïve\n1,2\n".encode("latin-1"))
    (mismatch,) = discover(home).csv_mismatches
    assert mismatch.problem is not None


# R01: inventory JSON
def test_the_inventory_as_json(tmp_path: Path) -> None:
    home = write_layout(tmp_path, csv={"train.csv": rows(["0001"])})
    write(home / "train_images" / "0004.tif", volume(4, (3, 4, 5)))
    (home / "test_images" / "0101.tif").write_bytes(b"junk")
    inventory = discover(home)
    record = json.loads(json.dumps(inventory.to_json(), allow_nan=False))
    assert record["root"] == str(home)
    assert record["counts"] == {"pairs": 3, "tests": 2, "orphan_images": 1, "orphan_labels": 0, "problems": 1}
    assert record["shapes"] == {"3x4x5": 1, "6x7x8": 7}
    assert record["dtypes"] == {"uint8": 8}
    assert record["compressions"] == {"deflate": 1, "lzw": 3, "none": 4}
    assert record["total_bytes"] == sum(p.stat().st_size for p in home.rglob("*.tif")) - len(b"junk")
    assert record["pairs"][0]["volume_id"] == "0001"
    assert record["pairs"][0]["label"]["path"] == "train_labels/0001.tif"
    assert record["pairs"][0]["image"]["shape"] == [6, 7, 8]
    assert record["tests"][1] == {"volume_id": "0101", "image": {"path": "test_images/0101.tif"}}
    assert record["orphan_images"][0]["path"] == "train_images/0004.tif"
    assert record["problems"][0]["path"] == "test_images/0101.tif"
    assert record["csv"][0]["ids_not_listed"] == ["0002", "0003", "0004"]


def test_progress_is_told_for_every_header(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    discover(write_layout(tmp_path), on_progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 7) for done in range(1, 8)]


def test_ctrl_c_is_answered_within_half_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_layout(tmp_path, train=[f"{n:03}" for n in range(100)])
    monkeypatch.setattr("vesu.data.discover.inspect_volume", lambda _: time.sleep(0.1))
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        discover(root)
    assert time.monotonic() - start < 0.2 + 0.5


def tiny() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ones((2, 2, 2), np.uint8), photometric="minisblack")
    return buffer.getvalue()


TINY = tiny()


# R01: ids on both sides, compared with plain set arithmetic
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.sets(st.text("0123456789ab", min_size=1, max_size=4), max_size=5),
    labels=st.sets(st.text("0123456789ab", min_size=1, max_size=4), max_size=5),
    listed=st.sets(st.text("0123456789ab", min_size=1, max_size=4), max_size=5),
)
def test_pairing_is_set_arithmetic(tmp_path: Path, images: set[str], labels: set[str], listed: set[str]) -> None:
    home = tmp_path / "set"
    shutil.rmtree(home, ignore_errors=True)
    for folder in ("train_images", "train_labels"):
        (home / folder).mkdir(parents=True)
    for volume_id in images:
        (home / "train_images" / f"{volume_id}.tif").write_bytes(TINY)
    for volume_id in labels:
        (home / "train_labels" / f"{volume_id}.tif").write_bytes(TINY)
    (home / "train.csv").write_text(rows(listed))
    inventory = discover(home)
    assert ids(inventory) == sorted(images & labels)
    assert [path.stem for path in inventory.orphan_images] == sorted(images - labels)
    assert [path.stem for path in inventory.orphan_labels] == sorted(labels - images)
    assert bool(inventory.csv_mismatches) == (images != listed)
    assert len(inventory.infos) == len(images) + len(labels)
