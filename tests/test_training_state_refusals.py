"""What a training state refuses, by name and before anything is changed; hostile parts (R37)."""
# ruff: noqa: NPY002 (numpy's global generator is one of those that must go on)

import json
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install torch")
pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install safetensors")

from torch import nn, optim  # noqa: E402
from torch.optim import lr_scheduler  # noqa: E402

from training_case import SmallUNet, Training, bits, one_thread_fixture  # noqa: E402, F401 (a fixture is found by name)
from vesu.distill.tensor_tree import MissingSafetensorsError  # noqa: E402
from vesu.distill.training_state import PARTS, capture, restore  # noqa: E402
from vesu.errors import FormatError, ResumeIncompatible  # noqa: E402

CURSOR = {"epoch": 0, "index": 0, "seed": 0}


@pytest.fixture(scope="module", name="parts")
def parts_fixture():
    training = Training(0)
    training.step(), training.step()
    return training.parts()


# ---- differences ----


def other_model(training):
    training.__init__(7, width=6)


def no_bias(training):
    training.model.leave.bias = None
    training.optimizer.param_groups[1]["params"].pop()


def other_optimizer(training):
    groups = [{"params": group["params"]} for group in training.optimizer.param_groups]
    training.optimizer = optim.SGD(groups, lr=0.1)


def one_group_more(training):
    training.model.more = nn.Linear(1, 1)
    training.optimizer.add_param_group({"params": training.model.more.weight})


def tensor_rate(training):
    training.optimizer.param_groups[1]["lr"] = torch.tensor(0.1)


def other_scheduler(training):
    training.scheduler = lr_scheduler.ConstantLR(training.optimizer)


def without_scheduler(training):
    training.scheduler = None


def without_scaler(training):
    training.scaler = None


def idle_scaler(training):
    training.scaler = torch.amp.GradScaler("cpu", enabled=False)


def other_ema(training):
    training.ema = SmallUNet()


def without_ema(training):
    training.ema = None


def other_generator(training):
    training.generators["patches"] = np.random.Generator(np.random.SFC64())


GROUPS = r"optimizer\.param_groups"
PRESENT, ABSENT = "checkpoint has present, this run has absent", "checkpoint has absent, this run has present"
DIFFERENCES = {
    r"model\.enter\.0\.weight\.shape: checkpoint has \[4, 1, 3, 3, 3\], this run has \[6, 1,": other_model,
    r"model\.leave\.weight\.dtype: checkpoint has torch.float32, this run has torch.float64": lambda t: (
        t.model.double()
    ),
    rf"model\.new\.weight: {ABSENT}": lambda t: t.model.add_module("new", nn.Linear(1, 1)),
    rf"model\.leave\.bias: {PRESENT}": no_bias,
    rf"ema\.enter\.0\.weight: {ABSENT}": other_ema,
    rf"ema: {PRESENT}": without_ema,
    r"optimizer\.class: checkpoint has AdamW, this run has SGD": other_optimizer,
    rf"{GROUPS}: checkpoint has 2 groups, this run has 3 groups": one_group_more,
    rf"{GROUPS}\[0\]\.params: checkpoint has \['enter": lambda t: t.optimizer.param_groups.reverse(),
    rf"{GROUPS}\[1\]\.lr: checkpoint has no tensor, this run has tensor": tensor_rate,
    rf"{GROUPS}\[0\]\.initial_lr: {PRESENT}": lambda t: t.optimizer.param_groups[0].pop("initial_lr"),
    r"scheduler\.class: checkpoint has OneCycleLR, this run has ConstantLR": other_scheduler,
    rf"scheduler: {PRESENT}": without_scheduler,
    rf"scaler: {PRESENT}": without_scaler,
    rf"scaler\.scale: {PRESENT}": idle_scaler,
    rf"rng\.generators\.noise: {PRESENT}": lambda t: t.generators.pop("noise"),
    rf"rng\.generators\.more: {ABSENT}": lambda t: t.generators.update(more=random.Random()),
    r"rng\.generators\.patches: checkpoint has numpy\.PCG64, this run has numpy\.SFC64": other_generator,
}


@pytest.mark.parametrize("message", DIFFERENCES)
def test_a_difference_is_refused_by_name_and_nothing_is_changed(parts, message):  # R37
    training = Training(7)
    DIFFERENCES[message](training)
    state = lambda: [bits(training.model), random.getstate(), torch.get_rng_state().tolist(), training.cursor]  # noqa: E731
    before = state()
    with pytest.raises(ResumeIncompatible, match=rf"RESUME_INCOMPATIBLE: .*field {message}"):
        training.restore(parts)
    assert state() == before


def test_a_module_without_tensors_is_missed_too():
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout().eval())
    optimizer = optim.SGD(model.parameters())
    parts = capture(model, optimizer, cursor=CURSOR)
    with pytest.raises(ResumeIncompatible, match=rf"field model\.evaluating\.1: {PRESENT}"):
        restore(parts, model[:1], optimizer)


def test_something_that_the_parts_lack_is_refused_by_name():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters())
    parts = capture(model, optimizer, cursor=CURSOR)
    scheduler, scaler = lr_scheduler.ConstantLR(optimizer), torch.amp.GradScaler("cpu")
    parts_of_scheduled = capture(model, optimizer, scheduler, cursor=CURSOR)
    with pytest.raises(ResumeIncompatible, match="field scheduler: checkpoint has absent, this run has present"):
        restore(parts, model, optim.SGD(model.parameters()), scheduler)
    with pytest.raises(ResumeIncompatible, match="field scaler: checkpoint has absent, this run has present"):
        restore(parts_of_scheduled, model, optimizer, scheduler, scaler)


def test_another_environment_is_told_and_not_refused(parts):  # R37
    document = json.loads(parts["training.json"])
    document["environment"] |= {"torch": "1.13.1", "threads": 64}
    other, told = parts | {"training.json": json.dumps(document).encode()}, []
    Training(3).restore(other, emit=lambda name, **fields: told.append((name, fields)))
    name = "TRAINING_ENVIRONMENT_CHANGED"
    assert told == [
        (name, {"field": "threads", "checkpoint": 64, "now": 1}),
        (name, {"field": "torch", "checkpoint": "1.13.1", "now": str(torch.__version__)}),
    ]
    document["environment"]["threads"] = 1
    other["training.json"] = json.dumps(document).encode()
    with pytest.warns(UserWarning, match=r"torch was '1\.13\.1' at the checkpoint and is .* now; bits may differ"):
        Training(3).restore(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Training(3).restore(parts)


# ---- hostile parts ----


@pytest.mark.parametrize("part", PARTS)
def test_truncated_parts_are_refused(parts, part):
    training, n = Training(7), len(parts[part])
    for kept in (0, 1, 7, 8, 9, n // 2, n - 1):
        with pytest.raises(FormatError, match=part):
            training.restore(parts | {part: parts[part][:kept]})
    with pytest.raises(FormatError, match=part):
        training.restore(parts | {part: parts[part] + b"x"})


HOSTILE_JSON = {
    "not the JSON": b'{"format": NaN}',
    "comes twice": b'{"format": "vesu-training-state/1", "format": "vesu-training-state/1"}',
    "nested|recursion|not the JSON": b"[" * 100_000,
    r"training\.json: got list": b"[]",
    "format 'vesu-training-state/2'": b'{"format": "vesu-training-state/2"}',
    r"training\.json\.\w+: missing": b'{"format": "vesu-training-state/1"}',
}


@pytest.mark.parametrize("message", HOSTILE_JSON)
def test_hostile_json_is_refused(parts, message):
    with pytest.raises(FormatError, match=message):
        Training(7).restore(parts | {"training.json": HOSTILE_JSON[message]})


WRONG_VALUES = {
    ("rng", "numpy", "state", "state", "pos"): (10**6, -1, "x", None),  # numpy would read beyond its buffer
    ("rng", "numpy", "state", "state", "key", "$array", 2): ([1, 2], [[1]], "x"),
    ("rng", "numpy", "state", "state", "key", "$array", 0): ("object", "U999999999", 7, ["uint32"]),
    ("rng", "python", "state", "$tuple", 0): (99,),
    ("rng", "python", "state", "$tuple", 1, "$tuple", 624): (10**6, -1),
    ("rng", "torch", "state", "$tensor"): ("no such", 3, None),
    ("rng", "generators", "patches", "state", "state", "state"): (-1, "x", 10**60),
    ("model", "tensors", "leave.weight"): ("leave.bias", 3, ["a"]),
    ("model", "frozen"): ([3], {}, [["a"]]),
    ("optimizer", "groups", 0, "params"): (3, [1], None),
    ("optimizer", "state", "leave.weight"): ([], 3),
    ("optimizer", "state", "leave.weight", "exp_avg"): ({"$tensor": "state.leave.bias.exp_avg"},),
    ("scheduler", "state", "step"): (3,),
    ("scheduler", "state", "last_epoch"): ({"$unknown": 1}, {"$float": "x"}, {"$tuple": 3}, {"$items": [[[], 1]]}),
    ("cursor", "index"): (-1, None, 1.5),
}


@pytest.mark.parametrize("path", WRONG_VALUES, ids=lambda path: ".".join(map(str, path)))
def test_wrong_values_are_refused(parts, path):
    training = Training(7)
    before = training.parts()
    for value in WRONG_VALUES[path]:
        document = json.loads(parts["training.json"])
        node = document
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = value
        with pytest.raises((FormatError, ResumeIncompatible), match=str(path[0])):
            training.restore(parts | {"training.json": json.dumps(document).encode()})
    assert training.parts() == before


def test_flipped_bytes_are_refused_or_make_another_state(parts):
    """The checkpoint's digests see each of them; without these nothing worse may come of one than another state."""
    draw, refused = random.Random(0), 0
    for part in PARTS:
        for _ in range(40):
            damaged = bytearray(parts[part])
            damaged[draw.randrange(min(len(damaged), 4000))] ^= 1 << draw.randrange(8)
            training = Training(7)
            try:
                with warnings.catch_warnings(record=True):
                    training.restore(parts | {part: bytes(damaged)})
            except (FormatError, ResumeIncompatible):
                refused += 1
            else:
                np.random.random(700), [random.random() for _ in range(700)], torch.rand(700)
    assert refused > 80


# ---- packages, documents ----


def test_torch_and_safetensors_load_only_when_used():
    program = (
        "import sys; import vesu.distill.training_state;"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'safetensors'} or 'none')"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "none"


def test_without_safetensors_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(MissingSafetensorsError, match="pip install safetensors"):
        capture(m := nn.Linear(1, 1), optim.SGD(m.parameters()), cursor=CURSOR)


def test_the_documented_training_runs():
    text = (Path(__file__).resolve().parents[1] / "docs" / "training_state.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "training_state.md", "exec"), {})
