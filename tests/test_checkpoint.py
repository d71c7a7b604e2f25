"""Checkpoints: what the manifest holds, generations, events, refusals of wrong input (R36, R37)."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_fields import Events, fields, parts
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.ledger import canonical_json
from vesu.run.checkpoint import EMPTY_ROOT, MANIFEST, CheckpointStore, Manifest, load_checkpoint
from vesu.run.checkpoint import files as files_module
from vesu.run.checkpoint import store as store_module
from vesu.run.events import EventLog

R36_FIELDS = {
    *("ts_ns", "run_id", "version", "git_sha", "epoch", "candidate_index", "candidate_total", "iter", "max_iter"),
    *("model_state", "optimizer_state", "rng_states", "distillation_state", "best_metrics", "data_cursor"),
    *("dataset_context", "merkle_prev", "merkle_curr", "sha512_payload"),
}


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def store(tmp_path: Path, events: Events) -> CheckpointStore:
    return CheckpointStore(tmp_path / "out" / "checkpoints", emit=events)


def names(store: CheckpointStore) -> list[int]:
    return sorted(int(path.name.removeprefix("ckpt-")) for path in store.folder.iterdir())


# R36
def test_a_checkpoint_comes_back_whole(store: CheckpointStore, events: Events) -> None:
    given = parts(70_000)
    saved = store.save("full", fields(), given)
    found = CheckpointStore(store.folder, emit=events).latest()
    assert found is not None and (found.path, found.manifest) == (saved.path, saved.manifest)
    assert {name: found.read(name) for name in found.manifest.parts} == given
    for name, value in fields(best_metrics={"f1": 0.625, "iou": None}, rng_states=None).items():
        if value is not None:
            assert getattr(found.manifest, name) == value, name
    assert events.names == ["CHECKPOINT_WRITTEN", "LATEST_VALID_CKPT"]
    assert events.all[1][1]["fallback"] is False
    assert events.all[0][1]["n_bytes"] == 70_012
    assert events.all[0][1]["seconds"] >= 0


# R36: the exact names in the exact file
def test_the_manifest_has_the_exact_fields(store: CheckpointStore) -> None:
    content = json.loads((store.save("light", fields(), parts()).path / "ckpt_manifest.json").read_bytes())
    assert set(content) >= R36_FIELDS
    assert set(content) - R36_FIELDS == {
        *("format", "sequence", "kind", "phase", "candidate_first", "merkle_size", "tree_head", "compat", "progress"),
        *("time", "parts", "sha512_manifest", "nonfinite"),
    }
    assert content["ts_ns"].isdecimal()  # beyond 2^53: a decimal string
    assert content["parts"]["cursor.json"]["bytes"] == 12
    assert content["nonfinite"] == ["best_metrics.iou"] and content["best_metrics"]["iou"] is None
    assert content["rng_states"]["numpy"]["state"] == str(2**127 + 1)


# R36: the seals are what a stranger computes from the text
def test_the_seals_are_sha512_of_canonical_json(store: CheckpointStore) -> None:
    content = json.loads((store.save("light", fields(), parts()).path / MANIFEST).read_bytes())
    seal = content.pop("sha512_manifest")
    assert hashlib.sha512(canonical_json(content)).hexdigest() == seal
    text = json.dumps(content["parts"], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha512(text.encode()).hexdigest() == content["sha512_payload"]


# R36, R38: each checkpoint points at the tree head of the one before
def test_merkle_heads_are_chained_over_stores(store: CheckpointStore) -> None:
    first = store.save("light", fields(merkle_curr="a" * 64), parts())
    second = store.save("light", fields(merkle_curr="b" * 64), parts())
    other = CheckpointStore(store.folder)
    other.load(first.path)
    third = other.save("light", fields(), parts())
    given = store.save("light", fields(merkle_prev="c" * 64), parts())
    heads = [each.manifest.merkle_prev for each in (first, second, third, given)]
    assert heads == [EMPTY_ROOT, "a" * 64, "a" * 64, "c" * 64]


# R36: the numpy values that a run has at hand are as good as Python's
def test_numpy_scalars_and_tuples_are_taken(store: CheckpointStore) -> None:
    given = {"a": np.int64(3), "b": (np.float32(0.5), True), "c": np.bool_(False), "d": float("-inf")}
    manifest = store.save("light", fields(progress=given), parts()).manifest
    assert manifest.progress == {"a": 3, "b": [0.5, True], "c": False, "d": None}
    assert "progress.d" in manifest.nonfinite


# R36: several generations; a full one outlives light ones
def test_generations(store: CheckpointStore) -> None:
    kinds = ["full", "light", "light", "light", "light", "pretimeout", "light", "light", "light", "light"]
    seen = []
    for number, kind in enumerate(kinds):
        store.save(kind, fields(), parts(64, number))  # type: ignore[arg-type]
        seen.append(names(store))
    assert seen[2] == [1, 2, 3]
    assert seen[4] == [1, 3, 4, 5]
    assert seen[9] == [1, 6, 8, 9, 10]
    for _ in range(3):
        store.save("full", fields(), parts())
    assert names(store) == [11, 12, 13]


def test_one_generation_is_always_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for _ in range(3):
        store.save("full", fields(), parts())
    assert names(store) == [3]


# R37: a damaged newest one: the one before, and an event says so
def test_a_fallback_is_an_event(store: CheckpointStore, events: Events) -> None:
    for seed in range(3):
        last = store.save("light", fields(), parts(seed=seed))
    (last.path / "search.npz").write_bytes(b"torn")
    (store.folder / "ckpt-00000002" / MANIFEST).unlink()
    events.all.clear()
    found = CheckpointStore(store.folder, emit=events).latest()
    assert found is not None and found.manifest.sequence == 1
    assert events.names == ["CHECKPOINT_REFUSED", "CHECKPOINT_REFUSED", "LATEST_VALID_CKPT"]
    refused = events.of("CHECKPOINT_REFUSED")
    assert [Path(each["path"]).name for each in refused] == ["ckpt-00000003", "ckpt-00000002"]
    assert "search.npz: 4 bytes" in refused[0]["reason"] and MANIFEST in refused[1]["reason"]
    chosen = events.of("LATEST_VALID_CKPT")[0]
    assert (chosen["fallback"], chosen["refused_newer"], chosen["sequence"]) == (True, 2, 1)


# R36: damaged checkpoints are no generations: the last sound ones stay
def test_damaged_ones_do_not_push_sound_ones_out(store: CheckpointStore) -> None:
    for _ in range(4):
        store.save("light", fields(), parts())
    for number in (3, 4):
        (store.folder / f"ckpt-0000000{number}" / "search.npz").write_bytes(b"")
    again = CheckpointStore(store.folder)
    assert again.latest() is not None
    again.save("light", fields(), parts())
    assert names(again) == [2, 3, 4, 5]
    again.save("light", fields(), parts())
    again.save("light", fields(), parts())
    assert names(again) == [5, 6, 7]


def test_a_number_is_never_used_twice(store: CheckpointStore) -> None:
    store.save("light", fields(), parts())
    (store.folder / "ckpt-00000007").mkdir()  # whatever it is
    assert CheckpointStore(store.folder).save("light", fields(), parts()).manifest.sequence == 8
    (store.folder / "ckpt-999999999999").mkdir()
    with pytest.raises(ArgumentError, match="sequence"):
        store.save("light", fields(), parts())


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path, events: Events) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "ckpt-1").mkdir()
    for folder in (tmp_path, tmp_path / "none"):
        assert CheckpointStore(folder, emit=events).latest() is None
    assert events.names == []


# R36: what killed processes left goes with the next save, and is never taken for a checkpoint
def test_temporary_folders_go(store: CheckpointStore) -> None:
    store.save("light", fields(), parts())
    (store.folder / "ckpt-00000001").rename(store.folder / ".ckpt-00000002.0123456789ab.tmp")
    assert store.latest() is None
    store.save("light", fields(), parts())
    assert [path.name for path in store.folder.iterdir()] == ["ckpt-00000001"]


WRONG = [
    ({"epoch": -1}, "epoch: got -1"),
    ({"epoch": True}, "epoch: got True"),
    ({"iter": 2.0}, "iter: got 2.0"),
    ({"iter": 2**63}, "iter: got"),
    ({"candidate_index": None}, "candidate_index: got None"),
    ({"run_id": ""}, "run_id: got ''"),
    ({"run_id": 7}, "run_id: got 7"),
    ({"git_sha": 7}, "git_sha: got 7"),
    ({"phase": b"fit"}, "phase: got b'fit'"),
    ({"merkle_curr": "A" * 64}, "merkle_curr: got"),
    ({"merkle_prev": "a" * 63}, "merkle_prev: got"),
    ({"tree_head": None}, "tree_head: got None"),
    ({"model_state": None}, "model_state: got None"),
    ({"model_state": {"part": "none.npz"}}, r"model_state\['part'\]: got 'none.npz'"),
    ({"optimizer_state": {"part": ["a"]}}, r"optimizer_state\['part'\]: got"),
    ({"compat": {"a": object()}}, "compat.a: got <object"),
    ({"compat": {1: 2}}, "compat: got {1: 2}"),
    ({"compat": {"a": 1 << 9000}}, "9001 bits"),
    ({"progress": {"a": b""}}, "progress.a: got b''"),
    ({"rng_states": {"a": "\udcff"}}, "surrogate"),
    ({"sequence": 3}, "fields: got"),
    ({"ts_ns": 3}, "fields: got"),
    ({"sha512_payload": "0"}, "fields: "),
    ({"something": 1}, "something"),
]


@pytest.mark.parametrize(
    ("change", "message"), WRONG, ids=[re.sub(" at 0x.*", "", str(change))[:40] for change, _ in WRONG]
)
def test_wrong_fields_are_named_and_nothing_is_written(
    store: CheckpointStore, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        store.save("light", fields(**change), parts())
    assert not store.folder.exists()


@pytest.mark.parametrize("name", sorted(R36_FIELDS - {"ts_ns", "version", "merkle_prev", "sha512_payload"}))
def test_every_field_of_the_contract_must_be_given(store: CheckpointStore, name: str) -> None:
    given = fields()
    del given[name]
    with pytest.raises(ArgumentError, match=name):
        store.save("light", given, parts())
    assert not store.folder.exists()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "/a", "a\\b", ".a", "a\0b", "a\n", "CKPT_manifest.json", MANIFEST, "é", "a" * 101],
)
def test_part_names_are_plain(store: CheckpointStore, name: str) -> None:
    with pytest.raises(ArgumentError, match="parts: got"):
        store.save("light", fields(), {**parts(), name: b""})
    assert not store.folder.exists()


def test_wrong_parts_kinds_and_options(store: CheckpointStore) -> None:
    for bad in (bytearray(b"1"), "1", None, np.zeros(1)):
        with pytest.raises(ArgumentError, match=r"parts\['a'\]: got .*; accepted: bytes"):
            store.save("light", fields(), {**parts(), "a": bad})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="differ in more than case"):
        store.save("light", fields(), {**parts(), "A": b"", "a": b""})
    for bad in (None, [], "a"):
        with pytest.raises(ArgumentError, match="parts: got"):
            store.save("light", fields(), bad)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="fields: got"):
            store.save("light", bad, parts())  # type: ignore[arg-type]
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    with pytest.raises(ArgumentError, match="fields: maximum recursion"):
        store.save("light", fields(progress=itself), parts())
    for kind in ("", "heavy", None, []):
        with pytest.raises(ArgumentError, match="kind: got"):
            store.save(kind, fields(), parts())  # type: ignore[arg-type]
    for keep in (0, -1, True, 2.0, None):
        with pytest.raises(ArgumentError, match="keep: got"):
            CheckpointStore(store.folder, keep=keep)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="part: got 'none'"):
        store.save("light", fields(), parts()).read("none")


# R36: no room in the middle: what was there stays, byte for byte
def test_a_full_disk_leaves_the_checkpoints_there(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save("light", fields(), parts())
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(FileError) as caught:
        store.save("light", fields(), parts(seed=1))
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(store.folder / "ckpt-00000002"))
    assert {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()} == before
    assert names(store) == [1]
    assert store.save("light", fields(), parts(seed=1)).manifest.sequence == 2


class Killed(BaseException):
    """The process is dead: nothing that it still tries has an effect."""


STEPS = ("open", "fsync", "mkdir", "rename", "unlink", "rmdir")


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the system's step of this number, and all after it, not happen; the steps that were asked for."""
    asked: list[str] = []

    def dying(step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            asked.append(step)
            if len(asked) > number:
                raise Killed
            return real(*args, **options)

        return call

    for step in STEPS:
        monkeypatch.setattr(os, step, dying(step, getattr(os, step)))
    return asked


# R36: killed at any step of a save that rotates, the run has the old state or the new one, and goes on from it
def test_killed_at_every_step_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_steps, found_numbers = 1000, set()
    for number in range(1000):
        if number > n_steps:
            break
        folder = tmp_path / str(number)
        store = CheckpointStore(folder, keep=2)
        before = [store.save("light", fields(), parts(300, seed)) for seed in range(2)]
        with monkeypatch.context() as patch:
            asked = killed_at(number, patch)
            try:
                store.save("light", fields(), parts(300, 2))
                n_steps = number
            except Killed:
                pass
        again = CheckpointStore(folder, keep=2)
        found = again.latest()
        assert found is not None and found.manifest.sequence in (2, 3), asked
        assert found.read("search.npz") == parts(300, found.manifest.sequence - 1)["search.npz"]
        assert found.manifest.sequence == 3 or found.manifest == before[1].manifest
        assert again.latest() == found  # recovery changes nothing
        found_numbers.add(found.manifest.sequence)
        saved = again.save("light", fields(), parts(300, 9))
        assert saved.manifest.sequence == found.manifest.sequence + 1
        assert names(again) == [found.manifest.sequence, saved.manifest.sequence]
        assert len(list(folder.iterdir())) == 2
    assert 12 < n_steps < 100 and found_numbers == {2, 3}


# R36: the checkpoint is safe, so that a rotation that fails is an event
def test_a_rotation_that_fails_is_an_event(
    store: CheckpointStore, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        store.save("light", fields(), parts())
    events.all.clear()

    def refused(path: Path) -> None:
        raise FileError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(store_module, "remove_tree_atomic", refused)
    saved = store.save("light", fields(), parts())
    assert events.names == ["CHECKPOINT_ROTATION_FAILED", "CHECKPOINT_WRITTEN"]
    assert load_checkpoint(saved.path).manifest == saved.manifest


# R37: a checkpoint on a medium that cannot be written is read as any other
def test_a_read_only_folder_can_be_read(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        store.save("light", fields(), parts(seed=seed))

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for owner, step in ((Path, "mkdir"), (Path, "rename"), (Path, "unlink"), (os, "fsync"), (os, "utime")):
        monkeypatch.setattr(owner, step, read_only)
    again = CheckpointStore(store.folder)
    found = again.latest()
    assert found is not None and found.read("search.npz") == parts(seed=2)["search.npz"]
    with pytest.raises(FileError) as caught:
        again.save("light", fields(), parts())
    assert caught.value.errno == errno.EROFS


# R37: "no permission" or "no descriptors left" says nothing about the newest: an older one in its place is work lost
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM])
def test_a_refusal_that_is_not_its_fault_is_raised(
    store: CheckpointStore, events: Events, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for _ in range(2):
        store.save("light", fields(), parts())
    events.all.clear()

    def refused(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files_module.os, "open", refused)
    with pytest.raises(FileError) as caught:
        store.latest()
    assert caught.value.errno == number
    assert events.names == []


# R37: a medium that cannot be read is damage like any other
def test_an_unreadable_newest_one_is_refused(
    store: CheckpointStore, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        store.save("light", fields(), parts())
    events.all.clear()
    real = os.open

    def refused(path: Any, *rest: Any) -> int:
        if "ckpt-00000002" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *rest)

    monkeypatch.setattr(files_module.os, "open", refused)
    found = store.latest()
    assert found is not None and found.manifest.sequence == 1
    assert events.names == ["CHECKPOINT_REFUSED", "LATEST_VALID_CKPT"]


# R38: every event goes into a real log, whatever bytes the folder's name has
def test_events_go_into_the_ledger(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with EventLog(tmp_path / "events.jsonl", run_id="demo") as log:
        store = CheckpointStore(folder, emit=log.emit)
        for _ in range(2):
            last = store.save("light", fields(), parts())
        (last.path / "search.npz").unlink()
        assert store.latest() is not None
        assert log.size == 4


def test_a_manifest_is_the_same_bytes_each_time(store: CheckpointStore) -> None:
    manifest = store.save("light", fields(), parts()).manifest
    assert manifest.encode() == Manifest.decode(manifest.encode()).encode()
    with pytest.raises(FormatError, match=r"^here: not a checkpoint's manifest"):
        Manifest.decode(b"{}", "here")
