"""The beginning of a session: the folder claimed, the checkpoint found, the log opened."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vesu.config import RunConfig
from vesu.errors import EvidenceError
from vesu.ledger import parse_checkpoint
from vesu.run.checkpoint import CHECKPOINTS, Checkpoint, CheckpointStore, Publisher, find_checkpoint, publisher_from
from vesu.run.clock import Clock, SessionClock, session_start_ns
from vesu.run.events import EventLog
from vesu.run.folder import claimed
from vesu.run.governor import Governor
from vesu.run.interrupts import stop_on_signals
from vesu.run.session import Session
from vesu.run.state import RunState

__all__ = ["RESULTS_ZIP", "opened"]

RESULTS_ZIP = "results.zip"


@contextmanager
def opened(
    out: Path, config: RunConfig, *, resume: str | Path | None, restart: bool, retrain_changed: bool
) -> Iterator[Session]:
    """A session of the run in ``out``: a new run, or with ``resume`` the one that a checkpoint holds (R37).

    Raises
    ------
    DataError, FileError
        See :func:`vesu.run.folder.claimed`; no checkpoint that verifies.
    FormatError, EvidenceError
        A checkpoint that does not hold a run; a log that does not verify.
    """
    publisher = publisher_from(config.checkpoint.publish)
    with claimed(out, goes_on=resume is not None, restart=restart) as folder:
        looked: list[tuple[str, dict[str, Any]]] = []  # the log's run id stands in the checkpoint
        found = None
        if resume is not None:
            found = find_checkpoint(
                resume,
                artefact=publisher,
                output=folder,
                results_zip=folder / RESULTS_ZIP,
                emit=lambda name, /, **fields: looked.append((name, fields)),
            )
            if resume == "latest":
                found = _newest(found, CheckpointStore(folder / CHECKPOINTS), looked)
        state = RunState(uuid.uuid4().hex) if found is None else RunState.of(found)
        durable = None if found is None else (found.manifest.merkle_size, found.manifest.merkle_curr)
        with EventLog(folder / "events.jsonl", run_id=state.run_id, durable=durable) as log:
            if found is not None:
                _check_log(log, found)
            for name, fields in looked:
                log.emit(name, **fields)
            clock = Clock()
            lasted = SessionClock(clock, session_started_ns=session_start_ns(), earlier_s=state.total_s)
            governor = Governor(log.emit, config.time, lasted)
            store = CheckpointStore(
                folder / CHECKPOINTS, keep=config.checkpoint.keep, emit=log.emit, publishers=_listed(publisher)
            )
            if found is not None:
                found = store.load(found.path)  # its tree head is the next one's predecessor
            with stop_on_signals(governor, emit=log.emit) as stops:
                yield Session(folder, config, log, clock, lasted, governor, stops, store, state, found, retrain_changed)


def _newest(found: Checkpoint, here: CheckpointStore, looked: list[tuple[str, dict[str, Any]]]) -> Checkpoint:
    """A published checkpoint comes first (R37), unless the folder holds a later one of the same run: not all are
    published, and no more than an interval may be lost."""
    own = here.latest()
    if own is None or own.manifest.run_id != found.manifest.run_id or own.manifest.sequence <= found.manifest.sequence:
        return found
    fields = {"sequence": own.manifest.sequence, "published": found.manifest.sequence}
    looked.append(("CHECKPOINT_NEWER_IN_OUTPUT", fields))
    return own


def _check_log(log: EventLog, found: Checkpoint) -> None:
    """The log must hold what the checkpoint saw: it goes on from the same record."""
    manifest = found.manifest
    if log.size == 0:
        # A new folder: the run goes on from a checkpoint that was carried there without its log.
        log.emit("LEDGER_CONTINUED_ELSEWHERE", tree_head=manifest.tree_head)
        return
    head = parse_checkpoint(manifest.tree_head)
    same = head.size == manifest.merkle_size <= log.size and log.root_at(head.size) == head.root
    if not same:
        raise EvidenceError(
            f"{log.path}: its first {manifest.merkle_size} records are not those that checkpoint "
            f"{found.path.name} saw; accepted: the log of the same run"
        )


def _listed(publisher: Publisher | None) -> tuple[Publisher, ...]:
    return () if publisher is None else (publisher,)
