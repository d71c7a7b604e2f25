"""What is tuned, how far it may go, and what was decided: plain frozen values that JSON holds exactly."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias, get_args

from vesu.errors import MISPLACED, ArgumentError, FormatError

__all__ = [
    "INTEGERS",
    "PARAMETERS",
    "Action",
    "Bounds",
    "Decision",
    "Parameter",
    "ParameterState",
    "Proposal",
    "Trial",
    "TunerState",
]

Parameter: TypeAlias = Literal["dust_min_size", "mutation_noise", "convergence_patience", "meta_neurons"]
"""The tuned parameters, by the history's names."""

PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)

INTEGERS: frozenset[Parameter] = frozenset({"dust_min_size", "convergence_patience", "meta_neurons"})
"""Parameters that are whole numbers."""

Action: TypeAlias = Literal["keep", "hold", "raise", "lower", "accept", "rollback", "refuse"]
"""keep: nothing is asked for. hold: something is, but must wait. raise, lower: a change, on trial. accept, rollback:
the end of a trial. refuse: a policy gave what is no number."""


@dataclass(frozen=True)
class Bounds:
    """Between which values a parameter may move, both included.

    Raises
    ------
    ArgumentError
        Not finite, negative, or crossing.

    Examples
    --------
    >>> Bounds(0.01, 0.4).clamp(0.8)
    0.4
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        good = math.isfinite(self.low) and math.isfinite(self.high) and 0 <= self.low <= self.high
        if not good:
            raise ArgumentError(f"bounds: got ({self.low}, {self.high}); accepted: finite, 0 <= low <= high")

    def clamp(self, value: float) -> float:
        """The nearest value inside."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Trial:
    """A change that has to prove itself: what to go back to, and the validation objective that it must not worsen."""

    before: float
    objective: float
    """Lower is better."""
    epoch: int


@dataclass(frozen=True)
class ParameterState:
    """One tuned parameter and what keeps it from flapping."""

    value: float
    bounds: Bounds
    direction: int = 0
    """Of the last change: 1 up, -1 down, 0 none yet."""
    contrary: int = 0
    """How often in a row the opposite direction was asked for."""
    resting: int = 0
    """Epochs in which it may not change."""
    rollbacks: int = 0
    """In a row: each doubles the rest."""
    trial: Trial | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        trial = values["trial"]
        rest = {name: values[name] for name in ("value", "direction", "contrary", "resting", "rollbacks")}
        return cls(bounds=Bounds(**values["bounds"]), trial=None if trial is None else Trial(**trial), **rest)


@dataclass(frozen=True)
class Proposal:
    """What a policy wants, and why.

    Attributes
    ----------
    value : float
        The value wanted; the present one asks for nothing.
    reason : str
    """

    value: float
    reason: str


@dataclass(frozen=True)
class Decision:
    """What was decided of one parameter: the fields of ``AUTO_TUNE_POLICY_DECISION`` and an entry of the trace.

    Examples
    --------
    >>> Decision("mutation_noise", 3, "raise", 0.05, 0.1, "no better objective for 2 epochs").changed
    True
    """

    parameter: Parameter
    epoch: int
    """From 0; of the calibration, which comes after the last epoch, that epoch's."""
    action: Action
    before: float
    after: float
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """The figures it was decided on; None where there was no finite one."""
    stage: Literal["search", "calibration"] = "search"

    @property
    def changed(self) -> bool:
        """Whether the parameter has another value now."""
        return self.after != self.before

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "evidence": dict(self.evidence)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        return cls(**values)


@dataclass(frozen=True)
class TunerState:
    """Everything that the tuning of a search goes on from; a checkpoint holds it.

    Attributes
    ----------
    parameters : mapping of str to ParameterState
    decisions : tuple of Decision
        All so far, in their order: the trace.
    objectives : tuple of float or None
        The best validation objective at each epoch's end; after a rollback that of the state gone back to.
    neurons : tuple of int
        Meta-neurons of each epoch so far.

    Examples
    --------
    >>> state = TunerState({"mutation_noise": ParameterState(0.05, Bounds(0.01, 0.4))})
    >>> TunerState.from_json(state.to_json()) == state
    True
    """

    parameters: Mapping[Parameter, ParameterState]
    decisions: tuple[Decision, ...] = ()
    objectives: tuple[float | None, ...] = ()
    neurons: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TunerState) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def value(self, parameter: Parameter, default: float) -> float:
        """A parameter's value, or the default where it is not tuned."""
        return self.parameters[parameter].value if parameter in self.parameters else default

    def with_parameter(self, name: Parameter, state: ParameterState) -> "TunerState":
        """The same with one parameter's state replaced."""
        return replace(self, parameters={**self.parameters, name: state})

    @property
    def on_trial(self) -> Parameter | None:
        """The parameter whose change is on trial; there is never more than one."""
        return next((name for name, each in self.parameters.items() if each.trial is not None), None)

    def to_json(self) -> dict[str, Any]:
        """JSON types; every number comes back with the same bits."""
        return {
            "parameters": {name: each.to_json() for name, each in self.parameters.items()},
            "decisions": [each.to_json() for each in self.decisions],
            "objectives": list(self.objectives),
            "neurons": list(self.neurons),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave.

        Raises
        ------
        FormatError
            Something else.
        """
        try:
            return cls(
                {name: ParameterState.from_json(each) for name, each in values["parameters"].items()},
                tuple(Decision.from_json(each) for each in values["decisions"]),
                tuple(values["objectives"]),
                tuple(values["neurons"]),
            )
        except MISPLACED as error:
            raise FormatError(f"auto-tuning: a missing or misplaced entry: {error}") from error
