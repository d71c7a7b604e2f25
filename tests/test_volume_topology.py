"""Euler and Betti numbers against scikit-image and NumPy; the plug against a search; threads, bad input, Ctrl-C."""

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
from skimage.measure import euler_number as skimage_euler

import reference_topology as reference
from vesu import volume
from vesu.errors import ArgumentError

CONNECTIVITIES = (6, 26)
few = settings(max_examples=40, deadline=None)


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    # Over more than two slabs of 16 slices, and rows around one and two words of 64.
    shape = (draw(st.integers(1, 36)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 31, 63, 64, 65, 128])))
    density = draw(st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.97]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (rng.random(shape) < density).astype(np.uint8) * draw(st.sampled_from([1, 255]))


def all_masks(*shape: int) -> NDArray[np.uint8]:
    """Every mask of this shape, one after the other along a first axis."""
    bits = np.arange(2 ** int(np.prod(shape)), dtype=np.uint32)
    return (bits[:, None] >> np.arange(int(np.prod(shape)), dtype=np.uint32) & 1).astype(np.uint8).reshape(-1, *shape)


def apart(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Small masks as one long volume, two empty slices between them."""
    padded = np.zeros((small.shape[0], small.shape[1] + 2, *small.shape[2:]), np.uint8)
    padded[:, : small.shape[1]] = small
    return padded.reshape(-1, *small.shape[2:])


# ---- Euler and Betti numbers ----


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_all_masks_of_2x2x2(connectivity: int) -> None:  # R29
    for mask in all_masks(2, 2, 2):
        assert volume.euler_number(mask, connectivity) == reference.euler_number(mask, connectivity)
        found = volume.betti_numbers(mask, connectivity)
        assert (found.components, found.tunnels, found.cavities) == reference.betti_numbers(mask, connectivity)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_all_masks_of_3x3x2(connectivity: int) -> None:  # R29
    # Each by its own components (all 2^18 in one volume), against NumPy's cells of each small mask at once.
    small = all_masks(3, 3, 2)
    stack = apart(small)
    topology = volume.component_topology(stack, connectivity)
    labels, n = volume.connected_components(stack, connectivity)
    first = np.unique(labels, return_index=True)[1][1:]
    which = first // (5 * 3 * 2)  # the small mask of each component
    euler = 1 - topology.tunnels + topology.cavities
    ours = np.bincount(which, weights=euler, minlength=len(small)).astype(np.int64)
    assert n == topology.sizes.size
    assert np.array_equal(ours, reference.euler_numbers(small, connectivity))
    assert topology.cavities.max() == 0  # nothing so thin encloses a voxel
    assert volume.euler_number(stack, connectivity) == ours.sum()


@few
@given(masks(), st.sampled_from(CONNECTIVITIES))
def test_euler_is_scikit_images_and_the_references(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    ours = volume.euler_number(mask, connectivity)
    assert ours == reference.euler_number(mask, connectivity)
    assert ours == skimage_euler(mask != 0, {6: 1, 26: 3}[connectivity])
    betti = volume.betti_numbers(mask, connectivity)
    assert (betti.components, betti.tunnels, betti.cavities) == reference.betti_numbers(mask, connectivity)
    assert betti.euler_number == ours


@few
@given(masks(), st.sampled_from(CONNECTIVITIES))
def test_components_by_themselves(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    labels, n = volume.connected_components(mask, connectivity)
    topology = volume.component_topology(mask, connectivity)
    assert {array.dtype for array in (topology.sizes, topology.tunnels, topology.cavities)} == {np.dtype(np.int64)}
    assert np.array_equal(topology.sizes, np.bincount(labels.ravel(), minlength=n + 1)[1:])
    for label in range(1, min(n, 12) + 1):
        expected = reference.betti_numbers(labels == label, connectivity)
        assert (1, topology.tunnels[label - 1], topology.cavities[label - 1]) == expected
    whole = volume.betti_numbers(mask, connectivity)
    assert (n, topology.tunnels.sum(), topology.cavities.sum()) == (whole.components, whole.tunnels, whole.cavities)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_a_cavity_belongs_to_what_encloses_it(connectivity: int) -> None:  # R29
    # A shell, in it a smaller shell, in that a voxel; beside them a ring.
    mask = np.zeros((11, 11, 20), np.uint8)
    mask[1:10, 1:10, 1:10] = 1
    mask[2:9, 2:9, 2:9] = 0
    mask[3:8, 3:8, 3:8] = 1
    mask[4:7, 4:7, 4:7] = 0
    mask[5, 5, 5] = 1
    mask[5, 3:6, 14:17] = 1
    mask[5, 4, 15] = 0
    topology = volume.component_topology(mask, connectivity)
    assert topology.cavities.tolist() == [1, 1, 0, 0]
    assert topology.tunnels.tolist() == [0, 0, 1, 0]  # the ring begins in an earlier row than the voxel


@few
@given(masks(), st.permutations(range(3)), st.sets(st.integers(0, 2)), st.sampled_from(CONNECTIVITIES))
def test_topology_does_not_depend_on_the_axes(
    mask: NDArray[np.uint8], axes: list[int], flipped: set[int], connectivity: int
) -> None:  # R29
    moved = np.flip(mask.transpose(axes), tuple(flipped))  # neither contiguous nor C-ordered
    assert volume.euler_number(moved, connectivity) == volume.euler_number(mask, connectivity)
    assert volume.betti_numbers(moved, connectivity) == volume.betti_numbers(mask, connectivity)
    if connectivity == 6:
        assert np.array_equal(
            volume.plug_holes(moved), np.flip(volume.plug_holes(mask).transpose(axes), tuple(flipped))
        )


# ---- the plug ----


def test_the_plug_of_every_window() -> None:  # R29
    table = reference.plug_table()
    for code, mask in enumerate(all_masks(2, 2, 2)):
        # A lone window's own faces count as windows too; the search repeats as the kernel does.
        assert np.array_equal(volume.plug_holes(mask), reference.plug_holes(mask)[0])
        assert not table[code] & code
        assert reference.connected_window(code | table[code])
        assert (table[code] == 0) == reference.connected_window(code)


@few
@given(masks())
def test_the_plug_is_the_references_and_watertight(mask: NDArray[np.uint8]) -> None:  # R29
    plugged, n_added, n_passes = volume.plug_holes_counted(mask)
    expected, passes = reference.plug_holes(mask)
    assert plugged.dtype == np.uint8
    assert np.array_equal(plugged, expected)
    assert n_passes == passes
    assert n_added == np.count_nonzero(plugged) - np.count_nonzero(mask)
    assert (plugged[mask != 0] == 1).all()
    connected = np.array([reference.connected_window(code) for code in range(256)])
    assert connected[reference.window_codes(plugged)].all()  # no window leaks
    assert volume.plug_holes_counted(plugged)[1:] == (0, 0)  # idempotent


def test_the_plug_closes_a_leak_and_leaves_a_flat_sheet_alone() -> None:  # R29
    # Two halves of a sheet, one voxel apart in height: at connectivity 6 they hang together nowhere.
    sheet = np.zeros((6, 12, 70), np.uint8)
    sheet[2, :, :35] = sheet[3, :, 35:] = 1
    assert volume.betti_numbers(sheet, 6).components == 2
    plugged = volume.plug_holes(sheet)
    assert volume.betti_numbers(plugged, 6) == volume.BettiNumbers(1, 0, 0)
    assert plugged.sum() == sheet.sum() + 24
    assert np.array_equal(volume.plug_holes(sheet[:, :, :35]), sheet[:, :, :35])


# ---- shapes, threads, bad input ----


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200), (1, 1, 64)])
@pytest.mark.parametrize("value", [0, 1])
def test_full_and_empty_masks(shape: tuple[int, int, int], value: int) -> None:
    mask = np.full(shape, value, np.uint8)
    for connectivity in CONNECTIVITIES:
        assert volume.euler_number(mask, connectivity) == value
        assert volume.betti_numbers(mask, connectivity) == volume.BettiNumbers(value, 0, 0)
        assert volume.component_topology(mask, connectivity).sizes.tolist() == [mask.size] * value
    assert np.array_equal(volume.plug_holes(mask), mask)


def test_bool_read_only_strided_and_broadcast_masks() -> None:
    base = np.random.default_rng(1).random((20, 24, 28)) < 0.4
    frozen = base.copy()
    frozen.flags.writeable = False
    euler, plugged = reference.euler_number(base, 6), reference.plug_holes(base)[0]
    for same in (base, frozen, np.asfortranarray(base), base.astype(np.uint8), np.repeat(base, 2, axis=2)[:, :, ::2]):
        assert volume.euler_number(same) == euler
        assert np.array_equal(volume.plug_holes(same), plugged)
    assert volume.euler_number(np.broadcast_to(base[0, 0], (9, 8, 28)), 26) == reference.euler_number(base[:1, :1], 26)
    assert not frozen.flags.writeable


def test_any_number_of_threads_gives_the_same() -> None:
    mask = np.random.default_rng(2).random((70, 60, 130)) < 0.3
    results: list[Callable[[int], Any]] = [
        lambda n: volume.euler_number(mask, 6, n_threads=n),
        lambda n: volume.betti_numbers(mask, 26, n_threads=n),
        lambda n: volume.component_topology(mask, 6, n_threads=n).tunnels.tobytes(),
        lambda n: volume.component_topology(mask, 26, n_threads=n).tunnels.tobytes(),
        lambda n: volume.plug_holes(mask, n_threads=n).tobytes(),
    ]
    for result in results:
        assert len({result(n) for n in (1, 2, 3, 8)}) == 1


KERNELS: list[Callable[..., Any]] = [
    volume.euler_number,
    volume.betti_numbers,
    volume.component_topology,
    volume.plug_holes,
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "mask",
    [
        np.ones((3, 4), np.uint8),
        np.ones((1, 3, 4, 5), np.uint8),
        np.ones((3, 0, 5), np.uint8),
        np.ones((3, 4, 5), np.int64),
        np.ones((3, 4, 5), np.float32),
        [[[1]]],
        None,
    ],
)
def test_a_bad_mask_is_named(kernel: Callable[..., Any], mask: Any) -> None:
    with pytest.raises(ArgumentError, match=r"mask: got .*; accepted: a 3-D numpy array of uint8"):
        kernel(mask)


@pytest.mark.parametrize("connectivity", [18, 7, 0, -6, 26.0, None, 10**30, "26"])
@pytest.mark.parametrize("kernel", KERNELS[:3])
def test_a_bad_connectivity_is_named(kernel: Callable[..., Any], connectivity: Any) -> None:
    with pytest.raises(ArgumentError, match=r"connectivity: got .*; accepted: 6(, 18)? or 26"):
        kernel(np.ones((3, 4, 5), np.uint8), connectivity)


@pytest.mark.parametrize("kernel", KERNELS)
def test_too_many_voxels_are_refused_before_anything_is_copied(kernel: Callable[..., Any]) -> None:
    with pytest.raises(ArgumentError, match=r"mask: got shape .* accepted: 1 to 4294967295 voxels"):
        kernel(np.broadcast_to(np.uint8(1), (2**12, 2**10, 2**10)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_ctrl_c_is_answered_within_half_a_second(kernel: Callable[..., Any]) -> None:
    tile = np.random.default_rng(3).random((64, 384, 384), dtype=np.float32) < 0.3
    mask = np.concatenate([tile] * 6)
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.15, press).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(200):
            kernel(mask)
    assert time.monotonic() - pressed[0] < 0.5


# ---- real masks ----


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "before", "after", "n_added"),
    [("2656396745", (12, 3, 0), (12, 1, 0), 1079), ("3281388561", (73, 113, 0), (8, 85, 0), 1549)],
)
def test_the_plug_on_real_labels(
    real_data: Path, name: str, before: tuple[int, int, int], after: tuple[int, int, int], n_added: int
) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    mask = tifffile.imread(real_data / "labels" / f"{name}.tif") == 1
    assert volume.betti_numbers(mask) == volume.BettiNumbers(*before)
    plugged, added, _ = volume.plug_holes_counted(mask)
    assert volume.betti_numbers(plugged) == volume.BettiNumbers(*after)
    assert added == n_added
    assert volume.euler_number(mask) == skimage_euler(mask, 1)
    assert volume.euler_number(mask, 26) == skimage_euler(mask, 3)
