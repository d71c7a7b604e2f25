"""The beginning of a session: the folder claimed, the checkpoint found, the log opened."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vesu.config import RunConfig
from vesu.run.checkpoint import CHECKPOINTS, Checkpoint, CheckpointStore, Publisher, find_checkpoint, publisher_from
from vesu.run.clock import Clock, SessionClock, session_start_ns
from vesu.run.events import EventLog
from vesu.run.folder import claimed
from vesu.run.gates.carrying import carried
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

    Requests to stop are held back until ``session.stops.taken_over()``.

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
        log_path = folder / "events.jsonl"
        with EventLog(log_path, run_id=state.run_id, durable=_durable(log_path, found)) as log:
            if found is not None and log.size == 0:
                # A new folder: the run goes on from a checkpoint that was carried there without its log.
                log.emit("LEDGER_CONTINUED_ELSEWHERE", tree_head=found.manifest.tree_head)
                for record in carried(state):
                    log.emit("EVIDENCE_CARRIED", record=record)
                state.distillation = None if state.distillation is None else state.distillation.carried()
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
            with stop_on_signals(governor, emit=log.emit, held=True) as stops:
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


def _durable(log: Path, found: Checkpoint | None) -> tuple[int, str] | None:
    """What of the log the checkpoint saw on disk: it must be there, and damage behind it is a torn tail."""
    if found is None or not log.exists() or log.stat().st_size == 0:
        return None
    return found.manifest.merkle_size, found.manifest.merkle_curr


def _listed(publisher: Publisher | None) -> tuple[Publisher, ...]:
    return () if publisher is None else (publisher,)
