"""The engine of a search: one problem, every candidate's state, epoch after epoch."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.problem import Problem
from vesu.grid_search.samples import AnySamples
from vesu.grid_search.selection import SelectionWeights, leaderboard
from vesu.grid_search.solver import Solver, SolverState
from vesu.grid_search.state import SearchState

__all__ = ["IterationRecord", "OnIteration", "Search", "check_same"]


@dataclass(frozen=True, eq=False)
class IterationRecord:
    """What one iteration saw of every candidate (R51); arrays have shape (n_candidates,).

    All three are taken at the point where the iteration's gradient was taken, before its step.
    """

    iteration: int
    """Counts from 1 in each epoch."""
    max_iter: int
    loss: NDArray[np.float64]
    """The whole objective: weighted mean logistic loss plus penalty."""
    gradient_norm: NDArray[np.float64]
    """Norm of the proximal gradient mapping (t - t_next) / learning_rate with the intercept; 0 only at the optimum."""
    nonzero: NDArray[np.int64]
    """Coefficients that are not zero, without the intercept."""
    candidate_first: int
    candidate_last: int
    epoch: int = 0
    """From 0."""
    _take: Callable[[], SearchState] | None = field(default=None, repr=False)

    def state(self) -> SearchState:
        """The whole search after this iteration; only inside the callback that got the record (R36).

        Raises
        ------
        ArgumentError
            The search has gone on since, or the record is not of a running search.
        """
        state = None if self._take is None else self._take()
        if state is None or (state.epoch, state.iteration) != (self.epoch, self.iteration):
            raise ArgumentError("state: got a record of an earlier iteration; accepted: inside on_iteration")
        return state


OnIteration: TypeAlias = Callable[[IterationRecord], None]


@dataclass(eq=False)
class Search:
    """Every candidate of a problem between two iterations. Holds arrays and numbers only, never samples or a solver."""

    problem: Problem
    n_neurons: int
    state: SolverState
    n_threads: int | None
    epoch: int = 0
    iteration: int = 0
    """Iterations done in this epoch."""
    memory: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What the epochs' loop remembers, on its behalf."""

    @classmethod
    def start(cls, problem: Problem, n_threads: int | None) -> "Search":
        solver = problem.solver(problem.meta_neurons)
        return cls(problem, problem.meta_neurons, solver.state(), n_threads)

    @classmethod
    def resume(cls, state: SearchState, n_threads: int | None) -> "Search":
        memory = {name: array.copy() for name, array in state.memory.items()}
        search = cls(
            state.problem, state.n_neurons, dict(state.solver), n_threads, state.epoch, state.iteration, memory
        )
        search.solver()  # refuses arrays that are not this method's, before any work
        return search

    def copy(self) -> "Search":
        """Another search at the same point; what one does from here the other does not see."""
        return replace(self, state=dict(self.state), memory=dict(self.memory))

    def solver(self) -> Solver:
        """A solver that stands where this search stands."""
        solver = self.problem.solver(self.n_neurons)
        solver.set_state(self.state)
        return solver

    @property
    def candidates(self) -> NDArray[Any]:
        return self.problem.candidates(self.n_neurons)

    @property
    def params(self) -> NDArray[np.float64]:
        """(n_candidates, n_coefficients + 1), the intercept last."""
        params: NDArray[np.float64] = self.state["params"]
        return params

    @property
    def diverged(self) -> NDArray[np.bool_]:
        diverged: NDArray[np.bool_] = self.state["diverged"]
        return diverged

    def snapshot(self, samples_id: str, solver_state: SolverState | None = None) -> SearchState:
        """This search as it stands, in the middle of an epoch with the running solver's own state."""
        state = self.state if solver_state is None else solver_state
        return SearchState(
            self.problem, self.n_neurons, self.epoch, self.iteration, samples_id, state, dict(self.memory)
        )

    def advance(self, samples: AnySamples, max_iter: int, on_iteration: OnIteration | None) -> None:
        """The epoch's iterations that are still to do; all of them, unless every candidate's optimum is certified."""
        solver = self.solver()
        samples_id = functools.cache(lambda: samples.digest(self.n_threads))
        step = samples.stepper(self.problem, self.n_neurons, solver, self.n_threads)
        last = len(self.candidates) - 1
        while self.iteration < max_iter and not _solved(solver):
            stats = step()
            self.iteration += 1
            if on_iteration is not None:
                record = IterationRecord(
                    self.iteration,
                    max_iter,
                    *stats,
                    candidate_first=0,
                    candidate_last=last,
                    epoch=self.epoch,
                    _take=lambda: self.snapshot(samples_id(), solver.state()),
                )
                on_iteration(record)
        self.state = solver.state()

    def begin_epoch(self, n_neurons: int) -> None:
        """The next epoch: each candidate goes on from its own point, on other samples.

        Beyond the neurons so far, new ones stand at their own start: the grid is neuron-major, so that the old
        candidates keep their numbers.
        """
        if n_neurons < self.n_neurons:
            accepted = f"{self.n_neurons} or more, a grid never shrinks"
            raise ArgumentError(f"meta_neurons: got {n_neurons}; accepted: {accepted}")
        # A start loss that is not a number, as a fresh state has it, tells the solver to forget its momentum, trials
        # and certificates, for they belong to the old samples.
        old, fresh = self.state, self.problem.solver(n_neurons).state()
        for name in ("params", "learning_rate", "diverged"):
            fresh[name][: len(old[name])] = old[name]
        fresh["iteration"] = old["iteration"]
        self.n_neurons, self.state = n_neurons, fresh
        self.epoch, self.iteration = self.epoch + 1, 0

    def rank(
        self, samples: AnySamples, weights: SelectionWeights, params: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The leaderboard of all candidates on these samples, of other ``params`` where given (R13)."""
        params = self.params if params is None else params
        if self.diverged.all():
            rate = self.problem.learning_rate
            raise ArgumentError(
                f"learning_rate: got {rate}, with which every candidate diverged "
                f"(lipschitz_ = {self.problem.lipschitz:.4g}); accepted: a smaller number, or 'auto'"
            )
        thresholds = weights.thresholds().tolist()
        cross_entropy, reached = samples.evaluate(self.problem, params, thresholds, self.n_threads)
        coef = params[:, :-1]
        return leaderboard(
            self.candidates,
            cross_entropy,
            reached,
            samples.class_sizes(),
            np.count_nonzero(coef, axis=1),
            coef.shape[1],
            self.diverged,
            weights,
        )

    def relative_gap(self, samples: AnySamples) -> NDArray[np.float64]:
        """Duality gap over objective of each candidate on these samples; 0 only at the optimum."""
        objective, gap = samples.certify(self.solver(), self.n_threads)
        return np.divide(gap, objective, out=np.zeros_like(gap), where=gap > 0)


def _solved(solver: Solver) -> bool:
    """Whether no further iteration can change anything: every optimum certified, or its candidate frozen."""
    converged = solver.converged
    return bool(converged.any()) and bool((converged | solver.state()["diverged"]).all())


def check_same(state: SearchState, asked: Mapping[str, Any], n_features: int) -> None:
    """Refuse a state of another search; ``asked`` holds the fields of the problem as this search has them.

    Raises
    ------
    ArgumentError
        Naming the field.
    """
    found = {name: getattr(state.problem, name) for name in asked} | {"n_features": len(state.problem.mean)}
    for name, wanted in {**asked, "n_features": n_features}.items():
        if found[name] != wanted:
            raise ArgumentError(f"state.{name}: got {found[name]!r}; accepted: {wanted!r}, as in this search")
