"""Did the phases run that were asked for? Distillation, the guided phase, and the training's coverage (R22, R24, R40).

Each gate takes the evidence and believes no field that only declares: it compares places, counts and figures of the
events that the work itself writes.
"""

import math
from collections.abc import Mapping
from typing import Any

from vesu.data.jsonfiles import read_object_if_any
from vesu.distill.proof import EVENTS as DISTILLATION_EVENTS
from vesu.distill.proof import HARD_FAIL, examine_distillation
from vesu.errors import EvidenceError
from vesu.run.coverage import COVERAGE_REPORT, coverage_report
from vesu.run.gates.evidence import LOG, Evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed
from vesu.run.history import Event

__all__ = ["EVENTS", "competitor", "coverage", "distillation", "guided_is_asked", "student_is_due"]

COMPETITOR_EVENTS = (
    "COMPETITOR_TIFF_LOAD_OK",
    "COMPETITOR_GUIDED_PHASE_START",
    "COMPETITOR_ALIGNMENT_DELTA",
    "COMPETITOR_GUIDED_PHASE_DONE",
)

TOLD = ("TEACHERS_FOUND", "STUDENT_SKIPPED")
"""What says, at a session's beginning, whether a student is due."""

EVENTS = (*DISTILLATION_EVENTS, *COMPETITOR_EVENTS, *TOLD, HARD_FAIL, "INVENTORY", "TRAIN_COVERAGE_FINAL")

COMPETITOR_FILE = "v3_competitor_guided_delta.json"

MIN_COVERAGE_PCT = 95.0

MEASURES = ("iou", "dice", "density_gap")

ROUNDING = 1e-9
"""Between a difference that was logged and the one of the logged figures."""

LISTED = 3
"""So many of the things that are missing are named."""


def distillation(evidence: Evidence) -> Gate:
    """The student was trained from the teachers that the session found, if one was due (R22)."""
    records = evidence.carried(*DISTILLATION_EVENTS)
    records += evidence.named(*DISTILLATION_EVENTS, since=evidence.retrained(student=True))
    told, due = evidence.newest(*TOLD), student_is_due(evidence)
    if told is None and not due and not records:
        return failed("the log does not say whether a student was due: the run did not come so far")
    found = evidence.newest("TEACHERS_FOUND")
    teachers = {} if found is None else {str(each["name"]): str(each["digest"]) for each in found["teachers"]}
    proof = examine_distillation(records, teachers=teachers, due=due)
    if (broken := evidence.newest(HARD_FAIL, since=evidence.session_began)) is not None:
        return failed(str(broken.get("reason") or HARD_FAIL))
    if proof.missing:
        more = f" (and {len(proof.missing) - LISTED} more)" if len(proof.missing) > LISTED else ""
        return failed(f"not proved by the log: {'; '.join(proof.missing[:LISTED])}{more}")
    if not proof.executed:
        return not_applicable("nothing was due" if told is None else str(told.get("reason")))
    steps = ", ".join(f"{count} steps of {stage}" for stage, count in proof.steps.items())
    return passed(f"proved by the log: {len(proof.teachers)} teachers, {steps}")


def student_is_due(evidence: Evidence) -> bool:
    """Whether a student was asked for by name, or the last session found teachers."""
    use, told = evidence.section("student").get("use", "auto"), evidence.newest(*TOLD)
    by_name = bool(evidence.section("teachers").get("folder")) and evidence.pipeline == "vesu"
    asked = use == "on" or (use == "auto" and by_name)
    return asked or (told is not None and told["event"] == "TEACHERS_FOUND")


def competitor(evidence: Evidence) -> Gate:
    """The guided phase moved the masks towards its reference, where nothing was fitted (R24)."""
    records = evidence.carried(*COMPETITOR_EVENTS)
    records += evidence.named(*COMPETITOR_EVENTS, since=evidence.retrained())
    asked = guided_is_asked(evidence)
    if not asked and not records:
        return not_applicable("no reference mask was given")
    if not asked:
        return failed(f"{records[0]['event']} in the log of a run that was given no reference mask")
    places = {event["event"]: place for place, event in enumerate(records)}  # of each the newest
    if (done := places.get(COMPETITOR_EVENTS[-1])) is not None and records[done].get("state") != "pass":
        return failed(f"the guided phase reports failure: {records[done].get('reason')}")
    if missing := [name for name in COMPETITOR_EVENTS if name not in places]:
        return failed(f"asked for, and no {missing[0]} in the log")
    in_order = [places[name] for name in COMPETITOR_EVENTS]
    if in_order != sorted(in_order):
        return failed("the guided phase's last events do not stand in the order of its work")
    load, start, delta, _ = (records[place] for place in in_order)
    return _moved(evidence, load, start, delta)


def guided_is_asked(evidence: Evidence) -> bool:
    """Whether the run was given a reference mask."""
    return bool(evidence.section("guided").get("reference"))


def _moved(evidence: Evidence, load: Event, start: Event, delta: Event) -> Gate:
    """The delta is that of its figures, of one volume, on voxels held out, and of the intended sign."""
    volume_id = load["volume_id"]
    if {start["volume_id"], delta["volume_id"]} != {volume_id}:
        return failed(f"the guided phase's events are of several volumes: {volume_id}, {delta['volume_id']}")
    if min(int(start["voxels_fit"]), int(start["voxels_held_out"])) < 1:
        return failed("no voxel was fitted, or none was kept out of the fit")
    before, after, told = (_measures(delta[name]) for name in ("before", "after", "delta"))
    real = {name: after[name] - before[name] for name in MEASURES}
    if any(abs(real[name] - told[name]) > ROUNDING for name in MEASURES):
        return failed(f"the delta that was logged is not that of its figures: {_shown(told)}, not {_shown(real)}")
    if not (real["iou"] > 0 and real["dice"] > 0 and abs(after["density_gap"]) <= abs(before["density_gap"])):
        return failed(f"the delta has not the intended sign: {_shown(real)}")
    written = read_object_if_any(evidence.folder / COMPETITOR_FILE)
    if written is None or any(_differs(written.get(name), delta[name]) for name in ("before", "after", "delta")):
        return failed(f"{COMPETITOR_FILE} does not say what the log says")
    return passed(f"{volume_id}: {_shown(real)} on {start['voxels_held_out']} voxels kept out of the fit")


def _measures(values: Mapping[str, Any]) -> dict[str, float]:
    found = {name: float(values[name]) for name in MEASURES}
    if not all(map(math.isfinite, found.values())):
        raise ValueError(f"a measure that is no number: {found}")
    return found


def _differs(written: Any, logged: Mapping[str, Any]) -> bool:
    return not isinstance(written, dict) or _measures(written) != _measures(logged)


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {values[name]:+.4f}" for name in MEASURES)


def coverage(evidence: Evidence) -> Gate:
    """Voxels of nearly all discovered pairs were sampled (R40)."""
    if evidence.pipeline != "vesu":
        return not_applicable(f"pipeline {evidence.pipeline} trains no search")
    final, inventory = evidence.newest("TRAIN_COVERAGE_FINAL"), evidence.newest("INVENTORY")
    if final is None or inventory is None:
        return failed("no TRAIN_COVERAGE_FINAL in the log: the search did not come to its end")
    try:
        found = coverage_report(evidence.folder / LOG)  # from what was sampled, not from what was declared
    except EvidenceError as error:
        return failed(str(error))
    n_pairs, n_sampled = int(inventory["pairs"]), int(found["pair_count_sampled"])
    if found["pair_count_discovered"] != n_pairs:
        return failed(f"the plan is of {found['pair_count_discovered']} pairs, {n_pairs} were discovered")
    percent, least = 100.0 * n_sampled / n_pairs, _min_coverage(evidence)
    if final["train_pair_coverage_pct_effective"] != found["train_pair_coverage_pct_effective"]:
        told = final["train_pair_coverage_pct_effective"]
        return failed(f"TRAIN_COVERAGE_FINAL declares {told} %, the sampled voxels are of {percent:.4g} %")
    if read_object_if_any(evidence.folder / COVERAGE_REPORT) != found:
        return failed(f"{COVERAGE_REPORT} does not say what the log says")
    words = f"{n_sampled} of {n_pairs} discovered pairs, {percent:.4g} %"
    if percent < least:
        return failed(f"{words}, below {least:g} %: {found['coverage_gap_reason']}")
    return passed(words)


def _min_coverage(evidence: Evidence) -> float:
    return max(MIN_COVERAGE_PCT, float(evidence.section("gates").get("min_coverage_pct", MIN_COVERAGE_PCT)))
