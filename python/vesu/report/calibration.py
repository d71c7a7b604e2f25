"""The calibration entry of a summary (R17): reliability diagrams, and errors by uncertainty."""

from dataclasses import dataclass

from vesu.report.jsonfile import Node


@dataclass(frozen=True)
class Bin:
    """A stretch of predicted probability that holds voxels."""

    count: int
    confidence: float
    frequency: float


@dataclass(frozen=True)
class Diagram:
    """One reliability diagram and its figures."""

    ece: float | None
    max_error: float | None
    brier: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Group:
    """A stretch of uncertainty: how many voxels, and the share of wrong calls."""

    low: float
    high: float
    voxels: int
    error_rate: float


@dataclass(frozen=True)
class Calibration:
    """``validation.calibration`` of ``summary.json``."""

    voxels: int | None
    prior: float | None
    density: float | None
    raw: Diagram | None
    corrected: Diagram | None
    threshold: float | None
    error_rate: float | None
    auroc: float | None
    groups: tuple[Group, ...]


def read_calibration(node: Node | None) -> Calibration | None:
    """The entry, or None where there is none; bins and groups that lack a figure are left out.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    """
    if node is None:
        return None
    uncertainty = node.child("uncertainty") or Node({}, node.where)
    return Calibration(
        voxels=node.integer("voxels"),
        prior=node.number("training_prior"),
        density=node.number("density"),
        raw=_diagram(node.child("raw")),
        corrected=_diagram(node.child("corrected")),
        threshold=uncertainty.number("threshold"),
        error_rate=uncertainty.number("error_rate"),
        auroc=uncertainty.number("auroc"),
        groups=tuple(group for each in uncertainty.children("groups") if (group := _group(each))),
    )


def _diagram(node: Node | None) -> Diagram | None:
    if node is None:
        return None
    bins = tuple(found for each in node.children("bins") if (found := _bin(each)))
    return Diagram(node.number("ece"), node.number("max_error"), node.number("brier"), bins)


def _bin(node: Node) -> Bin | None:
    count, confidence, frequency = node.integer("count"), node.number("confidence"), node.number("frequency")
    if not count or count < 0 or confidence is None or frequency is None:
        return None
    return Bin(count, confidence, frequency)


def _group(node: Node) -> Group | None:
    low, high, rate = node.number("low"), node.number("high"), node.number("error_rate")
    if low is None or high is None or rate is None:
        return None
    return Group(low, high, node.integer("voxels") or 0, rate)
