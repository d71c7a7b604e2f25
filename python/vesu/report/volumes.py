"""The segmented volumes (``segment/ID.json``): density, thresholds, steps, and where their slices would be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vesu.errors import DataError
from vesu.report.jsonfile import Node

STEP_COUNTS = (
    "voxels_before", "voxels_after", "voxels_added", "voxels_removed", "components", "tunnels", "cavities",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What one segmentation step changed."""

    name: str
    voxels_before: int | None
    voxels_after: int | None
    voxels_added: int | None
    voxels_removed: int | None
    components: int | None
    tunnels: int | None
    cavities: int | None


@dataclass(frozen=True)
class Volume:
    """One segmented volume: ``segment/ID.json``, and where its slices would be."""

    volume_id: str
    shape: tuple[int, ...]
    low: float | None
    high: float | None
    ink_ratio_global: float | None
    ink_ratio_by_slice: tuple[float, ...]
    percentiles: Mapping[str, float]
    density_warning: str | None
    steps: tuple[Step, ...]
    truth: Mapping[str, float]
    views_path: Path
    steps_path: Path


def read_volume(path: Path) -> Volume:
    """One volume's diagnostics.

    Raises
    ------
    DataError
        The file is gone.
    FormatError
        Malformed JSON, or a field of the wrong type; the message names file and field.
    """
    node = Node.read(path)
    if node is None:
        raise DataError(f"{path}: vanished while the report was being written")
    thresholds = node.child("thresholds") or Node({}, node.where)
    return Volume(
        volume_id=node.text("volume_id") or path.stem,
        shape=node.shape(),
        low=thresholds.number("low"),
        high=thresholds.number("high"),
        ink_ratio_global=node.number("ink_ratio_global"),
        ink_ratio_by_slice=node.numbers("ink_ratio_by_slice"),
        density_warning=node.text("density_warning"),
        percentiles=node.mapping_of_numbers("probability_percentiles"),
        steps=tuple(
            Step(each.text("name") or "(no name)", **{key: each.integer(key) for key in STEP_COUNTS})
            for each in node.children("steps")
        ),
        truth=node.numbers_of("truth"),
        views_path=path.with_name(f"{path.stem}_views.npz"),
        steps_path=path.with_name(f"{path.stem}_steps.npz"),
    )
