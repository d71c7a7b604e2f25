"""Training coverage: are all discovered pairs used, and if not, why, and does the evidence bear it out (R40)?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vesu.config import RunConfig
from vesu.data.discover import Inventory
from vesu.data.sampling import coverage
from vesu.data.storage import write_json_atomic
from vesu.errors import ArgumentError, EvidenceError
from vesu.run.history import Event, events_named
from vesu.run.plan import Split

__all__ = ["COVERAGE_REPORT", "CoveragePlan", "GapEvidence", "TrainCoverage", "coverage_report", "plan_coverage"]

COVERAGE_REPORT = "v3_train_coverage_report.json"
NO_GAP = "none"


@dataclass(frozen=True)
class GapEvidence:
    """Figures that show why not all pairs fit: it takes more than there is.

    Examples
    --------
    >>> GapEvidence("memory", needed=40 * 2**30, available=16 * 2**30).holds
    True
    """

    kind: Literal["time", "memory"]
    needed: float
    """Seconds or bytes that all pairs would take, as estimated or measured."""
    available: float
    """Seconds or bytes that there are."""

    @property
    def holds(self) -> bool:
        """Whether it justifies leaving pairs out."""
        return self.needed > self.available


@dataclass(frozen=True)
class CoveragePlan:
    """Which of the discovered pairs a run will learn from, and why not the others.

    Attributes
    ----------
    discovered, train, validation : tuple of str
        Volume ids. Train and validation together are what is selected: whole volumes are held out to choose candidates
        and thresholds on, which is training too.
    reason : str or None
        Why pairs were left out, in words that name the cause: ``"sampling.max_train_volumes=24"``.
    evidence : GapEvidence or None
        What makes the reason a justified one. A cap that somebody set is a reason, but justifies nothing by itself.

    Raises
    ------
    ArgumentError
        An id that was not discovered, or stands in both parts; pairs left out without a reason.

    Examples
    --------
    >>> CoveragePlan(("a", "b"), train=("a",), validation=("b",)).missing
    ()
    """

    discovered: tuple[str, ...]
    train: tuple[str, ...]
    validation: tuple[str, ...]
    reason: str | None = None
    evidence: GapEvidence | None = None

    def __post_init__(self) -> None:
        selected = [*self.train, *self.validation]
        if strangers := sorted(set(selected) - set(self.discovered)):
            raise ArgumentError(f"train, validation: got {strangers[0]!r}; accepted: ids of discovered pairs")
        if len(set(selected)) < len(selected):
            raise ArgumentError("train, validation: got a volume twice; accepted: each volume in one part, once")
        if self.missing and not self.reason:
            raise ArgumentError(f"reason: got none for {len(self.missing)} pairs left out; accepted: their cause")

    @property
    def missing(self) -> tuple[str, ...]:
        """Discovered pairs that were not selected, sorted."""
        return tuple(sorted(set(self.discovered) - {*self.train, *self.validation}))

    @property
    def percent(self) -> float:
        """Selected of discovered, 0 to 100; 0 where nothing was discovered."""
        n = len(self.discovered)
        return 100.0 * (n - len(self.missing)) / n if n else 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields of ``TRAIN_COVERAGE_PLAN``."""
        return {
            "pair_count_discovered": len(self.discovered),
            "pair_count_selected_for_training": len(self.train) + len(self.validation),
            "train_pair_coverage_pct_planned": self.percent,
            "train": list(self.train),
            "validation": list(self.validation),
            "missing": list(self.missing),
            "gap_reason": self.reason if self.missing else None,
            "gap_evidence": vars(self.evidence) if self.missing and self.evidence else None,
        }


class TrainCoverage:
    """Logs a run's training coverage: plan, progress, final.

    Parameters
    ----------
    emit : callable
        Called as ``emit(name, **fields)``; an event log's ``emit`` fits. ``TRAIN_COVERAGE_PLAN`` is emitted at once.
    plan : CoveragePlan

    Notes
    -----
    Requirement R40. What counts in the end is what the log says was sampled, not what was planned: :meth:`finish`
    reads ``VOXELS_SAMPLED`` back from the log.

    Examples
    --------
    >>> from vesu.run.coverage import CoveragePlan, TrainCoverage
    >>> names = []
    >>> plan = CoveragePlan(("a", "b"), train=("a",), validation=("b",))
    >>> tracker = TrainCoverage(lambda name, **fields: names.append(name), plan)
    >>> tracker.sampled("a", 40_000)
    >>> names
    ['TRAIN_COVERAGE_PLAN', 'TRAIN_COVERAGE_PROGRESS']
    """

    def __init__(self, emit: Callable[..., object], plan: CoveragePlan) -> None:
        self._emit = emit
        self.plan = plan
        self._voxels: dict[str, int] = {}
        emit("TRAIN_COVERAGE_PLAN", **plan.to_json())

    def sampled(self, volume_id: str, voxels: int) -> None:
        """So many voxels of this volume are in the first epoch's sample: ``TRAIN_COVERAGE_PROGRESS``.

        Raises
        ------
        ArgumentError
            A volume that was not discovered, or a negative count.
        """
        self._voxels[volume_id] = voxels
        so_far = coverage(self.plan.discovered, self._voxels)
        self._emit(
            "TRAIN_COVERAGE_PROGRESS",
            volume_id=volume_id,
            voxels=voxels,
            pair_count_discovered=so_far.pair_count_discovered,
            pair_count_selected_for_training=len(self.plan.train) + len(self.plan.validation),
            pair_count_sampled=so_far.pair_count_selected_for_training,
            train_pair_coverage_pct_effective=so_far.train_pair_coverage_pct_effective,
        )

    def finish(self, folder: Path) -> dict[str, Any]:
        """Read the log back, write ``v3_train_coverage_report.json`` beside it, emit ``TRAIN_COVERAGE_FINAL``.

        Returns
        -------
        dict
            The report, see :func:`coverage_report`.

        Raises
        ------
        EvidenceError
            The log holds no plan.
        FileError
            The disk refused.
        """
        report = coverage_report(folder / "events.jsonl")
        write_json_atomic(folder / COVERAGE_REPORT, report)
        self._emit("TRAIN_COVERAGE_FINAL", **{key: value for key, value in report.items() if key != "epochs"})
        return report


def coverage_report(log: Path) -> dict[str, Any]:
    """A run's training coverage, from its log alone.

    Parameters
    ----------
    log : path
        ``events.jsonl``, of a finished run or one that was killed.

    Returns
    -------
    dict
        The plan's fields, and ``pair_count_sampled`` (pairs of the plan with voxels in the first epoch),
        ``train_pair_coverage_pct_effective`` (of the discovered ones, 0 to 100), ``coverage_gap_reason`` ("none"
        without a gap), ``coverage_gap_is_justified`` (true without a gap, or where the evidence holds),
        ``missing_effective`` (ids without a voxel) and ``epochs`` (volumes, voxels and missing training volumes of
        each).

    Raises
    ------
    EvidenceError
        The log holds no ``TRAIN_COVERAGE_PLAN``.
    FileError
        The log cannot be read.
    """
    plan: Event | None = None
    voxels: dict[int, dict[str, int]] = {}
    for event in events_named(log, ("TRAIN_COVERAGE_PLAN", "VOXELS_SAMPLED")):
        if event["event"] == "TRAIN_COVERAGE_PLAN":
            plan = event
        else:
            voxels.setdefault(int(event["epoch"]), {})[str(event["volume_id"])] = int(event["voxels"])
    if plan is None:
        raise EvidenceError(f"{log}: holds no TRAIN_COVERAGE_PLAN: nothing says what was to be trained on")
    selected = [*plan["train"], *plan["validation"]]
    discovered = [*selected, *plan["missing"]]
    first = {name: count for name, count in voxels.get(0, {}).items() if name in set(selected)}
    found = coverage(discovered, first)
    reason, justified = _judge(plan, found.missing)
    return {
        **{key: plan[key] for key in CoveragePlan((), (), ()).to_json()},
        "pair_count_sampled": found.pair_count_selected_for_training,
        "train_pair_coverage_pct_effective": found.train_pair_coverage_pct_effective,
        "coverage_gap_reason": reason,
        "coverage_gap_is_justified": justified,
        "missing_effective": list(found.missing),
        "epochs": _by_epoch(voxels, plan["train"]),
    }


def _judge(plan: Event, missing: Sequence[str]) -> tuple[str, bool]:
    """The gap's reason in words, and whether the evidence bears it out."""
    if not missing:
        return NO_GAP, True
    lost = sorted(set(missing) - set(plan["missing"]))
    reasons = [plan["gap_reason"]] if plan["missing"] else []
    reasons += [f"no voxel sampled of {len(lost)} selected pairs"] if lost else []
    evidence = plan["gap_evidence"]
    justified = not lost and evidence is not None and GapEvidence(**evidence).holds
    return "; ".join(reasons), justified


def _by_epoch(voxels: Mapping[int, Mapping[str, int]], train: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "volumes": sum(1 for count in counts.values() if count),
            "voxels": sum(counts.values()),
            "missing_train": sorted(name for name in train if not counts.get(name)),
        }
        for epoch, counts in sorted(voxels.items())
    ]


def plan_coverage(inventory: Inventory, split: Split, config: RunConfig) -> CoveragePlan:
    """Which pairs train, and which setting left others out (R40)."""
    caps = {name: getattr(config.sampling, name) for name in ("max_train_volumes", "max_val_volumes")}
    reasons = [f"sampling.{name}={cap}" for name, cap in caps.items() if cap is not None]
    return CoveragePlan(
        discovered=tuple(pair.volume_id for pair in inventory.pairs),
        train=tuple(pair.volume_id for pair in split.train),
        validation=tuple(pair.volume_id for pair in split.validation),
        reason=", ".join(reasons) or None,
    )
