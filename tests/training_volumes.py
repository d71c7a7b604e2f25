"""Small volumes with a slanted sheet, their soft labels, and a recorder of events, for the tests of training."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.config import StudentConfig
from vesu.distill.training import train_student_distilled
from vesu.distill.values import SoftLabels, TrainingVolume

CONFIG = StudentConfig(
    preset="P2",
    channels=(2, 4),
    patch=(8, 8, 8),
    batch=2,
    accumulate=1,
    steps=2,
    validate_every=1,
    patience=3,
    learning_rate=1e-2,
    overlap=0.0,
    flips=False,
)


def config(**changes: Any) -> StudentConfig:
    return replace(CONFIG, **changes)


def sheet(
    volume_id: str,
    *,
    shape: tuple[int, int, int] = (10, 12, 12),
    seed: int = 0,
    labelled: bool = True,
    soft: bool = True,
) -> TrainingVolume:
    """A bright sheet in noise; a corner of the label is unlabelled; teachers that are right but unsure at its edge."""
    rng = np.random.default_rng(seed)
    z, y, _ = np.indices(shape)
    distance = z - shape[0] / 2 - 0.2 * (y - shape[1] / 2) + rng.uniform(-1, 1)
    surface = np.abs(distance) < 1.5
    image = (120 * surface + rng.normal(60, 12, shape)).clip(0, 255).astype(np.uint8)
    label = surface.astype(np.uint8)
    label[:, :2, :2] = 2
    answer = soft_labels(volume_id, distance) if soft else None
    return TrainingVolume(volume_id, image, label if labelled else None, answer)


def soft_labels(volume_id: str, distance: NDArray[np.float64]) -> SoftLabels:
    logit = (3 - 2 * np.abs(distance)).clip(-6, 6).astype(np.float16)
    unsure = np.exp(-(logit.astype(np.float32) ** 2)).astype(np.float16)
    return SoftLabels(volume_id, logit, (unsure / 8).astype(np.float16), unsure, ("a", "b"))


def train(settings: StudentConfig = CONFIG, seed: int = 3, **options: Any) -> Any:
    """One volume with everything, one without label, one held out."""
    volumes = [sheet("known"), sheet("pseudo", seed=1, labelled=False)]
    options = {"emit": Events(), "n_threads": 1, **options}
    volumes, held_out = options.pop("train", volumes), options.pop("validation", [sheet("held out", seed=2)])
    return train_student_distilled(volumes, held_out, settings, seed=seed, **options)


class Events(list[tuple[str, dict[str, Any]]]):
    """Names and fields in their order."""

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.append((name, dict(fields)))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self if event == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]

    def without_times(self) -> list[tuple[str, dict[str, Any]]]:
        return [(name, {key: v for key, v in fields.items() if key != "seconds"}) for name, fields in self]


class Stop(BaseException):
    """As a signal's exception: no error."""


def stopping_after(calls: int) -> Any:
    """A poll that raises at its call of that number."""
    left = [calls]

    def poll() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    return poll
