"""Damaged, swapped, rolled-back and hostile checkpoints: each is refused, by name (R36, R37)."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_fields import fields, parts
from vesu.errors import FileError, FormatError, VesuError
from vesu.ledger import canonical_json
from vesu.run.checkpoint import MANIFEST, Checkpoint, CheckpointStore, Manifest, load_checkpoint
from vesu.run.checkpoint.manifest import MAX_BYTES

PAYLOAD = 64 << 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return CheckpointStore(tmp_path_factory.mktemp("saved")).save("full", fields(), parts(PAYLOAD))


@pytest.fixture
def copy(saved: Checkpoint, tmp_path: Path) -> Path:
    """The checkpoint's folder, to be damaged."""
    return shutil.copytree(saved.path, tmp_path / saved.path.name)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# R36: every bit of the manifest
def test_every_flipped_bit_of_a_manifest_is_seen(saved: Checkpoint) -> None:
    data = saved.manifest.encode()
    assert Manifest.decode(data) == saved.manifest
    for bit in range(8 * len(data)):
        with pytest.raises(FormatError):
            Manifest.decode(flipped(data, bit))


# R36: every truncation, and whatever is added
def test_every_truncation_of_a_manifest_is_seen(saved: Checkpoint) -> None:
    data = saved.manifest.encode()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            Manifest.decode(data[:length])
    for more in (b" ", b"\n", b"\0", b"{}", data):
        with pytest.raises(FormatError):
            Manifest.decode(data + more)
        with pytest.raises(FormatError):
            Manifest.decode(more + data)


# R36: a sample of the payload's bits; the fault campaign flips them all
def test_flipped_bits_of_a_payload_are_seen(copy: Path) -> None:
    part = copy / "search.npz"
    data = part.read_bytes()
    assert len(data) == PAYLOAD and load_checkpoint(copy).read("search.npz") == data
    bits = {0, 7, 8 * PAYLOAD - 8, 8 * PAYLOAD - 1, *random.Random(0).sample(range(8 * PAYLOAD), 250)}
    for bit in bits:
        part.write_bytes(flipped(data, bit))
        with pytest.raises(FormatError, match=r"search\.npz: its content does not match its sha512"):
            load_checkpoint(copy)


def test_truncated_and_longer_payloads_are_seen(copy: Path) -> None:
    part = copy / "search.npz"
    data = part.read_bytes()
    for length in {0, 1, 4095, 4096, PAYLOAD - 1, *random.Random(1).sample(range(PAYLOAD), 50)}:
        part.write_bytes(data[:length])
        with pytest.raises(FormatError, match=f"search.npz: {length} bytes"):
            load_checkpoint(copy)
    part.write_bytes(data + b"\0")
    with pytest.raises(FormatError, match="bytes or more"):
        load_checkpoint(copy)


# R36: what happens between the load and the reading of a part is seen too
def test_a_part_that_changes_after_the_load_is_seen(copy: Path) -> None:
    checkpoint = load_checkpoint(copy)
    data = (copy / "search.npz").read_bytes()
    for bad in (flipped(data, 99), data[:-1], data + b"\0", b""):
        (copy / "search.npz").write_bytes(bad)
        with pytest.raises(FormatError, match=r"search\.npz"):
            checkpoint.read("search.npz")
    (copy / "search.npz").unlink()
    with pytest.raises(FileError, match=r"search\.npz"):
        checkpoint.read("search.npz")


@pytest.mark.parametrize("name", [MANIFEST, "search.npz", "cursor.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(FileError) as caught:
        load_checkpoint(copy)
    assert caught.value.filename == str(copy / name)


# A pipe would keep its reader waiting for ever, a device may have no end.
@pytest.mark.parametrize("name", [MANIFEST, "search.npz"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused(copy: Path, name: str, make: Callable[[Path], None]) -> None:
    (copy / name).unlink()
    make(copy / name)
    with pytest.raises(VesuError, match=name):
        load_checkpoint(copy)


@pytest.fixture
def generations(tmp_path: Path) -> list[Path]:
    """Three checkpoints whose parts are of the same sizes."""
    store = CheckpointStore(tmp_path / "checkpoints")
    return [store.save("light", fields(iter=10 * seed), parts(256, seed)).path for seed in range(3)]


# R36: swapped parts
def test_swapped_parts_are_seen(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save("light", fields(), {"search.npz": b"a" * 99, "b": b"b" * 99}).path
    (path / "search.npz").rename(path / "x")
    (path / "b").rename(path / "search.npz")
    (path / "x").rename(path / "b")
    with pytest.raises(FormatError, match="its content does not match its sha512"):
        load_checkpoint(path)


# R36: rolled-back files: each alone, all together, and whole folders under another number
def test_rolled_back_files_are_seen(generations: list[Path]) -> None:
    old, newer = generations[0], generations[2]
    for names in (["search.npz"], [MANIFEST], [MANIFEST, "search.npz", "cursor.json"]):
        kept = {name: (newer / name).read_bytes() for name in names}
        for name in names:
            (newer / name).write_bytes((old / name).read_bytes())
        with pytest.raises(FormatError):
            load_checkpoint(newer)
        found = CheckpointStore(newer.parent).latest()
        assert found is not None and found.path == generations[1]
        for name, data in kept.items():
            (newer / name).write_bytes(data)
    assert load_checkpoint(newer).manifest.iter == 20


def test_a_folder_under_another_number_is_refused(generations: list[Path]) -> None:
    shutil.copytree(generations[0], generations[0].with_name("ckpt-00000009"))
    with pytest.raises(FormatError, match="holds checkpoint 1"):
        load_checkpoint(generations[0].with_name("ckpt-00000009"))
    # Under a name that carries no number (a download, say) it is what its manifest says.
    shutil.copytree(generations[0], generations[0].with_name("download"))
    assert load_checkpoint(generations[0].with_name("download")).manifest.sequence == 1


# R36: the message says which seal is broken
def test_the_broken_seal_is_named(saved: Checkpoint) -> None:
    data = saved.manifest.encode()
    seals = {b'"epoch": 1': b'"epoch": 2', b'"bytes": 12,': b'"bytes": 13,'}
    for (old, new), seal in zip(seals.items(), ("sha512_manifest", "sha512_payload"), strict=True):
        with pytest.raises(FormatError, match=f"its content does not match its {seal}"):
            Manifest.decode(data.replace(old, new))


def sealed(content: dict[str, Any]) -> bytes:
    """The bytes of a manifest by somebody who knows how to seal."""
    content = {name: value for name, value in content.items() if not name.startswith("sha512_")}
    content["sha512_payload"] = hashlib.sha512(canonical_json(content.get("parts"))).hexdigest()
    content["sha512_manifest"] = hashlib.sha512(canonical_json(content)).hexdigest()
    lines = [f"{json.dumps(name)}: {json.dumps(content[name], sort_keys=True)}" for name in sorted(content)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def test_sealing_by_hand_works(saved: Checkpoint) -> None:
    """Else the refusals below would prove nothing."""
    content = json.loads(saved.manifest.encode())
    assert Manifest.decode(sealed(content)) == saved.manifest
    assert Manifest.decode(sealed({**content, "epoch": 77})).epoch == 77


SHA = "ab" * 64
HOSTILE: list[tuple[str, Any]] = [
    ("epoch", -1),
    ("epoch", "1"),
    ("epoch", 1.0),
    ("epoch", True),
    ("epoch", None),
    ("epoch", [1]),
    ("iter", 2**63),
    ("iter", -(2**53)),
    ("ts_ns", 5),
    ("ts_ns", "-5"),
    ("ts_ns", "9" * 19),
    ("ts_ns", "9" * 4000),
    ("ts_ns", "007"),
    ("ts_ns", ""),
    ("kind", "heavy"),
    ("kind", ["full"]),
    ("format", "vesu-checkpoint/2"),
    ("format", None),
    ("run_id", ""),
    ("phase", 7),
    ("merkle_prev", "z" * 64),
    ("merkle_curr", "a" * 63),
    ("compat", None),
    ("compat", []),
    ("data_cursor", "x"),
    ("nonfinite", "x"),
    ("nonfinite", [1]),
    ("nonfinite", {"a": 1}),
    ("model_state", {"part": "../../etc/passwd"}),
    ("parts", None),
    ("parts", []),
    ("parts", {"a": None}),
    ("parts", {"a": {"bytes": 1}}),
    ("parts", {"a": {"bytes": "1", "sha512": SHA}}),
    ("parts", {"a": {"bytes": -1, "sha512": SHA}}),
    ("parts", {"a": {"bytes": 1.0, "sha512": SHA}}),
    ("parts", {"a": {"bytes": 1, "sha512": SHA[1:]}}),
    ("parts", {"a": {"bytes": 1, "sha512": SHA.upper()}}),
    ("parts", {"a": {"bytes": 1, "sha512": SHA, "more": 1}}),
    ("parts", {"a": {"bytes": 1, "sha512": SHA}, "A": {"bytes": 1, "sha512": SHA}}),
    *(
        ("parts", {name: {"bytes": 1, "sha512": SHA}})
        for name in ("../a", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0", ".a", "é", MANIFEST, "C:a")
    ),
    ("unknown", 1),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=[f"{name}={str(value)[:30]!r}" for name, value in HOSTILE])
def test_sealed_nonsense_is_refused(saved: Checkpoint, name: str, value: Any) -> None:
    content = {**json.loads(saved.manifest.encode()), name: value}
    with pytest.raises(FormatError, match=f"^{MANIFEST}: "):
        Manifest.decode(sealed(content))


@pytest.mark.parametrize(
    "name", ["parts", "ts_ns", "sha512_payload", "sha512_manifest", "epoch", "format", "nonfinite"]
)
def test_a_missing_member_is_named(saved: Checkpoint, name: str) -> None:
    content = json.loads(saved.manifest.encode())
    del content[name]
    with pytest.raises(FormatError, match=name):
        Manifest.decode(json.dumps(content).encode())


# Numbers without end, depths without end, texts that JSON reads but nobody wrote.
@pytest.mark.parametrize(
    "old_new",
    [
        (b'"epoch": 1,', b'"epoch": ' + b"9" * 5000 + b","),
        (b'"epoch": 1,', b'"epoch": 1e999,'),
        (b'"epoch": 1,', b'"epoch": -Infinity,'),
        (b'"epoch": 1,', b'"epoch": NaN,'),
        (b'"epoch": 1,', b'"epoch": 1, "epoch": 1,'),
        (b'"epoch": 1,', b'"epoch": 1.0,'),
        (b'"epoch": 1,', b'"epoch":  1,'),
        (b'"epoch": 1,', b'"epoch": \xff,'),
        (b'"distillation_state": {}', b'"distillation_state": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        (b'"distillation_state": {}', b'"distillation_state": ' + b"[" * 100_000 + b"]" * 100_000),
        (b'"distillation_state": {}', b'"distillation_state": {"a": ' + b"[" * 40 + b"]" * 40 + b"}"),
        (b'"distillation_state": {}', b'"distillation_state": {"a": "\\udcff"}'),
        (b"\n", b"\r\n"),
    ],
    ids=lambda pair: repr(pair[1][:30]),
)
def test_texts_that_nobody_wrote_are_refused(saved: Checkpoint, old_new: tuple[bytes, bytes]) -> None:
    data = saved.manifest.encode()
    assert old_new[0] in data
    with pytest.raises(FormatError, match=f"^{MANIFEST}: "):
        Manifest.decode(data.replace(*old_new))


def test_a_manifest_without_end_is_not_read_whole(copy: Path) -> None:
    with (copy / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(FormatError, match=f"the limit is {MAX_BYTES}"):
        load_checkpoint(copy)


# R36: a part that claims to be larger than memory is refused by its size, before a byte is read
def test_a_part_that_claims_everything_is_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_bytes())
    content["parts"]["search.npz"]["bytes"] = 2**53
    (copy / MANIFEST).write_bytes(sealed(content))
    with pytest.raises(FormatError, match=f"search.npz: {PAYLOAD} bytes or more; accepted: the {2**53}"):
        load_checkpoint(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=3),
    max_leaves=9,
)


# R36: whatever a run puts into its fields comes back as it is in memory
@settings(max_examples=40, deadline=None)
@given(state=st.dictionaries(st.text("abc", max_size=3), JSON, max_size=4))
def test_any_json_comes_back(state: dict[str, Any]) -> None:
    manifest = Manifest(
        **fields(data_cursor=state, model_state={}, optimizer_state={}),
        ts_ns=1,
        version="0",
        merkle_prev="0" * 64,
        sequence=1,
        kind="light",
        parts={},
    )
    assert Manifest.decode(manifest.encode()) == manifest


# R37: whatever the bytes are, the answer is the manifest or a FormatError
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mutation_of_a_manifest_is_refused(saved: Checkpoint, data: st.DataObject) -> None:
    whole = saved.manifest.encode()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    mutant = whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:]
    if mutant != whole:
        with pytest.raises(FormatError):
            Manifest.decode(mutant)
