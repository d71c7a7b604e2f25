"""What checkpoints tell the event log."""

from pathlib import Path
from typing import Any, Protocol

from vesu.run.checkpoint.files import Checkpoint

__all__ = ["Emit", "described", "teller"]

_FIELDS = (
    "sequence",
    "kind",
    "phase",
    "epoch",
    "candidate_first",
    "candidate_index",
    "iter",
    "max_iter",
    "sha512_payload",
)


class Emit(Protocol):
    """Takes an event, as :meth:`vesu.run.events.EventLog.emit` does."""

    def __call__(self, name: str, /, **fields: Any) -> object: ...


def teller(emit: Emit | None) -> Emit:
    """``emit``, or nobody, given texts that UTF-8 can hold: a path may have any bytes."""

    def tell(name: str, /, **fields: Any) -> None:
        if emit is not None:
            emit(name, **{key: _printable(value) for key, value in fields.items()})

    return tell


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields that say which checkpoint an event is about."""
    manifest = checkpoint.manifest
    return {
        "path": checkpoint.path,
        **{name: getattr(manifest, name) for name in _FIELDS},
        "checkpoint_ts_ns": manifest.ts_ns,
        "n_bytes": sum(part.n_bytes for part in manifest.parts.values()),
    }


def _printable(value: Any) -> Any:
    if isinstance(value, str | Path):
        return str(value).encode("utf-8", "backslashreplace").decode()
    return value
