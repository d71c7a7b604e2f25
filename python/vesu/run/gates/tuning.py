"""Is what the auto-tuning's trace tells of what the log holds (R39, R54)?"""

from vesu.data.jsonfiles import read_object_if_any
from vesu.run.gates.evidence import ALL, Evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed

__all__ = ["DECISION", "EVENTS", "TRACE", "auto_tune", "auto_tune_is_asked"]

DECISION = "AUTO_TUNE_POLICY_DECISION"

EVENTS = (DECISION,)

TRACE = "v3_autotune_trace.json"


def auto_tune(evidence: Evidence) -> Gate:
    """The trace has the decisions of the log, each with its evidence, and no others."""
    records = [*evidence.carried(DECISION), *evidence.named(DECISION, since=_searched_anew(evidence))]
    if not auto_tune_is_asked(evidence):
        return failed(f"{DECISION} in a run that was not to tune") if records else not_applicable("not asked for")
    trace = read_object_if_any(evidence.folder / TRACE)
    if trace is None:
        return failed(f"asked for, and no {TRACE}")
    logged = {record["number"]: record for record in records}  # a decision that was made again counts once
    for number, entry in enumerate(trace["decisions"]):
        event = logged.pop(number, None)
        if event is None:
            return failed(f"decision {number} of {TRACE} is not in the log")
        if differing := [name for name in entry if event.get(name) != entry[name]]:
            return failed(f"decision {number} of {TRACE} is not the log's: {', '.join(differing)}")
    if logged:
        return failed(f"decision {min(logged)} of the log is not in {TRACE}")
    return passed(f"{len(trace['decisions'])} decisions, each in the log and in {TRACE}")


def auto_tune_is_asked(evidence: Evidence) -> bool:
    """Whether the run was to tune its search; a historical scorer has none."""
    return bool(evidence.section("auto_tune").get("use")) and evidence.pipeline == "vesu"


def _searched_anew(evidence: Evidence) -> int:
    """The record from which on the search's decisions were made anew."""
    again = [event["seq"] for event in evidence.named("RESUME_PARTIAL_RETRAIN") if event.get("scope") == "search"]
    return again[-1] if again else ALL
