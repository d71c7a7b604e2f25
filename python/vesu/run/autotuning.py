"""Auto-tuning in a run: evidence from the search and the calibration in, settings, events and the trace out (R39).

What is decided, and on what grounds, stands in :mod:`vesu.autotune`; nothing here has an opinion.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vesu.autotune import (
    EPOCH_POLICIES,
    Bounds,
    Decision,
    EpochEvidence,
    EpochPolicy,
    Parameter,
    ParameterState,
    TunerState,
    TuningRules,
    tune_epoch,
)
from vesu.config import RunConfig
from vesu.data.cache import content_id
from vesu.data.storage import write_json_atomic
from vesu.grid_search import EpochEnd, EpochSettings, NextEpochs, SearchState
from vesu.grid_search.solver import OnEvent
from vesu.run.plan import epoch_settings
from vesu.run.session import Session
from vesu.run.state import Tuning

__all__ = ["TRACE", "SearchTuning", "TunedEpochs", "record", "rules_of", "write_trace"]

TRACE = "v3_autotune_trace.json"
FORMAT = "vesu-autotune-trace/1"

SETTINGS: dict[Parameter, str] = {
    "mutation_noise": "mutation_noise",
    "convergence_patience": "patience",
    "meta_neurons": "meta_neurons",
}
"""The setting of ``[search]`` where a parameter starts."""


@dataclass
class TunedEpochs:
    """Sets the epochs of a search by what the policies decide.

    ``grid.fit_samples(draw, tuned.settings, on_epoch=tuned.on_epoch)`` is a tuned search.

    Attributes
    ----------
    base : EpochSettings
        As configured; ``epochs``, ``min_delta`` and ``max_epochs`` stay as they are.
    start_neurons : int
        Meta-neurons of the first epoch.
    state : TunerState
        Replaced at each epoch's end.
    rules : TuningRules
    emit : callable
        Gets each event: name, fields.
    before : SearchState or None
        Where the search stood when the change that is on trial was made.
    policies : mapping of str to callable
        See :func:`vesu.autotune.tune_epoch`.
    """

    base: EpochSettings
    start_neurons: int
    state: TunerState
    rules: TuningRules = field(default_factory=TuningRules)
    emit: OnEvent = lambda name, fields: None
    before: SearchState | None = None
    policies: Mapping[Parameter, EpochPolicy] = field(default_factory=lambda: EPOCH_POLICIES)

    @property
    def settings(self) -> EpochSettings:
        """Those in force."""
        state, base = self.state, self.base
        return replace(
            base,
            patience=int(state.value("convergence_patience", base.patience)),
            mutation_noise=state.value("mutation_noise", base.mutation_noise),
            meta_neurons_growth=self._growth(),
        )

    def neurons_by_epoch(self) -> list[int]:
        """Meta-neurons of each epoch that may come, as far as is known now."""
        neurons = list(self.state.neurons)
        coming = neurons[-1] + self._growth() if neurons else self.start_neurons
        while len(neurons) < self.base.limit:
            neurons.append(coming)
            coming += self.base.meta_neurons_growth
        return neurons

    def on_epoch(self, end: EpochEnd) -> NextEpochs:
        """Decide at an epoch's end."""
        taken = end.state()
        evidence = _evidence(end, taken, self.base, self.state.objectives)
        outcome = tune_epoch(self.state, evidence, self.rules, self.policies)
        restored = self.before if outcome.rolled_back else None
        record(self.emit, outcome.decisions, len(self.state.decisions), restored)
        self.before = taken if outcome.state.on_trial is not None else None
        self.state = outcome.state
        return NextEpochs(self.settings, restored)

    def _growth(self) -> int:
        """Meta-neurons that the next epoch has more."""
        now = self.state.neurons[-1] if self.state.neurons else self.start_neurons
        return max(self.base.meta_neurons_growth, int(self.state.value("meta_neurons", now)) - now)


class SearchTuning:
    """The tuning of a run's search: its state goes into the checkpoints, its trace into the run folder.

    Parameters
    ----------
    session : Session
        Its state says where an earlier session stood.

    Notes
    -----
    R37, R39. The state that a checkpoint holds is that of the last iteration: the decisions at an epoch's end come
    behind it, and a resumed run makes them again.
    """

    def __init__(self, session: Session) -> None:
        config, saved = session.config, session.state.tuning
        self._session = session
        self._epochs = TunedEpochs(
            epoch_settings(config.search),
            config.search.meta_neurons,
            _start(config) if saved is None else TunerState.from_json(saved.search),
            rules_of(config),
            session.tell,
            None if saved is None else saved.before,
        )
        self._calibration = () if saved is None else saved.calibration
        self._held: Tuning | None = None
        self._announced = self.candidates_by_epoch()
        self.announce: Callable[[Sequence[int]], None] = lambda _: None
        """Is told the candidates of every epoch when the grid has grown."""

    @property
    def settings(self) -> EpochSettings:
        """Those in force."""
        return self._epochs.settings

    def candidates_by_epoch(self) -> list[int]:
        """Candidates of each epoch that may come, as far as is known now."""
        search = self._session.config.search
        return [n * len(search.l1) * len(search.l2) for n in self._epochs.neurons_by_epoch()]

    def on_epoch(self, end: EpochEnd) -> NextEpochs:
        """Decide at an epoch's end."""
        following = self._epochs.on_epoch(end)
        self._held = None
        if (now := self.candidates_by_epoch()) != self._announced:
            self._announced = now
            self.announce(now)
        return following

    def hold(self) -> None:
        """Put the state beside the search's, for the next checkpoint: after each iteration."""
        if self._held is None:
            self._held = Tuning(self._epochs.state.to_json(), self._epochs.before, self._calibration)
        self._session.state.tuning = self._held

    def finish(self) -> None:
        """The search is done: keep its whole trace."""
        state = self._session.state
        if state.tuning is None:  # nothing was left to iterate, in this session or before
            self.hold()
        assert state.tuning is not None
        state.tuning = replace(state.tuning, final=self._epochs.state.to_json())
        write_trace(self._session)


def rules_of(config: RunConfig) -> TuningRules:
    """What holds for all parameters, as configured."""
    return TuningRules(config.auto_tune.cooldown, config.auto_tune.tolerance)


def record(emit: OnEvent, decisions: Sequence[Decision], first: int, restored: SearchState | None) -> None:
    """Tell of decisions, and of each change once more by itself.

    Parameters
    ----------
    emit : callable
        Gets each event: name, fields.
    decisions : sequence of Decision
    first : int
        The first one's number in the trace.
    restored : SearchState or None
        Where the search was taken back to.
    """
    for number, decision in enumerate(decisions, first):
        fields = {"number": number, **decision.to_json()}
        emit("AUTO_TUNE_POLICY_DECISION", fields)
        if not (decision.changed or decision.action == "rollback"):
            continue
        fields = {name: value for name, value in fields.items() if name != "evidence"}
        back = restored if decision.action == "rollback" else None
        identity = None if back is None else _identity(back)
        emit("AUTO_TUNE_PARAM_UPDATE", {**fields, "restored_state": identity})
        if decision.parameter == "convergence_patience" and decision.action == "raise":
            emit("CONVERGENCE_PATIENCE_EXPANDED", fields)


def write_trace(session: Session) -> None:
    """Write ``v3_autotune_trace.json``: an entry a decision, with what the log says of it."""
    tuning = session.state.tuning
    if tuning is None:
        return
    search, settings = TunerState.from_json(tuning.final or tuning.search), session.config.auto_tune
    decisions = [*(each.to_json() for each in search.decisions), *tuning.calibration]
    write_json_atomic(
        session.folder / TRACE,
        {
            "format": FORMAT,
            "run_id": session.log.run_id,
            "bounds": {name: list(getattr(settings, name)) for name in settings.parameters},
            "objectives": list(search.objectives),
            "meta_neurons": list(search.neurons),
            "decisions": [{"number": number, **each} for number, each in enumerate(decisions)],
        },
    )


def _start(config: RunConfig) -> TunerState:
    """Every tuned parameter of the search where its setting stands."""
    parameters = {
        name: ParameterState(getattr(config.search, key), Bounds(*getattr(config.auto_tune, name)))
        for name, key in SETTINGS.items()
        if name in config.auto_tune.parameters
    }
    return TunerState(parameters)


def _evidence(end: EpochEnd, taken: SearchState, base: EpochSettings, earlier: Sequence[float | None]) -> EpochEvidence:
    """An epoch's end as the policies see it."""
    memory, best = end.memory, end.leaderboard[0]
    winner, previous = int(best["candidate"]), earlier[-1] if earlier else None
    first, last = memory.first_loss, memory.last_loss
    with np.errstate(invalid="ignore", divide="ignore"):
        rising = float(np.mean(last > first))
        fall = float((first[winner] - last[winner]) / abs(first[winner]))
    # A candidate that an earlier epoch froze has neither a finite first loss nor rises in this one.
    diverged = end.diverged & np.isfinite(first) & ((memory.rises > 0) | ~np.isfinite(last))
    return EpochEvidence(
        epoch=end.epoch,
        objective=float(best["objective"]),
        previous=math.nan if previous is None else previous,
        counted_best=float(memory.search_best[0]),
        stagnant_epochs=int(memory.search_stagnant[0]),
        min_delta=base.min_delta,
        stagnation_epochs=base.stagnation_epochs,
        candidates=len(end.leaderboard),
        diverged=int(diverged.sum()),
        rising=rising,
        neurons=end.n_neurons,
        train_loss=float(last[winner]),
        fall=fall,
        cross_entropy=float(best["cross_entropy"]),
        until_convergence=base.epochs == 0,
        patience=end.settings.patience,
        last=end.epoch + 1 >= base.limit,
        state=_identity(taken),
    )


def _identity(state: SearchState) -> str:
    """BLAKE3 of where every candidate stands."""
    arrays = [np.ascontiguousarray(state.solver[name]) for name in ("params", "learning_rate", "diverged")]
    return content_id(b"".join(array.tobytes() for array in arrays))
