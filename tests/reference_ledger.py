"""An independent verifier of event logs: hashlib and json only, written from the format's description."""

import hashlib
import json
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
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_head(leaves[:split]) + tree_head(leaves[split:])).digest()


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
