"""Loss and gradient of every candidate on a torch device, swept in chunks of samples.

The same function as the Rust core's: mean over samples of v_i c_i ln(1 + e^(s_i z_i)) with the sign s_i folded into
the rows s_i [x', x'^2, g', 1], so that one margin serves both classes. float32 products over blocks of :data:`BLOCK`
samples; blocks and chunks are folded in their order in float64. Nothing adds in an order that the hardware chooses.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError, MemoryLimitError
from vesu.grid_search.checks import Samples
from vesu.grid_search.torch_bootstrap import neuron_pair_keys, poisson_weights
from vesu.grid_search.torch_device import available_bytes, exact_products, memory_errors

__all__ = ["BLOCK", "Shape", "TorchObjective"]

BLOCK = 512
"""Samples summed in float32 before float64 takes over."""

CHUNK_BYTES = {"cuda": 128 << 20, "cpu": 4 << 20}
"""Size of one (chunk, candidates) float32 buffer. A GPU wants few launches, a CPU its cache."""

WEIGHTS_SHARE = 1 / 8
"""Bootstrap weights stay on the device where they take at most this share of its free memory."""

PROBE_ROWS = 4096


@dataclass(frozen=True)
class Shape:
    """Sizes of the search: candidates are neuron-major, ``width`` counts the coefficients and the intercept."""

    n_neurons: int
    per_neuron: int
    n_features: int
    uses_gradient: bool

    @property
    def n_candidates(self) -> int:
        return self.n_neurons * self.per_neuron

    @property
    def width(self) -> int:
        return self.n_features * (3 if self.uses_gradient else 2) + 1

    def chunk_bytes(self, n: int) -> int:
        """The most that the work on ``n`` samples holds at once: margins and losses, rows and their parts, weights, the
        generator's words, the blocks' partial sums in float32 and float64."""
        a_sample = 4 * (2 * self.n_candidates + 2 * self.width + 3 * self.n_neurons) + 5 * 8
        a_block = 12 * (self.width + 1) * self.n_candidates
        return n * a_sample + (n // BLOCK + 2) * a_block


@dataclass(frozen=True)
class _Resident:
    """Samples on the device: standardised x and g float32 (n, F), sign int8 (n, 1), draws uint8 (n, neurons)."""

    n: int
    x: Any
    g: Any | None
    sign: Any
    draws: Any | None


class TorchObjective:
    """The smooth part of every candidate's objective on one device.

    Parameters
    ----------
    torch, device
        The module and a device that :func:`vesu.grid_search.torch_device.open_device` proved.
    mean, scale : float64, shape (F,)
        Of the standardisation.
    shape : Shape
    seed : int or None
        Of the bootstrap; None: every neuron sees each sample once.
    compile : bool
        Fuse the element-wise work with ``torch.compile``; where that fails, plain torch goes on, a warning is given and
        :attr:`fallbacks` says why.
    """

    def __init__(
        self,
        torch: Any,
        device: Any,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        shape: Shape,
        seed: int | None,
        *,
        compile: bool,
    ) -> None:
        self._torch, self._device, self._shape = torch, device, shape
        self._mean, self._inverse_scale = mean, 1.0 / scale
        self._keys = None if seed is None else neuron_pair_keys(seed, shape.n_neurons)
        self._resident: _Resident | None = None
        self._source: tuple[Any, ...] = ()
        self._sums = _chunk_function(torch)
        self._compiled = torch.compile(self._sums, dynamic=False) if compile else None
        self.fallbacks: tuple[str, ...] = ()
        blocks = CHUNK_BYTES[device.type] // (4 * shape.n_candidates * BLOCK)
        self.chunk = max(1, blocks) * BLOCK
        self._check_memory(0)

    # ---- samples ----

    def load(self, samples: Samples, *, force: bool = False) -> None:
        """Put the samples on the device, unless these very arrays are there already.

        Raises
        ------
        ArgumentError
            Columns other than the standardisation's, labels outside {0, 1}, NaN or infinities.
        MemoryLimitError
            They do not fit; refused before anything is allocated, with the figures.
        """
        source = _source_of(samples)
        if not force and self._resident is not None and _same(source, self._source):
            return
        self._check(samples)
        self._resident, self._source = None, ()  # make room first
        self._check_memory(len(samples.y))
        with memory_errors(self._torch):
            self._resident = self._upload(samples)
        self._source = source

    def _check(self, samples: Samples) -> None:
        shape = self._shape
        if samples.x.shape[1] != shape.n_features:
            accepted = f"{shape.n_features} columns, as in the standardisation"
            raise ArgumentError(f"x: got {samples.x.shape[1]} columns; accepted: {accepted}")
        if (samples.gradient is not None) != shape.uses_gradient:
            accepted = "an array" if shape.uses_gradient else "None"
            raise ArgumentError(f"gradient: got {'None' if shape.uses_gradient else 'an array'}; accepted: {accepted}")
        if samples.y.max() > 1:
            bad = samples.y > 1
            first = int(bad.argmax())
            got = f"{np.count_nonzero(bad)} labels outside {{0, 1}}, the first {samples.y[first]} at {first}"
            raise ArgumentError(f"y: got {got}; accepted: labels 0 and 1")

    def _sample_bytes(self, n: int) -> tuple[int, int]:
        """Bytes on the device: of the samples, and of their bootstrap weights."""
        shape = self._shape
        return n * (4 * shape.n_features * (2 if shape.uses_gradient else 1) + 1), n * shape.n_neurons

    def _check_memory(self, n: int) -> None:
        """Refuse before allocating: ``n`` samples and the work on one chunk."""
        needed = self._sample_bytes(n)[0] + self._shape.chunk_bytes(self.chunk)
        limit = available_bytes(self._torch, self._device)
        if limit is not None and needed > limit:
            what = f"the search on {self._device}, {n} samples x {self._shape.n_candidates} candidates"
            raise MemoryLimitError(f"{what}: needs {needed} bytes; limit {limit}")

    def _upload(self, samples: Samples) -> _Resident:
        torch, device, n = self._torch, self._device, len(samples.y)
        mean = torch.tensor(self._mean, device=device)
        inverse = torch.tensor(self._inverse_scale, device=device)

        def standardised(name: str, values: NDArray[np.float32], offset: Any) -> Any:
            """In float64, as the Rust core does, so that a large offset costs no digits."""
            result = torch.empty(values.shape, dtype=torch.float32, device=device)
            for first in range(0, n, self.chunk):
                rows = torch.from_numpy(values[first : first + self.chunk].copy()).to(device)
                if not bool(torch.isfinite(rows).all()):
                    raise ArgumentError(f"{name}: got {_not_finite(values)}; accepted: finite values")
                result[first : first + self.chunk] = rows.double().sub_(offset).mul_(inverse)
            return result

        x = standardised("x", samples.x, mean)
        g = None if samples.gradient is None else standardised("gradient", samples.gradient, 0.0)
        sign = torch.from_numpy(1 - 2 * samples.y.astype(np.int8)).to(device).unsqueeze(1)
        return _Resident(n, x, g, sign, self._kept_draws(n))

    def _kept_draws(self, n: int) -> Any | None:
        available = available_bytes(self._torch, self._device)
        _, needed = self._sample_bytes(n)
        if self._keys is None or available is None or needed > WEIGHTS_SHARE * available:
            return None
        draws = self._torch.empty((n, self._shape.n_neurons), dtype=self._torch.uint8, device=self._device)
        for first in range(0, n, self.chunk):
            draws[first : first + self.chunk] = self._draw(first, min(self.chunk, n - first))
        return draws

    def _draw(self, first: int, n: int) -> Any:
        return poisson_weights(self._torch, self._keys or [], self._shape.n_neurons, first, n, self._device)

    # ---- sums ----

    def evaluate(self, params: NDArray[np.float64], class_weight: Sequence[float]) -> NDArray[np.float64]:
        """Means over the loaded samples at ``params`` (C, width): (C, width + 1), the gradient, then the loss."""
        resident = self._resident
        assert resident is not None, "load comes first"
        torch = self._torch
        with torch.inference_mode(), exact_products(torch), memory_errors(torch):
            columns = torch.tensor(params.T.astype(np.float32), device=self._device)
            factors = None
            if tuple(class_weight) != (1.0, 1.0):
                factors = torch.tensor([float(weight) for weight in class_weight], device=self._device)
            total = torch.zeros((self._shape.width + 1, len(params)), dtype=torch.float64, device=self._device)
            for first, n, block in _cuts(resident.n, self.chunk):
                total += self._chunk(resident, first, n, block, columns, factors)
            means: NDArray[np.float64] = total.T.cpu().numpy() / resident.n
        return means

    def _chunk(self, resident: _Resident, first: int, n: int, block: int, columns: Any, factors: Any) -> Any:
        part = slice(first, first + n)
        draws = None
        if self._keys is not None:
            draws = self._draw(first, n) if resident.draws is None else resident.draws[part]
        g = None if resident.g is None else resident.g[part]
        arguments = (resident.x[part], g, resident.sign[part], draws, factors, columns, block)
        if self._compiled is not None and (first == 0 or n == self.chunk):  # each other length would be compiled anew
            try:
                return self._compiled(*arguments)
            except self._torch.OutOfMemoryError:
                raise  # not the compiler's fault
            except Exception as error:  # noqa: BLE001  # no compiler, an unsupported GPU, ...: torch names no base class
                self._compiled = None
                self.fallbacks += (f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}",)
                warnings.warn(f"the search goes on without {self.fallbacks[-1]}", RuntimeWarning, stacklevel=5)
        return self._sums(*arguments)


def _chunk_function(torch: Any) -> Callable[..., Any]:
    softplus = torch.nn.functional.softplus

    def chunk_sums(
        x: Any, g: Any | None, sign: Any, draws: Any | None, class_weight: Any | None, columns: Any, block: int
    ) -> Any:
        """(width + 1, C) float64: sums over one chunk of the gradient's rows, then of the loss.

        Matrix products and sums along an axis only: each has one order on one device, no atomics.
        """
        signed = sign.to(columns.dtype)
        linear = x * signed
        rows = torch.cat([linear, linear * x, *([] if g is None else [g * signed]), signed], dim=1)
        margins = rows @ columns
        losses = softplus(margins)
        residuals = margins.sigmoid_()
        weights = None if draws is None else draws.to(columns.dtype)
        if class_weight is not None:
            by_class = torch.where(sign < 0, class_weight[1], class_weight[0])
            weights = by_class if weights is None else weights * by_class
        if weights is not None:
            by_neuron = (len(x), weights.shape[1], -1)
            losses.view(by_neuron).mul_(weights.unsqueeze(2))
            residuals.view(by_neuron).mul_(weights.unsqueeze(2))
        in_blocks = (len(x) // block, block, -1)
        gradient = (rows.view(in_blocks).transpose(1, 2) @ residuals.view(in_blocks)).sum(0, dtype=torch.float64)
        loss = losses.view(in_blocks).sum(1).sum(0, dtype=torch.float64)
        return torch.cat([gradient, loss.unsqueeze(0)])

    return chunk_sums


def _cuts(n: int, chunk: int) -> Iterator[tuple[int, int, int]]:
    """(first, length, block) of each piece: whole chunks, the whole blocks that are left, and a last short block."""
    whole = n - n % BLOCK
    for first in range(0, whole, chunk):
        yield first, min(chunk, whole - first), BLOCK
    if whole < n:
        yield whole, n - whole, n - whole


def _source_of(samples: Samples) -> tuple[Any, ...]:
    """The arrays themselves, and a digest of some thousand of their rows: a buffer that was filled anew is noticed."""
    arrays = (samples.x, samples.y, samples.gradient)
    step = max(1, len(samples.y) // PROBE_ROWS)
    probes = (b"" if array is None else np.ascontiguousarray(array[::step]).tobytes() for array in arrays)
    return (*arrays, _core.blake3_bytes(b"".join(probes)))


def _same(source: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a is b for a, b in zip(source[:-1], other[:-1], strict=True)) and source[-1] == other[-1]


def _not_finite(values: NDArray[np.float32]) -> str:
    bad = np.argwhere(~np.isfinite(values))
    return f"{len(bad)} NaN or infinite values, the first at {bad[0].tolist()}"
