"""What of a checkpoint's evidence a log without its past takes over (R36, R44)."""

from collections.abc import Iterator, Mapping
from typing import Any

from vesu.run.state import RunState

__all__ = ["carried"]


def carried(state: RunState) -> Iterator[Mapping[str, Any]]:
    """The records that a run needs which goes on in a new folder, each to be logged as ``EVIDENCE_CARRIED``.

    Notes
    -----
    They come out of a checkpoint, whose payload is sealed and whose log's tree head stands right before them as
    ``LEDGER_CONTINUED_ELSEWHERE``; the gates take them only there.
    """
    if state.distillation is not None:
        yield from state.distillation.evidence
    if state.tuning is not None:
        searched = state.tuning.final or state.tuning.search
        for number, each in enumerate([*searched["decisions"], *state.tuning.calibration]):
            yield {"event": "AUTO_TUNE_POLICY_DECISION", "number": number, **each}
    if state.calibrated is not None:
        yield {"event": "CALIBRATED", "validation": dict(state.calibrated.validation)}
    if state.guided is not None:
        yield from _guided(state.guided.report)


def _guided(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The phase as its own events tell of it."""
    known = {**report.get("reference", {}), **report}
    told = {
        "COMPETITOR_TIFF_LOAD_OK": ("volume_id", "path", "sha256", "shape"),
        "COMPETITOR_GUIDED_PHASE_START": ("volume_id", "target", "voxels_fit", "voxels_held_out"),
        "COMPETITOR_ALIGNMENT_DELTA": ("volume_id", "before", "after", "delta", "intended"),
        "COMPETITOR_GUIDED_PHASE_DONE": ("volume_id", "state", "reason"),
    }
    for name, fields in told.items():
        yield {"event": name, **{field: known[field] for field in fields if field in known}}
