"""What a checkpoint says about itself: ``ckpt_manifest.json``, sealed so that any changed bit is seen (R36)."""

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeAlias, get_args

import numpy as np

from vesu.errors import ArgumentError, FormatError
from vesu.ledger import canonical_json

__all__ = ["EMPTY_ROOT", "FORMAT", "MANIFEST", "Kind", "Manifest", "Part", "plain"]

FORMAT = "vesu-checkpoint/1"
MANIFEST = "ckpt_manifest.json"
MAX_BYTES = 8 << 20
"""Of a manifest's file; the canonical JSON of what it holds is at most 4 MiB."""
EMPTY_ROOT = hashlib.sha256().hexdigest()
"""Merkle tree head of a log without records."""

Kind: TypeAlias = Literal["light", "full", "pretimeout"]

_SEALS = ("sha512_payload", "sha512_manifest")
_ROOTS = ("merkle_prev", "merkle_curr")
_HEX_64 = re.compile("[0-9a-f]{64}")
_HEX_128 = re.compile("[0-9a-f]{128}")
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_EXACT = 2**53


@dataclass(frozen=True)
class Part:
    """One file of a checkpoint beside its manifest."""

    n_bytes: int
    """``bytes`` in the file."""
    sha512: str

    @classmethod
    def of(cls, data: bytes) -> "Part":
        return cls(len(data), hashlib.sha512(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The content of ``ckpt_manifest.json``.

    Raises
    ------
    ArgumentError
        A field of a wrong type or out of range; the message names it.

    Notes
    -----
    R36. Two seals stand in the file besides these fields: ``sha512_payload``, the SHA-512 of the canonical JSON
    (RFC 8785) of ``parts``, and ``sha512_manifest``, the SHA-512 of the canonical JSON of everything but itself. An
    integer beyond 2^53 is a decimal string, a number that is not finite is null and named in ``nonfinite``, as in the
    event log.

    Examples
    --------
    >>> manifest = Manifest(
    ...     ts_ns=1, run_id="demo", version="0.1.0", git_sha=None, epoch=0, candidate_index=134, candidate_total=135,
    ...     iter=10, max_iter=120, model_state={}, optimizer_state={}, rng_states={}, distillation_state={},
    ...     best_metrics={"loss": float("nan")}, data_cursor={}, dataset_context={}, merkle_prev=EMPTY_ROOT,
    ...     merkle_curr=EMPTY_ROOT, sequence=1, kind="light", phase="fit", parts={})
    >>> Manifest.decode(manifest.encode()) == manifest, manifest.nonfinite
    (True, ('best_metrics.loss',))
    """

    ts_ns: int
    """Nanoseconds since 1970."""
    run_id: str
    version: str
    """Of vesu."""
    git_sha: str | None
    epoch: int
    """From 0."""
    candidate_index: int
    """The block's last candidate; ``candidate_first`` is its first."""
    candidate_total: int
    iter: int
    """Iterations done in this epoch."""
    max_iter: int
    model_state: Mapping[str, Any]
    """Which part and which arrays in it hold w, b, alpha, beta: ``{"part": NAME, ...}``; empty where there is none."""
    optimizer_state: Mapping[str, Any]
    """As ``model_state``."""
    rng_states: Mapping[str, Any]
    distillation_state: Mapping[str, Any]
    best_metrics: Mapping[str, Any]
    data_cursor: Mapping[str, Any]
    dataset_context: Mapping[str, Any]
    merkle_prev: str
    """Tree head of the event log at the checkpoint before, hexadecimal."""
    merkle_curr: str
    """Tree head of the event log at this checkpoint, hexadecimal."""
    sequence: int
    """Number of the checkpoint, never used twice in a chain of sessions."""
    kind: Kind
    phase: str
    parts: Mapping[str, Part]
    candidate_first: int = 0
    merkle_size: int = 0
    """Records in the log at ``merkle_curr``."""
    tree_head: str = ""
    """The same as a C2SP checkpoint text."""
    compat: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a run that goes on from here must agree with."""
    progress: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    time: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Seconds that earlier sessions took."""
    nonfinite: tuple[str, ...] = ()
    """Dotted names of the numbers that were not finite and are null here."""
    format: str = FORMAT

    def __post_init__(self) -> None:
        lost = list(self.nonfinite)
        for name in _fields(Mapping[str, Any]):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                _refuse(name, value, "a mapping of names")
            object.__setattr__(self, name, MappingProxyType(plain(value, name, lost)))
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))
        object.__setattr__(self, "nonfinite", tuple(lost))
        self._check()
        _ = self.sha512_manifest  # what has no canonical JSON is refused now

    def _check(self) -> None:
        for name in _fields(int):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**63:
                _refuse(name, value, "an integer, 0 or more")
        for name in _fields(str):
            value = getattr(self, name)
            if not isinstance(value, str) or not (value or name == "tree_head"):
                _refuse(name, value, "a text that is not empty")
        for name in _ROOTS:
            if not _matches(_HEX_64, getattr(self, name)):
                _refuse(name, getattr(self, name), "64 hexadecimal digits")
        if self.git_sha is not None and not isinstance(self.git_sha, str):
            _refuse("git_sha", self.git_sha, "a text or None")
        if self.kind not in get_args(Kind):
            _refuse("kind", self.kind, f"one of {get_args(Kind)}")
        if not all(isinstance(name, str) for name in self.nonfinite):
            _refuse("nonfinite", self.nonfinite, "names")
        if self.format != FORMAT:
            _refuse("format", self.format, repr(FORMAT))
        self._check_parts()

    def _check_parts(self) -> None:
        for name, part in self.parts.items():
            if not _matches(_PART_NAME, name) or name.casefold() == MANIFEST:
                accepted = f"up to 100 of A-Z a-z 0-9 . _ -, a letter or digit first, and not {MANIFEST}"
                _refuse("parts", name, accepted)
            good = isinstance(part, Part) and type(part.n_bytes) is int and 0 <= part.n_bytes < 2**63
            if not good or not _matches(_HEX_128, part.sha512):
                _refuse(f"parts[{name!r}]", part, "a number of bytes and 128 hexadecimal digits")
        if len({name.casefold() for name in self.parts}) != len(self.parts):
            _refuse("parts", sorted(self.parts), "names that differ in more than case")
        for name in ("model_state", "optimizer_state"):
            named = getattr(self, name).get("part")
            if named is not None and (not isinstance(named, str) or named not in self.parts):
                _refuse(f"{name}['part']", named, f"one of the parts, {sorted(self.parts)}")

    @functools.cached_property
    def sha512_payload(self) -> str:
        """Seal of the parts' names, sizes and digests."""
        return _sha512(self._parts())

    @functools.cached_property
    def sha512_manifest(self) -> str:
        """Seal of everything else in the file."""
        return _sha512(self._content())

    def encode(self) -> bytes:
        """The bytes of the file, a member a line; the same manifest gives the same bytes."""
        content = {**self._content(), "sha512_manifest": self.sha512_manifest}
        lines = [f"{json.dumps(name)}: {json.dumps(content[name], sort_keys=True)}" for name in sorted(content)]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")

    @classmethod
    def decode(cls, data: bytes, name: str = MANIFEST) -> "Manifest":
        """Read what :meth:`encode` gave; nothing in it is trusted.

        Raises
        ------
        FormatError
            Anything else, a single changed bit included; the message begins with ``name``.
        """
        try:
            content = _parsed(data)
            seals = {seal: content.pop(seal) for seal in _SEALS}
            manifest = cls(**{**content, **_typed(content)})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"no member {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(f"{name}: not a checkpoint's manifest: {reason}") from error
        for seal, got in seals.items():
            if got != getattr(manifest, seal):
                raise FormatError(f"{name}: its content does not match its {seal}")
        if manifest.encode() != data:
            raise FormatError(f"{name}: its text is not as it was written")
        return manifest

    def _content(self) -> dict[str, Any]:
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content |= {name: dict(content[name]) for name in _fields(Mapping[str, Any])}
        parts = self._parts()
        return {
            **content,
            "ts_ns": str(self.ts_ns),
            "nonfinite": list(self.nonfinite),
            "parts": parts,
            "sha512_payload": self.sha512_payload,
        }

    def _parts(self) -> dict[str, Any]:
        return {name: {"bytes": part.n_bytes, "sha512": part.sha512} for name, part in self.parts.items()}


@functools.cache
def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(Manifest) if field.type == kind]


def plain(value: Any, name: str, nonfinite: list[str]) -> Any:
    """``value`` as the JSON of a manifest holds it, so that what is in memory is what will be read back.

    Raises
    ------
    ArgumentError
        A value that JSON cannot hold; the message gives its dotted name.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 4096:
            _refuse(name, f"an integer of {value.bit_length()} bits", "4096 bits at most")
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        nonfinite.append(name)
        return None
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}.{index}", nonfinite) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{name}.{key}", nonfinite) for key, item in value.items()}
    _refuse(name, value, "texts, numbers, booleans, None, lists, and mappings with text keys")


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; the limit is {MAX_BYTES}")
    content = json.loads(data.decode("ascii"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if content.get("format") != FORMAT:
        raise ValueError(f"format {str(content.get('format'))[:80]!r}; accepted: {FORMAT!r}")
    return content


def _typed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The members whose JSON form is not what the class holds."""
    ts_ns = content["ts_ns"]
    if not (isinstance(ts_ns, str) and ts_ns.isdecimal() and len(ts_ns) <= 19):
        raise ValueError("ts_ns: not a decimal string")
    if not isinstance(content["nonfinite"], list):
        raise ValueError("nonfinite: not a list")
    parts = {name: Part(part["bytes"], part["sha512"]) for name, part in content["parts"].items()}
    return {"ts_ns": int(ts_ns), "nonfinite": tuple(content["nonfinite"]), "parts": parts}


def _sha512(content: Mapping[str, Any]) -> str:
    return hashlib.sha512(canonical_json(dict(content))).hexdigest()


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _refuse(name: str, value: Any, accepted: str) -> NoReturn:
    got = repr(value)
    raise ArgumentError(f"{name}: got {got if len(got) <= 200 else got[:200] + '...'}; accepted: {accepted}")
