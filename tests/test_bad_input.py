"""Data sets and files that cannot be used: one line that names them, exit code 2, nothing left half-written."""

import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vesu
from vesu.cli import main

SMALL = ["--quiet", "--set", "sampling.voxels_per_volume=500"]


def entry(tag: int, kind: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, 1, value)


def tiff(width: int, height: int, payload: bytes, compression: int = 1, next_ifd: int = 0) -> bytes:
    """One little-endian page: header, payload, directory."""
    entries = [
        entry(256, 4, width),
        entry(257, 4, height),
        entry(258, 3, 8),
        entry(259, 3, compression),
        entry(262, 3, 1),
        entry(273, 4, 8),
        entry(277, 3, 1),
        entry(278, 4, height),
        entry(279, 4, len(payload)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", next_ifd)
    return b"II*\0" + struct.pack("<I", 8 + len(payload)) + payload + directory


HUGE_HEADER = tiff(60_000, 60_000, bytes(16))
LOOPING = tiff(4, 4, bytes(16), next_ifd=8 + 16)
BOMB = tiff(64, 64, zlib.compress(bytes(64 << 20), 9), compression=8)


def replace_label(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    victim = sorted((root / "train_labels").glob("*.tif"))[0]
    vesu.write_volume(victim, change(vesu.read_volume(victim)))
    return victim


def put(root: Path, folder: str, content: bytes) -> Path:
    victim = sorted((root / folder).glob("*.tif"))[0]
    victim.write_bytes(content)
    return victim


def with_value_7(label: np.ndarray) -> np.ndarray:
    label[20, 20, 20] = 7
    return label


def remove(root: Path, folder: str, other: str) -> Path:
    victim = sorted((root / folder).glob("*.tif"))[0]
    victim.unlink()
    return root / other / victim.name


def rename(root: Path, name: str) -> Path:
    victim = sorted((root / "test_images").glob("*.tif"))[0]
    return victim.rename(victim.with_name(name))


def constant(root: Path) -> Path:
    victim = sorted((root / "test_images").glob("*.tif"))[0]
    vesu.write_volume(victim, np.full((48, 48, 48), 9, np.uint8))
    return victim


def all_unlabelled(root: Path) -> Path:
    for path in (root / "train_labels").glob("*.tif"):
        vesu.write_volume(path, np.full((48, 48, 48), 2, np.uint8))
    return root / "train_labels"


FAULTS: dict[str, Callable[[Path], Path]] = {
    "orphan image": lambda root: remove(root, "train_labels", "train_images"),
    "orphan label": lambda root: remove(root, "train_images", "train_labels"),
    "shapes that differ": lambda root: replace_label(root, lambda label: label[:-1]),
    "label value 7": lambda root: replace_label(root, with_value_7),
    "all-2 labels": all_unlabelled,
    "constant volume": constant,
    "60000 x 60000 over 16 bytes": lambda root: put(root, "test_images", HUGE_HEADER),
    "looping directory chain": lambda root: put(root, "test_images", LOOPING),
    "zlib bomb": lambda root: put(root, "test_images", BOMB),
    "an id no zip can hold": lambda root: rename(root, "-x.tif"),
    "truncated label": lambda root: put(root, "train_labels", b"II*\0\x08"),
}


CODES = {
    "orphan image": "ORPHAN_IMAGE",
    "orphan label": "ORPHAN_LABEL",
    "shapes that differ": "SHAPE_MISMATCH",
    "label value 7": "BAD_LABEL_VALUE",
    "all-2 labels": "LABEL_ALL_IGNORED",
    "constant volume": "CONSTANT_VOLUME",
    "an id no zip can hold": "BAD_ID",
}


@pytest.fixture
def copy_of(dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "set", ignore=shutil.ignore_patterns("truth"))
    return tmp_path / "set"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_data_stops_the_run_and_is_named(
    fault: str, copy_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R02
    victim = FAULTS[fault](copy_of)
    checked = main(["preflight", str(copy_of)])
    shown = capsys.readouterr()
    assert victim.name in shown.out + shown.err
    assert CODES.get(fault, "UNREADABLE") in shown.out
    assert checked == 2
    assert main(["run", str(copy_of), "--out", str(tmp_path / "run"), *SMALL]) == 2
    message = capsys.readouterr().err
    assert victim.name in message and "Traceback" not in message
    assert not (tmp_path / "run" / "submission.zip").exists()
    assert not list(tmp_path.rglob("*.tmp*"))


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R01
    assert main(["run", str(tmp_path), "--out", str(tmp_path / "run"), *SMALL]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_label_that_is_all_unlabelled_beside_good_ones_is_named(copy_of: Path) -> None:
    victim = replace_label(copy_of, lambda label: np.full_like(label, 2))
    with pytest.raises(vesu.VesuError, match=victim.stem):
        vesu.run(copy_of, copy_of.parent / "run", display="none", config=vesu.load_config(environment={}))


def test_training_volumes_without_any_surface_are_named(
    copy_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in sorted((copy_of / "train_labels").glob("*.tif")):
        vesu.write_volume(label, np.zeros_like(vesu.read_volume(label)))
    assert main(["run", str(copy_of), "--out", str(tmp_path / "run"), *SMALL]) == 2
    message = capsys.readouterr().err
    names = [label.stem for label in (copy_of / "train_labels").glob("*.tif")]
    assert "no surface in their labels" in message and any(name in message for name in names), message


@pytest.mark.parametrize("limit_kib", [1, 40, 400])
def test_a_full_disk_is_named_and_leaves_no_half_file(dataset: Path, tmp_path: Path, limit_kib: int) -> None:
    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kib << 10, limit_kib << 10))

    out = tmp_path / "run"
    command = [sys.executable, "-m", "vesu", "run", str(dataset), "--out", str(out), *SMALL]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=no_large_files)
    assert answer.returncode == 2, answer.stderr
    assert "File too large" in answer.stderr and str(out) in answer.stderr and "Traceback" not in answer.stderr
    # With room for it, the zip in reserve is there, and whole.
    assert (out / "submission.zip").exists() == (limit_kib > 1)
    if limit_kib > 1:
        vesu.check_submission(out / "submission.zip", dataset / "test_images")
    assert not [path for path in out.rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize("order", ["F", "strided", "readonly"])
def test_awkward_arrays_give_the_same_answer(order: str) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (9, 10, 11), np.uint8)
    expected = vesu.extract_features(volume).values
    if order == "F":
        awkward = np.asfortranarray(volume)
    elif order == "strided":
        awkward = np.repeat(volume, 2, axis=2)[:, :, ::2]
    else:
        awkward = volume.copy()
        awkward.flags.writeable = False
    np.testing.assert_array_equal(vesu.extract_features(awkward).values, expected)


def test_nan_in_features_is_named() -> None:
    x = np.ones((40, 3), np.float32)
    x[7, 1] = np.nan
    y = np.arange(40) % 2
    with pytest.raises(vesu.VesuError, match=r"(?i)nan|finite"):
        vesu.ElasticNetLogisticGrid().fit(x, y)
