"""Many small volumes out of a few generated ones, in the competition's layout.

Eight labelled and two test volumes of 128^3 (the demo's) are cut into cubes of half their edge, and each cube is taken
in the sixteen orientations that keep z as z. So there are 1,024 labelled and 256 test cubes at most, no two files with
the same bytes, for the price of ten volumes. They serve to measure costs: a cube and its mirror image may lie on both
sides of the split, so that scores on them say nothing.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import vesu
from vesu.data.phantom import write_dataset

N_TRAIN, N_TEST = 8, 2
"""Volumes that are cut."""

Cube = NDArray[np.uint8]


def write_cubes(folder: Path, *, n_train: int, n_test: int, size: int, source: Path) -> Path:
    """A folder with so many cubes of this edge; a finished one of the same arguments is left as it is."""
    done = folder / "cubes.json"
    arguments = {"n_train": n_train, "n_test": n_test, "size": size}
    if done.exists() and json.loads(done.read_text()) == arguments:
        return folder
    write_dataset(source, n_train=N_TRAIN, n_test=N_TEST, shape=(2 * size,) * 3, seed=0)
    for kind, labels, count in (("train", "train_labels", n_train), ("test", "truth", n_test)):
        _write(source, folder, f"{kind}_images", labels, count)
        names = sorted(path.stem for path in (folder / f"{kind}_images").glob("*.tif"))
        (folder / f"{kind}.csv").write_text("\n".join(["id,scroll_id", *(f"{name},26002" for name in names), ""]))
    done.write_text(json.dumps(arguments))
    return folder


def _write(source: Path, folder: Path, images: str, labels: str, count: int) -> None:
    volumes = sorted((source / images).glob("*.tif"))
    for name in (images, labels):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pairs = itertools.chain.from_iterable(
        zip(_cubes(source / images / path.name), _cubes(source / labels / path.name), strict=True) for path in volumes
    )
    written = 0
    for number, (image, label) in enumerate(itertools.islice(pairs, count)):
        volume_id = f"{1_000_000 + number}"
        vesu.write_volume(folder / images / f"{volume_id}.tif", image, compression="lzw", n_threads=1)
        vesu.write_volume(folder / labels / f"{volume_id}.tif", label, compression="lzw", n_threads=1)
        written += 1
    if written < count:
        raise SystemExit(f"{images}: got {count} volumes to make; accepted: at most {written}")


def _cubes(path: Path) -> Iterator[Cube]:
    """The eight cubes of a volume, each in sixteen orientations."""
    volume = vesu.read_volume(path)
    half = volume.shape[0] // 2
    for corner in itertools.product((0, half), repeat=3):
        cube = volume[tuple(slice(first, first + half) for first in corner)]
        for turned in (cube, cube.transpose(0, 2, 1)):
            for axes in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
                yield np.ascontiguousarray(np.flip(turned, axes))
