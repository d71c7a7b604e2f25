"""Find the competition's data set and take stock of it: pairs, orphans, headers (R01)."""

import csv
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from vesu.data.volumes import VolumeInfo, inspect_volume
from vesu.errors import DataError, FileError, VesuError
from vesu.notebook import counted, table

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES = "train_images", "train_labels", "test_images"
ROOT_VARIABLE = "VESU_DATA_ROOT"
KAGGLE_ROOT = Path("/kaggle/input")
#: What a volume may be called in a submission.
VOLUME_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

_SUFFIXES = (".tif", ".tiff")
# A mounted input may hold millions of files beside ours; the layout lies a few folders down at most.
_MAX_DEPTH = 6
_MAX_ENTRIES_PER_FOLDER = 10_000
_MAX_FOLDERS = 20_000
# Reading headers waits for the disk (or for a network mount), not for the processor.
_HEADER_THREADS = 8


@dataclass(frozen=True)
class Pair:
    """A training volume with its label."""

    volume_id: str
    image: Path
    label: Path


@dataclass(frozen=True)
class TestVolume:
    """A volume to segment."""

    __test__: ClassVar[bool] = False  # not a test class, whatever pytest thinks of its name

    volume_id: str
    image: Path


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why."""

    path: Path
    message: str


@dataclass(frozen=True)
class CsvMismatch:
    """Where ``train.csv`` or ``test.csv`` and the images disagree; `problem` when the table cannot be read."""

    path: Path
    ids_without_image: tuple[str, ...] = ()
    ids_not_listed: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Inventory:
    """What a data set holds. All sequences are sorted by id.

    Attributes
    ----------
    root : Path
        The folder that holds ``train_images/``, ``train_labels/``, ``test_images/`` (or some of them).
    pairs : tuple of Pair
    tests : tuple of TestVolume
    orphan_images, orphan_labels : tuple of Path
        Train images without a label, and the reverse.
    infos : dict of Path to VolumeInfo
        Header of every readable volume.
    problems : tuple of Problem
        Volumes whose header cannot be read, doubled ids, things that are no regular files.
    csv_mismatches : tuple of CsvMismatch
    """

    root: Path
    pairs: tuple[Pair, ...]
    tests: tuple[TestVolume, ...]
    orphan_images: tuple[Path, ...]
    orphan_labels: tuple[Path, ...]
    infos: dict[Path, VolumeInfo]
    problems: tuple[Problem, ...]
    csv_mismatches: tuple[CsvMismatch, ...]

    @property
    def test_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Shape (z, y, x) of every test volume with a readable header: what a submission must contain."""
        return {test.volume_id: self.infos[test.image].shape for test in self.tests if test.image in self.infos}

    def to_json(self) -> dict[str, Any]:
        """The inventory as plain JSON values; paths are relative to the root.

        Returns
        -------
        dict
            ``root``, ``counts``, ``shapes``, ``dtypes``, ``compressions`` (each with how many files),
            ``total_bytes``, ``pairs``, ``tests``, ``orphan_images``, ``orphan_labels``, ``problems``, ``csv``.
        """
        infos = self.infos.values()
        return {
            "root": _text(self.root),
            "counts": {
                "pairs": len(self.pairs),
                "tests": len(self.tests),
                "orphan_images": len(self.orphan_images),
                "orphan_labels": len(self.orphan_labels),
                "problems": len(self.problems),
            },
            "shapes": _tally("x".join(map(str, info.shape)) for info in infos),
            "dtypes": _tally(str(info.dtype) for info in infos),
            "compressions": _tally(info.compression for info in infos),
            "total_bytes": sum(info.file_bytes for info in infos),
            "pairs": [
                {"volume_id": pair.volume_id, "image": self._file(pair.image), "label": self._file(pair.label)}
                for pair in self.pairs
            ],
            "tests": [{"volume_id": test.volume_id, "image": self._file(test.image)} for test in self.tests],
            "orphan_images": [self._file(path) for path in self.orphan_images],
            "orphan_labels": [self._file(path) for path in self.orphan_labels],
            "problems": [{"path": self._relative(each.path), "message": each.message} for each in self.problems],
            "csv": [
                {
                    "path": self._relative(each.path),
                    "ids_without_image": list(each.ids_without_image),
                    "ids_not_listed": list(each.ids_not_listed),
                    "problem": each.problem,
                }
                for each in self.csv_mismatches
            ],
        }

    def _repr_html_(self) -> str:
        files = [(pair.volume_id, "train", pair.image) for pair in self.pairs]
        files += [(test.volume_id, "test", test.image) for test in self.tests]
        rows = [(name, use, *_header(self.infos.get(path))) for name, use, path in files]
        counts = {
            "train images without a label": len(self.orphan_images),
            "labels without an image": len(self.orphan_labels),
            "files that cannot be used": len(self.problems),
            "tables that differ from the images": len(self.csv_mismatches),
        }
        notes = [f"{_text(self.root)}", *(f"{count} {what}" for what, count in counts.items() if count)]
        title = f"{counted(len(self.pairs), 'labelled volume')}, {len(self.tests)} to segment"
        return table(title, ["volume", "use", "shape (z, y, x)", "type", "compression", "MiB"], rows, notes=notes)

    def _file(self, path: Path) -> dict[str, Any]:
        record: dict[str, Any] = {"path": self._relative(path)}
        if (info := self.infos.get(path)) is not None:
            record |= {
                "shape": list(info.shape),
                "dtype": str(info.dtype),
                "compression": info.compression,
                "file_bytes": info.file_bytes,
            }
        return record

    def _relative(self, path: Path) -> str:
        return _text(path.relative_to(self.root))


def discover(
    root: str | Path | None = None,
    *,
    slug: str | None = None,
    kaggle_root: str | Path = KAGGLE_ROOT,
    on_progress: Callable[[int, int], object] | None = None,
) -> Inventory:
    """Find the competition layout and read every volume's header.

    Parameters
    ----------
    root : path, optional
        A folder that holds ``train_images/`` or ``test_images/``, or one that has such a folder a few levels down.
        Default: the folder that the environment variable ``VESU_DATA_ROOT`` names, else `kaggle_root`.
    slug : str, optional
        Name of the data set's mount (``slug`` or ``owner/slug``), to choose where several are mounted.
    kaggle_root : path
        Where Kaggle mounts inputs: ``<slug>``, ``competitions/<slug>`` and ``datasets/<owner>/<slug>`` are all found.
    on_progress : callable, optional
        Called as ``on_progress(done, total)`` after each header.

    Returns
    -------
    Inventory
        Also where files are unreadable or unpaired: these are recorded, and :func:`vesu.preflight` judges them.

    Raises
    ------
    DataError
        No folder with the layout, or several: the message lists the places.
    FileError
        The operating system refuses to list a folder of the layout.

    Notes
    -----
    Requirement R01. Volume ids are file names without ``.tif`` or ``.tiff`` (leading zeros matter); hidden files
    (``._x.tif``) are ignored. The search is bounded in depth and breadth, and follows links without looping.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from vesu.data.discover import discover
    >>> from vesu.data.volumes import write_volume
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train_images", "train_labels", "test_images"):
    ...         (Path(folder) / "input" / name).mkdir(parents=True)
    ...         write_volume(Path(folder) / "input" / name / "0042.tif", np.zeros((3, 4, 5), np.uint8))
    ...     inventory = discover(folder)
    >>> inventory.pairs[0].volume_id, inventory.test_shapes
    ('0042', {'0042': (3, 4, 5)})
    """
    home = _find_layout(root, slug, Path(kaggle_root))
    problems: list[Problem] = []
    images, labels, tests = (_volumes(home / name, problems) for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES))
    infos, unreadable = _inspect([*images.values(), *labels.values(), *tests.values()], on_progress)
    mismatches = [_compare_csv(home / "train.csv", images), _compare_csv(home / "test.csv", tests)]
    return Inventory(
        root=home,
        pairs=tuple(Pair(each, images[each], labels[each]) for each in images if each in labels),
        tests=tuple(TestVolume(each, path) for each, path in tests.items()),
        orphan_images=tuple(path for each, path in images.items() if each not in labels),
        orphan_labels=tuple(path for each, path in labels.items() if each not in images),
        infos=infos,
        problems=tuple(problems + unreadable),
        csv_mismatches=tuple(mismatch for mismatch in mismatches if mismatch is not None),
    )


def _find_layout(root: str | Path | None, slug: str | None, kaggle_root: Path) -> Path:
    name = "root"
    if root is None and (variable := os.environ.get(ROOT_VARIABLE)):
        root, name = variable, ROOT_VARIABLE
    top = Path(root) if root is not None else kaggle_root
    wanted = f"a folder with {TRAIN_IMAGES}/ or {TEST_IMAGES}/ in it, or a few levels down"
    if not top.is_dir():
        hint = "" if root is not None else f" (no root was given and {ROOT_VARIABLE} is not set)"
        raise DataError(f"{name}: got {_text(top)}, which is no folder{hint}; accepted: {wanted}")
    top = top.absolute()
    found, looked_at, complete = _candidates(top)
    if slug is not None:
        found = [each for each in found if f"/{slug.strip('/')}/" in f"/{each.relative_to(top).as_posix()}/"]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(_text(each) for each in found)
        raise DataError(
            f"{name}: got {_text(top)} with {len(found)} data sets: {places}; accepted: root or slug of one"
        )
    which = f" of slug {slug!r}" if slug is not None else ""
    bound = "" if complete else f" (the search stopped at its bound: {_MAX_DEPTH} levels, {_MAX_FOLDERS} folders)"
    raise DataError(f"{name}: got {_text(top)}, no layout{which} in {looked_at} folders{bound}; accepted: {wanted}")


def _candidates(top: Path) -> tuple[list[Path], int, bool]:
    """Folders that hold the layout, nearest first; how many were looked at; whether all were."""
    queue = deque([(top, 0)])
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    complete = True
    while queue:
        folder, depth = queue.popleft()
        try:
            stat = folder.stat()
            if (stat.st_dev, stat.st_ino) in seen:
                continue  # reached before, through a link
            seen.add((stat.st_dev, stat.st_ino))
            subfolders, all_listed = _subfolders(folder)
        except OSError:
            complete = False
            continue
        complete &= all_listed
        if not {TRAIN_IMAGES, TEST_IMAGES}.isdisjoint(each.name for each in subfolders):
            found.append(folder)
        elif depth >= _MAX_DEPTH or len(seen) + len(queue) + len(subfolders) > _MAX_FOLDERS:
            complete &= not subfolders
        else:
            queue.extend((each, depth + 1) for each in subfolders)
    return found, len(seen), complete


def _subfolders(folder: Path) -> tuple[list[Path], bool]:
    # A layout's own folder has a handful of entries: its subfolders need not be looked for among millions.
    subfolders = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, _MAX_ENTRIES_PER_FOLDER):
            try:
                if not entry.name.startswith(".") and entry.is_dir():
                    subfolders.append(folder / entry.name)
            except OSError:
                continue  # a link to itself
        complete = next(entries, None) is None
    return sorted(subfolders), complete


def _volumes(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """Id to path of the TIFF files of one folder, sorted by id."""
    if not folder.is_dir():
        return {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(folder)) from error
    volumes: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() not in _SUFFIXES:
            continue
        if not path.is_file():
            problems.append(Problem(path, "not a regular file (a folder, a pipe, or a link to nothing)"))
        elif _text(Path(path.name)) != path.name:
            problems.append(Problem(path, "the file's name is not valid UTF-8"))
        elif path.stem in volumes:
            problems.append(Problem(path, f"its id is also that of {volumes[path.stem].name}"))
        else:
            volumes[path.stem] = path
    return dict(sorted(volumes.items()))


def _inspect(
    paths: list[Path], on_progress: Callable[[int, int], object] | None
) -> tuple[dict[Path, VolumeInfo], list[Problem]]:
    infos: dict[Path, VolumeInfo] = {}
    problems: dict[Path, Problem] = {}
    executor = ThreadPoolExecutor(_HEADER_THREADS, thread_name_prefix="vesu-header")
    try:
        futures = {executor.submit(inspect_volume, path): path for path in paths}
        for done, future in enumerate(as_completed(futures), start=1):
            path = futures[future]
            try:
                infos[path] = future.result()
            except VesuError as error:
                problems[path] = Problem(path, str(error))
            if on_progress is not None:
                on_progress(done, len(paths))
    finally:
        executor.shutdown(cancel_futures=True)
    # In the order of the paths: the order of finishing differs from run to run.
    return {path: infos[path] for path in paths if path in infos}, [problems[p] for p in paths if p in problems]


def _compare_csv(path: Path, images: dict[str, Path]) -> CsvMismatch | None:
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            if "id" not in header:
                return CsvMismatch(path, problem=f"got the columns {header[:8]}; accepted: one named 'id'")
            column = header.index("id")
            listed = {row[column].strip() for row in rows if len(row) > column} - {""}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return CsvMismatch(path, problem=str(error))
    without, extra = tuple(sorted(listed - images.keys())), tuple(sorted(images.keys() - listed))
    return CsvMismatch(path, without, extra) if without or extra else None


def _header(info: VolumeInfo | None) -> tuple[Any, ...]:
    """Shape, type, compression and MiB, for the table of a notebook."""
    if info is None:
        return ("header not readable", None, None, None)
    return (" x ".join(map(str, info.shape)), str(info.dtype), info.compression, round(info.file_bytes / 2**20, 2))


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _text(path: Path) -> str:
    """A path as text that every encoder takes: bytes that are no UTF-8 are shown as escapes."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
