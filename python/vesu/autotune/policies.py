"""The four policies: pure functions of a parameter's state and the evidence (R39).

A policy only says what it wants. Bounds, rest and rollback are none of its business: :mod:`vesu.autotune.tuner`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Protocol

from vesu.autotune.state import Parameter, ParameterState, Proposal

__all__ = [
    "EPOCH_POLICIES",
    "DustEvidence",
    "EpochEvidence",
    "EpochPolicy",
    "convergence_patience",
    "dust_min_size",
    "meta_neurons",
    "mutation_noise",
]

NOISE_FACTOR = 2.0
"""One step of the mutation noise, up or down."""

RISING_SHARE = 0.5
"""From this share of candidates with a risen training objective on, the search diverges."""

PLATEAU = 0.02
"""The winner's training objective fell by less than this part of itself over an epoch: it has learned what it can."""

GAP = 0.1
"""A validation loss above the training loss by more than this part of it is over-fitting, not a lack of capacity."""

GROWTH = 3
"""A step of growth is the number of meta-neurons divided by this."""

LEAST_DUST_GAIN = 1e-4
"""F-beta that another dust size must be expected to gain."""


@dataclass(frozen=True)
class EpochEvidence:
    """What an epoch of the search came to, as the policies see it.

    Attributes
    ----------
    epoch : int
        From 0.
    objective, previous : float
        Best validation objective at the end of this epoch and of the one before (NaN where there is none); lower is
        better.
    counted_best : float
        The objective that counted last as an improvement by more than `min_delta`.
    stagnant_epochs : int
        Epochs since then.
    min_delta : float
    stagnation_epochs : int
        After so many of them a candidate mutates.
    candidates, diverged : int
        All, and those that diverged in this epoch.
    rising : float
        Share of the candidates whose training objective rose over the epoch.
    neurons : int
    train_loss, fall : float
        The best candidate's training objective at the epoch's last iteration, and the part by which it fell.
    cross_entropy : float
        Of the best candidate on the validation data.
    until_convergence : bool
        Whether patience ends the search at all.
    patience : int
        The one in force.
    last : bool
        Whether no epoch can follow this one.
    state : str
        Identity of the search's state at this point, where there is one; no policy looks at it.
    """

    epoch: int
    objective: float
    previous: float
    counted_best: float
    stagnant_epochs: int
    min_delta: float
    stagnation_epochs: int
    candidates: int
    diverged: int
    rising: float
    neurons: int
    train_loss: float
    fall: float
    cross_entropy: float
    until_convergence: bool
    patience: int
    last: bool
    state: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON types: a number that is not finite is None."""
        return {name: _finite(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class DustEvidence:
    """What the components of the masks before the dust step are: cumulative counts below each size.

    Attributes
    ----------
    sizes : tuple of int
        Smallest sizes to try, ascending, in voxels.
    components, false_components : tuple of int
        Components smaller than each; those of them with more background than surface.
    true_voxels, false_voxels : tuple of int
        Surface and background voxels in them.
    tp, fp, fn : int
        Voxels of the masks with all components.
    beta : float
        Of the F score.

    Examples
    --------
    >>> DustEvidence((0, 10), (0, 4), (0, 4), (0, 0), (0, 12), tp=80, fp=20, fn=10, beta=0.5).f_beta(1)
    0.9...
    """

    sizes: tuple[int, ...]
    components: tuple[int, ...]
    false_components: tuple[int, ...]
    true_voxels: tuple[int, ...]
    false_voxels: tuple[int, ...]
    tp: int
    fp: int
    fn: int
    beta: float = 0.5

    def f_beta(self, place: int) -> float:
        """F-beta of the masks without the components below ``sizes[place]``."""
        squared = self.beta**2
        tp = self.tp - self.true_voxels[place]
        fp, fn = self.fp - self.false_voxels[place], self.fn + self.true_voxels[place]
        whole = (1 + squared) * tp + squared * fn + fp
        return (1 + squared) * tp / whole if whole else 1.0

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class EpochPolicy(Protocol):
    """A policy that acts between epochs."""

    def __call__(self, state: ParameterState, evidence: EpochEvidence, /) -> Proposal: ...


def mutation_noise(state: ParameterState, evidence: EpochEvidence) -> Proposal:
    """Up when the search stagnates, down when it diverges.

    Parameters
    ----------
    state : ParameterState
        Its value is the noise as a part of the coefficients' root mean square.
    evidence : EpochEvidence

    Returns
    -------
    Proposal
        Twice or half the noise.

    Notes
    -----
    Requirement R39. Divergence counts first: noise on a search that blows up makes it worse. A noise of 0 was switched
    off by the user and stays off.
    """
    if state.value == 0:
        return Proposal(0.0, "mutation is switched off")
    if evidence.diverged or evidence.rising >= RISING_SHARE:
        found = f"{evidence.diverged} of {evidence.candidates} candidates diverged"
        risen = f"the training objective of {evidence.rising:.0%} of them rose"
        return Proposal(state.value / NOISE_FACTOR, f"the search diverges: {found}, {risen}")
    if evidence.stagnant_epochs >= evidence.stagnation_epochs:
        return Proposal(state.value * NOISE_FACTOR, f"no better objective for {evidence.stagnant_epochs} epochs")
    return Proposal(state.value, "the search neither stagnates nor diverges")


def convergence_patience(state: ParameterState, evidence: EpochEvidence) -> Proposal:
    """Up when the search is slow but gets better: just as far as its own pace needs to make up `min_delta`.

    Parameters
    ----------
    state : ParameterState
        Its value is the number of epochs without a counted improvement after which the search ends.
    evidence : EpochEvidence

    Returns
    -------
    Proposal

    Notes
    -----
    Requirement R39. It speaks up only when the search is about to end. An objective that fell over the epochs that did
    not count, and fell in the last of them, will make up `min_delta` in so many epochs; where these go beyond the
    upper bound, waiting is not worth it.
    """
    if not evidence.until_convergence:
        return Proposal(state.value, "the number of epochs is fixed")
    if evidence.stagnant_epochs < state.value:
        return Proposal(state.value, "the search does not end yet")
    gain, last = evidence.counted_best - evidence.objective, evidence.previous - evidence.objective
    if not (math.isfinite(gain) and gain > 0 and last > 0):
        return Proposal(state.value, "the objective does not fall any more")
    pace = gain / evidence.stagnant_epochs
    needed = math.floor(evidence.min_delta / pace) + 1
    if not state.value < needed <= state.bounds.high:
        return Proposal(state.value, f"slow: at {pace:.3g} an epoch an improvement would take {needed} epochs")
    return Proposal(needed, f"slow but positive: {pace:.3g} an epoch, {needed} epochs to an improvement that counts")


def meta_neurons(state: ParameterState, evidence: EpochEvidence) -> Proposal:
    """Grow on under-capacity; it never asks for fewer (R52).

    Parameters
    ----------
    state : ParameterState
        Its value is the number of meta-neurons.
    evidence : EpochEvidence

    Returns
    -------
    Proposal
        A third more.

    Notes
    -----
    Requirement R39. Under-capacity is: the validation objective stands still, the best candidate's training objective
    too, and validation is about as bad as training. Where validation is much worse, the search has learned its sample
    by heart, and more of the same would not help.
    """
    if evidence.stagnant_epochs == 0:
        return Proposal(evidence.neurons, "the validation objective still gets better")
    if not evidence.fall < PLATEAU:
        return Proposal(
            evidence.neurons, f"the best candidate still learns: its training objective fell {_part(evidence.fall)}"
        )
    gap = (evidence.cross_entropy - evidence.train_loss) / evidence.train_loss if evidence.train_loss > 0 else math.inf
    if not gap <= GAP:
        return Proposal(evidence.neurons, f"over-fitting: validation is {_part(gap)} worse than training")
    step = max(1, evidence.neurons // GROWTH)
    reason = f"under-capacity: training stands still (fell {_part(evidence.fall)}), validation {_part(gap)} above it"
    return Proposal(evidence.neurons + step, reason)


def dust_min_size(state: ParameterState, evidence: DustEvidence) -> Proposal:
    """The size below which components are dust, from what the components of labelled volumes are.

    Parameters
    ----------
    state : ParameterState
        Its value is the smallest component that is kept, in voxels.
    evidence : DustEvidence

    Returns
    -------
    Proposal
        The size of the best F-beta; of equal ones the nearest to the present one.

    Notes
    -----
    Requirement R39.
    """
    inside = [i for i, size in enumerate(evidence.sizes) if state.bounds.low <= size <= state.bounds.high]
    now = evidence.f_beta(max((i for i, size in enumerate(evidence.sizes) if size <= state.value), default=0))
    if not inside:
        return Proposal(state.value, "no size to try lies within the bounds")
    best = max(inside, key=lambda i: (evidence.f_beta(i), -abs(evidence.sizes[i] - state.value)))
    gain = evidence.f_beta(best) - now
    if not gain > LEAST_DUST_GAIN:
        return Proposal(state.value, f"no other size is expected to gain more than {LEAST_DUST_GAIN:g} of F-beta")
    size, n, false = evidence.sizes[best], evidence.components[best], evidence.false_components[best]
    return Proposal(size, f"{false} of the {n} components below {size} voxels are false; F-beta would gain {gain:.4f}")


EPOCH_POLICIES: Mapping[Parameter, Callable[[ParameterState, EpochEvidence], Proposal]] = MappingProxyType(
    {
        # In the order in which they may act: one change at a time.
        "convergence_patience": convergence_patience,
        "mutation_noise": mutation_noise,
        "meta_neurons": meta_neurons,
    }
)
"""The policies that act between epochs, by parameter."""


def _part(value: float) -> str:
    return f"{value:.1%}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
