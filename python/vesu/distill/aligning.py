"""A few steps of a trained student towards a reference mask of one volume (R24)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vesu.config import GuidedConfig, StudentConfig
from vesu.distill.device import BatchLimit
from vesu.distill.learner import Gradient, Learner, torch_settings
from vesu.distill.parallel import Ranks
from vesu.distill.patches import PreparedVolume
from vesu.distill.skeletons import tubed_skeleton
from vesu.distill.stages import Stage
from vesu.distill.student import build_student
from vesu.distill.trained import TrainedStudent
from vesu.distill.trainer import TrainingDiverged
from vesu.distill.values import Emit, TrainingVolume
from vesu.distill.weights import pack_weights, unpack_weights

__all__ = ["align_student"]


def align_student(
    student: TrainedStudent,
    image: NDArray[Any],
    reference: NDArray[np.uint8],
    settings: GuidedConfig,
    *,
    moments: tuple[float, float],
    seed: int,
    volume_id: str = "reference",
    device: Any = "cpu",
    emit: Emit,
    on_step: Callable[[float], object] | None = None,
    poll: Callable[[], object] | None = None,
    n_threads: int | None = None,
) -> TrainedStudent:
    """Train a student on for a few steps, on a reference mask; the student that is given stays as it is.

    Parameters
    ----------
    student : TrainedStudent
    image : ndarray, shape (z, y, x), uint8, uint16 or float32
        The part of the volume that may be seen.
    reference : ndarray of uint8, same shape
        0 background, 1 surface, 2 unknown (counts in no term of the loss).
    settings : GuidedConfig
        ``stage``, ``steps`` and ``learning_rate``.
    moments : (float, float)
        Mean and standard deviation of the whole volume, by which its answers are standardised.
    seed : int
        Of patches and augmentations; 0 or more.
    volume_id : str
        For the events.
    device : str, torch.device or ComputeDevice
    emit : callable
        Gets ``GUIDED_BATCH_BEGIN``/``END`` around each forward and backward pass and ``GUIDED_STUDENT_STEP`` after each
        step.
    on_step : callable, optional
        Gets the part done, up to 1, after each step.
    poll : callable, optional
        Called before each pass; what it raises ends the work, and nothing of it is left.
    n_threads : int, optional
        Threads of torch on the CPU; None leaves torch's.

    Returns
    -------
    TrainedStudent
        A new one, with the settings, seed and history of the old.

    Raises
    ------
    TrainingDiverged
        A loss or gradient that is NaN or infinite.
    DataError
        Arrays that do not fit together.
    MemoryLimitError
        A single patch does not fit into the memory.

    Notes
    -----
    Requirement R24. AdamW from fresh moments, a linear warm-up and a half cosine as in every stage of the training, the
    loss of the training without its soft-label term, float32 throughout. On the CPU the same input gives the same bits
    with the same number of threads.

    Examples
    --------
    >>> label = np.zeros((16, 16, 16), np.uint8)
    >>> label[7:9] = 1
    >>> config = StudentConfig(channels=(2, 4), patch=(8, 8, 8), batch=1)
    >>> student = TrainedStudent(build_student(config, seed=0), config, seed=0)
    >>> settings = GuidedConfig(stage="head", steps=2)
    >>> aligned = align_student(
    ...     student, label * np.uint8(100), label, settings, moments=(12.5, 33.1), seed=0, emit=lambda *_: None
    ... )
    >>> aligned.weights_digest != student.weights_digest, aligned.config == student.config
    (True, True)
    """
    config = replace(student.config, soft_weight=0.0, accumulate=1, ema_decay=0.0, precision="fp32", compile=False)
    volume = _prepared(TrainingVolume(volume_id, image, reference), moments, config)
    stage = Stage(0, settings.stage, config, (volume,), settings.steps, settings.learning_rate)
    where = torch.device(str(device))
    with torch_settings(where, config, n_threads):
        model = build_student(student.config, seed=student.seed)
        unpack_weights(pack_weights(student.model), model, "the student")
        model = model.to(where)
        workers = n_threads or torch.get_num_threads()
        learner = Learner(
            stage, model, Ranks(device=where), seed=seed, limit=BatchLimit(config.batch, emit), n_workers=workers
        )
        try:
            for step in range(settings.steps):
                gradient = learner.gradient(step, _renamed(emit), poll)
                _require_finite(gradient, step)
                learner.apply(gradient, step)
                emit("GUIDED_STUDENT_STEP", _told(stage, step, gradient))
                if on_step is not None:
                    on_step((step + 1) / settings.steps)
        finally:
            learner.close()
    return replace(student, model=model.to("cpu").requires_grad_(False).eval(), distilled_weights=None)


def _prepared(volume: TrainingVolume, moments: tuple[float, float], config: StudentConfig) -> PreparedVolume:
    """A part of a volume that is standardised as the whole is when it is predicted."""
    prepared = PreparedVolume(volume, tubed_skeleton if config.skeleton_weight > 0 else None)
    prepared.mean, prepared.deviation = moments
    return prepared


def _renamed(emit: Emit) -> Emit:
    """The passes are told of under this phase's name: nothing is distilled here."""

    def tell(name: str, fields: Mapping[str, Any]) -> None:
        emit(name.replace("DISTILLATION_", "GUIDED_", 1), fields)

    return tell


def _require_finite(gradient: Gradient, step: int) -> None:
    if not gradient.is_finite:
        raise TrainingDiverged(
            f"guided alignment: step {step + 1}: got loss terms {dict(gradient.terms)} and a gradient of norm "
            f"{gradient.norm}; accepted: finite numbers (a smaller guided.learning_rate)"
        )


def _told(stage: Stage, step: int, gradient: Gradient) -> dict[str, Any]:
    rate = stage.learning_rate(step)
    about = {"stage": stage.name, "step": step + 1, "steps": stage.steps, "learning_rate": rate}
    return about | {"terms": dict(gradient.terms), "gradient_norm": gradient.norm}
