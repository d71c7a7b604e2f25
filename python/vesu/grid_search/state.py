"""The whole state of a search at one iteration, as arrays and numbers (R36, R37)."""

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.npzfile import Archive, read_npz, write_npz
from vesu.grid_search.problem import MAX_CANDIDATES, Problem

__all__ = ["SearchState"]

FORMAT = "vesu-search-state/1"
MAX_MEMBER_BYTES = 4 << 30
PROBLEM_ARRAYS = ("mean", "scale")
TUPLES = ("l1", "l2", "class_weight")


@dataclass(frozen=True, eq=False)
class SearchState:
    """All that a search needs to go on at the next iteration with the same bits: no pickle, no reference to data.

    Taken by :meth:`IterationRecord.state`, given back as ``fit(..., state=)`` or ``fit_epochs(..., state=)``.

    Raises
    ------
    ArgumentError
        Arrays whose shapes do not agree, numbers out of range.

    Notes
    -----
    R36, R37. The samples themselves are not stored, only their BLAKE3 digest: they must be given again, and others are
    refused. Exactness holds on one instruction-set path (or one device), which is part of the state.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vesu.grid_search import ElasticNetLogisticGrid
    >>> X = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    >>> y, kept = X[:, 0] > 0, []
    >>> grid = ElasticNetLogisticGrid(meta_neurons=2, max_iter=10)
    >>> whole = grid.fit(X, y, on_iteration=lambda r: kept.append(r.state()) if r.iteration == 4 else None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept[0].save(Path(folder, "state.npz"))
    ...     state = SearchState.load(Path(folder, "state.npz"))
    >>> again = ElasticNetLogisticGrid(meta_neurons=2, max_iter=10).fit(X, y, state=state)
    >>> state.iteration, bool((again.coef_ == whole.coef_).all())
    (4, True)
    """

    problem: Problem
    n_neurons: int
    """Meta-neurons now: those of the problem, and those grown since."""
    epoch: int
    """From 0."""
    iteration: int
    """Iterations done in this epoch."""
    samples: str
    """BLAKE3 of the epoch's samples."""
    solver: Mapping[str, Any]
    """The solver's arrays (first axis the candidate) and integers."""
    memory: Mapping[str, NDArray[Any]]
    """What epochs and evolution remember; empty for a plain fit."""

    def __post_init__(self) -> None:
        n = self.n_neurons * self.problem.per_neuron
        if not (1 <= self.problem.meta_neurons <= self.n_neurons and n <= MAX_CANDIDATES):
            got = f"{self.n_neurons} of {self.problem.meta_neurons} at the start"
            raise ArgumentError(f"state.n_neurons: got {got}; accepted: at least the start's, 2**20 candidates at most")
        if not (self.epoch >= 0 and self.iteration >= 0):
            raise ArgumentError(f"state: got epoch {self.epoch}, iteration {self.iteration}; accepted: 0 or more")
        for group in ("solver", "memory"):
            for name, value in getattr(self, group).items():
                if isinstance(value, np.ndarray) and len(value) not in ((n,) if group == "solver" else (n, 1)):
                    got = f"shape {value.shape}"
                    raise ArgumentError(
                        f"state.{group}[{name!r}]: got {got}; accepted: {n} candidates on its first axis"
                    )
        object.__setattr__(self, "solver", MappingProxyType({k: _frozen(v) for k, v in self.solver.items()}))
        object.__setattr__(self, "memory", MappingProxyType({k: _frozen(v) for k, v in self.memory.items()}))

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write an .npz of plain arrays and a JSON text; the same state gives the same bytes. A path is written
        atomically.

        Raises
        ------
        FileError
            The operating system refused a step; the old file, if any, is untouched.
        """
        problem = {field.name: getattr(self.problem, field.name) for field in dataclasses.fields(Problem)}
        meta = {
            "format": FORMAT,
            "problem": {name: value for name, value in problem.items() if name not in PROBLEM_ARRAYS},
            "solver": {name: value for name, value in self.solver.items() if not isinstance(value, np.ndarray)},
            **{name: getattr(self, name) for name in ("n_neurons", "epoch", "iteration", "samples")},
        }
        arrays = {f"problem.{name}": problem[name] for name in PROBLEM_ARRAYS}
        arrays |= {f"solver.{name}": value for name, value in self.solver.items() if isinstance(value, np.ndarray)}
        arrays |= {f"memory.{name}": value for name, value in self.memory.items()}
        write_npz(file, meta, arrays)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> "SearchState":
        """Read what :meth:`save` wrote; nothing in the file is trusted.

        Raises
        ------
        FileError
            The file cannot be read.
        FormatError
            Not such a file, another version, truncated, or values that do not make a state.
        """
        return read_npz(file, _build, format=FORMAT, max_member_bytes=MAX_MEMBER_BYTES)


def _frozen(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    copy = value.copy()
    copy.flags.writeable = False
    return copy


def _build(archive: Archive) -> SearchState:
    meta = archive.meta
    arrays: dict[str, dict[str, NDArray[Any]]] = {"problem": {}, "solver": {}, "memory": {}}
    for name in archive.names():
        group, _, key = name.partition(".")
        arrays[group][key] = archive.array(name)
    integers = meta["solver"]
    counts = {name: meta[name] for name in ("n_neurons", "epoch", "iteration")}
    if not all(type(value) is int for value in (*integers.values(), *counts.values())):
        raise ValueError("an integer of a wrong type")
    if type(meta["samples"]) is not str:
        raise ValueError("samples of a wrong type")
    return SearchState(
        problem=_problem(meta["problem"], arrays["problem"]),
        solver=arrays["solver"] | integers,
        memory=arrays["memory"],
        samples=meta["samples"],
        **counts,
    )


def _problem(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Problem:
    values: dict[str, Any] = {**meta, **arrays}
    for name in TUPLES:
        values[name] = tuple(values[name])
    for field in dataclasses.fields(Problem):
        value = values[field.name]
        if field.name in PROBLEM_ARRAYS:
            good = value.dtype == np.float64 and value.ndim == 1 and value.size > 0 and np.isfinite(value).all()
        elif field.name in TUPLES:
            good = len(value) > 0 and all(type(v) is float and math.isfinite(v) and v >= 0 for v in value)
        elif field.name in ("method", "device"):
            good = value in get_args(field.type)
        else:
            good = type(value) is field.type and not (field.type is float and not math.isfinite(value))
        if not good:
            raise ValueError(f"{field.name} of a wrong type or out of range")
    problem = Problem(**values)
    if len(problem.mean) != len(problem.scale) or len(problem.class_weight) != 2 or not (problem.scale > 0).all():
        raise ValueError("mean, scale or class_weight that do not agree")
    return problem
