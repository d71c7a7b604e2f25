"""The distance transform against every pair of voxels, SciPy and, where installed, edt; threads, bad input, Ctrl-C."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import reference_distance as reference
from vesu import read_volume, volume
from vesu.errors import ArgumentError

few = settings(max_examples=60, deadline=None)
SPACINGS = [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.3, 0.7, 1.9), (7.91e-3, 7.91e-3, 1e-2)]
RELATIVE = 2.5 * 2.0**-24


@st.composite
def masks(draw: st.DrawFn, longest: int = 40) -> NDArray[np.uint8]:
    # Tiles have 32 lanes, slabs 16 slices, words 64 voxels.
    shape = draw(st.tuples(*[st.sampled_from([1, 2, 3, 15, 17, 31, 33, 65]).filter(lambda n: n <= longest)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dense = rng.random(shape) >= draw(st.sampled_from([0.001, 0.02, 0.3, 0.9]))
    return dense.astype(np.uint8) * draw(st.sampled_from([1, 255]))


@few
@given(masks(longest=17), st.sampled_from(SPACINGS))
def test_every_pair_of_voxels_agrees(mask: NDArray[np.uint8], spacing: tuple[float, float, float]) -> None:  # R29
    expected = reference.squared_distances(mask, spacing)
    squared = volume.distance_transform(mask, spacing, squared=True)
    np.testing.assert_allclose(squared, expected, rtol=3 * 2.0**-24)
    np.testing.assert_allclose(volume.distance_transform(mask, spacing), np.sqrt(expected), rtol=RELATIVE)


@few
@given(masks(65))
def test_unit_spacing_is_scipys_rounded_once(mask: NDArray[np.uint8]) -> None:  # R29
    if mask.all():
        return
    expected = ndimage.distance_transform_edt(mask)
    assert np.array_equal(volume.distance_transform(mask), expected.astype(np.float32))
    assert np.array_equal(volume.distance_transform(mask, squared=True), np.rint(expected**2))


@few
@given(masks(65), st.sampled_from(SPACINGS))
def test_any_spacing_is_scipys_within_the_stated_error(
    mask: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> None:  # R29
    if not mask.all():
        expected = ndimage.distance_transform_edt(mask, sampling=spacing)
        np.testing.assert_allclose(volume.distance_transform(mask, spacing), expected, rtol=RELATIVE)


@few
@given(masks(), st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_flips_and_axis_permutations_commute(mask: NDArray[np.uint8], axes: list[int], flipped: set[int]) -> None:
    def moved(array: NDArray[Any]) -> NDArray[Any]:
        return np.flip(array.transpose(axes), tuple(flipped))  # neither contiguous nor C-ordered

    expected = volume.distance_transform(mask, squared=True)
    assert np.array_equal(volume.distance_transform(moved(mask), squared=True), moved(expected))


@pytest.mark.parametrize("shape", [(300, 40, 3), (3, 300, 40), (2, 3, 5000), (5000, 1, 1)])
def test_far_background_takes_the_envelope_and_stays_exact(shape: tuple[int, int, int]) -> None:
    mask = np.ones(shape, bool)  # distances far beyond the outward search
    mask[shape[0] // 7, 0, shape[2] // 3] = mask[-1, -1, -1] = False
    expected = ndimage.distance_transform_edt(mask)
    assert np.array_equal(volume.distance_transform(mask), expected.astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200)])
def test_no_background_is_infinitely_far_and_no_foreground_is_zero(shape: tuple[int, int, int]) -> None:
    assert np.isposinf(volume.distance_transform(np.ones(shape, np.uint8))).all()
    assert not volume.distance_transform(np.zeros(shape, np.uint8)).any()


def test_bool_read_only_and_strided_masks() -> None:
    base = np.random.default_rng(1).random((20, 24, 28)) < 0.8
    frozen = base.copy()
    frozen.flags.writeable = False
    expected = ndimage.distance_transform_edt(base).astype(np.float32)
    for same in (frozen, np.asfortranarray(base), base.astype(np.uint8) * 7, np.repeat(base, 2, axis=2)[:, :, ::2]):
        assert np.array_equal(volume.distance_transform(same), expected)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    mask = np.random.default_rng(2).random((70, 90, 110)) < 0.95
    for spacing in SPACINGS:
        found = {volume.distance_transform(mask, spacing, n_threads=n).tobytes() for n in (1, 2, 3, 8)}
        assert len(found) == 1


@pytest.mark.parametrize("mask", [np.ones((3, 4), np.uint8), np.ones((3, 0, 5), bool), np.ones((3, 4, 5)), None])
def test_a_bad_mask_is_named(mask: Any) -> None:
    with pytest.raises(ArgumentError, match=r"mask: got .*; accepted: a 3-D numpy array of uint8"):
        volume.distance_transform(mask)


@pytest.mark.parametrize(
    "spacing", [0, -1.0, np.nan, np.inf, (1, 1), (1, 1, 1, 1), (1, "a", 1), None, "abc", (1, 1e-12, 1), (1e12, 1, 1)]
)
def test_a_bad_spacing_is_named(spacing: Any) -> None:
    with pytest.raises(ArgumentError, match=r"spacing: got .*; accepted: "):
        volume.distance_transform(np.ones((3, 4, 5), np.uint8), spacing)


def test_more_voxels_than_32_bits_are_refused_before_anything_is_copied() -> None:
    huge = np.broadcast_to(np.uint8(1), (2**12, 2**10, 2**10))
    with pytest.raises(ArgumentError, match=r"mask: got shape .* accepted: 1 to 4294967295 voxels"):
        volume.distance_transform(huge)


def test_ctrl_c_is_answered_within_half_a_second() -> None:
    mask = np.ones((256, 256, 256), np.uint8)
    mask[0, 0, 0] = 0  # the dearest: every tile takes the envelope
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.15, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(50):
            volume.distance_transform(mask)
    assert time.monotonic() - pressed[0] < 0.5


@pytest.mark.real_data
def test_real_masks_agree_with_edt(real_data: Path) -> None:  # R29
    edt = pytest.importorskip("edt")
    for name in ("predictions/1407735_speckle", "labels/3281388561"):
        mask = (read_volume(real_data / f"{name}.tif") == 1).astype(np.uint8)
        assert mask.any()
        peer = edt.edt(mask, anisotropy=(1, 1, 1), black_border=False)
        assert np.array_equal(volume.distance_transform(mask), peer)
