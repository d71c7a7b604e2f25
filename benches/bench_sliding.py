"""Sliding windows and soft labels against MONAI and plain NumPy, on the same input in one run.

The network is a small one, as a teacher of the tests: what is compared is what goes on around it. "blending" has no
network at all. `python benches/bench_sliding.py` prints the peak memory of each way over a 256^3 volume.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray

from vesu.distill.sliding import sliding_logits, tta_flips
from vesu.distill.soft_labels import fold_logits

SIZE, PATCH, TEACHERS = 64, 32, 9
MEMORY_SIZE, MEMORY_PATCH = 256, 64


@lru_cache(maxsize=1)
def volume(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((size, size, size), dtype=np.float32)


@lru_cache(maxsize=1)
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = (torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, 1, 3, padding=1))
    return torch.nn.Sequential(*layers)


def identity(windows: torch.Tensor) -> torch.Tensor:
    return windows


def vesu_way(predict: Callable[..., Any], size: int, patch: int, flips: bool) -> NDArray[np.float32]:
    return sliding_logits(predict, volume(size), patch=(patch,) * 3, flips=flips, batch=8)[0]


def monai_way(predict: Callable[..., Any], size: int, patch: int, flips: bool) -> NDArray[np.float32]:
    """MONAI's inferer, its answers for the flipped volumes turned back and averaged."""
    inferer = SlidingWindowInferer((patch,) * 3, sw_batch_size=8, overlap=0.5, mode="gaussian")
    image = torch.from_numpy(volume(size))[None, None]
    mean = torch.zeros_like(image)
    axes = [[axis + 2 for axis in each] for each in tta_flips(flips)]
    with torch.inference_mode():
        for each in axes:
            mean += inferer(image.flip(each), predict).flip(each)
    answer: NDArray[np.float32] = (mean / len(axes))[0, 0].numpy()
    return answer


WAYS = {"test_vesu_sliding": vesu_way, "test_peer_monai": monai_way}


@pytest.fixture(autouse=True, name="alike")
def alike_fixture() -> None:
    for flips in (False, True):
        ways = [way(network(), SIZE, PATCH, flips) for way in (vesu_way, monai_way)]
        np.testing.assert_allclose(*ways, atol=1e-5)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("what", ["blending", "network"])
def test_vesu_sliding(benchmark: Any, what: str, flips: bool) -> None:
    benchmark.group = f"sliding windows {SIZE}^3: {what}, {'8 flips' if flips else 'no flips'}"
    predict = identity if what == "blending" else network()
    benchmark(vesu_way, predict, SIZE, PATCH, flips)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("what", ["blending", "network"])
def test_peer_monai(benchmark: Any, what: str, flips: bool) -> None:
    benchmark.group = f"sliding windows {SIZE}^3: {what}, {'8 flips' if flips else 'no flips'}"
    predict = identity if what == "blending" else network()
    benchmark(monai_way, predict, SIZE, PATCH, flips)


@lru_cache(maxsize=1)
def logits() -> list[NDArray[np.float16]]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 4, (128, 128, 128)).astype(np.float16) for _ in range(TEACHERS)]


def numpy_fold(given: list[NDArray[np.float16]]) -> dict[str, NDArray[np.float16]]:
    """The formulas as they stand, in float32, over the stack of all teachers."""
    z = np.stack(given).astype(np.float32)
    p = 1 / (1 + np.exp(-z))

    def entropy(q: NDArray[np.float32]) -> NDArray[np.float32]:
        q = np.clip(q, 1e-7, 1 - 1e-7)
        bits: NDArray[np.float32] = -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
        return bits

    folded = {"mean_logit": z.mean(0), "variance": p.var(0), "disagreement": entropy(p.mean(0)) - entropy(p).mean(0)}
    return {name: values.astype(np.float16) for name, values in folded.items()}


@pytest.mark.benchmark(group=f"soft labels of {TEACHERS} teachers 128^3")
def test_vesu_fold(benchmark: Any) -> None:
    benchmark(fold_logits, logits())


@pytest.mark.benchmark(group=f"soft labels of {TEACHERS} teachers 128^3")
def test_peer_numpy_fold(benchmark: Any) -> None:
    wanted = benchmark(numpy_fold, logits())
    found = fold_logits(logits())
    assert all(np.abs(found[name] - values).max() < 2e-3 for name, values in wanted.items() if name != "mean_logit")


def main() -> None:
    if len(sys.argv) > 1:
        given = volume(MEMORY_SIZE)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        WAYS[sys.argv[1]](identity, MEMORY_SIZE, MEMORY_PATCH, flips=sys.argv[2] == "flips")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{sys.argv[1]:18} {sys.argv[2]:9} {grown * 1024 / given.nbytes:5.2f} volumes of float32")
        return
    for way in WAYS:  # a process each: a peak is never taken back
        for flips in ("flips", "no-flips"):
            subprocess.run([sys.executable, __file__, way, flips], check=True)


if __name__ == "__main__":
    main()
