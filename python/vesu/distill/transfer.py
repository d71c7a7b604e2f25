"""What went from the teachers to the student: coverage, alignment before and after, knowledge retained (R23).

The figures compare arrays: the teachers' soft labels with what the student predicts on the same validation volumes,
before its first step, after the distillation, and after fine-tuning.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.data.storage import write_json_atomic
from vesu.distill.values import Emit, SoftLabels
from vesu.errors import ArgumentError, DataError

__all__ = [
    "ALIGNMENT_REPORT",
    "MEMORY_MANIFEST",
    "Alignment",
    "Moment",
    "TeacherDistillation",
    "TransferReport",
    "alignment",
    "memory_manifest",
]

MEMORY_MANIFEST = "v3_transfer_memory_manifest.json"
ALIGNMENT_REPORT = "v3_teacher_alignment_report.json"

Moment: TypeAlias = Literal["before", "distilled", "final"]
"""Before the first step; after the distillation; after fine-tuning, as delivered."""

MOMENTS: tuple[Moment, ...] = ("before", "distilled", "final")

FORMULAS = {
    "alignment": "mean over surface (weights c q) and background (weights c (1 - q)) of 1 - JSD(p, q), JSD in bits; "
    "p student's, q teachers' mean probability, c their confidence",
    "teacher_coverage_pct": "100 * teachers used / max(nominal, present)",
    "teacher_alignment_gain_before_after": "alignment(distilled) - alignment(before)",
    "student_knowledge_retention_score": "(alignment(final) - alignment(before)) / gain; 0 without gain",
}

_TRANSFER_EVENTS = ("TEACHER_BATCH_TRANSFER", "TRANSFER_MEMORY_PERSISTED", "TRANSFER_MEMORY_RELOADED_FOR_FINETUNE")


@dataclass(frozen=True)
class Alignment:
    """How far a student agrees with its teachers at one moment."""

    moment: Moment
    by_volume: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over the volumes, each counting once."""
        return sum(self.by_volume.values()) / len(self.by_volume)


@dataclass(frozen=True)
class TransferReport:
    """The KPIs of a distillation, and the figures behind them."""

    teachers: Mapping[str, str]
    """Digests by name of the teachers that were there."""
    used: tuple[str, ...]
    """Those whose answers every training volume's soft labels hold."""
    nominal: int
    voxels_covered: int
    voxels_total: int
    alignments: tuple[Alignment, ...]

    @property
    def teacher_coverage_pct(self) -> float:
        """Teachers used, of the nominal number (or of those present, if they are more), 0 to 100."""
        return 100.0 * len(self.used) / max(self.nominal, len(self.teachers))

    @property
    def voxel_coverage_pct(self) -> float:
        """Voxels of the training volumes that have soft labels, 0 to 100."""
        return 100.0 * self.voxels_covered / self.voxels_total if self.voxels_total else 0.0

    @property
    def teacher_alignment_gain_before_after(self) -> float:
        """What the distillation added to the agreement with the teachers."""
        return self.mean_of("distilled") - self.mean_of("before")

    @property
    def student_knowledge_retention_score(self) -> float:
        """The share of that gain that the delivered student still has: 1 all, 0 none (or no gain to keep)."""
        gain, kept = self.teacher_alignment_gain_before_after, self.mean_of("final") - self.mean_of("before")
        return kept / gain if gain > 0 else 0.0

    def mean_of(self, moment: Moment) -> float:
        """The mean alignment at a moment. Raises DataError if none was measured."""
        for each in self.alignments:
            if each.moment == moment:
                return each.mean
        raise DataError(f"alignment: none was measured at the moment {moment!r}; accepted: all of {MOMENTS}")

    def kpis(self) -> dict[str, float]:
        """The KPIs by name: the fields of ``TEACHER_DISTILLATION_DONE`` and the head of the alignment report."""
        return {
            "teacher_coverage_pct": self.teacher_coverage_pct,
            "voxel_coverage_pct": self.voxel_coverage_pct,
            "teacher_alignment_gain_before_after": self.teacher_alignment_gain_before_after,
            "student_knowledge_retention_score": self.student_knowledge_retention_score,
        }

    def to_json(self) -> dict[str, Any]:
        """The content of ``v3_teacher_alignment_report.json``."""
        measured = {each.moment: {"mean": each.mean, "by_volume": dict(each.by_volume)} for each in self.alignments}
        return {
            "format": "vesu-teacher-alignment/1",
            **self.kpis(),
            "alignment": measured,
            "teachers": dict(self.teachers),
            "teachers_used": list(self.used),
            "teachers_nominal": self.nominal,
            "voxels_covered": self.voxels_covered,
            "voxels_total": self.voxels_total,
            "formulas": FORMULAS,
        }


class TeacherDistillation:
    """Keeps the account of one distillation, and writes it down: two events, two files.

    Parameters
    ----------
    teachers : mapping of str to str
        Digests by name; ``TEACHER_DISTILLATION_START`` is emitted at once.
    nominal : int
        How many teachers are expected (``teachers.nominal``).
    emit : callable
        Gets the events.

    Raises
    ------
    ArgumentError
        `nominal` below 1.

    Notes
    -----
    Requirement R23. Order of use: :meth:`measure` at each moment, :meth:`covered` for each training volume, then
    :meth:`finish`. Nothing here trains or predicts: the figures come from arrays that are handed over. A run that
    resumes makes a new object and measures again: all three students can be had again at its end, the first from its
    seed, the second from the transfer memory.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> soft = SoftLabels("v", *(np.full((2, 2, 2), each, np.float16) for each in (3, 0, 0)), teachers=("a",))
    >>> names = []
    >>> account = TeacherDistillation({"a": "00" * 32}, nominal=9, emit=lambda name, fields: names.append(name))
    >>> account.covered(soft.mean_logit.shape, soft)
    >>> for moment, probability in [("before", 0.5), ("distilled", 0.95), ("final", 0.9)]:
    ...     _ = account.measure(moment, [(soft, np.full((2, 2, 2), probability, np.float32))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = account.finish(folder, events=[])
    >>> round(report.teacher_coverage_pct, 1), round(report.student_knowledge_retention_score, 2)
    (11.1, 0.96)
    >>> names[0], names[-1]
    ('TEACHER_DISTILLATION_START', 'TEACHER_DISTILLATION_DONE')
    """

    def __init__(self, teachers: Mapping[str, str], *, nominal: int, emit: Emit) -> None:
        if nominal < 1:
            raise ArgumentError(f"nominal: got {nominal!r}; accepted: 1 or more")
        self._teachers = dict(teachers)
        self._nominal = nominal
        self._emit = emit
        self._covered = self._total = 0
        self._used: set[str] | None = None
        self._alignments: dict[Moment, Alignment] = {}
        emit("TEACHER_DISTILLATION_START", {"teachers": self._teachers, "teachers_nominal": nominal})

    def covered(self, shape: tuple[int, ...], soft: SoftLabels | None) -> None:
        """Count a training volume of this shape, with the soft labels that it was trained on, if any."""
        n_voxels = int(np.prod(shape))
        self._total += n_voxels
        if soft is None:
            return
        self._covered += n_voxels
        names = set(soft.teachers) & self._teachers.keys()
        self._used = names if self._used is None else self._used & names

    def measure(self, moment: Moment, predictions: Iterable[tuple[SoftLabels, NDArray[np.float32]]]) -> Alignment:
        """The student's agreement with its teachers now: ``TEACHER_ALIGNMENT_MEASURED``.

        Parameters
        ----------
        moment : {"before", "distilled", "final"}
        predictions : iterable of (SoftLabels, ndarray of float32 (z, y, x))
            A validation volume's soft labels and the student's probability; one pair is held at a time.

        Raises
        ------
        ArgumentError
            Another moment; arrays that do not fit.
        DataError
            No volume.
        """
        if moment not in MOMENTS:
            raise ArgumentError(f"moment: got {moment!r}; accepted: one of {MOMENTS}")
        by_volume = {soft.volume_id: alignment(probability, soft) for soft, probability in predictions}
        if not by_volume:
            raise DataError(
                f"alignment at the moment {moment!r}: got no volume; accepted: at least one with soft labels"
            )
        found = Alignment(moment, by_volume)
        self._alignments[moment] = found
        self._emit("TEACHER_ALIGNMENT_MEASURED", {"moment": moment, "alignment": found.mean, "by_volume": by_volume})
        return found

    def finish(self, folder: str | os.PathLike[str], *, events: Iterable[Mapping[str, Any]]) -> TransferReport:
        """Write ``v3_transfer_memory_manifest.json`` and ``v3_teacher_alignment_report.json``, then say so.

        Parameters
        ----------
        folder : path-like
            The run's.
        events : iterable of mapping
            The run's log, as :func:`vesu.ledger.iter_events` gives it: the manifest tells what it holds.

        Returns
        -------
        TransferReport

        Raises
        ------
        DataError
            A moment at which nothing was measured.
        FileError
            The disk refused; ``TEACHER_DISTILLATION_DONE`` is not emitted then.
        """
        alignments = tuple(self._alignments[moment] for moment in MOMENTS if moment in self._alignments)
        used = tuple(name for name in self._teachers if name in (self._used or ()))
        report = TransferReport(self._teachers, used, self._nominal, self._covered, self._total, alignments)
        kpis = report.kpis()
        write_json_atomic(Path(folder, MEMORY_MANIFEST), memory_manifest(events, self._teachers))
        write_json_atomic(Path(folder, ALIGNMENT_REPORT), report.to_json())
        self._emit("TEACHER_DISTILLATION_DONE", {**kpis, "files": [MEMORY_MANIFEST, ALIGNMENT_REPORT]})
        return report


def alignment(student: NDArray[np.float32], soft: SoftLabels) -> float:
    """How far a student's probability agrees with its teachers' mean, 0 to 1.

    Parameters
    ----------
    student : ndarray of float32, shape (z, y, x)
        Probability of surface, in [0, 1].
    soft : SoftLabels
        The teachers' answer for the same volume.

    Returns
    -------
    float
        1 where both say the same everywhere, 0 where they are sure of the opposite.

    Raises
    ------
    ArgumentError
        Shapes that differ; NaN or values outside [0, 1].

    Notes
    -----
    Requirement R23. With p the student's probability, q = sigmoid(mean logit), c the teachers' confidence and JSD the
    Jensen-Shannon divergence of two coins in bits (0 to 1; Lin 1991), it is the mean of ``sum(c q a) / sum(c q)`` and
    ``sum(c (1 - q) a) / sum(c (1 - q))`` with ``a = 1 - JSD(p, q)``. Both sides count alike, though surfaces fill but
    a twentieth of a volume. Labels play no part. Float64, slice by slice in order: the same bits on any number of
    threads.

    Examples
    --------
    >>> import numpy as np
    >>> soft = SoftLabels("v", *(np.full((1, 1, 1), each, np.float16) for each in (0, 0, 0)), teachers=("a",))
    >>> alignment(np.full((1, 1, 1), 0.5, np.float32), soft)
    1.0
    >>> round(alignment(np.full((1, 1, 1), 1.0, np.float32), soft), 3)
    0.689
    """
    if student.shape != soft.mean_logit.shape:
        raise ArgumentError(f"student: got shape {student.shape}; accepted: the soft labels', {soft.mean_logit.shape}")
    sums = np.zeros((2, 2))  # (surface, background) x (agreement, weight)
    for plane, logit, disagreement in zip(student, soft.mean_logit, soft.disagreement, strict=True):
        p = plane.astype(np.float64)
        if not (p.min(initial=0) >= 0 and p.max(initial=0) <= 1):
            raise ArgumentError("student: got NaN or values outside [0, 1]; accepted: probabilities")
        q = 1 / (1 + np.exp(-logit.astype(np.float64)))
        confidence = np.clip(1 - disagreement.astype(np.float64), 0, 1)
        agreement = 1 - _divergence(p, q)
        for row, weight in zip(sums, (confidence * q, confidence * (1 - q)), strict=True):
            row += (weight * agreement).sum(), weight.sum()
    sides = [agreed / weight for agreed, weight in sums if weight > 0]
    return float(np.mean(sides)) if sides else 0.0


def memory_manifest(events: Iterable[Mapping[str, Any]], teachers: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``v3_transfer_memory_manifest.json``: what the log says was handed over, kept and read back.

    Parameters
    ----------
    events : iterable of mapping
        The run's log.
    teachers : mapping of str to str
        Digests by name.

    Returns
    -------
    dict
        ``format``; ``teachers``; ``transfers``, ``persisted`` and ``reloaded``: the fields and numbers of those events.

    Examples
    --------
    >>> event = {"event": "TEACHER_BATCH_TRANSFER", "seq": 7, "ts_ns": "1", "teacher": "a", "hash": "0" * 64}
    >>> memory_manifest([event], {"a": "00"})["transfers"]
    [{'seq': 7, 'ts_ns': '1', 'teacher': 'a', 'hash': '0000...'}]
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _TRANSFER_EVENTS}
    for event in events:
        if (rows := found.get(str(event.get("event")))) is not None:
            rows.append({key: value for key, value in event.items() if key not in ("event", "prev")})
    told = dict(zip(("transfers", "persisted", "reloaded"), found.values(), strict=True))
    return {"format": "vesu-transfer-memory/1", "teachers": dict(teachers), **told}


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence of coins, in bits."""
    middle = (p + q) / 2
    divergence = _entropy(middle) - (_entropy(p) + _entropy(q)) / 2
    return np.clip(divergence, 0, 1)


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a coin, in bits; 0 where it is certain."""
    return -(_p_log_p(p) + _p_log_p(1 - p))


def _p_log_p(p: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithm: NDArray[np.float64] = np.log2(np.maximum(p, np.finfo(np.float64).tiny))  # times 0 it is 0
    return np.multiply(p, logarithm, out=logarithm)
