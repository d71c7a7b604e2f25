"""What a search solves: grid, penalties, standardisation, steps; the same over all its epochs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search.checks import integer, number, penalties_of
from vesu.grid_search.samples import AnySamples
from vesu.grid_search.solver import Method, Place, Solver, make_solver

__all__ = ["MAX_CANDIDATES", "Problem", "candidate_table", "parameters_of", "pose"]

DEFAULT_LEARNING_RATE = 0.08
CANDIDATE_DTYPE = np.dtype([("candidate", np.int64), ("neuron", np.int64), ("l1", np.float64), ("l2", np.float64)])
MAX_CANDIDATES = 1 << 20


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that decides a search besides the samples of an epoch; it stays the same over all epochs."""

    method: Method
    device: Place
    """Where the solver runs: cpu, cuda or torch."""
    simd: str
    """Instruction-set path of the scores, and of the solver on the CPU."""
    meta_neurons: int
    """Neurons of the first epoch; more may have grown since."""
    l1: tuple[float, ...]
    l2: tuple[float, ...]
    seed: int
    init_scale: float
    bootstrap: bool
    tol: float
    uses_gradient: bool
    class_weight: tuple[float, float]
    learning_rate: float
    lipschitz: float
    mean: NDArray[np.float64]
    """Of the first epoch's samples, as the scale."""
    scale: NDArray[np.float64]

    @property
    def per_neuron(self) -> int:
        return len(self.l1) * len(self.l2)

    def candidates(self, n_neurons: int) -> NDArray[Any]:
        """The grid, neuron-major: a grid of fewer neurons is its beginning."""
        return candidate_table(n_neurons, self.l1, self.l2)

    def solver(self, n_neurons: int) -> Solver:
        """A solver of the grid at its start.

        Raises
        ------
        ArgumentError, MemoryLimitError
            A parameter out of range; a grid whose working memory is beyond the limit, refused before allocating.
        """
        return make_solver(self.device, self.solver_arguments(n_neurons))

    def solver_arguments(self, n_neurons: int) -> dict[str, Any]:
        """Everything that makes :meth:`solver`, as plain values: another process can make the same one."""
        arguments = {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "uses_gradient": self.uses_gradient,
            "meta_neurons": n_neurons,
            "l1": list(self.l1),
            "l2": list(self.l2),
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "init_scale": self.init_scale,
            "bootstrap": self.bootstrap,
            "class_weight": self.class_weight,
            "method": self.method,
        }
        return arguments | ({"simd": self.simd, "tol": self.tol} if self.device == "cpu" else {})

    def step_bound(self, candidates: NDArray[Any]) -> NDArray[np.float64]:
        """1 / (L + l2) of each candidate: no longer a step is known never to raise the objective."""
        bound: NDArray[np.float64] = 1.0 / (self.lipschitz + candidates["l2"])
        return bound


def candidate_table(n_neurons: int, l1: tuple[float, ...], l2: tuple[float, ...]) -> NDArray[Any]:
    """Structured array (n_candidates,) of candidate, neuron, l1, l2.

    Raises
    ------
    ArgumentError
        More candidates than 2**20.
    """
    n = n_neurons * len(l1) * len(l2)
    if n > MAX_CANDIDATES:
        raise ArgumentError(f"meta_neurons: got {n} candidates in all; accepted: 2**20")
    table = np.empty(n, CANDIDATE_DTYPE)
    table["candidate"] = np.arange(n)
    for name, values in zip(
        ("neuron", "l1", "l2"), np.meshgrid(np.arange(n_neurons), l1, l2, indexing="ij"), strict=True
    ):
        table[name] = values.ravel()
    return table


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a problem that an estimator's parameters fix by themselves, checked.

    Raises
    ------
    ArgumentError
        A value that is out of range or of a wrong type, by name.
    """
    solver, tol = given["solver"], number("tol", given["tol"])
    if not (isinstance(solver, str) and solver in get_args(Method)):
        raise ArgumentError(f"solver: got {solver!r}; accepted: one of {', '.join(get_args(Method))}")
    if not 0 < tol < 1:
        raise ArgumentError(f"tol: got {tol}; accepted: above 0, below 1")
    fixed: dict[str, Any] = {
        "method": solver,
        "tol": tol,
        "simd": _core.simd_path(given["simd"]),
        "meta_neurons": integer("meta_neurons", given["meta_neurons"], 1, MAX_CANDIDATES),
        "l1": penalties_of("l1", given["l1"]),
        "l2": penalties_of("l2", given["l2"]),
        "seed": integer("seed", given["seed"], 0, (1 << 64) - 1),
        "init_scale": number("init_scale", given["init_scale"]),
        "bootstrap": bool(given["bootstrap"]),
    }
    rate = given["learning_rate"]
    if not (isinstance(rate, str) and rate == "auto"):
        fixed["learning_rate"] = number("learning_rate", rate)
    return fixed


def pose(
    fixed: Mapping[str, Any],
    train: AnySamples,
    class_weight: tuple[float, float],
    device: Place,
    n_threads: int | None,
) -> Problem:
    """The problem of these parameters on these samples: standardisation, Lipschitz constant, step length.

    Raises
    ------
    ArgumentError
        NaN or infinities in the samples (count and first position); parameters that the solver refuses.
    MemoryLimitError
        A grid whose working memory is beyond the limit; refused before allocating.
    """
    candidate_table(fixed["meta_neurons"], fixed["l1"], fixed["l2"])
    mean, scale = train.standardise(n_threads)
    # This also refuses a gradient that is not finite, so that the steps need not look again.
    lipschitz = train.lipschitz(mean, scale, class_weight, n_threads)
    safe = min(DEFAULT_LEARNING_RATE, 1.0 / (lipschitz + max(fixed["l2"])))
    rate = fixed.get("learning_rate", safe)
    return Problem(
        **{name: value for name, value in fixed.items() if name != "learning_rate"},
        device=device,
        uses_gradient=train.has_gradient,
        class_weight=class_weight,
        learning_rate=rate,
        lipschitz=lipschitz,
        mean=mean,
        scale=scale,
    )
