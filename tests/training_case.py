"""A small training that draws from every kind of generator there is; run as a program it goes on from saved parts.

``python training_case.py FOLDER...`` restores the parts in each folder, trains on to the end and prints the outcome.
"""

# ruff: noqa: NPY002 (numpy's global generator is one of those that must go on)
import hashlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vesu.distill.training_state import capture, restore

N_STEPS = 8
BATCHES_PER_EPOCH = 3


@pytest.fixture(autouse=True, scope="module", name="one_thread")
def one_thread_fixture():
    """torch's threads spin while they wait: on a busy machine two are ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bits(module: nn.Module) -> dict[str, bytes]:
    """Of each of its tensors."""
    state = module.state_dict().items()
    return {name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state}


class SmallUNet(nn.Module):
    """Two levels in three dimensions, a skip, dropout, and an output layer tied to the first one's bias."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv3d(width, 2 * width, 2, stride=2), nn.BatchNorm3d(2 * width), nn.ReLU())
        self.dropout = nn.Dropout3d(0.3)
        self.up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
        self.leave = nn.Conv3d(2 * width, 1, 1)
        self.up.bias = self.enter[0].bias  # tied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.enter(x)
        return self.leave(torch.cat([skip, self.up(self.dropout(self.down(skip)))], 1))


class Training:
    """Model, averaged model, AdamW with two groups, one-cycle schedule, loss scale, data order and augmentation."""

    def __init__(self, seed: int, width: int = 4) -> None:
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        self.cursor = {"epoch": 0, "index": 0, "seed": seed}
        self.generators = {
            "patches": np.random.default_rng(seed),
            "noise": torch.Generator().manual_seed(seed),
            "contrast": random.Random(seed),
            "shift": np.random.RandomState(seed),
        }
        self.model = SmallUNet(width)
        self.model.down[1].weight.requires_grad_(seed >= 1000)
        self.model.down[1].eval()
        kernels = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.01, amsgrad=True)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.05, total_steps=N_STEPS + 1)
        # A growth that is no power of two changes the gradients' last bits.
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1000.0, growth_factor=1.7, growth_interval=2)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def parts(self) -> dict[str, bytes]:
        return capture(
            *(self.model, self.optimizer, self.scheduler, self.scaler),
            cursor=self.cursor,
            ema=self.ema,
            generators=self.generators,
        )

    def restore(self, parts, **options) -> "Training":
        self.cursor = restore(
            *(parts, self.model, self.optimizer, self.scheduler, self.scaler),
            ema=self.ema,
            generators=self.generators,
            **options,
        )
        return self

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two patches in the epoch's order, flipped, shifted, with noise and another contrast."""
        order = np.random.default_rng((self.cursor["seed"], self.cursor["epoch"])).permutation(BATCHES_PER_EPOCH)
        z, y, x = np.indices((8, 8, 8), np.float32)
        place = float(order[self.cursor["index"]] + self.generators["patches"].random())
        volume = np.sin(place + 0.7 * z + 0.2 * y) * (1 + self.generators["contrast"].random()) + 0.01 * x
        volume += np.random.normal(0, 0.05, volume.shape)
        volume = np.roll(volume, self.generators["shift"].randint(8), random.randrange(3)) + 0.01 * random.random()
        patches = torch.from_numpy(np.stack([volume, volume[::-1]])[:, None].astype(np.float32))
        noise = 0.05 * torch.randn(patches.shape, generator=self.generators["noise"])
        return patches + noise, (patches > 0.5).float()

    def step(self) -> None:
        x, y = self.batch()
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(x), y)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.ema.update_parameters(self.model)
        done = self.cursor["epoch"] * BATCHES_PER_EPOCH + self.cursor["index"] + 1
        self.cursor |= {"epoch": done // BATCHES_PER_EPOCH, "index": done % BATCHES_PER_EPOCH}

    @property
    def steps_done(self) -> int:
        return self.cursor["epoch"] * BATCHES_PER_EPOCH + self.cursor["index"]

    def finish(self) -> "Training":
        while self.steps_done < N_STEPS:
            self.step()
        return self

    def weights(self) -> str:
        """Of the model and of the averaged one."""
        return hashlib.sha512(b"".join((*bits(self.model).values(), *bits(self.ema).values()))).hexdigest()


def outcome(training: Training) -> str:
    """Of all that a training leaves behind: weights, moments, schedule, generators."""
    digest = hashlib.sha512(training.weights().encode())
    for part in training.parts().values():
        digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder in sys.argv[1:]:
        saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        print(outcome(Training(seed=999).restore(saved).finish()))
