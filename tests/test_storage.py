"""Files that are there whole or not at all."""

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
from vesu.data.storage import atomic_write, write_bytes_atomic, write_json_atomic
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
