"""The student's network: shapes, seeds, stages, precision, determinism, and that it learns (R19, R20)."""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the student needs torch: pip install 'vesu[distill]'")
pytest.importorskip("monai", reason="the student needs MONAI: pip install 'vesu[distill]'")

from vesu.config import StudentConfig  # noqa: E402
from vesu.distill.blocks import DepthGate, SpatialGate  # noqa: E402
from vesu.distill.losses import DistillationLoss, Target  # noqa: E402
from vesu.distill.student import StudentOutput, build_student, stage_parameters  # noqa: E402
from vesu.errors import ArgumentError, VesuError  # noqa: E402

SMALL = StudentConfig(channels=(4, 6, 8), patch=(8, 16, 12))


@pytest.fixture(autouse=True, scope="module", name="one_thread")
def one_thread_fixture():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def patches(n=2, seed=0, shape=SMALL.patch):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, 1, *shape)), dtype=torch.float32)


def target_of(x):
    """Something to learn: bright is surface, the rim is unlabelled; everything that a loss can use."""
    label = (x > 0.5).to(torch.uint8)
    label[..., 0] = 2
    return Target(label, (2 * x).half(), torch.full_like(x, 0.5), skeleton=(x > 1).to(torch.uint8))


def same_bits(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def trained_bits(config=SMALL, skeleton="recall", steps=2):
    """Output and weights after some steps."""
    model, x = build_student(config, seed=3), patches()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    loss = DistillationLoss(config, skeleton=skeleton)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), target_of(x)).total.backward()
        optimizer.step()
    return [*model(x), *model.parameters()]


# ---- building ----


@pytest.mark.parametrize("stem", ["2.5d", "3d"])
@pytest.mark.parametrize("channels", [(4, 4), (2, 4, 6), (1, 2, 3, 4)])
def test_answers_have_the_shape_of_the_patch(stem, channels):  # R19
    config = StudentConfig(stem=stem, channels=channels, patch=(8, 16, 24))
    x = patches(2, shape=config.patch)
    output = build_student(config, seed=0)(x)
    for tensor in output:
        assert tensor.shape == x.shape
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
    assert (output.log_variance <= 0).all()
    assert (output.probability - 0.1).abs().max() < 0.05  # the prior: few voxels are surface
    assert ((output.uncertainty >= 0) & (output.uncertainty <= 1)).all()


def test_the_stem_of_2_5d_begins_within_slices():  # R19
    kernels = {}
    for stem in ("2.5d", "3d"):
        model = build_student(StudentConfig(stem=stem, channels=(4, 8), patch=(8, 8, 8)), seed=0)
        convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv3d)]
        kernels[stem] = [m.kernel_size for m in convolutions]
    assert kernels["2.5d"][:2] == [(1, 3, 3)] * 2
    assert kernels["3d"][:2] == [(3, 3, 3)] * 2
    assert kernels["2.5d"][3:] == kernels["3d"][3:]


def test_the_same_seed_gives_the_same_bits_and_touches_no_generator():  # R19
    state = torch.get_rng_state()
    first = build_student(SMALL, seed=5).state_dict()
    torch.rand(3)
    torch.set_rng_state(state)
    second, other = build_student(SMALL, seed=5).state_dict(), build_student(SMALL, seed=6).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(first.values(), second.values())
    assert not same_bits(first.values(), other.values())


def test_the_layers_own_initialisation_does_not_show():  # R19: bits by the seed alone
    torch.manual_seed(1)
    first = build_student(SMALL, seed=5).state_dict()
    torch.manual_seed(2)
    assert same_bits(first.values(), build_student(SMALL, seed=5).state_dict().values())


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ArgumentError, match=r"seed: got .*; accepted: 0 to 2\*\*63 - 1"):
        build_student(SMALL, seed=seed)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 2, 8, 8, 8), (1, 1, 8, 8, 6), (1, 1, 4, 4, 4), (1, 1, 0, 8, 8)])
def test_a_patch_that_does_not_fit_is_refused(shape):
    with pytest.raises(ArgumentError, match=r"x: got shape .*multiples of 4"):
        build_student(SMALL, seed=0)(torch.zeros(shape))


def test_reading_the_module_needs_no_torch():  # R19: `import vesu` and its commands work without
    program = "import sys, vesu.distill.student, vesu.distill.skeletons; print({'torch', 'monai'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


@pytest.mark.parametrize("package", ["torch", "monai.networks.blocks.dynunet_block"])
def test_a_missing_package_is_named_with_its_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("network", "blocks"):
        monkeypatch.delitem(sys.modules, f"vesu.distill.{module}")
    with pytest.raises(
        VesuError, match=rf"network cannot be imported \(import of {package}.*; pip install 'vesu\[distill\]'"
    ) as error:
        build_student(SMALL, seed=0)
    assert isinstance(error.value, ImportError)


# ---- stages ----


def test_stages_unfreeze_head_then_decoder_then_encoder():  # R20
    model = build_student(SMALL, seed=0)
    stages = {s: {id(p) for p in stage_parameters(model, s)} for s in ("head", "decoder", "encoder", "distil")}
    everything = {id(p) for p in model.parameters()}
    assert stages["head"] < stages["decoder"] < stages["encoder"] == stages["distil"] == everything
    assert stages["head"] == {id(p) for p in model.head.parameters()}
    assert stages["decoder"] - stages["head"] == {id(p) for p in model.decoder.parameters()}


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ArgumentError, match="stage: got 'tail'; accepted: 'distil', 'head', 'decoder', 'encoder'"):
        stage_parameters(build_student(SMALL, seed=0), "tail")


def test_a_stage_changes_its_own_weights_alone():  # R20
    model, x = build_student(SMALL, seed=0), patches()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(stage_parameters(model, "decoder"), 1e-2)
    DistillationLoss(SMALL)(model(x), target_of(x)).total.backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"decoder", "head"}


def test_the_uncertainty_reaches_only_its_own_layers():  # R19
    model = build_student(SMALL, seed=0)
    model(patches()).log_variance.sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, _ in model.named_parameters() if name.startswith(("head.hidden", "head.variance"))
    }


# ---- what a network must not do ----


def test_gates_begin_open_and_every_weight_learns():  # R19
    model, x = build_student(SMALL, seed=0), patches()
    gates = [m for m in model.modules() if isinstance(m, DepthGate | SpatialGate)]
    assert len(gates) == 2 * len(SMALL.channels)
    for gate in gates:
        features = torch.rand(1, 8 if isinstance(gate, SpatialGate) else gate.excite.out_channels, 3, 4, 5)
        assert torch.equal(gate(features), features)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0)
    for _ in range(3):  # in the first, a layer before one of zeros gets no gradient
        optimizer.zero_grad()
        DistillationLoss(SMALL)(model(x), target_of(x)).total.backward()
        optimizer.step()
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


def test_the_gates_tell_slices_and_voxels_apart():  # R19
    torch.manual_seed(0)
    features = torch.ones(1, 4, 6, 5, 5)
    features[:, 1, 2] = 9  # one slice of one channel
    features[:, 3, 5, 4, 0] = 9  # one voxel
    depth = DepthGate(4)(features) / features
    assert torch.allclose(depth.amax((3, 4)), depth.amin((3, 4)))  # alike within a slice
    assert (depth[:, :, 2] - depth[:, :, 0]).abs().max() > 1e-3
    space = SpatialGate()(features) / features
    assert torch.allclose(space.amax(1), space.amin(1), atol=1e-6)  # alike over channels
    assert (space[0, 0, 5, 4, 0] - space[0, 0, 4, 0, 4]).abs() > 1e-3


def test_patches_of_a_batch_do_not_see_each_other():  # R19: a batch may be split over passes and processes
    model, x = build_student(SMALL, seed=0), patches(3)
    together = model(x).logit
    alone = torch.cat([model(x[i : i + 1]).logit for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_training_and_evaluation_answer_alike():  # R19
    model, x = build_student(SMALL, seed=0), patches()
    assert same_bits(model.train()(x), model.eval()(x))


NOT_DETERMINISTIC = ("MaxPool", "AvgPool", "AdaptiveAvg", "Upsample", "ReflectionPad", "ReplicationPad", "GridSampler")
"""Operations whose backward pass adds in any order on CUDA (torch.use_deterministic_algorithms' list)."""


@pytest.mark.parametrize("stem", ["2.5d", "3d"])
@pytest.mark.parametrize("skeleton", ["recall", "cldice"])
def test_no_operation_of_a_step_is_one_that_cuda_does_in_any_order(stem, skeleton):  # R19
    config = StudentConfig(channels=SMALL.channels, patch=SMALL.patch, stem=stem)
    x = patches().requires_grad_()
    total = DistillationLoss(config, skeleton=skeleton)(build_student(config, seed=0)(x), target_of(x.detach())).total
    seen, waiting = set(), [total.grad_fn]
    names = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(type(node).__name__)
            waiting += [parent for parent, _ in node.next_functions]
    assert any("Convolution" in name for name in names)
    assert not [name for name in names if name.startswith(NOT_DETERMINISTIC) or "Scatter" in name or "Index" in name]


@pytest.mark.parametrize("skeleton", ["recall", "cldice"])
def test_two_trainings_give_the_same_bits(skeleton):  # R19
    torch.use_deterministic_algorithms(True)
    try:
        assert same_bits(trained_bits(skeleton=skeleton), trained_bits(skeleton=skeleton))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_and_answers_in_whole(precision):  # R19
    model, x = build_student(SMALL, seed=0), patches()
    with torch.autocast("cpu", dtype=precision):
        half = model(x)
        DistillationLoss(SMALL)(half, target_of(x)).total.backward()
    whole = model(x)
    assert half.logit.dtype == half.log_variance.dtype == torch.float32
    assert not torch.equal(half.logit, whole.logit)
    assert torch.allclose(half.logit, whole.logit, atol=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_channels_last_answers_the_same():  # R19
    model, x = build_student(SMALL, seed=0), patches()
    plain = model(x).logit
    last = model.to(memory_format=torch.channels_last_3d)(x.to(memory_format=torch.channels_last_3d)).logit
    assert torch.allclose(plain, last, atol=1e-5)


def test_the_network_is_one_graph_for_the_compiler():  # R19
    config = StudentConfig(channels=(2, 4), patch=(4, 4, 4))
    model, x = build_student(config, seed=0), patches(1, shape=config.patch)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert same_bits(compiled(x), model(x))
    assert len(stage_parameters(compiled, "head")) == len(stage_parameters(model, "head"))


def test_double_precision_goes_through():  # R19
    output = build_student(SMALL, seed=0).double()(patches().double())
    assert output.logit.dtype == output.log_variance.dtype == torch.float64


# ---- learning ----


def sheets(seed):
    """CT of a sheet in every patch, and its label, of which one half is wrong three times in ten."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((3, 1, 4, 16, 16), np.uint8)
    for patch in truth:
        row = rng.integers(3, 12)
        patch[0, :, row : row + 3] = 1
    image = truth + rng.normal(0, 0.3, truth.shape)
    wrong = (rng.random(truth.shape) < 0.3) & (np.indices(truth.shape)[4] >= 8)
    image[..., 8:] += 3  # so that the half can be told
    return torch.tensor(image, dtype=torch.float32), torch.tensor(np.where(wrong, 1 - truth, truth).astype(np.uint8))


def test_the_student_learns_sheets_and_where_it_errs():  # R19
    config = StudentConfig(channels=(6, 8), patch=(4, 16, 16), skeleton_weight=0)
    model = build_student(config, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-2)
    losses = []
    for step in range(70):
        image, label = sheets(step)
        optimizer.zero_grad()
        loss = DistillationLoss(config)(model(image), Target(label))
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    image, label = sheets(1000)
    with torch.no_grad():
        output = model(image)
    clean, noisy = slice(1, 7), slice(9, 15)
    answer = (output.probability > 0.5).to(torch.uint8)
    assert (answer == label)[..., clean].float().mean() > 0.95
    error, foretold = (output.probability - label).abs(), output.uncertainty
    assert foretold[..., clean].mean() < 0.7 * foretold[..., noisy].mean()
    assert foretold[..., noisy].mean() == pytest.approx(error[..., noisy].square().mean().sqrt().item(), rel=0.25)


def test_an_output_reads_as_probability_and_error():  # R19
    output = StudentOutput(torch.tensor([0.0, 800.0, -800.0]), torch.tensor([np.log(0.25), 0.0, -800.0]))
    assert output.probability.tolist() == [0.5, 1.0, 0.0]
    assert output.uncertainty.tolist() == pytest.approx([0.5, 1.0, 0.0])
