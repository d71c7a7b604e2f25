"""Dilation, erosion, opening, closing against SciPy, their laws, threads, bad input, Ctrl-C; smooth_z to the bit."""

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

import reference_morphology as reference
from vesu import _core, volume
from vesu.errors import ArgumentError

THREADS = (1, 2, 3, 8)
OPERATIONS = ("dilation", "erosion", "opening", "closing")
few = settings(max_examples=60, deadline=None)


def apply(name: str, array: NDArray[Any], *arguments: Any, **options: Any) -> NDArray[Any]:
    return getattr(volume, name)(array, *arguments, **options)


@st.composite
def volumes(draw: st.DrawFn, floats: bool | None = None) -> NDArray[Any]:
    # z reaches over more than two slabs of 16 slices, x over more than two words of 64.
    shape = draw(st.tuples(st.integers(1, 36), st.integers(1, 12), st.sampled_from([1, 2, 3, 31, 63, 64, 65, 130])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()) if floats is None else floats:
        rough = rng.standard_normal(shape, dtype=np.float32)
        return np.round(rough).astype(np.float32) if draw(st.booleans()) else rough
    return (rng.random(shape) < draw(st.sampled_from([0.02, 0.3, 0.8, 0.98]))).astype(np.uint8) * 255


radii = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 5))
kinds = st.sampled_from(["ball", "box"])


@few
@given(volumes(), radii, kinds, st.sampled_from(OPERATIONS))
def test_the_four_are_scipys_where_outside_is_ignored(  # R29
    array: NDArray[Any], radius: tuple[int, int, int], shape: str, name: str
) -> None:
    ours = apply(name, array, radius, shape)
    assert ours.dtype == (np.float32 if array.dtype == np.float32 else np.uint8)
    assert np.array_equal(ours, getattr(reference, name)(array, radius, shape))


@pytest.mark.parametrize("radius", [(9, 9, 9), (20, 3, 70), (0, 0, 140), (64, 0, 0), (3, 30, 1), (5, 5, 5)])
@pytest.mark.parametrize("shape", ["ball", "box"])
def test_wide_elements_are_scipys(radius: tuple[int, int, int], shape: str) -> None:  # R29
    rng = np.random.default_rng(6)
    mask = (rng.random((40, 22, 150)) < 0.001).astype(np.uint8)
    for name in ("dilation", "erosion"):
        array = mask if name == "dilation" else 1 - mask
        expected = reference_by_distance(mask, radius, shape)
        assert expected.any()
        assert not expected.all() or max(radius) > 20
        assert np.array_equal(apply(name, array, radius, shape), expected if name == "dilation" else 1 - expected)
        grey = array.astype(np.float32)
        assert np.array_equal(apply(name, grey, radius, shape), apply(name, array, radius, shape))


@pytest.mark.parametrize(("shape", "radius"), [((3, 4, 70001), (2, 2, 3)), ((70, 75, 9), (66, 70, 3))])
def test_numbers_by_elements_and_rows_too_large_for_the_cache(
    shape: tuple[int, int, int], radius: tuple[int, int, int]
) -> None:  # R29
    mask = np.random.default_rng(8).random(shape) < 0.0002
    assert mask.any()
    grey = np.where(mask, np.float32(2.5), np.float32(-1))
    for name in ("dilation", "closing"):
        binary = apply(name, mask, radius)
        assert np.array_equal(apply(name, grey, radius), np.where(binary, np.float32(2.5), np.float32(-1)))
    assert np.array_equal(apply("dilation", mask, radius), reference_by_distance(mask, radius, "ball"))


def reference_by_distance(mask: NDArray[Any], radius: tuple[int, int, int], shape: str) -> NDArray[np.uint8]:
    """Dilation by looking at every foreground voxel, in whole numbers."""
    out = np.zeros(mask.shape, np.uint8)
    grid = np.indices(mask.shape, sparse=True)
    scale = int(np.prod([r for r in radius if r > 0], dtype=np.int64))
    for voxel in np.argwhere(mask):
        offsets = np.broadcast_arrays(*(g - v for g, v in zip(grid, voxel, strict=True)))
        inside = np.ones(mask.shape, bool)
        if shape == "box" or 0 in radius:
            for d, r in zip(offsets, radius, strict=True):
                inside &= np.abs(d) <= r
        if shape == "ball":
            inside &= sum((d * (scale // r)) ** 2 for d, r in zip(offsets, radius, strict=True) if r > 0) <= scale**2
        out |= inside.view(np.uint8)
    return out


@few
@given(volumes(), radii, kinds)
def test_closing_fills_opening_removes_and_both_rest(
    array: NDArray[Any], radius: tuple[int, int, int], shape: str
) -> None:  # R29
    own = array if array.dtype == np.float32 else (array != 0).astype(np.uint8)
    closed, opened = volume.closing(array, radius, shape), volume.opening(array, radius, shape)
    assert (closed >= own).all()
    assert (opened <= own).all()
    assert np.array_equal(volume.closing(closed, radius, shape), closed)
    assert np.array_equal(volume.opening(opened, radius, shape), opened)
    if array.dtype == np.float32:
        assert np.array_equal(-volume.opening(-own, radius, shape), closed)
    else:
        assert np.array_equal(1 - volume.opening(1 - own, radius, shape), closed)


@few
@given(volumes(), st.permutations(range(3)), st.sets(st.integers(0, 2)), radii, kinds, st.sampled_from(OPERATIONS))
def test_flips_and_axis_permutations_commute(
    array: NDArray[Any],
    axes: list[int],
    flipped: set[int],
    radius: tuple[int, int, int],
    shape: str,
    name: str,
) -> None:  # R29
    def moved(array: NDArray[Any]) -> NDArray[Any]:
        return np.flip(array.transpose(axes), tuple(flipped))  # neither contiguous nor C-ordered

    turned = tuple(radius[axis] for axis in axes)
    assert np.array_equal(apply(name, moved(array), turned, shape), moved(apply(name, array, radius, shape)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200)])
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("radius", [0, 1, 5, 300, 2**20])
def test_full_and_empty_volumes_stay(shape: tuple[int, int, int], value: int, radius: int) -> None:
    for dtype in (np.uint8, np.bool_, np.float32):
        for name in OPERATIONS:
            for kind in ("ball", "box"):
                array = np.full(shape, value, dtype)
                assert (apply(name, array, radius, kind) == value).all()


def test_one_voxel_grows_into_the_element() -> None:  # R29
    for shape in ("ball", "box"):
        for radius in [(3, 3, 3), (2, 1, 1), (0, 2, 5), (10, 10, 10)]:
            point = np.zeros([2 * r + 3 for r in radius], np.uint8)
            point[tuple(n // 2 for n in point.shape)] = 1
            assert np.array_equal(volume.dilation(point, radius, shape), np.pad(reference.element(radius, shape), 1))


def test_infinities_are_values() -> None:
    row = np.array([[[np.inf, 0, 0, -np.inf, 0]]], np.float32)
    assert volume.dilation(row, (0, 0, 1)).ravel().tolist() == [np.inf, np.inf, 0, 0, 0]
    assert volume.erosion(row, (0, 0, 1)).ravel().tolist() == [0, 0, -np.inf, -np.inf, -np.inf]


def test_read_only_strided_fortran_and_broadcast_volumes() -> None:
    base = np.random.default_rng(1).random((20, 24, 70), dtype=np.float32)
    frozen = base.copy()
    frozen.flags.writeable = False
    views = [frozen, np.asfortranarray(base), base[::2, ::-1, 3:], np.broadcast_to(base[0], base.shape)]
    for view in [*views, *[view > 0.6 for view in views]]:
        assert np.array_equal(volume.closing(view, 2), volume.closing(np.ascontiguousarray(view), 2))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    grey = rng.standard_normal((70, 40, 130)).astype(np.float32)
    grey[grey > 1.5] = 0.0
    grey[grey < -1.5] = -0.0
    for array in (grey, grey > 1, rng.random((35, 9, 65), dtype=np.float32)):
        for name in OPERATIONS:
            for shape in ("ball", "box"):
                assert len({apply(name, array, (3, 2, 4), shape, n_threads=n).tobytes() for n in THREADS}) == 1


# ---- bad input ----

BALL = np.ones((3, 4, 5), np.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "array",
    [
        np.ones((3, 4), np.uint8),
        np.ones((1, 3, 4, 5), np.float32),
        np.ones((3, 0, 5), np.uint8),
        np.ones((3, 4, 5), np.int64),
        np.ones((3, 4, 5), np.float64),
        [[[1]]],
        None,
    ],
)
def test_a_bad_volume_is_named(name: str, array: Any) -> None:
    with pytest.raises(ArgumentError, match=r"volume: got .*; accepted: a 3-D numpy array of"):
        apply(name, array, 1)


@pytest.mark.parametrize(
    "radius", [-1, (1, -1, 0), 2**20 + 1, 10**30, 1.5, None, "3", (1, 2), (1, 2, 3, 4), (1, None, 2)]
)
def test_a_bad_radius_is_named(radius: Any) -> None:
    for name in OPERATIONS:
        with pytest.raises(ArgumentError, match=r"radius: got .*; accepted: 0 to 1048576"):
            apply(name, BALL, radius)


@pytest.mark.parametrize("shape", ["cube", None, 3, "Ball"])
def test_a_bad_shape_is_named(shape: Any) -> None:
    with pytest.raises(ArgumentError, match=r"shape: got .*; accepted: 'ball' or 'box'"):
        volume.closing(BALL, 1, shape)
    with pytest.raises(ArgumentError, match=r"operation: got .*; accepted: 'dilation'"):
        _core.morphology(BALL, "hull", (1, 1, 1), "ball")
    with pytest.raises(ArgumentError, match=r"radius: got .*; accepted: 0 to 1048576"):
        _core.morphology(BALL, "closing", (1, 2**20 + 1, 1), "ball")


def test_nan_is_counted_and_placed() -> None:
    grey = np.zeros((3, 4, 5), np.float32)
    grey[1, 2, 3] = grey[2, 0, 0] = np.nan
    for name in OPERATIONS:
        with pytest.raises(ArgumentError, match=r"volume: got 2 forbidden values, .* \(1, 2, 3\); accepted: float32 w"):
            apply(name, grey, 1)


def test_too_many_voxels_are_refused_before_anything_is_copied() -> None:
    start = time.monotonic()
    for dtype in (np.uint8, np.float32):
        with pytest.raises(ArgumentError, match="volume: got shape"):
            volume.closing(np.broadcast_to(dtype(1), (2**12, 2**10, 2**10)), 1)
    assert time.monotonic() - start < 0.5


def interrupted(work: Callable[[], Any]) -> float:
    """Seconds from Ctrl-C, pressed during `work`, to its answer."""
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.15, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            work()
    return time.monotonic() - pressed[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("radius", [3, 40])
def test_ctrl_c_is_answered_within_half_a_second(dtype: Any, radius: int) -> None:
    array = np.zeros((128, 192, 192), dtype)
    assert interrupted(lambda: volume.closing(array, radius)) < 0.5


# ---- smooth_z: the documented sums, to the bit ----


@few
@given(volumes(floats=True), st.sampled_from([0, 1, 2, 3, 4, 7, 15, 40]))
def test_smooth_z_sums_in_the_order_of_z(array: NDArray[np.float32], radius: int) -> None:  # R29
    nz = array.shape[0]
    expected = np.empty_like(array)
    for z in range(nz):
        first, last = max(z - radius, 0), min(z + radius, nz - 1)
        total = array[first] * np.float32(radius - (z - first) + 1)
        for inner in range(first + 1, last):
            total = total + array[inner]
        total = total + array[last] * np.float32(radius - (last - z) + (last > first))
        expected[z] = total / np.float32(2 * radius + 1)
    for threads in (1, 3):
        assert np.array_equal(volume.smooth_z(array, radius, n_threads=threads), expected)


@few
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3, 5, 30]))
def test_smooth_z_keeps_probabilities_in_the_unit_interval_and_their_order(seed: int, radius: int) -> None:  # R29
    rng = np.random.default_rng(seed)
    low = rng.choice(np.array([0, 1e-30, 0.5, np.nextafter(np.float32(1), 0), 1], np.float32), (20, 3, 70))
    high = np.maximum(low, rng.random(low.shape, dtype=np.float32))
    smooth = volume.smooth_z(low, radius)
    assert 0 <= smooth.min() <= smooth.max() <= 1
    assert (volume.smooth_z(high, radius) >= smooth).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (19, 30, 66), (17, 5, 3)])
def test_smooth_z_finds_one_bad_voxel_anywhere(bad: float, place: tuple[int, int, int]) -> None:
    array = np.full((20, 31, 67), np.finfo(np.float32).max / 4, np.float32)
    array[place] = bad
    z, y, x = place
    with pytest.raises(ArgumentError, match=rf"got 1 forbidden value, .* \({z}, {y}, {x}\); accepted: finite float32"):
        volume.smooth_z(array, 0)


# ---- real masks ----


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["labels/2656396745", "predictions/1407735_speckle"])
def test_closing_of_real_masks_is_scipys(real_data: Path, name: str) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    voxels = tifffile.imread(real_data / f"{name}.tif")[100:170, 100:190, :200]
    mask = ((voxels == 1) if "labels" in name else (voxels != 0)).view(np.uint8)
    assert 0 < mask.mean() < 1
    for radius in [(2, 2, 2), (2, 1, 1)]:
        assert np.array_equal(volume.closing(mask, radius), reference.closing(mask, radius, "ball"))
