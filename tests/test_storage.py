"""Files and folders that are there whole or not at all, and that nothing else writes them."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesu.data import storage
from vesu.data.storage import (
    atomic_folder,
    atomic_write,
    make_folder,
    new_file,
    remove_abandoned,
    remove_tree_atomic,
    write_bytes_atomic,
    write_json_atomic,
)
from vesu.data.volumes import write_volume
from vesu.errors import ArgumentError, FileError, FormatError


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"12")
        assert not (tmp_path / "a").exists()
        assert Path(file.name).parent == tmp_path
        file.seek(0)
        assert file.read() == b"12"  # readable, so that a writer can check its work
    assert (tmp_path / "a").read_bytes() == b"12"
    assert listing(tmp_path) == ["a"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("failure", [RuntimeError("x"), KeyboardInterrupt(), FormatError("x"), SystemExit(1)])
def test_a_failing_body_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    write_bytes_atomic(tmp_path / "a", b"old")
    with pytest.raises(type(failure)), atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        raise failure
    assert (tmp_path / "a").read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_full_disk_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_bytes_atomic(tmp_path / "a", b"old")

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else storage.os, step, no_space)
    with pytest.raises(FileError) as caught:
        write_bytes_atomic(tmp_path / "a", b"new")
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


# A real refusal by the kernel in the middle of the data: the process may write no file beyond 64 KiB.
@pytest.mark.parametrize(
    "statement",
    [
        "write_bytes_atomic(target, bytes(10**6))",
        "write_volume(target, noise)",
        "write_submission(target, [('1', (noise > 127).astype(np.uint8))], expected={'1': noise.shape})",
    ],
)
def test_nothing_half_written_stands_under_the_name(tmp_path: Path, statement: str) -> None:
    script = textwrap.dedent(f"""
        import errno, pathlib, resource, signal, sys
        import numpy as np
        from vesu.data.storage import write_bytes_atomic
        from vesu.data.volumes import write_volume
        from vesu.submission import write_submission
        from vesu.errors import FileError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        target = pathlib.Path(sys.argv[1], "final")
        noise = np.random.default_rng(0).integers(0, 256, (64, 128, 128), np.uint8)
        try:
            {statement}
        except FileError as error:
            assert error.errno == errno.EFBIG and error.filename == str(target), error
        else:
            raise SystemExit("no error")
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path) == []


def test_errors_of_other_files_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught, atomic_write(tmp_path / "a"):
        write_volume(tmp_path / "none" / "b.tif", np.zeros((1, 1, 1), np.uint8))
    assert caught.value.filename == str(tmp_path / "none" / "b.tif")
    assert listing(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        write_bytes_atomic(tmp_path / "none" / "a", b"")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "none" / "a"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError) as caught:
        write_bytes_atomic(tmp_path / "folder", b"")
    assert caught.value.filename == str(tmp_path / "folder")
    assert listing(tmp_path) == ["folder"]


def test_json_is_sorted_and_finite(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "odd.json", {"name": "\udcff"})
    assert json.loads((tmp_path / "odd.json").read_text(encoding="utf-8")) == {"name": "\udcff"}
    write_json_atomic(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": "é",\n  "b": [\n    1,\n    null\n  ]\n}\n'
    for bad in ({"a": float("nan")}, {"a": float("inf")}, {"a": object()}, {"a": np.float32(1)}, {(1, 2): 3}):
        with pytest.raises(ArgumentError, match="obj: got"):
            write_json_atomic(tmp_path / "a.json", bad)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == text
    assert listing(tmp_path) == ["a.json", "odd.json"]


def filled(path: Path, content: bytes = b"whole") -> None:
    """A folder with a file and a folder with a file."""
    with atomic_folder(path) as folder:
        (folder / "inner").mkdir()
        for name in ("a", "inner/b"):
            with new_file(folder / name) as file:
                file.write(content)


# R36
def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "state") as folder:
        with new_file(folder / "a") as file:
            file.write(b"12")
        assert not (tmp_path / "state").exists()
        assert folder.parent == tmp_path
    assert (tmp_path / "state" / "a").read_bytes() == b"12"
    assert listing(tmp_path) == ["state"]


# R36: file contents, then the folders, before the name; the folder around after it
def test_everything_is_synced_before_the_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def logged_fsync(descriptor: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:6]}")
        fsync(descriptor)

    def logged_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(storage.os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "rename", logged_rename)
    around = tmp_path / "around"
    make_folder(around)
    # The name of the folder around it too: whoever made that may have died before it was durable.
    assert steps == [f"fsync {tmp_path.parent.name[:6]}", f"fsync {tmp_path.name[:6]}"]
    steps.clear()
    filled(around / "state")
    assert steps == ["fsync b", "fsync inner", "fsync a", "fsync .state", "rename", "fsync around"]
    steps.clear()
    remove_tree_atomic(around / "state")
    assert steps == ["rename", "fsync around"]
    steps.clear()
    with atomic_folder(around / "cache", durable=False) as folder, new_file(folder / "a") as file:
        file.write(b"1")
    assert steps == ["rename"]


@pytest.mark.parametrize("failure", [RuntimeError("x"), KeyboardInterrupt(), FormatError("x"), SystemExit(1)])
def test_a_failing_body_leaves_no_folder(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "state") as folder:
        with new_file(folder / "a") as file:
            file.write(b"half")
        raise failure
    assert listing(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "rename", "open", "mkdir"])
def test_a_full_disk_at_any_step_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    owner: Any = Path if step in ("rename", "mkdir") else storage.os

    def no_space(*_: Any, **__: Any) -> None:
        monkeypatch.undo()  # there is room again to clean up
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, step, no_space)
    with pytest.raises(FileError) as caught:
        filled(tmp_path / "state")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "state"))
    assert listing(tmp_path) == []


def test_a_folder_never_replaces_anything(tmp_path: Path) -> None:
    filled(tmp_path / "state", b"old")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("state", "file", "link"):
        with pytest.raises(FileError) as caught:
            filled(tmp_path / name, b"new")
        assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(tmp_path / name))
    # One that another process makes meanwhile stands too.
    with pytest.raises(FileError), atomic_folder(tmp_path / "late") as folder:
        with new_file(folder / "a") as file:
            file.write(b"new")
        filled(tmp_path / "late", b"old")
    assert (tmp_path / "late" / "a").read_bytes() == (tmp_path / "state" / "a").read_bytes() == b"old"
    assert listing(tmp_path) == ["file", "late", "link", "state"]


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileError) as caught, new_file(tmp_path / "a") as file:
        file.write(b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"old"


def test_removing_takes_folders_files_and_links_and_nothing_is_fine(tmp_path: Path) -> None:
    filled(tmp_path / "kept")
    filled(tmp_path / "folder")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "kept", target_is_directory=True)
    for name in ("folder", "file", "link", "none"):
        remove_tree_atomic(tmp_path / name)
    assert listing(tmp_path) == ["kept"]
    assert listing(tmp_path / "kept") == ["a", "inner"]


# R36: killed in the middle, a removal leaves the whole folder or none under its name
def test_a_removal_that_fails_has_taken_the_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "state")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storage.shutil, "rmtree", refused)
    with pytest.raises(FileError) as caught:
        remove_tree_atomic(tmp_path / "state")
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    assert len(listing(tmp_path)) == 1
    remove_abandoned(tmp_path)
    assert listing(tmp_path) == []


def test_what_killed_processes_left_is_removed_by_name_and_age(tmp_path: Path) -> None:
    keep = ["state", ".state.tmp", ".hidden", "state.0123456789ab.tmp", ".x.0123456789AB.tmp"]
    for name in (*keep, ".state.0123456789ab.tmp", ".s.123456789abc.tmp"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".s.123456789abc.tmp", (0, 0))
    remove_abandoned(tmp_path, older_than_s=3600)
    assert listing(tmp_path) == sorted([*keep, ".state.0123456789ab.tmp"])
    remove_abandoned(tmp_path)
    assert listing(tmp_path) == sorted(keep)
    remove_abandoned(tmp_path / "none")


def test_folders_are_made_with_those_around_them(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "c"):
        with pytest.raises(FileError) as caught:
            make_folder(path)
        assert caught.value.filename == str(path)
