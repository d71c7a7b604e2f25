"""``teacher.json``: what a frozen teacher is, where its weights are, what it wants to see and what it says (R18)."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vesu.data.storage import write_json_atomic
from vesu.distill.normalisation import GreyType, Normalisation
from vesu.distill.weights_file import read_bounded
from vesu.errors import ArgumentError, FormatError

__all__ = ["FORMAT", "SPEC_FILE", "SUFFIXES", "Framework", "InputSpec", "OutputSpec", "TeacherSpec"]

FORMAT = "vesu-teacher/1"
SPEC_FILE = "teacher.json"
MAX_SPEC_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DIGEST = re.compile(r"(blake3|sha256):[0-9a-f]{64}")
MAX_PATCH = 1024
MAX_CLASSES = 64

Framework: TypeAlias = Literal["safetensors", "onnx", "torch.export", "keras"]

SUFFIXES: dict[Framework, str] = {
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "torch.export": ".pt2",
    "keras": ".weights.h5",
}
"""How the name of each framework's weights ends."""


@dataclass(frozen=True)
class InputSpec:
    """What a teacher wants to see.

    Parameters
    ----------
    patch : (int, int, int)
        Voxels (z, y, x) of a window.
    fixed_patch : bool
        Whether only windows of exactly this size are taken.
    channels : {"first", "last"}
        Where the network's single input channel stands: (b, c, z, y, x) or (b, z, y, x, c); the output's alike.
    dtype : {"uint8", "uint16", "float32"}
        Type of the volumes that it learned from, before their normalisation.

    Raises
    ------
    ArgumentError
        A value out of range.

    Examples
    --------
    >>> InputSpec((128, 128, 128), fixed_patch=True, channels="last").dtype
    'uint8'
    """

    patch: tuple[int, int, int]
    fixed_patch: bool = False
    channels: Literal["first", "last"] = "first"
    dtype: GreyType = "uint8"

    def __post_init__(self) -> None:
        good = isinstance(self.patch, tuple) and len(self.patch) == 3
        good = good and all(type(n) is int and 0 < n <= MAX_PATCH for n in self.patch)
        _require("input.patch", self.patch, good, f"three integers of 1 to {MAX_PATCH}")
        _require("input.fixed_patch", self.fixed_patch, isinstance(self.fixed_patch, bool), "true or false")
        _require("input.channels", self.channels, self.channels in ("first", "last"), "'first' or 'last'")
        _require("input.dtype", self.dtype, self.dtype in get_args(GreyType), "'uint8', 'uint16' or 'float32'")


@dataclass(frozen=True)
class OutputSpec:
    """What a teacher says.

    Parameters
    ----------
    n_classes : int
        Channels of its output; one is a sigmoid's.
    surface_class : int
        Which of them is papyrus surface.
    semantics : {"logits", "probabilities"}
        What the channels hold.
    ignored_class : int, optional
        A class that was never trained (2, the unlabelled voxels): it is left out, whatever it says.

    Raises
    ------
    ArgumentError
        A value out of range, or no class beside the surface's that was trained.

    Examples
    --------
    >>> OutputSpec(3, 1, "logits", ignored_class=2).other_classes
    (0,)
    """

    n_classes: int
    surface_class: int = 1
    semantics: Literal["logits", "probabilities"] = "logits"
    ignored_class: int | None = None

    def __post_init__(self) -> None:
        n, surface, ignored = self.n_classes, self.surface_class, self.ignored_class
        _require("output.n_classes", n, type(n) is int and 1 <= n <= MAX_CLASSES, f"1 to {MAX_CLASSES}")
        _require("output.surface_class", surface, type(surface) is int and 0 <= surface < n, f"0 to {n - 1}")
        good = ignored is None or (type(ignored) is int and 0 <= ignored < n and ignored != surface)
        _require("output.ignored_class", ignored, good, f"a class of 0 to {n - 1} beside surface_class, or null")
        _require("output.n_classes", n, n == 1 or bool(self.other_classes), "1, or a trained class beside the surface")
        good = self.semantics in ("logits", "probabilities")
        _require("output.semantics", self.semantics, good, "'logits' or 'probabilities'")

    @property
    def other_classes(self) -> tuple[int, ...]:
        """The trained classes that are not surface."""
        return tuple(c for c in range(self.n_classes) if c not in (self.surface_class, self.ignored_class))


@dataclass(frozen=True)
class TeacherSpec:
    """A frozen teacher: the content of its ``teacher.json``.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_``, ``-``; unique in an ensemble.
    framework : {"safetensors", "onnx", "torch.export", "keras"}
        What the weights file is.
    weights : str
        Name of the weights file, in the same folder.
    digest : str
        ``blake3:`` or ``sha256:`` and 64 hexadecimal digits: of the weights file's bytes.
    input : InputSpec
    normalisation : Normalisation
    output : OutputSpec
    architecture : Mapping, optional
        Of "safetensors": ``{"name": ..., "kwargs": {...}}``, see :mod:`vesu.distill.architectures`.
        Of "keras": ``{"module": ..., "class": ..., "kwargs": {...}}``. The others carry their own: None.
    licence, source : str
        Under which terms, and from where, the weights came; not empty.
    folder : Path, optional
        Where the teacher lies; no member of ``teacher.json``.

    Raises
    ------
    ArgumentError
        A value that is not accepted; the message names it.

    Notes
    -----
    R18.

    Examples
    --------
    >>> spec = TeacherSpec(
    ...     name="small-unet", framework="safetensors", weights="model.safetensors", digest="blake3:" + "0" * 64,
    ...     input=InputSpec((32, 32, 32)), normalisation=Normalisation("zscore"), output=OutputSpec(2),
    ...     architecture={"name": "UNet", "kwargs": {"channels": [4, 8], "strides": [2]}},
    ...     licence="CC0-1.0", source="made here")
    >>> spec.patch
    (32, 32, 32)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spec.save(folder)
    ...     TeacherSpec.load(folder) == spec
    True
    """

    name: str
    framework: Framework
    weights: str
    digest: str
    input: InputSpec
    normalisation: Normalisation
    output: OutputSpec
    architecture: Mapping[str, Any] | None
    licence: str
    source: str
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        good = isinstance(self.name, str) and NAME.fullmatch(self.name) is not None
        _require(
            "name", self.name, good, "up to 100 letters, digits, '.', '_' or '-', beginning with one of the first two"
        )
        good = self.framework in get_args(Framework)
        _require("framework", self.framework, good, ", ".join(map(repr, get_args(Framework))))
        suffix = SUFFIXES[self.framework]
        good = isinstance(self.weights, str) and Path(self.weights).name == self.weights and "\\" not in self.weights
        good = good and self.weights.endswith(suffix) and len(self.weights) > len(suffix)
        _require("weights", self.weights, good, f"the name of a *{suffix} file in the teacher's folder")
        good = isinstance(self.digest, str) and DIGEST.fullmatch(self.digest) is not None
        _require("digest", self.digest, good, "'blake3:' or 'sha256:' and 64 hexadecimal digits")
        check_architecture(self.framework, self.architecture)
        for name in ("licence", "source"):
            text = getattr(self, name)
            _require(name, text, isinstance(text, str) and bool(text.strip()), "a text that is not empty")

    @property
    def patch(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of a window."""
        return self.input.patch

    @property
    def fixed_patch(self) -> bool:
        """Whether only windows of exactly :attr:`patch` are taken."""
        return self.input.fixed_patch

    @property
    def weights_path(self) -> Path:
        """The weights file.

        Raises
        ------
        ArgumentError
            The specification was not loaded from a folder.
        """
        if self.folder is None:
            raise ArgumentError(f"teacher {self.name}: it has no folder; accepted: TeacherSpec.load(folder)")
        return self.folder / self.weights

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "TeacherSpec":
        """Read ``folder/teacher.json``; the weights are not touched.

        Raises
        ------
        FileError
            It cannot be read.
        FormatError
            No JSON, a member that is missing or unknown, or a value that is not accepted: the message names it.
        """
        path = Path(folder) / SPEC_FILE
        document = strict_json(path, read_bounded(path, MAX_SPEC_BYTES))
        try:
            return cls.from_json(document, folder=Path(folder))
        except (ArgumentError, FormatError) as error:
            raise FormatError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, document: Any, *, folder: Path | None = None) -> "TeacherSpec":
        """What :meth:`to_json` gave.

        Raises
        ------
        FormatError
            A member that is missing or unknown.
        ArgumentError
            A value that is not accepted.
        """
        names = ["format", *(each.name for each in fields(cls) if each.name != "folder")]
        members = _members(document, "", names)
        _require("format", members.pop("format"), document["format"] == FORMAT, repr(FORMAT))
        parts = {"input": (InputSpec, INPUT), "output": (OutputSpec, OUTPUT)}
        for part, (kind, required) in parts.items():
            members[part] = kind(**_members(members[part], f"{part}.", required))
        optional = tuple(each.name for each in fields(Normalisation) if each.name not in NORMALISATION)
        normalisation = _members(members["normalisation"], "normalisation.", NORMALISATION, optional)
        return cls(**members | {"normalisation": Normalisation(**normalisation), "folder": folder})

    def to_json(self) -> dict[str, Any]:
        """The members of ``teacher.json``."""
        document: dict[str, Any] = {"format": FORMAT}
        document |= {each.name: getattr(self, each.name) for each in fields(self) if each.name != "folder"}
        document["input"] = {name: getattr(self.input, name) for name in INPUT} | {"patch": list(self.patch)}
        document["output"] = {name: getattr(self.output, name) for name in OUTPUT}
        document["normalisation"] = self.normalisation.to_json()
        return document

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``folder/teacher.json``; the weights are not touched.

        Raises
        ------
        FileError
            The operating system refused.
        """
        write_json_atomic(Path(folder) / SPEC_FILE, self.to_json())


INPUT = ("patch", "fixed_patch", "channels", "dtype")
OUTPUT = ("n_classes", "surface_class", "semantics", "ignored_class")
NORMALISATION = ("kind", "scope")
RECIPES: dict[Framework, tuple[str, ...]] = {"safetensors": ("name", "kwargs"), "keras": ("module", "class", "kwargs")}


def check_architecture(framework: Framework, architecture: Any) -> None:
    """Refuse an architecture that is not of its framework's form.

    Raises
    ------
    ArgumentError, FormatError
        The message names the member.
    """
    recipe = RECIPES.get(framework)
    if recipe is None:
        _require("architecture", architecture, architecture is None, f"null: {framework} files carry their own")
        return
    members = _members(architecture, "architecture.", recipe)
    for name in recipe[:-1]:
        _require(f"architecture.{name}", members[name], isinstance(members[name], str), "a text")
    _require("architecture.kwargs", members["kwargs"], isinstance(members["kwargs"], dict), "an object")


def strict_json(path: Path, data: bytes) -> Any:
    """A JSON document in which no name comes twice and no number is NaN.

    Raises
    ------
    FormatError
        It is none; the message names the file.
    """

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a name comes twice in one object")
        return found

    try:
        return json.loads(data, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error


def _members(value: Any, prefix: str, required: Any, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The members of an object by their dataclass's names; JSON lists become tuples where a dataclass wants one."""
    if not isinstance(value, Mapping):
        raise FormatError(f"{prefix.rstrip('.') or 'the document'}: got {type(value).__name__}; accepted: an object")
    for name in required:
        if name not in value:
            raise FormatError(f"{prefix}{name}: missing")
    for name in value:
        if name not in required and name not in optional:
            accepted = ", ".join([*required, *optional])
            raise FormatError(f"{prefix}{name}: unknown; accepted: {accepted}")
    return {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}


def _require(name: str, value: Any, good: bool, accepted: str) -> None:
    if not good:
        raise ArgumentError(f"{name}: got {value!r}; accepted: {accepted}")
