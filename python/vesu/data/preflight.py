"""The check before any long work: a sample of the data decoded and judged, room on the machine (R02).

==================== ========== ==================================================================================
code                 severity   meaning
==================== ========== ==================================================================================
EMPTY_DATASET        blocking   neither a train pair nor a test volume
NO_TRAIN_PAIRS       warning    no train pair (blocking with ``need_train``)
NO_TEST_VOLUMES      warning    no test volume (blocking with ``need_tests``)
TOO_FEW_PAIRS        blocking   with ``need_train``: one pair, and none left to validate on
BAD_ID               blocking   a test id that could not be the name of a zip's member
ORPHAN_IMAGE         blocking   a train image without a label
ORPHAN_LABEL         blocking   a label without a train image
UNREADABLE           blocking   header or pixels cannot be decoded, a doubled id, no regular file, no decoder for a
                                compression that vesu does not read by itself
NOT_3D               blocking   a single page or a degenerate axis
DTYPE                blocking   labels that are not uint8; images neither uint8, uint16 nor float32 (the last two: a
                                warning, the competition's are uint8)
SHAPE_MISMATCH       blocking   image and label differ in shape
BAD_LABEL_VALUE      blocking   a label with values other than 0, 1, 2
LABEL_ALL_IGNORED    blocking   nothing but 2: nothing to learn from
LABEL_NO_SURFACE     warning    no voxel of 1
LABEL_NO_BACKGROUND  warning    no voxel of 0
CONSTANT_VOLUME      blocking   one value everywhere: a failed export, not a scan
VALUE_RANGE          blocking   NaN or infinity (a warning: hardly any contrast, or one value in most voxels)
CSV_MISMATCH         warning    train.csv or test.csv lists other ids than there are images, or cannot be read
UNWRITABLE           blocking   the work folder cannot be written to (the cache folder: a warning)
DISK_ROOM            blocking   too little free disk for the run (for the cache: a warning, it only costs time)
MEMORY_ROOM          blocking   too little memory for what is asked for (info: it cannot be found out)
GPU_UNUSABLE         blocking   a GPU is needed and none computes
==================== ========== ==================================================================================
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from vesu import _core
from vesu.data.content import ContentCheck
from vesu.data.discover import VOLUME_ID, CsvMismatch, Inventory, Pair, TestVolume
from vesu.data.findings import Finding, PreflightReport, Severity
from vesu.data.machine import available_memory_bytes, free_disk_bytes, gpu_problem
from vesu.data.volumes import Compression
from vesu.errors import ArgumentError, VesuError

_T = TypeVar("_T")

# A volume in float32 with its features (about 30 channels), probability, uncertainty and work arrays.
MEMORY_BYTES_PER_VOXEL = 4 * 40
# Event log, report, model: far more than they have ever taken.
_WORK_BYTES_FIXED = 256 << 20


def preflight(
    inventory: Inventory,
    *,
    work_dir: str | Path,
    cache_dir: str | Path | None = None,
    fraction: float = 0.05,
    need_train: bool = False,
    need_tests: bool = False,
    need_gpu: bool = False,
    work_bytes: int | None = None,
    cache_bytes: int | None = None,
    memory_bytes: int | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
    on_event: Callable[[str, Mapping[str, Any]], object] | None = None,
    package_dir: str | Path | None = None,
) -> PreflightReport:
    """Check headers of all volumes, decode and judge a sample, and look for room on the machine.

    Parameters
    ----------
    inventory : Inventory
        From :func:`vesu.discover`.
    work_dir, cache_dir : path
        Where the run and its cache will write; they need not exist yet.
    fraction : float
        Share of the train pairs and of the test volumes to decode, in (0, 1]; at least one of each.
    need_train, need_tests, need_gpu : bool
        What the run cannot do without.
    work_bytes, cache_bytes, memory_bytes : int, optional
        Room to ask for. Defaults: every test mask twice and uncompressed, plus 256 MiB; all decoded volumes; the
        largest volume with about 40 float32 channels.
    seed : int
        Chooses the sample, by a digest of seed and id: the same sample on every machine.
    n_threads : int, optional
        Threads to decode with.
    on_progress : callable, optional
        Called as ``on_progress(done, total)`` after each decoded pair or test volume.
    on_event : callable, optional
        Called as ``on_event(name, fields)`` with each decision about a decoder for rare compressions (R06).
    package_dir : path, optional
        Where a decoder is installed that is found in a wheelhouse; see :func:`vesu.offline.resolve`.

    Returns
    -------
    PreflightReport
        Call its ``raise_if_blocked()`` before going on.

    Raises
    ------
    ArgumentError
        `fraction` is out of range.

    Notes
    -----
    Requirement R02. A fault of the data or the machine is a finding, never an exception.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from vesu.data.discover import discover
    >>> from vesu.data.preflight import preflight
    >>> from vesu.data.volumes import write_volume
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "test_images").mkdir()
    ...     write_volume(Path(folder) / "test_images" / "7.tif", np.full((4, 4, 4), 9, np.uint8))
    ...     report = preflight(discover(folder), work_dir=folder)
    >>> [(finding.code, finding.severity) for finding in report.findings]
    [('NO_TRAIN_PAIRS', 'warning'), ('CONSTANT_VOLUME', 'blocking')]
    """
    if not 0 < fraction <= 1:
        raise ArgumentError(f"fraction: got {fraction}; accepted: more than 0, at most 1")
    start = time.perf_counter()
    findings = [*_layout_findings(inventory, need_train, need_tests), *_header_findings(inventory)]
    undecodable = _undecodable(inventory, on_event, None if package_dir is None else Path(package_dir))
    findings += undecodable.values()
    readable = {path for path, info in inventory.infos.items() if info.compression not in undecodable}
    pairs = [p for p in inventory.pairs if p.image in readable and p.label in readable]
    tests = [t for t in inventory.tests if t.image in readable]
    chosen_pairs = _choose({p.volume_id: p for p in pairs}, fraction, f"{seed};pairs")
    chosen_tests = _choose({t.volume_id: t for t in tests}, fraction, f"{seed};tests")

    check = ContentCheck(n_threads)
    chosen: list[Pair | TestVolume] = [*chosen_pairs, *chosen_tests]
    for done, volume in enumerate(chosen, start=1):
        check.image(volume.image)
        if isinstance(volume, Pair):
            check.label(volume.label)
        if on_progress is not None:
            on_progress(done, len(chosen))
    findings += check.findings

    voxels = [math.prod(info.shape) for info in inventory.infos.values()]
    if work_bytes is None:
        work_bytes = 2 * sum(map(math.prod, inventory.test_shapes.values())) + _WORK_BYTES_FIXED
    findings += _disk_findings(Path(work_dir), work_bytes, "blocking")
    if cache_dir is not None:
        findings += _disk_findings(Path(cache_dir), sum(voxels) if cache_bytes is None else cache_bytes, "warning")
    findings += _memory_findings(
        max(voxels, default=0) * MEMORY_BYTES_PER_VOXEL if memory_bytes is None else memory_bytes
    )
    if need_gpu and (problem := gpu_problem()) is not None:
        findings.append(Finding("GPU_UNUSABLE", "blocking", None, problem))
    return PreflightReport(
        findings=tuple(findings),
        checked_pairs=len(chosen_pairs),
        checked_tests=len(chosen_tests),
        volumes=tuple(check.volumes),
        seconds=time.perf_counter() - start,
    )


def _choose(volumes: dict[str, _T], fraction: float, salt: str) -> list[_T]:
    """A share of the volumes, at least one: those whose ids have the smallest digests, in the order of their ids."""
    share = math.ceil(fraction * len(volumes) - 1e-9)  # 0.07 * 100 is a little more than 7
    digests = {each: _core.blake3_bytes(f"vesu.preflight.v1;{salt};{each}".encode()) for each in volumes}
    chosen = sorted(digests, key=digests.__getitem__)[: max(1, share)]
    return [volumes[each] for each in sorted(chosen)]


def _layout_findings(inventory: Inventory, need_train: bool, need_tests: bool) -> Iterator[Finding]:
    if not inventory.pairs and not inventory.tests:
        yield Finding("EMPTY_DATASET", "blocking", inventory.root, "no train pair and no test volume")
    elif not inventory.pairs:
        yield Finding("NO_TRAIN_PAIRS", "blocking" if need_train else "warning", inventory.root, "no train pair")
    elif not inventory.tests:
        yield Finding("NO_TEST_VOLUMES", "blocking" if need_tests else "warning", inventory.root, "no test volume")
    if need_train and len(inventory.pairs) == 1:
        yield Finding("TOO_FEW_PAIRS", "blocking", inventory.pairs[0].image, "one pair: another is needed to validate")
    for test in inventory.tests:
        if not VOLUME_ID.fullmatch(test.volume_id):
            accepted = "letters, digits, '_', '-', '.', beginning with a letter, a digit or '_'"
            yield Finding("BAD_ID", "blocking", test.image, f"got the id {test.volume_id!r}; accepted: {accepted}")
    for path in inventory.orphan_images:
        yield Finding("ORPHAN_IMAGE", "blocking", path, "a train image without a label")
    for path in inventory.orphan_labels:
        yield Finding("ORPHAN_LABEL", "blocking", path, "a label without a train image")
    for problem in inventory.problems:
        yield Finding("UNREADABLE", "blocking", problem.path, problem.message)
    for each in inventory.csv_mismatches:
        yield Finding("CSV_MISMATCH", "warning", each.path, each.problem or _csv_text(each))


def _csv_text(mismatch: CsvMismatch) -> str:
    parts = []
    for ids, what in ((mismatch.ids_without_image, "without an image"), (mismatch.ids_not_listed, "not listed")):
        if ids:
            parts.append(f"{len(ids)} ids {what}: {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}")
    return "; ".join(parts)


def _header_findings(inventory: Inventory) -> Iterator[Finding]:
    labels = {pair.label for pair in inventory.pairs} | set(inventory.orphan_labels)
    for path, info in inventory.infos.items():
        if min(info.shape) < 2:
            yield Finding("NOT_3D", "blocking", path, f"got shape {info.shape}; accepted: at least 2 on every axis")
        dtype, is_label = str(info.dtype), path in labels
        if dtype == "uint8":
            continue
        if is_label or dtype not in ("uint16", "float32"):
            accepted = "uint8" if is_label else "uint8, uint16 or float32"
            yield Finding("DTYPE", "blocking", path, f"got {dtype}; accepted: {accepted}")
        else:
            yield Finding("DTYPE", "warning", path, f"got {dtype}; the competition's volumes are uint8")
    for pair in inventory.pairs:
        image, label = inventory.infos.get(pair.image), inventory.infos.get(pair.label)
        if image is not None and label is not None and image.shape != label.shape:
            message = f"image is {image.shape}, label is {label.shape}"
            yield Finding("SHAPE_MISMATCH", "blocking", pair.label, message)


def _undecodable(
    inventory: Inventory, on_event: Callable[[str, Mapping[str, Any]], object] | None, package_dir: Path | None
) -> dict[str, Finding]:
    """The compressions that neither vesu nor a decoder at hand reads, each with a finding on its first volume."""
    first = {info.compression: path for path, info in reversed(inventory.infos.items())}
    foreign_ones = sorted(first.keys() - set(get_args(Compression)))
    if on_event is not None:
        on_event("OFFLINE_NEED", {"compressions_seen": sorted(first), "decoder_needed_for": foreign_ones})
    found = {}
    for compression in foreign_ones:
        from vesu.data import foreign  # loads when such a file is met

        try:
            foreign.prove(first[compression], compression, emit=on_event, target=package_dir)
        except VesuError as error:
            found[compression] = Finding("UNREADABLE", "blocking", first[compression], str(error))
    return found


def _disk_findings(folder: Path, needed: int, severity: Severity) -> Iterator[Finding]:
    try:
        free = free_disk_bytes(folder)
    except OSError as error:
        yield Finding("UNWRITABLE", severity, folder, f"cannot be written to: {error.strerror or error}")
        return
    if free < needed:
        yield Finding("DISK_ROOM", severity, folder, f"{_gib(free)} are free; about {_gib(needed)} are needed")


def _memory_findings(needed: int) -> Iterator[Finding]:
    available = available_memory_bytes()
    if available is None:
        yield Finding("MEMORY_ROOM", "info", None, "the available memory cannot be found out on this system")
    elif available < needed:
        message = f"{_gib(available)} are available; about {_gib(needed)} are needed"
        yield Finding("MEMORY_ROOM", "blocking", None, message)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
