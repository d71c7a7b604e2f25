"""Frozen teachers over volumes: one in memory at a time, every answer kept, all folded into soft labels (R18)."""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.config.learned import TeacherConfig
from vesu.data.cache import ArrayCache, content_id
from vesu.data.machine import available_memory_bytes
from vesu.distill.device import BatchLimit, ComputeDevice, gpu_memory_snapshot
from vesu.distill.sliding import n_windows, sliding_logits, tta_flips
from vesu.distill.soft_labels import SoftLabelCache, TeacherIdentity, fold_logits, soft_labels, to_half
from vesu.distill.values import Emit, SoftLabels
from vesu.errors import ArgumentError, DataError, FileError, MemoryLimitError, VesuError

if TYPE_CHECKING:
    import torch

__all__ = ["TeacherError", "TeacherLike", "TeacherSpecLike", "teacher_ensemble_infer"]

FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What a framework raises where weights, shapes or kernels do not fit."""

FOLDED_ARRAYS = 3
"""Mean logit, variance, disagreement: each of an answer's size."""

Volume: TypeAlias = NDArray[Any] | Callable[[], NDArray[Any]]


class TeacherError(VesuError, RuntimeError):
    """A teacher failed at its work; the message names it, the volume, and what it said."""


class TeacherSpecLike(TeacherIdentity, Protocol):
    """As much of a ``TeacherSpec`` as is needed here."""

    @property
    def digest(self) -> str: ...
    @property
    def framework(self) -> str: ...
    @property
    def patch(self) -> tuple[int, int, int]: ...


class TeacherLike(Protocol):
    """As much of a ``Teacher`` as is needed here."""

    def prepare(self, volume: NDArray[Any]) -> NDArray[np.float32]: ...
    def logits(self, windows: "torch.Tensor") -> "torch.Tensor": ...
    def close(self) -> None: ...


def teacher_ensemble_infer(
    specs: Sequence[TeacherSpecLike],
    volumes: Mapping[str, Volume],
    *,
    cache: ArrayCache,
    config: TeacherConfig,
    device: "ComputeDevice | torch.device | str" = "cpu",
    emit: Emit | None = None,
    load: Callable[..., TeacherLike] | None = None,
    reload_cached: bool = True,
    on_part: Callable[[float], object] | None = None,
    poll: Callable[[], object] | None = None,
) -> dict[str, SoftLabels]:
    """What the ensemble of teachers says of each volume.

    Parameters
    ----------
    specs : sequence of TeacherSpec
        At least one; their order is the order of folding.
    volumes : mapping of str to ndarray, or to callable that gives it
        CT (z, y, x), uint8, uint16 or float32, by volume id. A callable is called when its volume is needed: once for
        its content id and once for each teacher that has to answer; it must give the same each time. So one
        volume is in memory at a time.
    cache : ArrayCache
        Keeps each teacher's answer and the folded labels; what is there already is not computed again. What it
        cannot take stays in memory.
    config : TeacherConfig
        Overlap, flips and batch.
    device : ComputeDevice, torch.device or str
        Where teachers run; see :func:`vesu.distill.device.choose_compute_device`.
    emit : callable, optional
        Gets the events below.
    load : callable, optional
        ``load(spec, device=str)`` gives a teacher; :func:`vesu.distill.teacher.load_teacher` if not given.
    reload_cached : bool
        Load, and so verify, also a teacher whose answers are all in the cache. False spares this in a session whose
        log has those loads from an earlier one.
    on_part : callable, optional
        Gets the part done, up to 1.
    poll : callable, optional
        Called before every batch and every volume; what it raises ends the work, and what is done stays in the cache.

    Returns
    -------
    dict of str to SoftLabels
        In the order of ``volumes``; what the cache has are read-only memory maps.

    Raises
    ------
    ArgumentError
        No teachers, two of one name, no volumes, or a volume that is no 3-D array.
    DataError
        A callable that gave another volume than before.
    TeacherError
        A teacher that failed, or whose answer is not finite; answers before it stay in the cache.
    MemoryLimitError
        A single window does not fit into the memory, or neither cache nor memory has room for an answer.

    Notes
    -----
    Requirements R18, R22, R23, R27. Teachers are the outer loop: each is loaded once. A *batch* in the events is one
    teacher's pass over one volume. Events: ``SOFT_LABELS_PLANNED`` (teachers, volumes, folded_in_cache, and bytes: of
    all answers and labels that are not); ``DISTILLATION_TEACHER_LOAD_BEGIN``/``END`` around each load (END with
    digest, seconds, parameters); ``DISTILLATION_BATCH_BEGIN``/``END`` around each pass that is really computed
    (windows, flips, batch; at the end window_passes, seconds); ``TEACHER_BATCH_TRANSFER`` when a teacher's answer for a
    volume is in hand (from_cache says whence); ``DISTILLATION_TEACHER_FAILED`` before the error;
    ``SOFT_LABELS_HELD_IN_MEMORY`` where the cache could not take an answer; ``SOFT_LABELS_FOLDED`` for each volume.

    Answers are rounded to half precision before they are folded, so that labels have the same bits whether their
    parts were computed now or came from the cache.

    Examples
    --------
    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from vesu.config.learned import TeacherConfig
    >>> from vesu.data.cache import ArrayCache
    >>> def spec(name):
    ...     fields = {"name": name, "digest": name * 64, "framework": "safetensors", "patch": (8, 8, 8)}
    ...     return SimpleNamespace(**fields, to_json=lambda: fields)
    >>> def load(spec, device):  # answers with grey values, the second teacher with their opposite
    ...     sign = 1 if spec.name == "a" else -1
    ...     return SimpleNamespace(
    ...         prepare=lambda volume: volume.astype(np.float32), logits=lambda windows: sign * windows,
    ...         close=lambda: None)
    >>> volume = np.full((9, 9, 9), 20, np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = ArrayCache(folder, max_bytes=10**6)
    ...     labels = teacher_ensemble_infer(
    ...         [spec("a"), spec("b")], {"7": volume}, cache=cache, config=TeacherConfig(), load=load)
    >>> soft = labels["7"]
    >>> soft.teachers, float(soft.mean_logit[0, 0, 0]), float(soft.variance[0, 0, 0]), float(soft.confidence[0, 0, 0])
    (('a', 'b'), 0.0, 0.25, 0.0)
    """
    _check(specs, volumes)
    job = _Job(specs, volumes, cache, config, device, emit, load or _load_teacher, on_part, poll)
    job.find_folded()
    for spec in specs:
        job.ask(spec, reload_cached)
    return {volume_id: job.fold(volume_id) for volume_id in volumes}


def _load_teacher(spec: Any, device: str) -> TeacherLike:
    # Resolved when used: another module of this room, and the only one here that knows the frameworks.
    teacher: TeacherLike = importlib.import_module("vesu.distill.teacher").load_teacher(spec, device=device)
    return teacher


def _check(specs: Sequence[TeacherSpecLike], volumes: Mapping[str, Volume]) -> None:
    names = [spec.name for spec in specs]
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"specs: got teachers {names}; accepted: one or more, each name once")
    if not volumes:
        raise ArgumentError("volumes: got none; accepted: at least one")


@dataclass
class _Job:
    """One call: what was asked, and what is in hand so far."""

    specs: Sequence[TeacherSpecLike]
    volumes: Mapping[str, Volume]
    cache: ArrayCache
    config: TeacherConfig
    device: "ComputeDevice | torch.device | str"
    emit_to: Emit | None
    load: Callable[..., TeacherLike]
    on_part: Callable[[float], object] | None
    poll: Callable[[], object] | None
    contents: dict[str, str] = field(default_factory=dict)
    """Content id of each volume."""
    answers: dict[str, list[NDArray[np.float16]]] = field(default_factory=dict)
    """Logits of each volume, in the teachers' order."""
    folded: dict[str, SoftLabels] = field(default_factory=dict)
    """Volumes whose folded labels the cache had."""
    voxels: dict[str, int] = field(default_factory=dict)
    held_bytes: int = 0
    passes_done: int = 0

    def __post_init__(self) -> None:
        self.kept = SoftLabelCache(self.cache, overlap=self.config.overlap, flips=self.config.flips)

    def emit(self, name: str, **fields: Any) -> None:
        if self.emit_to is not None:
            self.emit_to(name, fields)

    # ---- volumes

    def read(self, volume_id: str) -> NDArray[Any]:
        """The volume, and its content id noted."""
        given = self.volumes[volume_id]
        volume = given() if callable(given) else given
        if not isinstance(volume, np.ndarray) or volume.ndim != 3 or not volume.size:
            got = f"{volume.dtype} {volume.shape}" if isinstance(volume, np.ndarray) else type(volume).__name__
            raise ArgumentError(f"volumes[{volume_id!r}]: got {got}; accepted: an array (z, y, x) with voxels in it")
        content = content_id(volume)
        if self.contents.setdefault(volume_id, content) != content:
            raise DataError(f"volumes[{volume_id!r}]: gave other voxels than before")
        self.voxels[volume_id] = volume.size
        return volume

    def find_folded(self) -> None:
        """Look which volumes are wholly done."""
        for volume_id in self.volumes:
            self._poll()
            self.read(volume_id)
            key = self.kept.soft_key(self.specs, self.contents[volume_id])
            if (soft := self.kept.soft(key, volume_id, self.specs)) is not None:
                self.folded[volume_id] = soft
            self.answers[volume_id] = []
        half = np.dtype(np.float16).itemsize
        arrays = len(self.specs) + FOLDED_ARRAYS
        voxels = sum(n for volume_id, n in self.voxels.items() if volume_id not in self.folded)
        told = {"volumes": len(self.volumes), "folded_in_cache": len(self.folded), "bytes": voxels * arrays * half}
        self.emit("SOFT_LABELS_PLANNED", teachers=[spec.name for spec in self.specs], **told)

    def fold(self, volume_id: str) -> SoftLabels:
        """The labels of one volume, out of all teachers' answers; these are let go."""
        if volume_id in self.folded:
            return self.folded.pop(volume_id)
        self._poll()
        start = time.perf_counter()
        answers = self.answers.pop(volume_id)
        soft = soft_labels(volume_id, self.specs, fold_logits(answers))
        key = self.kept.soft_key(self.specs, self.contents[volume_id])
        soft = self.kept.keep_soft(key, soft, self.specs)
        seconds = time.perf_counter() - start
        self.emit("SOFT_LABELS_FOLDED", volume_id=volume_id, teachers=list(soft.teachers), key=key, seconds=seconds)
        return soft

    # ---- teachers

    def ask(self, spec: TeacherSpecLike, reload_cached: bool) -> None:
        """Every volume's answer of one teacher, found or computed."""
        found = {volume_id: self._find(spec, volume_id) for volume_id in self.volumes}
        if all(found.values()) and not reload_cached:
            for volume_id in self.volumes:
                self._transferred(spec, volume_id, from_cache=True)
            return
        with closing(self._loaded(spec)) as teacher:
            limit = BatchLimit(self.config.batch, self.emit_to)  # what did not fit once is not tried again
            for volume_id, from_cache in found.items():
                self._poll()
                if not from_cache:
                    self._compute(spec, teacher, volume_id, limit)
                self._transferred(spec, volume_id, from_cache=from_cache)
        gpu_memory_snapshot(self.device, self.emit_to, f"teacher {spec.name}: closed")

    def _find(self, spec: TeacherSpecLike, volume_id: str) -> bool:
        """Whether the cache has the teacher's answer, alone or in folded labels; if so it is noted."""
        self._poll()
        if volume_id in self.folded:
            return True
        logits = self.kept.logits(self.kept.logits_key(spec, self.contents[volume_id]))
        if logits is not None:
            self.answers[volume_id].append(logits)
        return logits is not None

    def _loaded(self, spec: TeacherSpecLike) -> TeacherLike:
        self.emit("DISTILLATION_TEACHER_LOAD_BEGIN", **_told(spec), framework=spec.framework, device=str(self.device))
        start = time.perf_counter()
        with self._failures(spec, None, (VesuError, OSError, *FAULTS)):
            teacher = self.load(spec, device=str(self.device))
        seconds = time.perf_counter() - start
        parameters = getattr(teacher, "n_parameters", None)
        self.emit("DISTILLATION_TEACHER_LOAD_END", **_told(spec), seconds=seconds, parameters=parameters)
        gpu_memory_snapshot(self.device, self.emit_to, f"teacher {spec.name}: loaded")
        return teacher

    def _compute(self, spec: TeacherSpecLike, teacher: TeacherLike, volume_id: str, limit: BatchLimit) -> None:
        volume = self.read(volume_id)
        windows = n_windows(volume.shape, spec.patch, self.config.overlap)
        fields = {"volume_id": volume_id, "windows": windows, "flips": len(tta_flips(self.config.flips))}
        fields["device"] = str(self.device)
        self.emit("DISTILLATION_BATCH_BEGIN", **_told(spec), **fields, batch=limit.size)
        start = time.perf_counter()
        asked = _Counted(teacher)
        # No OSError among them: it would be the log's disk that refused an event.
        with self._failures(spec, volume_id, (VesuError, *FAULTS)):
            logits = self._slide(spec, asked, volume, limit)
        done = {"window_passes": asked.windows, "seconds": time.perf_counter() - start}
        self.emit("DISTILLATION_BATCH_END", **_told(spec), **fields, batch=limit.size, **done)
        answer, status = self.kept.keep_logits(self.kept.logits_key(spec, self.contents[volume_id]), logits)
        self.answers[volume_id].append(answer)
        if status not in ("stored", "exists"):
            self._hold(spec, volume_id, answer.nbytes, status)

    def _hold(self, spec: TeacherSpecLike, volume_id: str, n_bytes: int, status: str) -> None:
        """Say that an answer stays in memory, while there is some left: a process that the system ends says nothing."""
        self.held_bytes += n_bytes
        left = available_memory_bytes()
        if left is not None and left < n_bytes * (1 + FOLDED_ARRAYS):  # the next answer, and a volume's labels
            got = f"the cache took no answer ({status}), {self.held_bytes} bytes of answers are in memory"
            raise MemoryLimitError(f"cache: {got}, {left} are left; accepted: a cache with more room, or fewer volumes")
        held = {"bytes": n_bytes, "bytes_in_all": self.held_bytes}
        self.emit("SOFT_LABELS_HELD_IN_MEMORY", **_told(spec), volume_id=volume_id, cache=status, **held)

    def _slide(
        self, spec: TeacherSpecLike, teacher: "_Counted", volume: NDArray[Any], limit: BatchLimit
    ) -> NDArray[np.float16]:
        prepared = teacher.prepare(volume)
        if prepared.shape != volume.shape:
            raise DataError(f"prepared volume: got {prepared.shape}; accepted: {volume.shape}, as given")
        logits = sliding_logits(
            teacher.logits,
            prepared,
            patch=spec.patch,
            overlap=self.config.overlap,
            flips=self.config.flips,
            batch=limit,
            device=self.device,
            on_part=self._part,
            poll=self.poll,
        )
        return to_half(logits[0])

    def _transferred(self, spec: TeacherSpecLike, volume_id: str, *, from_cache: bool) -> None:
        content = self.contents[volume_id]
        fields = {"volume_id": volume_id, "volume_content": content, "key": self.kept.logits_key(spec, content)}
        self.emit("TEACHER_BATCH_TRANSFER", **_told(spec), **fields, from_cache=from_cache)
        self.passes_done += 1
        self._part(0.0)

    # ---- progress and failures

    def _poll(self) -> None:
        if self.poll is not None:
            self.poll()

    def _part(self, of_pass: float) -> None:
        if self.on_part is not None and of_pass < 1:  # a pass that is through is counted when its answer is in hand
            self.on_part((self.passes_done + of_pass) / (len(self.specs) * len(self.volumes)))

    @contextmanager
    def _failures(
        self, spec: TeacherSpecLike, volume_id: str | None, kinds: tuple[type[Exception], ...]
    ) -> Iterator[None]:
        """Name the teacher and the volume in what goes wrong."""
        try:
            yield
        except kinds as error:
            if isinstance(error, FileError) and volume_id is not None:
                raise
            where = f"teacher {spec.name!r}" + ("" if volume_id is None else f", volume {volume_id!r}")
            kind = MemoryLimitError if isinstance(error, MemoryLimitError) else TeacherError
            reason = f"{where}: {error}"
            self.emit("DISTILLATION_TEACHER_FAILED", **_told(spec), volume_id=volume_id, reason=reason)
            raise kind(reason) from error


class _Counted:
    """A teacher whose answers are counted as they are given."""

    def __init__(self, teacher: TeacherLike) -> None:
        self._teacher = teacher
        self.windows = 0
        self.prepare = teacher.prepare

    def logits(self, windows: "torch.Tensor") -> "torch.Tensor":
        answer = self._teacher.logits(windows)
        self.windows += len(windows)
        return answer


def _told(spec: TeacherSpecLike) -> dict[str, str]:
    return {"teacher": spec.name, "digest": spec.digest}
