"""The student's loss: true labels, teachers, its own error, skeletons, neighbouring slices (R19).

Every term is a function that gives one value a patch, and the loss is their mean over the batch: it does not matter
how a batch is split over passes or processes.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional

from vesu.config import StudentConfig
from vesu.distill.soft_skeleton import soft_skeleton
from vesu.distill.student import StudentOutput
from vesu.errors import ArgumentError

__all__ = [
    "DistillationLoss",
    "LossTerms",
    "Target",
    "dice",
    "error_variance",
    "skeleton_recall",
    "slice_continuity",
    "soft_cl_dice",
    "soft_label_divergence",
    "surface_cross_entropy",
]

UNLABELLED = 2
SKELETON_STEPS = 3
"""Erosions of the soft skeleton: enough for sheets of up to 7 voxels."""

_DICE = DiceLoss(reduction="none", smooth_nr=1.0, smooth_dr=1.0)


@dataclass(frozen=True, eq=False)
class Target:
    """What is known of a batch of patches; tensors (b, 1, z, y, x) on the network's device, None where nothing is."""

    label: torch.Tensor | None = None
    """uint8: 0 background, 1 surface, 2 unlabelled; no term sees a voxel with 2."""
    soft_logit: torch.Tensor | None = None
    """Mean logit of the teachers."""
    confidence: torch.Tensor | None = None
    """Weight of ``soft_logit``, 0 to 1; 0 where a patch has none. None is 1 everywhere."""
    has_label: torch.Tensor | None = None
    """bool (b,): whether the patch's ``label`` means anything. None is all, if there is a ``label``."""
    skeleton: torch.Tensor | None = None
    """0/1: :func:`vesu.distill.skeletons.tubed_skeleton` of the label; None leaves the recall term out."""


@dataclass(frozen=True, eq=False)
class LossTerms:
    """The loss of a batch and what it is made of."""

    total: torch.Tensor
    """Scalar, to be differentiated."""
    terms: dict[str, torch.Tensor]
    """Scalars without gradient, before their weights: dice, bce, soft, uncertainty, skeleton, continuity."""


class DistillationLoss:
    """The student's loss, from its settings.

    Parameters
    ----------
    config : StudentConfig
        ``temperature``, ``soft_weight``, ``skeleton_weight``, ``continuity_weight``.
    skeleton : {"recall", "cldice"}
        Which term has ``skeleton_weight``: recall of the label's skeleton, made once and cheap, or soft clDice,
        which makes skeletons of the label and of the answer in every step.

    Raises
    ------
    ArgumentError
        Another ``skeleton``; when called, tensors whose shapes differ.

    Notes
    -----
    R19. ``total = dice + bce + soft_weight soft + uncertainty + skeleton_weight skeleton
    + continuity_weight continuity``, each the mean over patches of its function in this module. A patch without
    anything to learn from adds zero. Voxels labelled 2 have no influence on any term; where ``has_label`` is false
    the label has none. The uncertainty term reaches the head of the variance only. Computed in float32 or wider,
    under autocast too; no step of it waits for the GPU.

    Examples
    --------
    >>> output = StudentOutput(torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), -1.0))
    >>> loss = DistillationLoss(StudentConfig())(output, Target(label=torch.ones(1, 1, 2, 2, 2, dtype=torch.uint8)))
    >>> {name: round(float(value), 3) for name, value in loss.terms.items()}
    {'dice': 0.308, 'bce': 0.693, 'soft': 0.0, 'uncertainty': 0.618, 'skeleton': 0.0, 'continuity': 0.0}
    """

    def __init__(self, config: StudentConfig, *, skeleton: Literal["recall", "cldice"] = "recall") -> None:
        if skeleton not in get_args(Literal["recall", "cldice"]):
            raise ArgumentError(f"skeleton: got {skeleton!r}; accepted: 'recall' or 'cldice'")
        self.config = config
        self.skeleton = skeleton

    def __call__(self, output: StudentOutput, target: Target) -> LossTerms:
        _check_shapes(output, target)
        terms = {name: values.mean() for name, values in self._per_patch(_whole(output), target).items()}
        weights = {
            "soft": self.config.soft_weight,
            "skeleton": self.config.skeleton_weight,
            "continuity": self.config.continuity_weight,
        }
        total = torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()
        return LossTerms(total, {name: value.detach() for name, value in terms.items()})

    def _per_patch(self, output: StudentOutput, target: Target) -> dict[str, torch.Tensor]:
        known = _Known(target, output.logit)
        probability = output.probability
        return {
            "dice": dice(probability, known.truth, known.labelled),
            "bce": surface_cross_entropy(output.logit, known.truth, known.labelled),
            "soft": soft_label_divergence(output.logit, known.soft_logit, known.trust, self.config.temperature),
            "uncertainty": error_variance(output, known.expected, known.weight),
            "skeleton": self._skeleton_term(probability, target, known),
            "continuity": slice_continuity(probability, known.expected, known.weight),
        }

    def _skeleton_term(self, probability: torch.Tensor, target: Target, known: "_Known") -> torch.Tensor:
        if self.config.skeleton_weight == 0:
            return torch.zeros_like(probability[:, 0, 0, 0, 0])
        if self.skeleton == "cldice":
            return soft_cl_dice(probability, known.truth, known.labelled)
        if target.skeleton is None:
            return torch.zeros_like(probability[:, 0, 0, 0, 0])
        return skeleton_recall(probability, target.skeleton * known.labelled)


class _Known:
    """A target without gaps: tensors of the logit's shape and dtype, with weight 0 where nothing is known."""

    def __init__(self, target: Target, logit: torch.Tensor) -> None:
        nothing = torch.zeros_like(logit, requires_grad=False)
        everywhere = torch.ones_like(nothing)
        if target.label is None:
            self.truth, self.labelled, seen = nothing, nothing, everywhere
        else:
            has_label = everywhere
            if target.has_label is not None:
                has_label = target.has_label.to(logit.dtype).reshape(-1, 1, 1, 1, 1)
            ignored = (target.label == UNLABELLED).to(logit.dtype)
            self.labelled = has_label * (1 - ignored)
            self.truth = (target.label == 1).to(logit.dtype) * self.labelled
            seen = 1 - has_label * ignored
        self.soft_logit, self.trust = nothing, nothing
        if target.soft_logit is not None:
            self.soft_logit = target.soft_logit.to(logit.dtype)
            self.trust = seen if target.confidence is None else seen * target.confidence.to(logit.dtype)
        pseudo = (1 - self.labelled) * self.trust
        self.weight = self.labelled + pseudo
        self.expected = torch.where(self.labelled > 0, self.truth, self.soft_logit.sigmoid())
        """The truth where it is known, else the teachers' probability, which counts ``weight``."""


def dice(probability: torch.Tensor, truth: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """``1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1)`` over labelled voxels; (b,).

    Zero for a patch without surface: its Dice is about 1 whatever the answer, and the cross-entropy is there.

    Examples
    --------
    >>> truth = torch.ones(1, 1, 1, 1, 3)
    >>> dice(truth, truth, truth).item(), dice(1 - truth, truth, truth).item()
    (0.0, 0.75)
    """
    values: torch.Tensor = _DICE(probability * labelled, truth * labelled).flatten(1).sum(1)
    return torch.where(_sum(truth * labelled) > 0, values, torch.zeros_like(values))


def surface_cross_entropy(logit: torch.Tensor, truth: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Mean over labelled voxels of ``-y log p - (1 - y) log(1 - p)``; (b,), zero without any.

    Examples
    --------
    >>> ones = torch.ones(1, 1, 1, 1, 3)
    >>> round(surface_cross_entropy(0 * ones, ones, ones).item(), 4)
    0.6931
    """
    return _mean(functional.binary_cross_entropy_with_logits(logit, truth, reduction="none"), labelled)


def soft_label_divergence(
    logit: torch.Tensor, soft_logit: torch.Tensor, trust: torch.Tensor, temperature: float
) -> torch.Tensor:
    """``T^2`` times the mean over all voxels of ``trust KL(q || p)``; (b,).

    ``q`` and ``p`` are the Bernoulli distributions of ``soft_logit / T`` and ``logit / T``; ``T^2`` keeps the size of
    the gradient as T grows (Hinton, Vinyals, Dean: arXiv 1503.02531). The mean is over all voxels, so that a patch
    that the teachers do not agree on weighs less.

    Examples
    --------
    >>> zeros = torch.zeros(1, 1, 1, 1, 3)
    >>> soft_label_divergence(zeros + 1, zeros + 1, zeros + 1, 2.0).item()
    0.0
    """
    teachers = soft_logit / temperature
    soft = teachers.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(teachers, soft, reduction="none")
    cross = functional.binary_cross_entropy_with_logits(logit / temperature, soft, reduction="none")
    return temperature**2 * (trust * (cross - entropy)).flatten(1).mean(1)


def error_variance(output: StudentOutput, expected: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of ``exp(s) - s r`` with s the log-variance, r the squared error of the probability; (b,).

    ``r = (p - y)^2`` where ``expected`` is a label y. Where it is a probability q, r is what it would be on average
    over labels drawn from q: ``(p - q)^2 + q (1 - q)``. The minimum over s is ``exp(s) = E[r]``: s learns the logarithm
    of the expected squared error. This is the heteroscedastic Gaussian likelihood ``r / exp(s) + s`` (Nix, Weigend
    1994; Kendall, Gal: arXiv 1703.04977) with its gradient weighted by the variance (beta-NLL with beta = 1: Seitzer et
    al., arXiv 2203.09168), which bounds the gradient by 1: the plain one divides by variances near 0. p is taken as
    it is: no gradient goes into ``output.logit``.

    Examples
    --------
    >>> logit, truth = torch.zeros(1, 1, 1, 1, 3), torch.ones(1, 1, 1, 1, 3)
    >>> s = torch.full_like(logit, 0.25).log().requires_grad_()
    >>> error_variance(StudentOutput(logit, s), truth, truth).backward()
    >>> s.grad.abs().max().item() < 1e-7
    True
    """
    probability = output.probability.detach()
    squared_error = (probability - expected) ** 2 + expected * (1 - expected)
    return _mean(output.log_variance.exp() - output.log_variance * squared_error, weight)


def skeleton_recall(probability: torch.Tensor, skeleton: torch.Tensor) -> torch.Tensor:
    """``1 - sum(p skeleton) / sum(skeleton)``; (b,), zero without a skeleton (Kirchhoff et al., arXiv 2404.03010).

    Examples
    --------
    >>> ones = torch.ones(1, 1, 1, 1, 4)
    >>> skeleton_recall(0.25 * ones, ones).item()
    0.75
    """
    skeleton = skeleton.to(probability.dtype)
    return _mean(1 - probability, skeleton)


def soft_cl_dice(probability: torch.Tensor, truth: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """1 - soft clDice over labelled voxels; (b,), zero for a patch without surface (Shit et al., arXiv 2003.07311).

    Harmonic mean of the share of the answer's skeleton inside the truth and of the truth's skeleton inside the
    answer, each smoothed by one voxel.

    Examples
    --------
    >>> truth = torch.zeros(1, 1, 7, 7, 7)
    >>> truth[:, :, 2:5] = 1
    >>> soft_cl_dice(truth, truth, torch.ones_like(truth)).abs().item() < 1e-6
    True
    """
    probability, truth = probability * labelled, truth * labelled
    thin, true_thin = soft_skeleton(probability, SKELETON_STEPS), soft_skeleton(truth, SKELETON_STEPS)
    precision = (_sum(thin * truth) + 1) / (_sum(thin) + 1)
    sensitivity = (_sum(true_thin * probability) + 1) / (_sum(true_thin) + 1)
    values = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return torch.where(_sum(truth) > 0, values, torch.zeros_like(values))


def slice_continuity(probability: torch.Tensor, expected: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of ``(p[z + 1] - p[z])^2`` over neighbours along z; (b,).

    A pair counts as much as the less known of its voxels (``weight``), times ``1 - |difference|`` of what is expected
    of them: fully where label or teachers stay the same, not at all where the label changes.

    Examples
    --------
    >>> ones = torch.ones(1, 1, 3, 1, 1)
    >>> flicker = torch.tensor([0.0, 1.0, 0.0]).reshape(ones.shape)
    >>> slice_continuity(flicker, ones, ones).item(), slice_continuity(flicker, flicker, ones).item()
    (1.0, 0.0)
    """
    steady = 1 - (expected[:, :, 1:] - expected[:, :, :-1]).abs()
    pairs = steady * torch.minimum(weight[:, :, 1:], weight[:, :, :-1])
    return _mean((probability[:, :, 1:] - probability[:, :, :-1]) ** 2, pairs)


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Of each patch; (b,)."""
    return values.flatten(1).sum(1)


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of each patch; (b,), zero where all weights are zero.

    Below a total weight of one voxel the patch fades out: what nobody is sure of is not blown up to a whole mean.
    """
    return _sum(values * weight) / _sum(weight).clamp(min=1)


def _whole(output: StudentOutput) -> StudentOutput:
    """In float32 or wider."""
    whole = torch.promote_types(output.logit.dtype, torch.float32)
    return StudentOutput(output.logit.to(whole), output.log_variance.to(whole))


def _check_shapes(output: StudentOutput, target: Target) -> None:
    shape = tuple(output.logit.shape)
    if len(shape) != 5 or shape[1] != 1:
        raise ArgumentError(f"output.logit: got shape {shape}; accepted: (b, 1, z, y, x)")
    tensors = {f"target.{name}": getattr(target, name) for name in ("label", "soft_logit", "confidence", "skeleton")}
    for name, tensor in {"output.log_variance": output.log_variance, **tensors}.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ArgumentError(f"{name}: got shape {tuple(tensor.shape)}; accepted: {shape} as the logit's")
    if target.has_label is not None and tuple(target.has_label.shape) != shape[:1]:
        raise ArgumentError(f"target.has_label: got shape {tuple(target.has_label.shape)}; accepted: {shape[:1]}")
