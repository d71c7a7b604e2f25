"""TIFF volumes: vesu against tifffile + imagecodecs and Pillow, the same bytes in and out.

Synthetic volumes, so that it runs everywhere: noise of a CT's entropy, and curved sheets as a mask has them.
``VESU_DATA`` (or ``../shared/data``) adds the research volumes.
"""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from vesu.data.volumes import decode_volume, encode_volume

SIZE = 192
PEER_WORKERS = os.cpu_count()


def ct() -> NDArray[np.uint8]:
    """Grey values spread as in a scan of 8 bits: next to nothing repeats."""
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(111, 28, (SIZE, SIZE, SIZE)), 0, 255).astype(np.uint8)


def mask() -> NDArray[np.uint8]:
    """Sheets three voxels thick, eight of them, slightly curved."""
    z, y, x = np.meshgrid(*[np.arange(SIZE, dtype=np.float32)] * 3, indexing="ij", sparse=True)
    depth = x + 6 * np.sin(y / 23) + 4 * np.cos(z / 31)
    return (np.mod(depth, SIZE / 8) < 3).astype(np.uint8)


def volumes() -> Iterator[tuple[str, Callable[[], NDArray[np.uint8]]]]:
    yield f"noise {SIZE}", ct
    yield f"sheets {SIZE}", mask
    folder = Path(os.environ.get("VESU_DATA") or Path(__file__).resolve().parents[1].parent / "shared/data")
    for name, file in (("real CT 256", "ct/scroll1_256.tif"), ("real mask 320", "predictions/1407735_transunet.tif")):
        if (folder / file).is_file():
            yield name, lambda path=folder / file: tifffile.imread(path)


VOLUMES = dict(volumes())


def lzw_file(volume: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, volume, compression="lzw", photometric="minisblack")
    return buffer.getvalue()


def group(work: str) -> Any:
    """One group of peers per volume: `bench-check` compares the ratios inside a group."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.benchmark(group=f"tiff {work} {name}")) for name in VOLUMES]
    )


def run(benchmark: Any, work: Callable[[], Any]) -> Any:
    return benchmark.pedantic(work, rounds=5, iterations=1, warmup_rounds=1)


@group("read lzw")
def test_read_vesu(benchmark: Any, name: str) -> None:
    volume = VOLUMES[name]()
    file = lzw_file(volume)
    assert (run(benchmark, lambda: decode_volume(file)) == volume).all()


@group("read lzw")
def test_read_peer_tifffile(benchmark: Any, name: str) -> None:
    volume = VOLUMES[name]()
    file = lzw_file(volume)
    assert (run(benchmark, lambda: tifffile.imread(io.BytesIO(file), maxworkers=PEER_WORKERS)) == volume).all()


@group("read lzw")
def test_read_peer_pillow(benchmark: Any, name: str) -> None:
    volume = VOLUMES[name]()
    file = lzw_file(volume)

    def read() -> NDArray[Any]:
        with Image.open(io.BytesIO(file)) as image:
            return np.stack([np.asarray(frame) for frame in ImageSequence.Iterator(image)])

    assert (run(benchmark, read) == volume).all()


@group("write deflate")
def test_write_vesu(benchmark: Any, name: str) -> None:
    volume = VOLUMES[name]()
    benchmark.extra_info["bytes"] = len(run(benchmark, lambda: encode_volume(volume, "deflate")))


@group("write deflate")
def test_write_peer_tifffile(benchmark: Any, name: str) -> None:
    volume = VOLUMES[name]()

    def write() -> int:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, volume, compression="zlib", photometric="minisblack", maxworkers=PEER_WORKERS)
        return buffer.tell()

    benchmark.extra_info["bytes"] = run(benchmark, write)
