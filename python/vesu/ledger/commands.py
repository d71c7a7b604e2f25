"""What ``vesu ledger verify`` and ``vesu ledger prove`` do."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vesu.errors import ArgumentError, EvidenceError, FileError, FormatError
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
from vesu.ledger.reader import LedgerReport, root_at
from vesu.ledger.reader import verify as verify_log

__all__ = ["prove", "read_head", "verify"]


def verify(log: Path | None, proof: Path | None, heads: Sequence[Path]) -> Iterator[str]:
    """Check a log, a proof, or both, against tree heads; yields one line for each thing that holds."""
    if log is None and proof is None:
        raise ArgumentError("LOG, --proof: got neither; accepted: one of them, or both")
    known = [read_head(path) for path in heads]
    if log is not None:
        report = verify_log(log)
        torn = f"; {report.torn_bytes} bytes of a torn last record" if report.torn_bytes else ""
        yield f"intact: {report.entries} entries, root {report.root}{torn}"
        for head in known:
            if _root(log, report, head.size, "the tree head") != head.root:
                raise EvidenceError(f"the tree head of size {head.size} is not of {log}: that had other records")
            yield f"agrees: the tree head of size {head.size} is this log's"
    if proof is not None:
        found = parse_proof(_read(proof))
        if log is not None:  # which then vouches for the proof's roots
            known = [TreeHead(str(log), size, _root(log, report, size, "the proof")) for size in _roots(found)]
        yield f"proved: {_hold(found, known)}"


def prove(log: Path, record: int | None, since: int | None, size: int | None) -> InclusionProof | ConsistencyProof:
    """The inclusion proof of a record, or else the consistency proof since a size."""
    if record is not None:
        return inclusion_proof(log, record, size)
    return consistency_proof(log, since or 0, size)


def read_head(path: Path) -> TreeHead:
    """A tree head as ``vesu ledger head`` printed it into a file."""
    return parse_checkpoint(_read(path))


def _hold(proof: InclusionProof | ConsistencyProof, heads: Sequence[TreeHead]) -> str:
    if isinstance(proof, InclusionProof):
        verify_inclusion(proof, *heads)
        claim = f"record {proof.index} is in the log of {proof.size} records"
    else:
        verify_consistency(proof, *heads)
        claim = f"the log of {proof.second} records goes on from its first {proof.first}"
    vouched = {head.size for head in heads}
    alone = [f"root {root} of size {size}" for size, root in _roots(proof).items() if size not in vouched]
    return f"{claim}, if {' and '.join(alone)} {'is' if len(alone) == 1 else 'are'} right" if alone else claim


def _roots(proof: InclusionProof | ConsistencyProof) -> dict[int, str]:
    if isinstance(proof, InclusionProof):
        return {proof.size: proof.root}
    return {proof.first: proof.first_root, proof.second: proof.second_root}


def _root(log: Path, report: LedgerReport, size: int, whose: str) -> str:
    if size > report.entries:
        raise EvidenceError(f"{whose} is of {size} records, {log} has only {report.entries}: its end is missing")
    return report.root if size == report.entries else root_at(log, size)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text: {error}") from error
