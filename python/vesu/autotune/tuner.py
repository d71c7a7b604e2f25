"""From what policies want to what is done: bounds, rest, direction, one change at a time, rollback (R39).

Everything is a pure function: the same state and evidence give the same decisions, so that a resumed run makes them
again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vesu.autotune.policies import (
    EPOCH_POLICIES,
    DustEvidence,
    EpochEvidence,
    EpochPolicy,
    dust_min_size,
)
from vesu.autotune.state import (
    INTEGERS,
    Bounds,
    Decision,
    Parameter,
    ParameterState,
    Proposal,
    Trial,
    TunerState,
)
from vesu.errors import ArgumentError

__all__ = ["EpochOutcome", "TuningRules", "judge_dust", "propose_dust", "tune_epoch"]

CONTRARY = 2
"""So often in a row the opposite direction must be asked for before a parameter turns round."""


@dataclass(frozen=True)
class TuningRules:
    """What holds for all parameters.

    Raises
    ------
    ArgumentError
        A value out of range, by name.

    Examples
    --------
    >>> TuningRules().rest(rollbacks=2)
    4
    """

    cooldown: int = 1
    """Epochs for which a parameter rests after a trial; each rollback in a row doubles them."""
    tolerance: float = 1e-4
    """An objective is worse when it is higher by more than this."""

    def __post_init__(self) -> None:
        if not 0 <= self.cooldown <= 1 << 20:
            raise ArgumentError(f"cooldown: got {self.cooldown}; accepted: 0 to {1 << 20} epochs")
        if not 0 <= self.tolerance < math.inf:
            raise ArgumentError(f"tolerance: got {self.tolerance}; accepted: 0 or more")

    def rest(self, rollbacks: int) -> int:
        """Epochs of rest after a trial, of which so many failed in a row."""
        return self.cooldown << min(rollbacks, 20)

    def worse(self, objective: float, than: float) -> bool:
        """Whether an objective is worse than another; one that is no number is."""
        return not objective <= than + self.tolerance


@dataclass(frozen=True)
class EpochOutcome:
    """What follows from an epoch.

    Attributes
    ----------
    state : TunerState
    decisions : tuple of Decision
        Of this epoch, one a parameter, and one more where a trial ended.
    rolled_back : bool
        Whether the search must go back to where it stood when the change was made.
    """

    state: TunerState
    decisions: tuple[Decision, ...]
    rolled_back: bool


def tune_epoch(
    state: TunerState,
    evidence: EpochEvidence,
    rules: TuningRules | None = None,
    policies: Mapping[Parameter, EpochPolicy] = EPOCH_POLICIES,
) -> EpochOutcome:
    """Decide at an epoch's end: first on the change that is on trial, then on a new one.

    Parameters
    ----------
    state : TunerState
        Before.
    evidence : EpochEvidence
        Of the epoch that ended.
    rules : TuningRules, optional
    policies : mapping of str to callable
        By parameter, in the order in which they may act. A parameter that `state` does not have is not tuned.

    Returns
    -------
    EpochOutcome

    Notes
    -----
    Requirement R39. There is one change at a time, and it is judged by the next epoch, so that what follows is its own.
    A policy that gives NaN, or nothing that is a number, changes nothing: the decision says ``refuse``. Meta-neurons
    that have grown stay in the grid, which never shrinks (R50, R52); only the old ones go back.

    Examples
    --------
    >>> from vesu.autotune import Bounds, EpochEvidence, ParameterState
    >>> state = TunerState({"mutation_noise": ParameterState(0.05, Bounds(0.01, 0.4))})
    >>> evidence = EpochEvidence(
    ...     epoch=4, objective=0.31, previous=0.31, counted_best=0.31, stagnant_epochs=2, min_delta=1e-4,
    ...     stagnation_epochs=2, candidates=135, diverged=0, rising=0.0, neurons=9, train_loss=0.4, fall=0.0,
    ...     cross_entropy=0.4, until_convergence=True, patience=3, last=False)
    >>> outcome = tune_epoch(state, evidence)
    >>> outcome.decisions[0].action, outcome.state.parameters["mutation_noise"].value
    ('raise', 0.1)
    """
    rules = rules or TuningRules()
    figures = evidence.to_json()
    judged, ended = _judge(_rested(state), evidence.epoch, evidence.objective, rules, figures)
    rolled_back = ended is not None and ended.action == "rollback"
    decisions = [] if ended is None else [ended]
    current, reason = judged, _no_change(evidence, rolled_back)
    if reason is None and "convergence_patience" not in policies.keys() & current.parameters.keys():
        reason = "the search ends here" if _ends(current, evidence) else None
    for name, policy in policies.items():
        if name not in current.parameters:
            continue
        if name == "meta_neurons":
            current = current.with_parameter(name, _at_least(current.parameters[name], evidence.neurons))
        old = current.parameters[name]
        new, decision = _guarded(name, old, _asked(policy, old, evidence), evidence.epoch, figures, reason)
        if decision.changed:
            new = replace(new, trial=Trial(old.value, evidence.objective, evidence.epoch))
            reason = f"{name} changes now: one at a time"
        current = current.with_parameter(name, new)
        decisions.append(decision)
        if reason is None and _ends(current, evidence):
            reason = "the search ends here"
    objective = _gone_back_to(state, evidence) if rolled_back else evidence.objective
    done = replace(
        current,
        decisions=(*current.decisions, *decisions),
        objectives=(*current.objectives, objective if math.isfinite(objective) else None),
        neurons=(*current.neurons, evidence.neurons),
    )
    return EpochOutcome(done, tuple(decisions), rolled_back)


def propose_dust(
    state: ParameterState, evidence: DustEvidence, epoch: int, objective: float
) -> tuple[ParameterState, Decision]:
    """The decision on the smallest component, before its trial.

    Parameters
    ----------
    state : ParameterState
    evidence : DustEvidence
    epoch : int
        The search's last.
    objective : float
        Of the masks with the present value on the volumes that judge; lower is better.

    Returns
    -------
    ParameterState, Decision
        The state is on trial where the decision is a change.
    """
    proposal = _asked(dust_min_size, state, evidence)
    new, decision = _guarded("dust_min_size", state, proposal, epoch, evidence.to_json(), None, "calibration")
    if decision.changed:
        new = replace(new, trial=Trial(state.value, objective, epoch))
    return new, decision


def judge_dust(
    state: ParameterState, epoch: int, objective: float, rules: TuningRules, figures: Mapping[str, Any]
) -> tuple[ParameterState, Decision | None]:
    """End the trial of the smallest component; None where none is on."""
    judged, decision = _judge(TunerState({"dust_min_size": state}), epoch, objective, rules, figures, "calibration")
    return judged.parameters["dust_min_size"], decision


# ---- inside


def _rested(state: TunerState) -> TunerState:
    """An epoch has passed for everybody who rests."""
    rested = {name: replace(each, resting=max(0, each.resting - 1)) for name, each in state.parameters.items()}
    return replace(state, parameters=rested)


def _judge(
    state: TunerState,
    epoch: int,
    objective: float,
    rules: TuningRules,
    figures: Mapping[str, Any],
    stage: Literal["search", "calibration"] = "search",
) -> tuple[TunerState, Decision | None]:
    """Accept the change on trial, or roll it back where the validation objective worsened."""
    name = state.on_trial
    if name is None:
        return state, None
    old = state.parameters[name]
    trial = old.trial
    assert trial is not None
    worse = rules.worse(objective, trial.objective)
    rollbacks = old.rollbacks + 1 if worse else 0
    kept = replace(old, trial=None, contrary=0, rollbacks=rollbacks, resting=rules.rest(rollbacks))
    words = f"the validation objective went from {trial.objective:.6g} to {objective:.6g}"
    if not worse:
        return state.with_parameter(name, kept), Decision(
            name, epoch, "accept", old.value, old.value, words, figures, stage
        )
    # A grid never shrinks: the grown neurons stay, the search's old candidates go back.
    after = old.value if name == "meta_neurons" else trial.before
    back = replace(kept, value=after)
    return state.with_parameter(name, back), Decision(name, epoch, "rollback", old.value, after, words, figures, stage)


def _no_change(evidence: EpochEvidence, rolled_back: bool) -> str | None:
    """Why nothing may change after this epoch, or None."""
    if rolled_back:
        return "the epoch was rolled back: what it showed says nothing of where the search stands now"
    if not math.isfinite(evidence.objective):
        return "there is no objective to hold a change against"
    return "no epoch follows" if evidence.last else None


def _ends(state: TunerState, evidence: EpochEvidence) -> bool:
    """Whether patience ends the search after this epoch; the policy of patience has had its word by then."""
    patience = state.value("convergence_patience", evidence.patience)
    return evidence.until_convergence and evidence.stagnant_epochs >= patience


def _asked(policy: Any, state: ParameterState, evidence: Any) -> Proposal | None:
    """What a policy wants; None where it is no finite number."""
    proposal = policy(state, evidence)
    value = getattr(proposal, "value", None)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return proposal if good else None


def _guarded(
    name: Parameter,
    state: ParameterState,
    proposal: Proposal | None,
    epoch: int,
    figures: Mapping[str, Any],
    barred: str | None,
    stage: Literal["search", "calibration"] = "search",
) -> tuple[ParameterState, Decision]:
    """A proposal within bounds, after its rest, and not against the last direction at the first word."""

    def decided(action: Any, after: float, reason: str) -> Decision:
        return Decision(name, epoch, action, state.value, after, reason, figures, stage)

    if proposal is None:
        return state, decided("refuse", state.value, "the policy gave no finite number")
    if proposal.value == state.value:  # also where the start lies outside the bounds: a noise of 0 stays off
        return replace(state, contrary=0), decided("keep", state.value, proposal.reason)
    wanted = state.bounds.clamp(round(proposal.value) if name in INTEGERS else proposal.value)
    if name == "meta_neurons":
        wanted = max(wanted, state.value)
    if wanted == state.value:
        return replace(state, contrary=0), decided("keep", state.value, f"{proposal.reason} (at its bound)")
    direction = 1 if wanted > state.value else -1
    if state.direction == -direction:
        state = replace(state, contrary=state.contrary + 1)
        if state.contrary < CONTRARY and barred is None and not state.resting:
            barred = "the last change went the other way: once more, and it turns round"
    if state.resting and barred is None:
        barred = f"rests for {state.resting} more epochs"
    if barred is not None:
        return state, decided("hold", state.value, f"{proposal.reason}; {barred}")
    changed = replace(state, value=wanted, direction=direction, contrary=0)
    return changed, decided("raise" if direction > 0 else "lower", wanted, proposal.reason)


def _at_least(state: ParameterState, neurons: int) -> ParameterState:
    """The grid may have grown by ``meta_neurons_growth`` too: nothing shrinks, so its size is the value."""
    high = max(state.bounds.high, neurons)
    return replace(state, value=max(state.value, neurons), bounds=Bounds(state.bounds.low, high))


def _gone_back_to(before: TunerState, evidence: EpochEvidence) -> float:
    """The objective of the state that a rollback restores."""
    name = before.on_trial
    trial = None if name is None else before.parameters[name].trial
    return evidence.objective if trial is None else trial.objective
