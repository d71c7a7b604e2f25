"""Are the golden nonces traceable: is every line of the timeline in the log, and the other way round (R31, R44)?"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vesu.errors import FileError
from vesu.ledger import canonical_json
from vesu.run.gates.evidence import LOG, Evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed

__all__ = ["EVENTS", "FOUND", "TIMELINE", "nonces", "nonces_are_asked"]

FOUND, FINAL = "GOLDEN_NONCE_FOUND", "GOLDEN_NONCE_TOPK_FINAL"

EVENTS = (FINAL,)
"""What is collected beforehand; the nonces themselves may be millions, and are read one by one."""

TIMELINE = "v3_golden_nonce_timeline.jsonl"

KEYS = ("ts_ns", "volume_id", "z", "y", "x", "score")

_MARK = f'"event":"{FOUND}"'.encode()


def nonces(evidence: Evidence) -> Gate:
    """Timeline and log hold the same nonces in the same order, and as many as the last event says."""
    final = evidence.newest(FINAL, since=evidence.retrained())
    asked = nonces_are_asked(evidence)
    if not asked:
        return not_applicable("not asked for") if final is None else failed(f"{FINAL} in a run that asked for none")
    if final is None:
        return failed(f"asked for, and no {FINAL} in the log")
    path = evidence.folder / TIMELINE
    if not path.is_file():
        return failed(f"asked for, and no {TIMELINE}")
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    for number, (line, event) in enumerate(itertools.zip_longest(_lines(path), _logged(evidence, final)), start=1):
        if line is None:
            return failed(f"a nonce of the log stands not in {TIMELINE}, which ends with line {number - 1}")
        if event is None:
            return failed(f"line {number} of {TIMELINE} is not in the log")
        if line != canonical_json({key: event[key] for key in KEYS}) + b"\n":
            return failed(f"line {number} of {TIMELINE} is not record {event['seq']} of the log")
        digest.update(line)
        counts[event["volume_id"]] += 1
    told = {name: count for name, count in final["volumes"].items() if count}
    if (told, final["found"], final["timeline_sha256"]) != (counts, counts.total(), digest.hexdigest()):
        return failed(f"{FINAL} does not count what the log and {TIMELINE} hold: {counts.total()} nonces")
    return passed(f"{counts.total()} nonces of {len(final['volumes'])} volumes, each in the log and in {TIMELINE}")


def nonces_are_asked(evidence: Evidence) -> bool:
    """Whether the run was to look for golden nonces."""
    return bool(evidence.section("nonces").get("use"))


def _logged(evidence: Evidence, final: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The nonces in the log up to the event that ends them."""
    since = evidence.retrained()
    for line in _lines(evidence.folder / LOG):
        if _MARK in line and line.endswith(b"\n"):
            event = json.loads(line)
            if event.get("event") == FOUND and since < event["seq"] < final["seq"]:
                yield event


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
