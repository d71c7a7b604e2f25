"""TIFF volumes against tifffile + imagecodecs and Pillow (R03, R04)."""

import io
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image, ImageSequence
from tests import reference_tiff as reference

from vesu.data.volumes import (
    decode_volume,
    encode_volume,
    inspect_bytes,
    inspect_volume,
    read_volume,
    write_volume,
)
from vesu.errors import ArgumentError, FileError, MemoryLimitError


def assert_same(ours: Any, theirs: Any) -> None:
    """Bit for bit: NaN payloads and signs of zero count."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype.newbyteorder("=")
    assert ours.flags.c_contiguous
    assert ours.tobytes() == np.ascontiguousarray(theirs, theirs.dtype.newbyteorder("=")).tobytes()


# R03
@pytest.mark.parametrize("compression", reference.COMPRESSIONS)
@pytest.mark.parametrize("dtype", reference.DTYPES)
def test_every_kind_reads_as_tifffile_reads_it(tmp_path: Path, compression: str, dtype: str) -> None:
    data = reference.volume((3, 37, 53), dtype)
    path = tmp_path / "a.tif"
    for predictor in reference.predictors(compression, dtype):
        for order in "<>":
            for bigtiff in (False, True):
                for layout in reference.layouts():
                    reference.write(path, data, order, compression, predictor, bigtiff=bigtiff, **layout)
                    ours = read_volume(path, n_threads=2)
                    assert_same(ours, tifffile.imread(path))
                    assert_same(ours, data)
                    info = inspect_volume(path)
                    assert (info.shape, info.dtype, info.compression) == (data.shape, dtype, compression)
                    assert (info.byte_order, info.bigtiff, info.predictor) == (order, bigtiff, predictor)
                    assert (info.path, info.file_bytes) == (path, path.stat().st_size)
                    assert info.decoded_bytes == data.nbytes


# R03
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 90), st.integers(1, 90)),
    dtype=st.sampled_from(reference.DTYPES),
    compression=st.sampled_from(sorted(reference.COMPRESSIONS)),
    order=st.sampled_from("<>"),
    rows=st.integers(1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_reads_as_it_was_written(
    shape: tuple[int, int, int], dtype: str, compression: str, order: str, rows: int, seed: int
) -> None:
    data = reference.volume(shape, dtype, seed)
    buffer = io.BytesIO()
    # `metadata=None`: tifffile would write a volume of one voxel's height differently.
    with tifffile.TiffWriter(buffer, byteorder=order) as writer:
        for slice_ in data:
            writer.write(
                slice_,
                compression=reference.COMPRESSIONS[compression],
                rowsperstrip=rows,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
            )
    assert_same(decode_volume(buffer.getvalue()), data)


# R03: the other number for Deflate, and single pages.
def test_adobe_deflate_and_single_pages(tmp_path: Path) -> None:
    data = reference.volume((1, 20, 30), "uint8")
    for compression in ("adobe_deflate", "deflate"):
        tifffile.imwrite(tmp_path / "a.tif", data[0], compression=compression)
        assert_same(read_volume(tmp_path / "a.tif"), data)


# R03: libtiff knows horizontal differences of floats, as integers; tifffile does not write them.
def test_horizontal_differences_of_floats(tmp_path: Path) -> None:
    data = reference.volume((2, 9, 11), "int32")
    reference.write(tmp_path / "a.tif", data, ">", "lzw", 2)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for page in file.pages:
            page.tags["SampleFormat"].overwrite(3)
    assert_same(read_volume(tmp_path / "a.tif"), data.view(np.float32))


# R04
@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "packbits"])
@pytest.mark.parametrize("dtype", reference.DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 6), (3, 700, 601), (7, 4, 3)])
def test_what_we_write_everyone_reads(compression: Any, dtype: str, shape: tuple[int, int, int]) -> None:
    data = reference.volume(shape, dtype)
    file = encode_volume(data, compression)
    assert_same(decode_volume(file), data)
    assert inspect_bytes(file).shape == shape
    with tifffile.TiffFile(io.BytesIO(file)) as theirs:
        assert len(theirs.pages) == shape[0]
        assert_same(theirs.asarray().reshape(shape), data)
        assert theirs.asarray().shape == shape
    # Pillow knows these types, and packs floats only uncompressed or in strips that libtiff unpacks.
    if dtype in ("uint8", "uint16", "int32", "float32"):
        with Image.open(io.BytesIO(file)) as image:
            pages = [np.array(frame) for frame in ImageSequence.Iterator(image)]
        assert_array_equal(np.stack(pages).astype(dtype), data)


# R04, R05
@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "packbits"])
def test_the_bytes_do_not_depend_on_threads_layout_or_byte_order(compression: Any) -> None:
    data = reference.volume((9, 65, 200), "uint16")
    first = encode_volume(data, compression, n_threads=1)
    variants = (data.astype(">u2"), np.asfortranarray(data), np.repeat(data, 2, axis=2)[:, :, ::2])
    for n_threads in (1, 2, 3, 8):
        assert encode_volume(data, compression, n_threads=n_threads) == first
        assert_same(decode_volume(first, n_threads=n_threads), data)
    for variant in variants:
        assert encode_volume(variant, compression) == first
    data.flags.writeable = False
    assert encode_volume(data, compression) == first


# R04: the choice is made from the worst case before a byte is written; untouched zeros take no memory.
def test_bigtiff_beyond_four_gibibytes() -> None:
    volume = np.zeros((2, 47_000, 46_000), np.uint8)
    info = inspect_bytes(encode_volume(volume, "packbits"))
    assert (info.bigtiff, info.shape) == (True, volume.shape)


# R04
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4), np.uint8),
        np.zeros((0, 4, 5), np.uint8),
        np.zeros((2, 4, 5), np.int64),
        np.zeros((2, 4, 5), bool),
        np.zeros((2, 4, 5), np.float16),
        np.zeros((2, 4, 5), object),
        [[[1]]],
        None,
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ArgumentError, match=r"volume: got .*; accepted: a 3-D"):
        encode_volume(bad)
    with pytest.raises(ArgumentError, match="volume: got"):
        write_volume(tmp_path / "a.tif", bad)
    assert list(tmp_path.iterdir()) == []


# R03, R04
def test_other_bad_arguments_are_named(tmp_path: Path) -> None:
    good = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ArgumentError, match="compression: got \"jpeg\"; accepted: 'none'"):
        encode_volume(good, "jpeg")  # type: ignore[arg-type]
    for path in (3, None, b"a.tif", "", "a\0b"):
        with pytest.raises(ArgumentError, match="path: got"):
            read_volume(path)  # type: ignore[arg-type]
    for max_bytes in (0, -1, 1.5, True, 2**64):
        with pytest.raises(ArgumentError, match="max_bytes: got"):
            read_volume(tmp_path / "a.tif", max_bytes=max_bytes)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="data: got str"):
        decode_volume("II")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="n_threads"):
        decode_volume(encode_volume(good), n_threads=0)


# R03
def test_the_memory_limit_names_both_numbers(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.tif", np.zeros((10, 20, 30), np.uint8))
    with pytest.raises(MemoryLimitError, match="6000 bytes; the limit is 5999"):
        read_volume(tmp_path / "a.tif", max_bytes=5999)
    assert read_volume(tmp_path / "a.tif", max_bytes=6000).shape == (10, 20, 30)


# R03
def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    for read in (read_volume, inspect_volume):
        with pytest.raises(FileError) as caught:
            read(tmp_path / "none.tif")
        assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "none.tif"))
        with pytest.raises(FileError) as caught:
            read(tmp_path)
        assert caught.value.errno == 21
    with pytest.raises(FileError) as caught:
        write_volume(tmp_path / "none" / "a.tif", np.zeros((1, 2, 2), np.uint8))
    assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "none" / "a.tif"))


# R03: the search's loops are not the only ones that answer Ctrl-C.
def test_ctrl_c_stops_a_long_write() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 320, 320), np.uint8)
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        while True:
            encode_volume(noise, "deflate")
    assert time.monotonic() - start < 0.2 + 0.5


# R03
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ct/scroll1_256.tif", "labels/3281388561.tif", "predictions/1407735_speckle.tif"])
def test_the_research_volumes_read_as_tifffile_reads_them(name: str) -> None:
    path = reference.real_data() / name
    data = tifffile.imread(path)
    for n_threads in (1, 2, 8):
        assert_same(read_volume(path, n_threads=n_threads), data)
    assert_same(decode_volume(encode_volume(data, "packbits")), data)
