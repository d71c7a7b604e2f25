"""A trained surface model: everything needed to turn a CT volume into a mask, in two files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.storage import remove_tree_atomic, write_json_atomic
from vesu.distill.fusion import fuse
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.features import FeatureSpec, extract_features
from vesu.grid_search import ProxFitModel
from vesu.notebook import facts
from vesu.segmentation import Segmentation, SegmentConfig, segment

if TYPE_CHECKING:
    from vesu.distill.training import TrainedStudent

__all__ = ["FeatureSlab", "FusedStudent", "SurfaceModel", "VolumePrediction", "fused"]

FORMAT = "vesu-surface-model/2"
"""2: the segmentation is a ladder of named steps."""
STUDENT_FOLDER = "student"
"""Beside the model's files, where there is a student."""
FORMAT_WITH_STUDENT = "vesu-surface-model/3"
"""3: a student beside the ensemble; a vesu that knows none must not leave it out in silence."""

PROX_PART = 0.3
"""Of a volume's time, what the ensemble takes where a student is asked too."""


@dataclass(frozen=True)
class VolumePrediction:
    """The ensemble's answer for one volume, both arrays float32 (z, y, x)."""

    probability: NDArray[np.float32]
    """Mean probability of surface over the ensemble, in [0, 1]."""
    uncertainty: NDArray[np.float32]
    """Standard deviation over the ensemble (R17)."""


@dataclass(frozen=True, eq=False)
class FusedStudent:
    """The student beside the ensemble, and its part in the probability (R25)."""

    student: "TrainedStudent"
    weight: float
    """0 to 1; at 0 it is not asked."""
    device: str = "cpu"
    """As torch calls it."""

    def predict(
        self,
        volume: NDArray[Any],
        on_part: Callable[[float], None] | None = None,
        poll: Callable[[], None] | None = None,
    ) -> VolumePrediction:
        """The student's own answer for a volume; ``on_part`` is told the part, 0 to 1, that was done since."""
        told = 0.0

        def tell(done: float) -> None:
            nonlocal told
            if on_part is not None:
                on_part(done - told)
            told = done

        batch = self.student.config.batch
        found = self.student.predict(volume, device=self.device, batch=batch, on_part=tell, poll=poll)
        return VolumePrediction(found.probability, found.uncertainty)


def fused(student: VolumePrediction, prox: VolumePrediction, weight: float) -> VolumePrediction:
    """Both answers in one: ``weight`` times the student's probability and the rest of the ensemble's (R25).

    The uncertainty is the standard deviation of that mixture of two distributions, whose own deviations are their
    uncertainties: it is large too where each is sure and they contradict each other. No probability deviates by more
    than 0.5, but a student that knows itself wrong may expect an error beyond it: that counts as 0.5.

    Examples
    --------
    >>> answers = [VolumePrediction(np.full((1, 1, 1), p, np.float32), np.zeros((1, 1, 1), np.float32)) for p in (0, 1)]
    >>> mixed = fused(*answers, weight=0.5)
    >>> float(mixed.probability[0, 0, 0]), float(mixed.uncertainty[0, 0, 0])
    (0.5, 0.5)
    """
    if weight == 0.0:
        return prox
    own, rest = np.float32(weight), np.float32(1.0 - weight)
    variance = own * student.uncertainty**2 + rest * prox.uncertainty**2
    variance += own * rest * (student.probability - prox.probability) ** 2
    return VolumePrediction(fuse(student.probability, prox.probability, weight), np.sqrt(np.minimum(variance, 0.25)))


@dataclass(frozen=True, eq=False)
class FeatureSlab:
    """Some slices of a volume's features."""

    slices: slice
    """Which slices of the volume."""
    inner: slice
    """The same ones along z in ``values``, which has a neighbour more on either side for the spatial gradient."""
    values: NDArray[np.float32]
    """(channels, z, y, x)"""


@dataclass(frozen=True)
class SurfaceModel:
    """Features, ensemble and segmentation ladder of one run (R12, R17, R28, R29).

    Examples
    --------
    >>> import vesu
    >>> model = vesu.SurfaceModel.load("demo")  # doctest: +SKIP
    >>> result = model.segment(vesu.read_volume("test_images/1.tif"))  # doctest: +SKIP
    """

    prox: ProxFitModel
    spec: FeatureSpec
    channels: tuple[int, ...]
    """Which channels of ``spec`` the ensemble uses, in its order."""
    segment_config: SegmentConfig
    student: FusedStudent | None = None
    """Fused with the ensemble in every prediction."""

    @property
    def threshold(self) -> float:
        """From where on a probability speaks for surface: the ensemble's own, and one half for the student's part."""
        weight = 0.0 if self.student is None else self.student.weight
        return (1.0 - weight) * self.prox.threshold + weight * 0.5

    def _repr_html_(self) -> str:
        student = "none" if self.student is None else f"weight {self.student.weight:g} in every probability"
        members, scales = self.prox.candidates, self.spec.scales
        entries = {
            "ensemble": f"{len(members)} candidates, best first: {', '.join(map(str, members))}",
            "features": f"{len(self.channels)} of {len(self.spec.names)}, scales {', '.join(map(str, scales))}",
            "ladder": ", ".join(step.name for step in self.segment_config.steps),
            "threshold": self.threshold,
            "student": student,
        }
        return facts("Surface model", entries)

    def predict(
        self,
        volume: NDArray[Any],
        *,
        max_feature_bytes: int = 6 << 30,
        n_threads: int | None = None,
        on_part: Callable[[float], None] | None = None,
        poll: Callable[[], None] | None = None,
    ) -> VolumePrediction:
        """Probability and uncertainty of every voxel, the student's part included.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x)
            CT of uint8, uint16 or float32.
        max_feature_bytes : int
            Feature volumes are computed in z-slabs no larger than this; the result is the same bit for bit.
        n_threads : int, optional
            Threads; the result does not depend on it.
        on_part : callable, optional
            Told the part of the volume, 0 to 1, that was done since it was told last.
        poll : callable, optional
            Called between the student's windows; may raise.

        Raises
        ------
        ArgumentError
            Not a 3-D array of an accepted dtype, an axis of length 0, or a non-finite value.
        """
        if not isinstance(volume, np.ndarray) or volume.ndim != 3 or 0 in volume.shape:
            got = f"shape {volume.shape}" if isinstance(volume, np.ndarray) else type(volume).__name__
            raise ArgumentError(f"volume: got {got}; accepted: a 3-D numpy array with no axis of length 0")
        tell = on_part or (lambda part: None)
        if self.student is None or self.student.weight == 0.0:
            return self.predict_prox(volume, max_feature_bytes=max_feature_bytes, n_threads=n_threads, on_part=tell)
        prox = self.predict_prox(
            volume,
            max_feature_bytes=max_feature_bytes,
            n_threads=n_threads,
            on_part=lambda part: tell(PROX_PART * part),
        )
        student = self.student.predict(volume, lambda part: tell((1.0 - PROX_PART) * part), poll)
        return fused(student, prox, self.student.weight)

    def predict_prox(
        self,
        volume: NDArray[Any],
        *,
        max_feature_bytes: int = 6 << 30,
        n_threads: int | None = None,
        on_part: Callable[[float], None] | None = None,
    ) -> VolumePrediction:
        """The ensemble's answer alone; parameters as :meth:`predict` has them."""
        tell = on_part or (lambda part: None)
        probability = np.empty(volume.shape, np.float32)
        uncertainty = np.empty(volume.shape, np.float32)
        for slab in self.feature_slabs(volume, max_feature_bytes=max_feature_bytes, n_threads=n_threads):
            half = (slab.slices.stop - slab.slices.start) / volume.shape[0] / 2
            tell(half)
            mean, spread = self.prox.predict_volume(slab.values, n_threads=n_threads)
            probability[slab.slices], uncertainty[slab.slices] = mean[slab.inner], spread[slab.inner]
            tell(half)
        return VolumePrediction(probability, uncertainty)

    def feature_slabs(
        self, volume: NDArray[Any], *, max_feature_bytes: int, n_threads: int | None = None
    ) -> Iterator[FeatureSlab]:
        """The features of a volume that the ensemble uses, z-slab by z-slab, none larger than ``max_feature_bytes``."""
        depth, height, width = volume.shape
        n_all, n_kept = len(self.spec.names), len(self.channels)
        # All channels are computed, and the kept ones copied where some were dropped.
        slice_bytes = 4 * (n_all + (n_kept if n_kept < n_all else 0)) * height * width
        # Two slices of every slab are its halo for the spatial gradient.
        thickness = max(1, min(depth, max_feature_bytes // slice_bytes - 2))
        for start in range(0, depth, thickness):
            stop = min(depth, start + thickness)
            low, high = max(0, start - 1), min(depth, stop + 1)
            inner = slice(start - low, stop - low)
            # No name here: the dropped channels are gone before the next slab's are computed.
            yield FeatureSlab(
                slice(start, stop),
                inner,
                self._kept(extract_features(volume, self.spec, z_range=(low, high), n_threads=n_threads).values),
            )

    def predict_features(
        self, values: NDArray[np.float32], *, n_threads: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation from a feature volume (all channels of ``spec``, z, y, x)."""
        return self.prox.predict_volume(self._kept(values), n_threads=n_threads)

    def _kept(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = self.channels == tuple(range(values.shape[0]))
        return values if whole else values[list(self.channels)]

    def segment(self, volume: NDArray[Any], *, n_threads: int | None = None) -> Segmentation:
        """Mask of a CT volume: :meth:`predict`, then :func:`vesu.segment` with the model's own ladder."""
        prediction = self.predict(volume, n_threads=n_threads)
        return segment(
            prediction.probability, self.segment_config, uncertainty=prediction.uncertainty, n_threads=n_threads
        )

    def save(self, folder: str | Path) -> None:
        """Write ``model.npz`` (weights), ``model.json`` (the rest) and the student's files, each atomically."""
        folder, student = Path(folder), self.student
        self.prox.save(folder / "model.npz")
        if student is not None:
            _save_student(student.student, folder / STUDENT_FOLDER)
        write_json_atomic(
            folder / "model.json",
            {
                "format": FORMAT if student is None else FORMAT_WITH_STUDENT,
                "features": {"scales": list(self.spec.scales), "version": self.spec.version},
                "feature_names": list(self.spec.names),
                "channels": list(self.channels),
                "segment": self.segment_config.to_json(),
                **({} if student is None else {"student": {"weight": student.weight}}),
            },
        )

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> "SurfaceModel":
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
            A run folder.
        device : str, optional
            What the student runs on, where there is one: ``"cpu"``, ``"cuda:0"``; by default what computes here.

        Raises
        ------
        FileError
            A file cannot be read.
        FormatError
            Malformed content, or features of another version than this vesu computes.
        VesuError
            There is a student, and torch is not installed.
        """
        path = Path(folder) / "model.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(path)) from error
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON: {error}") from error
        try:
            if meta["format"] not in (FORMAT, FORMAT_WITH_STUDENT):
                raise FormatError(f"{path}: format {meta['format']!r}; accepted: {FORMAT!r}, {FORMAT_WITH_STUDENT!r}")
            weight = _weight(meta) if meta["format"] == FORMAT_WITH_STUDENT else None
            spec = FeatureSpec(scales=tuple(float(scale) for scale in meta["features"]["scales"]))
            config = SegmentConfig.from_json(meta["segment"])
            channels = tuple(int(channel) for channel in meta["channels"])
            names, version = tuple(meta["feature_names"]), meta["features"]["version"]
        except FormatError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise FormatError(f"{path}: a missing or misplaced entry: {error}") from error
        if (version, names) != (spec.version, spec.names):
            raise FormatError(
                f"{path}: made with feature version {version}; this vesu computes version {spec.version}: train again"
            )
        if not channels or not all(0 <= channel < len(names) for channel in channels):
            raise FormatError(f"{path}: channels {channels}; accepted: indices below {len(names)}")
        prox = ProxFitModel.load(path.with_name("model.npz"))
        if tuple(prox.feature_names) != tuple(names[channel] for channel in channels):
            raise FormatError(f"{path}: channels {channels} are not the features of model.npz, {prox.feature_names}")
        return cls(prox, spec, channels, config, None if weight is None else _student(path.parent, weight, device))


def _weight(meta: dict[str, Any]) -> float:
    weight = float(meta["student"]["weight"])
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"the student's weight is {weight!r}")
    return weight


def _student(folder: Path, weight: float, device: str | None) -> FusedStudent:
    from vesu.distill.device import choose_compute_device
    from vesu.distill.training import TrainedStudent

    student = TrainedStudent.load(folder / STUDENT_FOLDER)
    return FusedStudent(student, weight, device or str(choose_compute_device("auto")))


def _save_student(student: "TrainedStudent", folder: Path) -> None:
    """Whole or not at all; what is there already, as in a run's folder, stays."""
    if folder.exists():
        there = type(student).load(folder)
        if (there.weights_digest, there.config) == (student.weights_digest, student.config):
            return
        remove_tree_atomic(folder)
    student.save(folder)
