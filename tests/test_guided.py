"""Reading a reference, cutting a volume, fitting the rule, comparing masks: the guided phase's functions (R24)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import vesu
from vesu.config import GuidedConfig
from vesu.errors import ArgumentError, DataError, FileError, FormatError
from vesu.guided import Agreement, Delta, agreement, align_rule, hold_out, read_reference, reference_id
from vesu.segmentation import SegmentConfig, Threshold, ThresholdRule

SHAPE = (6, 7, 8)
SHAPES = {"14": SHAPE, "1407735": SHAPE}


def mask_of(shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    mask[2:4] = 1
    mask[:, 0] = 2
    return mask


def written(folder: Path, name: str, mask: NDArray[np.generic]) -> Path:
    vesu.write_volume(folder / name, mask)
    return folder / name


# ---- the reference


def test_a_reference_is_read_with_its_volume_and_hash(tmp_path: Path) -> None:  # R24
    found = read_reference(written(tmp_path, "1407735_transunet.tif", mask_of()), SHAPES)
    assert found.volume_id == "1407735" and len(found.sha256) == 64
    np.testing.assert_array_equal(found.mask, mask_of())
    assert found.density == pytest.approx(2 / 6)


@pytest.mark.parametrize(("name", "volume_id"), [("14.tif", "14"), ("14-b.tif", "14"), ("1407735.v2.tif", "1407735")])
def test_the_id_stands_at_the_beginning_of_the_name(name: str, volume_id: str) -> None:
    assert reference_id(name, SHAPES) == volume_id


@pytest.mark.parametrize("name", ["140.tif", "mask_14.tif", "14077351.tif", "15_transunet.tif"])
def test_a_name_of_no_test_volume_needs_an_id_beside_it(name: str) -> None:  # the reference of another volume
    with pytest.raises(DataError, match=r"guided\.reference: .*guided\.volume_id"):
        reference_id(name, SHAPES)
    assert reference_id(name, SHAPES, "14") == "14"


def test_an_id_of_no_test_volume_is_refused() -> None:
    with pytest.raises(DataError, match=r"guided\.volume_id: got '15'; accepted: .*14, 1407735"):
        reference_id("14.tif", SHAPES, "15")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (mask_of((6, 7, 9)), r"shape \(6, 7, 9\); accepted: \(6, 7, 8\)"),
        (mask_of().astype(np.uint16), "got uint16"),
        (mask_of().astype(np.float32), "got float32"),
        (mask_of() * np.uint8(255), r"values 254 \(\d+ voxels\), 255 \(\d+ voxels\); accepted: 0, 1, and 2"),
        (np.zeros(SHAPE, np.uint8), "no voxel of 1"),
        (np.maximum(mask_of(), 1), "no voxel of 0"),
    ],
)
def test_a_reference_of_wrong_shape_dtype_or_values_is_refused_by_name(
    tmp_path: Path, mask: NDArray[np.generic], words: str
) -> None:  # R24
    path = written(tmp_path, "14.tif", mask)
    with pytest.raises(DataError, match=words) as caught:
        read_reference(path, SHAPES)
    assert str(path) in str(caught.value)


def test_a_truncated_or_missing_reference_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "14.tif", mask_of())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError):
        read_reference(path, SHAPES)
    with pytest.raises(FileError):
        read_reference(tmp_path / "14_none.tif", SHAPES)


# ---- the two parts


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(12, 40)] * 3),
    share=st.floats(0.05, 0.5),
    margin=st.integers(0, 8),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_answer_of_the_judging_part_sees_the_other(
    shape: tuple[int, int, int], share: float, margin: int, seed: int
) -> None:  # R24
    reference = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
    try:
        cut = hold_out(reference, share, margin, seed)
    except DataError:
        # Along no axis is there room for both.
        assert all(n - max(1, round(share * n)) - margin < 1 for n in shape)
        return
    judges, fits = np.zeros((2, shape[cut.axis]), bool)
    judges[cut.held_out], fits[cut.fit] = True, True
    apart = np.abs(np.flatnonzero(judges)[:, None] - np.flatnonzero(fits)[None]).min()
    assert apart == margin + 1
    assert judges.sum() == max(1, round(share * shape[cut.axis]))
    assert judges.sum() + fits.sum() + margin == shape[cut.axis]
    assert hold_out(reference, share, margin, seed) == cut  # the seed's own


def test_the_seed_draws_the_face_and_empty_faces_are_passed_over() -> None:
    everywhere = (np.indices((20, 20, 20)).sum(axis=0) % 2).astype(np.uint8)
    faces = {(cut.axis, cut.held_out.start) for cut in (hold_out(everywhere, 0.25, 2, seed) for seed in range(40))}
    assert len(faces) == 6
    corner = np.zeros((20, 20, 20), np.uint8)
    corner[:12] = everywhere[:12]  # beyond slice 12 there is no surface
    for seed in range(20):
        cut = hold_out(corner, 0.25, 2, seed)
        assert (cut.judging(corner) == 1).any() and (cut.fitting(corner) == 1).any()
        assert (cut.axis, cut.held_out.start) != (0, 15)


def test_a_volume_too_small_for_the_margin_is_refused() -> None:
    with pytest.raises(DataError, match=r"margin of 63 voxels.*student\.patch"):
        hold_out(mask_of((32, 32, 32)), 0.25, 63, 0)


# ---- masks beside a reference


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agreement_is_the_plain_formula_on_known_voxels(seed: int) -> None:  # R24
    rng = np.random.default_rng(seed)
    mask, reference = rng.integers(0, 2, (3, 4, 5)), rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    known = reference != 2
    ours, theirs = mask[known] == 1, reference[known] == 1
    both, either = (ours & theirs).sum(), (ours | theirs).sum()
    found = agreement(mask, reference)
    assert found.iou == pytest.approx(both / either if either else 1.0)
    assert found.dice == pytest.approx(2 * both / (ours.sum() + theirs.sum()) if either else 1.0)
    assert found.density_gap == pytest.approx(abs(ours.sum() - theirs.sum()) / max(1, known.sum()))


@pytest.mark.parametrize(
    ("after", "missed"),
    [
        (Agreement(0.5, 0.6, 0.1), ()),
        (Agreement(0.5, 0.6, 0.2), ()),
        (Agreement(0.4, 0.5, 0.2), ("iou", "dice")),  # nothing moved
        (Agreement(0.5, 0.6, 0.3), ("density_gap",)),
        (Agreement(0.3, 0.4, 0.1), ("iou", "dice")),
        (Agreement(float("nan"), 0.6, 0.1), ("iou",)),
    ],
)
def test_a_delta_is_intended_only_with_the_right_signs(after: Agreement, missed: tuple[str, ...]) -> None:  # R24
    delta = Delta(Agreement(0.4, 0.5, 0.2), after)
    assert (delta.missed, delta.intended) == (missed, not missed)
    assert delta.to_json()["intended"] is (not missed)


# ---- the rule


def test_the_rule_follows_the_reference_and_stays_where_nothing_is_better() -> None:  # R24 R28
    rng = np.random.default_rng(0)
    reference = (rng.random((12, 16, 16)) < 0.3).astype(np.uint8)
    probability = np.clip(0.35 + 0.25 * reference + rng.normal(0, 0.05, reference.shape), 0, 1).astype(np.float32)
    strict = SegmentConfig((Threshold(ThresholdRule("fixed", 0.9, 1.0)),))
    rule = align_rule(probability, reference, strict, modes=["fixed"], low_factors=[])
    assert 0.4 < rule.value < 0.55
    assert align_rule(probability, reference, strict.with_rule(rule), modes=["fixed"], low_factors=[]) == rule
    unknown = reference.copy()
    unknown[:, :8] = 2  # half of it is not looked at
    spoilt = probability.copy()
    spoilt[:, :8] = 1 - probability[:, :8]
    told = align_rule(spoilt, unknown, strict, modes=["fixed"], low_factors=[])
    assert 0.4 < told.value < 0.55


# ---- settings


def test_the_phase_is_off_until_a_reference_is_named() -> None:  # R32
    assert vesu.load_config(environment={}).guided == GuidedConfig()
    assert not GuidedConfig().reference


@pytest.mark.parametrize(
    "override",
    [
        "guided.target=teacher",
        "guided.held_out=0.6",
        "guided.held_out=0",
        "guided.steps=0",
        "guided.learning_rate=0",
        "guided.learning_rate=nan",
        "guided.stage=distil",
        "guided.volume_id='14'",
        "guided.margin=3",
    ],
)
def test_settings_out_of_range_are_refused_by_name(override: str) -> None:
    with pytest.raises(ArgumentError, match=override.split("=")[0].replace(".", r"\.")):
        vesu.load_config(overrides=[override], environment={})
