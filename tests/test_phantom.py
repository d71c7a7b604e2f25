"""The generated scrolls, the forward model and the generated data set."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals
from sklearn.metrics import roc_auc_score

from vesu.data.phantom import DressParams, ScrollParams, dataset, dress, generate_scroll, write_dataset
from vesu.data.phantom._fields import SmoothField, gaussian_blur, periodic_texture, stream
from vesu.data.phantom._layers import distance_to, find_layers
from vesu.data.phantom.scroll import trace_wraps
from vesu.data.volumes import inspect_volume, read_volume
from vesu.errors import ArgumentError, DataError, FileError, MemoryLimitError, VesuError

SHAPE = (96, 96, 96)
SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    labels = [generate_scroll(SHAPE, seed=seed) for seed in SEEDS]
    return [(dress(label, seed), label) for label, seed in zip(labels, SEEDS, strict=True)]


# --- fields and distances, against SciPy


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 24)] * 3), st.floats(0.001, 0.3))
def test_the_distance_is_the_euclidean_one(seed: int, shape: tuple[int, int, int], share: float) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    mask.flat[0] = True
    np.testing.assert_allclose(distance_to(mask), ndimage.distance_transform_edt(~mask), rtol=1e-6)


def test_the_distance_is_cut_far_away_without_overflow() -> None:
    mask = np.zeros((3, 3, 500), bool)
    mask[0, 0, 0] = True
    expected = np.minimum(ndimage.distance_transform_edt(~mask), 200)
    np.testing.assert_allclose(distance_to(mask), expected, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.2, 3.0])
def test_the_blur_is_scipys(sigma: float) -> None:
    volume = np.random.default_rng(0).standard_normal((20, 33, 17)).astype(np.float32)
    expected = ndimage.gaussian_filter(volume.astype(np.float64), sigma, mode="nearest", radius=int(3 * sigma + 0.5))
    np.testing.assert_allclose(gaussian_blur(volume, sigma), expected, atol=1e-5)


def test_smooth_fields_have_unit_variance_and_do_not_depend_on_slabs() -> None:
    field = SmoothField((64, 64, 64), 6.0, stream(1, "a"))
    whole = field.slab(0, 64)
    assert 0.8 < whole.std() < 1.2
    np.testing.assert_array_equal(np.concatenate([field.slab(0, 7), field.slab(7, 64)]), whole)
    assert np.abs(np.diff(whole, axis=0)).max() < 1.0


def test_textures_are_periodic_and_run_along_their_fibres() -> None:
    texture = periodic_texture((32, 48, 48), (1.0, 10.0, 1.0), stream(0, "t"))
    assert abs(texture.mean()) < 1e-5 and texture.std() == pytest.approx(1, abs=1e-5)
    steps = [np.abs(texture - np.roll(texture, 3, axis)).mean() for axis in range(3)]
    assert steps[1] < 0.4 * steps[0] and steps[1] < 0.4 * steps[2]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_depth_is_signed_across_a_plane_sheet(axis: int) -> None:
    surface = np.zeros((40, 40, 40), bool)
    np.moveaxis(surface, axis, 0)[19:22] = True
    layers = find_layers(surface)
    profile = np.moveaxis(layers.depth, axis, 0)[:, 20, 20]
    assert (np.sign(profile[25:]) == 1).all() and (np.sign(profile[:15]) == -1).all()
    assert abs(profile[20]) < 0.3
    np.testing.assert_allclose(np.diff(profile)[:12], 1, atol=0.05)
    assert abs(layers.frame.normal[axis]) > 0.99


def test_depth_grows_away_from_a_scrolls_axis() -> None:
    z, y, x = np.ogrid[:32, :96, :96]
    radius = np.hypot(y - 50.0, x - 45.0) + 0 * z
    layers = find_layers(np.abs(radius % 24 - 12) < 1.5)
    assert layers.frame.centre is not None
    np.testing.assert_allclose(layers.frame.centre[1:], [50, 45], atol=3)
    off = radius - 36
    shell = (np.abs(off) > 2) & (np.abs(off) < 8)
    assert (np.sign(layers.depth[shell]) == np.sign(off[shell])).mean() > 0.99


# --- the generated label


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_look_like_the_competitions(seed: int) -> None:  # R01
    label = generate_scroll(SHAPE, seed=seed)
    assert label.dtype == np.uint8 and label.flags.c_contiguous and label.shape == SHAPE
    inner = label[3:-3, 3:-3, 3:-3]
    assert set(np.unique(inner)) == {0, 1}
    frame = np.ones(SHAPE, bool)
    frame[3:-3, 3:-3, 3:-3] = False
    assert (label[frame] == 2).all()
    assert 0.02 < inner.mean() < 0.12  # two or three wraps in so small a volume


def test_density_and_thickness_match_the_real_labels() -> None:
    labels = [generate_scroll((160, 160, 160), seed=seed)[3:-3, 3:-3, 3:-3] == 1 for seed in range(4)]
    assert 0.045 < np.mean([label.mean() for label in labels]) < 0.075  # real ones: 0.050 and 0.062 inside the frame
    for label in labels:
        # Volume over area: each face of the sheet is half of the gradient's total.
        gradient = ndimage.gaussian_gradient_magnitude(label.astype(np.float64), 1.0)
        assert 2.0 < 2 * label.sum() / gradient.sum() < 4.5


def test_wraps_touch_and_sheets_are_torn() -> None:
    touching, torn, surface = 0, 0, 0
    for seed in range(4):
        wraps = trace_wraps((128, 128, 128), seed=seed)
        on = wraps.label == 1
        for axis in range(3):
            a, b = (np.moveaxis(array, axis, 0) for array in (on, wraps.wrap))
            touching += int((a[1:] & a[:-1] & (b[1:] != b[:-1])).sum())
        torn += int(wraps.torn.sum())
        surface += int(on.sum())
    assert touching > 100
    assert 0.01 < torn / (torn + surface) < 0.12


def test_neighbouring_wraps_occur_and_no_tear_means_none() -> None:
    wraps = trace_wraps((128, 128, 128), seed=5, params=ScrollParams(torn=0.0))
    assert not wraps.torn.any()
    assert len(np.unique(wraps.wrap[wraps.label == 1])) >= 2


def test_a_scroll_may_be_seen_whole() -> None:
    wraps = trace_wraps((48, 160, 160), seed=2, params=ScrollParams(axis_distance=0.0, pitch=20, wobble=2, torn=0.0))
    pieces, _ = ndimage.label(wraps.label, np.ones((3, 3, 3)))
    assert len(np.unique(wraps.wrap[wraps.label == 1])) >= 4
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() > 0.75 * sizes.sum()  # one spiral; the box cuts off corners


# --- the forward model


def test_the_same_seed_gives_the_same_voxels_and_another_does_not() -> None:
    labels = [generate_scroll((64, 48, 80), seed=seed) for seed in (4, 4, 5)]
    assert (labels[0] == labels[1]).all() and (labels[0] != labels[2]).any()
    first, again, other = (dress(labels[0], seed) for seed in (1, 1, 2))
    assert first.dtype == np.uint8 and first.shape == (64, 48, 80)
    assert (first == again).all()
    assert np.abs(first.astype(int) - other).mean() > 5


def test_grey_values_are_like_the_real_scans(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    grey = np.concatenate([volume.ravel() for volume, _ in pairs])
    percentiles = np.percentile(grey, [1, 25, 50, 75, 99])
    np.testing.assert_array_less(np.abs(percentiles - [30, 88, 111, 127, 162]), [14, 12, 8, 8, 14])
    assert (grey < 60).mean() < 0.2  # air is thin
    assert (grey > 200).mean() < 0.01


def test_the_spectrum_falls_like_the_real_one(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    slopes = []
    for volume, _ in pairs:
        cube = volume - volume.mean()
        for axis in range(3):
            cube = cube * np.hanning(96).reshape([-1 if a == axis else 1 for a in range(3)])
        power = np.abs(np.fft.fftn(cube)) ** 2
        f = np.fft.fftfreq(96)
        radius = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + f**2)
        shell = np.clip((radius * 48).astype(int), 0, 24).ravel()
        mean = np.bincount(shell, power.ravel()) / np.bincount(shell)
        k = np.arange(1, 20)
        slopes.append(np.polyfit(np.log(k + 0.5), np.log(mean[k]), 1)[0])
    assert -4.6 < np.mean(slopes) < -3.0  # the real chunk at the competition's voxel size: -4.0


def test_structure_tells_more_than_brightness(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    intensity, ridge, smooth = [], [], []
    for volume, label in pairs:
        grey = volume.astype(np.float32)
        hessian = hessian_matrix(grey, sigma=2.0, order="rc", use_gaussian_derivatives=False)
        sheetness = -hessian_matrix_eigvals(hessian)[2]
        keep = np.zeros(SHAPE, bool)
        keep[6:-6, 6:-6, 6:-6] = True
        truth = label[keep] == 1
        intensity.append(roc_auc_score(truth, grey[keep]))
        ridge.append(roc_auc_score(truth, sheetness[keep]))
        smooth.append(roc_auc_score(truth, ndimage.gaussian_filter(grey, 4.0)[keep]))
    assert np.mean(intensity) < 0.75
    assert np.mean(smooth) < 0.65
    assert np.mean(ridge) > np.mean(intensity) + 0.02
    assert 0.65 < np.mean(ridge) < 0.95


def test_the_background_is_papyrus_too(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for volume, label in pairs:
        far = ndimage.distance_transform_edt(label != 1) > 8
        assert np.median(volume[far]) > 95
        assert volume[far].std() > 15


def test_scale_makes_coarser_structure() -> None:
    label = generate_scroll(SHAPE, seed=0)
    fine, coarse = (dress(label, 0, params=DressParams(scale=s, noise_sigma=0)).astype(float) for s in (1.0, 2.5))
    assert np.abs(np.diff(coarse, axis=0)).mean() < 0.6 * np.abs(np.diff(fine, axis=0)).mean()


@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_label_of_one_class_is_dressed(value: int) -> None:
    volume = dress(np.full((24, 20, 28), value, np.uint8), 0)
    assert volume.shape == (24, 20, 28) and volume.std() > 5


def test_odd_arrays_are_taken(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    label = pairs[0][1][::2, ::2, ::3]  # not contiguous
    frozen = label.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(dress(label, 3), dress(frozen.astype(np.int64), 3))


def test_every_effect_can_be_switched_off() -> None:
    bare = DressParams(
        gap_open=0.0,
        fibre_contrast=0,
        lamina_contrast=0,
        grain_contrast=0,
        recto_contrast=0,
        crack_density=0,
        inclusion_density=0,
        psf_sigma=0,
        noise_sigma=0,
        drift=0,
        exposure_jitter=0,
        gap_width=0,
    )
    volume = dress(generate_scroll((32, 32, 32), seed=0), 0, params=bare)
    assert volume.std() < 12 and abs(np.median(volume) - bare.papyrus) < 5


@pytest.mark.parametrize(
    ("label", "error"),
    [
        (np.full((16, 16, 16), 7, np.uint8), DataError),
        (np.full((16, 16, 16), -1, np.int8), DataError),
        (np.zeros((16, 16), np.uint8), ArgumentError),
        (np.zeros((0, 16, 16), np.uint8), ArgumentError),
        (np.zeros((4, 16, 16), np.uint8), ArgumentError),
        (np.zeros((16, 16, 16), np.float32), ArgumentError),
        ([[[0]]], ArgumentError),
        (None, ArgumentError),
        (np.broadcast_to(np.uint8(0), (1600, 1600, 1600)), MemoryLimitError),
    ],
)
def test_bad_labels_are_refused(label: object, error: type[VesuError]) -> None:
    with pytest.raises(error, match=r"label|shape"):
        dress(label, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 1e9, "wide", None, True])
@pytest.mark.parametrize("name", ["thickness", "scale", "psf_sigma", "gap_open", "noise_sigma"])
def test_bad_forward_parameters_are_refused(name: str, bad: object) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: got"):
        dress(np.zeros((16, 16, 16), np.uint8), 0, params=DressParams(**{name: bad}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "seed", "params"),
    [
        ((0, 32, 32), 0, {}),
        ((32, 32), 0, {}),
        ((32.0, 32, 32), 0, {}),
        (32, 0, {}),
        ((32, 32, 32), -1, {}),
        ((32, 32, 32), 1.5, {}),
        ((32, 32, 32), 0, {"pitch": -4.0}),
        ((32, 32, 32), 0, {"torn": 0.9}),
        ((32, 32, 32), 0, {"axis_distance": -1.0}),
    ],
)
def test_bad_scrolls_are_refused(shape: object, seed: object, params: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=r"shape|seed|pitch|torn|axis_distance"):
        generate_scroll(shape, seed=seed, params=ScrollParams(**params))  # type: ignore[arg-type]


def test_a_scroll_beyond_memory_is_refused_before_allocating() -> None:
    with pytest.raises(MemoryLimitError, match="bytes"):
        generate_scroll((2048, 2048, 2048), seed=0)


# --- the data set


SMALL = {"n_train": 2, "n_test": 1, "shape": (32, 32, 32), "seed": 3}


def _contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_layout_is_the_competitions(tmp_path: Path) -> None:  # R01
    root = write_dataset(tmp_path / "new" / "set", **SMALL)
    trains, tests = (list(csv.DictReader((root / f"{name}.csv").open())) for name in ("train", "test"))
    assert (len(trains), len(tests)) == (2, 1)
    assert list(trains[0]) == ["id", "scroll_id"]
    for row in trains:
        image, label = (read_volume(root / folder / f"{row['id']}.tif") for folder in ("train_images", "train_labels"))
        assert image.shape == label.shape == (32, 32, 32)
        assert set(np.unique(label)) <= {0, 1, 2}
    test_id = tests[0]["id"]
    info = inspect_volume(root / "test_images" / f"{test_id}.tif")
    assert (info.shape, info.dtype, info.compression) == ((32, 32, 32), "uint8", "lzw")
    assert read_volume(root / "truth" / f"{test_id}.tif").shape == (32, 32, 32)
    assert not list((root / "train_labels").glob(f"{test_id}.tif"))
    assert len({row["id"] for row in trains + tests}) == 3


def test_workers_change_nothing(tmp_path: Path) -> None:
    sets = [_contents(write_dataset(tmp_path / str(n), **SMALL, n_workers=n)) for n in (1, 2, 8)]
    assert sets[0] == sets[1] == sets[2]
    assert _contents(write_dataset(tmp_path / "other", **{**SMALL, "seed": 4})) != sets[0]


def test_a_finished_set_is_kept_and_a_damaged_one_is_mended(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, **SMALL)
    before = _contents(root)
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*.tif")}
    write_dataset(root, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.tif")} == stamps
    next(iter(stamps)).write_bytes(b"broken")
    write_dataset(root, **SMALL)
    assert _contents(root) == before


def test_other_arguments_replace_a_set_of_ours(tmp_path: Path) -> None:
    other = {**SMALL, "n_train": 1, "seed": 9}
    fresh = write_dataset(tmp_path / "fresh", **other)
    root = write_dataset(tmp_path / "again", **SMALL)
    assert _contents(write_dataset(root, **other)) == _contents(fresh)


def test_an_interrupted_set_is_not_taken_for_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def failing(path: Path, volume: np.ndarray, **options: object) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(path, volume, **options)  # type: ignore[arg-type]

    original = dataset.write_volume
    monkeypatch.setattr(dataset, "write_volume", failing)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, **SMALL, n_workers=1)
    assert not (tmp_path / dataset.MANIFEST).exists()
    assert list(tmp_path.rglob("*.tif"))
    leftover = tmp_path / "train_images" / f".{calls[0].name}.0123456789ab.tmp"
    leftover.write_bytes(b"half")  # as a killed process leaves it
    monkeypatch.undo()
    root = write_dataset(tmp_path, **SMALL)
    assert (root / dataset.MANIFEST).exists() and not leftover.exists()
    assert _contents(root) == _contents(write_dataset(tmp_path.with_name("whole"), **SMALL))


@pytest.mark.parametrize("name", ["notes.txt", "train_images/1.tif", "sub/deep.bin", ".hidden", "phantom.json"])
def test_foreign_files_are_never_touched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = _contents(tmp_path)
    if name == "phantom.json":
        (tmp_path / "other.txt").write_text("mine too")
        before = _contents(tmp_path)
    with pytest.raises(DataError, match="not written by this generator"):
        write_dataset(tmp_path, **SMALL)
    assert _contents(tmp_path) == before


def test_a_file_added_to_a_set_of_ours_stops_its_replacement(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, **SMALL)
    (root / "train_labels" / "mine.tif").write_bytes(b"mine")
    before = _contents(root)
    with pytest.raises(DataError, match=r"mine\.tif"):
        write_dataset(root, **{**SMALL, "seed": 8})
    assert _contents(root) == before


def test_bad_roots_are_refused(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("x")
    with pytest.raises(VesuError):
        write_dataset(occupied, **SMALL)
    with pytest.raises(FileError):
        write_dataset(occupied / "below", **SMALL)
    with pytest.raises(ArgumentError, match="root"):
        write_dataset(None, **SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"n_train": -1},
        {"n_train": 0, "n_test": 0},
        {"shape": (8, 32, 32)},
        {"seed": -1},
        {"n_workers": 0},
        {"n_test": 1.5},
    ],
)
def test_bad_arguments_leave_no_folder(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="got"):
        write_dataset(tmp_path / "set", **{**SMALL, **change})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, **SMALL)
    manifest = json.loads((root / dataset.MANIFEST).read_text())
    assert set(manifest["files"]) == set(_contents(root)) - {dataset.MANIFEST}
    assert manifest["arguments"]["params"] == json.loads(json.dumps(DressParams().__dict__))


# --- real data


def _real(name: str) -> Path:
    folders = [os.environ.get("VESU_DATA"), Path(__file__).parents[1] / "../shared/data"]
    for folder in folders:
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    pytest.skip(f"{name} is not here: set VESU_DATA to the research data's folder")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["labels/2656396745.tif", "labels/3281388561.tif"])
def test_a_real_label_is_dressed(name: str) -> None:
    label = read_volume(_real(name))[100:196, 100:196, :96]
    volume = dress(label, 0)
    assert abs(np.median(volume) - 111) < 12
    assert roc_auc_score((label[4:-4, 4:-4, 4:-4] == 1).ravel(), volume[4:-4, 4:-4, 4:-4].ravel()) < 0.82
