"""What each thing is worth, and how that is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from vesu.comparison import PairedGain, Scores, paired_gain
from vesu.notebook import table

__all__ = ["AblationRow", "AblationTable", "Verdict", "judge"]

Verdict: TypeAlias = Literal["pays", "neutral", "harms"]
"""``pays``: without it the score is worse, whatever the seed; ``harms``: without it better; ``neutral``: neither."""


@dataclass(frozen=True)
class AblationRow:
    """One thing's part in the score.

    Attributes
    ----------
    name : str
        What was left out.
    verdict : {"pays", "neutral", "harms"}
    gain : PairedGain
        The score of all things less that without this one: what leaving it out costs.
    """

    name: str
    verdict: Verdict
    gain: PairedGain

    @property
    def kept(self) -> bool:
        """Whether it pays."""
        return self.verdict == "pays"

    def to_json(self, kind: str) -> dict[str, Any]:
        """JSON types; its name stands under the ablation's kind."""
        return {kind: self.name, "kept": self.kept, "verdict": self.verdict, "gain": self.gain.to_json()}


@dataclass(frozen=True)
class AblationTable:
    """Everything's part, in the order given, with the scores that it follows from.

    Attributes
    ----------
    kind : str
        What was left out, in the singular: ``"teacher"``, ``"feature_group"``, ``"ladder_step"``.
    rows : tuple of AblationRow
    full : mapping of int to float
        Mean score with all of them, by seed.
    min_gain : float
        Differences up to this one count as none.
    """

    kind: str
    rows: tuple[AblationRow, ...]
    full: Mapping[int, float]
    min_gain: float

    @property
    def kept(self) -> tuple[str, ...]:
        """Those that pay.

        Two that do the same cover for each other: each is useless beside the other, and both are missing here. Take
        things out one at a time and repeat.
        """
        return tuple(row.name for row in self.rows if row.kept)

    @property
    def harmful(self) -> tuple[str, ...]:
        """Those without which the score is better."""
        return tuple(row.name for row in self.rows if row.verdict == "harms")

    @property
    def weakest(self) -> str | None:
        """Of those that do not pay the one with the smallest mean gain, to be taken out first; None if all do."""
        losers = [row for row in self.rows if not row.kept]
        return min(losers, key=lambda row: row.gain.mean).name if losers else None

    @property
    def words(self) -> str:
        """The kind in words."""
        return self.kind.replace("_", " ")

    @property
    def title(self) -> str:
        """A heading."""
        return f"What each {self.words} is worth"

    def to_json(self) -> dict[str, Any]:
        """JSON types: for events, the report and ``ablation.json``."""
        return {
            "rows": [row.to_json(self.kind) for row in self.rows],
            "full": {str(seed): score for seed, score in self.full.items()},
            "min_gain": self.min_gain,
            "kept": list(self.kept),
            "harmful": list(self.harmful),
            "weakest": self.weakest,
        }

    def columns(self) -> list[str]:
        """Headings of :meth:`cells`."""
        return ["without", *(f"seed {seed}" for seed in self.full), "mean loss", "interval", "verdict"]

    def cells(self) -> list[tuple[str, ...]]:
        """A row of texts each: what leaving it out costs with each seed, on the mean, the interval, the verdict."""
        return [
            (
                row.name,
                *(f"{figure:+.4f}" for figure in (*row.gain.by_seed, row.gain.mean)),
                f"{row.gain.low:+.4f} to {row.gain.high:+.4f}",
                row.verdict,
            )
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """The table as Markdown.

        Examples
        --------
        >>> rows = (judge("blur", {0: 0.5, 1: 0.5}, {0: 0.625, 1: 0.75}, 0.0, 2, 0.95),)
        >>> print(AblationTable("filter", rows, {0: 0.625, 1: 0.75}, 0.0).to_markdown())
        | without | seed 0 | seed 1 | mean loss | interval | verdict |
        |---|---|---|---|---|---|
        | blur | +0.1250 | +0.2500 | +0.1875 | +0.1250 to +0.2500 | pays |
        """
        columns = self.columns()
        lines = [columns, ["---"] * len(columns), *self.cells()]
        return "\n".join("|" + "|".join(_cell(cell) for cell in line) + "|" for line in lines)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return table(self.title, self.columns(), self.cells(), most=len(self.rows))


def judge(name: str, rest: Scores, full: Scores, min_gain: float, min_seeds: int, confidence: float) -> AblationRow:
    """The row of what the scores ``rest`` are without and the scores ``full`` are with.

    Both verdicts follow one rule, :meth:`vesu.comparison.PairedGain.is_stable`: of the gain that it brings, or of that
    which leaving it out brings.
    """
    gain = paired_gain(rest, full, confidence=confidence)
    verdict: Verdict = "neutral"
    if gain.is_stable(min_gain, min_seeds):
        verdict = "pays"
    elif paired_gain(full, rest, confidence=confidence).is_stable(min_gain, min_seeds):
        verdict = "harms"
    return AblationRow(name, verdict, gain)


def _cell(text: str) -> str:
    return text if text == "---" else f" {text} ".replace("|", "\\|").replace("\n", " ")
