"""What ``vesu teacher list``, ``check`` and ``convert`` do."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vesu.distill.convert import convert_teacher, read_members
from vesu.distill.packages import need_package
from vesu.distill.teacher_folder import TeacherInventory, find_teachers
from vesu.distill.teacher_spec import TeacherSpec
from vesu.errors import DataError, VesuError

__all__ = ["check_teachers", "convert", "list_teachers"]


def list_teachers(folder: Path) -> Iterator[str]:
    """A line for each teacher, each refused path and each extra file; nothing is loaded."""
    inventory = find_teachers(folder)
    for spec in inventory.teachers:
        size = "x".join(map(str, spec.patch))
        yield f"teacher  {spec.name}: {spec.framework}, {_what(spec)}, windows of {size}, {spec.licence}, {spec.folder}"
    yield from _told(inventory)
    yield f"{len(inventory.teachers)} teachers in {folder}"


def check_teachers(folder: Path, device: str = "cpu") -> Iterator[str]:
    """Load each teacher, its digest and weights checked, and let it answer a window of noise; a line for each.

    Raises
    ------
    DataError
        At the end, if any was refused or failed, or if there is none.
    """
    inventory = find_teachers(folder)
    n_bad = len(inventory.refused)
    for spec in inventory.teachers:
        try:
            yield f"ok       {spec.name}: {_answer(spec, device)}"
        except VesuError as error:
            n_bad += 1
            yield f"failed   {spec.name}: {error}"
    yield from _told(inventory)
    if n_bad:
        raise DataError(f"{folder}: {n_bad} of what lies there cannot be used as teachers")
    if not inventory.teachers:
        raise DataError(f"{folder}: no teachers; accepted: folders with a teacher.json")
    yield f"{len(inventory.teachers)} teachers can be used"


def convert(source: Path, folder: Path, spec: Path | None = None, key: str | None = None) -> Iterator[str]:
    """Make a teacher's folder of a file of weights; what happened, line by line."""
    done = convert_teacher(source, folder, members=None if spec is None else read_members(spec), key=key)
    taken = "copied as it is" if done.n_tensors is None else f"{done.n_tensors} tensors taken out in a sandbox"
    yield f"{done.folder}: {done.framework}, {taken}, {done.digest}"
    for wall in done.walls:
        yield f"sandbox  {wall}"
    for name in done.dropped:
        yield f"left out {name}"
    if done.missing:
        yield f"fill in  {done.folder / 'teacher.json'}: {', '.join(done.missing)}"
        yield f"then     vesu teacher check {done.folder}"


def _what(spec: TeacherSpec) -> str:
    recipe = spec.architecture or {}
    return str(recipe.get("name") or recipe.get("class") or "its own graph")


def _told(inventory: TeacherInventory) -> Iterator[str]:
    for path, reason in inventory.refused:
        yield f"refused  {path}: {reason}"
    for path in inventory.extra:
        yield f"extra    {path}: no teacher.json names it"


def _answer(spec: TeacherSpec, device: str) -> str:
    """What it took to load a teacher and to ask it once."""
    from vesu.distill.teacher import load_teacher

    torch = need_package("torch", "distill")
    start = time.perf_counter()
    with load_teacher(spec, device=device) as teacher:
        loaded = time.perf_counter()
        noise = np.random.default_rng(0).integers(0, 256, spec.patch, np.uint8)
        logit = teacher.logits(torch.from_numpy(teacher.prepare(noise))[None, None])
        share = float((logit > 0).to(torch.float32).mean())
        seconds = f"loaded in {loaded - start:.1f} s, one window in {time.perf_counter() - loaded:.1f} s"
        return f"{teacher.n_parameters} parameters on {teacher.device}, {seconds}, surface in {share:.0%} of noise"
