"""Where networks compute: a device that proved itself, how it was used, what happens when its memory is out (R27)."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vesu.data.machine import gpu_problem
from vesu.distill.packages import need_package
from vesu.distill.values import Emit
from vesu.errors import ArgumentError, MemoryLimitError

if TYPE_CHECKING:
    import torch

__all__ = [
    "BatchLimit",
    "ComputeDevice",
    "DeviceUse",
    "choose_compute_device",
    "gpu_memory_snapshot",
    "memory_errors",
    "smaller_batches",
]

T = TypeVar("T")

TOLERANCE = 1e-2
"""Of the proving convolution, relative to its largest value: TF32 keeps ten bits, a wrong kernel none."""

REFUSED_BY_LIBRARY = ("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
"""How libraries under torch say that memory is out, where torch raises a plain RuntimeError."""


@dataclass(frozen=True)
class ComputeDevice:
    """A device on which a convolution was computed and found right; ``str()`` is what torch calls it."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    """Of the GPU; 0 on the CPU."""
    name: str = "cpu"
    """The GPU's model."""
    fallback: str | None = None
    """Why ``"auto"`` did not take a GPU; None where it did, or where the CPU was asked for."""

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def torch(self) -> "torch.device":
        """The same for torch."""
        device: torch.device = need_package("torch", "distill").device(str(self))
        return device


def choose_compute_device(asked: str = "auto", emit: Emit | None = None) -> ComputeDevice:
    """The device that networks will run on, after it has computed a 3-D convolution and its gradient.

    Parameters
    ----------
    asked : {"auto", "cpu", "cuda"}
        ``"auto"`` takes the current CUDA device if it computes rightly, else the CPU, and says why.
    emit : callable, optional
        Gets ``COMPUTE_DEVICE_CHOSEN`` (asked, used, name) and, where ``"auto"`` had to take the CPU,
        ``GPU_FALLBACK_DETECTED`` (asked, used, reason) before it.

    Returns
    -------
    ComputeDevice

    Raises
    ------
    ArgumentError
        An unknown device, or ``"cuda"`` where none computes: nothing falls back unasked.
    MissingPackageError
        torch is not installed.

    Notes
    -----
    Requirement R27. A GPU in the list proves little: the torch build may lack its kernels. The architectures that the
    build names are compared, a matrix product and a convolution, forward and backward, are computed on it, and compared
    with the CPU's.

    Examples
    --------
    >>> events = []
    >>> device = choose_compute_device("cpu", lambda name, fields: events.append((name, fields["used"])))
    >>> str(device), events
    ('cpu', [('COMPUTE_DEVICE_CHOSEN', 'cpu')])
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device: got {asked!r}; accepted: 'auto', 'cpu' or 'cuda'")
    torch = need_package("torch", "distill")
    problem = None if asked == "cpu" else gpu_problem() or _convolution_problem(torch, _current_gpu(torch))
    if problem and asked == "cuda":
        raise ArgumentError(f"device: got 'cuda', but {problem}; accepted: 'cpu', or 'auto' to fall back to it")
    if problem and emit is not None:
        emit("GPU_FALLBACK_DETECTED", {"asked": asked, "used": "cpu", "reason": problem})
    if asked == "cpu" or problem:
        device = ComputeDevice("cpu", fallback=problem)
    else:
        gpu = _current_gpu(torch)
        device = ComputeDevice("cuda", gpu.index, torch.cuda.get_device_name(gpu))
    if emit is not None:
        emit("COMPUTE_DEVICE_CHOSEN", {"asked": asked, "used": str(device), "name": device.name})
    return device


def _current_gpu(torch: Any) -> Any:
    return torch.device("cuda", torch.cuda.current_device())


def _convolution_problem(torch: Any, device: Any) -> str | None:
    """Why a strided convolution and its gradient are not computed rightly there, or None."""

    def convolve(place: Any) -> list[Any]:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 2, 9, 10, 11, generator=generator).to(place).requires_grad_()
        kernel = torch.rand(3, 2, 3, 3, 3, generator=generator).to(place).requires_grad_()
        answer = torch.nn.functional.conv3d(image, kernel, stride=2, padding=1)
        answer.square().sum().backward()
        return [tensor.detach().to("cpu", torch.float64) for tensor in (answer, image.grad, kernel.grad)]

    try:
        found = convolve(device)
    except RuntimeError as error:
        return f"a 3-D convolution fails on {device}: {str(error).splitlines()[0]}"
    for what, ours, wanted in zip(("values", "input gradient", "weight gradient"), found, convolve("cpu"), strict=True):
        off = float((ours - wanted).abs().max() / wanted.abs().max())
        if not off <= TOLERANCE:  # NaN too
            return f"a 3-D convolution on {device} has wrong {what}: relative error {off:.3g}"
    return None


def gpu_memory_snapshot(device: "ComputeDevice | torch.device | str", emit: Emit | None, where: str) -> None:
    """Emit ``GPU_MEMORY_SNAPSHOT`` for a CUDA device; nothing for a CPU, whose memory the run watches itself (R42).

    Parameters
    ----------
    device : ComputeDevice, torch.device or str
        As torch names it.
    emit : callable, optional
        Gets ``device``, ``where``, and in bytes ``total``, ``free`` (as the driver has it), ``allocated`` and
        ``reserved`` by this process and ``peak`` of the allocated.
    where : str
        What was just done.

    Notes
    -----
    Requirement R27.

    Examples
    --------
    >>> gpu_memory_snapshot("cpu", print, "teacher loaded")
    """
    if emit is None or not str(device).startswith("cuda"):
        return
    cuda = need_package("torch", "distill").cuda
    free, total = cuda.mem_get_info(str(device))
    held = {"allocated": cuda.memory_allocated, "reserved": cuda.memory_reserved, "peak": cuda.max_memory_allocated}
    known = {name: int(ask(str(device))) for name, ask in held.items()}
    emit(
        "GPU_MEMORY_SNAPSHOT",
        {"device": str(device), "where": where, "total": int(total), "free": int(free)} | known,
    )


class DeviceUse:
    """Which heavy phases ran where, and for how long (R27).

    Parameters
    ----------
    emit : callable, optional
        Gets ``GPU_PHASE_START`` and ``GPU_PHASE_END`` (phase, device, at the end seconds) around each phase on a GPU,
        with a ``GPU_MEMORY_SNAPSHOT`` before and after, and ``CPU_PHASE_START`` and ``CPU_PHASE_END`` on the CPU.

    Notes
    -----
    Requirement R27. Seconds are of the clock on the wall; a GPU's queue is drained before the clock is read. A phase
    that fails has no END, but its seconds count.

    Examples
    --------
    >>> use = DeviceUse()
    >>> with use.phase("teachers", "cpu"):
    ...     pass
    >>> use.emit("GPU_FALLBACK_DETECTED", {"asked": "auto", "used": "cpu", "reason": "no GPU"})
    >>> use.kpis()
    {'gpu_phase_coverage_pct': 0.0, 'gpu_time_ratio': 0.0, 'cpu_fallback_count': 1}
    """

    def __init__(self, emit: Emit | None = None) -> None:
        self._emit = emit
        self._seconds: dict[tuple[str, str], float] = {}
        self._fallbacks = 0

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Hand an event on, and count the fallbacks among them: to be given to what chooses the device."""
        self._fallbacks += name == "GPU_FALLBACK_DETECTED"
        if self._emit is not None:
            self._emit(name, fields)

    @contextmanager
    def phase(self, name: str, device: "ComputeDevice | torch.device | str") -> Iterator[None]:
        """Count what is done inside as heavy work on ``device``; the same phase may be entered again."""
        kind = "gpu" if str(device).startswith("cuda") else "cpu"
        fields = {"phase": name, "device": str(device)}
        self.emit(f"{kind.upper()}_PHASE_START", fields)
        gpu_memory_snapshot(device, self.emit, f"{name}: start")
        start = time.perf_counter()
        seconds = 0.0
        try:
            yield
            if kind == "gpu":
                need_package("torch", "distill").cuda.synchronize(str(device))
        finally:
            seconds = time.perf_counter() - start
            self._seconds[name, kind] = self._seconds.get((name, kind), 0.0) + seconds
        gpu_memory_snapshot(device, self.emit, f"{name}: end")
        self.emit(f"{kind.upper()}_PHASE_END", fields | {"seconds": seconds})

    def kpis(self) -> dict[str, float | int | None]:
        """``gpu_phase_coverage_pct``: phases that ran wholly on a GPU, of all, in per cent; ``gpu_time_ratio``: their
        share of all phases' seconds, 0 to 1; ``cpu_fallback_count``. The first two are None before any phase.
        """
        phases = {name for name, _ in self._seconds}
        on_cpu = {name for name, kind in self._seconds if kind == "cpu"}
        total = sum(self._seconds.values())
        on_gpu_s = sum(seconds for (_, kind), seconds in self._seconds.items() if kind == "gpu")
        return {
            "gpu_phase_coverage_pct": 100.0 * len(phases - on_cpu) / len(phases) if phases else None,
            "gpu_time_ratio": on_gpu_s / total if total > 0 else None,
            "cpu_fallback_count": self._fallbacks,
        }


class BatchLimit:
    """How many items are computed at a time: halved when memory is out, and remembered.

    Parameters
    ----------
    size : int
        To begin with.
    emit : callable, optional
        Gets ``OUT_OF_MEMORY_SMALLER_BATCH`` (batch: what did not fit, next: what is tried, reason).

    Raises
    ------
    ArgumentError
        ``size`` below 1.

    Notes
    -----
    Bad input of R27: never a silent CPU. The work that ran out of memory is done again in smaller batches, where it
    was; that a batch has another size may change the last bits on a GPU.

    Examples
    --------
    >>> limit = BatchLimit(8)
    >>> def three_fit(n):
    ...     if n > 3:
    ...         raise MemoryError(f"{n} items")
    ...     return f"{n} done"
    >>> limit.run(three_fit), limit.size
    (('2 done', 2), 2)
    """

    def __init__(self, size: int, emit: Emit | None = None) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"batch: got {size!r}; accepted: an integer, 1 or more")
        self.size = size
        self._emit = emit

    def run(self, run: Callable[[int], T], available: int | None = None) -> tuple[T, int]:
        """What ``run(n)`` gives for the largest n that fits, and n.

        Parameters
        ----------
        run : callable
            Computes the first n items; it must be repeatable.
        available : int, optional
            How many items there are.

        Raises
        ------
        MemoryLimitError
            One item does not fit.
        """
        while True:
            batch = self.size if available is None else min(self.size, available)
            try:
                return run(batch), batch
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Outside the handler: until here the error kept the frames, and with them the tensors, alive.
            self._halve(batch, reason)

    def _halve(self, batch: int, reason: str) -> None:
        torch = need_package("torch", "distill")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if batch == 1:
            raise MemoryLimitError(f"batch: a single item does not fit into the memory: {reason}")
        self.size = batch // 2
        if self._emit is not None:
            self._emit("OUT_OF_MEMORY_SMALLER_BATCH", {"batch": batch, "next": self.size, "reason": reason})


def smaller_batches(batch: int, run: Callable[[int], T], emit: Emit | None = None) -> tuple[T, int]:
    """What ``run(n)`` gives for n = ``batch``, or half of it and so on until the memory suffices; and n.

    Parameters
    ----------
    batch : int
        To begin with.
    run : callable
        Computes n items; it must be repeatable.
    emit : callable, optional
        As :class:`BatchLimit`, which remembers the size from call to call.

    Returns
    -------
    answer, n

    Raises
    ------
    ArgumentError
        ``batch`` below 1.
    MemoryLimitError
        A batch of one does not fit.

    Notes
    -----
    Requirement R27.

    Examples
    --------
    >>> smaller_batches(4, lambda n: list(range(n)))
    ([0, 1, 2, 3], 4)
    """
    return BatchLimit(batch, emit).run(run)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Inside, memory that is refused is a :class:`vesu.errors.MemoryLimitError` that names ``what``.

    Examples
    --------
    >>> with memory_errors("a volume of 9 PiB"):
    ...     raise MemoryError("too much")
    Traceback (most recent call last):
        ...
    vesu.errors.MemoryLimitError: a volume of 9 PiB: does not fit into the memory: too much
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        first_line = str(error).partition("\n")[0]
        raise MemoryLimitError(f"{what}: does not fit into the memory: {first_line}") from error


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryLimitError):
        return False  # refused by us before allocating: a smaller batch was tried already
    return isinstance(error, MemoryError | need_package("torch", "distill").cuda.OutOfMemoryError) or any(
        text in str(error) for text in REFUSED_BY_LIBRARY
    )
