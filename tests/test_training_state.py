"""A torch training captured between two steps and gone on with, bit for bit (R36, R37)."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install torch")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install safetensors")

from checkpoint_fields import fields  # noqa: E402
from training_case import N_STEPS, Training, one_thread_fixture, outcome  # noqa: E402, F401 (a fixture is found by name)
from vesu.distill.plan import Plan  # noqa: E402
from vesu.distill.training_state import PARTS  # noqa: E402
from vesu.errors import FormatError, ResumeIncompatible  # noqa: E402
from vesu.run.checkpoint import CheckpointStore  # noqa: E402

SEEDS = (0, 1, 2)
MODEL, RNG = "training_model.safetensors", "training_rng.safetensors"


@pytest.fixture(scope="module", name="saved")
def saved_fixture():
    """Of each seed: the parts after every step, from none to the last."""
    kept = {}
    for seed in SEEDS:
        training = Training(seed)
        kept[seed] = [training.parts()]
        while training.steps_done < N_STEPS:
            training.step()
            kept[seed].append(training.parts())
    return kept


@pytest.fixture(scope="module", name="whole")
def whole_fixture():
    """Of each seed: the uninterrupted training, that nothing was captured from on the way."""
    finished = {}
    for seed in SEEDS:
        training = Training(seed).finish()
        finished[seed] = (training.weights(), outcome(training))
    return finished


# ---- exact resume ----


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cut", range(N_STEPS + 1))
def test_a_training_cut_at_any_step_ends_with_the_same_bits(saved, whole, seed, cut):  # R37
    again = Training(seed=1000 + seed).restore(saved[seed][cut])  # another seed: what is not restored shows
    assert again.steps_done == cut
    again.finish()
    assert (again.weights(), outcome(again)) == whole[seed]


def test_seeds_and_steps_differ(saved, whole):
    """Else the equality above would prove nothing."""
    assert len({weights for weights, _ in whole.values()}) == len(SEEDS)
    assert len({parts[MODEL] for parts in saved[0]}) == N_STEPS + 1


def test_a_new_process_goes_on_with_the_same_bits(saved, whole, tmp_path):  # R37
    for seed in SEEDS:
        (tmp_path / str(seed)).mkdir()
        for name, data in saved[seed][2 + seed].items():
            (tmp_path / str(seed) / name).write_bytes(data)
    program = Path(__file__).with_name("training_case.py")
    folders = [str(tmp_path / str(seed)) for seed in SEEDS]
    answer = subprocess.run([sys.executable, program, *folders], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [whole[seed][1] for seed in SEEDS]


def test_a_chain_of_one_step_sessions_ends_with_the_same_bits(saved, whole):  # R36: a long run as a chain of short ones
    parts = saved[0][0]
    for step in range(N_STEPS):
        training = Training(seed=50 + step).restore(parts)
        training.step()
        parts = training.parts()
    assert (training.weights(), outcome(training)) == whole[0]


def test_a_training_goes_on_from_a_checkpoint_store(saved, whole, tmp_path):  # R36, R37
    store, training = CheckpointStore(tmp_path), Training(seed=2)
    while training.steps_done < 5:
        training.step()
        state = {name: {"part": f"training_{name}.safetensors"} for name in ("model", "optimizer")}
        named = fields(
            phase="distillation",
            model_state=state["model"],
            optimizer_state=state["optimizer"],
            rng_states={"part": RNG},
            data_cursor=training.cursor,
            distillation_state={"part": "training.json"},
        )
        store.save("full" if training.cursor["index"] == 0 else "light", named, training.parts())
    damaged = store.latest().path / MODEL  # the last save: the one before is taken
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = CheckpointStore(tmp_path).latest()
    again = Training(seed=1002).restore({name: found.read(name) for name in found.manifest.parts})
    assert again.steps_done == 4 and again.cursor == dict(found.manifest.data_cursor)
    again.finish()
    assert (again.weights(), outcome(again)) == whole[2]


def test_the_same_state_gives_the_same_parts(saved):
    assert Training(seed=77).restore(saved[1][3]).parts() == saved[1][3]
    assert set(saved[1][3]) == set(PARTS)


# ---- negative controls ----


def places(node, path=()):
    """Every member of every object and list; of long lists of numbers the first and the last."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield (*path, name)
            yield from places(child, (*path, name))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            if i in (0, len(node) - 1) or not isinstance(child, int):
                yield (*path, i)
                yield from places(child, (*path, i))


def without(document, path):
    document = copy.deepcopy(document)
    node = document
    for name in path[:-1]:
        node = node[name]
    del node[path[-1]]
    return document


REFUSED = ("FormatError", "ResumeIncompatible")


def result_without(parts, training):
    """What became of parts from which something was taken away: how it was noticed, or the outcome."""
    told = []
    try:
        training.restore(parts, emit=lambda name, **fields: told.append(fields["field"]))
    except (FormatError, ResumeIncompatible) as error:
        return type(error).__name__
    if told:
        return "told"
    try:
        return outcome(training.finish())
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"later: {error!r}"


def test_every_member_taken_away_is_noticed(saved, whole):  # R37, negative control
    parts = saved[0][3]
    document = json.loads(parts["training.json"])
    training, noticed = Training(seed=1000), {}
    for path in places(document):
        fewer = json.dumps(without(document, path)).encode()
        noticed[path] = result_without(parts | {"training.json": fewer}, training)
        if noticed[path] not in REFUSED:
            training = Training(seed=1000)  # that one was changed
    assert len(noticed) > 300
    assert sum(result in REFUSED for result in noticed.values()) > 0.8 * len(noticed)
    # What the schedule computes anew at each step is told by nothing and needed by nothing; all else is.
    unneeded = {path for path, result in noticed.items() if result == whole[0][1]}
    assert unneeded == {("scheduler", "state", "_last_lr", i) for i in (0, 1)}


def test_every_tensor_or_part_taken_away_is_refused(saved):  # R37, negative control
    parts, training = saved[0][3], Training(seed=1000)
    untouched = training.parts()
    for part in PARTS:
        with pytest.raises(FormatError, match=part):
            training.restore({name: data for name, data in parts.items() if name != part})
    for part in PARTS[1:]:
        tensors = safetensors_torch.load(parts[part])
        assert tensors
        for name in tensors:
            fewer = {key: value for key, value in tensors.items() if key != name}
            with pytest.raises(FormatError, match=part):
                training.restore(parts | {part: safetensors_torch.save(fewer)})
    assert training.parts() == untouched


SECTIONS = ("model", "ema", "optimizer", "scheduler", "scaler", "cursor")
GENERATORS = ("python", "numpy", "torch", *(f"generators.{name}" for name in Training(0).generators))


@pytest.mark.parametrize("field", [*SECTIONS, *(f"rng.{name}" for name in GENERATORS)])
def test_every_field_left_as_it_was_before_changes_the_weights(saved, whole, field):  # R37, negative control
    """The field alone comes from a step earlier: were it not needed, or not restored, the weights would be the same."""
    parts, earlier = dict(saved[0][4]), saved[0][3]
    document, old = (json.loads(source["training.json"]) for source in (parts, earlier))
    *outer, last = field.split(".")
    target, source = document, old
    for name in outer:
        target, source = target[name], source[name]
    target[last] = source[last]
    part = f"training_{field}.safetensors"
    if part in parts:
        parts[part] = earlier[part]
    if field.startswith("rng."):
        tensors, stale = (safetensors_torch.load(source[RNG]) for source in (parts, earlier))
        kept = {name: stale[name] if name.startswith(f"{field}.") else tensor for name, tensor in tensors.items()}
        parts[RNG] = safetensors_torch.save(kept)
    parts["training.json"] = json.dumps(document).encode()
    assert Training(seed=1000).restore(parts).finish().weights() != whole[0][0]


N_CHANGES = len(("model", "ema", "optimizer", "scheduler", "scaler")) + len(GENERATORS)


@pytest.mark.parametrize("left_out", range(N_CHANGES))
def test_every_change_left_out_changes_the_weights(saved, whole, monkeypatch, left_out):  # R37, negative control
    """A restore that forgets one of its steps is noticed, whichever it is."""

    def check(plan):
        assert len(plan.changes) - len(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()) == N_CHANGES
        del plan.changes[left_out]

    monkeypatch.setattr(Plan, "check", check)
    assert Training(seed=1000).restore(saved[0][4]).finish().weights() != whole[0][0]
