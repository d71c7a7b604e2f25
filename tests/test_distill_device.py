"""The device of the networks: proved by a kernel, never changed in silence, its use counted (R27)."""

import sys
import weakref

import pytest

from vesu.data.machine import gpu_problem
from vesu.distill import device as module
from vesu.distill.device import (
    BatchLimit,
    ComputeDevice,
    DeviceUse,
    choose_compute_device,
    gpu_memory_snapshot,
    memory_errors,
    smaller_batches,
)
from vesu.errors import ArgumentError, MemoryLimitError, VesuError

torch = pytest.importorskip("torch", reason="the student needs torch: pip install 'vesu[distill]'")


class Events(list):
    def __call__(self, name, fields):
        self.append((name, dict(fields)))

    def named(self, name):
        return [fields for found, fields in self if found == name]


@pytest.fixture(name="gpu")
def gpu_fixture(monkeypatch):
    """A machine whose GPU passes the preflight; its kernels are the CPU's, and it has 80 of 100 bytes free."""
    monkeypatch.setattr(module, "gpu_problem", lambda: None)
    monkeypatch.setattr(module, "_current_gpu", lambda _: torch.device("cuda", 1))
    monkeypatch.setattr(module, "_convolution_problem", lambda _, device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80, 100))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 8)
    drained = []
    monkeypatch.setattr(torch.cuda, "synchronize", drained.append)
    return drained


# ---- choosing


def test_a_refused_gpu_is_told_or_is_an_error(monkeypatch):  # R27
    monkeypatch.setattr(module, "gpu_problem", lambda: "the GPU is on holiday")
    events = Events()
    device = choose_compute_device("auto", events)
    assert (str(device), device.kind, device.fallback) == ("cpu", "cpu", "the GPU is on holiday")
    assert events == [
        ("GPU_FALLBACK_DETECTED", {"asked": "auto", "used": "cpu", "reason": "the GPU is on holiday"}),
        ("COMPUTE_DEVICE_CHOSEN", {"asked": "auto", "used": "cpu", "name": "cpu"}),
    ]
    events.clear()
    with pytest.raises(ArgumentError, match="device: got 'cuda', but the GPU is on holiday"):
        choose_compute_device("cuda", events)
    assert not events


def test_the_cpu_asked_for_is_no_fallback(monkeypatch):  # R27
    monkeypatch.setattr(module, "gpu_problem", lambda: pytest.fail("nobody asked for a GPU"))
    events = Events()
    device = choose_compute_device("cpu", events)
    assert device == ComputeDevice("cpu") and device.torch == torch.device("cpu")
    assert not events.named("GPU_FALLBACK_DETECTED")


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_computes_is_taken(gpu, asked):
    events = Events()
    device = choose_compute_device(asked, events)
    assert (str(device), device.name, device.fallback) == ("cuda:1", "a GPU", None)
    assert device.torch == torch.device("cuda", 1)
    assert events == [("COMPUTE_DEVICE_CHOSEN", {"asked": asked, "used": "cuda:1", "name": "a GPU"})]


def test_a_listed_gpu_that_convolves_wrongly_is_refused(gpu, monkeypatch):  # R02, R27: preflight runs a real kernel
    problem = "a 3-D convolution fails on cuda:1: no kernel image is available"
    monkeypatch.setattr(module, "_convolution_problem", lambda _, device: problem)
    events = Events()
    assert str(choose_compute_device("auto", events)) == "cpu"
    assert events.named("GPU_FALLBACK_DETECTED")[0]["reason"] == problem
    with pytest.raises(ArgumentError, match="no kernel image"):
        choose_compute_device("cuda")


def test_the_proof_finds_each_way_to_be_wrong(monkeypatch):  # R27
    right = torch.nn.functional.conv3d
    assert module._convolution_problem(torch, torch.device("cpu")) is None
    calls = []

    def first_only(wrong):
        def convolve(image, kernel, **settings):
            calls.append(1)
            return wrong(image, kernel, settings) if len(calls) == 1 else right(image, kernel, **settings)

        calls.clear()
        monkeypatch.setattr(torch.nn.functional, "conv3d", convolve)
        return module._convolution_problem(torch, torch.device("cpu"))

    def fails(image, kernel, settings):
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

    assert first_only(fails) == "a 3-D convolution fails on cpu: CUDA error: no kernel image is available"
    assert "wrong values: relative error 1" in first_only(lambda i, k, s: right(i, k, **s) * 2)
    assert "wrong values: relative error nan" in first_only(lambda i, k, s: right(i, k, **s) * torch.nan)

    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 0

    assert "wrong input gradient" in first_only(lambda i, k, s: right(NoGradient.apply(i), k, **s))
    assert "wrong weight gradient" in first_only(lambda i, k, s: right(i, NoGradient.apply(k), **s))
    assert first_only(lambda i, k, s: right(i, k, **s)) is None


def test_a_real_gpu_computes_and_is_measured():  # R27
    if problem := gpu_problem():
        pytest.skip(f"no GPU: {problem}")
    events = Events()
    device = choose_compute_device("cuda", events)
    use = DeviceUse(events)
    with use.phase("test", device):
        torch.ones(1 << 20, device=device.torch).sum().item()
    (_, last) = events.named("GPU_MEMORY_SNAPSHOT")
    assert 0 < last["free"] <= last["total"] and last["peak"] >= 4 << 20
    assert use.kpis()["gpu_time_ratio"] == 1.0


@pytest.mark.parametrize("asked", ["tpu", "cuda:0", "", None])
def test_another_device_is_refused(asked):
    with pytest.raises(ArgumentError, match=r"device: got .*; accepted: 'auto', 'cpu' or 'cuda'"):
        choose_compute_device(asked)


def test_without_torch_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VesuError, match=r"torch cannot be imported .*pip install 'vesu\[distill\]'") as caught:
        choose_compute_device("auto")
    assert isinstance(caught.value, ImportError)


# ---- use


def test_phases_are_logged_with_their_device_and_counted(gpu, monkeypatch):  # R27
    now = iter([0.0, 3.0, 10.0, 11.0, 20.0, 24.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    events = Events()
    use = DeviceUse(events)
    assert use.kpis() == {"gpu_phase_coverage_pct": None, "gpu_time_ratio": None, "cpu_fallback_count": 0}
    with use.phase("teachers", "cuda:1"):
        assert events[-1][0] == "GPU_MEMORY_SNAPSHOT"
    with use.phase("student", ComputeDevice("cuda", 1)):
        pass
    with use.phase("fusion", "cpu"):
        pass
    assert gpu == ["cuda:1", "cuda:1"]  # drained before the clock was read
    kpis = use.kpis()
    assert kpis["gpu_phase_coverage_pct"] == pytest.approx(200 / 3)
    assert kpis["gpu_time_ratio"] == 0.5
    memory = {"device": "cuda:1", "total": 100, "free": 80, "allocated": 7, "reserved": 9, "peak": 8}
    teachers = {"phase": "teachers", "device": "cuda:1"}
    assert events[:4] == [
        ("GPU_PHASE_START", teachers),
        ("GPU_MEMORY_SNAPSHOT", memory | {"where": "teachers: start"}),
        ("GPU_MEMORY_SNAPSHOT", memory | {"where": "teachers: end"}),
        ("GPU_PHASE_END", teachers | {"seconds": 3.0}),
    ]
    assert [name for name, _ in events[-2:]] == ["CPU_PHASE_START", "CPU_PHASE_END"]


def test_a_phase_that_went_to_the_cpu_once_is_not_covered(gpu):  # R27
    use = DeviceUse()
    for device in ("cuda:1", "cpu"):
        with use.phase("student", device):
            pass
    assert use.kpis()["gpu_phase_coverage_pct"] == 0.0


def test_a_phase_that_fails_is_not_said_to_have_ended(gpu):  # R54
    events = Events()
    use = DeviceUse(events)
    with pytest.raises(ValueError), use.phase("student", "cuda:1"):
        raise ValueError
    assert events.named("GPU_PHASE_START") and not events.named("GPU_PHASE_END")
    assert use.kpis()["gpu_phase_coverage_pct"] == 100.0  # its seconds were spent there


def test_fallbacks_are_counted_on_their_way(monkeypatch):  # R27
    monkeypatch.setattr(module, "gpu_problem", lambda: "none")
    events = Events()
    use = DeviceUse(events)
    for _ in range(2):
        choose_compute_device("auto", use.emit)
    assert use.kpis()["cpu_fallback_count"] == len(events.named("GPU_FALLBACK_DETECTED")) == 2


def test_no_snapshot_of_a_cpu():
    gpu_memory_snapshot("cpu", lambda *event: pytest.fail(f"{event}"), "here")
    gpu_memory_snapshot(ComputeDevice("cpu"), lambda *event: pytest.fail(f"{event}"), "here")


# ---- memory


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        MemoryError("no room"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_every_way_to_be_out_of_memory_is_known(error):  # R27
    events, sizes = Events(), []

    def run(n):
        sizes.append(n)
        if n > 1:
            raise error
        return "done"

    assert smaller_batches(5, run, events) == ("done", 1)
    assert sizes == [5, 2, 1]
    assert [(e["batch"], e["next"]) for e in events.named("OUT_OF_MEMORY_SMALLER_BATCH")] == [(5, 2), (2, 1)]


def test_real_memory_that_cannot_be_had():
    def run(n):
        return torch.empty(n << 50) if n > 1 else torch.empty(1)

    answer, n = smaller_batches(2, run)
    assert n == 1 and answer.numel() == 1
    with pytest.raises(MemoryLimitError, match="a single item does not fit"):
        smaller_batches(4, lambda n: torch.empty(n << 50))


def test_tensors_of_a_failed_try_are_let_go_before_the_next():  # R27: else the smaller batch would not fit either
    made = []

    class Buffer:
        pass

    def run(n):
        assert all(reference() is None for reference in made)
        buffer = Buffer()
        made.append(weakref.ref(buffer))
        if n > 1:
            raise MemoryError
        return n

    assert smaller_batches(8, run) == (1, 1) and len(made) == 4


def test_fewer_items_than_the_batch_leave_it_as_it_is():
    limit = BatchLimit(8)
    assert limit.run(lambda n: n, available=3) == (3, 3)
    assert limit.size == 8


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "2"])
def test_a_batch_that_is_none_is_refused(batch):
    with pytest.raises(ArgumentError, match="batch: got"):
        smaller_batches(batch, lambda n: n)


def test_other_errors_pass_unchanged():
    for error in (RuntimeError("shape"), KeyError("x"), MemoryLimitError("counted before")):
        calls = []

        def run(n, error=error, calls=calls):
            calls.append(n)
            raise error

        with pytest.raises(type(error)):
            smaller_batches(4, run)
        assert calls == [4]
    with pytest.raises(RuntimeError, match="shape"), memory_errors("x"):
        raise RuntimeError("shape")
