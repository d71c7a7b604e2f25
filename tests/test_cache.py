"""The array cache: content-addressed, verified, bounded, never in the way of a run."""

import errno
import json
import os
import resource
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vesu import _core
from vesu.data.cache import ArrayCache, content_id
from vesu.errors import ArgumentError, FileError, FormatError


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def cache(tmp_path: Path, log: Log) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", max_bytes=1 << 20, min_free_bytes=0, events=log)


def age(cache: ArrayCache, *keys: str) -> None:
    """Let the entries look as if an earlier run had used them last, the first one longest ago."""
    for order, key in enumerate(keys):
        then = time.time() - 1000 + order
        os.utime(cache.folder / key / "manifest.json", (then, then))


# R09
def test_arrays_come_back_as_they_went_in(cache: ArrayCache, log: Log) -> None:
    arrays = {"values": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "names": np.zeros((0, 2), np.int64)}
    key = cache.key("features/1", source="ab")
    assert cache.get(key) is None
    assert cache.put(key, **arrays) == "stored"
    assert cache.put(key, **arrays) == "exists"
    for mmap in (False, True, True):
        found = cache.get(key, mmap=mmap)
        assert found is not None
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert log.names == ["CACHE_MISS", "CACHE_STORED"] + ["CACHE_HIT"] * 3


# R09
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(
        dtype=hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    fortran=st.booleans(),
    mmap=st.booleans(),
)
def test_any_array_of_numbers_survives(cache: ArrayCache, array: np.ndarray, fortran: bool, mmap: bool) -> None:
    given_array = np.asfortranarray(array) if fortran else array
    key = cache.key("any", source=content_id(array), dtype=array.dtype.str, mmap=mmap)
    assert cache.put(key, values=given_array) in ("stored", "exists")
    found = cache.get(key, mmap=mmap)
    assert found is not None
    assert found["values"].dtype == array.dtype
    np.testing.assert_array_equal(found["values"], array)


# R09: nothing is computed twice, also not by another process or a resumed run
def test_get_or_compute_computes_once(cache: ArrayCache) -> None:
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"values": np.ones(3)}

    key = cache.key("x", n=1)
    for one in (cache, cache, ArrayCache(cache.folder, max_bytes=1 << 20)):
        np.testing.assert_array_equal(one.get_or_compute(key, compute)["values"], np.ones(3))
    assert len(calls) == 1


# R09
def test_keys_are_what_was_put_in_whatever_the_order(cache: ArrayCache) -> None:
    key = cache.key("features/1", scales=(1.0, 2.0), nested={"b": None, "a": True})
    assert key == cache.key("features/1", nested={"a": True, "b": None}, scales=[1.0, 2.0])
    others = [
        cache.key("features/2", scales=(1.0, 2.0), nested={"b": None, "a": True}),
        cache.key("features/1", scales=(1, 2), nested={"b": None, "a": True}),
        cache.key("features/1", scales=(1.0, 2.0), nested={"b": None, "a": 1}),
        cache.key("features/1", scales=(1.0, 2.0), nested={"b": None, "a": "True"}),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("part", [float("nan"), float("inf"), np.float32(1), b"x", {1: 2}, {"a": [object()]}, {3}])
def test_a_part_without_a_canonical_form_is_refused(cache: ArrayCache, part: object) -> None:
    with pytest.raises(ArgumentError, match="parts"):
        cache.key("x", part=part)


@pytest.mark.parametrize("key", ["", "../" + "a" * 61, "A" * 64, "a" * 63, None])
def test_what_is_no_key_is_refused(cache: ArrayCache, key: Any) -> None:
    with pytest.raises(ArgumentError, match="key: got"):
        cache.get(key)


@pytest.mark.parametrize(
    "arrays", [{}, {"a": [1, 2]}, {"a": np.array([None])}, {"a": np.array(["x"])}, {"../a": np.ones(1)}]
)
def test_what_cannot_be_stored_without_pickle_is_refused(cache: ArrayCache, arrays: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="accepted"):
        cache.put("a" * 64, **arrays)


# R09: verified. Every byte of an entry's files matters (the manifest's white space and a few others do not change
# the content, and then the right arrays come back).
@pytest.mark.parametrize("mmap", [False, True])
def test_a_flipped_byte_is_never_served(cache: ArrayCache, log: Log, mmap: bool) -> None:
    array = np.arange(10, dtype=np.uint16)
    key = cache.key("x")
    cache.put(key, values=array)
    caught = 0
    sizes = {path.name: path.stat().st_size for path in (cache.folder / key).iterdir()}
    for name, size in sizes.items():
        for position in range(0, size, 3):
            cache.put(key, values=array)
            damaged = bytearray((cache.folder / key / name).read_bytes())
            damaged[position] ^= 0x20
            (cache.folder / key / name).write_bytes(damaged)
            found = cache.get(key, mmap=mmap)
            if found is not None:
                assert name == "manifest.json"
                np.testing.assert_array_equal(found["values"], array)
                continue
            caught += 1
            assert log.names[-1] in ("CACHE_CORRUPT", "CACHE_MISS")
            assert not (cache.folder / key).exists()
    assert caught > 100


def test_a_truncated_or_missing_file_is_dropped(cache: ArrayCache, log: Log) -> None:
    key = cache.key("x")
    for damage in ("truncate", "remove"):
        cache.put(key, values=np.ones(1000))
        path = cache.folder / key / "values.npy"
        if damage == "truncate":
            os.truncate(path, 500)
        else:
            path.unlink()
        assert cache.get(key) is None
        assert "CACHE_CORRUPT" in log.names[-2:]
    assert cache.put(key, values=np.ones(1000)) == "stored"


def test_a_pickle_in_the_place_of_an_array_is_not_loaded(cache: ArrayCache) -> None:
    key = cache.key("x")
    cache.put(key, values=np.ones(3))
    path = cache.folder / key / "values.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = json.loads((cache.folder / key / "manifest.json").read_text())
    manifest["arrays"]["values"] |= {"n_bytes": path.stat().st_size, "blake3": content_id(path)}
    (cache.folder / key / "manifest.json").write_text(json.dumps(manifest))
    assert cache.get(key) is None


# R09: verification of a mapped file once a process, as long as the file stays the same
def test_a_map_is_verified_once(cache: ArrayCache, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache.key("x")
    cache.put(key, values=np.ones(100))
    hashed = []
    real = _core.blake3_file

    def counting(path: Path, n_threads: int | None = None) -> str:
        hashed.append(path)
        return real(path, n_threads)

    monkeypatch.setattr(_core, "blake3_file", counting)
    for _ in range(3):
        found = cache.get(key, mmap=True)
        assert found is not None
        assert isinstance(found["values"], np.memmap)
        assert not found["values"].flags.writeable
    assert len(hashed) == 1
    cache.get(key)
    assert len(hashed) == 2


# R09: bounded
def test_the_bound_holds_and_old_entries_go_first(cache: ArrayCache, log: Log) -> None:
    keys = [cache.key("x", n=n) for n in range(4)]
    array = np.zeros(300 << 10, np.uint8)
    for key in keys[:3]:
        assert cache.put(key, values=array) == "stored"
    assert cache.put(keys[3], values=array) == "refused"  # all three are this run's own: kept
    assert "in use by this run" in log.events[-1][1]["reason"]
    age(cache, keys[1], keys[0], keys[2])
    assert cache.put(keys[3], values=array) == "stored"
    assert [fields["key"] for name, fields in log.events if name == "CACHE_EVICTED"] == [keys[1]]
    assert cache.total_bytes() <= cache.max_bytes
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]


def test_a_hit_protects_an_old_entry(cache: ArrayCache) -> None:
    keys = [cache.key("x", n=n) for n in range(4)]
    array = np.zeros(300 << 10, np.uint8)
    for key in keys[:3]:
        cache.put(key, values=array)
    age(cache, *keys[:3])
    cache.get(keys[0])
    cache.put(keys[3], values=array)
    assert cache.get(keys[0]) is not None
    assert cache.get(keys[1]) is None


def test_what_can_never_fit_evicts_nothing(cache: ArrayCache, log: Log) -> None:
    key = cache.key("x")
    cache.put(key, values=np.zeros(1000))
    age(cache, key)
    assert cache.put(cache.key("y"), values=np.zeros(2 << 20)) == "refused"
    assert cache.get(key) is not None


def test_zero_bytes_switch_the_cache_off(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache", max_bytes=0)
    assert cache.get_or_compute(cache.key("x"), lambda: {"a": np.ones(1)})["a"] == 1
    assert not (tmp_path / "cache").exists()


# R09, disk full: the run goes on uncached, says so, and leaves nothing behind
def test_no_room_on_the_disk_is_refused_before_writing(
    cache: ArrayCache, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 10))
    np.testing.assert_array_equal(cache.get_or_compute(cache.key("x"), lambda: {"a": np.ones(9)})["a"], np.ones(9))
    assert log.names == ["CACHE_MISS", "CACHE_REFUSED"]
    assert "free on the disk" in log.events[-1][1]["reason"]


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Let the operating system itself refuse longer files (EFBIG), as a full disk or quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_midway_leaves_nothing(cache: ArrayCache, log: Log) -> None:
    key = cache.key("x")
    with file_size_limit(64 << 10):
        assert cache.put(key, values=np.zeros(20_000)) == "failed"
    assert log.names == ["CACHE_FAILED"]
    assert list(cache.folder.iterdir()) == []
    assert cache.get(key) is None


def test_a_disk_that_fills_up_while_writing(cache: ArrayCache, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert cache.get_or_compute(cache.key("x"), lambda: {"a": np.ones(1)})["a"] == 1
    assert "No space left" in log.events[-1][1]["reason"]
    assert list(cache.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_not_raised(tmp_path: Path, log: Log) -> None:
    (tmp_path / "file").write_text("")
    cache = ArrayCache(tmp_path / "file" / "cache", max_bytes=1 << 20, events=log)
    assert cache.get_or_compute(cache.key("x"), lambda: {"a": np.ones(1)})["a"] == 1
    assert "CACHE_FAILED" in log.names


# R09: many writers of one key
def test_concurrent_writers_and_readers_of_one_key(cache: ArrayCache) -> None:
    key = cache.key("x")
    array = np.arange(20_000)
    statuses: list[str] = []
    wrong: list[object] = []
    start = threading.Barrier(6)

    def write() -> None:
        start.wait()
        for _ in range(5):
            statuses.append(ArrayCache(cache.folder, max_bytes=1 << 20, min_free_bytes=0).put(key, values=array))

    def read() -> None:
        start.wait()
        for _ in range(20):
            found = cache.get(key)
            if found is not None and not np.array_equal(found["values"], array):
                wrong.append(found)

    threads = [threading.Thread(target=work) for work in (write,) * 4 + (read,) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # Writers that start together may each find nothing there and store the same bytes: harmless, and no other outcome.
    assert set(statuses) <= {"stored", "exists"}
    assert 1 <= statuses.count("stored") <= 4
    assert set(statuses) == {"stored", "exists"}
    assert [path.name for path in cache.folder.iterdir()] == [key]


def test_what_a_killed_writer_left_is_removed_after_a_while(cache: ArrayCache) -> None:
    old, new = ".old.0123456789ab.tmp", ".new.0123456789ab.tmp"
    for name, seconds in ((old, 7200), (new, 10)):
        (cache.folder / name).mkdir(parents=True)
        (cache.folder / name / "values.npy").write_bytes(b"half")
        os.utime(cache.folder / name, (time.time() - seconds,) * 2)
    ArrayCache(cache.folder, max_bytes=1)
    assert [path.name for path in cache.folder.iterdir()] == [new]


# R09
def test_content_ids_of_files_bytes_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert content_id(path) == content_id(str(path)) == content_id(b"abc")
    assert content_id(np.frombuffer(b"abc", np.uint8)) != content_id(b"abc")  # an array has a type and a shape
    with pytest.raises(ArgumentError, match="source: got list"):
        content_id([1])  # type: ignore[arg-type]
    with pytest.raises(FileError) as caught:
        content_id(tmp_path / "missing")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "missing"))
    with pytest.raises(FormatError, match="not a regular file"):
        content_id("/dev/null")


# R09
def test_cheap_entries_leave_the_room_of_dear_ones(tmp_path: Path, log: Log) -> None:
    cache = ArrayCache(tmp_path, max_bytes=50_000, min_free_bytes=0, events=log, reserved_bytes=35_000)
    values = np.zeros(9_000, np.uint8)
    keys = [cache.key("kind", number=number) for number in range(6)]
    assert cache.put(keys[0], values=values) == "stored"
    age(cache, keys[0])  # of an earlier run, and so the first to go
    cache = ArrayCache(tmp_path, max_bytes=50_000, min_free_bytes=0, events=log, reserved_bytes=35_000)
    for key in keys[1:3]:
        cache.get_or_compute(key, lambda: {"values": values}, dear=False)
    refused = [fields["reason"] for name, fields in log.events if name == "CACHE_REFUSED"]
    assert len(refused) == 2 and "35000 of max_bytes = 50000 bytes are kept" in refused[0]
    assert cache.get(keys[0]) is not None and "CACHE_EVICTED" not in log.names
    for key in keys[3:]:
        cache.get_or_compute(key, lambda: {"values": values})
    assert all(cache.get(key) is not None for key in keys[3:])


# R09
def test_without_a_reserve_cheap_entries_are_kept(cache: ArrayCache) -> None:
    key = cache.key("kind", number=1)
    cache.get_or_compute(key, lambda: {"values": np.zeros(3)}, dear=False)
    assert cache.get(key) is not None
