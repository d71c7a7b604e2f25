"""A campaign's comparison as Markdown tables, for a pull request or a notebook."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vesu.campaign.compare import Comparison, Spread, VariantResult
from vesu.comparison import PairedGain

__all__ = ["markdown", "varied"]


def varied(comparison: Comparison) -> list[str]:
    """The configuration keys that at least one variant sets, in the order in which they first stand."""
    return list(dict.fromkeys(key for each in comparison.results for key in each.variant.settings))


def markdown(comparison: Comparison) -> str:
    """Content of ``comparison.md``."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    matrix = comparison.matrix
    yield f"# Campaign {_plain(matrix.name)}"
    yield ""
    n_finished, n_scored = comparison.n_runs - len(comparison.failed), len(comparison.scored)
    yield f"`{comparison.standing}` stands. {n_finished} of {comparison.n_runs} runs finished, scored on {n_scored}"
    yield f"labelled volumes that no run learned from: {', '.join(comparison.scored)}."
    if comparison.label_density is not None:
        yield f"Density of their labels: {comparison.label_density:.4f}."
    keys = varied(comparison)
    yield ""
    yield from _table(
        ["run", "seeds", "score", "density", "seconds", "gain", "interval", "promoted", "tags", *keys],
        (_row(comparison, each, keys) for each in comparison.results),
    )
    yield ""
    yield "Mean and standard deviation over the seeds. Gain: mean paired difference of the score to"
    yield f"`{matrix.baseline}` on the same seeds and volumes, with its {matrix.confidence:.0%} bootstrap interval."
    yield ""
    yield "## Score by seed"
    yield ""
    yield from _table(["run", *map(str, matrix.seeds)], (_seeds_row(each) for each in comparison.results))
    yield ""
    yield "## Promotions"
    yield ""
    for decision in comparison.promotions:
        verb = "is promoted over" if decision.promoted else "is not promoted over"
        yield f"- `{decision.variant}` {verb} `{decision.baseline}`: {_plain(decision.reason)}"
    if not comparison.promotions:
        yield "None could be decided: no two variants have a score with every seed."
    if comparison.seedless:
        every = len(comparison.seedless) == len(comparison.results)
        names = "any variant" if every else ", ".join(f"`{name}`" for name in comparison.seedless)
        yield ""
        yield f"Seeds change nothing of {names}: there the interval rests on the volumes alone."
    if comparison.failed:
        yield ""
        yield "## Without a score"
        yield ""
        for record in comparison.failed:
            yield f"- `{record.id}`, seed {record.seed}: {record.state}: {_plain(record.reason)}"


def _row(comparison: Comparison, result: VariantResult, keys: Sequence[str]) -> list[str]:
    variant = result.variant
    gain: PairedGain | None = comparison.gains.get(variant.id, {}).get("score")
    decided = comparison.decision(variant.id)
    return [
        f"`{variant.id}`",
        f"{len(result.finished)}/{len(result.records)}",
        _spread(result.spread("score"), 4),
        _spread(result.spread("density"), 4),
        _spread(result.spread("seconds"), 1),
        "" if gain is None else f"{gain.mean:+.4f}",
        "" if gain is None else f"{gain.low:+.4f} to {gain.high:+.4f}",
        "" if decided is None else ("yes" if decided.promoted else "no"),
        _plain(", ".join(variant.tags)),
        *(_plain(variant.settings.get(key, "")) for key in keys),
    ]


def _seeds_row(result: VariantResult) -> list[str]:
    cells = (f"{each.mean('score'):.4f}" if each.finished else each.state for each in result.records)
    return [f"`{result.variant.id}`", *cells]


def _spread(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return ""
    return f"{spread.mean:.{digits}f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plain(value: Any) -> str:
    """A text that neither ends a cell nor a line."""
    return str(value).replace("|", "\\|").replace("\n", " ")
