"""examples/verify_log.py: a stranger's verifier, which knows nothing of vesu, on good and bad evidence."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vesu.ledger import LedgerWriter, consistency_proof, inclusion_proof, verify

PROGRAM = Path(__file__).resolve().parents[1] / "examples" / "verify_log.py"
RECORDS = 9


def run(*words: object) -> subprocess.CompletedProcess[str]:
    # Isolated and without site-packages: the standard library is all there is.
    command = [sys.executable, "-I", "-S", str(PROGRAM), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    with LedgerWriter(path) as ledger:
        for i in range(RECORDS):
            ledger.append("TEST", {"a": {"hash": "f" * 64}, "i": i, "x": 1e21 * i, "nan": float("nan"), "é": "\u20ac"})
    return path


@pytest.fixture
def read_claims() -> Any:
    return runpy.run_path(str(PROGRAM))["read_claims"]


def test_it_is_short_and_needs_the_standard_library_only() -> None:  # R38
    text = PROGRAM.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        name
        for node in imports
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert modules and modules <= set(sys.stdlib_module_names)


def test_the_guide_s_example_runs() -> None:  # R38
    text = (PROGRAM.parents[1] / "docs" / "ledger.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "ledger.md", "exec"), {})


def test_a_good_log_holds(log: Path) -> None:  # R38
    answer = run(log)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"intact: {RECORDS} entries, root {verify(log).root}\n"


def test_an_empty_log_holds(tmp_path: Path) -> None:  # R38
    LedgerWriter(tmp_path / "log").close()
    assert run(tmp_path / "log").stdout == f"intact: 0 entries, root {verify(tmp_path / 'log').root}\n"


def test_a_torn_log_is_said_to_be_torn(log: Path) -> None:  # R38
    log.write_bytes(log.read_bytes()[:-9])
    report = verify(log)
    answer = run(log)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"torn: {report.torn_bytes} bytes")
    assert answer.stdout.endswith(f"intact: {RECORDS - 1} entries, root {report.root}\n")


def test_every_changed_bit_and_every_lost_or_moved_line_is_seen(log: Path, tmp_path: Path) -> None:  # R38
    read_log = runpy.run_path(str(PROGRAM))["read_log"]
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    bad = tmp_path / "bad"
    for at in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        bad.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"record {whole.count(10, 0, at)}: "):
            read_log(bad)
    member = lines[3][lines[3].index(b'"hash":"', 80) :][:74]
    for changed in (
        [*lines[:3], *lines[4:]],
        [*lines[:3], lines[4], lines[3], *lines[5:]],
        [*lines[:4], *lines[3:]],
        lines[1:],
        [*lines[:3], lines[3].replace(member, member * 2), *lines[4:]],
        [*lines[:3], b"\n", *lines[3:]],
        [*lines[:3], b"[]\n", *lines[3:]],
    ):
        bad.write_bytes(b"".join(changed))
        with pytest.raises(ValueError, match=r"record \d: "):
            read_log(bad)
    answer = run(bad)
    assert answer.returncode == 1
    assert answer.stderr.startswith("does not hold: record 3: ")


def test_a_cut_or_rewritten_log_does_not_agree_with_its_head(log: Path, tmp_path: Path) -> None:  # R38
    head = tmp_path / "head"
    with LedgerWriter(log) as ledger:
        head.write_text(ledger.checkpoint())
        ledger.append("LATER")
    assert run(log, "--head", head).returncode == 0
    lines = log.read_bytes().splitlines(keepends=True)
    for shorter in (8, 0):
        log.write_bytes(b"".join(lines[:shorter]))
        answer = run(log, "--head", head)
        assert (answer.returncode, "another root when its size was 9" in answer.stderr) == (1, True)
    log.unlink()
    with LedgerWriter(log) as ledger:
        ledger.append_many([("OTHER", {})] * 12)
    assert run(log, "--head", head).returncode == 1
    head.write_text("nonsense")
    assert run(log, "--head", head).returncode == 1


def write_proofs(log: Path, folder: Path) -> list[Path]:
    proofs = [inclusion_proof(log, i, n).to_json() for n in range(1, RECORDS + 1) for i in range(n)]
    proofs += [consistency_proof(log, m, n).to_json() for n in range(RECORDS + 1) for m in range(n + 1)]
    files = [folder / f"proof{i}.json" for i in range(len(proofs))]
    for file, proof in zip(files, proofs, strict=True):
        file.write_text(json.dumps(proof, indent=2), encoding="utf-8")
    return files


def test_every_proof_holds_with_and_without_the_log(log: Path, tmp_path: Path) -> None:  # R38
    files = write_proofs(log, tmp_path)
    for log_or_none in ([log], []):
        answer = run(*log_or_none, "--proof", *files)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count("holds: ") == len(files) == 100
    (tmp_path / "head").write_text("x\n9\n" + "A" * 43 + "=\n")
    answer = run("--proof", files[44], "--head", tmp_path / "head")
    assert (answer.returncode, "size 9 has two roots" in answer.stderr) == (1, True)


def test_every_changed_proof_is_refused(log: Path, tmp_path: Path, read_claims: Any) -> None:  # R38
    refused = 0
    for file in write_proofs(log, tmp_path):
        proof = json.loads(file.read_text(encoding="utf-8"))
        for changed in mutants(proof):
            file.write_text(json.dumps(changed), encoding="utf-8")
            with pytest.raises((ValueError, LookupError)):
                read_claims(file)
            refused += 1
    assert refused > 1000


def mutants(proof: dict[str, Any]) -> list[dict[str, Any]]:
    def flip(text: str, at: int) -> str:
        return text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]

    path = proof["path"]
    made = [proof | {"path": [*path, "00" * 32]}]
    made += [proof | {"path": path[:i] + path[i + 1 :]} for i in range(len(path))]
    made += [proof | {"path": [*path[:i], flip(path[i], 5), *path[i + 1 :]]} for i in range(len(path))]
    # From size 0 every tree goes on, and such a proof says nothing of the second root.
    roots = [] if proof.get("first") == 0 else [name for name in ("root", "first_root", "second_root") if name in proof]
    made += [proof | {name: flip(proof[name], 7)} for name in roots]
    if proof["kind"] == "inclusion":
        made += [proof | {"index": other} for other in (-1, *range(RECORDS)) if other != proof["index"]]
        made += [proof | {"record": proof["record"].replace('"TEST"', '"test"')}, proof | {"size": proof["index"]}]
    else:
        made += [proof | {"first": proof["second"] + 1}, proof | {"first": -1}]
    return made
