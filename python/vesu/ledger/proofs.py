"""Inclusion and consistency proofs (RFC 9162 sections 2.1.3 and 2.1.4) of a log."""

import json
import os
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vesu import _core
from vesu.errors import EvidenceError, FormatError
from vesu.ledger.heads import TreeHead
from vesu.ledger.reader import as_path

__all__ = [
    "ConsistencyProof",
    "InclusionProof",
    "consistency_proof",
    "inclusion_proof",
    "parse_proof",
    "verify_consistency",
    "verify_inclusion",
]


@dataclass(frozen=True)
class InclusionProof:
    """That a record is in a log; see :func:`inclusion_proof`.

    Attributes
    ----------
    index : int
        The record's number, from 0.
    size : int
        Number of records of the log.
    record : str
        The record's line, without its line feed.
    path : tuple of str
        The proof's hashes, from the record up, 64 hexadecimal digits each.
    root : str
        The log's Merkle tree head, hexadecimal.
    """

    kind: ClassVar[str] = "inclusion"
    index: int
    size: int
    record: str
    path: tuple[str, ...]
    root: str

    def to_json(self) -> dict[str, Any]:
        """The proof as what ``vesu ledger prove`` prints; :func:`parse_proof` reads it back."""
        return _to_json(self)


@dataclass(frozen=True)
class ConsistencyProof:
    """That a log goes on from what it was; see :func:`consistency_proof`.

    Attributes
    ----------
    first, second : int
        Number of records then and now.
    path : tuple of str
        The proof's hashes, 64 hexadecimal digits each; none where one of the sizes is 0 or both are the same.
    first_root, second_root : str
        The Merkle tree heads then and now, hexadecimal.
    """

    kind: ClassVar[str] = "consistency"
    first: int
    second: int
    path: tuple[str, ...]
    first_root: str
    second_root: str

    def to_json(self) -> dict[str, Any]:
        """The proof as what ``vesu ledger prove`` prints; :func:`parse_proof` reads it back."""
        return _to_json(self)


def inclusion_proof(path: str | os.PathLike[str], index: int, size: int | None = None) -> InclusionProof:
    """Prove that a record is in a log.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file. It is read and verified once, up to `size`; memory is that of a MiB of records, or of one
        that is longer.
    index : int
        The record's number, from 0.
    size : int, optional
        Prove it for the tree over the first `size` records, such as those of a tree head kept elsewhere; all by
        default.

    Returns
    -------
    InclusionProof
        With at most 64 hashes.

    Raises
    ------
    ArgumentError
        No such record, or the log is shorter than `size`.
    EvidenceError
        Damage among the records read; the message names the first that does not hold.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R38. Ctrl-C is answered.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.ledger import LedgerWriter, parse_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder, LedgerWriter(Path(folder, "log")) as ledger:
    ...     _ = ledger.append_many([("LOSS", {"i": i}) for i in range(5)])
    ...     head = parse_checkpoint(ledger.checkpoint())
    ...     proof = inclusion_proof(ledger.path, 2)
    >>> len(proof.path)
    3
    >>> verify_inclusion(proof, head)
    """
    return _inclusion(_core.ledger_prove_inclusion(str(as_path(path)), index, size))


def consistency_proof(path: str | os.PathLike[str], first: int, second: int | None = None) -> ConsistencyProof:
    """Prove that a log goes on from its first records.

    Parameters
    ----------
    path : str or os.PathLike
        The log's file. It is read and verified once, up to `second`; memory is that of a MiB of records, or of one
        that is longer.
    first : int
        Number of records of the earlier log; from 0 every log goes on.
    second : int, optional
        Number of records of the later log; all by default.

    Returns
    -------
    ConsistencyProof
        With at most 65 hashes.

    Raises
    ------
    ArgumentError
        `first` beyond `second`, or the log is shorter.
    EvidenceError
        Damage among the records read; the message names the first that does not hold.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R38. Ctrl-C is answered.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.ledger import LedgerWriter, parse_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder, LedgerWriter(Path(folder, "log")) as ledger:
    ...     _ = ledger.append_many([("LOSS", {"i": i}) for i in range(5)])
    ...     then = parse_checkpoint(ledger.checkpoint())
    ...     _ = ledger.append("RUN_END")
    ...     now = parse_checkpoint(ledger.checkpoint())
    ...     proof = consistency_proof(ledger.path, then.size)
    >>> verify_consistency(proof, then, now)
    """
    return _consistency(_core.ledger_prove_consistency(str(as_path(path)), first, second))


def verify_inclusion(proof: InclusionProof, *heads: TreeHead) -> None:
    """Check that a proof's record is in the log, number, size and length of the path included.

    Parameters
    ----------
    proof : InclusionProof
        From :func:`inclusion_proof` or :func:`parse_proof`.
    *heads : TreeHead
        Tree heads known from elsewhere; size and root of each must be the proof's. Without one, the proof only shows
        that the record is in a tree with the root that the proof itself names.

    Raises
    ------
    ArgumentError
        A hash is not 64 hexadecimal digits, or a number no integer.
    EvidenceError
        The proof does not hold.

    Notes
    -----
    Requirement R38. A root does not contain its size: take both from the same head.
    """
    index, leaf = _core.ledger_record_leaf(proof.record)
    if index != proof.index:
        raise EvidenceError(f"proof: its record says seq {index}, the proof says {proof.index}")
    _core.ledger_verify_inclusion(leaf, proof.index, proof.size, list(proof.path), proof.root)
    _expect(heads, {proof.size: proof.root})


def verify_consistency(proof: ConsistencyProof, *heads: TreeHead) -> None:
    """Check that the later log goes on from the earlier, sizes and length of the path included.

    Parameters
    ----------
    proof : ConsistencyProof
        From :func:`consistency_proof` or :func:`parse_proof`.
    *heads : TreeHead
        Tree heads known from elsewhere, of the earlier log, the later or both; size and root of each must be the
        proof's. Without both, the proof only speaks of the roots that it names itself.

    Raises
    ------
    ArgumentError
        A hash is not 64 hexadecimal digits, or a number no integer.
    EvidenceError
        The proof does not hold.

    Notes
    -----
    Requirement R38. From size 0 every log goes on, and that proof says nothing of the second root.
    """
    first, second = (proof.first, proof.first_root), (proof.second, proof.second_root)
    _core.ledger_verify_consistency(proof.first, proof.second, list(proof.path), proof.first_root, proof.second_root)
    _expect(heads, dict([first, second]))


def parse_proof(text: str | bytes) -> InclusionProof | ConsistencyProof:
    """Read a proof from the JSON that ``vesu ledger prove`` prints; it is not verified yet.

    Parameters
    ----------
    text : str or bytes
        JSON.

    Returns
    -------
    InclusionProof or ConsistencyProof
        As its ``kind`` says.

    Raises
    ------
    FormatError
        Not JSON, or not exactly the members of a proof with their types.

    Notes
    -----
    Requirement R38.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise FormatError(f"proof: not JSON: {error}") from error
    kind = found.pop("kind", None) if isinstance(found, dict) else None
    for of in (InclusionProof, ConsistencyProof):
        if kind == of.kind:
            _check_members(found, of)
            return _inclusion(found) if of is InclusionProof else _consistency(found)
    raise FormatError(f'proof: its kind is {kind!r}; accepted: "inclusion", "consistency"')


def _check_members(found: dict[str, Any], of: type[InclusionProof] | type[ConsistencyProof]) -> None:
    names = [field.name for field in fields(of)]
    if sorted(found) != sorted(names):
        raise FormatError(f"proof: its members are {sorted(found)}; accepted: kind and {sorted(names)}")
    for field in fields(of):
        value = found[field.name]
        if field.type is int:
            fits, accepted = type(value) is int, "an integer"
        elif field.type is str:
            fits, accepted = isinstance(value, str), "text"
        else:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
            accepted = "a list of text"
        if not fits:
            raise FormatError(f"proof: its {field.name} is {value!r:.80}; accepted: {accepted}")


def _inclusion(members: dict[str, Any]) -> InclusionProof:
    return InclusionProof(**{**members, "path": tuple(members["path"])})


def _consistency(members: dict[str, Any]) -> ConsistencyProof:
    return ConsistencyProof(**{**members, "path": tuple(members["path"])})


def _to_json(proof: InclusionProof | ConsistencyProof) -> dict[str, Any]:
    return {"kind": proof.kind, **vars(proof), "path": list(proof.path)}


def _expect(heads: tuple[TreeHead, ...], roots: dict[int, str]) -> None:
    for head in heads:
        if head.size not in roots:
            sizes = " and ".join(map(str, roots))
            raise EvidenceError(f"proof: it is about size {sizes}, the tree head is of size {head.size}")
        if head.root != roots[head.size]:
            raise EvidenceError(f"proof: its root of size {head.size} is not that of the tree head")
