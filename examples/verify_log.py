"""Verify a vesu event log, tree heads and proofs with Python's standard library alone: vesu is not needed.

Each line is a JSON record, its body the line without the member "hash". hash = SHA-256(body); prev = hash of the line
before, or 64 zeros; seq counts from 0; ts_ns never falls. Merkle tree of RFC 9162, leaves SHA-256(0x00 || body).
A head is C2SP tlog-checkpoint text, a proof the JSON of `vesu ledger prove`. Exit code 1: something does not hold.
Not checked: that the JSON is canonical (RFC 8785); the hashes cover each byte all the same.
"""

import argparse
import base64
import hashlib
import json
from pathlib import Path


def expect(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below their number
    return node(root_of(leaves[:split]), root_of(leaves[split:]))


def read_record(line: bytes, seq: int) -> tuple[dict, bytes]:
    """Record number `seq`, its hash checked, and its Merkle leaf."""
    record = json.loads(line)
    body = line.replace(b'"hash":"%s",' % record["hash"].encode(), b"", 1)
    expect(hashlib.sha256(body).hexdigest() == record["hash"] and record["seq"] == seq, "hash or seq is wrong")
    return record, hashlib.sha256(b"\x00" + body).digest()


def read_log(path: Path) -> list[bytes]:
    """Check every record; the Merkle leaves."""
    prev, ts_ns, leaves = "0" * 64, 0, []
    for seq, line in enumerate(path.open("rb")):
        if not line.endswith(b"\n"):
            print(f"torn: {len(line)} bytes of a last record that a crash cut off")
            break
        try:
            record, leaf = read_record(line[:-1], seq)
            expect(record["prev"] == prev and int(record["ts_ns"]) >= ts_ns, "prev or ts_ns is wrong")
        except Exception as error:
            raise ValueError(f"record {seq}: {error!r}") from error
        prev, ts_ns = record["hash"], int(record["ts_ns"])
        leaves.append(leaf)
    print(f"intact: {len(leaves)} entries, root {root_of(leaves).hex()}")
    return leaves


def read_claims(file: Path) -> dict[int, str]:
    """The sizes that a tree head, or a proof that holds (RFC 9162, section 2.1), speaks of, and their roots."""
    text = file.read_text(encoding="utf-8")
    if not text.startswith("{"):
        _, size, root = text.split("\n")[:3]
        return {int(size): base64.b64decode(root, validate=True).hex()}
    proof = json.loads(text)
    path, leaf = [bytes.fromhex(text) for text in proof["path"]], proof["kind"] == "inclusion"
    first, second = (proof["index"] + 1, proof["size"]) if leaf else (proof["first"], proof["second"])
    roots = {second: proof["root"]} if leaf else {first: proof["first_root"], second: proof["second_root"]}
    expect(int(leaf) <= first <= second, "the sizes are wrong")
    low = 0 if leaf else (first & -first).bit_length() - 1  # levels below the node that the path starts from
    if leaf:
        path.insert(0, read_record(proof["record"].encode(), first - 1)[1])
    elif first in (0, second):
        expect(not path and proof["first_root"] == roots[first], "nothing to prove, yet something is")
        return roots
    elif first >> low == 1:
        path.insert(0, bytes.fromhex(proof["first_root"]))
    at, last, old, new = first - 1 >> low, second - 1 >> low, path[0], path[0]
    inner = (at ^ last).bit_length()  # above, on the tree's right edge, all siblings lie to the left
    for level, side in enumerate(path[1:]):
        old, new = (node(side, old), node(side, new)) if level >= inner or at >> level & 1 else (old, node(new, side))
    expect(len(path) == 1 + inner + (at >> inner).bit_count(), "the path's length is wrong")
    expect(new.hex() == roots[second] and (leaf or old.hex() == roots[first]), "the path does not lead to the root")
    return roots


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", nargs="?", type=Path)
    parser.add_argument("--head", "--proof", dest="claims", nargs="+", action="extend", type=Path, default=[])
    given = parser.parse_args()
    try:
        leaves, known = read_log(given.log) if given.log else [], {0: root_of([]).hex()}
        for file in given.claims:
            for size, root in read_claims(file).items():
                expect(known.setdefault(size, root) == root, f"{file}: size {size} has two roots")
                right = not given.log or (size <= len(leaves) and root == root_of(leaves[:size]).hex())
                expect(right, f"{file}: the log had another root when its size was {size}")
            print(f"holds: {file}")
    except Exception as error:
        raise SystemExit(f"does not hold: {error}") from error
