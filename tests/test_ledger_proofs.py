"""Inclusion and consistency proofs of logs on disk, against RFC 9162's own definitions and steps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_ledger as reference
from vesu import _core
from vesu.errors import ArgumentError, EvidenceError, FileError, FormatError, VesuError
from vesu.ledger import (
    ConsistencyProof,
    InclusionProof,
    LedgerWriter,
    TreeHead,
    consistency_proof,
    inclusion_proof,
    parse_checkpoint,
    parse_proof,
    root_at,
    verify_consistency,
    verify_inclusion,
)

RECORDS = 21


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "events.jsonl"
    with LedgerWriter(path) as ledger:
        for i in range(RECORDS):
            # A nested member of the ledger's own name must not be taken for it.
            ledger.append("TEST", {"a": {"hash": "0" * 64}, "i": i, "text": 'é "x"', "x": 0.1 * i})
    return path


@pytest.fixture(scope="module")
def leaves(log: Path) -> list[bytes]:
    return reference.leaves_of(log)


def test_every_inclusion_proof_is_the_definition_s(log: Path, leaves: list[bytes]) -> None:  # R38
    lines = log.read_text(encoding="utf-8").splitlines()
    for size in range(1, RECORDS + 1):
        root = reference.tree_head(leaves[:size])
        for index in range(size):
            proof = inclusion_proof(log, index, size)
            path = reference.inclusion_path(index, leaves[:size])
            hexes = tuple(node.hex() for node in path)
            assert proof == InclusionProof(index, size, lines[index], hexes, root.hex())
            assert reference.inclusion_holds(leaves[index], index, size, path, root)
            verify_inclusion(proof, TreeHead("x", size, root.hex()))
            assert parse_proof(json.dumps(proof.to_json())) == proof
    assert inclusion_proof(log, 3) == inclusion_proof(log, 3, RECORDS)


def test_every_consistency_proof_is_the_definition_s(log: Path, leaves: list[bytes]) -> None:  # R38
    roots = [reference.tree_head(leaves[:size]) for size in range(RECORDS + 1)]
    for second in range(RECORDS + 1):
        for first in range(second + 1):
            proof = consistency_proof(log, first, second)
            path = reference.consistency_path(first, leaves[:second])
            hexes = tuple(node.hex() for node in path)
            assert proof == ConsistencyProof(first, second, hexes, roots[first].hex(), roots[second].hex())
            if 0 < first < second:
                assert reference.consistency_holds(first, second, path, roots[first], roots[second])
            verify_consistency(
                proof, TreeHead("x", first, roots[first].hex()), TreeHead("x", second, proof.second_root)
            )
            assert parse_proof(json.dumps(proof.to_json())) == proof
    assert consistency_proof(log, 3) == consistency_proof(log, 3, RECORDS)


def test_the_checker_takes_what_the_rfc_s_steps_take_and_nothing_else() -> None:  # R38
    leaves = [reference.leaf_hash(bytes([i])) for i in range(9)]
    nodes = [*leaves, *(reference.tree_head(leaves[:n]) for n in range(10))]
    seen = set()
    for size in range(10):
        for index in range(10):
            for of in range(1, 10):
                for at in range(of):
                    path, root = reference.inclusion_path(at, leaves[:of]), reference.tree_head(leaves[:of])
                    expected = reference.inclusion_holds(leaves[at], index, size, path, root)
                    hexes = [node.hex() for node in path]
                    args = (leaves[at].hex(), index, size, hexes, root.hex())
                    assert holds(_core.ledger_verify_inclusion, *args) == expected
                    seen.add(expected)
    for first, second in [(a, b) for b in range(2, 10) for a in range(1, b)]:
        path = reference.consistency_path(first, leaves[:second])
        for x in nodes:
            for y in nodes:
                expected = reference.consistency_holds(first, second, path, x, y)
                hexes = [node.hex() for node in path]
                assert holds(_core.ledger_verify_consistency, first, second, hexes, x.hex(), y.hex()) == expected
                seen.add(expected)
    assert seen == {True, False}


def holds(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except EvidenceError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_proof_is_refused(log: Path, data: st.DataObject) -> None:  # R38
    size = data.draw(st.integers(2, RECORDS))
    if data.draw(st.booleans()):
        proof: Any = inclusion_proof(log, data.draw(st.integers(0, size - 1)), size)
    else:
        proof = consistency_proof(log, data.draw(st.integers(1, size - 1)), size)
    heads = [
        TreeHead("x", getattr(proof, number), getattr(proof, root))
        for number, root in (("size", "root"), ("first", "first_root"), ("second", "second_root"))
        if hasattr(proof, number)
    ]
    members = proof.to_json()
    name = data.draw(st.sampled_from(sorted(members.keys() - {"kind"})))
    value = members[name]
    if isinstance(value, int):
        members[name] = data.draw(st.integers(0, 2**64 - 1).filter(lambda other: other != value))
    elif isinstance(value, str):
        members[name] = change(value, data)
    else:
        kept = data.draw(st.lists(st.integers(0, len(value) - 1), max_size=len(value) + 1)) if value else []
        members[name] = [value[i] for i in kept]
        if members[name] == value and value:
            i = data.draw(st.integers(0, len(value) - 1))
            members[name][i] = change(value[i], data)
        elif members[name] == value:
            members[name] = [heads[0].root]
    with pytest.raises((EvidenceError, ArgumentError)):
        found = parse_proof(json.dumps(members))
        if isinstance(found, InclusionProof):
            verify_inclusion(found, *heads)
        else:
            verify_consistency(found, *heads)


def change(text: str, data: st.DataObject) -> str:
    i = data.draw(st.integers(0, len(text) - 1))
    return text[:i] + data.draw(st.sampled_from("0123456789abcdefg").filter(lambda one: one != text[i])) + text[i + 1 :]


def test_a_head_from_elsewhere_must_be_the_proof_s(log: Path) -> None:  # R38
    inclusion, consistency = inclusion_proof(log, 3, 8), consistency_proof(log, 5, 8)
    right, wrong = TreeHead("x", 8, root_at(log, 8)), TreeHead("x", 8, root_at(log, 7))
    verify_inclusion(inclusion, right, right)
    verify_consistency(consistency, right)
    for check in (lambda head: verify_inclusion(inclusion, head), lambda head: verify_consistency(consistency, head)):
        with pytest.raises(EvidenceError, match="its root of size 8 is not that of the tree head"):
            check(wrong)
        with pytest.raises(EvidenceError, match=r"it is about size .*8, the tree head is of size 9"):
            check(TreeHead("x", 9, root_at(log, 9)))


def test_a_proof_of_another_record_s_line_is_refused(log: Path) -> None:  # R38
    proof, other = inclusion_proof(log, 3), inclusion_proof(log, 4)
    with pytest.raises(EvidenceError, match="its record says seq 4, the proof says 3"):
        verify_inclusion(replace(proof, record=other.record))
    for record, problem in [
        (proof.record.replace('"i":3', '"i":5'), "its content does not match its hash"),
        (proof.record.replace('"i":3', '"i": 3'), "its text is not canonical JSON"),
        ("{", "not a JSON object"),
        ('{"hash":""}', "it has no seq"),
    ]:
        with pytest.raises(EvidenceError, match=f"proof: its record: {problem}"):
            verify_inclusion(replace(proof, record=record))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log: inclusion_proof(log, 21), "index: got 21; accepted: 0 to 20"),
        (lambda log: inclusion_proof(log, 8, 8), "index: got 8; accepted: 0 to 7"),
        (lambda log: inclusion_proof(log, 0, 0), "index: got 0; accepted: none"),
        (lambda log: inclusion_proof(log, 0, 22), "size: got 22; accepted: 0 to 21, the records of"),
        (lambda log: inclusion_proof(log, -1), "index: got -1"),
        (lambda log: inclusion_proof(log, True), "index: got True"),
        (lambda log: inclusion_proof(log, 2**64 - 1), "index: got 18446744073709551615"),
        (lambda log: inclusion_proof(log, 0, 2**64), "size: got 18446744073709551616"),
        (lambda log: inclusion_proof(log, 1.0), "index: got 1.0"),
        (lambda log: consistency_proof(log, 22), "first: got 22; accepted: 0 to 21"),
        (lambda log: consistency_proof(log, 5, 4), "first: got 5; accepted: 0 to 4"),
        (lambda log: consistency_proof(log, 5, 22), "second: got 22; accepted: 0 to 21"),
        (lambda log: root_at(log, 22), "size: got 22; accepted: 0 to 21"),
        (lambda log: inclusion_proof(3, 1), "path: got int"),
        (lambda log: verify_inclusion(replace(inclusion_proof(log, 3), root="AB" * 32)), "root: got"),
        (lambda log: verify_inclusion(replace(inclusion_proof(log, 3), path=("0",))), "path: got"),
        (lambda log: verify_consistency(replace(consistency_proof(log, 3), first=-1)), "first: got -1"),
    ],
)
def test_arguments_that_are_refused(log: Path, call: Any, message: str) -> None:  # R38
    with pytest.raises(ArgumentError, match=message):
        call(log)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "its kind is None"),
        ('{"kind":"other"}', "its kind is 'other'"),
        ('{"kind":"inclusion"}', r"its members are \[\]; accepted: kind and"),
        ('{"kind":"consistency","first":1,"second":true,"path":[],"first_root":"","second_root":""}', "second is True"),
        ('{"kind":"consistency","first":1,"second":2,"path":"ab","first_root":"","second_root":""}', "a list of text"),
        ('{"kind":"consistency","first":1,"second":2,"path":[1],"first_root":"","second_root":""}', "a list of text"),
        ('{"kind":"consistency","first":1,"second":2,"path":[],"first_root":1,"second_root":""}', "first_root is 1"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_texts_that_are_no_proof(text: str, message: str) -> None:  # R38
    with pytest.raises(FormatError, match=message):
        parse_proof(text)


def test_damage_is_met_up_to_the_size_and_not_beyond(log: Path, tmp_path: Path) -> None:  # R38
    damaged = tmp_path / "log"
    damaged.write_bytes(log.read_bytes().replace(b'"i":9', b'"i":8'))
    assert root_at(damaged, 9) == root_at(log, 9)
    assert inclusion_proof(damaged, 2, 9) == inclusion_proof(log, 2, 9)
    for call in (
        lambda: root_at(damaged, 10),
        lambda: inclusion_proof(damaged, 2),
        lambda: consistency_proof(damaged, 2, 10),
    ):
        with pytest.raises(EvidenceError, match="record 9: "):
            call()
    with pytest.raises(FileError):
        inclusion_proof(tmp_path / "missing", 0)


def test_a_log_that_is_being_written_can_be_proved(tmp_path: Path) -> None:  # R38
    with LedgerWriter(tmp_path / "log") as ledger:
        heads = []
        for i in range(40):
            ledger.append("TEST", {"i": i})
            if i % 7 == 0:
                heads.append(parse_checkpoint(ledger.checkpoint()))
        for head in heads:
            assert ledger.root_at(head.size) == head.root
            verify_inclusion(inclusion_proof(ledger.path, head.size - 1, head.size), head)
            verify_consistency(consistency_proof(ledger.path, head.size), head)
        assert ledger.root_at(40) == ledger.root
        with pytest.raises(ArgumentError, match="size: got 41"):
            ledger.root_at(41)
    assert ledger.root_at(8) == heads[1].root
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"event":"TO')
    assert inclusion_proof(ledger.path, 5).size == 40
    ledger.path.write_bytes(whole[: whole.index(b'"seq":20')])
    with pytest.raises(VesuError, match="second: got 36; accepted: 0 to 20"):
        consistency_proof(ledger.path, 1, 36)
