"""Is the zip what the run made, and no worse than what was there before? Submission and score (R04, R44)."""

import hashlib
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vesu.errors import FileError, VesuError
from vesu.run.gates.evidence import Evidence
from vesu.run.gates.verdict import Gate, failed, not_applicable, passed
from vesu.run.history import Event
from vesu.submission import check_submission

__all__ = ["COMPARED", "EVENTS", "METRIC", "ZIP", "file_sha256", "measured", "score", "submission"]

ZIP = "submission.zip"

FINAL, ANY = "SUBMISSION_WRITTEN", "SAFE_SUBMISSION_WRITTEN"

MEASURED = ("CALIBRATED", "BASELINE_VALIDATED")

COMPARED = "BEST_RECORDED_COMPARED"

EVENTS = (FINAL, ANY, *MEASURED, COMPARED)

METRIC = "score"
"""What runs are compared by: the competition's score, the mean over the validation volumes."""


def submission(evidence: Evidence) -> Gate:
    """The zip beside is the last that the log knows, of a run that came to its end, and the competition takes it."""
    path = evidence.folder / ZIP
    if not path.is_file():
        return failed(f"no {ZIP}")
    last, final = evidence.newest(ANY), evidence.newest(FINAL)
    sha256 = file_sha256(path)
    if last is None or last["sha256"] != sha256:
        return failed(f"{ZIP} is not the one that the log knows: its sha256 is {sha256[:16]}...")
    if final is None or final["sha256"] != sha256:
        origins = ", ".join(f"{count} {name}" for name, count in last["origins"].items())
        return failed(f"the run has not come to its end: the masks in {ZIP} are those in reserve ({origins})")
    inventory = evidence.newest("INVENTORY") or {}
    shapes = {name: tuple(shape) for name, shape in inventory.get("test_shapes", {}).items()}
    if not shapes:
        return failed("the log does not say which test volumes there were")
    try:
        found = check_submission(path, shapes, n_threads=evidence.config.get("n_threads"))
    except VesuError as error:
        return failed(f"the competition would refuse {ZIP}: {error}")
    return passed(f"{ZIP} is valid: {len(found.members)} masks, each of its test volume's shape")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises
    ------
    FileError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error


def score(evidence: Evidence) -> Gate:
    """What the masks are worth on the validation volumes is not below the best recorded on the same (R44)."""
    found = measured(evidence)
    if found is None:
        if evidence.pipeline != "vesu" and not (evidence.newest("INVENTORY") or {}).get("pairs"):
            return not_applicable("no labelled volume to score on")
        return failed("no score of validation volumes in the log: the run did not come so far")
    if evidence.section("gates").get("best_recorded") == "none":
        return not_applicable("gates.best_recorded is 'none'")
    compared = evidence.newest(COMPARED, since=found["seq"])
    if compared is None:
        return failed("the log does not say which score is the best recorded: the run did not come so far")
    if compared.get("problem"):
        return failed(f"the best recorded score is not known: {compared['problem']}")
    by_volume = scores_of(found)
    if set(by_volume) != set(compared["volumes"]) or compared["metric"] != METRIC:
        return failed(f"the best recorded was looked up for other volumes than those scored ({', '.join(by_volume)})")
    return _against(statistics.fmean(by_volume.values()), compared, _tolerance(evidence))


def measured(evidence: Evidence) -> Event | None:
    """The newest event with scores of validation volumes; that of an earlier log counts where this one has none."""
    found = evidence.newest(*MEASURED, since=evidence.retrained())
    if found is None and (carried := evidence.carried(*MEASURED)):
        found = {**carried[-1], "seq": 0}
    return found if found is not None and scores_of(found) else None


def scores_of(event: Event) -> dict[str, float]:
    """The competition's score of each validation volume."""
    rows = (event.get("validation") or {}).get("by_volume") or ()
    return {str(row["volume_id"]): float(row[METRIC]) for row in rows}


def _against(own: float, compared: Mapping[str, Any], tolerance: float) -> Gate:
    best, n = compared["best"], len(compared["volumes"])
    on = f"on {n} validation volume{'' if n == 1 else 's'}"
    if best is None:
        others = compared["others"]
        aside = f"; {others} recorded on other volumes are not compared" if others else ""
        return passed(f"score {own:.4f} {on}: the first recorded there{aside}")
    words = f"score {own:.4f} {on}, the best recorded there is {best['score']:.4f} (run {best['run_id'][:8]})"
    return passed(words) if own >= best["score"] - tolerance else failed(f"{words}: below it")


def _tolerance(evidence: Evidence) -> float:
    return float(evidence.section("gates").get("score_tolerance", 0.0))
