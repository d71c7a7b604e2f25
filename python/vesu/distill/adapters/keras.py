"""Keras 3 weights: a recipe names the network, a process of its own builds and runs it (R18)."""

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import vesu
from vesu.distill.adapters import check_digest, check_patch
from vesu.distill.adapters.keras_worker import RECIPES
from vesu.distill.packages import MissingPackageError
from vesu.distill.pipes import array_bytes, array_of, end_process, exchange, frame
from vesu.distill.teacher_spec import TeacherSpec
from vesu.distill.weights_file import digest_of, refuse_kind
from vesu.errors import ArgumentError, DataError, FileError, FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["KerasNetwork", "open_network"]

LOAD_LIMIT_S = 900.0
WINDOW_LIMIT_S = 600.0
"""Seconds that one window may take."""
MAX_ANSWER = 16 << 30


class KerasNetwork:
    """A worker process and the pipes to it; it ends with :meth:`close`, with this object, and with this process."""

    tensors_on = "cpu"

    def __init__(self, spec: TeacherSpec, device: str) -> None:
        self.device = device
        self.n_parameters = 0
        self._name = spec.name
        self._home = tempfile.TemporaryDirectory(prefix="vesu-keras-")
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 (`_stop` closes it)
        self._process = _start(device, self._home.name, self._told)
        self._finalizer = weakref.finalize(self, _stop, self._process, self._home, self._told)

    def load(self, recipe: Mapping[str, Any], *, limit_s: float = LOAD_LIMIT_S) -> dict[str, Any]:
        """Have the network built and its weights loaded; gives what the worker says of it.

        Raises
        ------
        FormatError
            Recipe and weights do not fit.
        DataError
            The worker failed, ended, or took too long.
        """
        told, _ = self._ask(frame(recipe), limit_s)
        self.n_parameters = int(told["n_parameters"])
        return told

    def __call__(self, windows: "torch.Tensor", *, limit_s: float | None = None) -> "torch.Tensor":
        import torch

        limit_s = WINDOW_LIMIT_S * len(windows) if limit_s is None else limit_s
        _, answer = self._ask(frame({"kind": "windows"}, array_bytes(windows.numpy())), limit_s)
        return torch.from_numpy(array_of(answer))

    def close(self) -> None:
        self._finalizer()

    def _ask(self, pieces: list[bytes], limit_s: float) -> tuple[dict[str, Any], bytes]:
        if not self._finalizer.alive:
            raise DataError(f"teacher {self._name}: its Keras process was ended after a failure; load it again")
        try:
            header, body = exchange(self._process, pieces, limit_s=limit_s, max_bytes=MAX_ANSWER)
        except BaseException as error:  # half a message may be under way, whatever it was: nothing more can be asked
            last_words = self._last_words() if isinstance(error, EOFError | BrokenPipeError) else ""
            self.close()
            if isinstance(error, EOFError | BrokenPipeError):
                raise DataError(f"teacher {self._name}: its Keras process ended{last_words}") from error
            if isinstance(error, TimeoutError):
                raise DataError(f"teacher {self._name}: its Keras process took more than {limit_s:g} s") from error
            if isinstance(error, ValueError):
                raise DataError(f"teacher {self._name}: its Keras process answered {error}") from error
            raise
        self._raise_told(header)
        return header, body

    def _raise_told(self, header: Mapping[str, Any]) -> None:
        message = f"teacher {self._name}: {header.get('message')}"
        match header["kind"]:
            case "refused":
                raise FormatError(message)
            case "out_of_memory":
                import torch

                raise torch.OutOfMemoryError(message)
            case "failed" if "No module named" in message:
                raise MissingPackageError(f"{message}; pip install 'vesu[teachers]'")
            case "failed":
                raise DataError(message)

    def _last_words(self) -> str:
        self._process.wait(5)
        self._told.seek(0)
        words = self._told.read()[-2000:].decode("utf-8", "replace").strip()
        return f" with code {self._process.returncode}" + (f"; its last words: {words}" if words else "")


def open_network(spec: TeacherSpec, device: str, *, verify: bool) -> KerasNetwork:
    """Check the file, start the worker, compare its network with the specification.

    Raises
    ------
    FormatError
        Another digest, another kind of file, weights that do not fit the recipe or are not finite, other shapes than
        the specification's.
    ArgumentError
        A recipe that is not accepted.
    DataError
        The process failed, ended, or took too long.
    """
    recipe = spec.architecture
    assert recipe is not None
    if recipe["class"] not in RECIPES.get(recipe["module"], ()):
        accepted = "; ".join(f"{module}: {', '.join(sorted(classes))}" for module, classes in RECIPES.items())
        raise ArgumentError(f"architecture: got {recipe['module']}.{recipe['class']}; accepted: {accepted}")
    refuse_kind(spec.weights_path, "hdf5")
    before = _signature(spec.weights_path)
    if verify:
        check_digest(spec, digest_of(spec.weights_path, spec.digest.partition(":")[0]))
    import torch

    network = KerasNetwork(spec, device)
    try:
        weights = str(spec.weights_path.absolute())
        told = network.load({**recipe, "weights": weights, "threads": torch.get_num_threads()})
        if _signature(spec.weights_path) != before:
            raise FormatError(f"{spec.weights_path}: changed while it was loaded")
        _check_shapes(spec, told)
    except BaseException:
        network.close()
        raise
    return network


def _check_shapes(spec: TeacherSpec, told: Mapping[str, Any]) -> None:
    """Shapes without the batch are (z, y, x, c): Keras networks have their channels last."""
    if spec.input.channels != "last":
        raise FormatError(f"{spec.name}: input.channels is 'first'; accepted of a Keras teacher: 'last'")
    image, answer = told["input"][1:], told["output"][1:]
    if len(image) != 4 or image[3] != 1:
        raise FormatError(f"{spec.name}: the recipe's network takes {image}; accepted: (z, y, x, 1)")
    if len(answer) != 4 or answer[3] != spec.output.n_classes:
        raise FormatError(f"{spec.name}: its network gives {answer}, teacher.json says {spec.output.n_classes} classes")
    check_patch(spec, tuple(image[:3]))


def _start(device: str, home: str, told: IO[bytes]) -> "subprocess.Popen[bytes]":
    # `-P`: nothing is imported from the folder that this process happens to stand in.
    command = [sys.executable, "-P", "-m", "vesu.distill.adapters.keras_worker"]
    environment = os.environ | {
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": home,
        "KERAS_TORCH_DEVICE": device,
        "PYTHONPATH": str(Path(vesu.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=told,
        env=environment,
        start_new_session=True,  # Ctrl-C is for us; the worker ends when we say so
        bufsize=0,
    )


def _stop(process: "subprocess.Popen[bytes]", home: "tempfile.TemporaryDirectory[str]", told: IO[bytes]) -> None:
    end_process(process)
    told.close()
    home.cleanup()


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    return status.st_size, status.st_mtime_ns, status.st_ino
