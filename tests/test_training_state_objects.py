"""What a training state takes: optimizers, schedules, tensors of every type, ties, generators (R36, R37)."""
# ruff: noqa: NPY002 (numpy's global generator is one of those that must go on)

import math
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install torch")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install safetensors")

from torch import nn, optim  # noqa: E402
from torch.optim import lr_scheduler  # noqa: E402

from training_case import Training, bits, one_thread_fixture  # noqa: E402, F401 (a fixture is found by name)
from vesu.data.machine import gpu_problem  # noqa: E402
from vesu.distill.training_state import capture, restore  # noqa: E402
from vesu.errors import ArgumentError, ResumeIncompatible  # noqa: E402

CURSOR = {"epoch": 0, "index": 0, "seed": 0}
MODEL = "training_model.safetensors"


# ---- optimizers and schedules ----


def layers(dtype=torch.float32, memory_format=torch.contiguous_format):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    return model.to(dtype=dtype, memory_format=memory_format)


def train(model, optimizer, scheduler, steps):
    for _ in range(steps):
        x = torch.randn(4, 2, 4, 4, dtype=model[0].weight.dtype)
        loss = model(x.to(memory_format=torch.channels_last)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item())
        elif scheduler:
            scheduler.step()


def check_resume(build):
    """Four steps, and two, captured, and two more from the parts: the same bits."""
    torch.manual_seed(0)
    whole = build()
    train(*whole, 4)
    torch.manual_seed(0)
    first = build()
    train(*first, 2)
    parts = capture(*first, cursor=CURSOR)
    torch.manual_seed(1)
    second = build()
    train(*second, 1)
    assert bits(second[0]) != bits(whole[0])
    restore(parts, *second)
    train(*second, 2)
    assert bits(second[0]) == bits(whole[0])
    assert capture(*second, cursor=CURSOR) == capture(*whole, cursor=CURSOR)
    return second


def shared_rate(model):
    """A learning rate that is a tensor, the same one in two groups."""
    return optim.AdamW([{"params": [model[0].weight]}, {"params": [model[2].weight]}], lr=torch.tensor(0.01))


OPTIMIZERS = {
    "Adam": lambda model: optim.Adam(model.parameters(), lr=0.01),
    "Adam amsgrad, tensor rate": lambda model: optim.Adam(model.parameters(), lr=torch.tensor(0.01), amsgrad=True),
    "AdamW shared rate": shared_rate,
    "AdamW fused": lambda model: optim.AdamW(model.parameters(), fused=True),
    "AdamW named": lambda model: optim.AdamW(model.named_parameters()),
    "SGD": lambda model: optim.SGD(model.parameters(), lr=0.1),
    "SGD momentum": lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "NAdam": lambda model: optim.NAdam(model.parameters()),
    "RMSprop": lambda model: optim.RMSprop(model.parameters(), momentum=0.5, centered=True),
    "Adafactor": lambda model: optim.Adafactor(model.parameters()),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_optimizers_resume_exactly(name, memory_format):  # R37
    def build():
        model = layers(memory_format=memory_format)
        optimizer = OPTIMIZERS[name](model)
        return model, optimizer, lr_scheduler.ExponentialLR(optimizer, 0.9)

    check_resume(build)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "SGD momentum"])
def test_bfloat16_parameters_keep_state_of_more_bits(name):  # R37: torch's own loading would round it
    def build():
        model = layers(torch.bfloat16)
        return model, OPTIMIZERS[name](model), None

    _, optimizer, _ = check_resume(build)
    if name == "NAdam":
        assert {state["mu_product"].dtype for state in optimizer.state.values()} == {torch.float32}


def test_a_shared_learning_rate_stays_shared():
    model = layers()
    optimizer = shared_rate(model)
    parts = capture(model, optimizer, cursor=CURSOR)
    again = shared_rate(model)
    restore(parts, model, again)
    first, second = (group["lr"] for group in again.param_groups)
    assert first is second and first is not optimizer.param_groups[0]["lr"]


class Halving:
    """A schedule's function that is an object with a state of plain values."""

    def __init__(self):
        self.factor = 0.5

    def __call__(self, epoch):
        return self.factor**epoch


SCHEDULES = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.9),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),  # its milestones are a Counter
    "LambdaLR of a function": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    "LambdaLR of an object": lambda o: lr_scheduler.LambdaLR(o, Halving()),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.LinearLR(o)], milestones=[2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_schedules_resume_exactly(name, rate):  # R37
    def build():
        model = layers()
        optimizer = optim.SGD(model.parameters(), lr=rate if isinstance(rate, float) else rate.clone())
        return model, optimizer, SCHEDULES[name](optimizer)

    check_resume(build)


def test_a_schedule_of_what_is_no_value_is_refused_by_name():  # R36
    model, function = layers(), Halving()
    function.inner = lambda epoch: epoch
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, function)
    with pytest.raises(
        ArgumentError, match=r"scheduler\.LambdaLR\.lr_lambdas\.0\.inner: got function; accepted: tensors"
    ):
        capture(model, optimizer, scheduler, cursor=CURSOR)


@pytest.mark.parametrize("scheduler", [7, "builtin"])
def test_a_schedule_without_a_state_is_refused_by_name(scheduler):
    model = layers()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    if scheduler == "builtin":
        scheduler = lr_scheduler.LambdaLR(optimizer, math.exp)
    with pytest.raises(ArgumentError, match=f"scheduler: got {type(scheduler).__name__} without a state_dict"):
        capture(model, optimizer, scheduler, cursor=CURSOR)


@pytest.mark.parametrize("name", ["model", "optimizer", "ema"])
def test_objects_of_a_wrong_kind_are_refused_by_name(name):
    model = layers()
    given = {"model": model, "optimizer": optim.SGD(model.parameters()), "ema": None, name: {"a": 1}}
    with pytest.raises(ArgumentError, match=f"{name}: got dict; accepted: a torch"):
        capture(**given, cursor=CURSOR)
    with pytest.raises(ArgumentError, match=f"{name}: got dict; accepted: a torch"):
        restore({}, **given)


# ---- tensors of every kind ----


class Holder(nn.Module):
    """Tensors by name, as buffers."""

    def __init__(self, **tensors):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def round_trip(model, other):
    parts = capture(model, optim.SGD(model.parameters()), cursor=CURSOR)
    restore(parts, other, optim.SGD(other.parameters()))
    return parts


def test_every_type_and_every_bit_survives():  # a state is a state: NaN with its payload, infinities, minus zero
    payload = torch.tensor([0x7FC00001, -0x80000000, 0x7F800000, 1], dtype=torch.int32).view(torch.float32)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.complex64,
        torch.int64,
        torch.bool,
    )
    tensors = {f"b{i}": torch.arange(6).to(kind).reshape(2, 3) for i, kind in enumerate(kinds)}
    shapes = {"none": torch.zeros(0, 3), "scalar": torch.tensor(2.5), "strided": torch.arange(12.0).reshape(3, 4).T}
    tensors |= shapes | {"payload": payload, "slice": torch.arange(9.0)[2:5]}
    other = Holder(**{name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    parts = round_trip(model := Holder(**tensors), other)
    assert bits(other) == bits(model)
    assert safetensors_torch.load(parts[MODEL])["payload"].view(torch.int32)[0] == 0x7FC00001


def test_views_of_one_storage_that_do_not_overlap_are_taken():
    flat = torch.arange(6.0)
    other = Holder(a=torch.zeros(3), b=torch.zeros(3))
    round_trip(Holder(a=flat[:3], b=flat[3:]), other)
    assert other.a.tolist() == [0, 1, 2] and other.b.tolist() == [3, 4, 5]


def test_tied_weights_are_kept_once_and_stay_tied():  # SmallUNet ties up.bias to enter.0.bias
    parts = Training(0).parts()
    kept = safetensors_torch.load(parts[MODEL])
    assert "enter.0.bias" in kept and "up.bias" not in kept
    training = Training(5).restore(parts)
    assert training.model.up.bias is training.model.enter[0].bias
    untied = Training(5)
    untied.model.up.bias = nn.Parameter(untied.model.up.bias.detach().clone())
    with pytest.raises(
        ResumeIncompatible, match=r"field model\.up\.bias\.tied: checkpoint has is enter\.0\.bias, this"
    ):
        restore(parts, untied.model, untied.optimizer)


REFUSED_TENSORS = {
    "shares a part of its memory with a": lambda: dict(
        zip("ab", (lambda f: (f[:4], f[2:]))(torch.zeros(6)), strict=True)
    ),
    "a: got an expanded tensor": lambda: {"a": torch.zeros(1).expand(3)},
    "a: got torch.complex128": lambda: {"a": torch.zeros(2, dtype=torch.complex128)},
    "a: got a tensor of layout torch.sparse_coo": lambda: {"a": torch.eye(2).to_sparse()},
    "a: got a tensor on the meta device": lambda: {"a": torch.zeros(2, device="meta")},
}


@pytest.mark.parametrize("message", REFUSED_TENSORS)
def test_tensors_that_cannot_be_kept_are_refused_by_name(message):
    model = Holder(**REFUSED_TENSORS[message]())
    with pytest.raises(ArgumentError, match=message):
        capture(model, optim.SGD([model.weight]), cursor=CURSOR)


def test_a_lazy_parameter_is_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    with pytest.raises(ArgumentError, match=r"1\.weight: got a parameter whose shape is not known yet"):
        capture(model, optim.SGD(model[0].parameters()), cursor=CURSOR)


def test_a_parameter_that_is_not_the_models_is_refused():
    model, stranger = layers(), nn.Parameter(torch.zeros(2))
    optimizer = optim.SGD([{"params": model.parameters()}, {"params": [stranger]}])
    with pytest.raises(
        ArgumentError, match=r"optimizer\.param_groups\[1\]\['params'\]\[0\]: got a parameter that is not"
    ):
        capture(model, optimizer, cursor=CURSOR)


@pytest.mark.parametrize("name", CURSOR)
@pytest.mark.parametrize("value", [-1, 1.0, None, True])
def test_a_cursor_says_where_the_data_stand(name, value):
    with pytest.raises(ArgumentError, match=rf"cursor\['{name}'\]: got {value}"):
        capture(m := layers(), optim.SGD(m.parameters()), cursor=CURSOR | {name: value})


def test_a_cursor_may_hold_more():
    cursor = CURSOR | {"order": (3, 1, 2), "best": float("inf"), "volumes": {1: "a"}, "seen": None}
    parts = capture(m := layers(), o := optim.SGD(m.parameters()), cursor=cursor)
    assert restore(parts, m, o) == cursor


# ---- generators ----


@pytest.mark.parametrize("bits_of", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_numpy_generators_go_on(bits_of):
    def build(seed):
        return {"a": np.random.Generator(getattr(np.random, bits_of)(seed))}

    model, first, second = layers(), build(1), build(2)
    optimizer = optim.SGD(model.parameters())
    first["a"].integers(7, dtype=np.int32)  # half of a word is kept for the next draw
    parts = capture(model, optimizer, cursor=CURSOR, generators=first)
    restore(parts, model, optimizer, generators=second)
    draws = [(g["a"].integers(99, dtype=np.int32), g["a"].random(3).tolist()) for g in (first, second)]
    assert draws[0] == draws[1]


def test_children_spawned_later_are_the_ones_that_would_have_been():
    model = layers()
    optimizer = optim.SGD(model.parameters())
    first = np.random.default_rng(3)
    first.spawn(2)
    parts = capture(model, optimizer, cursor=CURSOR, generators={"a": first})
    second = np.random.default_rng(3)
    restore(parts, model, optimizer, generators={"a": second})
    assert first.spawn(1)[0].random() == second.spawn(1)[0].random()
    for other in (np.random.default_rng(4), second):
        with pytest.raises(ResumeIncompatible, match=r"rng\.generators\.a\.children"):
            restore(parts, model, optimizer, generators={"a": other})


def test_a_gaussian_kept_for_later_is_kept():
    random.seed(1), np.random.seed(1)
    random.gauss(), np.random.normal()
    parts = capture(m := layers(), o := optim.SGD(m.parameters()), cursor=CURSOR)
    expected = (random.gauss(), np.random.normal())
    random.seed(2), np.random.seed(2)
    restore(parts, m, o)
    assert (random.gauss(), np.random.normal()) == expected


def test_each_gpu_has_a_generator_that_goes_on(monkeypatch):  # R36, with the calls that a GPU would answer
    states = [torch.arange(16, dtype=torch.uint8) + i for i in range(2)]
    set_again = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone() for state in states])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: set_again.append((device, state.tolist())))
    parts = capture(m := layers(), o := optim.SGD(m.parameters()), cursor=CURSOR)
    restore(parts, m, o)
    assert set_again == [(i, state.tolist()) for i, state in enumerate(states)]
    states.pop()  # a machine of fewer
    with pytest.warns(UserWarning, match="cuda_devices was 2 at the checkpoint and is 1 now"):
        restore(parts, m, o)
    assert [device for device, _ in set_again] == [0, 1, 0]


def test_a_training_on_a_gpu_resumes_exactly():  # R37
    if problem := gpu_problem():
        pytest.skip(f"no GPU: {problem}")

    def build():
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 1)).cuda()
        rate = torch.tensor(0.01, device="cuda")
        return model, optim.AdamW(model.parameters(), lr=rate, fused=True), torch.amp.GradScaler("cuda")

    def train(model, optimizer, scaler, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(16, 8, device="cuda")).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    torch.manual_seed(0)
    train(*(whole := build()), 4)
    torch.manual_seed(0)
    train(*(first := build()), 2)
    parts = capture(first[0], first[1], None, first[2], cursor=CURSOR)
    torch.manual_seed(1)
    model, optimizer, scaler = build()
    restore(parts, model, optimizer, None, scaler)
    train(model, optimizer, scaler, 2)
    assert optimizer.param_groups[0]["lr"].device.type == "cuda"
    assert bits(model.cpu()) == bits(whole[0].cpu())


def test_what_is_no_generator_is_refused():
    for wrong in (7, np.random, random):
        with pytest.raises(ArgumentError, match=r"generators\['a'\]: got"):
            capture(m := layers(), optim.SGD(m.parameters()), cursor=CURSOR, generators={"a": wrong})
