"""Frozen teachers: the folder's contract, and a loaded teacher that maps windows to the logit of surface (R18)."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vesu.distill.adapters import Network, open_network
from vesu.distill.normalisation import Normalisation, normalise_volume, normalise_windows
from vesu.distill.packages import need_package
from vesu.distill.teacher_folder import TeacherInventory, find_teachers, write_teacher
from vesu.distill.teacher_spec import InputSpec, OutputSpec, TeacherSpec
from vesu.errors import ArgumentError, DataError, VesuError

if TYPE_CHECKING:
    import torch

__all__ = [
    "InputSpec",
    "Normalisation",
    "OutputSpec",
    "Teacher",
    "TeacherInventory",
    "TeacherSpec",
    "find_teachers",
    "load_teacher",
    "surface_logit",
    "write_teacher",
]

SMALLEST_PROBABILITY = 1e-7
"""A probability is kept so far from 0 and 1 before its logit is taken: 16.1 on either side."""


class Teacher(Protocol):
    """A frozen model of someone else, loaded for inference."""

    @property
    def spec(self) -> TeacherSpec:
        """What ``teacher.json`` says."""

    @property
    def device(self) -> str:
        """Where it computes: ``cpu``, ``cuda`` or ``cuda:N``."""

    @property
    def n_parameters(self) -> int:
        """Trained numbers."""

    def prepare(self, volume: NDArray[Any]) -> NDArray[np.float32]:
        """The volume as the network shall see it, float32 (z, y, x): what is normalised over the whole volume."""

    def logits(self, windows: "torch.Tensor") -> "torch.Tensor":
        """Logit of surface against the other trained classes; both (b, 1, z, y, x) float32 on the same device."""

    def close(self) -> None:
        """Give memory and processes back."""


class FrozenTeacher:
    """The :class:`Teacher` of every framework: a network, between its normalisation and its output's meaning."""

    def __init__(self, spec: TeacherSpec, network: Network) -> None:
        self.spec = spec
        self.device = network.device
        self.n_parameters = network.n_parameters
        self._network: Network | None = network

    def __enter__(self) -> "FrozenTeacher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, volume: NDArray[Any]) -> NDArray[np.float32]:
        """See :func:`vesu.distill.normalisation.normalise_volume`."""
        return normalise_volume(volume, self.spec.normalisation, self.spec.input.dtype)

    def logits(self, windows: "torch.Tensor") -> "torch.Tensor":
        """Logit of surface of prepared windows.

        Parameters
        ----------
        windows : torch.Tensor (b, 1, z, y, x) of float32
            Cut from what :meth:`prepare` gave; (z, y, x) is ``spec.patch`` where ``spec.fixed_patch``.

        Returns
        -------
        torch.Tensor (b, 1, z, y, x) of float32
            On the windows' device; no gradient.

        Raises
        ------
        ArgumentError
            Windows of another shape or type, or a closed teacher.
        DataError
            The network gave another shape than its specification says, or NaN.
        torch.OutOfMemoryError
            The GPU has no room for so many windows.
        """
        import torch

        if self._network is None:
            raise ArgumentError(f"teacher {self.spec.name}: got a call after close(); accepted: load it again")
        self._check_windows(windows)
        last = self.spec.input.channels == "last"
        with torch.no_grad():
            seen = normalise_windows(windows.to(self._network.tensors_on), self.spec.normalisation)
            answer = self._network(seen.movedim(1, -1).contiguous() if last else seen)
            answer = answer.movedim(-1, 1) if last and answer.ndim == 5 else answer
            self._check_answer(answer, windows)
            logit = surface_logit(answer.to(torch.float32), self.spec.output)
        if not logit.isfinite().all():
            raise DataError(f"teacher {self.spec.name}: its answer holds NaN or infinite values")
        return logit.to(windows.device)

    def close(self) -> None:
        """Give memory and processes back; may be called twice."""
        if self._network is not None:
            self._network.close()
            self._network = None

    def _check_windows(self, windows: "torch.Tensor") -> None:
        import torch

        good = windows.ndim == 5 and windows.shape[0] > 0 and windows.shape[1] == 1 and windows.dtype == torch.float32
        sizes = tuple(windows.shape[2:])
        if not good or (self.spec.fixed_patch and sizes != self.spec.patch):
            wanted = self.spec.patch if self.spec.fixed_patch else "z, y, x"
            got = f"{tuple(windows.shape)} of {windows.dtype}"
            raise ArgumentError(f"windows: got {got}; accepted: (b, 1, {wanted}) of torch.float32")

    def _check_answer(self, answer: Any, windows: "torch.Tensor") -> None:
        import torch

        wanted = (windows.shape[0], self.spec.output.n_classes, *windows.shape[2:])
        shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        if shape != wanted:
            raise DataError(f"teacher {self.spec.name}: its answer is {shape}, but teacher.json says {wanted}")


def load_teacher(spec: TeacherSpec, *, device: str = "cpu", verify: bool = True) -> FrozenTeacher:
    """Load a teacher for inference; everything about its weights is checked before the first window.

    Parameters
    ----------
    spec : TeacherSpec
        With its folder, as :func:`find_teachers` or ``TeacherSpec.load`` give it.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    verify : bool
        Whether the weights' digest is compared with the specification's. The bytes that were hashed are those that
        are used (of Keras weights: the file that was hashed, and that did not change meanwhile).

    Returns
    -------
    FrozenTeacher
        A :class:`Teacher`, and a context manager that closes it.

    Raises
    ------
    FormatError
        Weights that are missing a name, have one too many, another shape, NaN or infinite values, another digest, or
        that are another kind of file; the message names them, and the way out.
    FileError
        A file cannot be read.
    ArgumentError
        No such architecture or device.
    MissingPackageError
        A package that this teacher needs is not installed; the message has the command.

    Notes
    -----
    R18. Nothing is unpickled and no code comes with the weights. One teacher is one network in memory: close it
    before the next.

    Examples
    --------
    >>> import tempfile, torch
    >>> from vesu.distill.architectures import build_network
    >>> architecture = {"name": "UNet", "kwargs": {"channels": [4, 8], "strides": [2]}}
    >>> network = build_network("UNet", 2, architecture["kwargs"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spec = write_teacher(
    ...         folder, network.state_dict(), name="small", architecture=architecture, input=InputSpec((16, 16, 16)),
    ...         normalisation=Normalisation("zscore"), output=OutputSpec(2), licence="CC0-1.0", source="made here")
    ...     with load_teacher(spec) as teacher:
    ...         volume = teacher.prepare(np.random.default_rng(0).integers(0, 256, (16, 16, 16), np.uint8))
    ...         teacher.logits(torch.from_numpy(volume)[None, None]).shape
    torch.Size([1, 1, 16, 16, 16])
    """
    torch = need_package("torch", "distill")
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"device: got {device!r}; accepted: 'cpu', 'cuda' or 'cuda:N'") from error
    if kind not in ("cpu", "cuda"):
        raise ArgumentError(f"device: got {device!r}; accepted: 'cpu', 'cuda' or 'cuda:N'")
    try:
        return FrozenTeacher(spec, open_network(spec, str(device), verify=verify))
    except VesuError as error:
        error.add_note(f"teacher {spec.name}")
        raise


def surface_logit(answer: "torch.Tensor", output: OutputSpec) -> "torch.Tensor":
    """Logit of surface against the other trained classes; the untrained one is left out.

    Parameters
    ----------
    answer : torch.Tensor (b, n_classes, z, y, x) of float32
        Of the network.
    output : OutputSpec
        What its channels mean.

    Returns
    -------
    torch.Tensor (b, 1, z, y, x) of float32

    Notes
    -----
    R18. Of logits z: z_s - log(sum of exp(z_k) over the other classes k). Of probabilities p: log(p_s) minus the log of
    the others' sum, each at least 1e-7, which is the same of a softmax whatever share the untrained class had. A
    single channel is a sigmoid's.

    Examples
    --------
    >>> import torch
    >>> answer = torch.tensor([[1.0, 3.0, 50.0]]).reshape(1, 3, 1, 1, 1)
    >>> surface_logit(answer, OutputSpec(3, 1, "logits", ignored_class=2)).item()
    2.0
    """
    import torch

    surface = answer[:, output.surface_class : output.surface_class + 1]
    others = answer[:, list(output.other_classes)]
    if output.semantics == "logits":
        return surface - torch.logsumexp(others, 1, keepdim=True) if output.n_classes > 1 else surface
    rest = others.sum(1, keepdim=True) if output.n_classes > 1 else 1 - surface
    return surface.clamp(min=SMALLEST_PROBABILITY).log() - rest.clamp(min=SMALLEST_PROBABILITY).log()
