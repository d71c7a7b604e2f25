"""Real labels dressed as CT and cut up: what `distill_real.py` learns from and is measured on.

Two real labels, no CT of theirs. Each direction trains on one label and is measured on the other. The training label
is dressed twice, as two scans of one scroll: the teachers learned from the first, student and prox-fit learn
from the second. Nothing that this writes may be redistributed.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import vesu
from vesu.data.phantom import dress
from vesu.distill.values import TrainingVolume

TEACHERS_SCAN, STUDENTS_SCAN, HELD_OUT_SCAN = 1000, 2000, 3000
"""Seeds of the dressings."""
N_TEACHING, N_LABELLED, N_UNLABELLED, N_VALIDATION = 4, 4, 2, 2
"""Corners of a training label: those that teachers saw, and the student's, six of which it learns from."""


@dataclass(frozen=True, eq=False)
class Cases:
    """The volumes of one direction, by what they are for; all with their labels."""

    teaching: tuple[TrainingVolume, ...]
    labelled: tuple[TrainingVolume, ...]
    unlabelled: tuple[TrainingVolume, ...]
    """Of the training label too, but only the teachers say what is in them."""
    validation: tuple[TrainingVolume, ...]
    """Of the training label: early stop, thresholds, fusion's weight, ablation."""
    held_out: tuple[TrainingVolume, ...]
    """Of the other label: nothing is chosen on them."""

    @property
    def training(self) -> tuple[TrainingVolume, ...]:
        """What a student learns from: labelled volumes, and others without their label."""
        return self.labelled + tuple(replace(volume, label=None) for volume in self.unlabelled)


def cases(train: Path, held_out: Path, folder: Path, *, side: int, n_held_out: int) -> Cases:
    """The volumes of one direction; dressings are kept in ``folder`` as TIFF and made once.

    Parameters
    ----------
    train, held_out : path
        Labels, TIFF.
    folder : path
        Where dressings are kept.
    side : int
        Voxels of a cube; 8 cubes are cut from a label's corners, they overlap where it is smaller than two of them.
    n_held_out : int
        Cubes of the held-out label, 1 to 8.
    """
    theirs = cubes(train, TEACHERS_SCAN, folder, side)
    ours = iter(cubes(train, STUDENTS_SCAN, folder, side))
    counts = (N_LABELLED, N_UNLABELLED, N_VALIDATION)
    labelled, unlabelled, validation = (tuple(itertools.islice(ours, count)) for count in counts)
    tested = cubes(held_out, HELD_OUT_SCAN, folder, side)
    # Opposite corners first: neighbours share sheets.
    order = [0, 7, 3, 4, 5, 2, 6, 1][:n_held_out]
    return Cases(theirs[:N_TEACHING], labelled, unlabelled, validation, tuple(tested[i] for i in order))


def cubes(label: Path, seed: int, folder: Path, side: int) -> list[TrainingVolume]:
    """The corners of one dressing, each with its label."""
    truth, image = vesu.read_volume(label), dressed(label, seed, folder)
    corners = itertools.product(*((0, max(0, size - side)) for size in truth.shape))
    found = []
    for number, corner in enumerate(corners):
        place = tuple(slice(start, start + side) for start in corner)
        name = f"{label.stem}-{seed}-{number}"
        found.append(TrainingVolume(name, image[place].copy(), truth[place].copy()))
    return found


def dressed(label: Path, seed: int, folder: Path) -> NDArray[np.uint8]:
    """The label as CT, from its file where there is one."""
    path = folder / f"{label.stem}-{seed}.tif"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        vesu.write_volume(path, dress(vesu.read_volume(label), seed), compression="lzw")
    image: NDArray[np.uint8] = vesu.read_volume(path)
    return image


def write_layout(folder: Path, train: Sequence[TrainingVolume], test: Sequence[TrainingVolume]) -> Path:
    """A data set in the competition's layout."""
    for name, volumes, arrays in (
        ("train_images", train, [volume.image for volume in train]),
        ("train_labels", train, [volume.label for volume in train]),
        ("test_images", test, [volume.image for volume in test]),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for volume, array in zip(volumes, arrays, strict=True):
            vesu.write_volume(folder / name / f"{volume.volume_id}.tif", array, compression="lzw")
    return folder
