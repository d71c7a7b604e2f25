"""Every run of a campaign checked before the first one begins: settings, data, teachers, room (R02, R43)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.campaign.plan import CampaignPlan, PlannedRun
from vesu.data.findings import Finding
from vesu.data.preflight import preflight
from vesu.errors import PreflightError, VesuError
from vesu.notebook import table
from vesu.run.teaching import plan_distillation, prepare_device

__all__ = ["CampaignPreflight", "preflight_plan"]

FIXED_BYTES = 256 << 20
"""Logs, reports and models of all runs: far more than they have ever taken."""


@dataclass(frozen=True)
class CampaignPreflight:
    """What preflight found of each variant, by its id."""

    findings: Mapping[str, tuple[Finding, ...]]
    n_runs: int
    """Variants times seeds."""

    @property
    def blocked(self) -> dict[str, tuple[Finding, ...]]:
        """The variants that cannot run, and why."""
        stops = {
            name: tuple(each for each in found if each.severity == "blocking") for name, found in self.findings.items()
        }
        return {name: found for name, found in stops.items() if found}

    def raise_if_blocked(self) -> None:
        """Raise :class:`~vesu.errors.PreflightError` that names each blocked variant; else do nothing."""
        if self.blocked:
            raise PreflightError(str(self))

    def __str__(self) -> str:
        """``10/10 runs can begin``, and before it what was found."""
        lines = [
            f"{name}: {finding.severity}: {finding}"
            for name, found in self.findings.items()
            for finding in found
            if finding.severity != "info"
        ]
        good = len(self.findings) - len(self.blocked)
        seeds = self.n_runs // max(len(self.findings), 1)
        times = f", each with {seeds} seeds" if seeds > 1 else ""
        return "\n".join([*lines, f"preflight   {good}/{len(self.findings)} runs can begin{times}"])

    def _repr_html_(self) -> str:
        rows = [(name, name not in self.blocked, "; ".join(map(str, found))) for name, found in self.findings.items()]
        return table(str(self).splitlines()[-1], ["run", "can begin", "found"], rows, most=len(rows))


def preflight_plan(plan: CampaignPlan, out: Path, cache: Path) -> CampaignPreflight:
    """Check what each variant needs, without writing anything.

    Parameters
    ----------
    plan : CampaignPlan
        Its configurations are valid already.
    out, cache : Path
        Where the campaign and the runs' cache will write.

    Returns
    -------
    CampaignPreflight
        Variants that need the same are checked once.

    Notes
    -----
    Requirements R02, R43. Room on disk is asked for all runs together.
    """
    known: dict[tuple[Any, ...], tuple[Finding, ...]] = {}
    findings = {}
    for run in plan.runs[: len(plan.matrix.variants)]:
        data, taught = plan.holdout.inventory, _teaching(run, plan)
        needs = (run.config.pipeline == "vesu" or taught.due, run.config.n_threads)
        if needs not in known:
            known[needs] = preflight(
                data,
                work_dir=out,
                cache_dir=cache,
                need_train=needs[0],
                need_tests=True,
                work_bytes=_work_bytes(plan),
                seed=run.seed,
                n_threads=needs[1],
                package_dir=cache / "packages",
            ).findings
        findings[run.variant.id] = known[needs] + taught.findings
    return CampaignPreflight(findings, len(plan.runs))


@dataclass(frozen=True)
class _Taught:
    due: bool
    findings: tuple[Finding, ...]


def _teaching(run: PlannedRun, plan: CampaignPlan) -> _Taught:
    """Whether a student is due, and what keeps it from being trained."""
    planned = plan_distillation(run.config, plan.holdout.inventory.root)
    if not planned.due:
        return _Taught(False, ())
    try:
        prepare_device(planned, run.config, lambda name, fields: None)
    except VesuError as error:
        return _Taught(True, (Finding("STUDENT_UNTRAINABLE", "blocking", planned.folder, str(error)),))
    return _Taught(True, ())


def _work_bytes(plan: CampaignPlan) -> int:
    """The masks of every run, twice and uncompressed."""
    masks = sum(map(math.prod, plan.holdout.inventory.test_shapes.values()))
    return 2 * masks * len(plan.runs) + FIXED_BYTES
