"""Slow, obvious references for the data stage, and makers of small data sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import tifffile


def digest_array(array: np.ndarray) -> str:
    """What `_core.blake3_array` documents, element by element in C order."""
    little = array.astype(array.dtype.newbyteorder("<"))
    header = f"vesu.array.v1;{little.dtype.str};{','.join(str(length) for length in array.shape)};"
    hasher = blake3.blake3(header.encode())
    for index in np.ndindex(array.shape):
        hasher.update(little[index].tobytes())
    return hasher.hexdigest()


def eligible(label: np.ndarray, margin: int) -> dict[int, set[int]]:
    """Flat indices that may be drawn, by class, voxel by voxel."""
    found: dict[int, set[int]] = {0: set(), 1: set()}
    for flat, (z, y, x) in enumerate(np.ndindex(label.shape)):
        inside = all(margin <= at < length - margin for at, length in zip((z, y, x), label.shape, strict=True))
        if inside and label[z, y, x] in found:
            found[int(label[z, y, x])].add(flat)
    return found


def expected_shares(n: int, n_background: int, n_surface: int) -> tuple[int, int]:
    """Give one voxel at a time to the class that has fewer of the sample, background first, while it has any left."""
    background = surface = 0
    for _ in range(n):
        if background < n_background and (background <= surface or surface == n_surface):
            background += 1
        elif surface < n_surface:
            surface += 1
    return background, surface


def volume(seed: int, shape: tuple[int, int, int] = (6, 7, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 220, shape).astype(np.uint8)


def label(seed: int, shape: tuple[int, int, int] = (6, 7, 8)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    values.flat[:3] = (0, 1, 2)
    return values


def write(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    return path


def write_layout(
    root: Path,
    *,
    train: Iterable[str] = ("0001", "0002", "0003"),
    tests: Iterable[str] = ("0100",),
    csv: Mapping[str, str] | None = None,
) -> Path:
    """A small valid data set in the competition's layout."""
    root.mkdir(parents=True, exist_ok=True)
    train, tests = list(train), list(tests)
    for seed, volume_id in enumerate(train):
        write(root / "train_images" / f"{volume_id}.tif", volume(seed), compression="lzw")
        write(root / "train_labels" / f"{volume_id}.tif", label(seed))
    for seed, volume_id in enumerate(tests):
        write(root / "test_images" / f"{volume_id}.tif", volume(100 + seed), compression="deflate")
    tables = {"train.csv": rows(train), "test.csv": rows(tests)} if csv is None else csv
    for name, text in tables.items():
        (root / name).write_text(text)
    return root


def rows(ids: Iterable[str]) -> str:
    return "id,scroll_id\n" + "".join(f"{each},26002\n" for each in ids)
