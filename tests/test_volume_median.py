"""The 3x3x3 median against sorting and against SciPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import reference_morphology as reference
from test_volume_morphology import interrupted, volumes
from vesu import volume
from vesu.errors import ArgumentError

THREADS = (1, 2, 3, 8)
few = settings(max_examples=60, deadline=None)


@few
@given(volumes())
def test_the_median_is_the_14th_of_27(array: NDArray[Any]) -> None:  # R29
    ours = volume.median(array)
    own = array if array.dtype == np.float32 else (array != 0).astype(np.uint8)
    assert ours.dtype == own.dtype
    assert np.array_equal(ours, reference.median(own))
    assert np.array_equal(ours, ndimage.median_filter(own, 3, mode="nearest"))


@pytest.mark.parametrize("nx", [510, 511, 512, 513, 1024, 1030])
def test_rows_of_several_tiles(nx: int) -> None:  # R29
    array = np.random.default_rng(nx).random((3, 4, nx), dtype=np.float32)
    assert np.array_equal(volume.median(array), reference.median(array))
    mask = (array > 0.5).astype(np.uint8)
    assert np.array_equal(volume.median(mask), reference.median(mask))


@few
@given(volumes(), st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_flips_and_axis_permutations_commute(array: NDArray[Any], axes: list[int], flipped: set[int]) -> None:  # R29
    def moved(array: NDArray[Any]) -> NDArray[Any]:
        return np.flip(array.transpose(axes), tuple(flipped))

    assert np.array_equal(volume.median(moved(array)), moved(volume.median(array)))


@few
@given(volumes(floats=False))
def test_the_complement_of_the_majority_is_the_majority_of_the_complement(mask: NDArray[np.uint8]) -> None:  # R29
    assert np.array_equal(volume.median(mask == 0), 1 - volume.median(mask))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200), (17, 2, 64)])
@pytest.mark.parametrize("value", [0, 1])
def test_full_and_empty_volumes_stay(shape: tuple[int, int, int], value: int) -> None:
    for dtype in (np.uint8, np.bool_, np.float32):
        assert (volume.median(np.full(shape, value, dtype)) == value).all()


def test_infinities_are_values_and_nan_is_refused() -> None:
    array = np.random.default_rng(3).choice(np.array([-np.inf, 0, 1, np.inf], np.float32), (5, 6, 70))
    assert np.array_equal(volume.median(array), reference.median(array))
    array[4, 5, 6] = np.nan
    with pytest.raises(
        ArgumentError, match=r"volume: got 1 forbidden value, .* \(4, 5, 6\); accepted: float32 without"
    ):
        volume.median(array)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    array = np.random.default_rng(2).choice(np.array([-1, -0.0, 0.0, 1], np.float32), (70, 40, 600))
    for volume_or_mask in (array, array > 0):
        assert len({volume.median(volume_or_mask, n_threads=n).tobytes() for n in THREADS}) == 1


@pytest.mark.parametrize("array", [np.ones((3, 4), np.uint8), np.ones((3, 0, 5), np.float32), np.ones((2, 2, 2)), None])
def test_a_bad_volume_is_named(array: Any) -> None:
    with pytest.raises(ArgumentError, match=r"volume: got .*; accepted: a 3-D numpy array of"):
        volume.median(array)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_ctrl_c_is_answered_within_half_a_second(dtype: Any) -> None:
    array = np.zeros((128, 192, 192), dtype)
    assert interrupted(lambda: volume.median(array)) < 0.5


@pytest.mark.real_data
def test_the_median_of_a_real_mask_is_scipys(real_data: Path) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    mask = (tifffile.imread(real_data / "predictions" / "1407735_speckle.tif")[:60] != 0).astype(np.uint8)
    assert 0 < mask.mean() < 1
    assert np.array_equal(volume.median(mask), ndimage.median_filter(mask, 3, mode="nearest"))
