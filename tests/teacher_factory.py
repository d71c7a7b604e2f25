"""Nine small, truly different teachers, trained in seconds on phantoms; nothing of them is kept in the project.

They differ in architecture, width, seed, normalisation, in the volumes that they saw and in how these were spoilt, so
that they err differently: an ensemble of copies would teach nothing that one of them does not know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vesu.data.phantom import DressParams, dress, generate_scroll
from vesu.distill.architectures import ARCHITECTURES
from vesu.distill.values import TrainingVolume

CLEAR = DressParams(recto_contrast=70.0)
"""Labelled laminae twice as bright as the default's: something that a network finds within a hundred steps."""

SIDE = 24
"""Side of a training patch."""


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
    normalisation: Mapping[str, Any] = field(default_factory=lambda: {"kind": "zscore", "scope": "volume"})
    n_classes: int = 2
    """Three: background, surface, and the unlabelled class, which no one trained."""
    blur: float = 0.0
    """Deviation of the Gaussian that its CT was spoilt with, in voxels."""
    noise: float = 0.0
    """Deviation of the noise that its CT was spoilt with, in standard deviations of the volume."""
    steps: int = 60
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


def recipes(*, steps: float = 1.0, width: int = 4) -> tuple[TeacherRecipe, ...]:
    """The nine; ``steps`` multiplies each one's steps, ``width`` is the number of channels at full resolution."""
    w = width
    unet = {"spatial_dims": 3, "in_channels": 1}
    segres = {"spatial_dims": 3, "in_channels": 1, "norm": "INSTANCE", "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
    scale = {"kind": "scale", "scope": "volume"}
    patch = {"kind": "zscore", "scope": "patch"}
    nine = (
        TeacherRecipe("unet-a", "UNet", unet | _levels(2 * w, (2, 2)), 1, (0, 1), steps=120),
        TeacherRecipe("unet-b", "UNet", unet | _levels(w, (1, 2)), 2, (2,), scale, 3, blur=0.6),
        TeacherRecipe("unet-c", "UNet", unet | _levels(3 * w, (2, 2)) | {"num_res_units": 1}, 3, (3,), patch),
        TeacherRecipe("segresnet-a", "SegResNet", segres | {"init_filters": w}, 4, (0, 2), n_classes=3),
        TeacherRecipe("segresnet-b", "SegResNet", segres | {"init_filters": w}, 5, (1,), scale, noise=0.3),
        TeacherRecipe("dynunet-a", "DynUNet", _dynunet(w), 6, (0, 3)),
        TeacherRecipe("dynunet-b", "DynUNet", _dynunet(w), 7, (1, 2), patch, 3, blur=0.8),
        TeacherRecipe("resenc-a", "ResidualEncoderUNet", _resenc(w), 8, (2, 3), noise=0.2),
        TeacherRecipe("resenc-b", "ResidualEncoderUNet", _resenc(w), 9, (0,), scale, n_classes=3),
    )
    return tuple(replace(recipe, steps=max(1, round(recipe.steps * steps))) for recipe in nine)


def _levels(width: int, strides: tuple[int, int]) -> dict[str, Any]:
    return {"channels": [width, 2 * width, 4 * width], "strides": list(strides)}


def _dynunet(width: int) -> dict[str, Any]:
    filters = [width, 2 * width, 4 * width]
    shape = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    return {"spatial_dims": 3, "in_channels": 1, "filters": filters, **shape}


def _resenc(width: int) -> dict[str, Any]:
    return {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": [width, 2 * width, 4 * width],
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "n_blocks_per_stage": 1,
        "n_conv_per_stage_decoder": 1,
    }


def build_network(recipe: TeacherRecipe) -> nn.Module:
    """The recipe's network with fresh weights of its seed; the global generator is left as it was."""
    outputs = "num_classes" if recipe.architecture == "ResidualEncoderUNet" else "out_channels"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = ARCHITECTURES[recipe.architecture](**recipe.kwargs, **{outputs: recipe.n_classes})
    assert isinstance(network, nn.Module)
    return network


def train_network(recipe: TeacherRecipe, volumes: Sequence[TrainingVolume]) -> nn.Module:
    """Train the recipe's network on its volumes' true labels (label 2 ignored)."""
    network = build_network(recipe).train()
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.steps + 1)
    for image, label in _batches(recipe, volumes):
        loss = _loss(surface_logit(network(image)), label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def surface_logit(output: torch.Tensor) -> torch.Tensor:
    """Surface against background, (b, 1, z, y, x); a third class was trained by no one and counts for nothing."""
    return output[:, 1:2] - output[:, 0:1]


def normalised(volume: NDArray[Any], normalisation: Mapping[str, Any]) -> NDArray[np.float32]:
    """What a network of this normalisation is given of a volume or, where its scope is that, of a patch."""
    values = volume.astype(np.float32)
    if normalisation["kind"] == "zscore":
        return (values - values.mean()) / max(float(values.std()), 1e-6)
    return values / np.float32(255)


def _batches(recipe: TeacherRecipe, volumes: Sequence[TrainingVolume]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Image and label (b, 1, z, y, x) of each step: half the patches around a surface voxel, half anywhere."""
    rng = np.random.default_rng(recipe.seed)
    whole = recipe.normalisation["scope"] == "volume"
    seen = []
    for index in recipe.volumes:
        volume = volumes[index % len(volumes)]
        image = _spoilt(volume.image, recipe, rng)
        label = volume.label
        assert label is not None
        seen.append((normalised(image, recipe.normalisation) if whole else image, label, np.argwhere(label == 1)))
    for _ in range(recipe.steps):
        pairs = [_patch(*seen[rng.integers(len(seen))], rng) for _ in range(recipe.batch)]
        images = [image if whole else normalised(image, recipe.normalisation) for image, _ in pairs]
        labels = np.stack([label for _, label in pairs])[:, None]
        yield torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(labels)


def _spoilt(image: NDArray[Any], recipe: TeacherRecipe, rng: np.random.Generator) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(image.astype(np.float32), recipe.blur)
    noise = rng.standard_normal(values.shape, np.float32)
    return np.asarray(values + np.float32(recipe.noise * values.std()) * noise, np.float32)


def _patch(
    image: NDArray[np.float32], label: NDArray[np.uint8], surface: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    around = len(surface) > 0 and rng.random() < 0.5
    centre = surface[rng.integers(len(surface))] if around else rng.integers(0, image.shape)
    corner = np.clip(centre - SIDE // 2, 0, np.array(image.shape) - SIDE)
    place = tuple(slice(start, start + SIDE) for start in corner.tolist())
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    return np.flip(image[place], axes).copy(), np.flip(label[place], axes).copy()


def _loss(logit: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice of the labelled voxels."""
    known, truth = (label != 2).float(), (label == 1).float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    probability = torch.sigmoid(logit) * known
    dice = (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return (entropy * known).sum() / known.sum().clamp(min=1) + 1 - dice
