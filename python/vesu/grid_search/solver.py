"""The solver of all candidates, and the device that it runs on (R27)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.data.machine import gpu_problem
from vesu.errors import ArgumentError

__all__ = ["Device", "Method", "OnEvent", "Place", "Solver", "SolverState", "choose_device", "make_solver"]

Method = Literal["ista", "fista", "prox_newton"]
Place = Literal["cpu", "cuda", "torch"]
Device = Literal["cpu", "cuda", "auto", "torch"]
OnEvent = Callable[[str, Mapping[str, Any]], None]
SolverState = dict[str, Any]
"""Arrays whose first axis is the candidate, and integers."""


class Solver(Protocol):
    """What a solver can do, whichever device it runs on."""

    def step(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """One iteration of every candidate: loss, gradient norm, non-zero coefficients, each (n_candidates,)."""

    def certify(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Objective and absolute duality gap of every candidate on these samples, each (n_candidates,)."""

    def state(self) -> SolverState: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...
    @property
    def iteration(self) -> int: ...
    @property
    def simd(self) -> str: ...
    @property
    def converged(self) -> NDArray[np.bool_]: ...


def choose_device(device: object, method: str = "ista", on_event: OnEvent | None = None) -> Place:
    """Where the solver will run: ``"auto"`` takes CUDA if a kernel really runs there, else the CPU, and says so.

    Raises
    ------
    ArgumentError
        An unknown device; ``"cuda"`` where CUDA cannot be used (nothing falls back unasked); ``"torch"`` without torch.
    """
    if not (isinstance(device, str) and device in get_args(Device)):
        raise ArgumentError(f"device: got {device!r}; accepted: one of {', '.join(get_args(Device))}")
    if device == "cpu":
        return "cpu"
    problem: str | None = f"the solver {method!r} runs on the CPU alone"
    if method != "prox_newton":
        problem = torch_problem() if device == "torch" else gpu_problem()
    if problem is None:
        return "torch" if device == "torch" else "cuda"
    if device != "auto":
        raise ArgumentError(f"device: got {device!r}, but {problem}; accepted: 'cpu', or 'auto' to fall back to it")
    if on_event is not None:
        on_event("GPU_FALLBACK_DETECTED", {"asked": device, "used": "cpu", "reason": problem})
    return "cpu"


def make_solver(device: Place, arguments: Mapping[str, Any]) -> Solver:
    """A solver on a device that :func:`choose_device` gave.

    Raises
    ------
    ArgumentError
        A method that the device does not have; whatever else the solver refuses.
    """
    if device == "cpu":
        return _core.ProxSolver(**arguments)
    solver: Solver = _torch_solver()(**arguments, device="cuda" if device == "cuda" else "cpu")
    return solver


def torch_problem() -> str | None:
    """Why torch cannot be used, or None."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing or damaged
        return f"torch cannot be imported ({error})"
    return None


def _torch_solver() -> Callable[..., Any]:
    found: Callable[..., Any] = importlib.import_module("vesu.grid_search.torch_solver").TorchProxSolver
    return found
