"""An independent verifier of event logs: hashlib and json only, written from the format's description."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def tree_head(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(tree_head(leaves[:k]), tree_head(leaves[k:]))


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(n: int) -> int:
    """The largest power of two below n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def inclusion_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D) of RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*inclusion_path(m, leaves[:k]), tree_head(leaves[k:])]
    return [*inclusion_path(m - k, leaves[k:]), tree_head(leaves[:k])]


def consistency_path(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D, b) of RFC 9162, section 2.1.4.1; no hash from size 0."""
    if m == 0:
        return []
    if m == len(leaves):
        return [] if whole else [tree_head(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*consistency_path(m, leaves[:k], whole), tree_head(leaves[k:])]
    return [*consistency_path(m - k, leaves[k:], False), tree_head(leaves[:k])]


def inclusion_holds(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """The steps of RFC 9162, section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def consistency_holds(first: int, second: int, path: list[bytes], first_root: bytes, second_root: bytes) -> bool:
    """The steps of RFC 9162, section 2.1.4.2, for 0 < first < second."""
    if first & (first - 1) == 0:
        path = [first_root, *path]
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root


def leaves_of(path: Path) -> list[bytes]:
    """The Merkle leaves of a log."""
    lines = path.read_bytes().splitlines()
    return [leaf_hash(re.sub(rb'"hash":"[0-9a-f]{64}",', b"", line, count=1)) for line in lines]


def verify(path: Path) -> tuple[int, str, str]:
    """Entries, tree head and last hash; AssertionError where the chain breaks."""
    head, leaves = "0" * 64, []
    for number, line in enumerate(path.read_bytes().splitlines()):
        record = json.loads(line)
        assert (record["seq"], record["prev"]) == (number, head)
        body = line.replace(b'"hash":"' + record["hash"].encode() + b'",', b"", 1)
        head = hashlib.sha256(body).hexdigest()
        assert head == record["hash"]
        leaves.append(leaf_hash(body))
    return len(leaves), tree_head(leaves).hex(), head


def es6_number(number: float) -> str:
    """ECMAScript's Number::toString (section 6.1.6.1.20), from the digits of Python's shortest repr."""
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, part = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = whole + ("" if part == "0" and not exponent else part)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    k, n = len(digits), point
    if k <= n <= 21:
        text = digits + "0" * (n - k)
    elif 0 < n <= 21:
        text = f"{digits[:n]}.{digits[n:]}"
    elif -6 < n <= 0:
        text = f"0.{'0' * -n}{digits}"
    else:
        tail = f".{digits[1:]}" if k > 1 else ""
        text = f"{digits[0]}{tail}e{'+' if n > 0 else '-'}{abs(n - 1)}"
    return sign + text


def canonical(value: Any) -> str:
    """RFC 8785, with integers beyond 2^53 as decimal strings."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value) if abs(value) <= 2**53 else f'"{value}"'
    if isinstance(value, float):
        return es6_number(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    return "[" + ",".join(canonical(item) for item in value) + "]"
