"""Soft labels: the fold against textbook formulas, half precision, what a cache without room does."""

from types import SimpleNamespace

import numpy as np
import pytest

from vesu.data.cache import ArrayCache, content_id
from vesu.distill.soft_labels import LOGIT_LIMIT, SoftLabelCache, fold_logits, to_half
from vesu.errors import ArgumentError

TEACHER = SimpleNamespace(name="a", to_json=lambda: {"name": "a", "digest": "blake3:a"})


def slow_fold(logits):
    """Textbook formulas, a voxel at a time."""
    logits = np.array([np.asarray(each, np.float64) for each in logits])
    folded = {name: np.zeros(logits.shape[1:]) for name in ("mean_logit", "variance", "disagreement")}

    def entropy(p):
        return -sum(q * np.log2(q) for q in (p, 1 - p) if q > 0)

    for voxel in np.ndindex(logits.shape[1:]):
        z = logits[(slice(None), *voxel)]
        p = [1 / (1 + np.exp(-each)) for each in z]
        folded["mean_logit"][voxel] = sum(z) / len(z)
        folded["variance"][voxel] = sum((each - sum(p) / len(p)) ** 2 for each in p) / len(p)
        folded["disagreement"][voxel] = entropy(sum(p) / len(p)) - sum(entropy(each) for each in p) / len(p)
    return folded


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_folding_is_the_textbook(n):  # R18
    generator = np.random.default_rng(n)
    logits = [to_half(generator.normal(0, 6, (3, 4, 5)).astype(np.float32)) for _ in range(n)]
    logits[0][0, 0, :2] = LOGIT_LIMIT, -LOGIT_LIMIT
    folded, wanted = fold_logits(logits), slow_fold(logits)
    for name, values in wanted.items():
        assert folded[name].dtype == np.float16 and folded[name].shape == (3, 4, 5)
        np.testing.assert_allclose(folded[name], values, rtol=6e-4, atol=1e-7, err_msg=name)
    assert folded["variance"].max() <= 0.25 and folded["disagreement"].min() >= 0


def test_folding_in_chunks_is_folding():
    generator = np.random.default_rng(0)
    logits = [generator.normal(0, 4, (1, 600, 900)).astype(np.float16) for _ in range(2)]
    whole = fold_logits(logits)
    for row in (0, 291, 292, 599):  # a chunk ends within row 291
        part = fold_logits([each[:, row : row + 1] for each in logits])
        assert all(np.array_equal(part[name], whole[name][:, row : row + 1]) for name in whole)


@pytest.mark.parametrize("logit", [0.0, 0.37, -5.5, 30.0, -30.0])
def test_one_teacher_or_many_alike_are_wholly_sure_of_each_other(logit):  # R19: the weight of a pseudo-target is one
    one = np.full((2, 2, 2), logit, np.float16)
    for n in (1, 3, 9):
        folded = fold_logits([one] * n)
        assert not folded["variance"].any() and not folded["disagreement"].any()
        np.testing.assert_allclose(folded["mean_logit"], one, rtol=1e-3)


def test_teachers_that_contradict_each_other_have_a_bit_of_disagreement():
    yes, no = (np.full((1, 1, 1), z, np.float16) for z in (30, -30))
    folded = fold_logits([yes, no])
    assert (folded["mean_logit"], folded["variance"], folded["disagreement"]) == (0.0, 0.25, 1.0)


def test_what_cannot_be_folded_is_refused():
    half = np.zeros((2, 2, 2), np.float16)
    for bad in ([], [half, half[:1]], [half, half.astype(np.float32)]):
        with pytest.raises(ArgumentError, match=r"logits: got shapes .* accepted: float16 of one shape"):
            fold_logits(bad)


def test_the_kept_answer_is_the_one_given_where_nothing_is_kept(tmp_path):
    kept = SoftLabelCache(ArrayCache(tmp_path, max_bytes=0), overlap=0.5, flips=True)
    logits = np.ones((2, 2, 2), np.float16)
    key = kept.logits_key(TEACHER, content_id(logits))
    answer, status = kept.keep_logits(key, logits)
    assert answer is logits and status == "refused" and kept.logits(key) is None


def test_half_precision_cuts_off_what_it_cannot_tell():
    logits = np.array([[[1e6, -1e6, 29.99, 0.1]]], np.float32)
    np.testing.assert_array_equal(to_half(logits), np.array([[[30, -30, 29.99, 0.1]]], np.float16))
