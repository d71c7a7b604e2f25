"""Whether a run has a student to distil, from which teachers, and whether it can: decided first (R18, R22)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesu.config import RunConfig
from vesu.distill.proof import HARD_FAIL
from vesu.errors import DistillationNotExecuted, VesuError

if TYPE_CHECKING:
    from vesu.distill.device import ComputeDevice
    from vesu.distill.teacher import TeacherSpec

__all__ = ["DistillationPlan", "hard_fail", "plan_distillation", "prepare_device"]

BESIDE = "teachers"
"""Name of the folder that is looked for in the data folder and beside it."""


@dataclass(frozen=True)
class DistillationPlan:
    """What a run has to distil, and why or why not."""

    due: bool
    """Whether a student must be trained: the run fails without one."""
    reason: str
    """Why it is due, or why it is not, in words."""
    folder: Path | None = None
    """Where teachers were looked for."""
    teachers: "tuple[TeacherSpec, ...]" = ()
    """The usable ones, by name."""
    refused: tuple[tuple[str, str], ...] = ()
    """Paths that are no usable teachers, and why."""
    problem: str | None = None
    """Why what is due cannot be done; None where it can."""

    def fields(self, nominal: int) -> dict[str, Any]:
        """What the event ``TEACHERS_FOUND`` says; ``nominal`` teachers are expected."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "teachers": [{"name": each.name, "digest": each.digest} for each in self.teachers],
            "refused": [{"path": path, "reason": reason} for path, reason in self.refused],
            "nominal": nominal,
            "teacher_coverage_pct": 100.0 * min(len(self.teachers) / nominal, 1.0),
        }


def plan_distillation(config: RunConfig, data: Path) -> DistillationPlan:
    """Look for teachers as the configuration says, and decide whether a student is due.

    Parameters
    ----------
    config : RunConfig
        ``student.use``: 'auto' makes a student due where teachers, usable or not, are present: a set of teachers that
        were all refused is no reason to go on without them in silence. Beside a historical scorer one is trained only
        where that was asked for ('on').
    data : path
        The data folder; ``teachers`` is looked for in it and beside it where ``teachers.folder`` names none.

    Returns
    -------
    DistillationPlan
        With a ``problem`` where a student is due and there is no teacher; nothing is raised here.
    """
    use = config.student.use
    if use == "off":
        return DistillationPlan(False, "student.use is 'off'")
    if config.pipeline != "vesu" and use != "on":
        return DistillationPlan(False, f"pipeline {config.pipeline} trains nothing; student.use='on' adds a student")
    named = bool(config.teachers.folder)
    candidates = [Path(config.teachers.folder)] if named else [data / BESIDE, data.parent / BESIDE]
    folder = next((each for each in candidates if each.is_dir()), None)
    if folder is None:
        looked = f"no folder {' or '.join(map(str, candidates))}"
        due = named or use == "on"
        return DistillationPlan(due, "it was asked for" if due else looked, problem=looked if due else None)
    return _of_folder(folder, asked=named or use == "on")


def _of_folder(folder: Path, *, asked: bool) -> DistillationPlan:
    from vesu.distill.teacher import find_teachers

    try:
        found = find_teachers(folder)
    except VesuError as error:
        return DistillationPlan(True, "teachers are present", folder, problem=str(error))
    refused = tuple((str(path), reason) for path, reason in found.refused)
    if found.teachers:
        return DistillationPlan(True, "teachers are present", folder, tuple(found.teachers), refused)
    nothing = f"{folder}: no usable teacher"
    if refused:
        nothing += ": " + "; ".join(f"{path}: {reason}" for path, reason in refused)
    due = asked or bool(refused)
    reason = ("it was asked for" if asked else "teachers are present") if due else nothing
    return DistillationPlan(due, reason, folder, (), refused, nothing if due else None)


def prepare_device(
    plan: DistillationPlan, config: RunConfig, emit: Callable[[str, Mapping[str, Any]], None]
) -> "ComputeDevice":
    """The device that teachers and student run on, after it has computed something; torch is imported here.

    Raises
    ------
    DistillationNotExecuted
        What is due cannot be done: no teacher, no torch, no such device. Better now than after hours of search.
    """
    if plan.problem is not None:
        raise hard_fail(plan.problem)
    try:
        from vesu.distill.device import choose_compute_device

        return choose_compute_device(config.student.device, emit)
    except VesuError as error:
        raise hard_fail(str(error)) from error
    except ImportError as error:
        raise hard_fail(f"{error}; pip install 'vesu[distill]', or student.use=off") from error


def hard_fail(why: str) -> DistillationNotExecuted:
    """The error of a distillation that was due and did not run."""
    return DistillationNotExecuted(why if why.startswith(HARD_FAIL) else f"{HARD_FAIL}: {why}")
