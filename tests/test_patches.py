"""Patches are pure functions of seed, stage and index; what lies where is known of all their arrays alike (R19)."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from training_volumes import sheet
from vesu.config import StudentConfig
from vesu.distill.augment import Augmentation, blurred
from vesu.distill.ema import averaged_model
from vesu.distill.loading import PatchLoader
from vesu.distill.patches import PatchSampler, PreparedVolume, standardise
from vesu.distill.skeletons import tubed_skeleton
from vesu.distill.stages import plan_stages
from vesu.distill.validation import EarlyStop, ValidationScore, count_bins, judged, score_bins
from vesu.distill.values import SoftLabels, TrainingVolume
from vesu.errors import ArgumentError, DataError

PATCH = (6, 8, 8)


def tracked(shape: tuple[int, int, int] = (10, 12, 12), *, labelled: bool = True) -> TrainingVolume:
    """Label and soft labels that can be read off the image: all tell of the same voxel wherever they are together."""
    number = np.arange(np.prod(shape)).reshape(shape)
    soft = SoftLabels("t", (number % 97 - 48).astype(np.float16), *[(number % 5 / 8).astype(np.float16)] * 2, ("a",))
    return TrainingVolume("t", number.astype(np.uint16), (number % 3).astype(np.uint8) if labelled else None, soft)


def sampler(*volumes: TrainingVolume, seed: int = 5, stage: str = "distil", patch=PATCH) -> PatchSampler:
    return PatchSampler([PreparedVolume(v, tubed_skeleton) for v in volumes], patch, seed=seed, stage=stage)


def test_a_patch_is_a_function_of_seed_stage_and_index() -> None:  # R19
    volumes = [sheet("a"), sheet("b", seed=1)]
    forwards = [sampler(*volumes)[index] for index in range(12)]
    again = sampler(*volumes)
    for index in reversed(range(12)):
        patch = again[index]
        assert patch.volume_id == forwards[index].volume_id
        for name in ("image", "label", "soft_logit", "confidence", "skeleton"):
            assert np.array_equal(getattr(patch, name), getattr(forwards[index], name)), name
    for other in (sampler(*volumes, seed=6), sampler(*volumes, stage="head")):
        assert sum(other.plan(index) == again.plan(index) for index in range(12)) <= 1


def test_threads_that_cut_ahead_change_no_bit() -> None:  # R19
    cut = sampler(sheet("a"))
    with PatchLoader(sampler(sheet("a")), n_workers=3) as loader:
        for first in range(0, 8, 2):
            taken = loader.take(range(first, first + 2), range(first + 2, first + 4))
            assert all(np.array_equal(taken[i].image, cut[first + i].image) for i in range(2))


def test_every_volume_comes_once_in_a_round() -> None:  # R16, R19
    drawn = sampler(*(sheet(name) for name in "abcde"))
    rounds = [[drawn.plan(5 * n + i).volume for i in range(5)] for n in range(6)]
    assert all(sorted(order) == list(range(5)) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_most_patches_show_a_surface() -> None:  # R19
    label = np.zeros((64, 64, 64), np.uint8)
    label[5, 5, 5] = 1
    volume = TrainingVolume("a", label * np.uint8(9), label)
    drawn = sampler(volume, patch=(8, 8, 8))
    corners = [drawn.plan(index).corner for index in range(200)]
    showing = sum(all(c <= 5 < c + 8 for c in corner) for corner in corners)
    assert 100 <= showing <= 140  # six of ten; elsewhere one voxel is hardly met
    assert len({corner for corner in corners if max(corner) > 20}) > 40


def test_without_a_label_the_teachers_say_where_surfaces_are() -> None:  # R19
    logit = np.full((40, 40, 40), -1, np.float16)
    logit[30, 30, 30] = 1
    soft = SoftLabels("a", logit, logit * 0, logit * 0, ("a",))
    drawn = sampler(TrainingVolume("a", np.ones((40, 40, 40), np.uint8), None, soft), patch=(8, 8, 8))
    showing = sum(all(c <= 30 < c + 8 for c in drawn.plan(index).corner) for index in range(100))
    assert 45 <= showing <= 75


@pytest.mark.parametrize("labelled", [True, False])
def test_augmentation_moves_all_arrays_alike(labelled: bool) -> None:  # R19
    volume = tracked(labelled=labelled)
    drawn = sampler(volume)
    prepared = drawn.volumes[0]
    seen = set()
    for index in range(24):
        plan = drawn.plan(index)
        patch = drawn.cut(plan)  # without noise and changes of intensity the image says which voxel it is
        voxel = np.rint(patch.image * prepared.deviation + prepared.mean).astype(np.int64)
        assert np.array_equal(patch.soft_logit, (voxel % 97 - 48).astype(np.float32))
        assert np.array_equal(patch.confidence, (1 - voxel % 5 / 8).astype(np.float32))
        if labelled:
            assert np.array_equal(patch.label, voxel % 3)
            assert np.array_equal(patch.skeleton.ravel(), tubed_skeleton(volume.label).ravel()[voxel.ravel()])
        else:
            assert patch.label is None
            assert patch.skeleton is None
        box = voxel.min(), voxel.max()
        flips, turns = plan.augmentation.flips, plan.augmentation.turns
        seen.add((flips, turns))
        corner = tuple(np.array(np.unravel_index(box[0], volume.image.shape)))
        assert corner == plan.corner
    assert len(seen) > 8


def test_odd_turns_need_square_patches() -> None:  # R19
    rng = np.random.Generator(np.random.Philox(1))
    assert {Augmentation.draw(rng, square=False).turns for _ in range(50)} == {0, 2}
    assert {Augmentation.draw(rng, square=True).turns for _ in range(50)} == {0, 1, 2, 3}


def test_a_volume_smaller_than_a_patch_is_reflected_and_counts_only_once() -> None:  # R19
    volume = tracked((4, 5, 8))
    patch = sampler(volume).cut(replace(sampler(volume).plan(0), augmentation=Augmentation()))
    assert patch.image.shape == PATCH
    inside = np.zeros(PATCH, bool)
    inside[:4, :5, :8] = True
    assert np.array_equal(patch.label[inside].reshape(4, 5, 8), volume.label)
    assert (patch.label[~inside] == 2).all()
    assert (patch.confidence[~inside] == 0).all()
    assert not patch.skeleton[~inside].any()
    assert np.array_equal(patch.image[4], patch.image[2])


def test_intensity_changes_leave_the_image_alone_that_they_were_given() -> None:  # R19
    image = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32)
    before = image.copy()
    strong = Augmentation(scale=1.2, shift=0.1, gamma=1.3, noise=0.1, blur=0.2)
    changed = strong.intensity(image, np.random.Generator(np.random.Philox(0)))
    assert changed.dtype == np.float32
    assert not np.allclose(changed, image)
    assert np.array_equal(image, before)
    assert np.array_equal(Augmentation().intensity(image, np.random.Generator(np.random.Philox(0))), image)


def test_blur_against_a_slow_reference() -> None:  # R19
    image = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    wanted = image.astype(np.float64)
    for axis in range(3):
        padded = np.pad(wanted, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        wanted = np.apply_along_axis(lambda line: np.convolve(line, [0.2, 0.6, 0.2], "valid"), axis, padded)
    assert np.allclose(blurred(image, np.float32(0.2)), wanted, atol=1e-6)


def test_standardise_is_of_the_whole_volume() -> None:  # R19
    image = np.random.default_rng(0).integers(0, 60000, (7, 6, 5)).astype(np.uint16)
    scaled = standardise(image)
    assert np.allclose(scaled, (image - image.mean()) / image.std(), atol=1e-5)
    prepared = PreparedVolume(TrainingVolume("a", image))
    assert np.array_equal(standardise(image[2:4], prepared.mean, prepared.deviation), scaled[2:4])
    assert not standardise(np.full((2, 2, 2), 7, np.uint8)).any()


BAD = np.ones((4, 4, 4), np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.ones((4, 4), np.uint8)}, "volume a: image: got uint8 of shape"),
        ({"image": np.ones((4, 4, 4), np.int64)}, "accepted: a 3-D array of uint8, uint16 or float32"),
        ({"image": np.full((4, 4, 4), np.nan, np.float32)}, "image: got values that are NaN"),
        ({"label": np.zeros((4, 4, 5), np.uint8)}, "label: got uint8 of shape"),
        ({"label": np.full((4, 4, 4), 3, np.uint8)}, "label: got the value 3"),
        ({"soft": SoftLabels("a", BAD, BAD, BAD[1:], ("a",))}, "soft.disagreement: got shape"),
        ({"soft": SoftLabels("a", BAD * np.inf, BAD, BAD, ("a",))}, "soft.mean_logit: got values that are NaN or inf"),
    ],
)
def test_bad_volumes_are_named(change, message: str) -> None:
    good = TrainingVolume("a", np.ones((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match=message):
        PreparedVolume(replace(good, **change))
    with pytest.raises(ArgumentError, match="volumes: got none"):
        PatchSampler([], PATCH, seed=0, stage="distil")


def test_the_average_against_its_formula() -> None:  # R19
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    ema = averaged_model(model, 0.5)
    wanted = 1.0
    for n, value in enumerate((3.0, -2.0, 8.0, 8.0, 1.0, 0.0, 4.0, 4.0, 4.0, 4.0), start=1):
        torch.nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(wanted, rel=1e-6)
    assert not ema.module.weight.requires_grad


def test_f_beta_against_every_threshold() -> None:  # R20
    rng = np.random.default_rng(0)
    volumes = [sheet("a"), sheet("b", seed=1)]
    answers = [rng.integers(0, 256, v.image.shape).astype(np.float32) / 256 for v in volumes]
    score = score_bins(np.stack([count_bins(p, v) for p, v in zip(answers, volumes, strict=True)]))

    def f_beta(threshold: float) -> float:
        each = []
        for answer, volume in zip(answers, volumes, strict=True):
            known, found = volume.label != 2, answer >= threshold
            tp = (found & (volume.label == 1) & known).sum()
            fp, fn = (found & (volume.label == 0)).sum(), (~found & (volume.label == 1)).sum()
            each.append(1.25 * tp / (1.25 * tp + 0.25 * fn + fp))
        return float(np.mean(each))

    wanted = [f_beta(k / 256) for k in range(256)]
    assert score.f_beta == pytest.approx(max(wanted))
    assert score.threshold == np.argmax(wanted) / 256
    found = sum((a >= score.threshold)[v.label != 2].sum() for a, v in zip(answers, volumes, strict=True))
    assert score.surface_share == pytest.approx(found / sum((v.label != 2).sum() for v in volumes))


def test_pseudo_volumes_judge_only_where_there_are_no_labels() -> None:  # R20
    known, pseudo, nothing = sheet("a"), sheet("b", labelled=False), sheet("c", labelled=False, soft=False)
    assert judged([pseudo, known, nothing]) == [known]
    assert judged([pseudo, nothing]) == [pseudo]
    assert judged([nothing]) == []
    right = (pseudo.soft.mean_logit > 0).astype(np.float32)
    assert score_bins(count_bins(right, pseudo)[None]).f_beta == 1
    with pytest.raises(ArgumentError, match="volume c with neither"):
        count_bins(right, nothing)


def test_a_stage_goes_on_while_the_predicted_volume_swings() -> None:  # R20
    memory = EarlyStop(patience=2)
    for share in (0.05, 0.20, 0.05, 0.20):
        memory.update(ValidationScore(0.5, 0.5, share))
        assert not memory.is_over
    memory.update(ValidationScore(0.5, 0.5, 0.201))
    assert memory.is_over
    assert memory.update(ValidationScore(0.6, 0.5, 0.201))
    assert not memory.is_over


def test_stages_unfreeze_slow_down_and_take_true_labels() -> None:  # R20
    volumes = [PreparedVolume(sheet("a")), PreparedVolume(sheet("b", labelled=False))]
    stages = plan_stages(StudentConfig(steps=50), volumes)
    assert [stage.name for stage in stages] == ["distil", "head", "decoder", "encoder"]
    assert [len(stage.volumes) for stage in stages] == [2, 1, 1, 1]
    assert [stage.config.soft_weight for stage in stages] == [1.0, 0.0, 0.0, 0.0]
    for stage, later in pairwise(stages):
        assert later.top == pytest.approx(stage.top / 3)
    rates = [stages[0].learning_rate(step) for step in range(50)]
    assert max(rates) == pytest.approx(2e-3)
    assert rates[0] < rates[1]
    assert all(a >= b for a, b in pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(2e-5)
    assert [stage.steps for stage in stages] == [50] * 4
    assert [stage.steps for stage in plan_stages(StudentConfig(steps=50, tuning_steps=7), volumes)] == [50, 7, 7, 7]
    pseudo = plan_stages(StudentConfig(), volumes[1:])
    assert [stage.config.soft_weight for stage in pseudo] == [1.0] * 4
