"""Campaigns: variants of one configuration run with the same seeds, scored on volumes that none saw, and compared.

A matrix names the variants (:func:`load_matrix`); :func:`run_campaign` runs and compares them, :func:`run_part` and
:func:`compare_campaign` do so on several machines, and :func:`preflight_campaign` checks everything before.
"""

from collections.abc import Sequence
from pathlib import Path

from vesu.campaign.compare import Comparison, Spread, VariantResult
from vesu.campaign.matrix import Matrix, Variant, load_matrix, parse_matrix
from vesu.campaign.plan import CampaignPlan, PlannedRun, plan_campaign
from vesu.campaign.preflight import CampaignPreflight, preflight_plan
from vesu.campaign.record import RunRecord
from vesu.campaign.runner import CACHE, compare_campaign, run_campaign, run_part

__all__ = [
    "CampaignPlan",
    "CampaignPreflight",
    "Comparison",
    "Matrix",
    "PlannedRun",
    "RunRecord",
    "Spread",
    "Variant",
    "VariantResult",
    "compare_campaign",
    "load_matrix",
    "parse_matrix",
    "plan_campaign",
    "preflight_campaign",
    "run_campaign",
    "run_part",
]


def preflight_campaign(
    matrix: str | Path | Matrix,
    data: str | Path | None = None,
    out: str | Path = "campaign",
    *,
    cache: str | Path | None = None,
    settings: Sequence[str] = (),
) -> CampaignPreflight:
    """Check every run of a campaign, and run none.

    Parameters
    ----------
    matrix, data, out, cache, settings
        As for :func:`run_campaign`; nothing is written.

    Returns
    -------
    CampaignPreflight
        What was found of each variant; its text ends with ``10/10 runs can begin``.

    Raises
    ------
    ArgumentError
        The matrix, or a run's configuration.
    DataError, FileError
        See :func:`vesu.discover`.

    Notes
    -----
    Requirements R02, R43. The history's dry run.

    Examples
    --------
    >>> print(preflight_campaign("examples/campaigns/nx46_v75.toml", "scroll"))  # doctest: +SKIP
    preflight   10/10 runs can begin, each with 3 seeds
    """
    found = matrix if isinstance(matrix, Matrix) else load_matrix(matrix)
    where = Path(out)
    plan = plan_campaign(found, data, settings=settings)
    return preflight_plan(plan, where, where / CACHE if cache is None else Path(cache))
