"""Preflight: typed findings before any long work."""

import errno
import json
import os
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reference_data import label, rows, volume, write, write_layout
from vesu.data import machine
from vesu.data.content import ContentCheck
from vesu.data.discover import discover
from vesu.data.findings import PreflightReport
from vesu.data.preflight import preflight
from vesu.errors import ArgumentError, PreflightError

SMALL = {"work_bytes": 1, "cache_bytes": 1, "memory_bytes": 1}


def check(root: Path, **options: Any) -> PreflightReport:
    """All volumes decoded, and no doubt about the machine."""
    return preflight(discover(root), **({"work_dir": root, "fraction": 1.0} | SMALL | options))


def found(report: PreflightReport) -> list[tuple[str, str, str | None]]:
    return [(each.code, each.severity, each.path and each.path.name) for each in report.findings]


# R02
def test_a_sound_data_set_has_no_finding(tmp_path: Path) -> None:
    report = check(write_layout(tmp_path))
    assert report.findings == ()
    assert (report.checked_pairs, report.checked_tests) == (3, 1)
    report.raise_if_blocked()
    measured = {each.path: each for each in report.volumes}
    image, truth = volume(0), label(0)
    first = measured[tmp_path / "train_images" / "0001.tif"]
    assert (first.minimum, first.maximum, first.label_counts) == (image.min(), image.max(), None)
    first = measured[tmp_path / "train_labels" / "0001.tif"]
    assert first.label_counts == {str(v): n for v, n in Counter(truth.ravel().tolist()).items()}


# R02: 5 %, at least one of each, the same choice on every machine
@pytest.mark.parametrize(("n_pairs", "n_tests", "wanted"), [(1, 1, (1, 1)), (20, 3, (1, 1)), (21, 0, (2, 0))])
def test_five_percent_at_least_one(tmp_path: Path, n_pairs: int, n_tests: int, wanted: tuple[int, int]) -> None:
    root = write_layout(tmp_path, train=[f"{n:03}" for n in range(n_pairs)], tests=[f"t{n}" for n in range(n_tests)])
    inventory = discover(root)
    first, again, other = (preflight(inventory, work_dir=root, seed=seed, **SMALL) for seed in (0, 0, 4))
    assert (first.checked_pairs, first.checked_tests) == wanted
    chosen = [[each.path for each in report.volumes] for report in (first, again, other)]
    assert chosen[0] == chosen[1]
    assert n_pairs == 1 or chosen[0] != chosen[2]


def test_a_share_that_floats_a_little_over_a_whole_number() -> None:
    from vesu.data.preflight import _choose

    volumes = {str(n): n for n in range(100)}
    assert 0.07 * 100 > 7
    assert len(_choose(volumes, 0.07, "0")) == 7
    assert len(_choose(volumes, 1.0, "0")) == 100
    assert _choose({}, 0.05, "0") == []


# R02: every blocking and warning finding about the data


def image(root: Path, array: np.ndarray) -> None:
    write(root / "train_images" / "0002.tif", array)


def truth(root: Path, array: np.ndarray) -> None:
    write(root / "train_labels" / "0002.tif", array)


SEVEN = label(1)
SEVEN.flat[10:13] = 7
SEVEN.flat[20] = 255
NAN = volume(1).astype(np.float32)
NAN.flat[5:8] = (np.nan, np.inf, -np.inf)
DULL = (volume(1) % 4 + 100).astype(np.uint8)
MOSTLY_ZERO = np.where(np.arange(336).reshape(6, 7, 8) < 250, 0, volume(1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("spoil", "wanted", "message"),
    [
        (lambda r: (r / "train_labels/0002.tif").unlink(), ("ORPHAN_IMAGE", "blocking"), "without a label"),
        (lambda r: (r / "train_images/0002.tif").unlink(), ("ORPHAN_LABEL", "blocking"), "without a train image"),
        (
            lambda r: truth(r, label(1, (6, 7, 9))),
            ("SHAPE_MISMATCH", "blocking"),
            "image is (6, 7, 8), label is (6, 7,",
        ),
        (lambda r: (image(r, volume(1)[0]), truth(r, label(1)[0])), ("NOT_3D", "blocking"), "got shape (1, 7, 8)"),
        (lambda r: truth(r, SEVEN), ("BAD_LABEL_VALUE", "blocking"), "got 7 (3 voxels), 255 (1 voxels); accepted"),
        (lambda r: truth(r, np.full_like(SEVEN, 2)), ("LABEL_ALL_IGNORED", "blocking"), "every voxel is 2"),
        (lambda r: truth(r, SEVEN * 0), ("LABEL_NO_SURFACE", "warning"), "no voxel is 1"),
        (lambda r: truth(r, SEVEN * 0 + 1), ("LABEL_NO_BACKGROUND", "warning"), "no voxel is 0"),
        (lambda r: truth(r, label(1).astype(np.int16)), ("DTYPE", "blocking"), "got int16; accepted: uint8"),
        (lambda r: image(r, volume(1).astype(np.int32)), ("DTYPE", "blocking"), "got int32; accepted: uint8, uint16"),
        (lambda r: image(r, volume(1).astype(np.uint16)), ("DTYPE", "warning"), "got uint16; the competition's"),
        (lambda r: image(r, volume(1) * 0 + 9), ("CONSTANT_VOLUME", "blocking"), "every voxel is 9"),
        (
            lambda r: image(r, DULL),
            ("VALUE_RANGE", "warning"),
            "hardly any contrast: percentiles 1 to 99 span 100 to 1",
        ),
        (lambda r: image(r, MOSTLY_ZERO), ("VALUE_RANGE", "warning"), "74.4% of the voxels are 0"),
        (lambda r: image(r, NAN), ("VALUE_RANGE", "blocking"), "3 voxels are NaN or infinite"),
        (lambda r: (r / "train_images/0002.tif").write_bytes(b"II*"), ("UNREADABLE", "blocking"), "0002.tif"),
        (lambda r: (r / "train.csv").write_text(rows(["0001"])), ("CSV_MISMATCH", "warning"), "2 ids not listed: 0002"),
        (lambda r: (r / "train.csv").write_text("x\n"), ("CSV_MISMATCH", "warning"), "one named 'id'"),
    ],
)
def test_each_fault_has_its_finding(tmp_path: Path, spoil: Any, wanted: tuple[str, str], message: str) -> None:
    root = write_layout(tmp_path)
    spoil(root)
    report = check(root)
    matching = [each for each in report.findings if (each.code, each.severity) == wanted and message in str(each)]
    assert matching, report.findings
    assert all(each.path is not None and each.path.exists() for each in matching)
    others = {each.code for each in report.findings} - {wanted[0]}
    assert others <= {"DTYPE", "CSV_MISMATCH"}  # NaN needs float32; a missing image is missed by the table too
    json.dumps(report.to_json(), allow_nan=False)
    if wanted[1] == "blocking":
        with pytest.raises(PreflightError, match=wanted[0]) as caught:
            report.raise_if_blocked()
        assert str(matching[0].path) in str(caught.value)
    else:
        report.raise_if_blocked()


# R02: the header is sound, the pixels are not
def test_damaged_pixels_are_found_by_decoding(tmp_path: Path) -> None:
    root = write_layout(tmp_path, csv={})
    path = write(root / "test_images" / "0100.tif", volume(5), compression="zlib")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x78\x9c")
    data[at + 8 : at + 16] = b"\xff" * 8
    path.write_bytes(data)
    assert found(check(root)) == [("UNREADABLE", "blocking", "0100.tif")]


def test_faults_in_headers_are_found_beyond_the_sample(tmp_path: Path) -> None:
    root = write_layout(tmp_path, train=[f"{n:03}" for n in range(30)], csv={})
    for n in range(30):
        write(root / "train_labels" / f"{n:03}.tif", label(n, (6, 7, 9)))
    report = preflight(discover(root), work_dir=root, **SMALL)
    assert Counter(code for code, _, _ in found(report)) == {"SHAPE_MISMATCH": 30}
    with pytest.raises(PreflightError, match="got 30 blocking findings") as caught:
        report.raise_if_blocked()
    assert "and 10 more" in str(caught.value)


# R02: what a run needs
def test_empty_and_partial_data_sets(tmp_path: Path) -> None:
    (tmp_path / "empty" / "train_images").mkdir(parents=True)
    assert found(check(tmp_path / "empty")) == [("EMPTY_DATASET", "blocking", "empty")]
    tests_only = write_layout(tmp_path / "tests", train=(), csv={})
    assert found(check(tests_only)) == [("NO_TRAIN_PAIRS", "warning", "tests")]
    assert found(check(tests_only, need_train=True)) == [("NO_TRAIN_PAIRS", "blocking", "tests")]
    train_only = write_layout(tmp_path / "train", tests=(), csv={})
    assert found(check(train_only, need_tests=True)) == [("NO_TEST_VOLUMES", "blocking", "train")]


# R02: disk and memory
def test_too_little_room(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    report = check(
        root,
        work_dir=tmp_path / "not" / "yet",
        cache_dir=tmp_path / "cache",
        work_bytes=1 << 60,
        cache_bytes=1 << 60,
        memory_bytes=1 << 60,
    )
    assert found(report) == [
        ("DISK_ROOM", "blocking", "yet"),
        ("DISK_ROOM", "warning", "cache"),
        ("MEMORY_ROOM", "blocking", None),
    ]
    assert "1073741824.00 GiB are needed" in report.findings[0].message
    assert not (tmp_path / "not").exists()


def test_the_default_needs_grow_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_layout(tmp_path)
    voxels = 6 * 7 * 8
    for free, blocked in ((2 * voxels + (256 << 20), False), (2 * voxels + (256 << 20) - 1, True)):
        monkeypatch.setattr("vesu.data.preflight.free_disk_bytes", lambda _, free=free: free)
        assert bool(check(root, work_bytes=None).blocking) is blocked
    for available, blocked in ((160 * voxels, False), (160 * voxels - 1, True)):
        monkeypatch.setattr("vesu.data.preflight.available_memory_bytes", lambda available=available: available)
        assert bool(check(root, memory_bytes=None).blocking) is blocked
    monkeypatch.setattr("vesu.data.preflight.available_memory_bytes", lambda: None)
    assert found(check(root)) == [("MEMORY_ROOM", "info", None)]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_layout(tmp_path / "data")
    (tmp_path / "file").write_text("")
    report = check(root, work_dir=tmp_path / "file" / "run", cache_dir=tmp_path / "file")
    assert found(report) == [("UNWRITABLE", "blocking", "run"), ("UNWRITABLE", "warning", "file")]

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", full)
    assert "No space left" in check(root).findings[0].message


def test_memory_of_the_system_and_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.available_memory_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    2000 kB\n")
    assert machine.available_memory_bytes() == 2000 * 1024
    old = tmp_path / "memory"
    old.mkdir()
    for name, text in (("limit_in_bytes", "1000000\n"), ("usage_in_bytes", "300000\n")):
        (old / f"memory.{name}").write_text(text)
    (old / "memory.stat").write_text("cache 1\ntotal_inactive_file 100000\n")
    assert machine.available_memory_bytes() == 800_000
    for name, text in (("max", "500000\n"), ("current", "450000\n"), ("stat", "inactive_file 7\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert machine.available_memory_bytes() == 50_007
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory_bytes() == 2000 * 1024 or machine.available_memory_bytes() == 800_000


# R02: a GPU is used only when it computes
class FakeTorch(types.ModuleType):
    """Stands for torch: enough of it for one look at a GPU."""

    __version__ = "9.9"
    float32 = "float32"

    def __init__(self, *, available: bool = True, arch: str = "sm_90", total: float | Exception = 64.0**3) -> None:
        super().__init__("torch")
        self.total = total
        self.cuda = types.SimpleNamespace(
            is_available=lambda: available,
            device_count=lambda: 1,
            get_device_name=lambda _: "a card",
            get_device_capability=lambda _: (9, 0),
            get_arch_list=lambda: ["sm_70", arch],
        )

    def ones(self, *_: object, **__: object) -> "FakeTorch":
        return self

    def __matmul__(self, other: "FakeTorch") -> "FakeTorch":
        return self

    def sum(self) -> "FakeTorch":
        return self

    def item(self) -> float:
        if isinstance(self.total, Exception):
            raise self.total
        return self.total


@pytest.mark.parametrize(
    ("torch", "message"),
    [
        (FakeTorch(), None),
        (FakeTorch(arch="compute_80"), None),
        (FakeTorch(arch="sm_90a"), None),
        (FakeTorch(arch="sm_86"), "capability is (9, 0); this torch is built for ['sm_70', 'sm_86']"),
        (FakeTorch(arch="compute_100"), "capability is (9, 0)"),
        (FakeTorch(available=False), "torch 9.9 sees no GPU"),
        (FakeTorch(total=0.0), "sums to 0.0 instead of 262144.0"),
        (FakeTorch(total=RuntimeError("no kernel image")), "no kernel image"),
        (None, "torch cannot be imported"),
    ],
)
def test_a_gpu_must_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: FakeTorch | None, message: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    report = check(write_layout(tmp_path), need_gpu=True)
    if message is None:
        assert report.findings == ()
    else:
        assert found(report) == [("GPU_UNUSABLE", "blocking", None)]
        assert message in report.findings[0].message


def test_torch_is_not_imported_unless_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    assert check(write_layout(tmp_path)).findings == ()


# R02: measured, against NumPy
@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.float32]), (3, 4, 5), elements=st.integers(0, 200)))
def test_measurements_agree_with_numpy(array: np.ndarray) -> None:
    seen = ContentCheck()
    seen._decode = lambda _: array  # type: ignore[method-assign]
    seen.image(Path("x"))
    (measured,) = seen.volumes
    assert (measured.minimum, measured.maximum) == (array.min(), array.max())
    for percent in (1, 50, 99):
        rank = int(percent / 100 * array.size)
        assert measured.percentiles[str(percent)] == np.sort(array, axis=None)[rank]


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_a_bad_fraction_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(ArgumentError, match="fraction: got"):
        check(write_layout(tmp_path), fraction=fraction)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    check(write_layout(tmp_path), on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
