"""The student's network: encoder, decoder and head, and how its weights begin."""

import math

import torch
from torch import nn
from torch.nn import functional

from vesu.config import StudentConfig
from vesu.distill.blocks import SLOPE, Attention, DepthGate, DownLevel, SpatialGate, UpLevel, halved, residual_block
from vesu.distill.student import StudentOutput
from vesu.errors import ArgumentError

__all__ = ["StudentNetwork"]

PRIOR = 0.1
"""Probability of surface, and variance, that the head begins with: few voxels are surface."""


class Encoder(nn.Module):
    """From the image to features at every resolution, finest first."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        first = config.channels[0]
        kernel = (1, 3, 3) if config.stem == "2.5d" else 3
        self.stem = nn.Sequential(residual_block(1, first, kernel), residual_block(first, first))
        pairs = zip(config.channels, config.channels[1:], strict=False)
        self.levels = nn.ModuleList(DownLevel(fine, coarse) for fine, coarse in pairs)
        self.attention = Attention(config.channels[-1])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = [self.stem(image)]
        for level in self.levels:
            image = halved(image)
            features.append(level(features[-1], image))
        features[-1] = self.attention(features[-1])
        return features


class Decoder(nn.Module):
    """From the coarsest features back to the image's resolution."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        pairs = zip(config.channels[:0:-1], config.channels[-2::-1], strict=True)
        self.levels = nn.ModuleList(UpLevel(coarse, fine) for coarse, fine in pairs)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = features[-1]
        for level, skip in zip(self.levels, features[-2::-1], strict=True):
            x = level(x, skip)
        return x


class Head(nn.Module):
    """Logit of surface, and logarithm of the variance of its error.

    The variance is read off features that it does not change: it can learn where the answer is wrong, never make
    the answer worse.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logit = nn.Conv3d(channels, 1, 1)
        self.hidden = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.LeakyReLU(SLOPE))
        self.variance = nn.Conv3d(channels, 1, 1)

    def begin_at_prior(self, generator: torch.Generator) -> None:
        """The same answer nearly everywhere: surface with probability ``PRIOR``, and that much variance."""
        for last in (self.logit, self.variance):
            nn.init.normal_(last.weight, std=0.01, generator=generator)
            nn.init.constant_(last.bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]  # it has one

    def forward(self, features: torch.Tensor) -> StudentOutput:
        logit, variance = self.logit(features), self.variance(self.hidden(features.detach()))
        whole = torch.promote_types(logit.dtype, torch.float32)  # half precision ends here
        return StudentOutput(logit.to(whole), functional.logsigmoid(variance.to(whole)))


class StudentNetwork(nn.Module):
    """Residual 3-D U-Net with gates and two outputs; built by :func:`vesu.distill.student.build_student`.

    Examples
    --------
    >>> network = StudentNetwork(StudentConfig(channels=(4, 8), patch=(8, 8, 8)))
    >>> network(torch.zeros(1, 1, 8, 8, 8)).logit.shape
    torch.Size([1, 1, 8, 8, 8])
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = Head(config.channels[0])
        self.coarsest = 2 ** (len(config.channels) - 1)

    def forward(self, x: torch.Tensor) -> StudentOutput:
        _check_patch(x.shape, self.coarsest)
        output: StudentOutput = self.head(self.decoder(self.encoder(x)))
        return output

    def initialise(self, generator: torch.Generator) -> None:
        """He's initialisation from ``generator`` alone; gates open, the head at its prior."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, SLOPE, nonlinearity="leaky_relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DepthGate | SpatialGate):
                module.begin_open()
        self.head.begin_at_prior(generator)


def _check_patch(shape: torch.Size, coarsest: int) -> None:
    accepted = f"(b, 1, z, y, x) with multiples of {coarsest} for z, y and x, one of them above {coarsest}"
    good = len(shape) == 5 and shape[1] == 1 and all(n > 0 and n % coarsest == 0 for n in shape[2:])
    if not good or max(shape[2:]) == coarsest:  # instance norm of a single voxel is nothing
        raise ArgumentError(f"x: got shape {tuple(shape)}; accepted: {accepted}")
