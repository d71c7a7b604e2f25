"""Event chain: records of about 600 bytes, against what a Python user would write instead."""

import hashlib
import json
import os
import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vesu.ledger import LedgerWriter, consistency_proof, inclusion_proof, verify, verify_inclusion

EVENTS = 2000
DURABLE_EVENTS = 200
RECORDS = "ledger 2000 events of 600 bytes"
PASS = "ledger iteration records 120 x 135"
DURABLE = "ledger 200 durable events of 600 bytes"
PROOF = "ledger inclusion proof in 2000 events of 600 bytes"

FIELDS: dict[str, Any] = {
    "run_id": "0123456789abcdef0123456789abcdef",
    "phase": "fit",
    "device": "cpu",
    "epoch": 3,
    "candidate": 17,
    "iter": 44,
    "max_iter": 120,
    "loss": 0.6931471805599453,
    "grad_norm": 0.0123456789,
    "nonzero": 17,
    "ok": True,
    "thresholds": [0.35, 0.475, 0.6],
    "message": "m" * 150,
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerWriter]:
    with LedgerWriter(tmp_path / "log") as writer:
        yield writer


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "log").open("wb", buffering=1 << 18) as opened:
        yield opened


@pytest.mark.benchmark(group=RECORDS)
def test_vesu(benchmark: BenchmarkFixture, ledger: LedgerWriter) -> None:
    def run() -> None:
        for _ in range(EVENTS):
            ledger.append("TRAIN_ITERATION", FIELDS)

    benchmark(run)
    ledger.flush()
    assert 560 < ledger.path.stat().st_size / ledger.size < 640


@pytest.mark.benchmark(group=RECORDS)
def test_peer_orjson_sha256(benchmark: BenchmarkFixture, file: IO[bytes]) -> None:
    """Buffered, sorted keys, SHA-256 chain; no Merkle tree, no RFC 8785 numbers, no check of any value."""
    orjson = pytest.importorskip("orjson")
    prev = "0" * 64

    def run() -> None:
        nonlocal prev
        for seq in range(EVENTS):
            record = {"event": "TRAIN_ITERATION", "seq": seq, "ts_ns": str(time.time_ns()), **FIELDS, "prev": prev}
            text = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
            prev = hashlib.sha256(text).hexdigest()
            file.write(text[:-1])
            file.write(b',"hash":"%s"}\n' % prev.encode())

    benchmark(run)


@pytest.mark.benchmark(group=RECORDS)
def test_peer_historical(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The historical logger: the file opened for each event, json, SHA-512 (its printing left out)."""
    prev = "0" * 128
    path = tmp_path / "log"

    def run() -> None:
        nonlocal prev
        for seq in range(EVENTS):
            record = {"event": "TRAIN_ITERATION", "seq": seq, "ts_ns": str(time.time_ns()), **FIELDS, "prev": prev}
            text = json.dumps(record, sort_keys=True)
            prev = hashlib.sha512(text.encode()).hexdigest()
            with path.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({**record, "hash": prev}, sort_keys=True) + "\n")

    benchmark(run)


@pytest.mark.benchmark(group=PASS)
def test_vesu_iterations(benchmark: BenchmarkFixture, ledger: LedgerWriter) -> None:
    """All records of one pass of the default search."""
    loss = np.random.default_rng(0).random(135)
    nonzero = np.arange(135)

    def run() -> None:
        for iteration in range(1, 121):
            ledger.append_iterations(
                "TRAIN_ITERATION",
                iteration=iteration,
                max_iter=120,
                candidate_first=0,
                loss=loss,
                gradient_norm=loss,
                nonzero=nonzero,
                common={"run_id": FIELDS["run_id"], "epoch": 0},
            )

    benchmark(run)


@pytest.mark.benchmark(group=PASS)
def test_peer_iterations_orjson_sha256(benchmark: BenchmarkFixture, file: IO[bytes]) -> None:
    orjson = pytest.importorskip("orjson")
    loss = np.random.default_rng(0).random(135)
    prev = "0" * 64

    def run() -> None:
        nonlocal prev
        for iteration in range(1, 121):
            for candidate, value in enumerate(loss.tolist()):
                record = {
                    "event": "TRAIN_ITERATION",
                    "seq": candidate,
                    "ts_ns": str(time.time_ns()),
                    "run_id": FIELDS["run_id"],
                    "epoch": 0,
                    "candidate": candidate,
                    "iter": iteration,
                    "max_iter": 120,
                    "loss": value,
                    "grad_norm": value,
                    "nonzero": candidate,
                    "prev": prev,
                }
                text = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
                prev = hashlib.sha256(text).hexdigest()
                file.write(text[:-1])
                file.write(b',"hash":"%s"}\n' % prev.encode())

    benchmark(run)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "log"
    with LedgerWriter(path) as ledger:
        ledger.append_many([("TRAIN_ITERATION", FIELDS)] * EVENTS)
    return path


@pytest.mark.benchmark(group="ledger verify 2000 events of 600 bytes")
def test_vesu_verify(benchmark: BenchmarkFixture, written: Path) -> None:
    assert benchmark(verify, written).entries == EVENTS


@pytest.mark.benchmark(group="ledger verify 2000 events of 600 bytes")
def test_peer_verify_json_sha256(benchmark: BenchmarkFixture, written: Path) -> None:
    """The chain only, in Python."""

    def run() -> None:
        prev = "0" * 64
        for line in written.read_bytes().splitlines():
            record = json.loads(line)
            assert record["prev"] == prev
            prev = record["hash"]
            assert hashlib.sha256(line.replace(b'"hash":"%s",' % prev.encode(), b"", 1)).hexdigest() == prev

    benchmark(run)


@pytest.mark.benchmark(group=DURABLE)
def test_vesu_group_commit(benchmark: BenchmarkFixture, ledger: LedgerWriter) -> None:
    """One fsync for all: what a checkpoint and the end of a phase do."""

    def run() -> None:
        for _ in range(DURABLE_EVENTS):
            ledger.append("TRAIN_ITERATION", FIELDS)
        ledger.sync()

    benchmark(run)


@pytest.mark.benchmark(group=DURABLE)
def test_peer_fsync_each(benchmark: BenchmarkFixture, file: IO[bytes]) -> None:
    """Each event durable on its own; no chain at all."""
    orjson = pytest.importorskip("orjson")

    def run() -> None:
        for _ in range(DURABLE_EVENTS):
            file.write(orjson.dumps(FIELDS, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())

    benchmark(run)


@pytest.mark.benchmark(group=PROOF)
def test_vesu_prove(benchmark: BenchmarkFixture, written: Path) -> None:
    """The log verified and the proof made in the same pass."""
    proof = benchmark(inclusion_proof, written, EVENTS // 3)
    verify_inclusion(proof)
    assert len(consistency_proof(written, EVENTS // 3).path) > 5


@pytest.mark.benchmark(group=PROOF)
def test_peer_prove_in_python(benchmark: BenchmarkFixture, written: Path) -> None:
    """The example's verifier, then the proof by the RFC's definition from the leaves that it keeps."""
    program = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "verify_log.py"))

    def path(m: int, leaves: list[bytes]) -> list[bytes]:
        if len(leaves) == 1:
            return []
        k = 1 << (len(leaves) - 1).bit_length() - 1
        near, far, m = (leaves[:k], leaves[k:], m) if m < k else (leaves[k:], leaves[:k], m - k)
        return [*path(m, near), program["root_of"](far)]

    def run() -> list[bytes]:
        return path(EVENTS // 3, program["read_log"](written))

    assert tuple(node.hex() for node in benchmark(run)) == inclusion_proof(written, EVENTS // 3).path
