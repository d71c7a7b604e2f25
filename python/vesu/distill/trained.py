"""A trained student: its answer for a volume, and its two files (R19)."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vesu.config import StudentConfig
from vesu.data.storage import atomic_folder, new_file
from vesu.distill.patches import standardise
from vesu.distill.sliding import sliding_logits
from vesu.distill.student import StudentOutput, build_student
from vesu.distill.values import StudentPrediction
from vesu.distill.weights import digest_of, pack_weights, unpack_weights
from vesu.errors import FileError, FormatError, VesuError

__all__ = ["TrainedStudent", "autocast_for", "predict_volume"]

FORMAT = "vesu-student/1"
WEIGHTS, DOCUMENT = "student.safetensors", "student.json"
MEMBERS = {"format", "weights", "weights_digest", "seed", "threshold", "normalisation", "config", "history"}
NORMALISATION = {"kind": "zscore", "scope": "volume"}


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """What :func:`vesu.distill.training.train_student_distilled` gives.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from vesu.config import StudentConfig
    >>> config = StudentConfig(channels=(2, 4), patch=(8, 8, 8), flips=False)
    >>> student = TrainedStudent(build_student(config, seed=0), config, seed=0)
    >>> answer = student.predict(np.arange(1000, dtype=np.uint16).reshape(10, 10, 10))
    >>> answer.probability.shape, answer.uncertainty.dtype
    ((10, 10, 10), dtype('float32'))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     student.save(f"{folder}/student")
    ...     TrainedStudent.load(f"{folder}/student").weights_digest == student.weights_digest
    True
    """

    model: torch.nn.Module
    """The network, of :func:`vesu.distill.student.build_student`; its weights are the averaged ones."""
    config: StudentConfig
    seed: int
    history: tuple[Mapping[str, Any], ...] = ()
    """One entry a validation: stage, step, f_beta, threshold, surface_share, change, mean loss terms since the last."""
    threshold: float | None = None
    """Best threshold of the probability on the validation volumes; None where there were none."""
    distilled_weights: bytes | None = None
    """The student as the stage 'distil' left it, before any fine-tuning; not kept by :meth:`save`."""

    @property
    def weights_digest(self) -> str:
        """BLAKE3 of the weights, as in the events."""
        return digest_of(pack_weights(self.model))

    def untrained(self) -> "TrainedStudent":
        """The student before its first step, from its seed: what its gain is measured against (R23)."""
        return dataclasses.replace(self, model=build_student(self.config, seed=self.seed), history=(), threshold=None)

    def distilled(self) -> "TrainedStudent":
        """The student after distillation, before fine-tuning: what its retention is measured against (R23).

        Raises
        ------
        FormatError
            This one was loaded from files, which do not keep it.
        """
        if self.distilled_weights is None:
            raise FormatError("student: the distilled weights are kept by the training only, not by its files")
        model = build_student(self.config, seed=self.seed)
        unpack_weights(self.distilled_weights, model, "the distilled student")
        return dataclasses.replace(self, model=model)

    def predict(
        self,
        volume: NDArray[Any],
        *,
        device: Any = "cpu",
        batch: int = 1,
        on_part: Callable[[float], object] | None = None,
        poll: Callable[[], object] | None = None,
        emit: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> StudentPrediction:
        """Probability of surface and its uncertainty for a whole volume, by sliding windows.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x), uint8, uint16 or float32
            The CT as read; it is standardised here.
        device : str, torch.device or ComputeDevice
        batch : int
            Windows at a time; halved where memory does not suffice.
        on_part : callable, optional
            Gets the part done, up to 1.
        poll : callable, optional
            Called between batches; what it raises ends the work.
        emit : callable, optional
            Gets ``OUT_OF_MEMORY_SMALLER_BATCH``.

        Returns
        -------
        StudentPrediction

        Raises
        ------
        DataError
            Not a CT volume, or values that are not finite.

        Notes
        -----
        R19. Logits and log variances are averaged over windows and flips, then turned into probability
        ``sigmoid(logit)`` and uncertainty ``exp(log_variance / 2)``, the expected error of the probability.
        """
        outputs = predict_volume(
            self.model,
            standardise(volume),
            self.config,
            device=device,
            flips=self.config.flips,
            batch=batch,
            on_part=on_part,
            poll=poll,
            emit=emit,
        )
        answer = StudentOutput(torch.from_numpy(outputs[0]), torch.from_numpy(outputs[1]))
        return StudentPrediction(answer.probability.numpy(), answer.uncertainty.numpy())

    def save(self, folder: str | Path) -> None:
        """Write ``student.safetensors`` and ``student.json`` into a new folder, whole or not at all.

        Parameters
        ----------
        folder : path-like
            Must not exist; the folder around it must.

        Raises
        ------
        FileError
            The operating system refused a step, or the folder is there.
        """
        weights = pack_weights(self.model)
        document = {
            "format": FORMAT,
            "weights": WEIGHTS,
            "weights_digest": digest_of(weights),
            "seed": self.seed,
            "threshold": self.threshold,
            "normalisation": NORMALISATION,
            "config": dataclasses.asdict(self.config),
            "history": [dict(entry) for entry in self.history],
        }
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
        with atomic_folder(folder) as temporary:
            for name, data in {WEIGHTS: weights, DOCUMENT: f"{text}\n".encode()}.items():
                with new_file(temporary / name) as file:
                    file.write(data)

    @classmethod
    def load(cls, folder: str | Path) -> "TrainedStudent":
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path-like

        Returns
        -------
        TrainedStudent
            On the CPU.

        Raises
        ------
        FileError
            A file that cannot be read.
        FormatError
            Members, settings, weights or their digest that are not what ``save`` writes; the message names them.
        """
        document = _document(Path(folder) / DOCUMENT)
        weights = _read(Path(folder) / WEIGHTS)
        if (digest := digest_of(weights)) != document["weights_digest"]:
            raise FormatError(f"{WEIGHTS}: digest {digest}; accepted: {document['weights_digest']} of {DOCUMENT}")
        config = _config(document["config"])
        model = build_student(config, seed=document["seed"])
        unpack_weights(weights, model, WEIGHTS)
        return cls(model, config, document["seed"], tuple(document["history"]), document["threshold"])


def predict_volume(
    model: torch.nn.Module,
    volume: NDArray[np.float32],
    config: StudentConfig,
    *,
    device: Any,
    flips: bool,
    batch: Any = 1,
    on_part: Callable[[float], object] | None = None,
    poll: Callable[[], object] | None = None,
    emit: Callable[[str, Mapping[str, Any]], None] | None = None,
) -> NDArray[np.float32]:
    """A student's logit and log variance for a standardised volume, float32 (2, z, y, x)."""
    where = torch.device(str(device))
    model = model.to(where).eval()

    def predict(windows: torch.Tensor) -> torch.Tensor:
        with autocast_for(where, config):
            return torch.cat(list(model(windows)), 1)

    return sliding_logits(
        predict,
        volume,
        patch=config.patch,
        overlap=config.overlap,
        flips=flips,
        batch=batch,
        device=where,
        n_outputs=2,
        emit=emit,
        on_part=on_part,
        poll=poll,
    )


def autocast_for(device: torch.device, config: StudentConfig) -> Any:
    """Half precision of the products on a GPU, if the settings ask for it; nothing on the CPU."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if device.type != "cuda" or config.precision not in kinds:
        return nullcontext()
    return torch.autocast("cuda", dtype=kinds[config.precision])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_read(path))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FormatError(f"{path}: format {got!r}; accepted: {FORMAT!r}")
    if strange := sorted(document.keys() ^ MEMBERS):
        raise FormatError(f"{path}: {strange[0]}: {'not expected' if strange[0] in document else 'missing'}")
    if document["weights"] != WEIGHTS or document["normalisation"] != NORMALISATION:
        raise FormatError(f"{path}: weights or normalisation of another kind; accepted: {WEIGHTS}, {NORMALISATION}")
    seed, history, threshold = document["seed"], document["history"], document["threshold"]
    good = type(seed) is int and isinstance(history, list) and all(isinstance(entry, dict) for entry in history)
    if not good or not (threshold is None or isinstance(threshold, float)):
        raise FormatError(f"{path}: seed, history or threshold of a wrong type")
    return document


def _config(values: Any) -> StudentConfig:
    names = {field.name for field in dataclasses.fields(StudentConfig)}
    strange = sorted(values.keys() ^ names) if isinstance(values, dict) else ["no object"]
    if strange:
        raise FormatError(f"{DOCUMENT}: config: {strange[0]}: missing or unknown")
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    try:
        return StudentConfig(**settings)
    except (TypeError, ValueError, VesuError) as error:
        raise FormatError(f"{DOCUMENT}: config: {error}") from error
