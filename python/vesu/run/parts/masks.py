"""The phase ``segment`` of a part: masks of test volumes, by a finished model or a historical scorer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vesu.data.cache import content_id
from vesu.data.discover import TestVolume
from vesu.data.storage import make_folder, write_bytes_atomic
from vesu.errors import FileError
from vesu.run import nonces, segmenting
from vesu.run.model import STUDENT_FOLDER, SurfaceModel
from vesu.run.parts.features import sources
from vesu.run.parts.place import Place
from vesu.run.parts.record import MODEL, VolumeRecord, listed
from vesu.run.state import MODEL_PARTS, STUDENT_PARTS

__all__ = ["make", "mask_name", "model_files"]


def model_files(folder: Path) -> dict[str, str]:
    """BLAKE3 of each file of a run's model, by its path below the run folder.

    Raises
    ------
    FileError
        One of them is missing or cannot be read.
    FormatError
        A ``model.json`` that is none.
    """
    names = list(MODEL_PARTS)
    if _has_student(folder / "model.json"):
        names += [f"{STUDENT_FOLDER}/{name}" for name in STUDENT_PARTS]
    return {name: content_id(folder / name) for name in names}


def make(place: Place, tests: Sequence[TestVolume], model: str | Path | None) -> None:
    """The mask of each volume with its evidence beside, as a run leaves them (R28-R30, R32)."""
    surface = None if model is None else _carried(place, Path(model))
    for test in tests:
        place.stops.poll()
        if surface is None:
            segmenting.segment_volume_by_scorer(place, test)
        else:
            segmenting.segment_volume(place, test, surface)
        name = test.volume_id
        evidence = [place.folder / "segment" / f"{name}{end}" for end in (".json", "_views.npz", "_steps.npz")]
        evidence += nonces.files_of(place, name)
        files = listed(place.folder, [place.folder / mask_name(name), *evidence])
        shape = json.loads(evidence[0].read_bytes())["shape"]
        place.keep(VolumeRecord(name, sources(test), files, {"shape": shape}))


def mask_name(volume_id: str) -> str:
    """Path of a volume's mask below the part's folder."""
    return f"masks/{volume_id}.tif"


def _carried(place: Place, model: Path) -> SurfaceModel:
    """The model out of the part's own copy: the part is whole without the run that made it."""
    folder = place.folder / MODEL
    for name in place.plan.model:
        make_folder((folder / name).parent)
        write_bytes_atomic(folder / name, (model / name).read_bytes())
    device = None
    if f"{STUDENT_FOLDER}/{STUDENT_PARTS[0]}" in place.plan.model:
        from vesu.distill.device import choose_compute_device

        device = str(choose_compute_device(place.config.student.device, place.tell))
    return SurfaceModel.load(folder, device=device)


def _has_student(path: Path) -> bool:
    try:
        meta: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except (ValueError, RecursionError):
        return False  # the model's own reader says what is wrong with it
    return isinstance(meta, dict) and "student" in meta
