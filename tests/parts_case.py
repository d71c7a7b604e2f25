"""Parts of a mini run, as the tests make them."""

from pathlib import Path
from typing import Any

import vesu
from vesu.run.parts import PartReport, Phase, make_part

SEGMENTED = ("segment/*.json", "segment/*_views.npz", "segment/*_steps.npz")
"""What stands beside the masks."""


def made(
    dataset: Path, folder: Path, config: vesu.RunConfig, phase: Phase, *, num_parts: int = 2, **how: Any
) -> list[PartReport]:
    """All parts of a phase, one after the other."""
    return [
        make_part(dataset, folder / str(k), phase=phase, num_parts=num_parts, part_id=k, config=config, **how)
        for k in range(num_parts)
    ]


def files_of(*parts: PartReport) -> dict[str, str]:
    """BLAKE3 of every file of the parts' volumes."""
    return {name: blake3 for part in parts for record in part.records for name, blake3 in record.files.items()}
