"""Epochs: every candidate goes on from its own point on fresh draws, until told or until nothing improves (R14)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.checks import integer, number
from vesu.grid_search.evolution import Memory, adapt_learning_rates, judge_mutations, mutate, prune_winner, restore
from vesu.grid_search.samples import AnySamples
from vesu.grid_search.search import IterationRecord, OnIteration, Search
from vesu.grid_search.selection import SelectionWeights
from vesu.grid_search.solver import OnEvent
from vesu.grid_search.state import SearchState

__all__ = ["EpochEnd", "EpochLoop", "EpochSettings", "NextEpochs", "OnEpoch"]

MOST = 1 << 20


@dataclass(frozen=True)
class EpochSettings:
    """How many epochs, and what happens between them.

    Raises
    ------
    ArgumentError
        A value out of range, by name.

    Notes
    -----
    R14, R15, R52. Everything below ``max_epochs`` acts between epochs or after the last of several: a search of one
    epoch is the plain fit.

    Examples
    --------
    >>> EpochSettings(epochs=0, patience=2).limit
    20
    """

    epochs: int = 1
    """How many; 0 goes on until convergence."""
    patience: int = 3
    """Epochs without a better validation objective after which a search until convergence ends."""
    min_delta: float = 1e-4
    """A validation objective counts as better when it is lower by more than this."""
    max_epochs: int = 20
    """Cap of a search until convergence."""
    meta_neurons_growth: int = 0
    """Meta-neurons added before each later epoch."""
    adapt_learning_rate: bool = True
    """Step lengths that follow each candidate's own course; not for the Newton solver, which has none."""
    mutation_noise: float = 0.05
    """Deviation of a mutation, as a part of the coefficients' root mean square; 0 switches mutation off."""
    stagnation_epochs: int = 2
    """Epochs without a better objective of its own after which a candidate mutates."""
    prune_quantile: float = 0.1
    """Quantile of the winner's coefficient sizes up to which they are tried as zeros; 0 switches pruning off."""

    def __post_init__(self) -> None:
        integer("epochs", self.epochs, 0, MOST)
        for name, low in (("patience", 1), ("max_epochs", 1), ("meta_neurons_growth", 0), ("stagnation_epochs", 1)):
            integer(name, getattr(self, name), low, MOST)
        for name, high in (("min_delta", math.inf), ("mutation_noise", math.inf), ("prune_quantile", 1.0)):
            value = number(name, getattr(self, name))
            if not 0 <= value < high:
                raise ArgumentError(f"{name}: got {value}; accepted: 0 or more, below {high}")
        if not isinstance(self.adapt_learning_rate, bool):
            raise ArgumentError(f"adapt_learning_rate: got {self.adapt_learning_rate!r}; accepted: True or False")

    @property
    def limit(self) -> int:
        """The most epochs that can come."""
        return self.epochs or self.max_epochs

    @property
    def evolves(self) -> bool:
        """Whether there is anything between epochs at all."""
        return self.limit > 1

    def n_neurons(self, meta_neurons: int, epoch: int) -> int:
        """Meta-neurons of an epoch."""
        return meta_neurons + epoch * self.meta_neurons_growth


@dataclass(frozen=True, eq=False)
class EpochEnd:
    """What an epoch came to, for whoever sets the next ones.

    Attributes
    ----------
    epoch : int
        From 0.
    settings : EpochSettings
        Those in force.
    leaderboard : structured ndarray, shape (n_candidates,)
        At the epoch's end, best first.
    memory : Memory
        What is remembered of each candidate, this epoch included; ``vesu.grid_search.evolution``.
    n_neurons : int
    diverged : bool ndarray, shape (n_candidates,)
    """

    epoch: int
    settings: EpochSettings
    leaderboard: NDArray[Any]
    memory: Memory
    n_neurons: int
    diverged: NDArray[np.bool_]
    _take: Callable[[], SearchState]

    def state(self) -> SearchState:
        """The search as it stands here, to go back to it later: :attr:`NextEpochs.restore`."""
        return self._take()


@dataclass(frozen=True, eq=False)
class NextEpochs:
    """What holds from here on.

    Attributes
    ----------
    settings : EpochSettings
        ``epochs``, ``min_delta`` and ``max_epochs`` stay as they are.
    restore : SearchState or None
        Where the candidates go back to before anything else happens: parameters, steps, divergence and memory of each,
        bit for bit. Candidates that have come since stay as they are, and what counts epochs goes on counting.
    """

    settings: EpochSettings
    restore: SearchState | None = None


OnEpoch: TypeAlias = Callable[[EpochEnd], NextEpochs]
"""Called at each epoch's end, before it is decided whether another follows."""


@dataclass(eq=False)
class EpochLoop:
    """Runs a search from where it stands through all its epochs."""

    search: Search
    settings: EpochSettings
    samples_of: Callable[[int], AnySamples]
    """The training samples of an epoch."""
    validation: AnySamples | None
    """Without, an epoch is judged on its own training samples."""
    weights: SelectionWeights
    max_iter: int
    on_iteration: OnIteration | None = None
    on_event: OnEvent | None = None
    on_epoch: OnEpoch | None = None

    def run(self) -> tuple[NDArray[Any], AnySamples]:
        """The last epoch's leaderboard, and its training samples."""
        self.memory = Memory.of(self.search)
        samples = self.samples_of(self.search.epoch)
        while True:
            table = self._epoch(samples)
            if self.on_epoch is not None:
                table = self._set_next(self.on_epoch, table, samples)
            reason = self._end()
            if reason is not None:
                break
            del samples  # before the next draw takes its room
            samples = self.samples_of(self.search.epoch + 1)
            self._next()
        if self.settings.evolves and self.settings.prune_quantile > 0:
            table = prune_winner(self.search, table, self.settings.prune_quantile, self._ranker(samples), self._emit)
        self._emit("EPOCHS_DONE", {"epochs": self.search.epoch + 1, "reason": reason})
        return table, samples

    def _epoch(self, samples: AnySamples) -> NDArray[Any]:
        search = self.search
        common = {"epoch": search.epoch, "samples": samples.n_samples}
        self._emit(
            "EPOCH_START",
            common
            | {
                "candidates": len(search.candidates),
                "meta_neurons": search.n_neurons,
                "iterations_done": search.iteration,
            },
        )
        search.advance(samples, self.max_iter, self._observe)
        table = judge_mutations(search, self.memory, self._ranker(samples), self._emit)
        self.memory.judge(table, self.settings.min_delta)
        self._remember()
        best = table[0]
        self._emit(
            "EPOCH_END",
            common
            | {
                "best_candidate": int(best["candidate"]),
                "best_objective": float(best["objective"]),
                "epochs_without_improvement": int(self.memory.search_stagnant[0]),
                "diverged": int(search.diverged.sum()),
                "judged_on": "train" if self.validation is None else "validation",
            },
        )
        return table

    def _set_next(self, on_epoch: OnEpoch, table: NDArray[Any], samples: AnySamples) -> NDArray[Any]:
        """Ask what holds from here on; the leaderboard after it."""
        search = self.search
        following = on_epoch(
            EpochEnd(
                search.epoch,
                self.settings,
                table,
                self.memory,
                search.n_neurons,
                search.diverged.copy(),
                lambda: search.snapshot(""),  # to go back to on whichever samples there are then
            )
        )
        for name in ("epochs", "min_delta", "max_epochs"):
            got, accepted = (getattr(each, name) for each in (following.settings, self.settings))
            if got != accepted:
                raise ArgumentError(f"on_epoch: got {name} {got}; accepted: {accepted}, which stays as it is")
        self.settings = following.settings
        if following.restore is None:
            return table
        restore(search, self.memory, following.restore)
        self._remember()
        return self._ranker(samples)(None)

    def _end(self) -> str | None:
        """Why there is no further epoch, or None."""
        settings, done = self.settings, self.search.epoch + 1
        if settings.epochs == 0 and self.memory.search_stagnant[0] >= settings.patience:
            return f"no better objective for {settings.patience} epochs"
        if done >= settings.limit:
            return "as many epochs as asked for" if settings.epochs else f"the cap of {settings.max_epochs} epochs"
        return None

    def _next(self) -> None:
        """Everything between two epochs: growth, step lengths, mutations."""
        search, settings = self.search, self.settings
        before = search.n_neurons
        search.begin_epoch(before + settings.meta_neurons_growth)
        if search.n_neurons > before:
            grown = {"epoch": search.epoch, "before": before, "after": search.n_neurons}
            self._emit("META_NEURONS_GROWN", grown | {"candidates": len(search.candidates)})
        if settings.adapt_learning_rate and search.problem.method != "prox_newton":
            adapt_learning_rates(search, self.memory, self._emit)
        self.memory = self.memory.grown(*search.params.shape)
        mutate(search, self.memory, settings.mutation_noise, settings.stagnation_epochs, self._emit)
        self._remember()

    def _observe(self, record: IterationRecord) -> None:
        # Remembered first, so that a state taken in the callback holds this iteration too.
        self.memory.observe(record.iteration, record.loss)
        self._remember()
        if self.on_iteration is not None:
            self.on_iteration(record)

    def _remember(self) -> None:
        self.search.memory = dict(vars(self.memory))

    def _ranker(self, samples: AnySamples) -> Callable[[NDArray[np.float64] | None], NDArray[Any]]:
        judged = samples if self.validation is None else self.validation
        return lambda params: self.search.rank(judged, self.weights, params)

    def _emit(self, name: str, values: Mapping[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(name, values)
