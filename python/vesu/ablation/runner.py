"""Leave one out, over several seeds."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vesu.ablation.scores import ByVolume, ScoreFile
from vesu.ablation.table import AblationTable, judge
from vesu.errors import ArgumentError

__all__ = ["Emit", "ScoreOf", "leave_one_out"]

Emit: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Writes an event: its name, then its fields."""

ScoreOf: TypeAlias = Callable[[tuple[str, ...], int], float | Mapping[str, float]]
"""The score of what is made with these things and this seed: one number, or one a volume; higher is better."""


def leave_one_out(
    things: Sequence[str],
    seeds: Sequence[int],
    score: ScoreOf,
    *,
    kind: str = "thing",
    least: int = 2,
    path: str | os.PathLike[str] | None = None,
    context: str = "",
    min_gain: float = 0.0,
    min_seeds: int = 2,
    confidence: float = 0.95,
    emit: Emit | None = None,
    poll: Callable[[], None] | None = None,
) -> AblationTable:
    """Score with all things, and without each, with every seed; a thing pays only if leaving it out costs every time.

    Parameters
    ----------
    things : sequence of str
        Names, each once, in the order in which `score` gets them.
    seeds : sequence of int
        At least two, each once.
    score : callable
        ``score(kept, seed)``; called ``(n_things + 1) * n_seeds`` times, one seed after the other.
    kind : str
        What the things are, in the singular: it names the events and the table.
    least : int
        Fewer things than this are refused: two where nothing can be made without the only one.
    path : path-like, optional
        A JSON file that keeps every score as soon as it is known. With it an interrupted ablation goes on, and more
        seeds cost only their own scores.
    context : str
        What the scores depend on besides (a digest of settings and data); scores of another context are refused.
    min_gain, min_seeds, confidence
        The rule's, see :meth:`vesu.comparison.PairedGain.is_stable` and :func:`vesu.comparison.paired_gain`.
    emit : callable, optional
        Gets ``KIND_ABLATION_START``, ``KIND_ABLATION_SCORE`` after each call of `score`, ``KIND_ABLATION_DONE``, with
        the kind in capitals.
    poll : callable, optional
        Called between two scores; may raise to stop.

    Returns
    -------
    AblationTable
        *pays*: the gain is above `min_gain` with every seed, and so is the bootstrap interval of the mean; *harms*:
        the same of the gain that leaving it out brings; *neutral* otherwise.

    Raises
    ------
    ArgumentError
        Too few things or seeds, or one twice; scores that are not finite or do not pair.
    FormatError
        The file holds no scores of such things.
    ResumeIncompatible
        The file holds scores of another context.
    FileError
        The file cannot be read or written.

    Notes
    -----
    Requirements R10, R21. What is scored with one seed differs in nothing but what was left out, so that differences
    are paired. Scores by volume make the interval mean something at few seeds; with one number a seed the rule is that
    all signs agree. Each row is a test of its own: of many neutral things a few will be called otherwise by chance.

    Examples
    --------
    >>> def score(kept, seed):
    ...     return {"v1": 0.5 + 0.1 * ("good" in kept) - 0.1 * ("bad" in kept), "v2": 0.4 + 0.2 * ("good" in kept)}
    >>> table = leave_one_out(["good", "bad"], [0, 1, 2], score, kind="trick", min_seeds=3)
    >>> [(row.name, row.verdict, round(row.gain.mean, 3)) for row in table.rows]
    [('good', 'pays', 0.15), ('bad', 'neutral', -0.05)]
    """
    things, seeds = _distinct(f"{kind}s", things, least), _distinct("seeds", seeds, 2)
    known = ScoreFile(None if path is None else Path(path), kind, context)
    subsets = [things, *(_without(things, thing) for thing in things)]
    n_todo = sum((subset, seed) not in known.scores for subset in subsets for seed in seeds)
    tell = _teller(emit, kind)
    tell("START", {f"{kind}s": list(things), "seeds": list(seeds), "scores_to_come": n_todo})
    for seed in seeds:  # all of a seed, then the next: an interrupted table is whole for its first seeds
        for subset in subsets:
            if (subset, seed) in known.scores:
                continue
            if poll is not None:
                poll()
            found = known.add(subset, seed, score(subset, seed))
            left_out = [thing for thing in things if thing not in subset]
            tell("SCORE", {"left_out": left_out, f"{kind}s": list(subset), "seed": seed, "score": found})
    table = _table(kind, things, seeds, known.scores, min_gain, min_seeds, confidence)
    tell("DONE", table.to_json())
    return table


def _table(
    kind: str,
    things: tuple[str, ...],
    seeds: tuple[int, ...],
    scores: Mapping[tuple[tuple[str, ...], int], ByVolume],
    min_gain: float,
    min_seeds: int,
    confidence: float,
) -> AblationTable:
    def of(kept: tuple[str, ...]) -> dict[int, ByVolume]:
        return {seed: scores[kept, seed] for seed in seeds}

    full = of(things)
    rows = (judge(each, of(_without(things, each)), full, min_gain, min_seeds, confidence) for each in things)
    means = {seed: sum(by_volume.values()) / len(by_volume) for seed, by_volume in full.items()}
    return AblationTable(kind, tuple(rows), means, min_gain)


def _distinct(name: str, values: Sequence[Any], least: int) -> tuple[Any, ...]:
    if isinstance(values, str) or len(set(values)) < max(least, len(values)):
        raise ArgumentError(f"{name}: got {values!r}; accepted: {least} or more, each once")
    return tuple(values)


def _without(things: tuple[str, ...], thing: str) -> tuple[str, ...]:
    return tuple(each for each in things if each != thing)


def _teller(emit: Emit | None, kind: str) -> Callable[[str, Mapping[str, Any]], None]:
    """Emits an event of this kind of ablation by the end of its name."""

    def tell(what: str, fields: Mapping[str, Any]) -> None:
        if emit is not None:
            emit(f"{kind.upper()}_ABLATION_{what}", fields)

    return tell
