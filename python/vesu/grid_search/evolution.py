"""Evolution between epochs: step lengths that adapt, mutations that must earn their place, a pruned winner (R15).

Every decision is made from arrays alone and reported as an event, so that a run can be followed and repeated bit for
bit. Nothing here takes a candidate out of the grid (R50).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.search import Search
from vesu.grid_search.solver import OnEvent
from vesu.grid_search.state import SearchState

__all__ = ["Memory", "adapt_learning_rates", "judge_mutations", "mutate", "prune_winner", "restore"]

SHRINK = 0.5
GROW = 1.25
RISE = 1e-6
"""A loss that is higher by less than this part of itself is float32 noise, no rise."""

Rank = Callable[[NDArray[np.float64] | None], NDArray[Any]]
"""The leaderboard of all candidates, of other parameters where given."""


@dataclass(eq=False)
class Memory:
    """What is remembered of each candidate from one epoch to the next; first axis the candidate."""

    first_loss: NDArray[np.float64]
    """Objective at the first iteration of the epoch."""
    last_loss: NDArray[np.float64]
    rises: NDArray[np.int64]
    """Iterations of the epoch that raised the objective."""
    best: NDArray[np.float64]
    """Least validation objective at any epoch's end."""
    stagnant: NDArray[np.int64]
    """Epochs since it fell by more than the least difference."""
    mutated: NDArray[np.bool_]
    """Whether the candidate runs this epoch as a mutation."""
    parent: NDArray[np.float64]
    """(n_candidates, n_coefficients + 1): what a mutation goes back to."""
    search_best: NDArray[np.float64]
    """(1,): least validation objective of any candidate."""
    search_stagnant: NDArray[np.int64]
    """(1,): epochs since that fell by more than the least difference."""

    @classmethod
    def empty(cls, n: int, width: int) -> "Memory":
        return cls(
            first_loss=np.full(n, math.nan),
            last_loss=np.full(n, math.nan),
            rises=np.zeros(n, np.int64),
            best=np.full(n, math.inf),
            stagnant=np.zeros(n, np.int64),
            mutated=np.zeros(n, bool),
            parent=np.zeros((n, width)),
            search_best=np.full(1, math.inf),
            search_stagnant=np.zeros(1, np.int64),
        )

    @classmethod
    def of(cls, search: Search) -> "Memory":
        """The search's memory, checked; an empty one where it has none.

        Raises
        ------
        ArgumentError
            Arrays of a state that do not make a memory, by name.
        """
        empty = cls.empty(*search.params.shape)
        if not search.memory:
            return empty
        if search.memory.keys() != vars(empty).keys():
            raise ArgumentError(f"state.memory: got {sorted(search.memory)}; accepted: {sorted(vars(empty))}")
        for name, wanted in vars(empty).items():
            found = search.memory[name]
            if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                got, accepted = (f"{a.dtype} of shape {a.shape}" for a in (found, wanted))
                raise ArgumentError(f"state.memory[{name!r}]: got {got}; accepted: {accepted}")
        return cls(**search.memory)

    def grown(self, n: int, width: int) -> "Memory":
        """The same with room for new candidates behind the old ones."""
        grown = Memory.empty(n, width)
        for field in fields(self):
            old = getattr(self, field.name)
            getattr(grown, field.name)[: len(old)] = old
        return grown

    def observe(self, iteration: int, loss: NDArray[np.float64]) -> None:
        """One iteration's objectives (the arrays are replaced, never changed: a state may hold them)."""
        if iteration == 1:
            self.first_loss, self.rises = loss.copy(), np.zeros_like(self.rises)
        else:
            self.rises = self.rises + (loss > self.last_loss + RISE * np.abs(self.last_loss))
        self.last_loss = loss.copy()

    def judge(self, table: NDArray[Any], min_delta: float) -> None:
        """The objectives at an epoch's end: who improved, who stagnates."""
        objective = by_candidate(table)
        improved = objective < self.best - min_delta
        self.best = np.where(improved, objective, self.best)
        self.stagnant = np.where(improved, 0, self.stagnant + 1)
        least = float(table["objective"][0])
        better = least < self.search_best[0] - min_delta
        self.search_best = np.array([least]) if better else self.search_best
        self.search_stagnant = np.zeros(1, np.int64) if better else self.search_stagnant + 1


def by_candidate(table: NDArray[Any]) -> NDArray[np.float64]:
    """The leaderboard's objective in the candidates' order; infinite where not a number."""
    objective = np.empty(len(table))
    objective[table["candidate"]] = table["objective"]
    return np.where(np.isnan(objective), math.inf, objective)


def adapt_learning_rates(search: Search, memory: Memory, emit: OnEvent) -> None:
    """Halve the step of a candidate whose objective rose over the epoch or that diverged; lengthen one that only fell.

    No step grows beyond 1 / (L + l2), where the objective cannot rise, or the user's own number where that is longer. A
    diverged candidate starts again from its own start with the shorter step.
    """
    n = len(memory.first_loss)
    candidates = search.candidates[:n]
    before = search.state["learning_rate"][:n].copy()
    diverged = search.diverged[:n].copy()
    cap = np.maximum(search.problem.step_bound(candidates), search.problem.learning_rate)
    with np.errstate(invalid="ignore"):
        rose = memory.last_loss > memory.first_loss + RISE * np.abs(memory.first_loss)
        fell = (memory.last_loss < memory.first_loss) & (memory.rises == 0)
    after = np.where(fell, np.minimum(before * GROW, cap), before)
    after = np.where(rose | diverged, before * SHRINK, after)
    search.state["learning_rate"][:n] = after
    restart = np.flatnonzero(diverged)
    if len(restart):
        start = search.problem.solver(search.n_neurons).state()
        for name in ("params", "diverged"):
            search.state[name][restart] = start[name][restart]
    for candidate in np.flatnonzero(after != before).tolist():
        reason = "objective rose" if rose[candidate] else "objective fell steadily"
        emit(
            "LEARNING_RATE_ADAPTED",
            {
                "epoch": search.epoch,
                "candidate": candidate,
                "before": float(before[candidate]),
                "after": float(after[candidate]),
                "reason": "diverged" if diverged[candidate] else reason,
                "restarted": bool(diverged[candidate]),
            },
        )


def mutate(search: Search, memory: Memory, noise: float, stagnation_epochs: int, emit: OnEvent) -> None:
    """Shake the candidates that stagnate; their parents are kept until :func:`judge_mutations`.

    Each coefficient gets uniform noise of standard deviation ``noise`` times the root mean square of the candidate's
    coefficients, from Philox at (seed, epoch, candidate): no order of candidates matters.
    """
    memory.mutated = np.zeros(len(memory.mutated), bool)
    chosen = np.flatnonzero((memory.stagnant >= stagnation_epochs) & ~search.diverged[: len(memory.stagnant)])
    if noise == 0 or not len(chosen):
        return
    memory.mutated[chosen] = True
    memory.parent = memory.parent.copy()
    for candidate in chosen.tolist():
        params = search.state["params"][candidate]
        memory.parent[candidate] = params
        size = float(np.sqrt(np.mean(params[:-1] ** 2))) or search.problem.init_scale
        params += noise * size * unit_noise(search.problem.seed, search.epoch, candidate, len(params))
        emit("MUTATION_APPLIED", {"epoch": search.epoch, "candidate": candidate, "noise": noise * size})
    memory.stagnant = np.where(memory.mutated, 0, memory.stagnant)


def unit_noise(seed: int, epoch: int, candidate: int, n: int) -> NDArray[np.float64]:
    """Uniform noise of mean 0 and deviation 1; a pure function of its arguments, from the generator's raw bits."""
    bits = np.random.Philox(key=seed, counter=[0, 0, candidate, epoch]).random_raw(n)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    noise: NDArray[np.float64] = math.sqrt(12.0) * (uniform - 0.5)
    return noise


def judge_mutations(search: Search, memory: Memory, rank: Rank, emit: OnEvent) -> NDArray[Any]:
    """The epoch's leaderboard, after every mutation that scores worse than its parent went back to it."""
    table = rank(None)
    mutated = np.flatnonzero(memory.mutated)
    if not len(mutated):
        return table
    with_parents = search.params.copy()
    with_parents[mutated] = memory.parent[mutated]
    scored, parents = by_candidate(table), by_candidate(rank(with_parents))
    for candidate in mutated.tolist():
        kept = bool(scored[candidate] <= parents[candidate]) and not search.diverged[candidate]
        if not kept:
            search.state["params"][candidate] = memory.parent[candidate]
            search.state["diverged"][candidate] = False
        emit(
            "MUTATION_KEPT" if kept else "MUTATION_ROLLED_BACK",
            {
                "epoch": search.epoch,
                "candidate": candidate,
                "objective": _finite(scored[candidate]),
                "parent_objective": _finite(parents[candidate]),
            },
        )
    memory.mutated = np.zeros(len(memory.mutated), bool)
    return rank(None)


def restore(search: Search, memory: Memory, state: SearchState) -> None:
    """Put every candidate of ``state`` back where it stood there, bit for bit, with what was remembered of it.

    Candidates that have come since stay as they are: a grid never shrinks. What is the search's own, the least
    objective of any candidate and the epochs since, stays too: those epochs were spent.
    """
    n = len(state.solver["params"])
    for name in ("params", "learning_rate", "diverged"):
        search.state[name] = search.state[name].copy()
        search.state[name][:n] = state.solver[name]
    for field in fields(memory):
        if not field.name.startswith("search_"):
            array = getattr(memory, field.name).copy()
            array[:n] = state.memory[field.name]
            setattr(memory, field.name, array)


def prune_winner(search: Search, table: NDArray[Any], quantile: float, rank: Rank, emit: OnEvent) -> NDArray[Any]:
    """Zero the winner's coefficients up to a quantile of their sizes, unless its validation objective worsens."""
    winner = int(table["candidate"][0])
    coef = search.params[winner, :-1]
    sizes = np.abs(coef[coef != 0])
    if not len(sizes):
        return table
    pruned = search.params.copy()
    pruned[winner, :-1][np.abs(coef) <= np.quantile(sizes, quantile, method="lower")] = 0.0
    after = rank(pruned)
    before_objective, objective = by_candidate(table)[winner], by_candidate(after)[winner]
    accepted = bool(objective <= before_objective)
    emit(
        "WINNER_PRUNED" if accepted else "WINNER_PRUNE_REJECTED",
        {
            "epoch": search.epoch,
            "candidate": winner,
            "quantile": quantile,
            "nonzero_before": len(sizes),
            "nonzero_after": int(np.count_nonzero(pruned[winner, :-1])),
            "objective_before": _finite(before_objective),
            "objective_after": _finite(objective),
        },
    )
    if not accepted:
        return table
    search.state["params"][winner] = pruned[winner]
    return after


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
