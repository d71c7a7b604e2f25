"""Tree heads as C2SP tlog-checkpoint text, and what is durable when one is handed out."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_ledger as reference
from vesu.errors import ArgumentError, EvidenceError, FormatError
from vesu.ledger import LedgerWriter, TreeHead, checkpoint, parse_checkpoint, root_at, verify

EMPTY = "vesu/run\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
SAMPLE = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"
SIGNED = SAMPLE + (
    "\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo"
    "+zyWE+xeMcTOAYQ8=\n"
)


def test_each_head_of_a_log_is_the_definition_s(tmp_path: Path) -> None:  # R38
    with LedgerWriter(tmp_path / "log") as ledger:
        texts = [ledger.checkpoint()]
        for i in range(20):
            ledger.append("TEST", {"i": i})
            texts.append(ledger.checkpoint(origin="example.com/é"))
    leaves = reference.leaves_of(tmp_path / "log")
    assert texts[0] == EMPTY
    for size, text in enumerate(texts):
        head = parse_checkpoint(text)
        assert (head.size, head.root) == (size, reference.tree_head(leaves[:size]).hex())
        assert head.root == root_at(tmp_path / "log", size)
        assert text == checkpoint(tmp_path / "log", size, origin=head.origin) == head.checkpoint()
    assert ledger.checkpoint() == checkpoint(tmp_path / "log")  # a closed log keeps its head


def test_the_sample_of_the_format_s_description() -> None:  # R38
    assert parse_checkpoint(SAMPLE).checkpoint() == SAMPLE
    assert parse_checkpoint(SIGNED) == parse_checkpoint(SAMPLE)
    assert parse_checkpoint(SAMPLE + "an extension\n") == parse_checkpoint(SAMPLE)
    assert parse_checkpoint(SAMPLE).size == 20852163


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_any_head_comes_back(origin: str, size: int, root: bytes) -> None:  # R38
    head = TreeHead(origin, size, root.hex())
    assert parse_checkpoint(head.checkpoint()) == head


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its last line has no end"),
        (SAMPLE[:-1], "its last line has no end"),
        (None, "got NoneType"),
        (SAMPLE.encode(), "got bytes"),
        ("a\n1\n", "2 lines"),
        (SAMPLE.replace("example", "\texample"), r"line 1 is '\\texample"),
        (SAMPLE.replace("\n", "\r\n"), r"line 1 is .*\\r"),
        (SAMPLE.replace("example", "\ud800"), "line 1"),
        ("\n" + SAMPLE[SAMPLE.index("2085") :], "line 1 is ''"),
        (SAMPLE + "\n", "no signature"),
        (SAMPLE + "\nsomething\n", "no signature"),
        (SIGNED + "\n", "line 4 is ''|no signature"),
        (SAMPLE.replace("20852163", "020852163"), "the size is '020852163'"),
        (SAMPLE.replace("20852163", "-1"), "the size is '-1'"),
        (SAMPLE.replace("20852163", "٣"), "the size is '٣'"),
        (SAMPLE.replace("20852163", str(2**64)), "the size is '18446744073709551616'"),
        (SAMPLE.replace(ROOT, ROOT[:-1]), "the root is"),
        (SAMPLE.replace(ROOT, ROOT[:-2] + "J="), "the root is"),  # the same 32 bytes, with spare bits set
        (SAMPLE.replace(ROOT, ROOT[4:]), "the root is"),
        (SAMPLE.replace(ROOT, "é" * 44), "the root is"),
        (SAMPLE.replace(ROOT, ROOT + " "), "the root is"),
    ],
)
def test_texts_that_are_no_head(text: str, message: str) -> None:  # R38
    with pytest.raises(FormatError, match=f"checkpoint text: .*({message})"):
        parse_checkpoint(text)


def test_origins_and_sizes_that_are_refused(tmp_path: Path) -> None:  # R38
    with LedgerWriter(tmp_path / "log") as ledger:
        for origin in ("", "a\nb", "\x00", "\ud800", 3):
            with pytest.raises(ArgumentError, match="origin"):
                ledger.checkpoint(origin)  # type: ignore[arg-type]
            with pytest.raises(ArgumentError, match="origin"):
                checkpoint(ledger.path, origin=origin)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="size: got 1; accepted: 0 to 0"):
        checkpoint(tmp_path / "log", 1)
    (tmp_path / "log").write_bytes(b'{"a":1}\n')
    with pytest.raises(EvidenceError, match="record 0"):
        checkpoint(tmp_path / "log")


def test_a_head_that_was_handed_out_outlives_the_process(tmp_path: Path) -> None:  # R36 R38
    program = textwrap.dedent("""
        import os, signal, sys
        from vesu.ledger import LedgerWriter
        ledger = LedgerWriter(sys.argv[1])
        ledger.append_many([("TEST", {"i": i}) for i in range(50)])
        print(ledger.checkpoint(), end="", flush=True)
        ledger.append("LOST")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "log"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == -9
    head = parse_checkpoint(answer.stdout)
    assert head.size == 50 == verify(tmp_path / "log").entries
    with LedgerWriter(tmp_path / "log") as ledger:
        assert ledger.root_at(head.size) == head.root
