"""Features against SciPy, on any shape, dtype and number of threads."""

import os
import runpy
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vesu.errors import ArgumentError, MemoryLimitError
from vesu.features import FAMILIES, FeatureSpec, extract_features

reference = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("reference_features.py"))))

# Single precision against double; in units of the volume's deviation. Planarity divides by a small number.
TOLERANCE = {"planarity": 2e-3}


def random_volume(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[np.generic]:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return (rng.normal(size=shape) * 3 - 40).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def assert_parity(volume: NDArray[np.generic], spec: FeatureSpec) -> None:
    found = extract_features(volume, spec)
    expected = reference.features(volume, spec.scales, spec.normalise)
    assert found.values.dtype == np.float32
    std = 1.0 if spec.normalise else float(volume.astype(np.float64).std()) or 1.0
    for name, values in zip(found.names, found.values, strict=True):
        family = name.rsplit("_s", 1)[0]
        unit = {"planarity": 1.0, "variance": std**2}.get(family, std)
        biggest = float(np.abs(volume.astype(np.float64) - volume.astype(np.float64).mean()).max()) / std or 1.0
        limit = TOLERANCE.get(family, 4e-6 * biggest * (biggest if family == "variance" else 1)) * unit
        if family == "intensity" and not spec.normalise:
            limit += float(np.abs(expected[name]).max()) * 2e-7  # rounding of the sum with the mean
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("normalise", [True, False])
def test_every_channel_matches_scipy(dtype: str, normalise: bool) -> None:  # R07
    assert_parity(random_volume((40, 21, 75), dtype, 1), FeatureSpec(normalise=normalise))


SHAPES = [(1, 1, 1), (1, 1, 7), (1, 30, 20), (2, 3, 4), (70, 1, 1), (5, 64, 1), (1, 1, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_smaller_than_the_filter_match_scipy(shape: tuple[int, ...]) -> None:  # R07
    assert_parity(random_volume(shape, "uint8", 2), FeatureSpec())


@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    scales=st.lists(st.sampled_from([0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.3]), min_size=1, max_size=3, unique=True),
    normalise=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_generated_volumes_match_scipy(  # R07
    shape: tuple[int, ...], dtype: str, scales: list[float], normalise: bool, seed: int
) -> None:
    assert_parity(random_volume(shape, dtype, seed), FeatureSpec(tuple(sorted(scales)), normalise))


@given(families=st.lists(st.sampled_from(FAMILIES), min_size=1, unique=True), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_choice_of_families_gives_the_same_bits(families: list[str], seed: int) -> None:  # R07, R10
    volume = random_volume((9, 10, 11), "uint8", seed)
    every = extract_features(volume, FeatureSpec((1.0, 2.0)))
    some = extract_features(volume, FeatureSpec((1.0, 2.0), families=tuple(families)))
    assert set(some.names) == {f"{family}_s{sigma}" for family in families for sigma in (1, 2)}
    for name, values in zip(some.names, some.values, strict=True):
        assert np.array_equal(values, every.values[every.names.index(name)]), name


def test_threads_do_not_change_a_bit() -> None:  # R07
    volume = random_volume((67, 33, 50), "uint8", 3)
    one = extract_features(volume, n_threads=1).values
    for n_threads in (2, 3, 8):
        assert np.array_equal(one, extract_features(volume, n_threads=n_threads).values)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("normalise", [True, False])
def test_slices_have_the_bits_of_the_whole(dtype: str, normalise: bool) -> None:  # R07
    volume = random_volume((75, 20, 19), dtype, 4)
    spec = FeatureSpec(normalise=normalise)
    whole = extract_features(volume, spec).values
    for first, end in [(0, 75), (0, 1), (74, 75), (10, 43), (31, 64), (5, 6)]:
        part = extract_features(volume, spec, z_range=(first, end)).values
        assert part.shape[1] == end - first
        assert np.array_equal(part, whole[:, first:end]), (first, end)


def test_a_crop_with_the_halo_agrees_inside() -> None:  # R07
    spec = FeatureSpec((1.0, 2.0), normalise=False)
    volume = random_volume((60, 20, 20), "uint8", 5)
    whole = extract_features(volume, spec).values[:, 30]
    crop = extract_features(volume[30 - spec.halo : 30 + spec.halo + 1], spec).values[:, spec.halo]
    deviation = np.abs(whole - crop).max(axis=(1, 2))
    planarity = np.array([name.startswith("planarity") for name in spec.names])  # its floor is relative to the std
    assert deviation[planarity].max() < 1e-4
    assert deviation[~planarity].max() < 0.05  # variance: of the order of 5000


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_constant_volume_gives_zeros(value: int, dtype: str) -> None:  # R07
    volume = np.full((6, 40, 9), value, dtype)
    assert not extract_features(volume).values.any()
    own = extract_features(volume, FeatureSpec(normalise=False))
    for name, values in zip(own.names, own.values, strict=True):
        assert (values == (value if name.startswith("intensity") else 0)).all(), name
    assert not extract_features(np.full((5, 5, 5), 0.1, np.float32)).values.any()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1.5e38])
@pytest.mark.parametrize("normalise", [True, False])
def test_extreme_floats_stay_finite(scale: float, normalise: bool) -> None:  # R07
    rng = np.random.default_rng(6)
    volume = (rng.choice([-2.0, 0.0, 2.0], size=(9, 10, 11)) * scale).astype(np.float32)
    assert np.isfinite(extract_features(volume, FeatureSpec(normalise=normalise)).values).all()
    single = np.zeros((9, 10, 11), np.float32)
    single[4, 5, 6] = scale
    assert np.isfinite(extract_features(single, FeatureSpec(normalise=normalise)).values).all()


def test_layouts_do_not_matter_and_the_input_is_left_alone() -> None:  # R07
    volume = random_volume((12, 14, 16), "uint8", 7)
    expected = extract_features(volume).values
    kept = volume.copy()
    volume.flags.writeable = False
    strided = np.repeat(volume, 2, axis=2)[:, :, ::2]
    for same in (volume, np.asfortranarray(volume), strided, volume[::-1][::-1]):
        assert np.array_equal(extract_features(same).values, expected)
    assert np.array_equal(volume, kept)


def test_a_sheet_looks_like_a_sheet() -> None:  # R07
    rng = np.random.default_rng(8)
    volume = np.full((32, 32, 32), 80.0)
    volume[:, 15:18] += 100
    found = extract_features((volume + rng.normal(size=volume.shape)).astype(np.uint8))
    channel = dict(zip(found.names, found.values[:, 16, :, 16], strict=True))
    for sigma in (1, 2):
        assert channel[f"sheetness_s{sigma}"].argmax() == 16
        assert channel[f"hessian_s{sigma}"].argmin() == 16
        assert channel[f"planarity_s{sigma}"][16] > 0.95
        assert channel[f"z_contrast_s{sigma}"][16] < 0.05 * channel[f"gradient_s{sigma}"][14]
    negative = extract_features((255 - volume).astype(np.uint8))
    assert negative.values[negative.names.index("sheetness_s2"), 16, 16, 16] < 0


BAD = [
    (np.zeros((3, 3), np.uint8), "volume: got shape"),
    (np.zeros((0, 3, 3), np.uint8), "volume: got shape"),
    (np.zeros((3, 3, 3), np.float64), "volume: got dtype float64; accepted: a 3-D numpy array"),
    (np.zeros((3, 3, 3), ">u2"), "volume: got dtype >u2"),
    ([[[1]]], "volume: got list"),
]


@pytest.mark.parametrize(("volume", "message"), BAD)
def test_a_bad_volume_is_named(volume: object, message: str) -> None:  # R07
    with pytest.raises(ArgumentError, match=message):
        extract_features(volume)  # type: ignore[arg-type]


def test_non_finite_voxels_are_counted_and_placed() -> None:  # R07
    volume = np.zeros((4, 5, 6), np.float32)
    volume[2, 3, 4] = np.nan
    volume[3, 0, 0] = -np.inf
    with pytest.raises(ArgumentError, match=r"2 non-finite values, the first at \(z, y, x\) = \(2, 3, 4\)"):
        extract_features(volume)


@pytest.mark.parametrize("z_range", [(0, 0), (3, 2), (-1, 2), (0, 5), (0.5, 2), (0, 1, 2), 3, (2**70, 2**71)])
def test_a_bad_z_range_is_named(z_range: object) -> None:  # R07
    with pytest.raises(ArgumentError, match="z_range: got"):
        extract_features(np.zeros((4, 4, 4), np.uint8), z_range=z_range)  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [(), (2, 1), (1, 1), (0,), (float("nan"),), (99,), ("a",), 3])
def test_bad_scales_are_named(scales: object) -> None:  # R07
    with pytest.raises(ArgumentError, match="scales: got"):
        FeatureSpec(scales=scales)  # type: ignore[arg-type]


@pytest.mark.parametrize("families", [(), ("entropy",), ("variance", "variance"), "variance", (1,)])
def test_bad_families_are_named(families: object) -> None:  # R07
    with pytest.raises(ArgumentError, match="families: got"):
        FeatureSpec(families=families)  # type: ignore[arg-type]


def test_too_much_memory_is_refused_before_allocating() -> None:  # R07
    volume = np.zeros((64, 64, 64), np.uint8)
    with pytest.raises(MemoryLimitError, match="the limit is 1000000 bytes"):
        extract_features(volume, max_bytes=10**6)
    extract_features(volume, z_range=(0, 2), max_bytes=20 * 10**6)


def test_a_changed_spec_has_a_name_of_its_own() -> None:  # R09
    assert FeatureSpec() == FeatureSpec((1, 2, 4))
    assert FeatureSpec() != FeatureSpec((1, 2))
    assert hash(FeatureSpec()) == hash(FeatureSpec())
    assert isinstance(FeatureSpec.version, int)


def test_ctrl_c_is_answered_within_half_a_second() -> None:  # R07
    volume = random_volume((192, 256, 256), "uint8", 9)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        extract_features(volume, n_threads=1)
    assert time.monotonic() - start < 0.3 + 0.5
