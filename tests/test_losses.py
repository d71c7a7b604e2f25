"""The student's loss: every term beside a slow reference, its gradients, and what it must not see (R19)."""

import dataclasses

import numpy as np
import pytest

import reference_losses as reference

torch = pytest.importorskip("torch", reason="the student needs torch: pip install 'vesu[distill]'")
monai_losses = pytest.importorskip("monai.losses", reason="the student needs MONAI: pip install 'vesu[distill]'")

from vesu.config import StudentConfig  # noqa: E402
from vesu.distill.losses import (  # noqa: E402
    DistillationLoss,
    Target,
    dice,
    error_variance,
    skeleton_recall,
    slice_continuity,
    soft_cl_dice,
    soft_label_divergence,
    surface_cross_entropy,
)
from vesu.distill.soft_skeleton import soft_skeleton  # noqa: E402
from vesu.distill.student import StudentOutput  # noqa: E402
from vesu.errors import ArgumentError  # noqa: E402

CONFIG = StudentConfig(temperature=2.5, soft_weight=0.7, skeleton_weight=0.4, continuity_weight=0.3)
WEIGHTS = {"dice": 1, "bce": 1, "soft": 0.7, "uncertainty": 1, "skeleton": 0.4, "continuity": 0.3}
SHAPE = (4, 1, 4, 3, 5)


@pytest.fixture(autouse=True, scope="module", name="one_thread")
def one_thread_fixture():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_case(seed, shape=SHAPE, dtype=torch.float64):
    """An answer and everything that can be known of it; the last patch has no label."""
    rng = np.random.default_rng(seed)
    output = StudentOutput(
        torch.tensor(rng.normal(0, 2, shape), dtype=dtype, requires_grad=True),
        torch.tensor(-rng.exponential(2, shape), dtype=dtype, requires_grad=True),
    )
    has_label = torch.arange(shape[0]) < shape[0] - 1
    target = Target(
        label=torch.tensor(rng.integers(0, 3, shape), dtype=torch.uint8),
        soft_logit=torch.tensor(rng.normal(0, 3, shape), dtype=torch.float16),
        confidence=torch.tensor(rng.random(shape), dtype=torch.float32),
        has_label=has_label,
        skeleton=torch.tensor(rng.integers(0, 2, shape), dtype=torch.uint8),
    )
    return output, target


def reference_means(output, target, temperature):
    """The mean over patches of the slow reference's terms."""

    def patch(tensor, b):
        return None if tensor is None else tensor.detach().to(torch.float64).numpy()[b, 0]

    rows = []
    for b in range(output.logit.shape[0]):
        labelled = target.label is not None and (target.has_label is None or bool(target.has_label[b]))
        label = patch(target.label, b) if labelled else None
        known = (label, patch(target.soft_logit, b), patch(target.confidence, b), patch(target.skeleton, b))
        rows.append(reference.terms(patch(output.logit, b), patch(output.log_variance, b), *known, temperature))
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


LEFT_OUT = {
    "nothing": (),
    "the label": ("label", "has_label", "skeleton"),
    "whether there is a label": ("has_label",),
    "the teachers": ("soft_logit", "confidence"),
    "their confidence": ("confidence",),
    "the skeleton": ("skeleton",),
    "all": ("label", "soft_logit", "confidence", "has_label", "skeleton"),
}


@pytest.mark.parametrize("left_out", LEFT_OUT.values(), ids=LEFT_OUT)
@pytest.mark.parametrize("seed", range(3))
def test_every_term_is_its_formula(seed, left_out):  # R19
    output, target = random_case(seed)
    target = dataclasses.replace(target, **dict.fromkeys(left_out))
    loss = DistillationLoss(CONFIG)(output, target)
    expected = reference_means(output, target, CONFIG.temperature)
    assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx(expected, abs=1e-12)
    assert loss.total.item() == pytest.approx(sum(WEIGHTS[name] * value for name, value in expected.items()), abs=1e-12)
    if not left_out:
        assert min(expected.values()) > 0.01  # the comparison is of something


def test_gradients_are_those_of_the_values():  # R19
    output, target = random_case(1, (2, 1, 3, 2, 3))
    # The uncertainty term holds the probability fixed on purpose; at a log-variance of 0 it does not depend on it.
    at_rest = torch.zeros_like(output.log_variance)
    for loss in (DistillationLoss(CONFIG), DistillationLoss(CONFIG, skeleton="cldice")):
        assert torch.autograd.gradcheck(
            lambda logit, loss=loss: loss(StudentOutput(logit, at_rest), target).total, (output.logit,)
        )
    fixed = output.logit.detach()
    loss = DistillationLoss(CONFIG)
    assert torch.autograd.gradcheck(lambda s: loss(StudentOutput(fixed, s), target).total, (output.log_variance,))


def test_the_uncertainty_term_leaves_the_answer_alone():  # R19
    output, target = random_case(2)
    known = torch.ones_like(output.logit)
    error_variance(output, (target.label == 1).double(), known).sum().backward()
    assert output.logit.grad is None
    assert output.log_variance.grad.abs().min() > 0


def test_the_gradient_of_the_uncertainty_is_bounded_by_one_a_voxel():  # R19
    logit = torch.full((1, 1, 1, 1, 4), 30.0)  # surely surface, and wrong
    s = torch.tensor([-80.0, -10.0, -1.0, 0.0]).reshape(logit.shape).requires_grad_()
    error_variance(StudentOutput(logit, s), torch.zeros_like(logit), torch.ones_like(logit)).backward()
    assert (s.grad * 4).abs().max() <= 1


# ---- what must not be seen ----


@pytest.mark.parametrize("skeleton", ["recall", "cldice"])
def test_a_voxel_labelled_2_has_no_influence(skeleton):  # R19
    output, target = random_case(3)
    loss = DistillationLoss(CONFIG, skeleton=skeleton)
    ignored = (target.label == 2) & target.has_label.reshape(-1, 1, 1, 1, 1)
    assert 0 < ignored.sum() < ignored.numel()
    first = loss(output, target)
    first.total.backward()
    assert not output.logit.grad[ignored].any() and not output.log_variance.grad[ignored].any()
    assert output.logit.grad[~ignored].all()
    other = StudentOutput(
        torch.where(ignored, -5.0, output.logit.detach()), torch.where(ignored, -0.1, output.log_variance.detach())
    )
    soft = torch.where(ignored, 9.0, target.soft_logit)
    changed = dataclasses.replace(target, soft_logit=soft, skeleton=torch.where(ignored, 1, target.skeleton))
    again = loss(other, changed)
    assert {name: value.item() for name, value in again.terms.items()} == {
        name: value.item() for name, value in first.terms.items()
    }


def test_the_label_of_a_patch_without_one_means_nothing():  # R19
    output, target = random_case(4)
    loss = DistillationLoss(CONFIG)
    before = loss(output, target).total.item()
    for value in (0, 1, 2):
        label = target.label.clone()
        label[~target.has_label] = value
        assert loss(output, dataclasses.replace(target, label=label)).total.item() == before


# ---- nothing to learn from, and extremes ----


@pytest.mark.parametrize("skeleton", ["recall", "cldice"])
@pytest.mark.parametrize("known", ["nothing", "unlabelled", "no trust"])
def test_nothing_to_learn_from_is_a_loss_of_zero(known, skeleton):  # R19
    output, target = random_case(5, dtype=torch.float32)
    target = {
        "nothing": Target(),
        "unlabelled": dataclasses.replace(target, label=torch.full_like(target.label, 2), has_label=None),
        "no trust": Target(soft_logit=target.soft_logit, confidence=torch.zeros_like(target.confidence)),
    }[known]
    loss = DistillationLoss(CONFIG, skeleton=skeleton)(output, target)
    loss.total.backward()
    assert loss.total.item() == 0
    assert not output.logit.grad.any() and not output.log_variance.grad.any()


@pytest.mark.parametrize("skeleton", ["recall", "cldice"])
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("log_variance", [-1e4, 0.0])
def test_extremes_stay_finite(skeleton, value, logit, log_variance):  # R19
    shape = (2, 1, 4, 4, 4)
    answer = [torch.full(shape, number, requires_grad=True) for number in (logit, log_variance)]
    label = torch.full(shape, value, dtype=torch.uint8)
    soft = torch.tensor([6e4, -6e4], dtype=torch.float16).reshape(2, 1, 1, 1, 1).expand(shape)
    target = Target(label, soft, skeleton=label)
    loss = DistillationLoss(CONFIG, skeleton=skeleton)(StudentOutput(*answer), target)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(tensor.grad).all() for tensor in answer)


def test_half_precision_is_left_before_the_loss():  # R19
    output, target = random_case(6, dtype=torch.float32)
    half = StudentOutput(*(tensor.detach().half() for tensor in output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DistillationLoss(CONFIG, skeleton="cldice")(half, target)
    plain = DistillationLoss(CONFIG, skeleton="cldice")(StudentOutput(*(tensor.float() for tensor in half)), target)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == plain.total.item()


# ---- what each term asks for ----


def test_the_loss_does_not_depend_on_how_a_batch_is_split():  # R19
    output, target = random_case(7)
    whole = DistillationLoss(CONFIG)(output, target).total
    parts = []
    for b in range(SHAPE[0]):
        cut = {f.name: getattr(target, f.name)[b : b + 1] for f in dataclasses.fields(Target)}
        parts.append(DistillationLoss(CONFIG)(StudentOutput(*(t[b : b + 1] for t in output)), Target(**cut)).total)
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-12)


def test_the_teachers_pull_with_the_same_force_at_any_temperature():  # R19: T^2
    soft = torch.tensor([1.0, -2.0, 0.5, 0.1]).reshape(1, 1, 1, 1, 4).double()
    gradients = []
    for temperature in (50.0, 500.0):
        logit = torch.zeros_like(soft, requires_grad=True)
        soft_label_divergence(logit, soft, torch.ones_like(soft), temperature).backward()
        gradients.append(logit.grad)
    limit = -soft / 4 / soft.numel()  # at high temperature: a quarter of the difference of the logits
    for gradient in gradients:
        assert torch.allclose(gradient, limit, rtol=1e-3)


def test_a_patch_that_the_teachers_doubt_weighs_less():  # R19
    logit, soft = torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), 3.0)
    sure = soft_label_divergence(logit, soft, torch.ones_like(soft), 2.0)
    assert soft_label_divergence(logit, soft, 0.25 * torch.ones_like(soft), 2.0) == pytest.approx(sure / 4)


def test_what_hardly_counts_is_not_blown_up_to_a_whole_mean():  # R19
    output, _ = random_case(13, (1, 1, 2, 2, 2))
    doubtful = torch.zeros_like(output.logit)
    doubtful[0, 0, 0, 0, 0] = 0.1
    full = error_variance(output, doubtful * 0, (doubtful > 0).double())
    assert error_variance(output, doubtful * 0, doubtful).item() == pytest.approx(0.1 * full.item())


@pytest.mark.parametrize("rate", [0.05, 0.3])
@pytest.mark.parametrize("told_by", ["labels", "teachers"])
def test_the_log_variance_learns_the_error(rate, told_by):  # R19
    """Labels drawn at a rate, or teachers who name it: the optimum is the mean squared error of the probability."""
    rng = np.random.default_rng(8)
    shape, p = (1, 1, 20, 20, 20), 0.9
    truth = torch.tensor(rng.random(shape) >= rate, dtype=torch.float32)  # one, but for the rate
    expected = truth if told_by == "labels" else torch.full(shape, 1 - rate)
    logit = torch.full(shape, float(np.log(p / (1 - p))))
    s = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([s], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = error_variance(StudentOutput(logit, s.expand(shape)), expected, torch.ones(shape)).sum()
        value.backward()
        return value

    optimizer.step(closure)
    share = float((1 - truth).mean()) if told_by == "labels" else rate
    assert s.exp().item() == pytest.approx((1 - share) * (1 - p) ** 2 + share * p**2, rel=1e-3)


def test_skeleton_recall_sees_a_hole_in_a_sheet_and_not_its_thickness():  # R19
    skeleton = torch.zeros(1, 1, 5, 8, 8)
    skeleton[:, :, 2] = 1
    thick = torch.zeros_like(skeleton)
    thick[:, :, 1:4] = 1
    torn = skeleton.clone()
    torn[:, :, 2, 2:4, 2:6] = 0
    assert skeleton_recall(thick, skeleton).item() == skeleton_recall(skeleton, skeleton).item() == 0
    assert skeleton_recall(torn, skeleton).item() == pytest.approx(8 / 64)


def test_continuity_asks_nothing_where_the_label_changes():  # R19
    label = torch.zeros(1, 1, 6, 3, 3)
    label[:, :, 2:4] = 1
    known = torch.ones_like(label)
    assert slice_continuity(label, label, known).item() == 0
    flicker = label.clone()
    flicker[:, :, 3] = 0
    assert slice_continuity(flicker, label, known).item() == pytest.approx(1 / 3)  # one of the three steady steps


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_soft_skeleton_is_that_of_its_authors(steps):  # R19
    from monai.losses.cldice import soft_skel

    rng = np.random.default_rng(9)
    x = torch.tensor(rng.random((2, 1, 9, 8, 7)), dtype=torch.float32)
    x[1] = (x[1] > 0.4).float()
    assert torch.equal(soft_skeleton(x, steps), soft_skel(x, steps))


def test_soft_cl_dice_is_that_of_its_authors():  # R19
    rng = np.random.default_rng(10)
    p = torch.tensor(rng.random((1, 1, 9, 8, 7)), dtype=torch.float64)
    truth = torch.zeros_like(p)
    truth[:, :, 3:6] = 1
    theirs = monai_losses.SoftclDiceLoss(iter_=3, smooth=1e-12)(p, truth).item()
    assert soft_cl_dice(p, truth, torch.ones_like(p)).item() == pytest.approx(theirs, rel=1e-9)


def test_a_patch_without_surface_has_no_dice_but_a_cross_entropy():  # R19
    zeros = torch.zeros(1, 1, 2, 2, 2)
    ones = torch.ones_like(zeros)
    speck = zeros.clone()
    speck[..., 0] = 0.5
    assert dice(speck, zeros, ones).item() == soft_cl_dice(speck, zeros, ones).item() == 0
    assert surface_cross_entropy(zeros, zeros, ones).item() == pytest.approx(np.log(2))


# ---- bad input ----


@pytest.mark.parametrize("name", ["label", "soft_logit", "confidence", "skeleton", "has_label"])
def test_a_tensor_of_another_shape_is_refused(name):
    output, target = random_case(11)
    bad = dataclasses.replace(target, **{name: getattr(target, name)[:1]})
    with pytest.raises(ArgumentError, match=rf"target.{name}: got shape"):
        DistillationLoss(CONFIG)(output, bad)


def test_an_answer_of_another_shape_is_refused():
    output, target = random_case(12)
    with pytest.raises(ArgumentError, match=r"output\.log_variance: got shape \(1, 1, 4, 3, 5\)"):
        DistillationLoss(CONFIG)(StudentOutput(output.logit, output.log_variance[:1]), target)
    with pytest.raises(ArgumentError, match=r"output.logit: got shape \(4, 3, 5\)"):
        DistillationLoss(CONFIG)(StudentOutput(output.logit[0, 0], output.log_variance[0, 0]), target)


def test_another_skeleton_term_is_refused():
    with pytest.raises(ArgumentError, match=r"skeleton: got 'medial'; accepted: 'recall' or 'cldice'"):
        DistillationLoss(CONFIG, skeleton="medial")
