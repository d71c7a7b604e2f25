"""A run with a small student: tiny teachers, and the settings that make it quick."""

from pathlib import Path

import pytest
import torch

import vesu
from conftest import SMALL
from vesu.data.phantom import write_dataset
from vesu.distill.architectures import build_network
from vesu.distill.normalisation import Normalisation
from vesu.distill.teacher import InputSpec, OutputSpec, write_teacher
from vesu.run import ending

STUDENT = [
    "student.channels=[2,4]",
    "student.patch=[16,16,16]",
    "student.batch=1",
    "student.steps=5",
    "student.validate_every=3",
    "student.preset='P1'",
    "student.overlap=0.0",
    "student.flips=false",
    "student.device='cpu'",
    "teachers.overlap=0.0",
    "teachers.flips=false",
    "checkpoint.every_iterations=60",
    "n_threads=1",
]
"""Two stages of five steps; a validation, and so a checkpoint, in the midst and at the end of each."""


def student_config(teachers: Path, *more: str) -> vesu.RunConfig:
    """The mini run with a student from these teachers."""
    return vesu.load_config(overrides=[*SMALL, *STUDENT, f"teachers.folder='{teachers}'", *more], environment={})


def small_set(folder: Path) -> Path:
    """Volumes of 32^3: two to train on, one held out, two to segment."""
    return write_dataset(folder / "set", n_train=3, n_test=2, shape=(32, 32, 32), seed=3)


def write_teachers(folder: Path, count: int = 2) -> Path:
    """Frozen networks with random weights: what they say is no good, and every bit of it counts."""
    kwargs = {"channels": [2, 4], "strides": [2]}
    for seed in range(count):
        torch.manual_seed(seed)
        write_teacher(
            folder / f"teacher-{seed}",
            build_network("UNet", 2, kwargs).state_dict(),
            name=f"teacher-{seed}",
            input=InputSpec((16, 16, 16)),
            normalisation=Normalisation("zscore"),
            output=OutputSpec(2, 1, "logits"),
            architecture={"name": "UNet", "kwargs": kwargs},
            licence="CC0-1.0",
            source="random weights",
        )
    return folder


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the HTML out: no result depends on it."""
    monkeypatch.setattr(ending, "_report", lambda *_: (None, "left out"))
