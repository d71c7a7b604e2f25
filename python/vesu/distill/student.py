"""The student: its network from settings and a seed, what it answers, and which weights a stage trains (R19, R20).

Importing this module needs no torch; :func:`build_student` does.
"""

from typing import TYPE_CHECKING, NamedTuple

from vesu.config import StudentConfig
from vesu.distill.packages import need_package
from vesu.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from vesu.distill.network import StudentNetwork

__all__ = ["StudentOutput", "build_student", "stage_parameters"]

STAGES = {
    "distil": ("encoder", "decoder", "head"),
    "head": ("head",),
    "decoder": ("decoder", "head"),
    "encoder": ("encoder", "decoder", "head"),
}
"""Which parts of the network each stage trains."""


class StudentOutput(NamedTuple):
    """The network's answer to a batch of patches, float32 (b, 1, z, y, x) each.

    Examples
    --------
    >>> import torch
    >>> output = StudentOutput(torch.zeros(1), torch.tensor([0.04]).log())
    >>> output.probability.item(), round(output.uncertainty.item(), 6)
    (0.5, 0.2)
    """

    logit: "torch.Tensor"
    """Logit of surface against background."""
    log_variance: "torch.Tensor"
    """Logarithm of the expected squared error of ``probability``; at most 0."""

    @property
    def probability(self) -> "torch.Tensor":
        """Probability of surface, in [0, 1]."""
        return self.logit.sigmoid()

    @property
    def uncertainty(self) -> "torch.Tensor":
        """Expected root mean square error of ``probability``, in [0, 1]: ``exp(log_variance / 2)``."""
        return (self.log_variance / 2).exp().clamp(0, 1)


def build_student(config: StudentConfig, *, seed: int) -> "StudentNetwork":
    """The untrained student, on the CPU in float32.

    Parameters
    ----------
    config : StudentConfig
        ``channels`` (of each level), ``stem``; the rest says how it is trained.
    seed : int
        Of the initial weights, 0 to 2**63 - 1; the same seed gives the same bits, and torch's own generators stay
        where they are.

    Returns
    -------
    torch.nn.Module
        ``forward(x)`` takes float32 (b, 1, z, y, x), whose z, y and x are multiples of ``2 ** (levels - 1)``, and
        returns a :class:`StudentOutput` of the same shape. ``.encoder``, ``.decoder`` and ``.head`` are its parts.

    Raises
    ------
    ArgumentError
        A seed out of range; in ``forward``, another shape.
    MissingPackageError
        torch or MONAI cannot be imported.

    Notes
    -----
    R19. A residual U-Net (arXiv 1505.04597 with nnU-Net's residual blocks, arXiv 1904.08128): a stem within slices
    ("2.5d") or of cubes ("3d"), strided convolutions down with the halved image joining at every level, transposed
    convolutions up, gates of depth and space on the skips and at the bottom. Patches of a batch do not see each
    other. Safe under ``torch.autocast``, ``channels_last_3d`` and ``torch.compile``; every layer has a deterministic
    backward pass on CPU and CUDA.

    Examples
    --------
    >>> import torch
    >>> from vesu.config import StudentConfig
    >>> model = build_student(StudentConfig(channels=(4, 8), patch=(8, 8, 8)), seed=0)
    >>> output = model(torch.zeros(2, 1, 8, 8, 8))
    >>> output.logit.shape, output.log_variance.shape
    (torch.Size([2, 1, 8, 8, 8]), torch.Size([2, 1, 8, 8, 8]))
    """
    if not 0 <= seed < 1 << 63:
        raise ArgumentError(f"seed: got {seed}; accepted: 0 to 2**63 - 1")
    module = need_package("vesu.distill.network", "distill")  # with torch and MONAI, which it imports
    import torch

    with torch.random.fork_rng(devices=[]):  # layers draw once when they are made; that is overwritten
        network: StudentNetwork = module.StudentNetwork(config)
    network.initialise(torch.Generator().manual_seed(seed))
    return network


def stage_parameters(model: "torch.nn.Module", stage: str) -> "list[torch.nn.Parameter]":
    """The parameters that a stage trains; all others are frozen in it.

    Parameters
    ----------
    model : torch.nn.Module
        From :func:`build_student`; compiled or averaged ones of the same parts too.
    stage : str
        "distil" and "encoder" train everything, "head" the head, "decoder" decoder and head.

    Returns
    -------
    list of torch.nn.Parameter
        In the network's own order.

    Raises
    ------
    ArgumentError
        Another stage.

    Notes
    -----
    R20: fine-tuning unfreezes head, then decoder, then encoder.

    Examples
    --------
    >>> from vesu.config import StudentConfig
    >>> model = build_student(StudentConfig(channels=(4, 8), patch=(8, 8, 8)), seed=0)
    >>> [len(stage_parameters(model, stage)) for stage in ("head", "decoder", "encoder")]
    [6, 22, 55]
    """
    if stage not in STAGES:
        raise ArgumentError(f"stage: got {stage!r}; accepted: {', '.join(map(repr, STAGES))}")
    return [parameter for part in STAGES[stage] for parameter in getattr(model, part).parameters()]
