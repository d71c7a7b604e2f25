"""A reference mask: which volume it is of, and whether it can be aligned to (R24)."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vesu.data.volumes import inspect_volume, read_volume
from vesu.errors import DataError, FileError

__all__ = ["Reference", "density_of", "read_reference", "reference_id"]

UNKNOWN = 2
SEPARATORS = "_-."
"""What may follow a volume's id in the name of a reference: `1407735_transunet.tif`."""
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Reference:
    """A mask of one test volume by somebody else."""

    volume_id: str
    path: Path
    sha256: str
    """Of the file, hexadecimal."""
    mask: NDArray[np.uint8]
    """0 background, 1 surface, 2 unknown; (z, y, x)."""

    @property
    def density(self) -> float:
        """Share of surface among the known voxels."""
        return density_of(self.mask)


def density_of(mask: NDArray[np.uint8]) -> float:
    """Share of surface (1) among the known voxels (all but 2); 0 where none is known."""
    return int(np.count_nonzero(mask == 1)) / max(1, int(np.count_nonzero(mask != UNKNOWN)))


def reference_id(path: str | Path, ids: Iterable[str], asked: str = "") -> str:
    """The test volume that a reference is of.

    Parameters
    ----------
    path : path
        Its file. Without `asked` the name must be a test volume's id, alone or followed by '_', '-' or '.'.
    ids : iterable of str
        Of the test volumes.
    asked : str
        The id as the settings name it; empty reads it from the file's name.

    Raises
    ------
    DataError
        No test volume of that id, or a file name that names none; the message lists what is accepted.

    Examples
    --------
    >>> reference_id("masks/1407735_transunet.tif", ["1407735", "14"])
    '1407735'
    """
    known = sorted(ids)
    listed = ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")
    if asked:
        if asked not in known:
            raise DataError(f"guided.volume_id: got {asked!r}; accepted: the id of a test volume: {listed or 'none'}")
        return asked
    name = Path(path).stem
    named = [each for each in known if name == each or (name.startswith(each) and name[len(each)] in SEPARATORS)]
    if not named:
        raise DataError(
            f"guided.reference: got {Path(path).name!r}, whose name begins with no test volume's id; accepted: a name "
            f"that does ({listed or 'there is none'}), or guided.volume_id beside it"
        )
    return max(named, key=len)


def read_reference(
    path: str | Path, shapes: Mapping[str, tuple[int, ...]], asked: str = "", *, n_threads: int | None = None
) -> Reference:
    """Read a reference mask and refuse what cannot be one of the volume that it is said to be of.

    Parameters
    ----------
    path : path
        Mask TIFF, uint8, values 0, 1 and 2 (unknown).
    shapes : mapping of str to (int, int, int)
        Of the test volumes, by id.
    asked : str
        Which of them; empty reads the id from the file's name, see :func:`reference_id`.
    n_threads : int, optional
        Threads to decode with.

    Raises
    ------
    DataError
        Another shape or dtype than the volume's mask has, other values, no surface or no background, or an id that is
        none.
    FormatError, FileError
        No TIFF, a truncated one; a file that cannot be read.

    Notes
    -----
    Requirement R24. That two volumes of the same shape were mixed up cannot be seen in the voxels: the id in the file's
    name is believed only where it is a test volume's, and an id that the settings name goes before it.

    Examples
    --------
    >>> import tempfile, vesu
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mask = np.zeros((4, 4, 4), np.uint8)
    ...     mask[2] = 1
    ...     vesu.write_volume(f"{folder}/7_theirs.tif", mask)
    ...     found = read_reference(f"{folder}/7_theirs.tif", {"7": (4, 4, 4)})
    >>> found.volume_id, found.density
    ('7', 0.25)
    """
    path = Path(path)
    volume_id = reference_id(path, shapes, asked)
    info, shape = inspect_volume(path), tuple(shapes[volume_id])
    if tuple(info.shape) != shape:
        raise DataError(f"{path}: got shape {info.shape}; accepted: {shape}, that of test volume {volume_id}")
    if info.dtype != "uint8":
        raise DataError(f"{path}: got {info.dtype}; accepted: a mask of uint8")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    mask = read_volume(path, n_threads=n_threads)
    counts = np.sum([np.bincount(plane.reshape(-1), minlength=256) for plane in mask], axis=0)
    others = [value for value in np.flatnonzero(counts).tolist() if value > UNKNOWN]
    if others:
        named = ", ".join(f"{value} ({counts[value]} voxels)" for value in others[:_NAMED])
        raise DataError(f"{path}: got values {named}; accepted: 0, 1, and 2 where the reference says nothing")
    for value, word in ((0, "background"), (1, "surface")):
        if not counts[value]:
            raise DataError(f"{path}: got no voxel of {value} ({word}); accepted: a mask with both")
    return Reference(volume_id, path, sha256, mask)
