"""A campaign's matrix: variants of one configuration, the seeds of each, the volumes that score them (R43)."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vesu.config.checks import require
from vesu.errors import ArgumentError, FileError

__all__ = ["FORMAT", "Matrix", "Promotions", "Variant", "load_matrix", "parse_matrix"]

FORMAT = "vesu-campaign/1"

Promotions: TypeAlias = Literal["baseline", "steps"]
"""'baseline' compares each variant with one baseline; 'steps' each with the best so far, as P1, P2, P3 (R26)."""

DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_FRACTION = 0.25
KEYS = (
    "format",
    "name",
    "config",
    "runs",
    "seeds",
    "baseline",
    "promotion",
    "min_gain",
    "confidence",
    "score_volumes",
    "score_fraction",
    "score_seed",
)
OF_A_RUN = ("id", "tags")
"""What of an entry of `runs` is no configuration key."""

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_ID_ACCEPTED = "1 to 100 of letters, digits, '_', '-', '.', not beginning with '-' or '.', not ending with '.'"
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Variant:
    """One row of the matrix."""

    id: str
    """Names its folder."""
    tags: tuple[str, ...]
    settings: Mapping[str, Any]
    """Its own values by their dotted configuration keys."""


@dataclass(frozen=True)
class Matrix:
    """What a campaign compares; :func:`load_matrix` reads one."""

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    """Values that all variants share, by their dotted configuration keys."""
    baseline: str
    promotion: Promotions = "baseline"
    min_gain: float = 0.0
    confidence: float = 0.95
    score_volumes: tuple[str, ...] | None = None
    """Ids of the labelled volumes that score the runs; none draws `score_fraction` of them by `score_seed`."""
    score_fraction: float = DEFAULT_FRACTION
    score_seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The matrix as a file has it."""
        drawn = {"score_fraction": self.score_fraction, "score_seed": self.score_seed}
        return {
            "format": FORMAT,
            "name": self.name,
            "config": dict(self.base),
            "runs": [{"id": each.id, "tags": list(each.tags), **each.settings} for each in self.variants],
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "promotion": self.promotion,
            "min_gain": self.min_gain,
            "confidence": self.confidence,
            **(drawn if self.score_volumes is None else {"score_volumes": list(self.score_volumes)}),
        }


def load_matrix(path: str | Path) -> Matrix:
    """Read a matrix from a file.

    Parameters
    ----------
    path : path
        TOML, or JSON where the name ends with ``.json``; the same keys in both (docs/campaigns.md).

    Returns
    -------
    Matrix

    Raises
    ------
    ArgumentError
        No such text, an unknown or doubled key, a value that is not accepted; see :func:`parse_matrix`.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R43.

    Examples
    --------
    >>> load_matrix("examples/campaigns/nx46_v75.toml").seeds  # doctest: +SKIP
    (0, 1, 2)
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(file)) from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{file}: got bytes that are not UTF-8; accepted: a TOML or JSON file") from error
    try:
        values = _json(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{file}: got {error}; accepted: a TOML or JSON file") from error
    try:
        return parse_matrix(values, name=file.stem)
    except ArgumentError as error:
        raise ArgumentError(f"{file}: {error}") from None


def parse_matrix(values: Mapping[str, Any], *, name: str = "campaign") -> Matrix:
    """Check a matrix that is at hand as plain values.

    Parameters
    ----------
    values : mapping
        As :func:`load_matrix` finds them in a file.
    name : str
        The campaign's name where `values` have none.

    Returns
    -------
    Matrix

    Raises
    ------
    ArgumentError
        An unknown key; fewer than two runs; an id that is doubled or unfit for a folder's name; `seed` among the
        configuration keys; any other value that is not accepted. Configuration keys are checked when a run's
        configuration is made, see :func:`vesu.campaign.plan.plan_campaign`.

    Examples
    --------
    >>> runs = [{"id": "plain"}, {"id": "denser", "nx46.threshold_quantile": 0.98}]
    >>> matrix = parse_matrix({"format": "vesu-campaign/1", "config": {"pipeline": "nx46"}, "runs": runs})
    >>> matrix.baseline, dict(matrix.variants[1].settings)
    ('plain', {'nx46.threshold_quantile': 0.98})
    >>> parse_matrix({"format": "vesu-campaign/1", "runs": runs[:1]})
    Traceback (most recent call last):
    vesu.errors.ArgumentError: runs: got 1; accepted: two or more, for a comparison needs two
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(f"got {type(values).__name__}; accepted: a table of {', '.join(KEYS)}")
    for key in values:
        require("key", repr(key), key in KEYS, ", ".join(KEYS))
    require("format", repr(values.get("format")), values.get("format") == FORMAT, repr(FORMAT))
    name = values.get("name", name)
    require("name", repr(name), isinstance(name, str) and bool(name.strip()), "a text")
    variants = _variants(values.get("runs", ()))
    ids = [each.id for each in variants]
    baseline = values.get("baseline", ids[0])
    require("baseline", repr(baseline), baseline in ids, " or ".join(map(repr, ids)))
    promotion = values.get("promotion", "baseline")
    require("promotion", repr(promotion), promotion in get_args(Promotions), "'baseline' or 'steps'")
    if promotion == "steps":
        require("baseline", repr(baseline), baseline == ids[0], f"{ids[0]!r}: steps begin with the first run")
    min_gain, confidence = values.get("min_gain", 0.0), values.get("confidence", 0.95)
    require("min_gain", repr(min_gain), _is_number(min_gain) and min_gain >= 0, "a number, 0 or more")
    good = _is_number(confidence) and 0 < confidence < 1
    require("confidence", repr(confidence), good, "a number between 0 and 1, both excluded")
    base = _settings("config", values.get("config", {}))
    return Matrix(
        name=name,
        variants=variants,
        seeds=_seeds(values.get("seeds", DEFAULT_SEEDS)),
        base=base,
        baseline=baseline,
        promotion=promotion,
        min_gain=float(min_gain),
        confidence=float(confidence),
        **_scoring(values),
    )


def _variants(entries: Any) -> tuple[Variant, ...]:
    require("runs", repr(entries)[:80], isinstance(entries, list | tuple), "a list of tables")
    require("runs", str(len(entries)), len(entries) >= 2, "two or more, for a comparison needs two")
    found: dict[str, Variant] = {}
    for place, entry in enumerate(entries):
        require(f"runs[{place}]", repr(entry)[:80], isinstance(entry, Mapping), "a table with an id")
        name = entry.get("id")
        good = isinstance(name, str) and _ID.fullmatch(name) is not None and not name.endswith(".")
        require(f"runs[{place}].id", repr(name), good, _ID_ACCEPTED)
        # A file system may hold "A" and "a" for the same folder.
        require(f"runs[{place}].id", repr(name), name.lower() not in found, "each id once (case does not tell them)")
        tags = entry.get("tags", [])
        good = isinstance(tags, list | tuple) and all(isinstance(tag, str) for tag in tags)
        require(f"runs[{place}].tags", repr(tags), good, "a list of texts")
        own = {key: value for key, value in entry.items() if key not in OF_A_RUN}
        found[name.lower()] = Variant(name, tuple(tags), _settings(f"run {name!r}", own))
    return tuple(found.values())


def _seeds(seeds: Any) -> tuple[int, ...]:
    good = isinstance(seeds, list | tuple) and len(seeds) > 0
    good = good and all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in seeds)
    require("seeds", repr(seeds), good and len(set(seeds)) == len(seeds), "distinct integers, 0 to 2**63 - 1")
    return tuple(seeds)


def _scoring(values: Mapping[str, Any]) -> dict[str, Any]:
    """Which labelled volumes score the runs: their ids, or a share and its seed."""
    ids = values.get("score_volumes")
    if ids is not None:
        good = isinstance(ids, list | tuple) and bool(ids) and all(isinstance(each, str) for each in ids)
        require("score_volumes", repr(ids), good and len(set(ids)) == len(ids), "distinct ids of labelled volumes")
        for key in ("score_fraction", "score_seed"):
            require(key, repr(values.get(key)), key not in values, "none beside score_volumes")
        return {"score_volumes": tuple(ids)}
    fraction, seed = values.get("score_fraction", DEFAULT_FRACTION), values.get("score_seed", 0)
    good = _is_number(fraction) and 0 < fraction < 1
    require("score_fraction", repr(fraction), good, "a number between 0 and 1, both excluded")
    good = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63
    require("score_seed", repr(seed), good, "0 to 2**63 - 1")
    return {"score_fraction": float(fraction), "score_seed": seed}


def _settings(where: str, values: Any) -> dict[str, Any]:
    """Nested tables and dotted keys as one mapping of dotted keys."""
    require(where, repr(values)[:80], isinstance(values, Mapping), "a table of configuration keys")
    flat: dict[str, Any] = {}
    for key, value in _leaves(values, ""):
        require(f"{where}: key", repr(key), _KEY.fullmatch(key) is not None, "section.key")
        require(f"{where}: {key}", "it twice", key not in flat, "each key once")
        require(f"{where}: {key}", repr(value)[:80], _is_plain(value), "a text, number, boolean, or list of these")
        require(f"{where}: {key}", repr(value), key != "seed", "none here: `seeds` gives every run the same ones")
        flat[key] = value
    return flat


def _leaves(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(text: str) -> Any:
    """JSON as strict as TOML: no key twice, no NaN."""

    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} twice")
            found[key] = value
        return found

    def refuse(word: str) -> Any:
        raise ValueError(f"the number {word}")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
