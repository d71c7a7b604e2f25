"""R03, R06: volumes in compressions that vesu's own decoder does not read."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import vesu
from vesu.data import foreign
from vesu.data.foreign.packages import Packages
from vesu.data.volumes import inspect_volume, write_volume
from vesu.errors import FormatError, MemoryLimitError
from vesu.ledger import iter_events


def volume(shape: tuple[int, int, int] = (5, 33, 40), dtype: str = "uint8") -> NDArray[Any]:
    rng = np.random.default_rng(7)
    return (rng.integers(0, 30, shape) + np.arange(shape[2])).astype(dtype)


def write(path: Path, data: NDArray[Any], compression: str, **options: Any) -> Path:
    tifffile.imwrite(path, data, compression=compression, photometric="minisblack", **options)
    return path


@pytest.fixture
def without_imagecodecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is started finds an imagecodecs that cannot be imported, and no wheelhouse has another."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide/imagecodecs.py").write_text("raise ImportError('hidden by a test')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hide"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(foreign, "_PACKAGES", Packages())


@pytest.mark.parametrize(
    ("compression", "options"),
    [
        ("zstd", {"predictor": 2, "rowsperstrip": 7}),
        ("zstd", {"tile": (16, 32), "byteorder": ">"}),
        ("lzma", {"bigtiff": True}),
        ("jpeg2000", {}),
    ],
)
def test_a_lossless_foreign_volume_reads_as_it_was_written(  # R03
    tmp_path: Path, compression: str, options: dict[str, Any]
) -> None:
    data = volume(dtype="uint16")
    path = write(tmp_path / "1.tif", data, compression, **options)
    info = inspect_volume(path)
    assert (info.shape, info.dtype, info.compression) == (data.shape, "uint16", compression)
    assert info.bigtiff == options.get("bigtiff", False) and info.byte_order == options.get("byteorder", "<")
    read = vesu.read_volume(path)
    np.testing.assert_array_equal(read, data)
    assert read.flags.c_contiguous and read.dtype == np.dtype("uint16")


def test_a_jpeg_volume_reads_as_tifffile_reads_it(tmp_path: Path) -> None:  # R03
    path = write(tmp_path / "1.tif", volume(), "jpeg")
    np.testing.assert_array_equal(vesu.read_volume(path), tifffile.imread(path))


def test_what_the_core_reads_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R03
    monkeypatch.setattr(foreign, "_PACKAGES", None)
    for compression in ("none", "lzw", "deflate", "packbits"):
        write_volume(tmp_path / "1.tif", volume(), compression=compression)  # type: ignore[arg-type]
        assert foreign.compression_of(tmp_path / "1.tif") is None
        vesu.read_volume(tmp_path / "1.tif")
    (tmp_path / "1.tif").write_bytes(b"II*\0garbage")
    with pytest.raises(FormatError):
        vesu.read_volume(tmp_path / "1.tif")


def test_without_imagecodecs_tifffile_does_what_it_can(tmp_path: Path, without_imagecodecs: None) -> None:  # R03, R06
    np.testing.assert_array_equal(vesu.read_volume(write(tmp_path / "1.tif", volume(), "lzma")), volume())
    path = write(tmp_path / "2.tif", volume(), "jpeg2000")
    with pytest.raises(FormatError) as caught:
        vesu.read_volume(path)
    said = str(caught.value)
    for part in ("2.tif", "jpeg2000", "requires the 'imagecodecs' package", "hidden by a test"):
        assert part in said


def test_preflight_names_a_compression_without_a_decoder_once(tmp_path: Path, without_imagecodecs: None) -> None:  # R02
    (tmp_path / "test_images").mkdir()
    for name in ("1", "2"):
        write(tmp_path / f"test_images/{name}.tif", volume(), "jpeg2000")
    events: list[tuple[str, Mapping[str, Any]]] = []
    report = vesu.preflight(
        vesu.discover(tmp_path),
        work_dir=tmp_path,
        fraction=1,
        on_event=lambda name, fields: events.append((name, fields)),
    )
    (finding,) = report.blocking
    assert (finding.code, finding.path) == ("UNREADABLE", tmp_path / "test_images/1.tif")
    assert "hidden by a test" in finding.message
    assert ("OFFLINE_NEED", {"compressions_seen": ["jpeg2000"], "decoder_needed_for": ["jpeg2000"]}) in events
    resolved = [fields["status"] for name, fields in events if name == "OFFLINE_RESOLVED"]
    assert resolved == ["present", "unavailable"]  # tifffile, imagecodecs


def test_a_run_reads_them_and_its_log_says_how(tmp_path: Path) -> None:  # R03, R06
    (tmp_path / "data/test_images").mkdir(parents=True)
    write(tmp_path / "data/test_images/7.tif", volume((24, 24, 24)), "zstd")
    config = vesu.load_config(overrides=["pipeline=nx46"], environment={})
    result = vesu.run(tmp_path / "data", tmp_path / "run", config=config, display="none")
    assert [member.name for member in result.submission.members] == ["7.tif"]
    events = list(iter_events(tmp_path / "run/events.jsonl"))
    (need,) = [each for each in events if each["event"] == "OFFLINE_NEED"]
    assert need["decoder_needed_for"] == ["zstd"]
    (proved,) = [each for each in events if each["event"] == "TIFF_DECODER_PROVED"]
    assert (proved["compression"], proved["decoder"]) == ("zstd", "imagecodecs")
    assert [e["status"] for e in events if e["event"] == "OFFLINE_RESOLVED"] == ["present", "present"]


def patched(path: Path, tag: int, value: int, page: int = 0) -> None:
    """Overwrite the value of a tag of one page."""
    with tifffile.TiffFile(path) as file:
        found = file.pages[page].tags[tag]
        offset, code = found.valueoffset, {3: "H", 4: "I"}[int(found.dtype)]
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", data, offset, value)
    path.write_bytes(data)


def test_damaged_and_hostile_files_are_errors_that_name_the_file(tmp_path: Path) -> None:  # R03
    whole = write(tmp_path / "1.tif", volume(), "zstd").read_bytes()
    with tifffile.TiffFile(tmp_path / "1.tif") as file:
        place = file.pages[2].dataoffsets[0]
    torn = bytearray(whole)
    torn[place : place + 40] = bytes(40)
    cases = {"torn pixels": bytes(torn), "cut": whole[: len(whole) // 2], "head only": whole[:200]}
    for name, data in cases.items():
        path = tmp_path / f"{name}.tif"
        path.write_bytes(data)
        with pytest.raises(FormatError) as caught:
            vesu.read_volume(path)
        assert str(path) in str(caught.value), name


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        (257, 34, "pages all alike"),
        (277, 2, "samples a pixel"),
        (258, 64, "accepted"),
        (256, 1 << 16, "pages all alike"),
    ],
)
def test_headers_that_are_not_accepted(tmp_path: Path, tag: int, value: int, said: str) -> None:  # R03
    path = write(tmp_path / "1.tif", volume(), "zstd")
    patched(path, tag, value, page=1)
    with pytest.raises(FormatError, match=said):
        inspect_volume(path)


def test_the_limit_holds_before_anything_is_decoded(tmp_path: Path) -> None:  # R03
    path = write(tmp_path / "1.tif", volume(), "zstd")
    with pytest.raises(MemoryLimitError, match="max_bytes"):
        vesu.read_volume(path, max_bytes=volume().nbytes - 1)
    claims = write(tmp_path / "2.tif", volume((1, 33, 40)), "zstd")
    patched(claims, 256, 60000)
    patched(claims, 257, 60000)
    with pytest.raises((FormatError, MemoryLimitError)):
        vesu.read_volume(claims, max_bytes=1 << 30)


def test_a_decoder_that_dies_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R03
    path = write(tmp_path / "1.tif", volume(), "zstd")
    inspect_volume(path)
    foreign.prove(path, "zstd")
    worker = tmp_path / "worker.py"
    for program, said in (("import os; os.abort()", "ended by signal 6"), ("print('a few bytes')", "without a word")):
        worker.write_text(program)
        monkeypatch.setattr(foreign.process, "_WORKER", worker)
        with pytest.raises(FormatError, match=said):
            vesu.read_volume(path)
    monkeypatch.setattr(foreign.process, "_START_S", 0.3)
    worker.write_text("import time; time.sleep(60)")
    with pytest.raises(FormatError, match="was ended after 0 s"):
        vesu.read_volume(path)


def test_a_failed_search_is_not_repeated_for_every_volume(monkeypatch: pytest.MonkeyPatch) -> None:  # R06
    packages, calls, now = Packages(), [], [0.0]
    from vesu.data.foreign import packages as module

    def resolve(package: str, **how: Any) -> Any:
        calls.append(package)
        return module.Resolution(package, package, "unavailable", reason="nothing")

    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(5):
        packages.resolved("a")
    assert len(calls) == 1
    now[0] = module.FAILURE_LIFE_S + 1
    packages.resolved("a")
    assert len(calls) == 2
