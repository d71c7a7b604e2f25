"""What a resumed run must have in common with the one that it goes on with (R37)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from vesu.config import RunConfig
from vesu.data.cache import content_id
from vesu.features import FeatureSpec

__all__ = ["Scope", "config_fields", "data_fields", "scope_of", "training_fields"]

Scope: TypeAlias = Literal["search", "segment"]
"""From where on a change makes the work new: the search and all after it, or the segmentation alone."""

BENIGN = frozenset({"n_threads", "cache_gib", "max_feature_gib", "time", "checkpoint", "memory"})
"""Settings that change no bit of the result: where and how fast a run goes, not what it finds."""

AFTER_SEARCH = ("segment.", "search.ensemble_size", "search.ranking")
"""Settings that are first looked at when the search is done."""


def config_fields(config: RunConfig) -> dict[str, Any]:
    """Every setting that the result depends on, by its dotted key."""
    fields: dict[str, Any] = {}
    for name, value in config.to_json().items():
        if name in BENIGN:
            continue
        if name == "segment":
            # The ladder's steps differ in their parameters: each is one entry, so that a difference names the step.
            fields["segment.steps"] = [step["name"] for step in config.segment.ladder.to_json()["steps"]]
            for step in config.segment.ladder.to_json()["steps"]:
                fields[f"segment.{step['name']}"] = step
            fields |= _flat("segment.calibration", dataclasses.asdict(config.segment.calibration))
        elif name == config.pipeline or not name.startswith("nx"):
            fields |= _flat(name, value)
    return {name: _plain(value) for name, value in fields.items()}


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


def scope_of(fields: Iterable[str]) -> Scope:
    """How much of the work a change of these fields makes new."""
    return "segment" if all(field.startswith(AFTER_SEARCH) for field in fields) else "search"


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
