"""What each step of the ladder is worth: the same probabilities, cut into a mask without it (R10, R29)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vesu.config import RunConfig
from vesu.data.discover import Pair
from vesu.errors import ArgumentError
from vesu.features import FAMILIES
from vesu.run.ablations.report import AblationReport
from vesu.run.ablations.searching import Searched, SeedWork, require_search
from vesu.run.ablations.study import Judged, OnScore, Probabilities, Study, opened
from vesu.run.model import SurfaceModel
from vesu.segmentation import SegmentConfig, Step, Threshold

__all__ = ["ablate_steps"]


def ablate_steps(
    data: str | Path | None,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    config: RunConfig | None = None,
    judged: Judged = None,
    min_gain: float = 0.0,
    cache: str | Path | None = None,
    restart: bool = False,
    on_score: OnScore | None = None,
) -> AblationReport:
    """Cut the probabilities of one search a seed with the whole ladder, and without each of its steps.

    Parameters
    ----------
    data, out, seeds, config, judged, min_gain, cache, restart, on_score
        See :func:`vesu.run.ablations.ablate_features`; the ladder is that of ``[segment]``. The threshold is no step
        to leave out.

    Returns
    -------
    AblationReport
        Steps by their names; of several of one name the later ones are called ``dust@2`` and so on.

    Raises
    ------
    ArgumentError
        A ladder of the threshold alone; what cannot be worked on.
    DataError, PreflightError, ResumeIncompatible
        See :func:`vesu.run.ablations.ablate_features`.

    Notes
    -----
    Requirements R10, R29, R45. Each judged volume's probability is computed once a seed and kept in the cache. The
    threshold is fitted anew for each ladder, on the validation volumes, as a run that never had the step would fit it.
    The measure is the competition's score of whole masks.

    Examples
    --------
    >>> from vesu.run.ablations import ablate_steps
    >>> report = ablate_steps("scroll", "ablation", seeds=(0, 1, 2))  # doctest: +SKIP
    >>> report.table.kept  # doctest: +SKIP
    """
    config = config or RunConfig()
    steps = named_steps(config.segment.ladder)
    if not steps:
        raise ArgumentError("segment.steps: got the threshold alone; accepted: a ladder with a step to leave out")
    with opened(
        "ladder_step",
        data,
        out,
        require_search(config),
        "score",
        judged,
        depends_on={},
        restart=restart,
        cache=cache,
        on_score=on_score,
    ) as study:
        answers: dict[int, _Answers] = {}

        def score_of(kept: tuple[str, ...], seed: int) -> dict[str, float]:
            if seed not in answers:
                answers.clear()
                answers[seed] = _Answers(study, seed)
            ladder = without(config.segment.ladder, [name for name in steps if name not in kept])
            return study.mask_scores(ladder, study.chosen_on(seed), answers[seed])

        return study.run("ladder_step", tuple(steps), seeds, score_of, least=1, min_gain=min_gain)


def named_steps(ladder: SegmentConfig) -> dict[str, Step]:
    """The steps that can be left out, by names that are theirs alone.

    Examples
    --------
    >>> from vesu.segmentation import Closing, Dust
    >>> list(named_steps(SegmentConfig((Threshold(), Dust(), Closing(), Dust()))))
    ['dust', 'closing', 'dust@2']
    """
    seen: Counter[str] = Counter()
    found = {}
    for step in ladder.steps:
        if not isinstance(step, Threshold):
            seen[step.name] += 1
            found[step.name if seen[step.name] == 1 else f"{step.name}@{seen[step.name]}"] = step
    return found


def without(ladder: SegmentConfig, left_out: Sequence[str]) -> SegmentConfig:
    """The ladder without these steps."""
    names = iter(named_steps(ladder))
    kept = [step for step in ladder.steps if isinstance(step, Threshold) or next(names) not in left_out]
    return replace(ladder, steps=tuple(kept))


class _Answers:
    """One seed's probabilities, from the cache where they are there; searched for only when one is missing."""

    def __init__(self, study: Study, seed: int) -> None:
        self._study, self._seed = study, seed
        self._searched: tuple[Searched, SurfaceModel] | None = None

    def __call__(self, pair: Pair) -> Probabilities:
        cache = self._study.cache
        key = cache.key(
            "ablation-answer", context=self._study.context, seed=self._seed, image=self._study.ids[pair.volume_id].image
        )

        def compute() -> dict[str, object]:
            searched, model = self._search()
            return vars(searched.answer(model, pair))

        return Probabilities(**cache.get_or_compute(key, compute))  # type: ignore[arg-type]

    def _search(self) -> tuple[Searched, SurfaceModel]:
        if self._searched is None:
            searched = SeedWork(self._study, self._seed).search(FAMILIES)
            self._searched = searched, searched.model()
        return self._searched
