"""The verdict at the end of a session: compared with the best recorded, judged, logged, written down (R44)."""

import hashlib
import statistics
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from vesu import _core
from vesu.config.gates import NO_BOOK
from vesu.data.cache import content_id
from vesu.data.discover import Inventory
from vesu.data.storage import write_json_atomic
from vesu.errors import VesuError
from vesu.ledger import canonical_json
from vesu.run.events import EventLog
from vesu.run.gates import outcome
from vesu.run.gates.best import BEST_RECORDED, BestRecorded, RecordedScore
from vesu.run.gates.evidence import Evidence, read_evidence
from vesu.run.gates.judging import GO_NO_GO_FILE, judge
from vesu.run.gates.verdict import GateReport
from vesu.run.session import Session

__all__ = ["conclude", "write_verdict"]


def conclude(session: Session, inventory: Inventory, cache_folder: Path, *, finished: bool) -> dict[str, Any]:
    """Judge this run, log ``GO_NO_GO``, write ``go_no_go.json``; what stands in it.

    Parameters
    ----------
    session : Session
        Its log and folder are what is judged.
    inventory : Inventory
        Where the validation volumes lie.
    cache_folder : Path
        Holds ``best_recorded.json``, unless ``gates.best_recorded`` names another place.
    finished : bool
        Whether the run came to its end: only then is its score compared with the best recorded, and written down
        where every gate passed.

    Raises
    ------
    FileError
        The log cannot be written or read; the verdict cannot be written.
    """
    named = session.config.gates.best_recorded
    session.log.sync()
    if not finished or named == NO_BOOK:
        report = judge(session.folder)
    else:
        report = _with_book(session, inventory, BestRecorded(Path(named or cache_folder / BEST_RECORDED)))
    return _written(session, report)


def write_verdict(folder: Path, log: EventLog) -> None:
    """``go_no_go.json`` as it stands now: there is one beside every zip, that of a run that is killed too.

    A verdict that cannot be written never costs the run.
    """
    with suppress(VesuError, OSError):  # likely a full disk, and then not the first to say so
        log.sync()
        write_json_atomic(folder / GO_NO_GO_FILE, judge(folder).to_json())


def _written(session: Session, report: GateReport) -> dict[str, Any]:
    found = report.to_json()
    session.log.emit(
        "GO_NO_GO", **{key: found[key] for key in ("verdict", "failed", "gates", "ledger", "submission_sha256")}
    )
    write_json_atomic(session.folder / GO_NO_GO_FILE, found)
    return found


def _with_book(session: Session, inventory: Inventory, book: BestRecorded) -> GateReport:
    """Compare, judge, and write down what is better, while no other run does."""
    problem = None
    with ExitStack() as stack:
        try:
            stack.enter_context(book.held())
        except VesuError as error:
            problem = str(error)
        own = _compared(session, inventory, book)
        session.log.sync()
        report = judge(session.folder)
        if own is not None and report.go:
            _record(session, book, own, problem)
    return report


def _compared(session: Session, inventory: Inventory, book: BestRecorded) -> RecordedScore | None:
    """Look up the best score on this run's validation volumes and log it; this run's own one, None without labels."""
    evidence = read_evidence(session.folder, outcome.EVENTS)
    found = outcome.measured(evidence)
    if found is None:
        return None
    by_volume = outcome.scores_of(found)
    pairs = {pair.volume_id: pair for pair in inventory.pairs}
    volumes = {name: (content_id(pairs[name].image), content_id(pairs[name].label)) for name in by_volume}
    best, others, problem = None, 0, None
    try:
        best = book.best(outcome.METRIC, volumes)
        others = book.count() - (best is not None)
    except VesuError as error:
        problem = str(error)
    own = _own(session, evidence, statistics.fmean(by_volume.values()), volumes)
    session.log.emit(
        outcome.COMPARED,
        metric=outcome.METRIC,
        volumes={name: list(files) for name, files in volumes.items()},
        score=own.score,
        config_digest=own.config_digest,
        best=None if best is None else _shown(best),
        others=others,
        problem=problem,
    )
    return own


def _own(session: Session, evidence: Evidence, score: float, volumes: Mapping[str, tuple[str, str]]) -> RecordedScore:
    digest = hashlib.sha256(canonical_json(evidence.config)).hexdigest()
    config = session.config
    return RecordedScore(
        outcome.METRIC, volumes, score, session.log.run_id, config.pipeline, _core.__version__, config.seed, digest,
        ledger_root=evidence.root,
    )  # fmt: skip


def _shown(best: RecordedScore) -> dict[str, Any]:
    names = ("score", "run_id", "pipeline", "version", "seed", "config_digest", "ledger_root")
    return {name: getattr(best, name) for name in names}


def _record(session: Session, book: BestRecorded, own: RecordedScore, problem: str | None) -> None:
    """Write a better score down; a file that cannot be written costs the record, not the run."""
    written = False
    if problem is None:
        try:
            written = book.record(own)
        except VesuError as error:
            problem = str(error)
    session.log.emit(
        "BEST_RECORDED_UPDATED" if written else "BEST_RECORDED_KEPT",
        metric=own.metric,
        score=own.score,
        reason=problem or ("better than what stood there" if written else "not better than what stands there"),
    )
