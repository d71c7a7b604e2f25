"""What each group of features is worth: the whole search without it (R10)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vesu.config import RunConfig
from vesu.errors import ArgumentError
from vesu.features import FAMILIES
from vesu.run.ablations.report import AblationReport
from vesu.run.ablations.searching import SeedWork, require_search
from vesu.run.ablations.study import Judged, Measure, OnScore, opened

__all__ = ["FAMILY_GROUPS", "GROUPS", "ablate_features"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "intensity": ("intensity",),
    "frequency": ("bandpass",),
    "gradient": ("gradient",),
    "z-contrast": ("z_contrast",),
    "hessian": ("laplacian", "hessian", "sheetness"),
    "texture": ("planarity",),
    "variance": ("variance",),
}
"""The feature groups of R07 and their channel families; families of one group would cover for each other."""

FAMILY_GROUPS: Mapping[str, tuple[str, ...]] = {family: (family,) for family in FAMILIES}
"""Each channel family by itself."""


def ablate_features(
    data: str | Path | None,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    config: RunConfig | None = None,
    measure: Measure = "score",
    judged: Judged = None,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    min_gain: float = 0.0,
    cache: str | Path | None = None,
    restart: bool = False,
    on_score: OnScore | None = None,
) -> AblationReport:
    """Search with all feature groups, and without each, and judge on volumes that chose nothing.

    Parameters
    ----------
    data : path, optional
        The data set, as :func:`vesu.run` takes it, with three labelled pairs or more.
    out : path
        The study's folder; an interrupted study goes on.
    seeds : sequence of int
        Each decides who trains and who validates, which voxels are drawn, bootstrap and starts. Three or more, or every
        verdict is neutral.
    config : RunConfig, optional
        As for a run. The grid is always searched whole; fewer voxels a volume (``sampling.voxels_per_volume``) make a
        study quicker, and its figures those of a smaller training set.
    measure : {"score", "objective"}
        ``"score"``: the competition's score of the whole mask of each judged volume. ``"objective"``: minus the
        search's objective, of the chosen candidate on sampled voxels of each judged volume; no mask is made.
    judged : int or sequence of str, optional
        How many labelled volumes are judged and choose nothing, drawn by ``config.seed``, or which; by default a third
        of them, 8 at most. The same ones with every seed. One is little: then only signs are tested.
    groups : mapping of str to sequence of str
        Families by the name of their group: two groups or more, each family in one of them. Families in no group
        always stay.
    min_gain : float
        Smaller differences count as none.
    cache : path, optional
        Decoded volumes and drawn voxels; ``OUT/cache`` if not given.
    restart : bool
        Give up what an earlier study left in `out`.
    on_score : callable, optional
        Told ``(done, total, fields)`` after each score.

    Returns
    -------
    AblationReport

    Raises
    ------
    ArgumentError, DataError, PreflightError
        What cannot be worked on, by name.
    ResumeIncompatible
        `out` holds scores of other settings or other data.

    Notes
    -----
    Requirement R10. Features are computed once a volume and seed, and columns are left out. The channels are then
    selected anew among the rest (R08): what a left-out channel had displaced as its twin comes back, as it would in a
    run that never computed it. Every iteration of every candidate is in the study's log (R51).

    Examples
    --------
    >>> from vesu.run.ablations import ablate_features
    >>> report = ablate_features("scroll", "ablation", seeds=(0, 1, 2))  # doctest: +SKIP
    >>> print(report.table.to_markdown())  # doctest: +SKIP
    """
    config, groups = config or RunConfig(), _checked(groups)
    always = [family for family in FAMILIES if not any(family in group for group in groups.values())]
    with opened(
        "feature_group",
        data,
        out,
        require_search(config),
        measure,
        judged,
        depends_on={"groups": {name: list(group) for name, group in groups.items()}},
        restart=restart,
        cache=cache,
        on_score=on_score,
    ) as study:
        study.details["groups"] = {name: list(group) for name, group in groups.items()}
        works: dict[int, SeedWork] = {}

        def score_of(kept: tuple[str, ...], seed: int) -> dict[str, float]:
            if seed not in works:
                works.clear()  # one seed's features are held at a time
                works[seed] = SeedWork(study, seed)
            families = [*always, *(family for name in kept for family in groups[name])]
            searched = works[seed].search(families, [name for name in groups if name not in kept])
            if measure == "objective":
                return searched.objectives()
            model = searched.model()
            return study.mask_scores(
                config.segment.ladder, works[seed].chosen, lambda pair: searched.answer(model, pair)
            )

        return study.run("feature_group", tuple(groups), seeds, score_of, min_gain=min_gain)


def _checked(groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    found = {str(name): (group,) if isinstance(group, str) else tuple(group) for name, group in groups.items()}
    families = [family for group in found.values() for family in group]
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or len(set(families)) < len(families) or len(found) < 2 or not all(found.values()):
        raise ArgumentError(
            f"groups: got {dict(groups)!r}; accepted: two groups or more, of the families {', '.join(FAMILIES)}, each "
            "in one group at most"
        )
    return found
