"""GO or NO-GO: whether what a run declares was done, as ``summary.json`` has it (R22, R44)."""

from typing import Any

from vesu.run.state import Distillation
from vesu.run.teaching import DistillationPlan

__all__ = ["GO", "NO_GO", "go_no_go"]

GO, NO_GO = "GO", "NO_GO_SUBMISSION"


def go_no_go(plan: DistillationPlan, state: Distillation | None, failure: str | None) -> dict[str, Any]:
    """The verdict and its gates.

    Parameters
    ----------
    plan : DistillationPlan
        Whether a student is due.
    state : Distillation or None
        How far it is.
    failure : str, optional
        Why it failed.

    Returns
    -------
    dict
        ``verdict``: ``GO`` or ``NO_GO_SUBMISSION``; ``failed``: names of the gates that failed; ``gates``: of each its
        ``state`` (``pass``, ``fail``, ``not_applicable``) and the reason in words.

    Examples
    --------
    >>> from pathlib import Path
    >>> go_no_go(DistillationPlan(False, "student.use is 'off'"), None, None)["gates"]["distillation"]["state"]
    'not_applicable'
    >>> go_no_go(DistillationPlan(True, "it was asked for"), None, None)["verdict"]
    'NO_GO_SUBMISSION'
    """
    gate = _distillation(plan, state, failure)
    failed = ["distillation"] if gate["state"] == "fail" else []
    return {"verdict": NO_GO if failed else GO, "failed": failed, "gates": {"distillation": gate}}


def _distillation(plan: DistillationPlan, state: Distillation | None, failure: str | None) -> dict[str, str]:
    if failure is not None:
        return {"state": "fail", "reason": failure}
    if not plan.due:
        return {"state": "not_applicable", "reason": plan.reason}
    if state is None or not state.done:
        return {"state": "fail", "reason": "the distillation is due, and not finished yet"}
    return {"state": "pass", "reason": "proved by the log"}
