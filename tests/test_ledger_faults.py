"""The event ledger against damage, crashes, full disks and wrong files."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from vesu.errors import EvidenceError, FileError
from vesu.ledger import LedgerWriter, iter_events, verify


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as ledger:
        for i in range(4):
            ledger.append("TEST", {"i": i, "text": 'a "é"', "x": 0.1 * i, "nan": float("nan")}, ts_ns=100 + i)
    return path


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_flip_of_every_byte_is_detected_or_torn(log: Path) -> None:  # R38
    whole = log.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        log.write_bytes(damaged)
        record = whole.count(b"\n", 0, at)
        if at == len(whole) - 1:  # the last line feed itself: a record without an end is a torn one
            report = verify(log)
            assert (report.entries, report.torn_bytes > 0) == (3, True)
            continue
        with pytest.raises(EvidenceError, match=f"record {record}: "):
            verify(log)


def test_every_truncation_is_torn_and_mended(log: Path) -> None:  # R38
    whole = log.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(0, len(whole), 7):
        log.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        torn = length - max([end for end in ends if end <= length], default=0)
        assert (verify(log).entries, verify(log).torn_bytes) == (kept, torn)
        assert len(list(iter_events(log))) == kept
        with LedgerWriter(log) as ledger:
            assert ledger.torn_bytes == torn
            assert ledger.append("AFTER") == kept + (torn > 0)
        names = [event["event"] for event in iter_events(log)]
        assert names == ["TEST"] * kept + ["LEDGER_TAIL_TRUNCATED"] * (torn > 0) + ["AFTER"]
        assert verify(log).entries == len(names)


def test_a_tail_of_zeros_is_torn(log: Path) -> None:  # R38: what some file systems leave after power loss
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"ev' + bytes(4096))
    with LedgerWriter(log) as ledger:
        assert (ledger.torn_bytes, ledger.size) == (4100, 5)
    assert verify(log).torn_bytes == 0


def test_damage_before_the_end_is_refused_and_nothing_is_written(log: Path) -> None:  # R38
    damaged = log.read_bytes().replace(b'"i":1', b'"i":7') + b'{"torn'
    log.write_bytes(damaged)
    with pytest.raises(EvidenceError, match=r"record 1: .*events\.jsonl"):
        LedgerWriter(log)
    assert log.read_bytes() == damaged


@pytest.mark.parametrize(
    "content", [b"my notes", b'{"a":1}', b'{"a":1}\n', b"[]", b"\n", b'{\n  "a": 1\n}', b"x" * (5 << 20), b"{}" * 10]
)
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes) -> None:  # R38
    path = tmp_path / "mine"
    path.write_bytes(content)
    for call in (LedgerWriter, verify):
        with pytest.raises(EvidenceError, match="record 0: "):
            call(path)
    assert path.read_bytes() == content


def test_a_longer_line_than_any_record_is_refused(log: Path) -> None:  # R38
    with log.open("ab") as file:
        file.write(b'{"a":"' + b"x" * (5 << 20))
    with pytest.raises(EvidenceError, match="record 4: longer"):
        verify(log)


@pytest.mark.parametrize("deep", [b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000])
def test_deep_json_is_no_stack_overflow(tmp_path: Path, deep: bytes) -> None:  # R38
    path = tmp_path / "log"
    path.write_bytes(deep + b"\n")
    with pytest.raises(EvidenceError, match="record 0"):
        verify(path)
    with pytest.raises(EvidenceError, match="record 0"):
        list(iter_events(path))


def test_paths_that_cannot_be_a_log(tmp_path: Path) -> None:  # R38
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, tmp_path / "no" / "folder", fifo, Path("/dev/null"), tmp_path / "nul\0byte"):
        for call in (LedgerWriter, verify):
            with pytest.raises(FileError):
                call(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_without_permission(log: Path) -> None:  # R38
    log.chmod(0o444)
    with pytest.raises(FileError) as caught:
        LedgerWriter(log)
    assert caught.value.filename == str(log)


def test_one_writer_a_file(log: Path) -> None:  # R38
    with LedgerWriter(log) as first:
        first.append("FIRST")
        with pytest.raises(FileError, match="another writer"):
            LedgerWriter(log)
    with LedgerWriter(log) as second:
        assert second.append("SECOND") == 5


def test_flushed_records_survive_a_kill_and_the_chain_goes_on(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    code = """
        import os, signal, sys
        from vesu.ledger import LedgerWriter
        ledger = LedgerWriter(sys.argv[1])
        for i in range(10):
            ledger.append("TEST", {"i": i})
        ledger.flush()
        ledger.append("BUFFERED")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, path).returncode == -9
    with LedgerWriter(path) as ledger:
        assert ledger.append("AFTER") == 10
    assert verify(path).entries == 11


def test_a_log_dropped_without_close_is_flushed(tmp_path: Path) -> None:  # R38
    LedgerWriter(tmp_path / "log").append("TEST")
    assert verify(tmp_path / "log").entries == 1


def test_a_full_disk_refuses_whole_records_and_loses_none(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    code = """
        import resource, sys
        from vesu.errors import FileError
        from vesu.ledger import LedgerWriter
        ledger = LedgerWriter(sys.argv[1])
        ledger.append("BEFORE")
        ledger.sync()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        accepted, refused = 1, 0
        while refused < 3:
            try:
                assert ledger.append("TEST", {"text": "x" * 500}) == accepted
                accepted += 1
            except FileError as error:
                assert error.errno == 27 and error.filename == sys.argv[1], error
                refused += 1
        for call in (ledger.flush, ledger.sync, ledger.close):
            try:
                call()
                sys.exit("a full disk went unseen")
            except FileError:
                pass
        assert ledger.size == accepted
        if sys.argv[2] == "room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            ledger.append("AFTER")
            ledger.close()
        print(accepted)
    """
    done = run_python(code, path, "room")
    assert done.returncode == 0, done.stderr
    accepted = int(done.stdout)
    assert verify(path).entries == accepted + 1
    path.unlink()
    done = run_python(code, path, "none")
    assert done.returncode == 0, done.stderr
    report = verify(path)
    assert 1 < report.entries < accepted
    assert path.stat().st_size == 300_000
    with LedgerWriter(path) as ledger:
        assert ledger.torn_bytes == report.torn_bytes > 0


def test_a_forked_child_cannot_write_its_parents_records_twice(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    code = """
        import os, sys
        from vesu.errors import FileError
        from vesu.ledger import LedgerWriter
        ledger = LedgerWriter(sys.argv[1])
        ledger.append("PARENT")
        child = os.fork()
        if child == 0:
            ledger.append("CHILD")
            try:
                ledger.flush()
            except FileError:
                del ledger
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        ledger.append("PARENT")
        ledger.close()
    """
    done = run_python(code, path)
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in iter_events(path)] == ["PARENT", "PARENT"]
    assert verify(path).entries == 2


def test_ctrl_c_stops_a_long_verification(tmp_path: Path) -> None:  # R38
    path = tmp_path / "log"
    with LedgerWriter(path) as ledger:
        for _ in range(60):
            ledger.append_many([("TEST", {"numbers": [0.1] * 100_000})])
    threading.Timer(0.1, lambda: os.kill(os.getpid(), 2)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify(path)
    assert time.monotonic() - start < 0.1 + 0.5
