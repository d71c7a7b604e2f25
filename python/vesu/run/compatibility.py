"""What a resumed run must have in common with the one that it goes on with (R37)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vesu.config import RunConfig
from vesu.data.cache import content_id
from vesu.features import FeatureSpec

if TYPE_CHECKING:
    from vesu.distill.teacher import TeacherSpec

__all__ = [
    "Scope",
    "config_fields",
    "data_fields",
    "reference_fields",
    "scope_of",
    "student_stands",
    "teacher_fields",
    "training_fields",
]

Scope: TypeAlias = Literal["search", "distillation", "segment"]
"""From where on a change makes the work new: the search, the student, or the segmentation alone."""

BENIGN = frozenset(
    {"tag", "dry_run", "n_threads", "cache_gib", "max_feature_gib", "time", "checkpoint", "memory", "gates"}
)
"""Settings that change no bit of the result: where and how fast a run goes, not what it finds."""

LEARNED = ("teachers", "student")
"""Sections that the result depends on only where a student is trained."""

BENIGN_LEARNED = frozenset(
    {"student.use", "student.device", "teachers.folder", "teachers.nominal", "guided.reference", "guided.volume_id"}
)
"""Of these the digests of teachers and reference and the device that was taken count, not where they lay."""

AFTER_STUDENT = (
    "guided.",
    "segment.",
    "search.ensemble_size",
    "search.ranking",
    "student.fusion",
    "auto_tune.dust_min_size",
    "nonces.",
)
"""Settings that are first looked at when search and student are done."""

OF_STUDENT = ("student.", "teachers.")
"""Fields that the search does not depend on."""

OF_SEARCH = ("search.", "auto_tune.", "features.", "training.")
"""Fields that the student does not depend on: it learns from volumes, not from sampled rows."""


def config_fields(config: RunConfig, *, student: bool = False) -> dict[str, Any]:
    """Every setting that the result depends on, by its dotted key; ``student`` says whether one is trained."""
    fields: dict[str, Any] = {}
    asked = {
        **dict.fromkeys(LEARNED, student),
        "guided": bool(config.guided.reference),
        "auto_tune": config.auto_tune.use,
        "nonces": config.nonces.use,
    }
    off = {name for name, wanted in asked.items() if not wanted}
    for name, value in config.to_json().items():
        if name in BENIGN or name in off:
            continue
        if name == "segment":
            # The ladder's steps differ in their parameters: each is one entry, so that a difference names the step.
            fields["segment.steps"] = [step["name"] for step in config.segment.ladder.to_json()["steps"]]
            for step in config.segment.ladder.to_json()["steps"]:
                fields[f"segment.{step['name']}"] = step
            fields |= _flat("segment.calibration", dataclasses.asdict(config.segment.calibration))
        elif name == config.pipeline or not name.startswith("nx"):
            fields |= _flat(name, value)
    return {name: _plain(value) for name, value in fields.items() if name not in BENIGN_LEARNED}


def data_fields(
    train: Mapping[str, tuple[str, str]], validation: Mapping[str, tuple[str, str]], spec: FeatureSpec
) -> dict[str, Any]:
    """Identity of the labelled volumes, in their order, and of the features computed from them.

    Parameters
    ----------
    train, validation : mapping of str to (str, str)
        Volume id to the BLAKE3 of its CT and label files.
    spec : FeatureSpec
        What is computed.

    Notes
    -----
    Test volumes are not among them: a model may go on to segment others (Kaggle swaps them in at submission); which
    masks are done is decided by each CT file's own hash.
    """
    return {
        "data.train": _listing(train),
        "data.validation": _listing(validation),
        "features.version": spec.version,
        "features.names": content_id("\n".join(spec.names).encode()),
    }


def training_fields(channels: Iterable[int], device: str) -> dict[str, Any]:
    """What the training set came to, and what the search runs on."""
    return {"training.channels": list(channels), "search.runs_on": device}


def teacher_fields(teachers: "Iterable[TeacherSpec]", device: str) -> dict[str, Any]:
    """The teachers, by the digests of their weights, and what they and the student run on."""
    return {"teachers.digests": {each.name: each.digest for each in teachers}, "student.runs_on": device}


def reference_fields(volume_id: str, sha256: str) -> dict[str, Any]:
    """The reference mask that a guided phase aligns to: which volume it is of, and the file's own hash."""
    return {"guided.reference_of": volume_id, "guided.reference_sha256": sha256}


def scope_of(fields: Iterable[str]) -> Scope:
    """How much of the work a change of these fields makes new."""
    names = list(fields)
    if all(name.startswith(AFTER_STUDENT) for name in names):
        return "segment"
    return "distillation" if all(name.startswith((*AFTER_STUDENT, *OF_STUDENT)) for name in names) else "search"


def student_stands(fields: Iterable[str]) -> bool:
    """Whether a student that was trained before a change of these fields is still the one that would be trained."""
    return all(name.startswith((*AFTER_STUDENT, *OF_SEARCH)) for name in fields)


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(f"{prefix}.{name}", inner)
    return flat


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _listing(volumes: Mapping[str, tuple[str, str]]) -> list[list[str]]:
    return [[volume_id, *ids] for volume_id, ids in volumes.items()]
