"""Blocks of the student's network: two gates, and a level down and up; all with a deterministic backward pass."""

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import nn

__all__ = ["Attention", "DepthGate", "DownLevel", "SpatialGate", "UpLevel", "halved", "residual_block"]

SLOPE = 0.01
"""Of the leaky rectifiers' negative side."""


def residual_block(n_in: int, n_out: int, kernel: int | tuple[int, int, int] = 3) -> nn.Module:
    """Two convolutions with instance norm and a shortcut (MONAI's block of nnU-Net); (b, n_in, z, y, x) to n_out.

    Instance norm looks at one patch alone: a batch can be split over passes and processes.

    Examples
    --------
    >>> residual_block(1, 4, (1, 3, 3))(torch.zeros(1, 1, 4, 8, 8)).shape
    torch.Size([1, 4, 4, 8, 8])
    """
    activation = ("leakyrelu", {"inplace": True, "negative_slope": SLOPE})
    block: nn.Module = UnetResBlock(3, n_in, n_out, kernel, 1, ("INSTANCE", {"affine": True}), activation)
    return block


def halved(image: torch.Tensor) -> torch.Tensor:
    """Mean over cubes of 2 x 2 x 2 voxels; as reshape and mean, since ``avg_pool3d`` adds in any order on CUDA.

    Examples
    --------
    >>> halved(torch.arange(8.0).reshape(1, 1, 2, 2, 2)).item()
    3.5
    """
    b, c, z, y, x = image.shape
    return image.reshape(b, c, z // 2, 2, y // 2, 2, x // 2, 2).mean((3, 5, 7))


class SpatialGate(nn.Module):
    """Which voxels matter: a weight in (0, 2) each, from mean and maximum over channels (CBAM, arXiv 1807.06521).

    The last layer begins at zero and so the gate at one: it changes nothing until training wants it to.

    Examples
    --------
    >>> features = torch.rand(1, 4, 2, 2, 2)
    >>> gate = SpatialGate()
    >>> gate.begin_open()
    >>> torch.equal(gate(features), features)
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 3, padding=1)

    def begin_open(self) -> None:
        """Let everything through."""
        begin_at_zero(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * (2 * torch.sigmoid(self.conv(pooled)))


class DepthGate(nn.Module):
    """Which slices matter: a weight in (0, 2) for each channel and z, from the slices' means, seen along z.

    Squeeze and excitation (arXiv 1709.01507) with depth left in; the two layers are convolutions along z.

    Examples
    --------
    >>> features = torch.rand(1, 4, 2, 2, 2)
    >>> gate = DepthGate(4)
    >>> gate.begin_open()
    >>> torch.equal(gate(features), features)
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // 4, 1)
        self.squeeze = nn.Conv1d(channels, squeezed, 3, padding=1)
        self.act = nn.LeakyReLU(SLOPE)
        self.excite = nn.Conv1d(squeezed, channels, 3, padding=1)

    def begin_open(self) -> None:
        """Let everything through."""
        begin_at_zero(self.excite)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slices = x.mean((3, 4))
        weight = 2 * torch.sigmoid(self.excite(self.act(self.squeeze(slices))))
        return x * weight[:, :, :, None, None]


def begin_at_zero(layer: nn.Conv1d | nn.Conv3d) -> None:
    """Weights and bias zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Attention(nn.Module):
    """Depth, then space.

    Examples
    --------
    >>> Attention(4)(torch.rand(2, 4, 2, 3, 4)).shape
    torch.Size([2, 4, 2, 3, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depth = DepthGate(channels)
        self.space = SpatialGate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = self.space(self.depth(x))
        return gated


class DownLevel(nn.Module):
    """To half the resolution by a strided convolution; there the halved image joins (multi-scale encoder).

    Examples
    --------
    >>> DownLevel(2, 4)(torch.rand(1, 2, 8, 8, 8), torch.rand(1, 1, 4, 4, 4)).shape
    torch.Size([1, 4, 4, 4, 4])
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv3d(n_in, n_out, 3, stride=2, padding=1, bias=False),
            nn.InstanceNorm3d(n_out, affine=True),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.block = residual_block(n_out + 1, n_out)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        joined: torch.Tensor = self.block(torch.cat([x, image.to(x.dtype)], 1))
        return joined


class UpLevel(nn.Module):
    """To twice the resolution; there the encoder's features join through the gates.

    The transposed convolution's kernel is its stride, so that no two of its products meet in one voxel; trilinear
    upsampling has no deterministic backward pass on CUDA.

    Examples
    --------
    >>> UpLevel(4, 2)(torch.rand(1, 4, 4, 4, 4), torch.rand(1, 2, 8, 8, 8)).shape
    torch.Size([1, 2, 8, 8, 8])
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(n_in, n_out, 2, stride=2, bias=False)
        self.attention = Attention(n_out)
        self.block = residual_block(2 * n_out, n_out)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.block(torch.cat([self.up(x), self.attention(skip)], 1))
        return joined
