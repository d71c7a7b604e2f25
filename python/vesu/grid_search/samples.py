"""The samples of a search, and the sums over all of them that a search asks for."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import _core

if TYPE_CHECKING:
    from vesu.grid_search.problem import Problem
    from vesu.grid_search.solver import Solver

__all__ = ["AnySamples", "Samples", "Step", "combined_digest", "task_digests"]

Doubles: TypeAlias = NDArray[np.float64]
Step: TypeAlias = Callable[[], tuple[Doubles, Doubles, NDArray[np.int64]]]
"""One iteration of a solver: loss, gradient norm, non-zero coefficients, each (n_candidates,)."""


class AnySamples(Protocol):
    """Labelled samples, in this process or shared between several; the answers have the same bits."""

    @property
    def n_samples(self) -> int: ...
    @property
    def n_features(self) -> int: ...
    @property
    def has_gradient(self) -> bool: ...

    def class_sizes(self) -> tuple[int, int]:
        """Negative and positive samples."""

    def standardise(self, n_threads: int | None) -> tuple[Doubles, Doubles]:
        """Mean and deviation of each feature; (its value, 1) where it is constant."""

    def lipschitz(
        self, mean: Doubles, scale: Doubles, class_weight: tuple[float, float], n_threads: int | None
    ) -> float:
        """Of the datafit's gradient."""

    def stepper(self, problem: "Problem", n_neurons: int, solver: "Solver", n_threads: int | None) -> Step:
        """What takes the solver one iteration further on these samples."""

    def evaluate(
        self, problem: "Problem", params: Doubles, thresholds: Sequence[float], n_threads: int | None
    ) -> tuple[Doubles, NDArray[np.uint64]]:
        """Cross-entropy (n_candidates,), and samples of each class that reach each threshold (n_candidates, 2, n)."""

    def certify(self, solver: "Solver", n_threads: int | None) -> tuple[Doubles, Doubles]:
        """Objective and duality gap of the solver's candidates, each (n_candidates,)."""

    def digest(self, n_threads: int | None) -> str:
        """BLAKE3 of the samples: what tells whether a state goes on with its own."""


@dataclass(frozen=True)
class Samples:
    """Checked arrays of one data set, in this process: x and gradient float32 (n, F), y uint8 (n,) of 0 and 1.

    Examples
    --------
    >>> samples = Samples(np.float32([[0], [2]]), np.uint8([0, 1]), None)
    >>> mean, scale = samples.standardise(None)
    >>> samples.class_sizes(), mean.tolist(), scale.tolist()
    ((1, 1), [1.0], [1.0])
    """

    x: NDArray[np.float32]
    y: NDArray[np.uint8]
    gradient: NDArray[np.float32] | None

    @property
    def n_samples(self) -> int:
        return len(self.y)

    @property
    def n_features(self) -> int:
        return int(self.x.shape[1])

    @property
    def has_gradient(self) -> bool:
        return self.gradient is not None

    def class_sizes(self) -> tuple[int, int]:
        positives = int(np.count_nonzero(self.y))
        return len(self.y) - positives, positives

    def standardise(self, n_threads: int | None) -> tuple[Doubles, Doubles]:
        return _core.prox_standardise(self.x, n_threads)

    def lipschitz(
        self, mean: Doubles, scale: Doubles, class_weight: tuple[float, float], n_threads: int | None
    ) -> float:
        return _core.prox_lipschitz(
            self.x, self.y, self.gradient, mean.tolist(), scale.tolist(), class_weight, n_threads
        )

    def stepper(self, problem: "Problem", n_neurons: int, solver: "Solver", n_threads: int | None) -> Step:
        return lambda: solver.step(self.x, self.y, self.gradient, n_threads)

    def evaluate(
        self, problem: "Problem", params: Doubles, thresholds: Sequence[float], n_threads: int | None
    ) -> tuple[Doubles, NDArray[np.uint64]]:
        return _core.prox_evaluate(
            self.x,
            self.y,
            self.gradient,
            problem.mean.tolist(),
            problem.scale.tolist(),
            params,
            list(thresholds),
            problem.simd,
            n_threads,
        )

    def certify(self, solver: "Solver", n_threads: int | None) -> tuple[Doubles, Doubles]:
        return solver.certify(self.x, self.y, self.gradient, n_threads)

    def digest(self, n_threads: int | None) -> str:
        return combined_digest(task_digests(self, 0, self.n_samples, n_threads))


def task_digests(held: Samples, first: int, n_samples: int, n_threads: int | None) -> list[str]:
    """BLAKE3 of each task's samples; those held are the ones from ``first`` on of ``n_samples``."""
    arrays: list[NDArray[Any]] = [held.x, held.y]
    arrays += [] if held.gradient is None else [held.gradient]
    end = first + held.n_samples
    bounds = [bound - first for bound in _core.prox_tasks(n_samples) if first <= bound <= end]
    return [
        "".join(_core.blake3_array(np.ascontiguousarray(array[start:stop]), n_threads) for array in arrays)
        for start, stop in itertools.pairwise(bounds)
    ]


def combined_digest(tasks: Sequence[str]) -> str:
    """Of all tasks in order: no process needs to hold them all."""
    return _core.blake3_bytes("".join(tasks).encode())
