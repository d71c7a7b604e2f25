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
    if state.calibrated is not None:
        yield {"event": "CALIBRATED", "validation": dict(state.calibrated.validation)}
