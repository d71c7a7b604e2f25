"""`vesu ledger verify | head | prove`, each with what the others printed."""

import json
from pathlib import Path

import pytest

from vesu.cli import main
from vesu.ledger import LedgerWriter, inclusion_proof, parse_checkpoint, parse_proof, verify


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A log of 30 records with tree heads of 20 and 30, and proofs about it."""
    with LedgerWriter(tmp_path / "log") as ledger:
        for i in range(30):
            ledger.append("TEST", {"i": i})
    for name, words in {
        "head20": ["head", "{}/log", "--size", "20", "--origin", "example.com/é"],
        "head30": ["head", "{}/log"],
        "record": ["prove", "{}/log", "--record", "7"],
        "record20": ["prove", "{}/log", "--record", "7", "--size", "20"],
        "since20": ["prove", "{}/log", "--since", "20"],
        "since0": ["prove", "{}/log", "--since", "0"],
    }.items():
        assert main(["ledger", *(word.format(tmp_path) for word in words)]) == 0
        (tmp_path / name).write_text(capsys.readouterr().out, encoding="utf-8")
    return tmp_path


def test_heads_and_proofs_are_printed_whole(folder: Path) -> None:  # R38
    head = parse_checkpoint((folder / "head20").read_text(encoding="utf-8"))
    assert (head.origin, head.size) == ("example.com/é", 20)
    assert parse_checkpoint((folder / "head30").read_text()).root == verify(folder / "log").root
    assert parse_proof((folder / "record").read_text()) == inclusion_proof(folder / "log", 7)
    assert json.loads((folder / "since20").read_text())["first_root"] == head.root


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("{}/log", ["intact: 30 entries, root"]),
        ("{}/log --head {}/head20 --head {}/head30", ["intact", "size 20 is this log's", "size 30 is this log's"]),
        ("{}/log --proof {}/record --head {}/head20", ["intact", "agrees", "record 7 is in the log of 30 records"]),
        ("{}/log --proof {}/since20", ["intact", "proved: the log of 30 records goes on from its first 20"]),
        ("--proof {}/record --head {}/head30", ["proved: record 7 is in the log of 30 records"]),
        ("--proof {}/record20 --head {}/head20", ["proved: record 7 is in the log of 20 records"]),
        ("--proof {}/since20 --head {}/head20 --head {}/head30", ["goes on from its first 20"]),
        ("--proof {}/since20 --head {}/head20", ["goes on from its first 20, if root"]),
        ("--proof {}/record", ["record 7 is in the log of 30 records, if root"]),
    ],
)
def test_what_holds(words: str, printed: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R38
    assert main(["ledger", "verify", *words.replace("{}", str(folder)).split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(printed)
    for line, text in zip(lines, printed, strict=True):
        assert text in line
        assert line.endswith(" right") == text.endswith("if root")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("verify", "LOG, --proof: got neither"),
        (
            "verify {}/short --head {}/head30",
            "the tree head is of 30 records, {}/short has only 25: its end is missing",
        ),
        ("verify {}/short --proof {}/record", "the proof is of 30 records, {}/short has only 25: its end is missing"),
        ("verify {}/other --head {}/head20", "the tree head of size 20 is not of {}/other: that had other records"),
        ("verify {}/other --proof {}/record", "its root of size 30 is not that of the tree head"),
        ("verify {}/other --proof {}/since20", "its root of size 20 is not that of the tree head"),
        ("verify --proof {}/record --head {}/head20", "it is about size 30, the tree head is of size 20"),
        ("verify --proof {}/forged", "its record says seq 7, the proof says 6"),
        ("verify --proof {}/head20", "not JSON"),
        ("verify {}/log --head {}/record", "checkpoint text"),
        ("verify {}/log --head {}/binary", "{}/binary: not UTF-8 text"),
        ("verify {}/log --head {}/missing", "missing"),
        ("verify {}/damaged", "record 7: "),
        ("head {}/damaged", "record 7: "),
        ("head {}/log --size 31", "size: got 31"),
        ("prove {}/damaged --record 3", "record 7: "),
        ("prove {}/log --record 30", "index: got 30; accepted: 0 to 29"),
        ("prove {}/log --since 31", "first: got 31; accepted: 0 to 30"),
    ],
)
def test_what_does_not_hold(words: str, problem: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R38
    lines = (folder / "log").read_bytes().splitlines(keepends=True)
    (folder / "short").write_bytes(b"".join(lines[:25]))
    (folder / "damaged").write_bytes(b"".join(lines).replace(b'"i":7', b'"i":8'))
    (folder / "forged").write_text((folder / "record").read_text().replace('"index": 7', '"index": 6'))
    (folder / "binary").write_bytes(b"\xff\xfe")
    with LedgerWriter(folder / "other") as ledger:
        for i in range(30):
            ledger.append("TEST", {"i": -i})
    assert main(["ledger", *words.replace("{}", str(folder)).split()]) == 2
    errors = capsys.readouterr().err
    assert problem.replace("{}", str(folder)) in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("words", ["prove log", "prove log --record 1 --since 1", "head", "prove log --record x"])
def test_wrong_words_are_explained(words: str, capsys: pytest.CaptureFixture[str]) -> None:  # R38
    with pytest.raises(SystemExit) as caught:
        main(["ledger", *words.split()])
    assert caught.value.code == 2
    assert "usage: vesu ledger" in capsys.readouterr().err
