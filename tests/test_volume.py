"""Volume kernels against SciPy, cc3d and scikit-image; thread counts, bad input, Ctrl-C."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

import reference_volume as reference
from vesu import _core, volume
from vesu.errors import ArgumentError

CONNECTIVITIES = (6, 18, 26)
THREADS = (1, 2, 3, 8)
few = settings(max_examples=40, deadline=None)


def shapes(longest: int = 24) -> st.SearchStrategy[tuple[int, int, int]]:
    # The z axis reaches over more than two slabs of 16 slices, the x axis over more than one word of 64.
    return st.tuples(st.integers(1, 40), st.integers(1, longest), st.sampled_from([1, 2, 3, 31, 63, 64, 65, 130]))


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    shape, density = draw(shapes(12)), draw(st.sampled_from([0.05, 0.2, 0.5, 0.8]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (rng.random(shape) < density).astype(np.uint8) * draw(st.sampled_from([1, 255]))


@st.composite
def volumes(draw: st.DrawFn) -> NDArray[np.float32]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rough = rng.random(draw(shapes(8)), dtype=np.float32)
    # Few distinct values, so that voxels lie exactly on the thresholds.
    return np.round(rough * 8).astype(np.float32) / 8 if draw(st.booleans()) else rough


# ---- components ----


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_all_masks_of_2x2x2_are_labelled_as_scipy_does(connectivity: int) -> None:  # R29
    for bits in range(2**8):
        mask = np.array([bits >> i & 1 for i in range(8)], np.uint8).reshape(2, 2, 2)
        labels, n = volume.connected_components(mask, connectivity)
        expected, n_expected = reference.labels(mask, connectivity)
        assert n == n_expected
        assert np.array_equal(labels, expected)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_all_masks_of_3x3x2_are_labelled_as_scipy_does(connectivity: int) -> None:  # R29
    # All 2^18 at once: a long volume of the small masks, empty slices between them. Five slices each, so that the
    # seams of the 16-slice slabs fall at every place of a mask.
    bits = np.arange(2**18, dtype=np.uint32)
    small = (bits[:, None] >> np.arange(18, dtype=np.uint32) & 1).astype(np.uint8).reshape(-1, 3, 3, 2)
    packed = np.zeros((2**18, 5, 3, 2), np.uint8)
    packed[:, :3] = small
    packed = packed.reshape(-1, 3, 2)
    labels, n = volume.connected_components(packed, connectivity)
    expected, n_expected = ndimage.label(packed, reference.structure(connectivity))
    assert n == n_expected
    first = np.unique(expected, return_index=True)[1][1:]
    assert np.array_equal(labels.ravel()[first], np.argsort(np.argsort(first)) + 1)  # numbered by first appearance
    pairs = np.unique(labels.ravel().astype(np.int64) * (n + 1) + expected.ravel())
    assert pairs.size == n + 1  # a one-to-one match of components, background included


@few
@given(masks(), st.sampled_from(CONNECTIVITIES))
def test_labels_and_sizes_are_scipys(mask: NDArray[np.uint8], connectivity: int) -> None:  # R29
    labels, n = volume.connected_components(mask, connectivity)
    expected, n_expected = reference.labels(mask, connectivity)
    assert (labels.dtype, n) == (np.uint32, n_expected)
    assert np.array_equal(labels, expected)
    assert n == cc3d.connected_components(mask, connectivity=connectivity, return_N=True)[1]
    sizes = volume.component_sizes(mask, connectivity)
    assert sizes.dtype == np.int64
    assert np.array_equal(sizes, np.bincount(labels.ravel(), minlength=n + 1)[1:])


@few
@given(masks(), st.integers(0, 30), st.sampled_from(CONNECTIVITIES))
def test_dust_is_scipys_and_cc3ds(mask: NDArray[np.uint8], min_voxels: int, connectivity: int) -> None:  # R29
    kept = volume.remove_dust(mask, min_voxels, connectivity)
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, reference.remove_dust(mask, min_voxels, connectivity))
    if min_voxels > 0:
        peer = cc3d.dust((mask != 0).astype(np.uint8), threshold=min_voxels, connectivity=connectivity)
        assert np.array_equal(kept, peer)
    assert np.array_equal(volume.remove_dust(kept, min_voxels, connectivity), kept)  # idempotent


@few
@given(masks(), st.permutations(range(3)), st.sets(st.integers(0, 2)), st.sampled_from(CONNECTIVITIES))
def test_dust_commutes_with_flips_and_axis_permutations(
    mask: NDArray[np.uint8], axes: list[int], flipped: set[int], connectivity: int
) -> None:  # R29
    def moved(array: NDArray[Any]) -> NDArray[Any]:
        return np.flip(array.transpose(axes), tuple(flipped))  # neither contiguous nor C-ordered

    assert np.array_equal(
        volume.remove_dust(moved(mask), 5, connectivity), moved(volume.remove_dust(mask, 5, connectivity))
    )
    assert np.array_equal(
        np.sort(volume.component_sizes(moved(mask), connectivity)), np.sort(volume.component_sizes(mask, connectivity))
    )


def test_a_component_of_exactly_the_limit_stays() -> None:  # R29
    mask = np.array([[[1, 1, 0, 1, 1, 1]]], np.uint8)
    assert volume.remove_dust(mask, 2).sum() == 5
    assert volume.remove_dust(mask, 3).sum() == 3
    assert volume.remove_dust_counted(mask, 4)[1:] == (2, 2)


def test_rows_longer_than_16_bits() -> None:
    mask = np.zeros((2, 2, 70_000), np.uint8)
    mask[0, 0, 65_530:65_540] = 1
    mask[1, 1, 65_540:] = 1  # touches at one corner only
    assert [volume.connected_components(mask, c)[1] for c in CONNECTIVITIES] == [2, 2, 1]
    assert np.array_equal(volume.connected_components(mask, 26)[0], mask)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (33, 1, 1), (1, 1, 200)])
@pytest.mark.parametrize("value", [0, 1])
def test_full_and_empty_masks(shape: tuple[int, int, int], value: int) -> None:
    mask = np.full(shape, value, np.uint8)
    for connectivity in CONNECTIVITIES:
        labels, n = volume.connected_components(mask, connectivity)
        assert n == value
        assert np.array_equal(labels, mask)
        assert volume.component_sizes(mask, connectivity).tolist() == [mask.size] * value
        assert np.array_equal(volume.remove_dust(mask, mask.size, connectivity), mask)
        assert not volume.remove_dust(mask, mask.size + 1, connectivity).any()


def test_bool_read_only_and_strided_masks() -> None:
    base = np.random.default_rng(1).random((20, 24, 28)) < 0.4
    frozen = base.copy()
    frozen.flags.writeable = False
    expected = reference.remove_dust(base, 4, 26)
    for same in (base, frozen, np.asfortranarray(base), base.astype(np.uint8), np.repeat(base, 2, axis=2)[:, :, ::2]):
        assert np.array_equal(volume.remove_dust(same, 4), expected)
    assert not frozen.flags.writeable


# ---- hysteresis ----


@few
@given(volumes(), st.tuples(st.integers(0, 8), st.integers(0, 8)), st.sampled_from(CONNECTIVITIES))
def test_hysteresis_is_the_references(p: NDArray[np.float32], eighths: tuple[int, int], connectivity: int) -> None:
    low, high = min(eighths) / 8, max(eighths) / 8  # R29
    ours = volume.hysteresis(p, low, high, connectivity)
    assert np.array_equal(ours, reference.hysteresis(p, low, high, connectivity))
    assert np.array_equal(volume.hysteresis(p, high, high, connectivity), p >= np.float32(high))


@few
@given(volumes(), st.integers(0, 8), st.integers(0, 8))
def test_hysteresis_is_scikit_images_up_to_equality(p: NDArray[np.float32], a: int, b: int) -> None:  # R29
    low, high = np.float32(min(a, b) / 8 + 0.03), np.float32(max(a, b) / 8 + 0.03)
    p = np.where((p == low) | (p == high), np.float32(0), p)  # where > and >= differ
    if high <= 1:
        # scikit-image connects by faces.
        assert np.array_equal(
            volume.hysteresis(p, float(low), float(high), 6), apply_hysteresis_threshold(p, low, high)
        )


def test_hysteresis_counts_and_the_threshold_that_nothing_reaches() -> None:
    p = np.array([[[0.5, 1.0, 0.0, 0.5]]], np.float32)
    assert volume.hysteresis_counted(p, 0.5, 1.0)[1:] == (2, 1)
    above_one = float(np.nextafter(np.float32(1), np.float32(2)))
    assert not volume.hysteresis(p, above_one, above_one).any()


# ---- smoothing ----


@few
@given(volumes(), st.sampled_from([0, 1, 2, 3, 7, 39, 60, 200]))
def test_smooth_z_is_the_clamped_mean(p: NDArray[np.float32], radius: int) -> None:  # R29
    ours = volume.smooth_z(p, radius)
    assert ours.dtype == np.float32
    assert ours.min() >= 0
    assert ours.max() <= 1
    np.testing.assert_allclose(ours, reference.smooth_z(p, radius), rtol=2e-5, atol=1e-6)
    scipy = ndimage.uniform_filter1d(p.astype(np.float64), 2 * radius + 1, axis=0, mode="nearest")
    np.testing.assert_allclose(ours, scipy, rtol=2e-5, atol=1e-6)
    if radius == 0:
        assert np.array_equal(ours, p)


@pytest.mark.parametrize("radius", [1, 2, 3, 24, 100_000, 2**23 - 1])
def test_ones_stay_ones_exactly(radius: int) -> None:
    assert (volume.smooth_z(np.ones((5, 3, 7), np.float32), radius) == 1).all()


# ---- histogram ----


def test_the_histogram_counts_as_thresholds_do() -> None:  # R28
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.random(5000), np.arange(65) / 64, [np.nextafter(np.float32(0.5), 0)]]).astype(np.float32)
    p, label = p.reshape(1, 1, -1), rng.integers(0, 3, p.size).astype(np.uint8).reshape(1, 1, -1)
    counts = _core.probability_histogram(p, label, 64)
    assert counts.shape == (3, 65)
    for k in range(65):
        for value in range(3):
            assert counts[value, k:].sum() == np.count_nonzero((p >= np.float32(k / 64)) & (label == value))
    assert np.array_equal(_core.probability_histogram(p, None, 64)[0], counts.sum(axis=0))


def test_the_histogram_refuses_what_it_cannot_count() -> None:
    p, label = np.full((2, 3, 4), 0.5, np.float32), np.zeros((2, 3, 4), np.uint8)
    label[1, 2, 0] = 7
    with pytest.raises(ArgumentError, match=r"label: got 1 forbidden value, the first 7 at \(z, y, x\) = \(1, 2, 0\)"):
        _core.probability_histogram(p, label, 64)
    with pytest.raises(ArgumentError, match="label: got shape"):
        _core.probability_histogram(p, label[:1], 64)
    for bins in (0, 100, 2**17):
        with pytest.raises(ArgumentError, match="n_bins: got"):
            _core.probability_histogram(p, None, bins)


# ---- the same bits on any number of threads ----


def test_any_number_of_threads_gives_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    p = rng.random((70, 90, 110), dtype=np.float32)
    mask = p > 0.7
    label = rng.integers(0, 3, p.shape).astype(np.uint8)
    kernels: list[Callable[[int], NDArray[Any]]] = [
        lambda n: volume.connected_components(mask, 6, n_threads=n)[0],
        lambda n: volume.component_sizes(mask, 18, n_threads=n),
        lambda n: volume.remove_dust(mask, 10, 26, n_threads=n),
        lambda n: volume.hysteresis(p, 0.7, 0.99, 6, n_threads=n),
        lambda n: volume.smooth_z(p, 3, n_threads=n),
        lambda n: _core.probability_histogram(p, label, 4096, n),
    ]
    for kernel in kernels:
        assert len({kernel(n).tobytes() for n in THREADS}) == 1


# ---- bad input ----


MASK = np.ones((3, 4, 5), np.uint8)
PROBABILITY = np.full((3, 4, 5), 0.5, np.float32)


@pytest.mark.parametrize(
    "kernel", [volume.connected_components, volume.component_sizes, lambda m: volume.remove_dust(m, 3)]
)
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
def test_a_bad_mask_is_named(kernel: Callable[[Any], Any], mask: Any) -> None:
    with pytest.raises(ArgumentError, match=r"mask: got .*; accepted: a 3-D numpy array of uint8"):
        kernel(mask)


@pytest.mark.parametrize("connectivity", [7, 0, -6, 26.0, None, 10**30, "26"])
def test_a_bad_connectivity_is_named(connectivity: Any) -> None:
    with pytest.raises(ArgumentError, match=r"connectivity: got .*; accepted: 6, 18 or 26"):
        volume.connected_components(MASK, connectivity)
    with pytest.raises(ArgumentError, match="connectivity: got"):
        volume.hysteresis(PROBABILITY, 0.1, 0.2, connectivity)


@pytest.mark.parametrize("count", [-1, 2.5, 2**63, None])
def test_a_bad_min_voxels_or_radius_is_named(count: Any) -> None:
    with pytest.raises(ArgumentError, match=r"min_voxels: got .*; accepted: 0 or more"):
        volume.remove_dust(MASK, count)
    with pytest.raises(ArgumentError, match=r"radius: got .*; accepted: 0 or more"):
        volume.smooth_z(PROBABILITY, count)


def test_a_radius_that_float32_cannot_count_is_refused() -> None:
    with pytest.raises(ArgumentError, match="radius: got 8388608; accepted: 0 to 8388607"):
        volume.smooth_z(PROBABILITY, 2**23)


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [
        (0.6, 0.5, "low"),
        (-0.1, 0.5, "low"),
        (0.1, 1.5, "high"),
        (np.nan, 0.5, "low"),
        (0.5, np.inf, "high"),
        ("a", 1, "low"),
    ],
)
def test_bad_thresholds_are_named(low: Any, high: Any, named: str) -> None:
    with pytest.raises(ArgumentError, match=f"{named}: got"):
        volume.hysteresis(PROBABILITY, low, high)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.001, 1.001])
def test_forbidden_probabilities_are_counted_and_placed(bad: float) -> None:
    p = PROBABILITY.copy()
    p[1, 2, 3] = p[2, 0, 0] = bad
    for name, kernel in {
        "hysteresis": lambda: volume.hysteresis(p, 0.2, 0.5),
        "histogram": lambda: _core.probability_histogram(p, None, 64),
    }.items():
        with pytest.raises(ArgumentError, match=r"2 forbidden values, the first \S+ at \(z, y, x\) = \(1, 2, 3\)"):
            pytest.fail(f"{name} took {bad}: {kernel()}")
    if not np.isfinite(bad):
        with pytest.raises(ArgumentError, match=r"volume: got 2 forbidden values, .* \(1, 2, 3\); accepted: finite"):
            volume.smooth_z(p, 1)


@pytest.mark.parametrize("probability", [PROBABILITY.astype(np.float64), PROBABILITY[0], MASK, PROBABILITY[:0], "p"])
def test_a_bad_probability_is_named(probability: Any) -> None:
    with pytest.raises(ArgumentError, match="probability: got"):
        volume.hysteresis(probability, 0.2, 0.5)
    with pytest.raises(ArgumentError, match="volume: got"):
        volume.smooth_z(probability, 1)


def test_more_voxels_than_labels_are_refused_before_anything_is_copied() -> None:
    huge = np.broadcast_to(np.uint8(1), (2**12, 2**10, 2**10))  # 4 GiB if it were copied
    start = time.monotonic()
    with pytest.raises(ArgumentError, match=r"mask: got shape .* accepted: 1 to 4294967295 voxels"):
        volume.connected_components(huge)
    with pytest.raises(ArgumentError, match="volume: got shape"):
        volume.smooth_z(np.broadcast_to(np.float32(1), (2**12, 2**10, 2**10)), 1)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("kernel", ["labels", "dust"])
def test_ctrl_c_is_answered_within_half_a_second(kernel: str) -> None:
    rng = np.random.default_rng(3)
    tile = rng.random((64, 512, 512), dtype=np.float32) < 0.3  # the hardest density: very many runs and unions
    mask = np.concatenate([tile] * 8)
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.15, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(50):
            if kernel == "labels":
                volume.connected_components(mask, 6)
            else:
                volume.remove_dust(mask, 10, 26)
    assert time.monotonic() - pressed[0] < 0.5


# ---- real masks ----


@pytest.fixture(scope="module")
def predictions() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VESU_DATA", beside)) / "predictions"
    if not folder.is_dir():
        pytest.skip(f"no research volumes in {folder}: set VESU_DATA to their folder")
    return folder


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [("1407735_speckle", {26: 203_524, 6: 395_051}), ("1407735_transunet", {26: 5, 6: 6})],
)
def test_real_masks_have_the_known_components(predictions: Path, name: str, counts: dict[int, int]) -> None:  # R29
    tifffile = pytest.importorskip("tifffile")
    mask = tifffile.imread(predictions / f"{name}.tif")
    for connectivity, n in counts.items():
        labels, found = volume.connected_components(mask, connectivity)
        assert found == n
        sizes = volume.component_sizes(mask, connectivity)
        assert np.array_equal(sizes, np.bincount(labels.ravel())[1:])
        peer = cc3d.dust((mask != 0).astype(np.uint8), threshold=100, connectivity=connectivity)
        assert np.array_equal(volume.remove_dust(mask, 100, connectivity), peer)
