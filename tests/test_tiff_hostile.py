"""Damaged and hostile TIFF files: always a clear error, never a crash, never unbounded memory (R03)."""

import io
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests import reference_tiff as reference

from vesu.data.volumes import decode_volume, encode_volume, inspect_bytes, inspect_volume, read_volume
from vesu.errors import FormatError, MemoryLimitError

BIG = 2**32 - 1


def deflate_bomb() -> bytes:
    return zlib.compress(bytes(32 << 20), 9)


def lzw_bomb() -> bytes:
    """Codes that each stand for one byte more than the one before: as dense as LZW gets."""
    codes, width, bits = [(256, 9), (0, 9)], 9, ""
    for next_code in range(258, 4094):
        codes.append((next_code, width))
        width = 9 + sum(next_code + 1 >= limit for limit in (511, 1023, 2047))
    bits = "".join(format(code, f"0{w}b") for code, w in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


# name -> (file, what the message must say)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a TIFF: 0 bytes"),
    "text": (b"hello world, this is no picture", "not a TIFF: it begins with"),
    "version": (b"II\x29\0\x08\0\0\0\0\0", "version 41"),
    "bigtiff with odd offsets": (b"II+\0\x04\0\0\0" + bytes(8), "offsets are not 8 bytes"),
    "no page": (b"II*\0" + bytes(4), "without any page"),
    "directory outside": (b"II*\0" + struct.pack("<I", 10**6), "truncated or damaged"),
    "directory without entries": (reference.tiff([[]]), "directory of 0 entries"),
    "bigtiff directory of 2^60 entries": (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(40),
        f"directory of {2**60} entries",
    ),
    "60000 x 60000 over 16 bytes": (reference.one_page(60_000, 60_000, 1, bytes(16)), "cannot hold more than 16"),
    "the same, LZW": (reference.one_page(60_000, 60_000, 5, bytes(16)), "cannot hold more than 65536"),
    "the same, Deflate": (reference.one_page(60_000, 60_000, 8, bytes(16)), "cannot hold more than 16512"),
    "the same, PackBits": (reference.one_page(60_000, 60_000, 32773, bytes(16)), "cannot hold more than 1024"),
    "largest numbers": (reference.one_page(BIG, BIG, 5, bytes(16), t278=BIG), "page 0: strip"),
    "zero width": (reference.one_page(0, 5, 1, bytes(16)), "5 rows of 0 pixels"),
    "zero height": (reference.one_page(5, 0, 1, bytes(16)), "0 rows of 5 pixels"),
    "zero rows a strip": (reference.one_page(4, 4, 1, bytes(16), t278=0), "strips of 0 rows"),
    "too few strips": (reference.one_page(4, 4, 1, bytes(16), t278=1), "1 strips or tiles where the shape needs 4"),
    "strip outside": (reference.tiff([reference.page(4, 4, 1, 9999, 16)]), "reaches beyond the file"),
    "strip too short": (reference.one_page(4, 5, 1, bytes(16)), "declares 20 bytes"),
    "no offsets": (reference.one_page(4, 4, 1, bytes(16), t273=-1), "tag 273 .* is missing"),
    "no counts, LZW": (reference.one_page(4, 4, 5, bytes(16), t279=-1), "tag 279 .* is missing"),
    "no width": (reference.one_page(4, 4, 1, bytes(16), t256=-1), "ImageWidth is missing"),
    "one bit": (reference.one_page(4, 4, 1, bytes(16), t258=1), "unsigned, 1 bits; accepted: uint8"),
    "twelve bits": (reference.one_page(4, 4, 1, bytes(64), t258=12), "unsigned, 12 bits"),
    "half floats": (reference.one_page(4, 4, 1, bytes(64), t258=16, t339=3), "float, 16 bits"),
    "complex": (reference.one_page(4, 4, 1, bytes(256), t258=64, t339=6), "sample format 6"),
    "colour": (reference.one_page(4, 4, 1, bytes(64), t277=3), "3 samples a pixel"),
    "JPEG": (reference.one_page(4, 4, 7, bytes(16)), r"compression 7 \(JPEG\); accepted: none \(1\), LZW"),
    "Zstandard": (reference.one_page(4, 4, 50_000, bytes(16)), r"50000 \(Zstandard\)"),
    "unknown compression": (reference.one_page(4, 4, 77, bytes(16)), "compression 77; accepted"),
    "reversed bits": (reference.one_page(4, 4, 1, bytes(16), t266=2), "FillOrder 2"),
    "predictor 9": (reference.one_page(4, 4, 5, bytes(16), t317=9), "predictor 9 of uint8"),
    "float predictor of integers": (reference.one_page(4, 4, 5, bytes(16), t317=3), "predictor 3 of uint8"),
    "predictor, uncompressed": (reference.one_page(4, 4, 1, bytes(16), t317=2), "predictor 2 on uncompressed"),
    "volumetric": (reference.one_page(4, 4, 1, bytes(64), t32997=4), "ImageDepth 4"),
    "huge tile": (reference.one_page(4, 4, 8, bytes(16), t322=BIG, t323=BIG, t324=8, t325=16), "page 0: .*tile"),
    "zero tile": (reference.one_page(4, 4, 1, bytes(16), t322=0, t323=16, t324=8, t325=16), "1 x 16 x 0 pixels"),
    "Deflate bomb": (reference.one_page(64, 64, 8, deflate_bomb()), "more than the 4096 declared bytes"),
    "Deflate too short": (reference.one_page(64, 64, 8, zlib.compress(bytes(4095))), "4095 of 4096 declared"),
    "Deflate without its checksum": (reference.one_page(8, 8, 8, zlib.compress(bytes(64))[:-1]), "data end after 64"),
    "Deflate with a wrong checksum": (
        reference.one_page(8, 8, 8, zlib.compress(bytes(64))[:-1] + b"\xff"),
        "damaged Deflate",
    ),
    "no Deflate": (reference.one_page(8, 8, 8, b"no zlib stream here"), "damaged Deflate"),
    "LZW noise": (reference.one_page(64, 64, 5, b"\xff" * 99), "LZW code 511 before it is defined"),
    "LZW old style": (reference.one_page(4, 4, 5, b"\0\1" * 9), "old-style LZW"),
    "LZW ends": (reference.one_page(64, 64, 5, b"\x80\x40\x40\x20\x10"), "LZW data end"),
    "PackBits ends": (reference.one_page(64, 64, 32773, b"\x81\0" * 31 + b"\x7f" * 70), "PackBits data end"),
    "loop": (reference.tiff([reference.page(1, 1, 1, 0, 1)] * 2, links=[0, 8][::-1]), "loops back to offset 8"),
    "pages unlike": (
        reference.tiff([reference.page(1, 1, 1, 0, 1), reference.page(2, 1, 1, 0, 2)]),
        r"page 1 is uint8 of \[1, 2\], page 0 is uint8 of \[1, 1\]",
    ),
    "all pages in one strip": (
        reference.tiff([reference.page(20, 20, 1, 8, 400)] * 50),
        "strips or tiles lie over each other",
    ),
    "array of 2^32 values": (
        reference.tiff([[(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (273, 4, BIG, 8)]]),
        f"has {BIG} values",
    ),
    "array of 2^20 values": (
        reference.tiff([[(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (273, 4, 2**20, 8)]]),
        "claim more bytes than the file holds",
    ),
    "two widths": (reference.tiff([[(256, 3, 2, 4)]]), "ImageWidth has 2 values"),
    "width as a fraction": (reference.tiff([[(256, 5, 1, 4)]]), "ImageWidth is of field type 5"),
}


# R03
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name: str) -> None:
    data, message = HOSTILE[name]
    start = time.perf_counter()
    with pytest.raises(FormatError, match=message) as caught:
        decode_volume(data, name="x.tif")
    assert str(caught.value).startswith("x.tif: ")
    assert time.perf_counter() - start < 1


# R03
def test_a_file_is_refused_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    path.write_bytes(HOSTILE["60000 x 60000 over 16 bytes"][0])
    for read in (read_volume, inspect_volume):
        with pytest.raises(FormatError, match=r"bad\.tif: page 0: strip or tile 0 declares 3600000000 bytes"):
            read(path)
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(FormatError, match="not a regular file"):
        read_volume(tmp_path / "pipe.tif")


# R03: LZW's densest stream is honest, so the plausibility bound must let it pass.
def test_the_densest_lzw_decodes() -> None:
    data = lzw_bomb()
    size = 3837 * 3838 // 2
    assert not decode_volume(reference.one_page(size, 1, 5, data)).any()
    with pytest.raises(FormatError, match="LZW data end after"):
        decode_volume(reference.one_page(size + 4000, 1, 5, data))
    with pytest.raises(MemoryLimitError):
        decode_volume(reference.one_page(size, 1, 5, data), max_bytes=10**6)


# R03: tiles in flight count too.
def test_a_tile_larger_than_the_limit_is_refused() -> None:
    file = reference.one_page(4, 4, 8, deflate_bomb(), t322=4096, t323=4096, t324=200, t325=30_000)
    with pytest.raises(MemoryLimitError, match="the limit is 1000000 bytes"):
        decode_volume(file, max_bytes=10**6)


# R03
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_file_cut_anywhere_is_refused(compression: str, bigtiff: bool) -> None:
    data = reference.volume((3, 6, 7), "uint16")
    buffer = io.BytesIO()
    reference.write(buffer, data, ">", compression, 1, bigtiff=bigtiff, metadata=None)
    for file in (buffer.getvalue(), encode_volume(data, compression)):  # type: ignore[arg-type]
        refused = 0
        for size in range(len(file)):
            try:
                volume = decode_volume(file[:size])
            except FormatError:
                refused += 1
            else:  # only what lies behind the last pixel may be missing
                np.testing.assert_array_equal(volume, data)
        assert refused >= len(file) - 20


# R03
def test_mutated_files_never_crash() -> None:
    rng = np.random.default_rng(20)
    seeds = fuzz_seeds()
    outcomes = {"read": 0, "refused": 0}
    for i in range(4000):
        mutant = mutate(bytearray(seeds[i % len(seeds)]), rng)
        try:
            inspect_bytes(mutant)
            decode_volume(mutant, max_bytes=1 << 22, n_threads=1)
            outcomes["read"] += 1
        except (FormatError, MemoryLimitError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 300  # the mutants reach both the headers and the pixels


def fuzz_seeds() -> list[bytes]:
    seeds = []
    for compression in reference.COMPRESSIONS:
        for options in ({}, {"rowsperstrip": 3}, {"tile": (16, 16)}, {"bigtiff": True}):
            for dtype, order in (("uint8", "<"), ("float32", ">")):
                buffer = io.BytesIO()
                predictor = reference.predictors(compression, dtype)[-1]
                reference.write(
                    buffer,
                    reference.volume((2, 9, 11), dtype),
                    order,
                    compression,
                    predictor,
                    metadata=None,
                    **options,
                )
                seeds.append(buffer.getvalue())
    return seeds


def mutate(data: bytearray, rng: np.random.Generator) -> bytes:
    """One to four changes: a byte, a 16- or 32-bit number of note, a cut, a copied stretch."""
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data)))
        kind = rng.integers(0, 5)
        if kind == 0:
            data[at] = rng.integers(0, 256)
        elif kind == 1:
            data[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31, BIG, len(data)]))[: len(data) - at]
        elif kind == 2:
            data[at : at + 2] = struct.pack("<H", rng.choice([0, 1, 255, 32773, 65535]))[: len(data) - at]
        elif kind == 3 and rng.random() < 0.3:
            del data[max(at, 8) :]
        else:
            source = int(rng.integers(0, len(data)))
            data[at : at + 12] = data[source : source + 12][: len(data) - at]
    return bytes(data)


# R03: the same in a process that has little memory to give.
def test_refusals_need_no_memory() -> None:
    files = [data for name, (data, _) in HOSTILE.items() if "bomb" in name or "60000" in name or "huge" in name]
    script = textwrap.dedent("""
        import pathlib, resource, sys
        from vesu.data.volumes import decode_volume
        from vesu.errors import VesuError
        for path in map(pathlib.Path, sys.argv[1:]):
            data = path.read_bytes()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                decode_volume(data, n_threads=2)
            except VesuError:
                pass
            else:
                raise SystemExit(f"{path} was accepted")
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 8 << 10, f"{path}: {grown} KiB"
    """)
    run_on_files(script, files)


def run_on_files(script: str, files: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, data in enumerate(files):
            paths.append(Path(folder, f"{i}.tif"))
            paths[-1].write_bytes(data)
        command = [sys.executable, "-c", script, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


# R03: an allocation that the system refuses is an error, not an abort.
def test_a_refused_allocation_is_an_error() -> None:
    file = encode_volume(np.zeros((40, 8000, 8000), np.uint8), "packbits")
    script = textwrap.dedent("""
        import pathlib, resource, sys
        from vesu.data.volumes import decode_volume
        from vesu.errors import MemoryLimitError
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        try:
            decode_volume(pathlib.Path(sys.argv[1]).read_bytes(), n_threads=2)
        except MemoryLimitError as error:
            assert "2560000000 bytes" in str(error), error
        else:
            raise SystemExit("accepted")
    """)

    run_on_files(script, [file])
