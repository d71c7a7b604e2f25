"""Are the golden nonces traceable: is every line of the timeline in the log, and the other way round (R31, R44)?"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vesu.errors import FileError
from vesu.run.gates.evidence import LOG, Evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed

__all__ = ["EVENTS", "FOUND", "TIMELINE", "nonces", "nonces_are_asked"]

START, FOUND, FINAL = "GOLDEN_NONCE_TIMELINE_START", "GOLDEN_NONCE_FOUND", "GOLDEN_NONCE_TOPK_FINAL"

EVENTS = (START, FINAL)
"""What is collected beforehand; the nonces themselves may be millions, and are read one by one."""

TIMELINE = "v3_golden_nonce_timeline.jsonl"

# Members stand in the order of their names, and a text holds no bare quote: `,"score":` can only be a member.
_RECORD = re.compile(
    rb'\{"event":"GOLDEN_NONCE_FOUND",.*,"score":([^,]+),"seq":(\d+),'
    rb'("ts_ns":"\d+","volume_id":("(?:[^"\\]|\\.)*"),.*\}\n)'
)
_MARK = f'{{"event":"{FOUND}",'.encode()


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
    counts: Counter[bytes] = Counter()
    digest = hashlib.sha256()
    for number, (line, logged) in enumerate(itertools.zip_longest(_lines(path), _logged(evidence, final)), start=1):
        if line is None:
            return failed(f"a nonce of the log stands not in {TIMELINE}, which ends with line {number - 1}")
        if logged is None:
            return failed(f"line {number} of {TIMELINE} is not in the log")
        expected, sequence, volume = logged
        if line != expected:
            return failed(f"line {number} of {TIMELINE} is not record {sequence} of the log")
        digest.update(line)
        counts[volume] += 1
    found = {json.loads(name): count for name, count in counts.items()}
    told = {name: count for name, count in final["volumes"].items() if count}
    if (told, final["found"], final["timeline_sha256"]) != (found, counts.total(), digest.hexdigest()):
        return failed(f"{FINAL} does not count what the log and {TIMELINE} hold: {counts.total()} nonces")
    return passed(f"{counts.total()} nonces of {len(final['volumes'])} volumes, each in the log and in {TIMELINE}")


def nonces_are_asked(evidence: Evidence) -> bool:
    """Whether the run was to look for golden nonces."""
    return bool(evidence.section("nonces").get("use"))


def _logged(evidence: Evidence, final: Mapping[str, Any]) -> Iterator[tuple[bytes, int, bytes]]:
    """The nonces in the log from where their timeline begins to where it ends: line, record number, volume."""
    begun = [event["seq"] for event in evidence.named(START) if event["seq"] < final["seq"]]
    since = max([evidence.retrained(), *begun])
    for number, record in enumerate(_lines(evidence.folder / LOG)):
        if number >= final["seq"]:
            return
        if number > since and record.startswith(_MARK):
            found = _RECORD.fullmatch(record)
            if found is None:
                raise ValueError(f"record {number} is no {FOUND} with place and score")
            score, sequence, rest, volume = found.groups()
            yield b'{"score":' + score + b"," + rest, int(sequence), volume


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
