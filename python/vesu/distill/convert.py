"""From whatever a teacher came in to a teacher's folder: files that may carry code are opened in a sandbox (R18)."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vesu
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.distill.pipes import end_process, exchange
from vesu.distill.teacher_spec import FORMAT, SPEC_FILE, SUFFIXES, Framework, TeacherSpec, strict_json
from vesu.distill.weights_file import WeightsKind, digest_of, identify, read_bounded
from vesu.errors import ArgumentError, FileError, FormatError

__all__ = ["Conversion", "convert_teacher"]

LIMIT_S = 900.0
ROOM_BYTES = 4 << 30
SIZES_IN_MEMORY = 6
"""How often a file's bytes may be in the sandbox's memory at a time, besides :data:`ROOM_BYTES`."""

SAFE: dict[WeightsKind, Framework] = {
    "safetensors": "safetensors",
    "torch.export": "torch.export",
    "hdf5": "keras",
    "unknown": "onnx",
}
HOSTILE: dict[WeightsKind, Framework] = {
    "pickle": "safetensors",
    "torchscript": "safetensors",
    "keras-archive": "keras",
}
MEMBERS = ("name", "architecture", "input", "normalisation", "output", "licence", "source")
"""Members of ``teacher.json`` that its writer must know."""


@dataclass(frozen=True)
class Conversion:
    """What became of a file."""

    folder: Path
    framework: Framework
    digest: str
    n_tensors: int | None
    """None where the file was only copied."""
    dropped: tuple[str, ...]
    """What was in the file and is not in the teacher."""
    walls: tuple[str, ...]
    """Of the sandbox, those that this machine has; none where the file was only copied."""
    missing: tuple[str, ...]
    """Members of ``teacher.json`` that are null and have to be filled in."""


def convert_teacher(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    members: Mapping[str, Any] | None = None,
    key: str | None = None,
    limit_s: float = LIMIT_S,
) -> Conversion:
    """Make a teacher's folder of a file of weights.

    Parameters
    ----------
    source : path-like
        A pickled checkpoint, a TorchScript or ``.keras`` archive, whose tensors are taken out in a sandbox; or
        safetensors, ONNX, ``.pt2``, ``.weights.h5``, which are copied.
    folder : path-like
        Must not hold a teacher yet.
    members : Mapping, optional
        Members of ``teacher.json`` as they stand there: ``name``, ``architecture``, ``input``, ``normalisation``,
        ``output``, ``licence``, ``source``. Those that are not given are null, and such a teacher is refused until
        they are filled in. A ``.keras`` archive of a known network brings its ``architecture``.
    key : str, optional
        Which of several sets of tensors in a checkpoint (``"state_dict"``, ``"ema.model"``).
    limit_s : float
        Seconds that the sandbox may take.

    Returns
    -------
    Conversion

    Raises
    ------
    FormatError
        A file that is nothing of these, that holds more than tensors and plain values, or that broke the sandbox.
    ArgumentError
        Unknown members, or a folder with a teacher.
    FileError
        The operating system refused.

    Notes
    -----
    R18. The sandbox is a process with an empty environment that loses, before it reads the first byte: the network
    (user namespace, Landlock); writing, making, removing and running files (Landlock); opening anything (no descriptor
    is left); memory, CPU time and file size beyond limits. What the machine's kernel lacks of these is missing from
    ``walls``. In it torch's restricted unpickler refuses every name but those of tensors and plain values.
    TorchScript's code is read by torch inside, and left there.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import save
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as around:
    ...     source = Path(around, "a.safetensors")
    ...     write_bytes_atomic(source, save({"weight": np.zeros(3, np.float32)}))
    ...     convert_teacher(source, Path(around, "teacher"), members={"name": "a"}).missing
    ('architecture', 'input', 'normalisation', 'output', 'licence', 'source')
    """
    source, folder = Path(source), Path(folder)
    given = dict(members or {})
    if unknown := given.keys() - set(MEMBERS):
        raise ArgumentError(f"members: got {', '.join(sorted(unknown))}; accepted: {', '.join(MEMBERS)}")
    if (folder / SPEC_FILE).exists():
        raise ArgumentError(f"folder: {folder} holds a teacher already; accepted: a new folder")
    kind = identify(source)
    told: dict[str, Any] = {}
    if kind in SAFE:
        framework = SAFE[kind]
        weights = _copied(source, framework)
    elif kind in HOSTILE:
        framework = HOSTILE[kind]
        told, weights = _in_sandbox(source, kind, key, limit_s)
    else:
        raise FormatError(f"{source}: {kind}; accepted: a pickled checkpoint, TorchScript, .keras, {_suffixes()}")
    digest = digest_of(weights)
    file = f"model{SUFFIXES[framework]}"
    document: dict[str, Any] = {"format": FORMAT, "framework": framework, "weights": file, "digest": digest}
    document |= {"architecture": told.get("architecture")} | given
    if framework in ("onnx", "torch.export"):
        document["architecture"] = None
    needed = [name for name in MEMBERS if name != "architecture" or framework in ("safetensors", "keras")]
    missing = tuple(name for name in needed if document.get(name) is None)
    document |= dict.fromkeys(missing)
    if not missing:
        TeacherSpec.from_json(document)  # or it is said now what is wrong
    make_folder(folder)
    write_bytes_atomic(folder / file, weights)
    write_json_atomic(folder / SPEC_FILE, document)
    return Conversion(
        folder=folder,
        framework=framework,
        digest=digest,
        n_tensors=told.get("tensors"),
        dropped=tuple(told.get("dropped", ())) + ((f"prefix {told['prefix']!r}",) if told.get("prefix") else ()),
        walls=tuple(told.get("walls", ())),
        missing=missing,
    )


def read_members(path: Path) -> dict[str, Any]:
    """Members for :func:`convert_teacher` from a JSON file.

    Raises
    ------
    FormatError, FileError
        No JSON object.
    """
    document = strict_json(path, read_bounded(path, 1 << 20))
    if not isinstance(document, dict):
        raise FormatError(f"{path}: got {type(document).__name__}; accepted: an object with {', '.join(MEMBERS)}")
    return document


def _suffixes() -> str:
    return ", ".join(SUFFIXES.values())


def _copied(source: Path, framework: Framework) -> bytes:
    if framework in ("onnx", "keras") and not source.name.endswith(SUFFIXES[framework]):
        raise FormatError(f"{source}: its name does not end in {SUFFIXES[framework]}; accepted: {_suffixes()}")
    return read_bounded(source)


def _in_sandbox(source: Path, kind: WeightsKind, key: str | None, limit_s: float) -> tuple[dict[str, Any], bytes]:
    """What the worker says of the file, and the weights that it took out of it."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(source)) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        asked = {"kind": kind, "key": key, "vesu": str(Path(vesu.__file__).parents[1]), "cpu_seconds": int(limit_s) + 1}
        asked["memory_bytes"] = ROOM_BYTES + SIZES_IN_MEMORY * size
        # Imported here with vesu's own dependencies; `-I` takes neither environment nor working folder.
        worker = Path(__file__).with_name("convert_worker.py")
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(worker), json.dumps(asked)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": "/"},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
    try:
        told, weights = exchange(process, [], limit_s=limit_s, max_bytes=4 * size + (64 << 20))
    except EOFError as error:
        raise FormatError(f"{source}: its sandbox ended without an answer: the file broke it, or its limits") from error
    except TimeoutError as error:
        raise FormatError(f"{source}: its sandbox took more than {limit_s:g} s") from error
    except ValueError as error:
        raise FormatError(f"{source}: its sandbox answered {error}") from error
    finally:
        end_process(process)
    if told["kind"] != "tensors":
        raise FormatError(f"{source}: {told.get('message')}")
    _check_answer(source, kind, weights)
    return told, weights


def _check_answer(source: Path, kind: WeightsKind, weights: bytes) -> None:
    """The sandbox is not believed either: what came out must be what was asked for."""
    if HOSTILE[kind] == "safetensors":
        good = weights[8:9] == b"{" and int.from_bytes(weights[:8], "little") < len(weights)
    else:
        good = weights.startswith(b"\x89HDF\r\n\x1a\n")
    if not good:
        raise FormatError(f"{source}: its sandbox gave no {HOSTILE[kind]} weights")
