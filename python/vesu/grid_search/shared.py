"""Samples that several processes hold, each its own rows: a search over them has the bits of one process (R11, R53).

The core cuts every pass over the samples into at most 128 tasks and adds their sums up in the order of the tasks. Here
each process holds the samples of a range of tasks and answers with its tasks' sums; the first process adds up all of
them in the same order. It alone has the search's state, so that checkpoints, events and a resume on another number of
processes are those of a search in one process.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search.problem import Problem
from vesu.grid_search.samples import Doubles, Samples, Step, combined_digest, task_digests
from vesu.grid_search.solver import Solver

__all__ = ["Arrays", "Shards", "SharedSamples", "Workers", "row_ranges"]

Arrays: TypeAlias = dict[str, NDArray[Any]]

LEAST_SCALE = 1e-37
"""A deviation below this has no inverse in float32: the column counts as constant."""


class Workers(Protocol):
    """The processes that share the samples, as the first of them sees them."""

    @property
    def world(self) -> int:
        """How many, this one included."""

    def ask(
        self, command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, only: int | None = None
    ) -> list[Arrays]:
        """What :meth:`Shards.answer` says in every process, in their order; or in the process ``only`` alone."""


def row_ranges(n_samples: int, world: int) -> list[tuple[int, int]]:
    """First row and end of what each process holds: whole tasks, as evenly as they allow.

    Examples
    --------
    >>> row_ranges(50_000, 3)
    [(0, 30720), (30720, 46080), (46080, 50000)]
    >>> row_ranges(10, 2)  # one task
    [(0, 10), (10, 10)]
    """
    bounds = _core.prox_tasks(n_samples)
    n_tasks = len(bounds) - 1
    cuts = [bounds[-(-rank * n_tasks // world)] for rank in range(world + 1)]
    return list(itertools.pairwise(cuts))


class Shards:
    """What one process holds of the samples of a search, and its answers on them.

    Parameters
    ----------
    n_threads : int
        Threads where the asker leaves the choice.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._held: dict[str, _Shard] = {}
        self._solver: Any = None

    def answer(self, command: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """Do what the first process asks.

        Raises
        ------
        VesuError
            Whatever the core refuses.
        """
        if command == "pose":
            self._solver = _core.ProxSolver(**fields)
            return {}
        if command == "hold":
            self._held.pop(fields["name"], None)  # before the new one takes its room
            self._held[fields["name"]] = _Shard(**{name: value for name, value in fields.items() if name != "name"})
            return {}
        shard, threads = self._held[fields["name"]], fields.get("n_threads") or self._n_threads
        match command:
            case "drop":
                del self._held[fields["name"]]
                return {}
            case "rows":
                return shard.fill(fields["at"], arrays)
            case "columns":
                return shard.columns(arrays.get("centre"), threads)
            case "ranges":
                return shard.ranges()
            case "moments":
                return shard.moments(arrays, fields["class_weight"], threads)
            case "pass":
                return shard.sums(self._solver, arrays["points"], threads)
            case "evaluate":
                return shard.evaluate(arrays, fields["thresholds"], fields["simd"], threads)
            case "digest":
                return shard.digest(threads)
        raise ArgumentError(f"command: got {command!r}; accepted: one of this version's")


class _Shard:
    """The rows of one process: those from ``first`` on of ``n_samples``."""

    def __init__(self, first: int, end: int, n_samples: int, n_features: int, has_gradient: bool) -> None:
        self.first, self.n_samples = first, n_samples
        n = end - first
        self.rows = Samples(
            np.empty((n, n_features), np.float32),
            np.empty(n, np.uint8),
            np.empty((n, n_features), np.float32) if has_gradient else None,
        )
        self.width = n_features * (3 if has_gradient else 2) + 1

    @property
    def is_empty(self) -> bool:
        return self.rows.n_samples == 0

    def fill(self, at: int, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        for name, values in arrays.items():
            getattr(self.rows, name)[at : at + len(values)] = values
        return {}

    def columns(self, centre: Doubles | None, threads: int) -> Arrays:
        if self.is_empty:
            return _no_sums(self.rows.n_features)
        at = None if centre is None else centre.tolist()
        return {"sums": _core.prox_column_sums(self.rows.x, at, self.first, self.n_samples, threads)}

    def ranges(self) -> Arrays:
        """Least and largest value of each column, and the first row; nothing of no rows."""
        x = self.rows.x
        return {} if self.is_empty else {"range": np.stack([x.min(axis=0), x.max(axis=0), x[0]])}

    def moments(self, arrays: Mapping[str, NDArray[Any]], class_weight: Sequence[float], threads: int) -> Arrays:
        if self.is_empty:
            return _no_sums(self.width**2)
        rows, standard = self.rows, (arrays["mean"].tolist(), arrays["scale"].tolist())
        weights = (class_weight[0], class_weight[1])
        where = (self.first, self.n_samples, threads)
        return {"sums": _core.prox_moment_sums(rows.x, rows.y, rows.gradient, *standard, weights, *where)}

    def sums(self, solver: Any, points: Doubles, threads: int) -> Arrays:
        if self.is_empty:
            return _no_sums(0)
        rows = self.rows
        return {"sums": solver.partial_sums(points, rows.x, rows.y, rows.gradient, self.first, self.n_samples, threads)}

    def evaluate(
        self, arrays: Mapping[str, NDArray[Any]], thresholds: Sequence[float], simd: str, threads: int
    ) -> Arrays:
        if self.is_empty:
            return _no_sums(0)
        loss, reached = _core.prox_evaluation_sums(
            self.rows.x,
            self.rows.y,
            self.rows.gradient,
            arrays["mean"].tolist(),
            arrays["scale"].tolist(),
            arrays["params"],
            list(thresholds),
            simd,
            self.first,
            self.n_samples,
            threads,
        )
        return {"sums": loss, "reached": reached}

    def digest(self, threads: int) -> Arrays:
        tasks = [] if self.is_empty else task_digests(self.rows, self.first, self.n_samples, threads)
        return {"digests": np.array(tasks, "S")}


def _no_sums(width: int) -> Arrays:
    return {"sums": np.empty((0, width))}


class SharedSamples:
    """Samples whose rows lie in several processes, for the first of them; fill it by :meth:`put`.

    Parameters
    ----------
    workers : Workers
    name : str
        Tells it from other samples of the same processes; an older one of this name is replaced.
    n_samples : int
        In all, 1 or more.
    n_features : int
    has_gradient : bool

    Notes
    -----
    R11, R53. It answers as :class:`vesu.grid_search.samples.Samples` does, with the same bits. The solver
    ``prox_newton`` and GPUs are not served.
    """

    def __init__(self, workers: Workers, name: str, n_samples: int, n_features: int, has_gradient: bool) -> None:
        self.n_samples, self.n_features, self.has_gradient = n_samples, n_features, has_gradient
        self._workers, self._name = workers, name
        self._ranges = row_ranges(n_samples, workers.world)
        self._filled = self._positives = 0
        self._digest: str | None = None
        about = {"name": name, "n_samples": n_samples, "n_features": n_features, "has_gradient": has_gradient}
        for rank, (first, end) in enumerate(self._ranges):
            workers.ask("hold", about | {"first": first, "end": end}, {}, only=rank)

    def put(self, x: NDArray[np.float32], y: NDArray[np.uint8], gradient: NDArray[np.float32] | None) -> None:
        """Hand out the rows that follow those put so far.

        Raises
        ------
        ArgumentError
            NaN or infinities, rows of another kind, or more rows than were announced.
        """
        given: dict[str, NDArray[Any]] = {"x": x, "y": y}
        given |= {} if gradient is None else {"gradient": gradient}
        start, end = self._filled, self._filled + len(y)
        if end > self.n_samples or x.shape != (len(y), self.n_features) or (gradient is not None) != self.has_gradient:
            got = f"rows {start} to {end} of shape {x.shape}"
            raise ArgumentError(f"x: got {got}; accepted: {self.n_samples} rows of {self.n_features} columns")
        for name in given.keys() - {"y"}:
            bad = ~np.isfinite(given[name])
            if bad.any():
                row, column = divmod(int(bad.argmax()), self.n_features)
                got = f"{int(bad.sum())} NaN or infinite values, the first at [{start + row}, {column}]"
                raise ArgumentError(f"{name}: got {got}; accepted: finite values")
        for rank, (first, last) in enumerate(self._ranges):
            low, high = max(first, start), min(last, end)
            if low < high:
                part = {name: values[low - start : high - start] for name, values in given.items()}
                self._workers.ask("rows", {"name": self._name, "at": low - first}, part, only=rank)
        self._positives += int(np.count_nonzero(y))
        self._filled, self._digest = end, None

    def drop(self) -> None:
        """Let the rows go, in every process."""
        self._ask("drop", None)

    def class_sizes(self) -> tuple[int, int]:
        return self.n_samples - self._positives, self._positives

    def standardise(self, n_threads: int | None) -> tuple[Doubles, Doubles]:
        mean = self._total(self._ask("columns", n_threads)) / self.n_samples
        scale = np.sqrt(self._total(self._ask("columns", n_threads, {"centre": mean})) / self.n_samples)
        ranges = [part["range"] for part in self._ask("ranges", n_threads) if part]
        least, most = np.min([r[0] for r in ranges], axis=0), np.max([r[1] for r in ranges], axis=0)
        # Rounding of the mean may leave a constant column a tiny deviation: the values themselves decide.
        is_constant = least == most
        mean = np.where(is_constant, ranges[0][2].astype(np.float64), mean)
        scale = np.where(is_constant | (scale < LEAST_SCALE), 1.0, scale)
        return mean, scale

    def lipschitz(
        self, mean: Doubles, scale: Doubles, class_weight: tuple[float, float], n_threads: int | None
    ) -> float:
        given = {"mean": mean, "scale": scale}
        moments = self._ask("moments", n_threads, given, class_weight=list(class_weight))
        return _core.prox_lipschitz_of(self._total(moments).tolist(), self.n_samples)

    def stepper(self, problem: Problem, n_neurons: int, solver: Solver, n_threads: int | None) -> Step:
        if problem.device != "cpu" or problem.method == "prox_newton":
            got = f"solver {problem.method!r} on {problem.device!r}"
            raise ArgumentError(
                f"solver: got {got}; accepted: 'ista' or 'fista' on 'cpu' where processes share samples"
            )
        self._workers.ask("pose", problem.solver_arguments(n_neurons), {})
        shared: Any = solver

        def step() -> Any:
            parts = self._ask("pass", n_threads, {"points": shared.gradient_points()})
            return shared.advance(self._total(parts), self.n_samples)

        return step

    def evaluate(
        self, problem: Problem, params: Doubles, thresholds: Sequence[float], n_threads: int | None
    ) -> tuple[Doubles, NDArray[np.uint64]]:
        given = {"mean": problem.mean, "scale": problem.scale, "params": np.ascontiguousarray(params)}
        parts = self._ask("evaluate", n_threads, given, thresholds=list(thresholds), simd=problem.simd)
        cross_entropy = _core.prox_cross_entropy_of(self._total(parts).tolist(), self.n_samples)
        reached = sum(part["reached"] for part in parts if "reached" in part)
        return cross_entropy, np.asarray(reached, np.uint64).reshape(len(params), 2, len(thresholds))

    def certify(self, solver: Solver, n_threads: int | None) -> tuple[Doubles, Doubles]:
        raise ArgumentError("optimality: got samples shared between processes; accepted: those of one process")

    def digest(self, n_threads: int | None) -> str:
        if self._digest is None:
            parts = [part["digests"] for part in self._ask("digest", n_threads)]
            self._digest = combined_digest([task.decode() for part in parts for task in part.tolist()])
        return self._digest

    def _ask(
        self, command: str, n_threads: int | None, arrays: Mapping[str, NDArray[Any]] | None = None, **fields: Any
    ) -> list[Arrays]:
        if self._filled != self.n_samples and command != "drop":
            raise ArgumentError(f"x: got {self._filled} rows; accepted: {self.n_samples}, as announced")
        return self._workers.ask(command, {"name": self._name, "n_threads": n_threads, **fields}, arrays or {})

    @staticmethod
    def _total(parts: Iterable[Arrays]) -> Doubles:
        """Add up the tasks of all processes in their order, which is that of one process."""
        tasks = (task for part in parts for task in part["sums"])
        total: Doubles = next(tasks).copy()
        for task in tasks:
            total += task
        return total
