"""Statistics, many values, the options of dust, and cavities, against SciPy, cc3d and fill_voids."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cc3d
import fill_voids
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_volume as reference
from vesu import volume
from vesu.errors import ArgumentError

CONNECTIVITIES = (6, 18, 26)
THREADS = (1, 2, 3, 8)
few = settings(max_examples=40, deadline=None)
connectivities = st.sampled_from(CONNECTIVITIES)
orders = st.permutations(range(3))
flips = st.sets(st.integers(0, 2))


@st.composite
def label_volumes(draw: st.DrawFn, n_values: int = 4) -> NDArray[np.uint8]:
    # Slabs of 16 slices, blocks of 2 x 2 rows and words of 64 voxels all get their seams and their odd ends.
    shape = (draw(st.integers(1, 36)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 31, 63, 64, 65, 130])))
    density = draw(st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.95]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(1, n_values + 1, shape).astype(np.uint8) * (rng.random(shape) < density)


def masks() -> st.SearchStrategy[NDArray[np.uint8]]:
    return label_volumes(n_values=1)


def mover(axes: list[int], flipped: set[int]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda array: np.flip(array.transpose(axes), tuple(flipped))  # neither contiguous nor C-ordered


# ---- many values ----


@few
@given(label_volumes(), connectivities, st.sampled_from([np.uint8, np.uint16, np.uint32]))
def test_values_never_join(labels: NDArray[np.uint8], connectivity: int, dtype: type) -> None:  # R29
    values = labels.astype(dtype) * dtype(50)
    found, n = volume.connected_components_multilabel(values, connectivity)
    expected, n_expected = reference.multilabel(labels, connectivity)
    assert (found.dtype, n) == (np.uint32, n_expected)
    assert np.array_equal(found, expected)
    assert n == cc3d.connected_components(values, connectivity=connectivity, return_N=True)[1]


@few
@given(masks(), connectivities)
def test_one_value_is_a_mask(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    expected, n = volume.connected_components(mask, connectivity)
    for same in (mask, mask.astype(bool)):
        found, n_found = volume.connected_components_multilabel(same, connectivity)
        assert n_found == n
        assert np.array_equal(found, expected)


# ---- statistics ----


@few
@given(masks(), connectivities)
def test_statistics_are_cc3ds(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    labels, n = volume.connected_components(mask, connectivity)
    stats = volume.component_stats(mask, connectivity)
    assert [a.dtype for a in (stats.sizes, stats.bounding_boxes, stats.touches_border)] == [np.int64, np.int64, bool]
    assert stats.bounding_boxes.shape == (n, 3, 2)
    expected = cc3d.statistics(labels)
    assert np.array_equal(stats.sizes, expected["voxel_counts"][1:])
    boxes = [[[s.start, s.stop] for s in box] for box in expected["bounding_boxes"][1:]]
    assert stats.bounding_boxes.tolist() == boxes
    assert np.array_equal(stats.sizes, volume.component_sizes(mask, connectivity))
    ends = np.array(mask.shape)
    at_face = (stats.bounding_boxes[:, :, 0] == 0) | (stats.bounding_boxes[:, :, 1] == ends)
    assert np.array_equal(stats.touches_border, at_face.any(axis=1))


@few
@given(masks(), connectivities, orders, flips)
def test_statistics_move_with_the_volume(
    mask: NDArray[np.uint8], connectivity: int, axes: list[int], flipped: set[int]
) -> None:  # R29
    def rows(of: NDArray[np.uint8]) -> NDArray[np.int64]:
        stats = volume.component_stats(of, connectivity)
        return np.column_stack([stats.sizes, stats.touches_border, stats.bounding_boxes.reshape(-1, 6)])

    before, after = rows(mask), rows(mover(axes, flipped)(mask))
    moved = before[:, 2:].reshape(-1, 3, 2)[:, axes]
    for axis in flipped:
        moved[:, axis] = mask.shape[axes[axis]] - moved[:, axis, ::-1]
    before = np.column_stack([before[:, :2], moved.reshape(-1, 6)])
    assert sorted(before.tolist()) == sorted(after.tolist())


# ---- dust ----


@few
@given(masks(), st.integers(0, 12), connectivities, st.none() | st.integers(0, 5), st.booleans())
def test_dust_by_size_rank_and_place(
    mask: NDArray[np.uint8], min_voxels: int, connectivity: int, keep_largest: int | None, spare_border: bool
) -> None:  # R29
    options: dict[str, Any] = {"keep_largest": keep_largest, "spare_border": spare_border}
    kept, n, n_removed = volume.remove_dust_counted(mask, min_voxels, connectivity, **options)
    expected, n_expected = reference.choose_dust(mask, min_voxels, connectivity, keep_largest, spare_border)
    assert np.array_equal(kept, expected)
    assert n_removed == n_expected
    assert n == volume.connected_components(mask, connectivity)[1]
    assert np.array_equal(volume.remove_dust(kept, min_voxels, connectivity, **options), kept)  # idempotent


def test_ties_of_the_largest_go_to_the_first() -> None:  # R29
    mask = np.zeros((4, 9, 9), np.uint8)
    mask[1, 1, 5:8] = mask[0, 3, 5:8] = mask[2:4, 7, 1] = 1
    # In blocks of 2 x 2 rows the second of these comes after the first; in C order it is the first.
    for connectivity in CONNECTIVITIES:
        kept = volume.remove_dust(mask, 0, connectivity, keep_largest=1)
        assert np.argwhere(kept).tolist() == [[0, 3, 5], [0, 3, 6], [0, 3, 7]]


def test_the_border_spares_a_speck() -> None:  # R29
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[0, 2, 2] = mask[2, 2, 2] = 1
    assert np.argwhere(volume.remove_dust(mask, 2, spare_border=True)).tolist() == [[0, 2, 2]]
    assert not volume.remove_dust(mask, 2).any()


# ---- cavities ----


@few
@given(masks(), connectivities)
def test_cavities_are_scipys(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    filled, n = volume.fill_holes_counted(mask, connectivity)
    expected, n_expected = reference.fill_holes(mask, connectivity)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled, expected)
    assert n == n_expected
    again, none = volume.fill_holes_counted(filled, connectivity)  # idempotent
    assert none == 0
    assert np.array_equal(again, filled)
    if connectivity == 6:
        # fill_voids takes some background in the faces for closed; with background all around it does not.
        padded = np.pad(mask, 1)
        assert np.array_equal(volume.fill_holes(padded), fill_voids.fill(padded != 0))


@few
@given(masks(), connectivities, orders, flips)
def test_filling_commutes_with_flips_and_axis_permutations(
    mask: NDArray[np.uint8], connectivity: int, axes: list[int], flipped: set[int]
) -> None:  # R29
    moved = mover(axes, flipped)
    assert np.array_equal(volume.fill_holes(moved(mask), connectivity), moved(volume.fill_holes(mask, connectivity)))


def test_a_cavity_closed_by_edges_only() -> None:  # R29
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[1:4, 1:4, 1:4] = 1
    mask[2, 2, 2] = mask[1, 1, 2] = 0  # (1, 1, 2) opens the cavity to a neighbour by edge
    filled = mask.copy()
    filled[2, 2, 2] = 1
    assert np.array_equal(volume.fill_holes(mask), filled)
    assert np.array_equal(volume.fill_holes(mask, 18), mask)


# ---- the edges of what is accepted ----


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200), (17, 5, 64)])
def test_full_and_empty_volumes(shape: tuple[int, int, int]) -> None:
    full, empty = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    for connectivity in CONNECTIVITIES:
        assert np.array_equal(volume.fill_holes(full, connectivity), full)
        assert not volume.fill_holes(empty, connectivity).any()
        stats = volume.component_stats(full, connectivity)
        assert (stats.sizes.tolist(), stats.touches_border.tolist()) == ([full.size], [True])
        assert stats.bounding_boxes.tolist() == [[[0, axis] for axis in shape]]
        assert volume.component_stats(empty, connectivity).bounding_boxes.shape == (0, 3, 2)
        assert volume.connected_components_multilabel(full, connectivity)[1] == 1
        assert volume.connected_components_multilabel(empty, connectivity)[1] == 0
        assert np.array_equal(volume.remove_dust(full, 0, connectivity, keep_largest=1), full)
        assert not volume.remove_dust(full, 0, connectivity, keep_largest=0).any()


def test_bool_read_only_strided_and_broadcast_masks() -> None:
    base = np.random.default_rng(1).random((20, 24, 28)) < 0.8
    frozen = base.copy()
    frozen.flags.writeable = False
    expected = reference.fill_holes(base, 6)[0]
    assert expected.sum() > base.sum()
    for same in (base, frozen, np.asfortranarray(base), base.astype(np.uint8) * 7, np.repeat(base, 2, 2)[:, :, ::2]):
        assert np.array_equal(volume.fill_holes(same), expected)
    thin = np.broadcast_to(base[:1], base.shape)
    assert np.array_equal(volume.component_stats(thin).sizes, volume.component_sizes(thin.copy()))


KERNELS: dict[str, Callable[..., Any]] = {
    "labels": volume.connected_components_multilabel,
    "mask": volume.component_stats,
    "mask ": volume.fill_holes,
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "bad", [np.ones((3, 4), np.uint8), np.ones((3, 0, 5), np.uint8), np.ones((3, 4, 5), np.int64), [[[1]]], None]
)
def test_a_bad_volume_is_named(name: str, bad: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{name.strip()}: got .*; accepted: a 3-D numpy array of uint8"):
        KERNELS[name](bad)


@pytest.mark.parametrize("name", KERNELS)
def test_a_bad_connectivity_or_size_is_named(name: str) -> None:
    for connectivity in (7, 0, None, "6"):
        with pytest.raises(ArgumentError, match=r"connectivity: got .*; accepted: 6, 18 or 26"):
            KERNELS[name](np.ones((2, 2, 2), np.uint8), connectivity)
    huge = np.broadcast_to(np.uint8(1), (2**12, 2**10, 2**10))  # 4 GiB if it were copied
    start = time.monotonic()
    with pytest.raises(ArgumentError, match=rf"{name.strip()}: got shape .* accepted: 1 to 4294967295 voxels"):
        KERNELS[name](huge)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("k", [-1, 2.5, 2**63, "3"])
def test_a_bad_keep_largest_is_named(k: Any) -> None:
    with pytest.raises(ArgumentError, match=r"keep_largest: got .*; accepted: 0 or more, or None for all"):
        volume.remove_dust(np.ones((2, 2, 2), np.uint8), 1, keep_largest=k)


# ---- threads and Ctrl-C ----


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_any_number_of_threads_gives_the_same_bits(density: float) -> None:
    mask = np.random.default_rng(2).random((70, 91, 110)) < density
    for connectivity in CONNECTIVITIES:
        kernels: list[Callable[[int], Any]] = [
            lambda n, c=connectivity: volume.connected_components(mask, c, n_threads=n)[0].tobytes(),
            lambda n, c=connectivity: volume.connected_components_multilabel(mask, c, n_threads=n)[0].tobytes(),
            lambda n, c=connectivity: volume.component_stats(mask, c, n_threads=n).bounding_boxes.tobytes(),
            lambda n, c=connectivity: volume.remove_dust(mask, 3, c, keep_largest=9, n_threads=n).tobytes(),
            lambda n, c=connectivity: volume.fill_holes(mask, c, n_threads=n).tobytes(),
        ]
        for kernel in kernels:
            assert len({kernel(n) for n in THREADS}) == 1


@lru_cache(maxsize=1)
def speckled() -> NDArray[np.bool_]:
    tile = np.random.default_rng(3).random((64, 256, 512), dtype=np.float32) < 0.3  # very many runs and unions
    return np.concatenate([tile] * 4)


@lru_cache(maxsize=1)
def speckled_probability() -> NDArray[np.float32]:
    return speckled().astype(np.float32)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda mask: volume.connected_components_multilabel(mask, 6),
        lambda mask: volume.component_stats(mask, 26),
        lambda mask: volume.remove_dust(mask, 10, 6, keep_largest=1000, spare_border=True),
        lambda mask: volume.fill_holes(mask),
        lambda mask: volume.hysteresis(speckled_probability(), 0.5, 1.0, 6),
    ],
    ids=["multilabel", "stats", "dust", "holes", "hysteresis"],
)
def test_ctrl_c_is_answered_within_half_a_second(kernel: Callable[[NDArray[np.bool_]], Any]) -> None:
    mask, _ = speckled(), speckled_probability()
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.15, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            kernel(mask)
    assert time.monotonic() - pressed[0] < 0.5


# ---- real masks ----


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["predictions/1407735_speckle", "predictions/1407735_transunet", "labels/2656396745"])
def test_real_masks_are_filled_and_measured_as_the_peers_do(real_data: Path, name: str) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    values = tifffile.imread(real_data / f"{name}.tif")
    mask = (values == 1) if "label" in name else values != 0
    assert np.array_equal(volume.fill_holes(mask), fill_voids.fill(mask))
    for connectivity in CONNECTIVITIES:
        labels, n = volume.connected_components(mask, connectivity)
        stats, expected = volume.component_stats(mask, connectivity), cc3d.statistics(labels)
        assert np.array_equal(stats.sizes, expected["voxel_counts"][1:])
        assert len(stats.bounding_boxes) == n
    found, n = volume.connected_components_multilabel(values, 26)
    peer, n_peer = cc3d.connected_components(values, connectivity=26, return_N=True)
    pairs = np.unique(found.ravel().astype(np.int64) * (n + 1) + peer.ravel())
    assert n == n_peer
    assert pairs.size == n + int((values == 0).any())  # a one-to-one match
