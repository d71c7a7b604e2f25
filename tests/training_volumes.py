"""Small volumes with a slanted sheet, their soft labels, and a recorder of events, for the tests of training."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vesu.config import StudentConfig
from vesu.distill.values import SoftLabels, TrainingVolume

CONFIG = StudentConfig(
    channels=(4, 8),
    patch=(8, 16, 16),
    batch=2,
    accumulate=2,
    steps=4,
    validate_every=2,
    patience=2,
    learning_rate=1e-2,
    overlap=0.25,
    flips=False,
)


def sheet(volume_id: str, *, shape=(20, 24, 24), seed: int = 0, labelled: bool = True, soft: bool = True):
    """A bright sheet in noise; a corner of the label is unlabelled; teachers that are right but unsure."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    distance = z - shape[0] / 2 - 0.2 * (y - shape[1] / 2) + rng.normal()
    surface = np.abs(distance) < 1.5
    image = (120 * surface + rng.normal(60, 12, shape)).clip(0, 255).astype(np.uint8)
    label = surface.astype(np.uint8)
    label[:, :4, :4] = 2
    return TrainingVolume(
        volume_id, image, label if labelled else None, soft_labels(volume_id, distance) if soft else None
    )


def soft_labels(volume_id: str, distance) -> SoftLabels:
    logit = (3 - 2 * np.abs(distance)).clip(-6, 6).astype(np.float16)
    unsure = np.exp(-(np.asarray(logit, np.float32) ** 2)).astype(np.float16)
    return SoftLabels(volume_id, logit, (unsure / 8).astype(np.float16), unsure, ("a", "b"))


def config(**changes: Any) -> StudentConfig:
    return replace(CONFIG, **changes)


class Events(list):
    """Names and fields in their order."""

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.append((name, dict(fields)))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self if event == name]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]
