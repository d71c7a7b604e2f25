"""What a training remembers beside model and optimizer: where it is, its best weights, its validations (R36, R37)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vesu.config import StudentConfig
from vesu.distill.patches import PreparedVolume
from vesu.distill.tensor_tree import json_value, members
from vesu.distill.validation import EarlyStop
from vesu.errors import FormatError, ResumeIncompatible

__all__ = ["BEST_PART", "DISTILLED_PART", "MEMORY_PART", "Memory", "identity", "require_same"]

FORMAT = "vesu-student-training/1"
MEMORY_PART = "training_student.json"
BEST_PART = "training_best.safetensors"
DISTILLED_PART = "training_distilled.safetensors"
WITHOUT_INFLUENCE = {"use", "device", "fusion", "flips", "compile"}
"""Settings that change no weight: another value is no reason to refuse a resume."""

MEMBERS: Mapping[str, type | tuple[type, ...]] = {
    "format": str,
    "identity": dict,
    "stage": int,
    "step": int,
    "best_score": (dict, type(None)),
    "early_stop": dict,
    "validated": int,
    "batch": int,
    "failures": int,
    "losses": dict,
    "history": list,
    "is_stage_over": bool,
    "is_finished": bool,
}


@dataclass
class Memory:
    """The mutable state of a training beside its tensors; plain values and packed weights."""

    early_stop: EarlyStop
    batch: int
    """Patches at a time, as memory allowed."""
    stage: int = 0
    step: int = 0
    """Steps of the stage that are done."""
    best: bytes | None = None
    """Packed weights of the best student so far."""
    best_score: dict[str, float] | None = None
    """F-beta, threshold and surface share at the validation that chose them."""
    distilled: bytes | None = None
    """Packed weights that the stage 'distil' left."""
    validated: int = 0
    """Step of the stage's last validation; 0 before the first."""
    failures: int = 0
    """Steps in a row that could not be taken."""
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Sum and count of each loss term since the last validation."""
    history: list[dict[str, Any]] = field(default_factory=list)
    is_stage_over: bool = False
    """Whether the stage was closed: the next one begins from the best weights."""
    is_finished: bool = False

    def add_losses(self, terms: Mapping[str, float]) -> None:
        """Take in the terms of one step."""
        for name, value in terms.items():
            total, count = self.losses.get(name, (0.0, 0))
            self.losses[name] = [total + value, count + 1]

    def take_losses(self) -> dict[str, float]:
        """Their means; the next validation begins anew."""
        means = {name: total / count for name, (total, count) in sorted(self.losses.items())}
        self.losses = {}
        return means

    def enter(self, stage: int, patience: int) -> None:
        """Begin a stage with a fresh memory of validations; a gain is more than the best so far."""
        best = -1.0 if self.best_score is None else self.best_score["f_beta"]
        self.early_stop = EarlyStop(patience, best=best)
        self.stage, self.step, self.validated, self.is_stage_over = stage, 0, 0, False

    def parts(self, identity: Mapping[str, Any]) -> dict[str, bytes]:
        """As named byte strings, beside those of :func:`vesu.distill.training_state.capture`."""
        weights = {BEST_PART: self.best, DISTILLED_PART: self.distilled}
        document = {name: getattr(self, name) for name in MEMBERS if name not in ("format", "identity", "early_stop")}
        document |= {"format": FORMAT, "identity": dict(identity), "early_stop": self.early_stop.to_json()}
        text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode()
        return {MEMORY_PART: text, **{name: data for name, data in weights.items() if data is not None}}

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> tuple["Memory", dict[str, Any]]:
        """Memory and identity of :meth:`parts`.

        Raises
        ------
        FormatError
            A part that is missing or malformed.
        """
        if MEMORY_PART not in parts:
            raise FormatError(f"{MEMORY_PART}: missing from the parts")
        document = members(json_value(MEMORY_PART, parts[MEMORY_PART]), MEMORY_PART, MEMBERS)
        if document.pop("format") != FORMAT:
            raise FormatError(f"{MEMORY_PART}: of another format; accepted: {FORMAT!r}")
        identity = document.pop("identity")
        try:
            early_stop = EarlyStop(**document.pop("early_stop"))
        except TypeError as error:
            raise FormatError(f"{MEMORY_PART}: early_stop: {error}") from error
        memory = cls(early_stop=early_stop, **document)
        memory.best, memory.distilled = parts.get(BEST_PART), parts.get(DISTILLED_PART)
        is_later = memory.stage > 0
        for name, is_due in {BEST_PART: is_later or memory.validated > 0, DISTILLED_PART: is_later}.items():
            if is_due and name not in parts:
                raise FormatError(f"{name}: missing from the parts")
        return memory, identity


def identity(config: StudentConfig, seed: int, sets: Mapping[str, Sequence[PreparedVolume]]) -> dict[str, Any]:
    """What a resumed training must agree with: settings, seed, volumes; JSON values."""
    settings = {name: v for name, v in dataclasses.asdict(config).items() if name not in WITHOUT_INFLUENCE}
    volumes = {name: [_volume_identity(prepared) for prepared in volumes] for name, volumes in sets.items()}
    document: dict[str, Any] = json.loads(json.dumps({"student": settings, "seed": seed, **volumes}))
    return document


def _volume_identity(prepared: PreparedVolume) -> list[Any]:
    """Name, shape, what is known of it, and moments of the image: cheap, and enough to notice a mix-up."""
    volume = prepared.volume
    teachers = None if volume.soft is None else list(volume.soft.teachers)
    moments = [prepared.mean.hex(), prepared.deviation.hex()]
    return [volume.volume_id, list(volume.image.shape), volume.label is not None, teachers, moments]


def require_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings, another seed or other volumes.

    Raises
    ------
    ResumeIncompatible
        The message names each field, with both values of short ones.
    """
    old, new = _flat(saved), _flat(now)
    different = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if different:
        words = "; ".join(f"field {n}: checkpoint has {old.get(n)!r}, this run has {new.get(n)!r}" for n in different)
        raise ResumeIncompatible(f"RESUME_INCOMPATIBLE: {words}")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    nested = {f"student.{name}": value for name, value in dict(values.get("student", {})).items()}
    return nested | {name: value for name, value in values.items() if name != "student"}
