"""The historical scorers: parity with NumPy and SciPy, threads, bad input (R32)."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import reference_baselines as reference
import vesu
from vesu import baselines
from vesu.config import NX46Config, NX47Config
from vesu.data.phantom import dress
from vesu.errors import ArgumentError

NAMES = ("nx46", "nx47")
DTYPES = (np.uint8, np.uint16, np.float32)


def ct(shape: tuple[int, ...], seed: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Noise with a sheet or two: values that repeat (uint8) or hardly do (float32)."""
    rng = np.random.default_rng(seed)
    y = np.arange(shape[1])[None, :, None]
    sheet = 1.0 / (1.0 + ((y - shape[1] * rng.random()) / 2.0) ** 2)
    v = sheet + 0.3 * rng.standard_normal(shape)
    v = (v - v.min()) / max(float(np.ptp(v)), 1e-9)
    return (v * 4 - 2).astype(dtype) if dtype == np.float32 else (v * np.iinfo(dtype).max).astype(dtype)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 23), st.integers(1, 37))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 99), st.sampled_from(DTYPES), st.floats(0, 1), st.integers(0, 50))
def test_nx46_is_the_reference(shape: Any, seed: int, dtype: Any, weight: float, radius: int) -> None:  # R32
    volume, config = ct(shape, seed, dtype), NX46Config(score_blend_3d_weight=weight, z_smoothing_radius=radius)
    found = baselines.nx46_score(volume, config)
    assert found.dtype == np.float32 and found.shape == shape
    np.testing.assert_allclose(found, reference.nx46_score(volume, config), atol=1e-6)
    assert found.min() >= 0


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 99), st.sampled_from(DTYPES), st.floats(0.3, 3), st.floats(50, 99), st.floats(0, 30))
def test_nx47_is_the_reference(shape: Any, seed: int, dtype: Any, sigma: float, base: float, gap: float) -> None:  # R32
    volume = ct(shape, seed, dtype)
    config = NX47Config(sigma_base=sigma, percentile_base=base, percentile_max=99.0, percentile_floor=40.0,
                        percentile_gap=gap)  # fmt: skip
    found, expected = baselines.nx47_score(volume, config), reference.nx47_score(volume, config)
    assert found.dtype == np.float32 and found.shape == shape and found.min() >= 0 and found.max() <= 1
    for z, m in enumerate(reference.nx47_projection(volume, config)):
        low, high = reference.nx47_cuts(m, config)
        # A voxel that lies on a cut may fall to either side of it; w is steep where the cuts are close together.
        near = (np.abs(m - low) < 1e-5) | (np.abs(m - high) < 1e-5)
        steep = 1e-5 / (high - low + 1e-6)
        np.testing.assert_allclose(found[z][~near], expected[z][~near], atol=steep + 1e-5)


def test_nx47_of_a_larger_slice_leaves_next_to_nothing_on_a_cut() -> None:  # R32
    volume, config = ct((5, 150, 170), 3, np.float32), NX47Config()
    found, expected = baselines.nx47_mask(volume, config), reference.nx47_score(volume, config) >= 0.5
    assert np.count_nonzero(found != expected) < 1e-4 * volume.size
    assert 0.08 < expected.mean() < 0.2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_show(name: Any, dtype: Any) -> None:  # R32
    volume = ct((37, 21, 90), 5, dtype)
    one = baselines.score(volume, name, n_threads=1)
    assert np.unique(one).size > 100
    for n_threads in (2, 3, 8):
        np.testing.assert_array_equal(
            one.view(np.uint32), baselines.score(volume, name, n_threads=n_threads).view(np.uint32)
        )


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_does_not_show(name: Any) -> None:
    volume = ct((9, 10, 11), 2)
    expected = baselines.score(volume, name)
    big = np.zeros((18, 10, 22), np.uint8)
    big[::2, :, ::2] = volume
    frozen = volume.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(volume), big[::2, :, ::2], frozen, volume[::-1][::-1]):
        np.testing.assert_array_equal(baselines.score(same, name), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_units_of_the_ct_do_not_matter(name: Any) -> None:
    volume = ct((8, 20, 20), 4)
    shifted = volume.astype(np.float32) * 4 - 100
    np.testing.assert_allclose(baselines.score(shifted, name), baselines.score(volume, name), atol=2e-5)


def test_the_density_is_that_of_the_quantile() -> None:  # R30 R32
    volume = ct((40, 60, 60), 1)
    for quantile in (0.9, 0.985):
        found = baselines.segment(volume, "nx46", NX46Config(threshold_quantile=quantile))
        assert 0.97 * (1 - quantile) < found.mask.mean() <= 1 - quantile
        assert found.diagnostics.ink_ratio_global == pytest.approx(found.mask.mean())


def test_the_mask_is_3d_and_differs_between_slices() -> None:  # R04 R32
    volume = dress((np.arange(24)[:, None, None] // 8 == np.arange(32)[None, :, None] // 8).astype(np.uint8)
                   * np.ones((24, 32, 32), np.uint8), 7)  # fmt: skip
    for name in NAMES:
        mask = baselines.segment(volume, name).mask
        assert mask.shape == volume.shape and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert any((mask[z] != mask[0]).any() for z in range(1, 24))


def test_a_step_runs_and_no_other() -> None:
    found = baselines.segment(ct((8, 16, 16), 1), "nx47")
    changed = [
        step.name for step in found.steps if step.name != "threshold" and step.voxels_after != step.voxels_before
    ]
    assert changed == []
    np.testing.assert_array_equal(found.mask, baselines.nx47_mask(ct((8, 16, 16), 1)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 1, 9), (9, 9, 1), (4, 5, 6)])
@pytest.mark.parametrize("value", [0, 255])
def test_no_contrast_no_surface(name: Any, shape: tuple[int, ...], value: int) -> None:  # R32
    found = baselines.segment(np.full(shape, value, np.uint8), name)
    assert found.mask.shape == shape and not found.mask.any()
    assert found.diagnostics.density_warning


@pytest.mark.parametrize("name", NAMES)
def test_one_slice_is_enough(name: Any) -> None:
    volume = ct((1, 40, 40), 8)
    assert 0 < baselines.segment(volume, name).mask.mean() < 0.3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.zeros((3, 3, 3)), "volume: got dtype float64"),
        (np.zeros((3, 3, 3), bool), "volume: got dtype bool"),
        (np.zeros((3, 3), np.uint8), "volume: got shape"),
        (np.zeros((3, 0, 3), np.uint8), "volume: got shape"),
        ([[[1]]], "volume: got list"),
        (np.full((2, 2, 2), np.nan, np.float32), "8 non-finite values"),
        (np.array([[[0, 1, np.inf]]], np.float32), "1 non-finite values, the first at (z, y, x) = (0, 0, 2)"),
        (np.broadcast_to(np.uint8(1), (2048, 2048, 1024)), "4294967295"),
    ],
)
def test_what_is_no_volume_is_refused(name: Any, volume: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        baselines.segment(volume, name)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["nx48", "vesu", "", None, 46, ["nx46"]])
def test_a_wrong_name_is_refused_with_the_accepted_ones(name: Any) -> None:  # R32
    with pytest.raises(ArgumentError, match="accepted: 'nx46' or 'nx47'"):
        baselines.segment(np.zeros((2, 2, 2), np.uint8), name)


def test_parameters_of_the_other_scorer_are_refused() -> None:
    volume = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ArgumentError, match="got NX47Config for nx46; accepted: NX46Config"):
        baselines.segment(volume, "nx46", NX47Config())
    with pytest.raises(ArgumentError, match="got dict for nx47"):
        baselines.nx47_mask(volume, {"sigma_base": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pipeline=nx48", "pipeline: got 'nx48'; accepted: 'vesu' or 'nx46' or 'nx47'"),
        ("nx46.threshold_quantile=1.5", "nx46.threshold_quantile: got 1.5"),
        ("nx46.threshold_quantile=nan", "nx46.threshold_quantile"),
        ("nx46.score_blend_3d_weight=-0.1", "nx46.score_blend_3d_weight"),
        ("nx46.z_smoothing_radius=-1", "nx46.z_smoothing_radius"),
        ("nx46.z_smoothing_radius=1.5", "nx46.z_smoothing_radius: got 1.5; accepted: int"),
        ("nx47.sigma_base=0", "nx47.sigma_base"),
        ("nx47.percentile_base=97", "floor <= base <= max"),
        ("nx47.blend_threshold=0", "nx47.blend_threshold"),
        ("nx46.radius=1", "configuration key: got nx46.radius"),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:  # R32
    with pytest.raises(ArgumentError) as caught:
        vesu.load_config(overrides=[override], environment={})
    assert message in str(caught.value)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:  # R32
    for name, value in {
        "VESU_PIPELINE": "nx46",
        "VESU_NX46_THRESHOLD_QUANTILE": "0.97",
        "VESU_NX46_SCORE_BLEND_3D_WEIGHT": "0.5",
        "VESU_NX46_Z_SMOOTHING_RADIUS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    config = vesu.load_config()
    assert (config.pipeline, config.nx46) == ("nx46", NX46Config(0.97, 0.5, 3))
    monkeypatch.setenv("VESU_PIPELINE", "nx45")
    with pytest.raises(ArgumentError, match="'vesu' or 'nx46' or 'nx47'"):
        vesu.load_config()


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_range_of_float32_is_no_trouble(name: Any) -> None:
    volume = ct((6, 12, 12), 6, np.float32)
    limit = float(np.finfo(np.float32).max)
    volume.flat[0], volume.flat[-1] = -limit, limit
    for each in (volume, np.float32(1e-45) * (volume > 0).astype(np.float32)):
        found = baselines.score(each, name)
        assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_is_answered_within_half_a_second(name: Any) -> None:
    volume = np.tile(ct((64, 64, 64), 1), (6, 6, 6))
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.15, press).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            baselines.score(volume, name)
    assert time.monotonic() - pressed[0] < 0.5


MEMORY = r"""
import re, sys
from pathlib import Path
import numpy as np
from vesu import baselines

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

volume = np.arange(320 * 256 * 256, dtype=np.uint32).astype(np.uint8).reshape(320, 256, 256)
score = {"nx46": baselines.nx46_score, "nx47": baselines.nx47_score}[sys.argv[1]]
score(volume[:8, :8], n_threads=2)
np.ones(volume.shape, np.float32)  # raises the peak to where an output alone would
before = peak()
score(volume, n_threads=2)
print((peak() - before) / (4 * volume.size))
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_the_output_and_some_rows_or_slices(name: str) -> None:  # R32 R53
    command = [sys.executable, "-c", MEMORY, name]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(answer.stdout) < 0.15


@pytest.mark.real_data
def test_the_density_on_real_ct_is_the_historys(real_data: Path) -> None:  # R30 R32
    volume = vesu.read_volume(real_data / "ct" / "scroll1_256.tif")
    assert 0.0145 < baselines.segment(volume, "nx46").mask.mean() <= 0.015
    assert 0.11 < baselines.segment(volume, "nx47").mask.mean() < 0.14  # the history's V61.3 had 0.1226
