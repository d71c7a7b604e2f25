"""What a run would meet, without running: data, machine, student, devices, folder; nothing is written (R43)."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.config import RunConfig
from vesu.data.discover import Inventory, discover
from vesu.data.findings import Finding, PreflightReport
from vesu.data.preflight import preflight
from vesu.errors import VesuError
from vesu.features import FeatureSpec
from vesu.grid_search import choose_device
from vesu.notebook import counted, facts
from vesu.run.checkpoint import publisher_from
from vesu.run.costs import COSTS_NAME, Costs
from vesu.run.folder import check_claimable
from vesu.run.plan import candidates_by_epoch, configured_split, forecast, soft_label_bytes
from vesu.run.teaching import DistillationPlan, plan_distillation, prepare_device

__all__ = ["DryRun", "dry_run"]


@dataclass(frozen=True)
class DryRun:
    """What a run would do, and what of it is not possible here.

    Attributes
    ----------
    config : RunConfig
    inventory : Inventory
    report : PreflightReport
        Its findings are those of :mod:`vesu.data.preflight`, and ``RUN_FOLDER``, ``CHECKPOINT_PUBLISH``,
        ``SEARCH_DEVICE``, ``STUDENT`` (blocking) and ``SOFT_LABEL_ROOM`` (a warning).
    volumes : mapping of str to int
        How many would be used for ``train`` and ``validation``, and are ``left_out`` by a cap; empty where the run
        trains nothing, or cannot.
    candidates : int
        Of the search's last epoch; 0 without a search.
    student : str
        Whether one would be distilled, and why or why not.
    expected_s : mapping of str to float
        Seconds that each phase is expected to take.
    """

    config: RunConfig
    inventory: Inventory
    report: PreflightReport
    volumes: Mapping[str, int]
    candidates: int
    student: str
    expected_s: Mapping[str, float]

    @property
    def possible(self) -> bool:
        """Whether nothing blocks the run."""
        return not self.report.blocking

    def raise_if_blocked(self) -> None:
        """Raise :class:`~vesu.errors.PreflightError` that lists every blocking finding; else do nothing."""
        self.report.raise_if_blocked()

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "possible": self.possible,
            "config": self.config.to_json(),
            "aliases_used": [use.to_json() for use in self.config.aliases_used],
            "pairs": len(self.inventory.pairs),
            "tests": len(self.inventory.tests),
            "volumes": dict(self.volumes),
            "candidates": self.candidates,
            "student": self.student,
            "expected_s": dict(self.expected_s),
            "preflight": self.report.to_json(),
        }

    def __str__(self) -> str:
        """What the command line says of it, a line a subject."""
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        entries: dict[str, str] = {}
        for name, text in (line.split(None, 1) for line in _lines(self) if not line.startswith(" ")):
            entries[name] = f"{entries[name]}; {text}" if name in entries else text
        return facts("Dry run", entries, notes=[str(finding) for finding in self.report.findings])


def dry_run(
    data: str | Path | None = None,
    out: str | Path = "run",
    *,
    config: RunConfig | None = None,
    cache: str | Path | None = None,
    restart: bool = False,
) -> DryRun:
    """Look at everything that :func:`vesu.run` would need, and run nothing.

    Parameters
    ----------
    data, out, config, cache, restart
        As for :func:`vesu.run`.

    Returns
    -------
    DryRun
        Call its ``raise_if_blocked()``, or look at ``possible``.

    Raises
    ------
    DataError
        No data is found at all.

    Notes
    -----
    Requirement R43. Nothing is written, into ``out`` and ``cache`` neither. One thing may be: a decoder for a rare
    compression that only a wheelhouse has is installed into a folder of its own to prove that it decodes.

    Examples
    --------
    >>> from vesu.run.dry_run import dry_run
    >>> print(dry_run("data", "run"))  # doctest: +SKIP
    """
    config, folder = config or RunConfig(), Path(out)
    inventory = discover(data)
    teaching = plan_distillation(config, inventory.root)
    searches = config.pipeline == "vesu"
    report = preflight(
        inventory,
        work_dir=folder,
        cache_dir=cache or folder / "cache",
        need_train=searches or teaching.due,
        need_tests=True,
        seed=config.seed,
        n_threads=config.n_threads,
    )
    more = [
        *_folder_findings(folder, restart),
        *_settings_findings(config),
        *_student_findings(teaching, config, inventory),
    ]
    names = FeatureSpec(scales=config.features.scales).names
    costs = Costs(Path(cache or folder / "cache") / COSTS_NAME)
    n_teachers = len(teaching.teachers) if teaching.due else None
    return DryRun(
        config=config,
        inventory=inventory,
        report=dataclasses.replace(report, findings=(*report.findings, *more)),
        volumes=_volumes(inventory, config) if searches or teaching.due else {},
        candidates=candidates_by_epoch(config.search)[-1] if searches else 0,
        student=("due: " if teaching.due else "none: ") + teaching.reason,
        expected_s=forecast(inventory, config, len(names), costs, n_teachers=n_teachers).expected_s,
    )


def _folder_findings(folder: Path, restart: bool) -> Iterator[Finding]:
    try:
        check_claimable(folder, restart=restart)
    except VesuError as error:
        yield Finding("RUN_FOLDER", "blocking", folder, str(error))


def _settings_findings(config: RunConfig) -> Iterator[Finding]:
    """What the settings name and this machine may not have."""
    try:
        publisher_from(config.checkpoint.publish)
    except VesuError as error:
        yield Finding("CHECKPOINT_PUBLISH", "blocking", None, str(error))
    if config.pipeline == "vesu":
        try:
            choose_device(config.search.device, config.search.solver)
        except VesuError as error:
            yield Finding("SEARCH_DEVICE", "blocking", None, f"search.{error}")


def _student_findings(teaching: DistillationPlan, config: RunConfig, inventory: Inventory) -> Iterator[Finding]:
    if not teaching.due:
        return
    try:
        prepare_device(teaching, config, lambda name, fields: None)
    except VesuError as error:
        yield Finding("STUDENT", "blocking", teaching.folder, str(error))
    needed_gib = soft_label_bytes(inventory, config, len(teaching.teachers)) / 2**30
    if needed_gib > config.cache_gib:
        room = f"soft labels need {needed_gib:.1f} GiB, cache_gib is {config.cache_gib:g}"
        message = f"{room}: the rest is held in memory"
        yield Finding("SOFT_LABEL_ROOM", "warning", None, message)


def _volumes(inventory: Inventory, config: RunConfig) -> dict[str, int]:
    if len(inventory.pairs) < 2:
        return {}
    split = configured_split(inventory.pairs, config)
    return {"train": len(split.train), "validation": len(split.validation), "left_out": len(split.left_out)}


def _lines(found: DryRun) -> Iterator[str]:
    config, inventory = found.config, found.inventory
    used = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in found.volumes.items())
    pairs, tests = counted(len(inventory.pairs), "pair"), counted(len(inventory.tests), "test volume")
    yield f"data        {inventory.root}: {pairs}{f' ({used})' if used else ''}, {tests}"
    if config.tag:
        yield f"tag         {config.tag}"
    for use in config.aliases_used:
        sets = ", ".join(f"{key} = {value}" for key, value in use.sets.items())
        yield f"alias       {use.name}={use.value}: {sets}{'' if use.in_force else ' (overridden)'}"
    if found.candidates:
        yield f"search      {found.candidates} candidates x {config.search.max_iter} iterations"
    else:
        yield f"pipeline    {config.pipeline}: a historical scorer, nothing is searched"
    yield f"student     {found.student}"
    phases = sorted(found.expected_s.items(), key=lambda item: -item[1])[:3]
    most = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases)
    yield f"expected    {sum(found.expected_s.values()):.0f} s by what is known so far; most of it: {most}"
    checked = f"{counted(found.report.checked_pairs, 'pair')} and {counted(found.report.checked_tests, 'test volume')}"
    yield f"preflight   {checked} decoded, {counted(len(found.report.findings), 'finding')}"
    for finding in found.report.findings:
        yield f"            {finding.severity}: {finding}"
    blocking = counted(len(found.report.blocking), "finding")
    yield "verdict     " + ("a run is possible; nothing was run" if found.possible else f"blocked by {blocking}")
