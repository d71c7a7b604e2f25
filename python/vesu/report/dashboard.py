"""What the dashboard shows: the post-mortem, the profile and the training coverage of a run, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vesu.report.jsonfile import Node

FILES = ("post_mortem.json", "RUN_PROFILE_SUMMARY.json", "v3_train_coverage_report.json")


@dataclass(frozen=True)
class PostMortem:
    """How the run ended, and where it stood."""

    cause: str | None
    reason: str | None
    suspects: tuple[str, ...]
    phase: str | None
    last_event: str | None
    reached_pct: float | None
    remaining_s: float | None
    elapsed_s: float | None
    sessions: tuple[tuple[int | None, str | None, float | None], ...]
    """Number, status, seconds."""
    goes_on_from: str | None
    alerts: Mapping[str, int]


@dataclass(frozen=True)
class Shares:
    """Parts of the measured time, 0 to 1."""

    compute: float | None
    logging: float | None
    io: float | None


@dataclass(frozen=True)
class PhaseCost:
    """One phase over all sessions."""

    name: str
    seconds: float | None
    share: float | None
    sessions: int | None
    complete: bool | None
    shares: Shares | None


@dataclass(frozen=True)
class Quality:
    """The best validation objective at an epoch's end."""

    epoch: int | None
    iterations: int | None
    since_start_s: float | None
    objective: float | None
    candidate: int | None


@dataclass(frozen=True)
class Profile:
    """``RUN_PROFILE_SUMMARY.json``."""

    phases: tuple[PhaseCost, ...]
    shares: Shares | None
    candidates_per_s: float | None
    seconds_per_iteration: float | None
    iterations: int | None
    iterations_again: int | None
    checkpoints: int | None
    checkpoint_s: float | None
    quality: tuple[Quality, ...]
    speed_up: float | None
    no_speed_up: str | None
    """Why there is no figure."""


@dataclass(frozen=True)
class Coverage:
    """``v3_train_coverage_report.json``."""

    discovered: int | None
    selected: int | None
    sampled: int | None
    percent: float | None
    reason: str | None
    justified: bool | None


@dataclass(frozen=True)
class Dashboard:
    """Each is None where its file is not there."""

    post_mortem: PostMortem | None
    profile: Profile | None
    coverage: Coverage | None


def read_dashboard(folder: Path) -> Dashboard:
    """The three files of a run folder.

    Raises
    ------
    FormatError
        Malformed JSON, or a field of the wrong type; the message names file and field.
    FileError
        A file cannot be read.
    """
    post_mortem, profile, coverage = (Node.read(folder / name) for name in FILES)
    return Dashboard(
        None if post_mortem is None else _post_mortem(post_mortem),
        None if profile is None else _profile(profile),
        None if coverage is None else _coverage(coverage),
    )


def _post_mortem(node: Node) -> PostMortem:
    point = node.child("blocking_point") or Node({}, node.where)
    return PostMortem(
        cause=node.text("cause"),
        reason=node.text("reason"),
        suspects=tuple(words for each in node.children("suspects") if (words := each.text("suspect"))),
        phase=point.text("phase"),
        last_event=point.text("last_event"),
        reached_pct=node.number("reached_pct"),
        remaining_s=node.number("remaining_estimate_s"),
        elapsed_s=node.number("elapsed_s"),
        sessions=tuple(
            (each.integer("number"), each.text("status"), each.number("elapsed_s"))
            for each in node.children("sessions")
        ),
        goes_on_from=_checkpoint(node.child("goes_on_from")),
        alerts=_counts(node.child("alerts") or Node({}, node.where)),
    )


def _counts(node: Node) -> dict[str, int]:
    """The whole numbers of an object, whatever their names."""
    pairs = ((name, node.integer(name)) for name, value in node.values.items() if isinstance(value, int))
    return {name: value for name, value in pairs if value is not None}


def _checkpoint(node: Node | None) -> str | None:
    if node is None:
        return None
    place = [f"{words} {value}" for name, words in (("epoch", "epoch"), ("iter", "iteration"))
             if (value := node.integer(name)) is not None]  # fmt: skip
    return ", ".join([node.text("name") or "a checkpoint", node.text("phase") or "phase not recorded", *place])


def _shares(node: Node | None) -> Shares | None:
    return None if node is None else Shares(node.number("compute"), node.number("logging"), node.number("io"))


def _profile(node: Node) -> Profile:
    empty = Node({}, node.where)
    search, speed_up = node.child("search") or empty, node.child("speed_up") or empty
    checkpoints = node.child("checkpoints") or empty
    return Profile(
        phases=tuple(_phase(each) for each in node.children("phases")),
        shares=_shares(node.child("shares")),
        candidates_per_s=search.number("candidates_per_s"),
        seconds_per_iteration=search.number("seconds_per_iteration"),
        iterations=search.integer("iterations"),
        iterations_again=search.integer("iterations_computed_again"),
        checkpoints=checkpoints.integer("written"),
        checkpoint_s=checkpoints.number("seconds"),
        quality=tuple(_quality(each) for each in node.children("quality")),
        speed_up=speed_up.number("factor"),
        no_speed_up=speed_up.text("reason"),
    )


def _phase(node: Node) -> PhaseCost:
    return PhaseCost(
        name=node.text("name") or "(no name)",
        seconds=node.number("seconds"),
        share=node.number("share"),
        sessions=node.integer("sessions"),
        complete=node.flag("complete"),
        shares=_shares(node.child("shares")),
    )


def _quality(node: Node) -> Quality:
    return Quality(
        epoch=node.integer("epoch"),
        iterations=node.integer("iterations"),
        since_start_s=node.number("since_start_s"),
        objective=node.number("best_objective"),
        candidate=node.integer("best_candidate"),
    )


def _coverage(node: Node) -> Coverage:
    return Coverage(
        discovered=node.integer("pair_count_discovered"),
        selected=node.integer("pair_count_selected_for_training"),
        sampled=node.integer("pair_count_sampled"),
        percent=node.number("train_pair_coverage_pct_effective"),
        reason=node.text("coverage_gap_reason"),
        justified=node.flag("coverage_gap_is_justified"),
    )
