"""Auto-tuning in a run: evidence from the search and the calibration in, settings, events and the trace out (R39).

What is decided, and on what grounds, stands in :mod:`vesu.autotune`; nothing here has an opinion.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vesu.autotune import (
    Bounds,
    Decision,
    EpochEvidence,
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
from vesu.run.plan import epoch_settings
from vesu.run.session import Session
from vesu.run.state import Tuning

__all__ = ["TRACE", "SearchTuning", "record", "rules_of", "write_trace"]

TRACE = "v3_autotune_trace.json"
FORMAT = "vesu-autotune-trace/1"

SETTINGS: dict[Parameter, str] = {
    "mutation_noise": "mutation_noise",
    "convergence_patience": "patience",
    "meta_neurons": "meta_neurons",
}
"""The setting of ``[search]`` where a parameter starts."""


class SearchTuning:
    """Tunes the epochs of a run's search.

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
        self._base, self._rules = epoch_settings(config.search), rules_of(config)
        self._state = _start(config) if saved is None else TunerState.from_json(saved.search)
        self._before = None if saved is None else saved.before
        self._calibration = () if saved is None else saved.calibration
        self._held: Tuning | None = None
        self.grown: Callable[[Sequence[int]], None] = lambda _: None
        """Is told the candidates of every epoch when the grid has grown."""

    @property
    def settings(self) -> EpochSettings:
        """Those in force."""
        state, base = self._state, self._base
        return replace(
            base,
            patience=int(state.value("convergence_patience", base.patience)),
            mutation_noise=state.value("mutation_noise", base.mutation_noise),
            meta_neurons_growth=self._growth(),
        )

    def candidates_by_epoch(self) -> list[int]:
        """Candidates of each epoch that may come, as far as is known now."""
        search, neurons = self._session.config.search, list(self._state.neurons)
        coming = neurons[-1] + self._growth() if neurons else search.meta_neurons
        while len(neurons) < self._base.limit:
            neurons.append(coming)
            coming += self._base.meta_neurons_growth
        return [n * len(search.l1) * len(search.l2) for n in neurons]

    def hold(self) -> None:
        """Put the state beside the search's, for the next checkpoint: after each iteration."""
        if self._held is None:
            self._held = Tuning(self._state.to_json(), self._before, self._calibration)
        self._session.state.tuning = self._held

    def on_epoch(self, end: EpochEnd) -> NextEpochs:
        """Decide at an epoch's end."""
        taken = end.state()
        evidence = _evidence(end, taken, self._base, self._state.objectives)
        outcome = tune_epoch(self._state, evidence, self._rules)
        restored = self._before if outcome.rolled_back else None
        record(self._session, outcome.decisions, len(self._state.decisions), restored)
        changed = any(decision.action in ("raise", "lower") for decision in outcome.decisions)
        self._before = taken if changed else None
        self._state, self._held = outcome.state, None
        if self._growth() > self._base.meta_neurons_growth:
            self.grown(self.candidates_by_epoch())
        return NextEpochs(self.settings, restored)

    def finish(self) -> None:
        """The search is done: keep its whole trace."""
        self.hold()
        held = self._session.state.tuning
        assert held is not None
        self._session.state.tuning = replace(held, final=self._state.to_json())
        write_trace(self._session)

    def _growth(self) -> int:
        """Meta-neurons that the next epoch has more."""
        now = self._state.neurons[-1] if self._state.neurons else self._session.config.search.meta_neurons
        return max(self._base.meta_neurons_growth, int(self._state.value("meta_neurons", now)) - now)


def rules_of(config: RunConfig) -> TuningRules:
    """What holds for all parameters, as configured."""
    return TuningRules(config.auto_tune.cooldown, config.auto_tune.tolerance)


def record(session: Session, decisions: Sequence[Decision], first: int, restored: SearchState | None) -> None:
    """Write decisions to the log, and each change once more by itself.

    Parameters
    ----------
    session : Session
    decisions : sequence of Decision
    first : int
        The first one's number in the trace.
    restored : SearchState or None
        Where the search was taken back to.
    """
    for number, decision in enumerate(decisions, first):
        fields = {"number": number, **decision.to_json()}
        session.log.emit("AUTO_TUNE_POLICY_DECISION", **fields)
        if not (decision.changed or decision.action == "rollback"):
            continue
        del fields["evidence"]
        back = restored if decision.action == "rollback" else None
        identity = None if back is None else _identity(back)
        session.log.emit("AUTO_TUNE_PARAM_UPDATE", **fields, restored_state=identity)
        if decision.parameter == "convergence_patience" and decision.action == "raise":
            session.log.emit("CONVERGENCE_PATIENCE_EXPANDED", **fields)


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
