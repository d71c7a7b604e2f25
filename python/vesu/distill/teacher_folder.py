"""Folders of teachers: found, refused with a reason, written."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesu.data.storage import make_folder, write_bytes_atomic
from vesu.distill.packages import need_package
from vesu.distill.teacher_spec import SPEC_FILE, SUFFIXES, TeacherSpec
from vesu.distill.weights_file import digest_of
from vesu.errors import ArgumentError, DataError, FileError, VesuError
from vesu.notebook import counted, table

if TYPE_CHECKING:
    import torch

__all__ = ["TeacherInventory", "find_teachers", "write_teacher"]

MAX_DEPTH = 4
MAX_ENTRIES = 10_000
STRAY = (*SUFFIXES.values(), ".pt", ".pth", ".ckpt", ".bin", ".keras", ".h5")
"""Names that end like weights."""
COMPANIONS = ("readme", "license", "licence", "notice", "model_card")
"""Files that may lie beside a teacher's two, by the beginning of their names."""


@dataclass(frozen=True)
class TeacherInventory:
    """What lies in a folder of teachers (R18)."""

    teachers: tuple[TeacherSpec, ...]
    """Those that can be loaded as far as their ``teacher.json`` says, sorted by name."""
    refused: tuple[tuple[Path, str], ...]
    """Folders and files that are no teacher, or a second one of a name or of weights; each with its reason."""
    extra: tuple[Path, ...] = ()
    """Files in teachers' folders that no ``teacher.json`` names."""

    def _repr_html_(self) -> str:
        rows = [(spec.name, spec.framework, spec.licence, spec.digest[:24] + "...") for spec in self.teachers]
        notes = [f"refused: {path.name}: {reason}" for path, reason in self.refused]
        return table(counted(len(rows), "teacher"), ["name", "framework", "licence", "digest"], rows, notes=notes)

    def to_json(self) -> dict[str, Any]:
        """For a run's evidence."""
        return {
            "teachers": [
                {"name": spec.name, "digest": spec.digest, "framework": spec.framework, "folder": str(spec.folder)}
                for spec in self.teachers
            ],
            "refused": [{"path": str(path), "reason": reason} for path, reason in self.refused],
            "extra": [str(path) for path in self.extra],
        }


def find_teachers(folder: str | os.PathLike[str]) -> TeacherInventory:
    """Every teacher under a folder; what is none is told with its reason.

    Parameters
    ----------
    folder : path-like
        It is searched four levels deep; a folder with a ``teacher.json`` is a teacher and is not searched further.

    Returns
    -------
    TeacherInventory
        No teacher at all is no error here.

    Raises
    ------
    FileError
        The folder cannot be listed.
    DataError
        More than 10,000 files and folders.

    Notes
    -----
    R18. Weights are not read: their digests are checked when a teacher is loaded. Of two teachers with the same name or
    the same weights the first path stays. Links that lead out of the folder are refused.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     find_teachers(folder)
    TeacherInventory(teachers=(), refused=(), extra=())
    """
    root = Path(folder)
    found: list[TeacherSpec] = []
    refused: list[tuple[Path, str]] = []
    extra: list[Path] = []
    for path in _walk(root, refused):
        if path.name != SPEC_FILE:
            refused.append((path, f"no {SPEC_FILE} beside it; `vesu teacher convert` makes one"))
            continue
        try:
            spec = _accepted(path.parent, root)
        except VesuError as error:
            refused.append((path.parent, str(error)))
            continue
        found.append(spec)
        extra += [each for each in sorted(path.parent.iterdir()) if not _belongs(each, spec)]
    teachers: list[TeacherSpec] = []
    for spec in found:
        if twin := next((each for each in teachers if spec.name == each.name or spec.digest == each.digest), None):
            same = "name" if spec.name == twin.name else "digest"
            refused.append((Path(spec.folder or root), f"the same {same} as {twin.folder}"))
        else:
            teachers.append(spec)
    return TeacherInventory(tuple(sorted(teachers, key=lambda s: s.name)), tuple(sorted(refused)), tuple(sorted(extra)))


def write_teacher(
    folder: str | os.PathLike[str], weights: "Mapping[str, torch.Tensor] | bytes", **members: Any
) -> TeacherSpec:
    """Write a teacher's folder: its weights, then its ``teacher.json`` with their digest.

    Parameters
    ----------
    folder : path-like
        Made where it is missing; a teacher in it is replaced.
    weights : Mapping of str to torch.Tensor, or bytes
        A module's ``state_dict()``, for safetensors; or the content of the weights file.
    **members
        Of :class:`TeacherSpec`, without ``digest``; where they are not given, ``framework`` is "safetensors" and
        ``weights`` is ``model`` with the framework's suffix.

    Returns
    -------
    TeacherSpec
        With its folder.

    Raises
    ------
    ArgumentError
        A member that is not accepted, or tensors that safetensors does not hold.
    FileError
        The operating system refused.

    Notes
    -----
    R18. A tensor that a state has under several names is written once.

    Examples
    --------
    See :func:`vesu.distill.teacher.load_teacher`.
    """
    data = weights if isinstance(weights, bytes) else safetensors_bytes(weights)
    framework = members.get("framework", "safetensors")
    if framework not in SUFFIXES:
        raise ArgumentError(f"framework: got {framework!r}; accepted: {', '.join(SUFFIXES)}")
    given = {"framework": framework, "architecture": None, "weights": f"model{SUFFIXES[framework]}"} | members
    names = {each.name for each in dataclasses.fields(TeacherSpec)} - {"digest", "folder"}
    for name in given.keys() ^ names:
        raise ArgumentError(
            f"{name}: {'missing' if name in names else 'unknown'}; accepted: {', '.join(sorted(names))}"
        )
    spec = TeacherSpec(**given, digest=digest_of(data), folder=Path(folder))
    make_folder(folder)
    write_bytes_atomic(spec.weights_path, data)
    spec.save(folder)
    return spec


def safetensors_bytes(state: "Mapping[str, torch.Tensor]") -> bytes:
    """A safetensors file of a state; of tensors that are one in memory the first name is kept.

    Raises
    ------
    ArgumentError
        Something that it does not hold.
    """
    once: dict[Any, str] = {}
    for name, tensor in state.items():
        once.setdefault(
            (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else name, name
        )
    try:
        return bytes(
            _safetensors().save({name: state[name].detach().cpu().contiguous().clone() for name in once.values()})
        )
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ArgumentError(f"weights: {error}; accepted: dense tensors of numbers") from error


def _safetensors() -> Any:
    return need_package("safetensors.torch", "distill")


def _walk(root: Path, refused: list[tuple[Path, str]]) -> Iterator[Path]:
    """Every ``teacher.json``, and every file that looks like weights without one, in the order of their paths."""
    real_root = os.path.realpath(root)
    n_entries = 0
    waiting = [(root, 0)]
    while waiting:
        here, depth = waiting.pop()
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            if here == root:
                raise FileError(error.errno, error.strerror or str(error), str(root)) from error
            refused.append((here, f"cannot be listed: {error.strerror}"))
            continue
        n_entries += len(entries)
        if n_entries > MAX_ENTRIES:
            raise DataError(f"{root}: more than {MAX_ENTRIES} files and folders; accepted: a folder of teachers")
        if here / SPEC_FILE in entries:
            yield here / SPEC_FILE
            continue
        folders = []
        for entry in entries:
            if entry.is_symlink() and not _inside(entry, real_root):
                refused.append((entry, "a link that leads out of the folder"))
            elif entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith(STRAY):
                yield entry
        for entry in folders:
            if depth + 1 > MAX_DEPTH or entry.is_symlink():  # a link inside names what is found by itself
                continue
            waiting.append((entry, depth + 1))
        waiting.sort(reverse=True)


def _accepted(folder: Path, root: Path) -> TeacherSpec:
    real_root = os.path.realpath(root)
    if not _inside(folder / SPEC_FILE, real_root):
        raise DataError(f"{SPEC_FILE} is a link that leads out of the folder")
    spec = TeacherSpec.load(folder)
    if not spec.weights_path.is_file():
        raise DataError(f"{spec.weights_path}: missing")
    if not _inside(spec.weights_path, real_root):
        raise DataError(f"{spec.weights} is a link that leads out of the folder")
    return spec


def _inside(path: Path, real_root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(real_root)


def _belongs(path: Path, spec: TeacherSpec) -> bool:
    return path.name in (SPEC_FILE, spec.weights) or path.name.lower().startswith(COMPANIONS)
