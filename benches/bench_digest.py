"""Content ids: vesu's BLAKE3 against PyPI's blake3 (one thread, and all) and hashlib's SHA-512, one 320^3 volume."""

import hashlib
from pathlib import Path

import blake3
import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from vesu import _core

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def volume() -> Array:
    return np.random.default_rng(0).integers(0, 256, (320, 320, 320), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(volume: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digest") / "volume"
    path.write_bytes(volume.tobytes())
    return path


@pytest.mark.benchmark(group="digest of an array 320^3")
def test_vesu_blake3_array(benchmark: BenchmarkFixture, volume: Array) -> None:
    benchmark(_core.blake3_array, volume)


@pytest.mark.benchmark(group="digest of an array 320^3")
def test_peer_blake3_all_threads(benchmark: BenchmarkFixture, volume: Array) -> None:
    benchmark(lambda: blake3.blake3(volume, max_threads=blake3.blake3.AUTO).hexdigest())


@pytest.mark.benchmark(group="digest of an array 320^3")
def test_peer_blake3_one_thread(benchmark: BenchmarkFixture, volume: Array) -> None:
    benchmark(lambda: blake3.blake3(volume).hexdigest())


@pytest.mark.benchmark(group="digest of an array 320^3")
def test_peer_hashlib_sha512(benchmark: BenchmarkFixture, volume: Array) -> None:
    benchmark(lambda: hashlib.sha512(volume).hexdigest())


@pytest.mark.benchmark(group="digest of a file of 320^3 bytes")
def test_vesu_blake3_file(benchmark: BenchmarkFixture, file: Path) -> None:
    benchmark(_core.blake3_file, file)


@pytest.mark.benchmark(group="digest of a file of 320^3 bytes")
def test_peer_blake3_mapped_file_all_threads(benchmark: BenchmarkFixture, file: Path) -> None:
    benchmark(lambda: blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(file).hexdigest())


@pytest.mark.benchmark(group="digest of a file of 320^3 bytes")
def test_peer_hashlib_sha512_file(benchmark: BenchmarkFixture, file: Path) -> None:
    def digest() -> str:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha512").hexdigest()

    benchmark(digest)
