"""Training a student from teachers and true labels: stages, validation, exact resume, evidence (R19, R20, R22, R36)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vesu.config import StudentConfig
from vesu.distill.learner import torch_settings
from vesu.distill.parallel import joined_ranks
from vesu.distill.patches import PreparedVolume, Skeletonise
from vesu.distill.skeletons import tubed_skeleton
from vesu.distill.trained import TrainedStudent
from vesu.distill.trainer import Save, Trainer, TrainingDiverged
from vesu.distill.validation import judged
from vesu.distill.values import Emit, TrainingVolume
from vesu.errors import ArgumentError

__all__ = ["TrainedStudent", "TrainingDiverged", "train_student_distilled"]


def train_student_distilled(
    train: Sequence[TrainingVolume],
    validation: Sequence[TrainingVolume],
    config: StudentConfig,
    *,
    seed: int,
    device: Any = "cpu",
    emit: Emit,
    save: Save | None = None,
    resume: Mapping[str, bytes] | None = None,
    on_step: Callable[[float], object] | None = None,
    poll: Callable[[], object] | None = None,
    n_threads: int | None = None,
    save_due: Callable[[], bool] | None = None,
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> TrainedStudent:
    """Train a student on soft labels and true ones, then fine-tune it from the head inwards.

    Parameters
    ----------
    train : sequence of TrainingVolume
        Each with a label, soft labels, or both.
    validation : sequence of TrainingVolume
        Held out. Those with labels choose the weights that are kept; where none has, those with soft labels do; where
        there are none at all, the last weights are kept and no stage ends early.
    config : StudentConfig
    seed : int
        Of weights, patches and augmentations; 0 or more.
    device : str, torch.device or ComputeDevice
        'cpu' or a CUDA device that was proved to compute.
    emit : callable
        Gets each event's name and fields; see Notes.
    save : callable, optional
        ``save(parts, cursor)`` keeps the state, durably when it returns, or returns False if it could not: at every
        validation, at a stage's end, when `save_due` says so, and when the work is broken off. The cursor has
        ``epoch`` (number of the stage), ``index`` (steps of it that are done), ``seed``, ``stage`` and ``steps``.
    resume : mapping of str to bytes, optional
        Parts that `save` once got; the training goes on with the bits that it would have had.
    on_step : callable, optional
        Gets the part done, up to 1, after each step.
    poll : callable, optional
        Called before each forward pass, between windows of a validation, and before each volume is looked through at
        the beginning; what it raises ends the work.
    n_threads : int, optional
        Threads of torch on the CPU, and of the patches' cutting on a GPU; None leaves torch's.
    save_due : callable, optional
        Asked after each step whether to save now.
    guard : callable, optional
        Gives a context in which nothing is raised from outside (a signal's exception): around each update of the
        weights, its events and its save, which are one piece.

    Returns
    -------
    TrainedStudent
        The averaged weights with the best F-beta of all stages.

    Raises
    ------
    ArgumentError
        No volume to train on, or one with nothing to learn from; a number of processes that does not divide
        ``accumulate``.
    DataError
        Volumes that cannot be used.
    ResumeIncompatible
        `resume` is of other settings, another seed or other volumes; the message names each.
    FormatError
        Damaged parts.
    TrainingDiverged
        Loss or gradient stayed NaN or infinite.
    MemoryLimitError
        A single patch does not fit into the memory.

    Notes
    -----
    R19, R20, R22. Each stage of ``config.stages`` begins from the best weights so far, with a fresh AdamW, a linear
    warm-up and a half cosine; gradients are clipped to norm 1. Between two saves nothing but the state counts, so that
    cutting the training anywhere changes no bit on the CPU.

    Events: ``DISTILLATION_START`` (or ``DISTILLATION_RESUMED``), ``STUDENT_STAGE_START``/``END``,
    ``DISTILLATION_BATCH_BEGIN``/``END`` around each forward and backward pass, ``DISTILLATION_LOSS_STEP`` and
    ``DISTILLATION_STUDENT_UPDATE`` each step, ``STUDENT_STEP_SKIPPED``, ``STUDENT_VALIDATED``,
    ``DISTILLATION_CHECKPOINT_WRITTEN`` when `save` has returned, ``TRANSFER_MEMORY_PERSISTED`` and
    ``TRANSFER_MEMORY_RELOADED_FOR_FINETUNE`` between distillation and fine-tuning, ``DISTILLATION_END``. Where no
    volume has soft labels nothing is distilled: then the names begin with ``TRAINING_`` instead of ``DISTILLATION_``.

    Under ``torchrun`` the processes share each step's passes, see :mod:`vesu.distill.parallel`; the first one emits and
    saves, all return the same student.

    Examples
    --------
    >>> import numpy as np
    >>> label = np.zeros((16, 16, 16), np.uint8)
    >>> label[7:9] = 1
    >>> volume = TrainingVolume("a", label * np.uint8(100), label)
    >>> config = StudentConfig(preset="P1", channels=(2, 4), patch=(8, 8, 8), batch=1, steps=2, validate_every=2)
    >>> events = []
    >>> student = train_student_distilled(
    ...     [volume], [volume], config, seed=0, emit=lambda name, fields: events.append(name)
    ... )
    >>> [(entry["stage"], entry["step"]) for entry in student.history]
    [('distil', 2), ('head', 2)]
    >>> events[0], events[-1]
    ('TRAINING_START', 'TRAINING_END')
    """
    if not train:
        raise ArgumentError("train: got no volume; accepted: at least one")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise ArgumentError(f"seed: got {seed!r}; accepted: an integer from 0 to 2^63 - 1")
    for volume in train:
        if volume.label is None and volume.soft is None:
            raise ArgumentError(f"train: got volume {volume.volume_id} with neither label nor soft labels")
    skeletonise = tubed_skeleton if config.skeleton_weight > 0 else None
    with joined_ranks(str(device)) as ranks:
        ranks.check_divides(config.accumulate)
        with ranks.together():
            volumes = _prepared(train, skeletonise, poll)
            held_out = _prepared(judged(validation), None, poll)
        with torch_settings(ranks.device, config, n_threads):
            trainer = Trainer(
                volumes,
                held_out,
                config,
                seed=seed,
                ranks=ranks,
                emit=emit if ranks.is_first else _silent,
                save=save if ranks.is_first else None,
                on_step=on_step,
                poll=poll,
                save_due=save_due,
                guard=guard,
                n_workers=n_threads or torch.get_num_threads(),
            )
            return trainer.run(resume)


def _prepared(
    volumes: Sequence[TrainingVolume], skeletonise: Skeletonise | None, poll: Callable[[], object] | None
) -> list[PreparedVolume]:
    prepared = []
    for volume in volumes:
        if poll is not None:
            poll()
        prepared.append(PreparedVolume(volume, skeletonise))
    return prepared


def _silent(name: str, fields: Mapping[str, Any]) -> None:
    """Of the processes that are not the first."""
