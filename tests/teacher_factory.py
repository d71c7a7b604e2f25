"""Nine small, truly different teachers, trained in seconds on phantoms; nothing of them is kept in the project.

They differ in architecture, width, seed, normalisation, in the volumes that they saw and in how these were spoilt, so
that they err differently: an ensemble of copies would teach nothing that one of them does not know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from vesu.data.phantom import DressParams, dress, generate_scroll
from vesu.distill.architectures import build_network
from vesu.distill.normalisation import Normalisation, normalise_volume, normalise_windows
from vesu.distill.teacher import InputSpec, OutputSpec, TeacherSpec, write_teacher
from vesu.distill.teacher_spec import SPEC_FILE
from vesu.distill.values import TrainingVolume

CLEAR = DressParams(recto_contrast=70.0)
"""Labelled laminae twice as bright as the default's: something that a network finds within a hundred steps."""

ZSCORE, OF_PATCH, SCALE = Normalisation("zscore"), Normalisation("zscore", "patch"), Normalisation("scale", divisor=255)


@dataclass(frozen=True)
class TeacherRecipe:
    """How one teacher is built and trained; the same recipe and volumes give the same weights."""

    name: str
    architecture: str
    """A name of :data:`vesu.distill.architectures.ARCHITECTURES`."""
    kwargs: Mapping[str, Any]
    seed: int
    volumes: tuple[int, ...]
    """Which of the given volumes it saw, counted round."""
    normalisation: Normalisation = ZSCORE
    n_classes: int = 2
    """Three: background, surface, and the unlabelled class, which no one trained."""
    blur: float = 0.0
    """Deviation of the Gaussian that its CT was spoilt with, in voxels."""
    noise: float = 0.0
    """Deviation of the noise that its CT was spoilt with, in standard deviations of the volume."""
    steps: int = 60
    side: int = 24
    """Of a training patch, in voxels."""
    batch: int = 2
    learning_rate: float = 1e-2


def phantom_volumes(
    count: int, *, side: int = 64, seed: int = 0, params: DressParams = CLEAR
) -> tuple[TrainingVolume, ...]:
    """Generated scrolls with their labels, each of its own seed."""
    volumes = []
    for index in range(seed, seed + count):
        label = generate_scroll((side, side, side), seed=index)
        volumes.append(TrainingVolume(f"phantom{index}", dress(label, index, params=params), label))
    return tuple(volumes)


def recipes(*, steps: float = 1.0, width: int = 4, side: int = 24) -> tuple[TeacherRecipe, ...]:
    """The nine; ``steps`` multiplies each one's steps, ``width`` is the number of channels at full resolution."""
    w = width
    segres = {"init_filters": w, "norm": "INSTANCE", "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
    nine = (
        TeacherRecipe("unet-a", "UNet", _unet(2 * w, 2), 1, (0, 1), steps=120),
        TeacherRecipe("unet-b", "UNet", _unet(w, 1), 2, (2,), SCALE, 3, blur=0.6),
        TeacherRecipe("unet-c", "UNet", _unet(3 * w, 2) | {"num_res_units": 1}, 3, (3,), OF_PATCH),
        TeacherRecipe("segresnet-a", "SegResNet", segres, 4, (0, 2), n_classes=3),
        TeacherRecipe("segresnet-b", "SegResNet", segres, 5, (1,), SCALE, noise=0.3),
        TeacherRecipe("dynunet-a", "DynUNet", _dynunet(w), 6, (0, 3)),
        TeacherRecipe("dynunet-b", "DynUNet", _dynunet(w), 7, (1, 2), OF_PATCH, 3, blur=0.8),
        TeacherRecipe("resenc-a", "ResidualEncoderUNet", _resenc(w), 8, (2, 3), noise=0.2),
        TeacherRecipe("resenc-b", "ResidualEncoderUNet", _resenc(w), 9, (0,), SCALE, n_classes=3),
    )
    return tuple(replace(recipe, steps=max(1, round(recipe.steps * steps)), side=side) for recipe in nine)


def _unet(width: int, first_stride: int) -> dict[str, Any]:
    return {"channels": [width, 2 * width, 4 * width], "strides": [first_stride, 2]}


def _dynunet(width: int) -> dict[str, Any]:
    filters = [width, 2 * width, 4 * width]
    return {"filters": filters, "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}


def _resenc(width: int) -> dict[str, Any]:
    features = [width, 2 * width, 4 * width]
    blocks = {"n_blocks_per_stage": 1, "n_conv_per_stage_decoder": 1}
    return {"n_stages": 3, "features_per_stage": features, "kernel_sizes": 3, "strides": [1, 2, 2], **blocks}


def make_teachers(
    folder: Path,
    volumes: Sequence[TrainingVolume],
    *,
    recipes: Sequence[TeacherRecipe],
    patch: tuple[int, int, int] = (64, 64, 64),
) -> tuple[TeacherSpec, ...]:
    """Train every recipe and write a folder for each; one that is there is left as it is.

    Parameters
    ----------
    folder : path
        ``folder/NAME/teacher.json`` and ``model.safetensors`` of each.
    volumes : sequence of TrainingVolume
        With labels.
    recipes : sequence of TeacherRecipe
    patch : (int, int, int)
        The window (z, y, x) that the teachers ask to be shown.
    """
    for recipe in recipes:
        if not (folder / recipe.name / SPEC_FILE).exists():
            write_teacher(
                folder / recipe.name,
                train_network(recipe, volumes).state_dict(),
                name=recipe.name,
                input=InputSpec(patch),
                normalisation=recipe.normalisation,
                output=OutputSpec(recipe.n_classes, ignored_class=2 if recipe.n_classes == 3 else None),
                architecture={"name": recipe.architecture, "kwargs": dict(recipe.kwargs)},
                licence="CC0-1.0",
                source=f"trained on generated volumes, seed {recipe.seed}",
            )
    return tuple(TeacherSpec.load(folder / recipe.name) for recipe in recipes)


def train_network(recipe: TeacherRecipe, volumes: Sequence[TrainingVolume]) -> nn.Module:
    """Train the recipe's network on its volumes' true labels (label 2 ignored)."""
    with torch.random.fork_rng(devices=[]):  # fresh weights of its seed; the global generator stays as it was
        torch.manual_seed(recipe.seed)
        network = build_network(recipe.architecture, recipe.n_classes, recipe.kwargs).train()
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.steps + 1)
    for image, label in _batches(recipe, volumes):
        output = network(image)
        loss = _loss(output[:, 1:2] - output[:, 0:1], label)  # a third class counts for nothing
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def _batches(recipe: TeacherRecipe, volumes: Sequence[TrainingVolume]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Image, normalised, and label (b, 1, z, y, x) of each step."""
    rng = np.random.default_rng(recipe.seed)
    seen = []
    for index in recipe.volumes:
        volume = volumes[index % len(volumes)]
        assert volume.label is not None
        image = normalise_volume(_spoilt(volume.image, recipe, rng), recipe.normalisation)
        seen.append((image, volume.label, np.argwhere(volume.label == 1)))
    for _ in range(recipe.steps):
        pairs = [_patch(*seen[rng.integers(len(seen))], recipe.side, rng) for _ in range(recipe.batch)]
        images, labels = (torch.from_numpy(np.stack(arrays)[:, None]) for arrays in zip(*pairs, strict=True))
        yield normalise_windows(images, recipe.normalisation), labels


def _spoilt(image: NDArray[Any], recipe: TeacherRecipe, rng: np.random.Generator) -> NDArray[np.float32]:
    values = gaussian_filter(image.astype(np.float32), recipe.blur)
    noise = rng.standard_normal(values.shape, np.float32)
    return np.asarray(values + np.float32(recipe.noise * values.std()) * noise, np.float32)


def _patch(
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    surface: NDArray[np.intp],
    side: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Half the patches around a surface voxel, half anywhere; in one of the eight mirror images."""
    around = len(surface) > 0 and rng.random() < 0.5
    centre = surface[rng.integers(len(surface))] if around else rng.integers(0, image.shape)
    corner = np.clip(centre - side // 2, 0, np.array(image.shape) - side)
    place = tuple(slice(start, start + side) for start in corner.tolist())
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    return np.flip(image[place], axes).copy(), np.flip(label[place], axes).copy()


def _loss(logit: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice of the labelled voxels."""
    known, truth = (label != 2).float(), (label == 1).float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    probability = torch.sigmoid(logit) * known
    dice = (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return (entropy * known).sum() / known.sum().clamp(min=1) + 1 - dice
