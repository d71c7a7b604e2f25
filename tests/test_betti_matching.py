"""Betti matching: the reference implementation's counts, a plain matrix reduction, symmetries, bad input, Ctrl-C."""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_betti as reference
from vesu import _core
from vesu.data.volumes import read_volume
from vesu.errors import ArgumentError

KNOWN: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "betti_known_answers.json").read_text())
THREADS = (1, 2, 3, 8)
KERNELS = (_core.betti_matching, _core.betti_matching_octants)
ALL_KERNELS = (*KERNELS, _core.betti_unmatched)

Mask = NDArray[np.uint8]


def rows(counts: list[int]) -> NDArray[np.int64]:
    return np.array(counts, np.int64).reshape(3, 3)


def digest(counts: list[NDArray[np.int64]]) -> str:
    return hashlib.sha256(np.array(counts, "<i8").tobytes()).hexdigest()


# ---- the reference implementation's numbers ----


@pytest.mark.parametrize("part", range(9))
def test_generated_pairs_count_as_the_reference_implementation_does(part: int) -> None:  # R45
    answers = KNOWN["generated"]
    assert len(answers) >= 300
    for seed in range(part, len(answers), 9):
        counts = _core.betti_matching(*reference.generated_pair(seed))
        assert np.array_equal(counts, rows(answers[seed])), seed


def test_octants_count_as_the_reference_implementation_does() -> None:  # R45
    for seed, answer in enumerate(KNOWN["generated_octants"]):
        counts = _core.betti_matching_octants(*reference.generated_pair(seed))
        assert np.array_equal(counts, rows(answer)), seed


def test_the_known_answers_are_not_empty() -> None:
    answers = np.array(KNOWN["generated"])
    with_a_match = (answers[:, ::3] > 0).sum(axis=0)
    assert (with_a_match >= [100, 50, 10]).all()
    assert ((answers[:, 1::3] > answers[:, ::3]).sum(axis=0) >= 50).all()


def test_all_pairs_of_2x2x2_masks_count_as_the_reference_implementation_does() -> None:  # R45
    # One by one they are in the core's own tests.
    counts = [_core.betti_matching_octants(*pair, 1) for pair in reference.all_pairs_of_2x2x2_by_eights()]
    assert np.array_equal(np.sum(counts, axis=0), rows(KNOWN["all_2x2x2_by_eights"]["sum"]))
    assert digest(counts) == KNOWN["all_2x2x2_by_eights"]["sha256"]


def test_pairs_of_3x3x2_masks_count_as_the_reference_implementation_does() -> None:  # R45
    known = KNOWN["small_pairs"]
    counts = [_core.betti_matching(*pair, 1) for pair in reference.small_pairs(known["count"], known["seed"])]
    assert np.array_equal(np.sum(counts, axis=0), rows(known["sum"]))
    assert digest(counts) == known["sha256"]


# ---- the definition ----


@st.composite
def pairs(draw: st.DrawFn, longest: int = 5) -> tuple[Mask, Mask]:
    shape = draw(st.tuples(*[st.integers(1, longest)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    densities = draw(st.tuples(*[st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])] * 2))
    prediction, label = [(rng.random(shape) < density).astype(np.uint8) for density in densities]
    relation = draw(st.sampled_from(["apart", "within", "same"]))
    return (prediction | label if relation == "within" else label if relation == "same" else prediction), label


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_counts_are_those_of_the_matrix_reduction(pair: tuple[Mask, Mask]) -> None:  # R45
    assert np.array_equal(_core.betti_matching(*pair), reference.betti_matching(*pair))


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_unmatched_features_lie_where_the_matrix_reduction_has_them(pair: tuple[Mask, Mask]) -> None:  # R45
    found = _core.betti_unmatched(*pair, octants=False)
    assert [[places.tolist() for places in mask] for mask in found] == reference.unmatched(*pair)


@pytest.mark.parametrize("seed", range(0, 540, 20))
@pytest.mark.parametrize("octants", [False, True])
def test_counts_less_matches_are_the_unmatched(seed: int, octants: bool) -> None:  # R45
    pair = reference.generated_pair(seed)
    counts = _core.betti_matching_octants(*pair) if octants else _core.betti_matching(*pair)
    found = _core.betti_unmatched(*pair, octants=octants)
    for mask, places in enumerate(found):
        assert [len(p) for p in places] == (counts[:, 1 + mask] - counts[:, 0]).tolist()
        components, tunnels, cavities = (tuple(p.T) for p in places)
        assert pair[mask][components].all()
        assert pair[mask][tunnels].all()
        assert not pair[mask][cavities].any()
        assert all(p.dtype == np.int64 and p.shape[1:] == (3,) for p in places)
        assert all(p.tolist() == sorted(p.tolist()) for p in places)


@settings(max_examples=40, deadline=None)
@given(pairs(9))
def test_swapping_the_masks_swaps_their_counts(pair: tuple[Mask, Mask]) -> None:  # R45
    prediction, label = pair
    there, back = _core.betti_matching(prediction, label), _core.betti_matching(label, prediction)
    assert np.array_equal(there, back[:, [0, 2, 1]])


@settings(max_examples=40, deadline=None)
@given(pairs(9))
def test_a_mask_matches_itself_wholly(pair: tuple[Mask, Mask]) -> None:  # R45
    counts = _core.betti_matching(pair[0], pair[0])
    assert (counts == counts[:, :1]).all()


@settings(max_examples=40, deadline=None)
@given(pairs(9))
def test_nothing_matches_more_than_there_is(pair: tuple[Mask, Mask]) -> None:  # R45
    counts = _core.betti_matching(*pair)
    assert (counts >= 0).all()
    assert (counts[:, 0] <= counts[:, 1:].min(axis=1)).all()


@settings(max_examples=30, deadline=None)
@given(pairs(9))
def test_octants_are_blocks_matched_by_themselves(pair: tuple[Mask, Mask]) -> None:  # R45
    total = np.zeros((3, 3), np.int64)
    halves = [(slice(0, (n + 1) // 2), slice((n + 1) // 2, n)) for n in pair[0].shape]
    for z in halves[0]:
        for y in halves[1]:
            for x in halves[2]:
                prediction, label = (mask[z, y, x] for mask in pair)
                if prediction.size:
                    total += _core.betti_matching(prediction, label)
    assert np.array_equal(_core.betti_matching_octants(*pair), total)


def test_features_a_person_can_count() -> None:  # R45
    ring = np.zeros((5, 12, 12), np.uint8)
    ring[2, 2:7, 2:7] = 1
    ring[2, 3:6, 3:6] = 0
    hollow = np.zeros((9, 9, 9), np.uint8)
    hollow[2:7, 2:7, 2:7] = 1
    hollow[4, 4, 4] = 0
    moved = np.roll(ring, (2, 4, 4), (0, 1, 2))
    assert _core.betti_matching(ring, ring).tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert _core.betti_matching(hollow, hollow).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert _core.betti_matching(ring, np.zeros_like(ring)).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert _core.betti_matching(ring, moved)[1].tolist() == [0, 1, 1]
    corner = np.zeros((2, 2, 2), np.uint8)
    corner[0, 0, 0] = corner[1, 1, 1] = 1  # touching at a corner only: two components
    assert _core.betti_matching(corner, corner)[0].tolist() == [1, 1, 1]


# ---- real masks ----


@pytest.mark.real_data
@pytest.mark.parametrize("names", sorted(KNOWN["real_octants"]))
def test_real_masks_count_as_the_reference_implementation_does(real_data: Path, names: str) -> None:  # R45
    prediction, label = (real_mask(real_data, name) for name in names.split(","))
    counts = _core.betti_matching_octants(prediction, label)
    assert np.array_equal(counts, rows(KNOWN["real_octants"][names]))


def real_mask(folder: Path, name: str) -> Mask:
    if (folder / "labels" / f"{name}.tif").is_file():
        return np.asarray(read_volume(folder / "labels" / f"{name}.tif") == 1, np.uint8)
    return np.asarray(read_volume(folder / "predictions" / f"1407735_{name}.tif") != 0, np.uint8)


# ---- threads, arrays, bad input ----


@pytest.mark.parametrize("kernel", KERNELS)
def test_same_counts_on_any_number_of_threads(kernel: Callable[..., NDArray[np.int64]]) -> None:  # R45
    rng = np.random.default_rng(8)
    label = (rng.random((40, 37, 33)) < 0.3).astype(np.uint8)
    prediction = label ^ (rng.random(label.shape) < 0.05)
    counts = [kernel(prediction, label, threads) for threads in THREADS]
    assert all(np.array_equal(counts[0], other) for other in counts)
    assert counts[0][:, 0].any()
    found = [_core.betti_unmatched(prediction, label, threads) for threads in THREADS]
    for other in found[1:]:
        assert all(np.array_equal(a, b) for side in (0, 1) for a, b in zip(found[0][side], other[side], strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
def test_any_layout_and_any_nonzero_value(kernel: Callable[..., NDArray[np.int64]]) -> None:  # R45
    prediction, label = reference.generated_pair(10)
    expected = kernel(prediction, label)
    readonly = label.copy()
    readonly.setflags(write=False)
    wide = np.zeros((*label.shape[:2], 2 * label.shape[2]), np.uint8)
    wide[..., ::2] = label
    for same in (label * 255, label.astype(bool), np.asfortranarray(label), readonly, wide[..., ::2]):
        assert np.array_equal(kernel(prediction, same), expected)
    assert np.array_equal(kernel(np.broadcast_to(np.uint8(1), label.shape), label)[:, 1], [0, 0, 0])
    assert expected.dtype == np.int64


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 6, 1), (1, 5, 7), (6, 1, 5), (4, 5, 1), (2, 2, 2)])
@pytest.mark.parametrize("fill", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_empty_and_full_masks_have_no_features(shape: tuple[int, int, int], fill: tuple[int, int]) -> None:  # R45
    prediction, label = (np.full(shape, value, np.uint8) for value in fill)
    for kernel in KERNELS:
        assert not kernel(prediction, label).any()


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_bad_input_is_refused_by_name(kernel: Callable[..., Any]) -> None:  # R45
    good = np.zeros((3, 4, 5), np.uint8)
    for bad in (good[0], good.astype(np.float32), good[:0], [[[0]]], None):
        with pytest.raises(ArgumentError, match="prediction"):
            kernel(bad, good)
        with pytest.raises(ArgumentError, match="label"):
            kernel(good, bad)
    with pytest.raises(ArgumentError, match="label"):
        kernel(good, good[:2])
    vast = np.broadcast_to(np.uint8(0), (2**11, 2**11, 2**11))
    with pytest.raises(ArgumentError, match="prediction"):
        kernel(vast, vast)
    with pytest.raises(ArgumentError, match="n_threads"):
        kernel(good, good, 0)


def test_ctrl_c_is_answered() -> None:  # R45
    rng = np.random.default_rng(1)
    label = (rng.random((256, 256, 256)) < 0.4).astype(np.uint8)
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.3, press).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            _core.betti_matching(label, label)
    assert time.monotonic() - pressed[0] < 0.5
