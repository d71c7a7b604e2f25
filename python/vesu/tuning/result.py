"""What a tuning found, and whether it holds on volumes that chose nothing of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vesu.comparison import Promotion
from vesu.notebook import facts

__all__ = ["EVENTS", "JOURNAL", "RESULT", "TUNED", "Metric", "Tuning"]

Metric: TypeAlias = Literal["score", "f_beta"]
"""What a trial is worth: the competition's score of its masks, or their F-beta (beta 0.5)."""

EVENTS, JOURNAL, TUNED, RESULT = "events.jsonl", "study.journal", "tuned.toml", "tuning.json"
"""Files of a tuning's folder."""


@dataclass(frozen=True)
class Tuning:
    """What a tuning found, and whether it holds on volumes that chose nothing of it.

    Attributes
    ----------
    folder : Path
        ``RUN/tuning``.
    metric : {"score", "f_beta"}
    trials : int
        Of each seed.
    fit, judge : tuple of str
        Ids of the volumes that chose, and of those that judge.
    values, was : mapping of str to value
        The tuned settings by key, and what the run's own ladder has there (a rule as it was fitted).
    fit_value, fit_was : float
        Mean of the metric on `fit`: tuned, and by the run's own ladder.
    promotion : Promotion
        The tuned ladder of each seed against the run's own, on `judge`.
    entries, root
        Size of the log and its Merkle root.
    """

    folder: Path
    metric: Metric
    trials: int
    fit: tuple[str, ...]
    judge: tuple[str, ...]
    values: Mapping[str, Any]
    was: Mapping[str, Any]
    fit_value: float
    fit_was: float
    promotion: Promotion
    entries: int
    root: str

    @property
    def stable(self) -> bool:
        """Whether the gain holds with every seed, and its interval excludes zero."""
        return self.promotion.promoted

    @property
    def toml(self) -> Path:
        """The tuned configuration, for ``vesu run --config`` and ``vesu segment --config``."""
        return self.folder / TUNED

    def to_json(self) -> dict[str, Any]:
        """The content of ``tuning.json``."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        found |= {"folder": str(self.folder), "promotion": self.promotion.to_json(), "stable": self.stable}
        return {**found, "values": dict(self.values), "was": dict(self.was)}

    def __str__(self) -> str:
        """What the command line says of it, a line a subject."""
        return "\n".join(f"{name:<11} {text}".rstrip() for name, text in _words(self))

    def _repr_html_(self) -> str:
        entries: dict[str, str] = {}
        for name, text in _words(self):
            entries[name] = f"{entries[name]}; {text}" if name in entries else text
        return facts(f"Tuning: the gain is {'stable' if self.stable else 'NOT stable'}", entries)


def _words(found: Tuning) -> Iterator[tuple[str, str]]:
    gain = found.promotion.gain
    size = f"{found.trials} trials x {len(gain.seeds)} seeds"
    yield "tuned", f"{size} by {found.metric} on {', '.join(found.fit)}; judged on {', '.join(found.judge)}"
    for key, value in found.values.items():
        yield "setting", f"{key} = {_shown(value)} (was {_shown(found.was[key])})"
    if not found.values:
        yield "setting", "none: no trial was better than the run's own ladder"
    yield "fitted", f"{found.fit_value:.4f}, the run's own ladder {found.fit_was:.4f}: in-sample, it proves nothing"
    interval = f"{gain.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}"
    yield "judged", f"mean gain {gain.mean:+.4f}, {interval}, {len(gain.seeds)} seeds, {len(gain.volumes)} volumes"
    stable = f"a stable gain ({found.promotion.reason})"
    unstable = f"NOT a stable gain ({found.promotion.reason}): keep the run's own ladder"
    yield "verdict", stable if found.stable else unstable
    yield "settings", f"{found.toml}"
    yield "evidence", f"{found.folder / EVENTS}: {found.entries} entries, root {found.root[:16]}..."


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
