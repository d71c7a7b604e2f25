"""What a campaign found: every variant's figures, and which gains are stable enough to promote it (R43, R26)."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vesu.campaign.matrix import Matrix, Variant
from vesu.campaign.record import RunRecord
from vesu.comparison import PairedGain, Promotion, paired_gain, promote
from vesu.notebook import table

__all__ = ["Comparison", "Spread", "VariantResult", "compare"]

COMPARISON_FORMAT = "vesu-campaign-comparison/1"
MIN_SEEDS = 3
"""Fewer seeds promote nothing."""
MIN_VOLUMES = 3
"""Fewer volumes promote nothing where seeds change nothing: a historical scorer draws no random number."""

PAIRED = ("score", "density")


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return math.fsum(self.by_seed.values()) / len(self.by_seed)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None with one."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        by_seed = {str(seed): value for seed, value in self.by_seed.items()}
        return {"by_seed": by_seed, "mean": self.mean, "deviation": self.deviation}


@dataclass(frozen=True)
class VariantResult:
    """A variant's runs, in the order of the seeds."""

    variant: Variant
    records: tuple[RunRecord, ...]

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """Those with figures."""
        return tuple(record for record in self.records if record.finished)

    @property
    def complete(self) -> bool:
        """Whether it has figures with every seed."""
        return all(record.finished for record in self.records)

    def spread(self, figure: str) -> Spread | None:
        """A figure's mean over the scoring volumes, or ``seconds``, by seed; None where no seed is finished."""
        if not self.finished:
            return None
        return Spread({each.seed: each.seconds if figure == "seconds" else each.mean(figure) for each in self.finished})

    def scores(self, figure: str = "score") -> dict[int, dict[str, float]]:
        """A figure by seed and volume, as :func:`vesu.comparison.paired_gain` takes it."""
        return {each.seed: each.by_volume(figure) for each in self.finished}

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        spreads = {name: self.spread(name) for name in (*PAIRED, "seconds")}
        return {
            "id": self.variant.id,
            "tags": list(self.variant.tags),
            "settings": dict(self.variant.settings),
            "complete": self.complete,
            **{name: None if spread is None else spread.to_json() for name, spread in spreads.items()},
            "runs": [record.to_json() for record in self.records],
        }


@dataclass(frozen=True)
class Comparison:
    """A campaign's outcome.

    Attributes
    ----------
    matrix : Matrix
    results : tuple of VariantResult
        In the matrix' order.
    promotions : tuple of Promotion
        The decisions: against the baseline, or step by step.
    gains : mapping of str to mapping of str to PairedGain
        By variant: ``score``, ``density``, ``seconds`` less the baseline's, over the seeds that both finished.
    standing : str
        The variant that stands at the end of the steps; against a baseline, the promoted one of the largest mean gain,
        or the baseline where none is.
    scored : tuple of str
        Ids of the scoring volumes.
    """

    matrix: Matrix
    results: tuple[VariantResult, ...]
    promotions: tuple[Promotion, ...]
    gains: Mapping[str, Mapping[str, PairedGain]]
    standing: str
    scored: tuple[str, ...]

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """Runs without figures."""
        return tuple(record for result in self.results for record in result.records if not record.finished)

    @property
    def n_runs(self) -> int:
        """How many runs were planned."""
        return len(self.results) * len(self.matrix.seeds)

    @property
    def seedless(self) -> tuple[str, ...]:
        """Variants of several finished seeds that gave the same scores with each."""
        return tuple(each.variant.id for each in self.results if _seedless(each))

    @property
    def label_density(self) -> float | None:
        """Mean density of the scoring volumes' labels; None where no run is finished."""
        finished = [record for result in self.results for record in result.finished]
        return finished[0].mean("label_density") if finished else None

    def of(self, name: str) -> VariantResult:
        """A variant's result, by its id."""
        return next(each for each in self.results if each.variant.id == name)

    def decision(self, name: str) -> Promotion | None:
        """What was decided of a variant; None of the one that all others are compared with."""
        return next((each for each in self.promotions if each.variant == name), None)

    def to_json(self) -> dict[str, Any]:
        """Content of ``comparison.json``."""
        return {
            "format": COMPARISON_FORMAT,
            "name": self.matrix.name,
            "matrix": self.matrix.to_json(),
            "scored": list(self.scored),
            "label_density": self.label_density,
            "runs": {"planned": self.n_runs, "finished": self.n_runs - len(self.failed)},
            "variants": [each.to_json() for each in self.results],
            "gains": {
                name: {figure: gain.to_json() for figure, gain in gains.items()} for name, gains in self.gains.items()
            },
            "promotions": [each.to_json() for each in self.promotions],
            "standing": self.standing,
            "seedless": list(self.seedless),
            "failed": [each.to_json() for each in self.failed],
        }

    def __str__(self) -> str:
        """What the command line says of it."""
        lines = [f"campaign    {self.matrix.name}: {self.n_runs - len(self.failed)}/{self.n_runs} runs finished"]
        width = max(len(each.variant.id) for each in self.results)
        for each in self.results:
            figures = ", ".join(f"{name} {_text(each.spread(name))}" for name in (*PAIRED, "seconds"))
            lines.append(f"            {each.variant.id:<{width}}  {figures}")
        for record in self.failed:
            lines.append(f"{record.state:<11} {record.id}, seed {record.seed}: {record.reason}")
        for decision in self.promotions:
            verb = "promoted over" if decision.promoted else "not over"
            lines.append(f"promotion   {decision.variant} {verb} {decision.baseline}: {decision.reason}")
        return "\n".join([*lines, f"standing    {self.standing}"])

    def _repr_html_(self) -> str:
        rows = []
        for each in self.results:
            score, density, seconds = (each.spread(name) for name in (*PAIRED, "seconds"))
            gain = self.gains.get(each.variant.id, {}).get("score")
            decided = self.decision(each.variant.id)
            interval = None if gain is None else f"{gain.low:+.4f} to {gain.high:+.4f}"
            rows.append(
                (
                    each.variant.id,
                    f"{len(each.finished)}/{len(each.records)}",
                    *(_text(spread) for spread in (score, density, seconds)),
                    None if gain is None else f"{gain.mean:+.4f}",
                    interval,
                    None if decided is None else decided.promoted,
                )
            )
        columns = ["run", "seeds", "score", "density", "seconds", "gain", "interval", "promoted"]
        title = f"Campaign {self.matrix.name}: {self.standing} stands"
        notes = [f"{each.id}, seed {each.seed}: {each.state}: {each.reason}" for each in self.failed]
        return table(title, columns, rows, notes=notes, most=len(rows))


def compare(
    matrix: Matrix,
    records: Sequence[RunRecord],
    scored: Sequence[str],
    *,
    emit: Callable[[str, Mapping[str, Any]], object] | None = None,
) -> Comparison:
    """Pair the variants' figures and decide on promotions.

    Parameters
    ----------
    matrix : Matrix
    records : sequence of RunRecord
        One for each variant and seed.
    scored : sequence of str
        Ids of the scoring volumes.
    emit : callable, optional
        Gets a ``VARIANT_PROMOTION`` for each decision.

    Returns
    -------
    Comparison

    Notes
    -----
    Requirements R26, R43. A variant is promoted only if it and what it is compared with have figures with every seed,
    there are three seeds or more, the gain is positive with each, and the interval excludes zero (see
    :func:`vesu.comparison.promote`). Seeds that change nothing are no evidence: then three volumes or more are asked
    for, whose resampling the interval rests on.
    """
    by_key = {(each.id, each.seed): each for each in records}
    results = tuple(
        VariantResult(variant, tuple(by_key[variant.id, seed] for seed in matrix.seeds)) for variant in matrix.variants
    )
    decide = _in_steps if matrix.promotion == "steps" else _against_baseline
    standing, promotions = decide(matrix, results)
    for decision in promotions:
        if emit is not None:
            emit("VARIANT_PROMOTION", decision.to_json())
    first = next(each for each in results if each.variant.id == matrix.baseline)
    others = [each for each in results if each is not first]
    gains = {each.variant.id: found for each in others if (found := _gains(first, each, matrix.confidence))}
    return Comparison(matrix, results, promotions, gains, standing, tuple(scored))


def _against_baseline(matrix: Matrix, results: Sequence[VariantResult]) -> tuple[str, tuple[Promotion, ...]]:
    first = next(each for each in results if each.variant.id == matrix.baseline)
    decisions = []
    for each in results:
        if each is not first and first.complete and each.complete:
            names = (matrix.baseline, each.variant.id)
            decided = promote(first.scores(), each.scores(), names=names, **_rule(matrix))
            decisions.append(_checked(decided, (first, each)))
    best = max((each for each in decisions if each.promoted), key=lambda each: each.gain.mean, default=None)
    return (matrix.baseline if best is None else best.variant), tuple(decisions)


def _in_steps(matrix: Matrix, results: Sequence[VariantResult]) -> tuple[str, tuple[Promotion, ...]]:
    """Each in turn against the best so far; one without figures with every seed is passed over."""
    complete = [each for each in results if each.complete]
    if not complete:
        return matrix.baseline, ()
    by_name = {each.variant.id: each for each in complete}
    standing, decisions = complete[0].variant.id, []
    for each in complete[1:]:
        best = by_name[standing]
        decided = promote(best.scores(), each.scores(), names=(standing, each.variant.id), **_rule(matrix))
        decisions.append(_checked(decided, (best, each)))
        standing = each.variant.id if decisions[-1].promoted else standing
    return standing, tuple(decisions)


def _rule(matrix: Matrix) -> dict[str, Any]:
    return {"min_gain": matrix.min_gain, "min_seeds": MIN_SEEDS, "confidence": matrix.confidence}


def _checked(decision: Promotion, pair: tuple[VariantResult, VariantResult]) -> Promotion:
    """Three copies of one result are not three seeds."""
    n_volumes = len(decision.gain.volumes)
    if not decision.promoted or n_volumes >= MIN_VOLUMES or not all(map(_seedless, pair)):
        return decision
    reason = f"seeds change nothing here, and {n_volumes} scoring volumes are no sample: {MIN_VOLUMES} are needed"
    return replace(decision, promoted=False, reason=reason)


def _seedless(result: VariantResult) -> bool:
    rows = list(result.scores().values())
    return len(rows) > 1 and all(row == rows[0] for row in rows)


def _gains(first: VariantResult, other: VariantResult, confidence: float) -> dict[str, PairedGain]:
    """Paired differences over the seeds that both finished; none where there is no such seed."""
    seeds = [each.seed for each in first.finished if each.seed in other.scores()]
    if not seeds:
        return {}
    pairs: dict[str, list[Mapping[int, Any]]] = {
        name: [{seed: each.scores(name)[seed] for seed in seeds} for each in (first, other)] for name in PAIRED
    }
    pairs["seconds"] = [
        {each.seed: each.seconds for each in side.finished if each.seed in seeds} for side in (first, other)
    ]
    return {name: paired_gain(before, after, confidence=confidence) for name, (before, after) in pairs.items()}


def _text(spread: Spread | None) -> str:
    """Mean and deviation: ``0.4123 ± 0.0021``."""
    if spread is None:
        return "none"
    return f"{spread.mean:.4g}" + ("" if spread.deviation is None else f" ± {spread.deviation:.2g}")
