"""A log whose end a power cut tore: what a checkpoint covers is never cut, what lies behind may be (R38)."""

import hashlib
from pathlib import Path

import pytest

from vesu.errors import ArgumentError, EvidenceError
from vesu.ledger import LedgerWriter, iter_events, verify


@pytest.fixture
def holed(tmp_path: Path) -> tuple[Path, tuple[int, str], bytes]:
    """Five synced records, then five of which the first two were lost in between, as zeros; the head of the five."""
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as log:
        for number in range(5):
            log.append("KEPT", {"number": number})
        log.sync()
        head = (log.size, log.root)
        synced = path.stat().st_size
        for number in range(5, 10):
            log.append("UNSYNCED", {"number": number})
    data = path.read_bytes()
    lines = data[synced:].split(b"\n")
    end = b"\0" * (len(lines[0]) + len(lines[1]) + 1) + b"\n" + b"\n".join(lines[2:])
    path.write_bytes(data[:synced] + end)
    return path, head, end


def test_a_hole_behind_what_was_durable_is_cut_off(holed: tuple[Path, tuple[int, str], bytes]) -> None:  # R38
    path, head, end = holed
    with LedgerWriter(path, durable=head) as log:
        assert log.torn_bytes == len(end)
        log.append("AFTER")
    events = list(iter_events(path))
    assert [event["event"] for event in events] == ["KEPT"] * 5 + ["LEDGER_TAIL_TRUNCATED", "AFTER"]
    assert (events[5]["torn_bytes"], events[5]["torn_sha256"]) == (len(end), hashlib.sha256(end).hexdigest())
    assert "JSON" in events[5]["problem"]
    assert verify(path).entries == 7


def test_without_a_head_the_same_is_refused(holed: tuple[Path, tuple[int, str], bytes]) -> None:  # R38
    path, _, _ = holed
    before = path.read_bytes()
    with pytest.raises(EvidenceError, match="record 5:"):
        LedgerWriter(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["size", "root"])
def test_a_head_of_another_log_covers_nothing(holed: tuple[Path, tuple[int, str], bytes], change: str) -> None:  # R38
    path, (size, root), _ = holed
    before = path.read_bytes()
    head = (size - 1, root) if change == "size" else (size, root[::-1])
    with pytest.raises(EvidenceError, match="record 5:"):
        LedgerWriter(path, durable=head)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [1, 3])
def test_a_log_that_was_rolled_back_is_refused(tmp_path: Path, size: int) -> None:  # R38
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as log:
        log.append_many([("A", {}), ("B", {})])
        head = (log.size, log.root)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    if size == 3:  # another past, and a longer one
        with LedgerWriter(path) as log:
            log.append_many([("C", {}), ("D", {})])
    with pytest.raises(EvidenceError, match="does not begin with the tree that was durable"):
        LedgerWriter(path, durable=head)


@pytest.mark.parametrize("record", range(5))
def test_damage_in_what_was_durable_is_refused(holed: tuple[Path, tuple[int, str], bytes], record: int) -> None:  # R38
    path, head, _ = holed
    lines = path.read_bytes().split(b"\n")
    lines[record] = lines[record].replace(b'"KEPT"', b'"LOST"')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(EvidenceError, match=f"record {record}:"):
        LedgerWriter(path, durable=head)


def test_a_head_changes_nothing_about_a_whole_log(tmp_path: Path) -> None:  # R38
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as log:
        log.append("A")
        head = (log.size, log.root)
        log.append("B")
    before = path.read_bytes()
    LedgerWriter(path, durable=head).close()
    assert path.read_bytes() == before


def test_a_root_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="durable: got root"):
        LedgerWriter(tmp_path / "events.jsonl", durable=(1, "abc"))
