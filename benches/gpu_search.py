"""The search on a GPU, measured in one call: `python benches/gpu_search.py` where a CUDA GPU, torch and vesu are.

Takes the history's size, 25.1 million samples x 18 weights x 135 candidates x 120 iterations, and reports seconds, ns
per (sample x candidate x iteration), TFLOP/s and GB/s beside what a matrix product and a copy reach on the same device,
the same search written in plain torch, and how far the result is from the Rust core's on the CPU. `--quick` is a smoke
run of a few seconds on CPU tensors: its figures mean nothing.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import VesuError
from vesu.grid_search.torch_bootstrap import neuron_pair_keys, poisson_weights
from vesu.grid_search.torch_device import available_bytes, device_name, exact_products, import_torch, open_device
from vesu.grid_search.torch_solver import TorchProxSolver

L1, L2, RATE = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [1e-4, 1e-3, 1e-2], 0.08
PASSES = 11  # over a (samples, candidates) buffer in plain torch operations, counted in torch_objective.chunk_sums
PEER_BUFFERS = 5  # of (samples, candidates), that the plain version holds at once
TARGET_S = 5.0
Samples = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True)
class Size:
    """What is measured."""

    samples: int
    features: int
    neurons: int
    iterations: int
    agreement_samples: int
    matmul: int
    copy_bytes: int

    @property
    def candidates(self) -> int:
        return self.neurons * len(L1) * len(L2)

    @property
    def width(self) -> int:
        return 3 * self.features + 1


@dataclass(frozen=True)
class Machine:
    """torch and the device that is measured."""

    torch: Any
    device: Any

    @classmethod
    def open(cls, name: str) -> "Machine":
        torch = import_torch()
        return cls(torch, open_device(torch, name))

    def clock(self, work: Callable[[], object]) -> float:
        """Seconds until the device has done it all."""
        self.synchronise()
        start = time.perf_counter()
        work()
        self.synchronise()
        return time.perf_counter() - start

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def peak_bytes(self) -> int | None:
        """The most that tensors have taken since the last call; None on a CPU."""
        if self.device.type != "cuda":
            return None
        peak = int(self.torch.cuda.max_memory_allocated(self.device))
        self.torch.cuda.reset_peak_memory_stats(self.device)
        return peak


@dataclass(frozen=True)
class Limits:
    """What the device reaches on the simplest work there is."""

    tflops: float
    gb_per_s: float


@dataclass(frozen=True)
class Timing:
    """One way of doing the whole search."""

    name: str
    samples: int
    iterations: int
    seconds: float
    ns_per_cell: float
    tflops: float
    share_of_matmul: float
    gb_per_s: float
    share_of_copy: float
    peak_bytes: int | None
    note: str


def make_samples(n: int, n_features: int, seed: int = 0) -> Samples:
    """Labels that depend on x, x^2 and g, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n_features), dtype=np.float32)
    g = np.abs(rng.standard_normal((n, n_features), dtype=np.float32))
    z = 2 * x[:, 0] - x[:, -1] ** 2 + 0.8 * g[:, 0] + rng.standard_normal(n, dtype=np.float32)
    return x, (z > 0).astype(np.uint8), g


def arguments(x: NDArray[np.float32], size: Size) -> tuple[Any, ...]:
    mean, scale = _core.prox_standardise(x)
    return mean.tolist(), scale.tolist(), True, size.neurons, L1, L2, RATE, 0, 0.01


def measure_limits(on: Machine, size: Size) -> Limits:
    """The best of six each: a float32 product without TF32, a copy (read and write counted)."""
    torch, device = on.torch, on.device
    a = torch.randn(size.matmul, size.matmul, device=device)
    source = torch.empty(size.copy_bytes // 4, device=device).normal_()
    target = torch.empty_like(source)
    with exact_products(torch):
        product = min(on.clock(lambda: a @ a) for _ in range(6))
    copy = min(on.clock(lambda: target.copy_(source)) for _ in range(6))
    return Limits(2 * size.matmul**3 / product / 1e12, 2 * size.copy_bytes / copy / 1e9)


def timing(name: str, seconds: float, n: int, size: Size, limits: Limits, peak: int | None, note: str) -> Timing:
    cells = n * size.candidates * size.iterations
    tflops = 4 * size.width * cells / seconds / 1e12  # two products of `width` multiply-adds a cell
    gb_per_s = 4 * PASSES * cells / seconds / 1e9
    return Timing(
        name, n, size.iterations, seconds, seconds / cells * 1e9, tflops, tflops / limits.tflops, gb_per_s,
        gb_per_s / limits.gb_per_s, peak, note,
    )  # fmt: skip


def run_ours(samples: Samples, size: Size, on: Machine, limits: Limits, fused: bool) -> tuple[Timing, float]:
    """The whole search after one warming iteration, and the seconds of loading the samples."""
    solver = TorchProxSolver(*arguments(samples[0], size), device=str(on.device), compile=fused)
    on.peak_bytes()
    load = on.clock(lambda: solver.load(*samples))
    start = solver.state()
    solver.step(*samples)
    solver.set_state(start)
    seconds = on.clock(lambda: [solver.step(*samples) for _ in range(size.iterations)])
    name = "vesu, torch.compile" if fused else "vesu, plain operations"
    note = "; ".join(solver.fallbacks)
    return timing(name, seconds, len(samples[1]), size, limits, on.peak_bytes(), note), load


def run_plain(samples: Samples, size: Size, on: Machine, limits: Limits) -> Timing:
    """The search as a torch user writes it: whole batches, weights stored, no loss reported."""
    torch, device = on.torch, on.device
    free = available_bytes(torch, device) or 0
    n = min(len(samples[1]), int(0.9 * free / (4 * (PEER_BUFFERS * size.candidates + size.width))))
    x, y, g = (torch.from_numpy(array[:n]).to(device) for array in samples)
    rows = torch.cat([x, x * x, g, torch.ones(n, 1, device=device)], dim=1)
    del x, g
    target = y.to(torch.float32).unsqueeze(1)
    per_neuron = len(L1) * len(L2)
    keys = neuron_pair_keys(0, size.neurons)
    drawn = poisson_weights(torch, keys, size.neurons, 0, n, device).to(torch.float32)
    weights = drawn.repeat_interleave(per_neuron, dim=1)
    l1, l2 = (grid.flatten().repeat(size.neurons).to(device) for grid in
              torch.meshgrid(torch.tensor(L1), torch.tensor(L2), indexing="ij"))  # fmt: skip
    params = torch.zeros(size.width, size.candidates, device=device)

    def step() -> None:
        residual = (torch.sigmoid(rows @ params) - target) * weights
        gradient = rows.T @ residual / n
        moved = params - RATE * (gradient + l2 * params)
        moved[:-1] = moved[:-1].sign() * (moved[:-1].abs() - RATE * l1).clamp(min=0)
        moved[-1] = params[-1] - RATE * gradient[-1]
        params.copy_(moved)

    with torch.inference_mode(), exact_products(torch):
        step()
        params.zero_()
        on.peak_bytes()
        seconds = on.clock(lambda: [step() for _ in range(size.iterations)])
    note = "" if n == len(samples[1]) else f"memory holds {n} samples only"
    return timing("plain torch", seconds, n, size, limits, on.peak_bytes(), note)


def agreement(size: Size, on: Machine) -> dict[str, Any]:
    """Against the Rust core on the CPU after the same iterations, and whether a second run gives the same bits."""
    samples = make_samples(size.agreement_samples, size.features, seed=1)
    given = arguments(samples[0], size)
    rust, first, second = _core.ProxSolver(*given), *(TorchProxSolver(*given, device=str(on.device)) for _ in range(2))
    start = time.perf_counter()
    for _ in range(size.iterations):
        rust.step(*samples)
    rust_s = time.perf_counter() - start
    for solver in (first, second):
        for _ in range(size.iterations):
            solver.step(*samples)
    state: Any = rust.state()
    wanted, found = state["params"], first.state()["params"]
    return {
        "samples": size.agreement_samples,
        "iterations": size.iterations,
        "max_relative_difference": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
        "supports_that_differ": int(((np.abs(found) > 1e-6) != (np.abs(wanted) > 1e-6)).sum()),
        "same_bits_twice": bool(found.tobytes() == second.state()["params"].tobytes()),
        "rust_simd": rust.simd,
        "rust_ns_per_cell": rust_s / (size.agreement_samples * size.candidates * size.iterations) * 1e9,
    }


def print_table(rows: Sequence[Timing], limits: Limits) -> None:
    print(f"limits of the device: {limits.tflops:.2f} TFLOP/s (float32 product), {limits.gb_per_s:.0f} GB/s (copy)\n")
    head = ("", "samples", "seconds", "ns/cell", "TFLOP/s", "of matmul", "GB/s", "of copy", "peak GiB")
    print("{:24}{:>12}{:>10}{:>10}{:>9}{:>11}{:>8}{:>9}{:>10}".format(*head))
    for row in rows:
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}"
        print(
            f"{row.name:24}{row.samples:>12,}{row.seconds:>10.2f}{row.ns_per_cell:>10.4f}{row.tflops:>9.2f}"
            f"{row.share_of_matmul:>11.0%}{row.gb_per_s:>8.0f}{row.share_of_copy:>9.0%}{peak:>10}  {row.note}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None, help="cuda, cuda:N or cpu; default cuda, with --quick cpu")
    parser.add_argument("--samples", type=int, default=25_100_000)
    parser.add_argument("--features", type=int, default=6)
    parser.add_argument("--neurons", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--agreement-samples", type=int, default=500_000)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few samples and iterations, CPU tensors")
    parser.add_argument("--out", type=Path, default=Path("gpu_search.json"))
    options = parser.parse_args(argv)
    size = Size(options.samples, options.features, options.neurons, options.iterations, options.agreement_samples,
                8192, 4 << 30)  # fmt: skip
    if options.quick:
        size = Size(20_000, options.features, options.neurons, 3, 5000, 512, 32 << 20)
    try:
        on = Machine.open(options.device or ("cpu" if options.quick else "cuda"))
    except VesuError as error:
        parser.error(str(error))
    limits = measure_limits(on, size)
    samples = make_samples(size.samples, size.features)
    plain, load_s = run_ours(samples, size, on, limits, fused=False)
    rows = [plain]
    if not options.no_compile:
        rows.append(run_ours(samples, size, on, limits, fused=True)[0])
    rows.append(run_plain(samples, size, on, limits))
    found = agreement(size, on)
    best = min(rows[:-1], key=lambda row: row.seconds)
    result = {
        "device": device_name(on.torch, on.device),
        "torch": on.torch.__version__,
        "cuda": on.torch.version.cuda,
        "python": platform.python_version(),
        "quick": options.quick,
        "size": asdict(size),
        "limits": asdict(limits),
        "load_s": load_s,
        "timings": [asdict(row) for row in rows],
        "speedup_over_plain_torch": rows[-1].ns_per_cell / best.ns_per_cell,
        "agreement": found,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{result['device']}, torch {on.torch.__version__}: {size.samples:,} samples x {size.width - 1} weights x "
          f"{size.candidates} candidates x {size.iterations} iterations")  # fmt: skip
    print_table(rows, limits)
    print(f"\nloading the samples: {load_s:.2f} s; target {TARGET_S:.0f} s for the search at full size")
    print(f"plain torch takes {result['speedup_over_plain_torch']:.2f} times ours per cell")
    print(
        f"against the Rust core ({found['rust_simd']}), {found['samples']:,} samples, "
        f"{found['iterations']} iterations: max |dw|/max |w| {found['max_relative_difference']:.1e}, "
        f"supports that differ {found['supports_that_differ']}, same bits twice: {found['same_bits_twice']}"
    )
    print(f"written: {options.out}")
    return 0 if found["same_bits_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
