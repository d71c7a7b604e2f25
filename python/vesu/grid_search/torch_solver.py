"""The search's solver on a torch device: the methods and the semantics of the Rust ``ProxSolver`` (R27)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from vesu.errors import ArgumentError
from vesu.grid_search.certificate import duality_gap, penalty
from vesu.grid_search.checks import Samples, integer, number, penalties_of
from vesu.grid_search.torch_bootstrap import initial_coefficients
from vesu.grid_search.torch_device import device_name, import_torch, open_device
from vesu.grid_search.torch_objective import Shape, TorchObjective

__all__ = ["TorchProxSolver"]

Method: TypeAlias = Literal["ista", "fista"]
Doubles: TypeAlias = NDArray[np.float64]

DIVERGENCE = 10.0
MAX_CANDIDATES = 1 << 20


class TorchProxSolver:
    """All candidates of a grid on a torch device; :meth:`step` is one iteration of each.

    Draws, initial coefficients and updates are those of the Rust core; only the sums over the samples are torch's, in
    float32 products without TF32 whose blocks of 512 samples are folded in order in float64. The same GPU model and
    versions give the same bits run to run. Samples travel once: they stay on the device while ``step`` is called with
    the same arrays.

    Parameters
    ----------
    mean, scale : sequence of float, shape (F,)
        Of the standardisation; scale above 0.
    uses_gradient : bool
        Whether samples carry spatial gradients: P = 3F coefficients, else 2F.
    meta_neurons : int
    l1, l2 : sequence of float
        Penalty weights, each >= 0; C = meta_neurons * len(l1) * len(l2) candidates, neuron-major.
    learning_rate : float
        First step length of every candidate.
    seed : int
        0 <= seed < 2**64.
    init_scale : float
        Standard deviation of the initial coefficients.
    bootstrap : bool
        Poisson(1) weights for each meta-neuron.
    class_weight : (float, float)
        Loss factors of class 0 and class 1.
    simd : None
        For the sake of the Rust solver's signature; a torch device has no instruction-set path.
    method : {"ista", "fista"}
    device : str
        "cuda", "cuda:N" or "cpu".
    compile : bool
        Fuse the element-wise work by ``torch.compile``. Bits may then differ from plain torch's. Where it fails, plain
        torch goes on, a RuntimeWarning is given and :attr:`fallbacks` names the cause.

    Raises
    ------
    ArgumentError
        A value out of range, or a GPU that does not compute.
    MissingTorchError
        torch is not installed. Also an ``ImportError``.
    MemoryLimitError
        One chunk's work does not fit on the device.

    Notes
    -----
    R11, R12, R27. Beck and Teboulle, SIAM J. Imaging Sciences 2 (2009), for both methods; O'Donoghue and Candes,
    "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 15 (2015), for FISTA's restart by the
    gradient. One thread at a time may use a solver.

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")  # the example needs it
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2000, 3), dtype=np.float32)
    >>> y = (x[:, 0] > 0).astype(np.uint8)
    >>> solver = TorchProxSolver([0.0] * 3, [1.0] * 3, False, 2, [1e-3], [1e-3, 1e-2], 0.1, 0, 0.01, device="cpu")
    >>> losses = [solver.step(x, y)[0] for _ in range(20)]
    >>> solver.simd, losses[0].shape, bool((losses[-1] < losses[0]).all())
    ('torch-cpu', (4,), True)
    """

    def __init__(
        self,
        mean: Sequence[float],
        scale: Sequence[float],
        uses_gradient: bool,
        meta_neurons: int,
        l1: Sequence[float],
        l2: Sequence[float],
        learning_rate: float,
        seed: int,
        init_scale: float,
        bootstrap: bool = True,
        class_weight: Sequence[float] = (1.0, 1.0),
        simd: str | None = None,
        method: Method = "ista",
        *,
        device: str = "cuda",
        compile: bool = False,
    ) -> None:
        if simd is not None:
            raise ArgumentError(f"simd: got {simd!r}; accepted: None on a torch device")
        if method not in get_args(Method):
            raise ArgumentError(f"method: got {method!r}; accepted on a torch device: {get_args(Method)}")
        offsets, deviations = _standardisation(mean, scale)
        first, second = penalties_of("l1", l1), penalties_of("l2", l2)
        integer("meta_neurons", meta_neurons, 1, MAX_CANDIDATES // (len(first) * len(second)))
        integer("seed", seed, 0, 2**64 - 1)
        shape = Shape(meta_neurons, len(first) * len(second), len(offsets), bool(uses_gradient))
        rate = _positive("learning_rate", learning_rate)
        self._class_weight = _class_weight(class_weight)
        self._method: Method = method
        self._shape = shape
        self._l1 = np.tile(np.repeat(first, len(second)), meta_neurons)[:, None]
        self._l2 = np.tile(np.tile(second, len(first)), meta_neurons)[:, None]
        torch = import_torch()
        self._device = open_device(torch, device)
        self._name = device_name(torch, self._device)
        self._objective = TorchObjective(
            torch, self._device, offsets, deviations, shape, seed if bootstrap else None, compile=compile
        )
        self._iteration = 0
        self._arrays = self._start(seed, _not_negative("init_scale", init_scale), rate)

    def _start(self, seed: int, init_scale: float, rate: float) -> dict[str, NDArray[Any]]:
        shape, n = self._shape, self._shape.n_candidates
        params = np.zeros((n, shape.width))
        start = initial_coefficients(seed, shape.n_neurons, shape.width - 1, init_scale)
        params[:, :-1] = np.repeat(start, shape.per_neuron, axis=0)
        arrays: dict[str, NDArray[Any]] = {
            "params": params,
            "diverged": np.zeros(n, np.bool_),
            "start_loss": np.full(n, np.nan),
            "learning_rate": np.full(n, rate),
        }
        if self._method == "fista":
            arrays |= {"previous": params.copy(), "momentum": np.zeros(n)}
        return arrays

    # ---- iterations ----

    def load(self, x: NDArray[np.float32], y: NDArray[np.uint8], gradient: NDArray[np.float32] | None = None) -> None:
        """Put samples on the device now, whether or not these arrays are there: after writing into them, say.

        :meth:`step` and :meth:`certify` load what they are given when it is another array, or when the digest of some
        thousand of its rows has changed.

        Raises
        ------
        ArgumentError, MemoryLimitError
            As :meth:`step`.
        """
        self._objective.load(_samples(x, y, gradient), force=True)

    def step(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
        """One iteration of every candidate; after an error, the state is as before the call.

        Parameters
        ----------
        x : float32, shape (n, F)
            Raw features.
        y : uint8, shape (n,)
            0 and 1.
        gradient : float32, shape (n, F), optional
        n_threads : int, optional
            Of no effect: torch has a setting of its own, ``torch.set_num_threads``.

        Returns
        -------
        loss, gradient_norm, nonzero : arrays, shape (C,)
            Objective, norm of the proximal gradient mapping, coefficients that are not zero, all at the point where the
            gradient was taken.

        Raises
        ------
        ArgumentError
            Wrong dtype or shape, labels outside {0, 1}, NaN or infinities.
        MemoryLimitError
            The samples do not fit on the device; refused before allocating, with the figures.
        """
        self._objective.load(_samples(x, y, gradient))
        arrays = {name: array.copy() for name, array in self._arrays.items()}
        point = _gradient_point(arrays)
        means = self._objective.evaluate(point, self._class_weight)
        with np.errstate(over="ignore", invalid="ignore"):  # a candidate that diverges is marked, not warned of
            stats = self._update(arrays, point, means)
        self._arrays, self._iteration = arrays, self._iteration + 1
        return stats

    def _update(
        self, arrays: dict[str, NDArray[Any]], point: Doubles, means: Doubles
    ) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
        """Report on ``point`` and move every candidate that has not diverged to its proximal gradient step."""
        coef = point[:, :-1]
        loss = means[:, -1] + penalty(coef, self._l1, self._l2)
        rate = arrays["learning_rate"][:, None]
        following = point - rate * means[:, :-1]
        following[:, :-1] = _soft_threshold(coef - rate * (means[:, :-2] + self._l2 * coef), rate * self._l1)
        norm = np.sqrt((((point - following) / rate) ** 2).sum(axis=1))

        fresh = np.isnan(arrays["start_loss"])
        arrays["start_loss"][fresh] = loss[fresh]
        # fmax: a start that is not a number bounds nothing.
        bounded = np.isfinite(loss) & (loss <= DIVERGENCE * np.fmax(arrays["start_loss"], math.log(2)))
        arrays["diverged"] |= ~(bounded & np.isfinite(following).all(axis=1))
        moving = ~arrays["diverged"]  # the others stay where they last were finite
        if self._method == "fista":
            _carry_momentum(arrays, moving, point, following)
        arrays["params"][moving] = following[moving]
        return loss, norm, np.count_nonzero(coef, axis=1).astype(np.int64)

    # ---- certificate ----

    def certify(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[Doubles, Doubles]:
        """Objective and duality gap of the current params on these samples.

        Parameters
        ----------
        x, y, gradient, n_threads
            As in :meth:`step`.

        Returns
        -------
        objective, gap : float64, shape (C,)
            The objective is at most ``gap`` above its minimum, up to the sums' float32 rounding.

        Raises
        ------
        ArgumentError, MemoryLimitError
            As :meth:`step`.
        """
        self._objective.load(_samples(x, y, gradient))
        params = self._arrays["params"]
        negative, positive = self._class_weight
        by_class = [self._objective.evaluate(params, weights) for weights in ((negative, 0.0), (0.0, positive))]
        return duality_gap(params, by_class, self._l1, self._l2)

    # ---- state ----

    def state(self) -> dict[str, NDArray[Any] | int]:
        """All that the next step depends on besides the samples; the first axis of every array is the candidate."""
        return {"iteration": self._iteration, **{name: array.copy() for name, array in self._arrays.items()}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of a solver of the same grid, width and method, this one's or the Rust core's.

        Raises
        ------
        ArgumentError
            Another set of fields (another method), a wrong shape or dtype, or a value that cannot be; names the field.
        """
        wanted = {"iteration", *self._arrays}
        if not isinstance(state, Mapping) or set(state) != wanted:
            got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ArgumentError(f"state: got {got}; accepted with method {self._method!r}: {sorted(wanted)}")
        iteration = integer("state: iteration", state["iteration"], 0, 2**63 - 1)
        arrays = {name: _field(name, state[name], like) for name, like in self._arrays.items()}
        self._iteration, self._arrays = iteration, arrays

    # ---- what it is ----

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self._iteration

    @property
    def method(self) -> str:
        """ "ista" or "fista"."""
        return self._method

    @property
    def simd(self) -> str:
        """The device in place of an instruction set: "torch-cpu", or "cuda:" and the GPU's model."""
        return self._name

    @property
    def device(self) -> str:
        """As torch names it: "cuda:0"."""
        return str(self._device)

    @property
    def converged(self) -> NDArray[np.bool_]:
        """(C,): never claimed by these methods; see :meth:`certify`."""
        return np.zeros(self._shape.n_candidates, np.bool_)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What was asked for and did not run, and why (R27)."""
        return self._objective.fallbacks


def _gradient_point(arrays: dict[str, NDArray[Any]]) -> Doubles:
    """Where the gradient is taken: the params, or beyond them by FISTA's momentum, which new samples begin anew."""
    params: Doubles = arrays["params"]
    if "momentum" not in arrays:
        return params
    fresh = np.isnan(arrays["start_loss"])
    arrays["previous"][fresh], arrays["momentum"][fresh] = params[fresh], 0.0
    share = (arrays["momentum"] - 1) / _next_momentum(arrays["momentum"])
    return np.asarray(params + share[:, None] * (params - arrays["previous"]))


def _carry_momentum(
    arrays: dict[str, NDArray[Any]], moving: NDArray[np.bool_], point: Doubles, following: Doubles
) -> None:
    """Nesterov's sequence, begun anew where the step turned against the movement."""
    params, momentum = arrays["params"], arrays["momentum"]
    against = ((point - following) * (following - params)).sum(axis=1) > 0
    previous = np.where(against[:, None], following, params)
    arrays["momentum"][moving] = np.where(against, 0.0, _next_momentum(momentum))[moving]
    arrays["previous"][moving] = previous[moving]


def _soft_threshold(values: Doubles, threshold: Doubles) -> Doubles:
    """The proximal operator of ``threshold |.|``. NaN stays NaN."""
    return values - np.clip(values, -threshold, threshold)


def _next_momentum(momentum: Doubles) -> Doubles:
    return np.asarray((1 + np.sqrt(1 + 4 * momentum**2)) / 2)


def _samples(x: object, y: object, gradient: object) -> Samples:
    """Checked as the Rust gate does: dtype and shape as they are, nothing converted."""
    rows = _array("x", x, np.float32, 2)
    labels = _array("y", y, np.uint8, 1)
    if len(labels) != len(rows):
        raise ArgumentError(f"y: got {len(labels)} labels; accepted: {len(rows)}, one a sample")
    slopes = None if gradient is None else _array("gradient", gradient, np.float32, 2)
    if slopes is not None and slopes.shape != rows.shape:
        raise ArgumentError(f"gradient: got shape {slopes.shape}; accepted: the shape of x, {rows.shape}")
    return Samples(rows, labels, slopes)


def _array(name: str, value: object, dtype: Any, ndim: int) -> NDArray[Any]:
    accepted = f"accepted: a {ndim}-D numpy array of {np.dtype(dtype)}, none of its axes empty"
    if not isinstance(value, np.ndarray):
        raise ArgumentError(f"{name}: got {type(value).__name__}; {accepted}")
    if value.dtype != dtype or value.ndim != ndim or value.size == 0:
        raise ArgumentError(f"{name}: got shape {value.shape} of {value.dtype}; {accepted}")
    return value


def _field(name: str, value: object, like: NDArray[Any]) -> NDArray[Any]:
    """One array of a state, copied; its values must be ones that a step can leave."""
    if not isinstance(value, np.ndarray) or value.shape != like.shape or value.dtype != like.dtype:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ArgumentError(f"state: {name}: got {got}; accepted: {like.dtype} {like.shape}")
    if name in ("diverged", "start_loss"):  # a start may be NaN (not yet seen) or infinite (diverged at once)
        return value.copy()
    good = np.isfinite(value)
    accepted = "finite numbers"
    if name == "learning_rate":
        good, accepted = good & (value > 0), "finite numbers above 0"
    elif name == "momentum":
        good, accepted = good & (value >= 0), "finite numbers >= 0"
    if not good.all():
        raise ArgumentError(f"state: {name}: got {value[~good][0]}; accepted: {accepted}")
    return value.copy()


def _standardisation(mean: Sequence[float], scale: Sequence[float]) -> tuple[Doubles, Doubles]:
    offsets, deviations = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    if offsets.ndim != 1 or offsets.size == 0 or offsets.shape != deviations.shape:
        got = f"shapes {offsets.shape} and {deviations.shape}"
        raise ArgumentError(f"scale: got {got} of mean and scale; accepted: as many scales as means, at least one")
    if not np.isfinite(offsets).all():
        raise ArgumentError(f"mean: got {offsets[~np.isfinite(offsets)][0]}; accepted: finite numbers")
    bad = ~(np.isfinite(deviations) & (deviations > 1e-300))
    if bad.any():
        raise ArgumentError(f"scale: got {deviations[bad][0]}; accepted: finite numbers above 1e-300")
    return offsets, deviations


def _class_weight(values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ArgumentError(f"class_weight: got {values!r}; accepted: two finite numbers >= 0")
    return _not_negative("class_weight", values[0]), _not_negative("class_weight", values[1])


def _not_negative(name: str, value: object) -> float:
    if (found := number(name, value)) < 0:
        raise ArgumentError(f"{name}: got {found}; accepted: a finite number >= 0")
    return found


def _positive(name: str, value: object) -> float:
    if (found := number(name, value)) <= 0:
        raise ArgumentError(f"{name}: got {found}; accepted: a finite number above 0")
    return found
