"""The event ledger: an append-only log whose every record can be checked.

A log is a text file of JSON lines. Each line is the canonical JSON (RFC 8785) of one record:

``event``, ``seq`` (from 0), ``ts_ns`` (nanoseconds since 1970, a decimal string), the caller's fields,
``prev`` and ``hash``, and ``nonfinite`` where it applies. With *body* the canonical JSON of the record without its
``hash`` member:

- ``hash`` is SHA-256(body) in hexadecimal; the next record's ``prev`` repeats it; the first ``prev`` is 64 zeros;
- the record's leaf in the Merkle tree of RFC 9162 is SHA-256(0x00 || body); ``root`` is that tree's head.

Values: an integer beyond 2^53 is written as a decimal string; a number that is not finite is written as ``null`` and
its field is named in ``nonfinite`` (dotted for a nested field; an array counts as one field).

A chain shows that nothing before its end was changed. That nothing was cut off the end, and that the log was not
written anew, is shown by a *tree head* kept elsewhere: its size and root, written as a C2SP tlog-checkpoint
(:meth:`LedgerWriter.checkpoint`). A *consistency proof* then shows that a later log goes on from it, an *inclusion
proof* that one record is in the log, without the rest of it. ``docs/ledger.md`` tells the whole.
"""

from vesu.ledger.heads import TreeHead, parse_checkpoint
from vesu.ledger.proofs import (
    ConsistencyProof,
    InclusionProof,
    consistency_proof,
    inclusion_proof,
    parse_proof,
    verify_consistency,
    verify_inclusion,
)
from vesu.ledger.reader import (
    LedgerReport,
    canonical_json,
    checkpoint,
    describe,
    iter_events,
    root_at,
    tree_head,
    verify,
)
from vesu.ledger.writer import LedgerWriter

__all__ = [
    "ConsistencyProof",
    "InclusionProof",
    "LedgerReport",
    "LedgerWriter",
    "TreeHead",
    "canonical_json",
    "checkpoint",
    "consistency_proof",
    "describe",
    "inclusion_proof",
    "iter_events",
    "parse_checkpoint",
    "parse_proof",
    "root_at",
    "tree_head",
    "verify",
    "verify_consistency",
    "verify_inclusion",
]
