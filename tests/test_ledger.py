"""The event ledger: format, chain, tree, refusals of values."""

import hashlib
import json
import math
import threading
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_ledger as reference
from vesu.errors import ArgumentError, EvidenceError, FileError
from vesu.ledger import LedgerWriter, canonical_json, describe, iter_events, tree_head, verify

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def write(path: Path, *fields: dict[str, Any]) -> LedgerWriter:
    with LedgerWriter(path) as ledger:
        for one in fields:
            ledger.append("TEST", one)
    return ledger


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_canonical_json_agrees_with_the_reference(value: Any) -> None:  # R38
    assert canonical_json(value).decode() == reference.canonical(value)


@settings(max_examples=500, deadline=None)
@given(FINITE)
def test_numbers_are_written_as_ecmascript_does(number: float) -> None:  # R38
    assert canonical_json(number).decode() == reference.es6_number(number)
    assert float(canonical_json(number)) == number


def test_tree_heads_agree_with_the_definition_for_every_size() -> None:  # R38
    entries = [bytes([i]) * (i % 5) for i in range(131)]
    for n in range(131):
        assert tree_head(entries[:n]) == reference.tree_head([reference.leaf_hash(e) for e in entries[:n]]).hex()


def test_tree_heads_of_certificate_transparency() -> None:  # R38
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    head = tree_head(bytes.fromhex(entry) for entry in entries)
    assert head == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_record_is_what_the_format_says(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    with LedgerWriter(path) as ledger:
        assert ledger.append("RUN_START", {"é": [1.0, 2**60], "bad": -math.inf}, ts_ns=1_790_000_000_000_000_000) == 0
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    stated = record.pop("hash")
    body = reference.canonical(record).encode()
    assert stated == hashlib.sha256(body).hexdigest() == ledger.head
    assert record == {
        "event": "RUN_START",
        "seq": 0,
        "ts_ns": "1790000000000000000",
        "prev": "0" * 64,
        "é": [1, str(2**60)],
        "bad": None,
        "nonfinite": ["bad"],
    }
    assert text == reference.canonical(record | {"hash": stated}) + "\n"
    assert ledger.root == reference.leaf_hash(body).hex()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(TEXT.map("x".__add__), VALUES, max_size=6), max_size=6))
def test_any_log_verifies_here_and_independently(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "log"  # R38
    ledger = write(path, *records)
    report = verify(path)
    assert (report.entries, report.root, report.head) == (ledger.size, ledger.root, ledger.head)
    assert (report.entries, report.root, report.head) == reference.verify(path)
    assert len(list(iter_events(path))) == len(records)


def test_an_empty_log_verifies(tmp_path: Path) -> None:  # R38
    write(tmp_path / "log")
    report = verify(tmp_path / "log")
    assert (report.entries, report.root, report.head) == (0, hashlib.sha256(b"").hexdigest(), "0" * 64)
    assert report.first_ts_ns is None
    assert "entries     0" in describe(report)


def test_nonfinite_fields_are_named_once_each(tmp_path: Path) -> None:  # R51
    nan = float("nan")
    write(
        tmp_path / "log", {"loss": np.float32("inf"), "many": [nan, 1.0, nan], "deep": {"b": [{"c": nan}] * 3}, "d": 1}
    )
    event = next(iter_events(tmp_path / "log"))
    assert event["nonfinite"] == ["deep.b.c", "loss", "many"]
    assert (event["loss"], event["many"]) == (None, [None, 1, None])


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int16(-3), -3),
        (np.uint64(2**63), str(2**63)),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (-(2**53), -(2**53)),
        (2**53 + 1, str(2**53 + 1)),
        (-(10**30), str(-(10**30))),
        ((1, (2,)), [1, [2]]),
        (-0.0, 0),
    ],
)
def test_values_that_are_accepted(value: object, written: object) -> None:  # R38
    parsed = json.loads(canonical_json(value))
    assert parsed == written
    assert type(parsed) is type(written)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
WIDE: list[Any] = [1] * 10
for _ in range(20):
    WIDE = [WIDE] * 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": {"b": [0, {1, 2}]}}, r'fields: got set at "a.b\[1\]"; accepted: str, int'),
        ({"a": b"x"}, 'got bytes at "a"'),
        ({"a": np.zeros(3)}, 'got ndarray at "a"'),
        ({"a": np.longdouble(1)}, 'got .*longdouble at "a"'),
        ({"a": 1j}, 'got complex at "a"'),
        ({"a": MappingProxyType({})}, 'got mappingproxy at "a"'),
        ({"a": Path("x")}, 'Path at "a"'),
        ({"a": {1: 2}}, 'the key 1 at "a"; accepted: str keys'),
        ({"a": "\ud800"}, 'lone surrogate at "a"'),
        ({"\ud800": 1}, "lone surrogate"),
        ({"a": 10**5000}, 'at "a"'),
        ({"a": CYCLE}, "nesting"),
        ({"a": WIDE}, "at most 4194304 bytes"),
        ({"a": "x" * 5_000_000}, 'too much at "a"'),
        ({"a": "\x00" * 1_000_000}, "a record of 6000"),
        ({"hash": 1}, 'the field "hash"; accepted: any field name but event, hash'),
        ({"ts_ns": 1}, "ts_ns"),
        (7, "fields|int"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, fields: Any, message: str) -> None:  # R38
    with LedgerWriter(tmp_path / "log") as ledger:
        with pytest.raises((ArgumentError, TypeError), match=message):
            ledger.append("TEST", fields)
        assert ledger.size == 0
        assert ledger.append("TEST", {"after": 1}) == 0
    assert verify(tmp_path / "log").entries == 1


def test_names_times_and_paths_that_are_refused(tmp_path: Path) -> None:  # R38
    with LedgerWriter(tmp_path / "log") as ledger:
        for name in ("", 3, None, "\ud800"):
            with pytest.raises(ArgumentError, match="name"):
                ledger.append(name, {})  # type: ignore[arg-type]
        for ts_ns in (-1, 2**64, 1.5, "1"):
            with pytest.raises(ArgumentError, match="ts_ns"):
                ledger.append("TEST", {}, ts_ns=ts_ns)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match='set at "b"'):
            ledger.append_many([("TEST", {"a": 1}), ("TEST", {"b": set()})])
        with pytest.raises(ArgumentError, match='the field "prev"'):
            ledger.append_many([("TEST", {"a": 1}), ("TEST", {"prev": 1})])
        assert ledger.size == 0
    with pytest.raises(ArgumentError, match="path"):
        LedgerWriter(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="finite"):
        canonical_json({"a": [float("nan")]})


def test_a_closed_log_says_so_and_keeps_its_head(tmp_path: Path) -> None:  # R38
    ledger = write(tmp_path / "log", {"a": 1})
    ledger.close()
    assert ledger.closed
    assert (ledger.size, ledger.root) == (1, verify(tmp_path / "log").root)
    for call in (lambda: ledger.append("TEST"), ledger.flush, ledger.sync):
        with pytest.raises(ArgumentError, match="closed"):
            call()


def test_time_never_runs_backwards(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    with LedgerWriter(path) as ledger:
        for ts_ns in (10, 5, 20):
            ledger.append("TEST", ts_ns=ts_ns)
    with LedgerWriter(path) as ledger:
        ledger.append("TEST", ts_ns=1)
    assert [event["ts_ns"] for event in iter_events(path)] == ["10", "10", "20", "20"]
    report = verify(path)
    assert (report.first_ts_ns, report.last_ts_ns) == (10, 20)


def test_batches_are_one_record_an_entry(tmp_path: Path) -> None:  # R51
    with LedgerWriter(tmp_path / "log") as ledger:
        assert ledger.append_many([("A", {"i": 0}), ("B", {"i": 1})]) == 0
        first = ledger.append_iterations(
            "TRAIN_ITERATION",
            iteration=3,
            max_iter=120,
            candidate_first=10,
            loss=[0.5, float("nan"), 0.25],
            gradient_norm=np.array([1, 2, 3]),
            nonzero=[7, 8, 9],
            common={"epoch": 2, "run_id": "r"},
        )
        assert first == 2
        with pytest.raises(ArgumentError, match="lengths"):
            ledger.append_iterations(
                "X", iteration=1, max_iter=1, candidate_first=0, loss=[1.0], gradient_norm=[1.0, 2.0], nonzero=[1]
            )
        with pytest.raises(ArgumentError, match="loss"):
            ledger.append_iterations(
                "X", iteration=1, max_iter=1, candidate_first=0, loss=[1.0], gradient_norm=[1.0], nonzero=[1],
                common={"loss": 1},
            )  # fmt: skip
        assert ledger.size == 5
    own = [{k: v for k, v in e.items() if k not in ("hash", "prev", "ts_ns")} for e in iter_events(tmp_path / "log")]
    shared = {"event": "TRAIN_ITERATION", "epoch": 2, "run_id": "r", "iter": 3, "max_iter": 120}
    assert own[2:] == [
        shared | {"seq": 2, "candidate": 10, "loss": 0.5, "grad_norm": 1, "nonzero": 7},
        shared | {"seq": 3, "candidate": 11, "loss": None, "grad_norm": 2, "nonzero": 8, "nonfinite": ["loss"]},
        shared | {"seq": 4, "candidate": 12, "loss": 0.25, "grad_norm": 3, "nonzero": 9},
    ]
    assert verify(tmp_path / "log").entries == 5


def test_threads_share_one_chain(tmp_path: Path) -> None:  # R38
    def work(ledger: LedgerWriter, who: int) -> None:
        for i in range(300):
            ledger.append("TEST", {"who": who, "i": i})
            if i % 50 == 0:
                ledger.sync()

    with LedgerWriter(tmp_path / "log") as ledger:
        threads = [threading.Thread(target=work, args=(ledger, who)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.size == 1200
    assert verify(tmp_path / "log").entries == 1200
    seen = [(event["who"], event["i"]) for event in iter_events(tmp_path / "log")]
    for who in range(4):
        assert [i for w, i in seen if w == who] == list(range(300))


def test_iter_events_names_what_it_cannot_read(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    path.write_bytes(b'{"a":1}\n[2]\n')
    events = iter_events(path)
    assert next(events) == {"a": 1}
    with pytest.raises(EvidenceError, match="record 1"):
        next(events)
    with pytest.raises(FileError):
        list(iter_events(tmp_path / "missing"))
