"""What the tests of the torch solver share: devices, solvers of either kind, comparisons."""

import numpy as np
import pytest

from test_grid_search import L1, L2
from vesu import _core
from vesu.data.machine import gpu_problem
from vesu.grid_search.torch_solver import TorchProxSolver

torch = pytest.importorskip("torch", reason="the GPU path needs torch: pip install torch")

TOLERANCE = 1e-6  # of max |dw| / max |w|; 3e-8 was measured on CPU tensors


@pytest.fixture(name="device", params=["cpu", "cuda"])
def device_fixture(request):
    if request.param == "cuda" and (problem := gpu_problem()):
        pytest.skip(f"no GPU: {problem}")
    return request.param


@pytest.fixture(autouse=True, name="one_thread")
def one_thread_fixture():
    """torch's threads spin while they wait: on a busy machine two are ten times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(x, *, gradient=True, neurons=9, l1=L1, l2=L2, rate=0.08, seed=0, init_scale=0.01, **options):
    mean, scale = _core.prox_standardise(x)
    return (mean.tolist(), scale.tolist(), gradient, neurons, list(l1), list(l2), rate, seed, init_scale), options


def both(x, device="cpu", **settings):
    given, options = arguments(x, **settings)
    return _core.ProxSolver(*given, **options), TorchProxSolver(*given, device=device, **options)


def on_torch(x, device="cpu", method="ista", compile=False, **settings):
    given, options = arguments(x, **settings)
    return TorchProxSolver(*given, method=method, device=device, compile=compile, **options)


def steps(solver, n, *samples):
    for _ in range(n):
        stats = solver.step(*samples)
    return stats


def relative(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def bits(state):
    return {name: value if name == "iteration" else value.tobytes() for name, value in state.items()}
