"""The height-map patch: against a slow reference, its promises, real geometry with punched holes, bad input."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import reference_sheets as reference
from vesu import volume
from vesu.errors import ArgumentError

few = settings(max_examples=25, deadline=None)
OPTIONS: dict[str, Any] = {"connectivity": 26, "min_voxels": 60, "max_gap": 12, "max_residual": 3.0}


def slab(shape: tuple[int, int, int], height: NDArray[np.float64], thickness: float = 3.0) -> NDArray[np.uint8]:
    """A sheet of constant thickness along z around `height` (y, x)."""
    z = np.arange(shape[0])[:, None, None]
    return (np.abs(z - height) <= thickness / 2).astype(np.uint8)


def punched(mask: NDArray[np.uint8], centre: tuple[int, int, int], radius: float) -> NDArray[np.uint8]:
    away = sum((axis - at) ** 2 for axis, at in zip(np.ogrid[tuple(map(slice, mask.shape))], centre, strict=True))
    return np.where(away <= radius**2, 0, mask).astype(np.uint8)


@st.composite
def torn(draw: st.DrawFn) -> NDArray[np.uint8]:
    """One or two bent, slanting, rough sheets with holes, sometimes with specks."""
    shape = (draw(st.integers(14, 20)), draw(st.integers(12, 20)), draw(st.integers(12, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, x = np.mgrid[: shape[1], : shape[2]]
    bend, tilt = draw(st.sampled_from([0.0, 0.01, 0.04])), draw(st.sampled_from([0.0, 0.3, 0.8]))
    height = 5 + tilt * (x - 6) + bend * (y - 8) ** 2 + draw(st.sampled_from([0.0, 0.5])) * rng.random(y.shape)
    mask = slab(shape, height, draw(st.sampled_from([1.5, 3.0, 4.0])))
    if draw(st.booleans()):
        mask |= slab(shape, height + draw(st.integers(3, 8)))
    inner = np.argwhere(mask[3:-3, 3:-3, 3:-3]) + 3
    for _ in range(draw(st.integers(0, 3)) if len(inner) else 0):
        at = inner[rng.integers(len(inner))].tolist()
        mask = punched(mask, (at[0], at[1], at[2]), rng.uniform(1, 4))
    mask |= rng.random(shape) < draw(st.sampled_from([0, 0.003]))
    return mask.transpose(draw(st.permutations(range(3))))


# ---- the kernel and its promises ----


@given(torn())
@settings(max_examples=60, deadline=None)
def test_the_patch_is_the_references(mask: NDArray[np.uint8]) -> None:  # R29
    patched, report = volume.patch_sheets_counted(mask, **OPTIONS)
    assume(report.cavity == 0)
    assert np.array_equal(patched, reference.patch_sheets(mask, **OPTIONS))


@few
@given(torn(), st.sampled_from([6, 18, 26]))
def test_topology_never_gets_worse(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    patched, report = volume.patch_sheets_counted(mask, **OPTIONS | {"connectivity": connectivity})
    assert patched.dtype == np.uint8
    assert (patched[mask != 0] == 1).all()
    assert np.count_nonzero(patched) - np.count_nonzero(mask) == report.n_added
    assert report.before == volume.betti_numbers(mask)
    assert report.after == volume.betti_numbers(patched)
    assert report.after.components <= report.before.components
    assert report.after.cavities <= report.before.cavities
    assert report.after.tunnels <= report.before.tunnels - report.n_filled
    # Sheets never join: a component of the result holds one component of the input.
    assert volume.connected_components(patched, connectivity)[1] == volume.connected_components(mask, connectivity)[1]
    left = report.too_wide + report.poor_fit + report.touching + report.no_tunnel + report.cavity
    assert report.n_gaps == report.n_filled + left


@pytest.mark.parametrize("tilt", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("radius", [3, 6, 10])
def test_a_hole_in_a_slanting_sheet_is_restored(tilt: float, radius: int) -> None:  # R29
    y, x = np.mgrid[:60, :60]
    whole = slab((70, 60, 60), 12 + tilt * x + 0 * y)
    hole = punched(whole, (round(12 + tilt * 30), 30, 30), radius)
    patched, report = volume.patch_sheets_counted(hole)
    assert (report.n_filled, report.before.tunnels, report.after.tunnels) == (1, 1, 0)
    lost = (whole != 0) & (hole == 0)
    restored = ndimage.binary_dilation((patched != 0) & (hole == 0), np.ones((3, 3, 3)))
    assert (lost & restored).sum() > 0.98 * lost.sum()
    assert not ((patched != 0) & ~ndimage.binary_dilation(whole != 0)).any()  # nowhere more than a voxel off
    assert np.array_equal(volume.patch_sheets(patched), patched)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_the_patch_commutes_with_flips_and_axis_permutations(axes: tuple[int, ...], flipped: tuple[int, ...]) -> None:
    y, x = np.mgrid[:40, :50]  # R29
    hole = slab((40, 40, 50), 10 + 0.3 * x + 0.004 * (y - 17) ** 2)
    for centre, radius in (((14, 12, 15), 5), ((19, 28, 30), 7)):
        hole = punched(hole, centre, radius)

    def moved(array: NDArray[Any]) -> NDArray[Any]:
        return np.flip(array.transpose(axes), flipped)

    patched, report = volume.patch_sheets_counted(hole)
    assert report.n_filled == 2
    assert np.array_equal(volume.patch_sheets(moved(hole)), moved(patched))


# ---- what is left open, and why ----


def flat(n: int = 40) -> NDArray[np.uint8]:
    mask = np.zeros((14, n, n), np.uint8)
    mask[3:6] = 1
    return mask


def test_a_gap_too_wide_is_left() -> None:
    torn_sheet = flat()
    torn_sheet[:, 10:23, 10:24] = 0  # 13 x 14 columns
    assert volume.patch_sheets_counted(torn_sheet, max_gap=12)[1].too_wide == 1
    assert np.array_equal(volume.patch_sheets(torn_sheet, max_gap=13), flat())


def test_a_long_crack_counts_by_its_width() -> None:
    cracked = flat()
    cracked[:, 5:35, 20:22] = 0
    assert np.array_equal(volume.patch_sheets(cracked, max_gap=2), flat())


def test_a_step_in_the_sheet_is_no_good_fit() -> None:
    step = flat()
    step[3:6, :, 20:] = 0
    step[5:8, :, 20:] = 1
    step[3:8, 15:25, 18:22] = 0
    assert volume.patch_sheets_counted(step, max_residual=0.3)[1].poor_fit == 1
    assert volume.patch_sheets_counted(step, max_residual=3.0)[1].n_filled == 1


def test_a_fill_that_would_touch_another_component_is_left() -> None:
    blocked = flat()
    blocked[:, 10:20, 10:20] = 0
    blocked[4, 15, 15] = 1
    patched, report = volume.patch_sheets_counted(blocked)
    assert (report.touching, report.n_filled) == (1, 0)
    assert np.array_equal(patched, blocked)
    assert np.array_equal(volume.patch_sheets(volume.remove_dust(blocked, 10)), flat())


def test_a_notch_in_the_border_is_no_hole() -> None:
    notched = flat()
    notched[:, 15:25, :8] = 0
    assert volume.patch_sheets_counted(notched)[1].n_gaps == 0


def test_a_dent_is_no_tunnel() -> None:
    # The sheet is thinner there but whole: no column is missing.
    dented = flat()
    dented[4:6, 10:20, 10:20] = 0
    patched, report = volume.patch_sheets_counted(dented)
    assert report.n_filled == 0
    assert np.array_equal(patched, dented)


def test_a_patch_that_would_close_a_bubble_is_taken_back() -> None:
    # A hollow box with one hole in its roof: closing it ends no tunnel (there is none) and makes a cavity.
    box = np.zeros((20, 30, 30), np.uint8)
    box[2:18, 2:28, 2:28] = 1
    box[5:15, 5:25, 5:25] = 0
    box[15:, 12:17, 12:17] = 0
    assert volume.betti_numbers(box) == volume.BettiNumbers(1, 0, 0)
    patched, report = volume.patch_sheets_counted(box)
    assert report.cavity == 1
    assert report.n_filled == 0
    assert np.array_equal(patched, box)


def test_small_components_are_left() -> None:
    small = flat(20)
    small[:, 8:12, 8:12] = 0
    report = volume.patch_sheets_counted(small, min_voxels=int(small.sum()) + 1)[1]
    assert (report.n_sheets, report.n_gaps) == (0, 0)
    assert volume.patch_sheets_counted(small, min_voxels=int(small.sum()))[1].n_filled == 1


def test_stuck_wraps_part_into_layers() -> None:  # R29
    # Two sheets that touch along a strip are one component with two runs in most columns; both holes close.
    wraps = np.zeros((16, 40, 40), np.uint8)
    wraps[3:6] = 1
    wraps[9:12] = 1
    wraps[3:12, 18:21, 30:] = 1
    whole = wraps.copy()
    wraps[3:6, 8:14, 8:14] = 0
    wraps[9:12, 25:32, 10:18] = 0
    assert volume.connected_components(wraps)[1] == 1
    assert np.array_equal(volume.patch_sheets(wraps), whole)


# ---- shapes, threads, bad input ----


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200)])
@pytest.mark.parametrize("value", [0, 1])
def test_full_and_empty_masks(shape: tuple[int, int, int], value: int) -> None:
    mask = np.full(shape, value, np.uint8)
    patched, report = volume.patch_sheets_counted(mask, min_voxels=0)
    assert np.array_equal(patched, mask)
    assert (report.n_sheets, report.n_gaps) == (value, 0)


def test_a_volume_of_one_slice() -> None:
    ring = np.ones((1, 12, 70), np.uint8)
    ring[0, 5:8, 60:66] = 0
    assert volume.patch_sheets(ring, min_voxels=1).all()


def test_bool_read_only_and_strided_masks() -> None:
    hole = punched(flat(), (4, 20, 20), 5)
    frozen = hole.astype(bool)
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(hole), np.repeat(hole, 2, axis=1)[:, ::2], hole * np.uint8(200)):
        assert np.array_equal(volume.patch_sheets(same), flat())


def noisy(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    noise = ndimage.gaussian_filter(np.random.default_rng(4).random(shape, dtype=np.float32), 1.5)
    return noise > np.quantile(noise, 0.6)


def test_any_number_of_threads_gives_the_same() -> None:
    mask = noisy((60, 70, 80))
    results = [volume.patch_sheets_counted(mask, n_threads=n) for n in (1, 2, 3, 8)]
    assert results[0][1].n_filled > 0
    assert len({patched.tobytes() for patched, _ in results}) == 1
    assert len({report for _, report in results}) == 1


@pytest.mark.parametrize("mask", [np.ones((3, 4), np.uint8), np.ones((3, 4, 5), np.int64), np.ones((3, 0, 5), bool), 1])
def test_a_bad_mask_is_named(mask: Any) -> None:
    with pytest.raises(ArgumentError, match=r"mask: got .*; accepted: a 3-D numpy array of uint8"):
        volume.patch_sheets(mask)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("connectivity", [7, 0, None, "26", 26.0]),
        ("min_voxels", [-1, 2.5, None, 2**63]),
        ("max_gap", [0, -3, 1025, 1.5, None]),
        ("max_residual", [-0.1, np.nan, np.inf, "a", None]),
        ("n_threads", [0, -1]),
    ],
)
def test_a_bad_option_is_named(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ArgumentError, match=f"{option}: got .*accepted|{option}: got"):
            volume.patch_sheets(flat(), **{option: value})


def test_too_many_voxels_are_refused_before_anything_is_copied() -> None:
    with pytest.raises(ArgumentError, match=r"mask: got shape .* accepted: 1 to 4294967295 voxels"):
        volume.patch_sheets(np.broadcast_to(np.uint8(1), (2**12, 2**10, 2**10)))


def test_ctrl_c_is_answered_within_half_a_second() -> None:
    mask = np.tile(noisy((64, 128, 128)), (4, 2, 2))
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    for delay in (0.1, 0.6, 1.2):
        threading.Timer(delay, press).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(50):
                volume.patch_sheets(mask)
        assert time.monotonic() - pressed[-1] < 0.5


# ---- real geometry ----


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["2656396745", "3281388561"])
def test_holes_punched_in_a_real_label_are_restored(real_data: Path, name: str) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    label = (tifffile.imread(real_data / "labels" / f"{name}.tif") == 1).astype(np.uint8)
    intact, report = volume.patch_sheets_counted(label)
    assert report.n_added <= 0.001 * label.sum()  # an intact label is left (nearly) untouched
    sheets, _ = volume.connected_components(label)
    inside = np.argwhere(label[20:-20, 20:-20, 20:-20])[:: label.sum() // 40] + 20
    torn_label = label.copy()
    for centre in inside:
        view = tuple(slice(at - 8, at + 9) for at in centre)
        ball = sum(axis**2 for axis in np.ogrid[-8:9, -8:9, -8:9]) <= 7**2
        torn_label[view][ball & (sheets[view] == sheets[tuple(centre)])] = 0
    patched, report = volume.patch_sheets_counted(torn_label)
    lost, added = (label != 0) & (torn_label == 0), (patched != 0) & (torn_label == 0)
    cube = np.ones((3, 3, 3))
    assert (lost & ndimage.binary_dilation(added, cube)).sum() > 0.75 * lost.sum()
    assert (added & ~ndimage.binary_dilation(label | intact, cube)).sum() < 0.002 * lost.sum()
    assert report.after.tunnels < report.before.tunnels - 20
