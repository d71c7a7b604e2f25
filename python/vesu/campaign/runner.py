"""A campaign from its matrix to its comparison: every run in a process and a folder of its own (R43)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vesu.campaign.compare import Comparison, compare
from vesu.campaign.holdout import DATA, LABELS, link_data
from vesu.campaign.markdown import markdown
from vesu.campaign.matrix import Matrix, load_matrix
from vesu.campaign.plan import BASE, CampaignPlan, PlannedRun, keep_plan, plan_campaign, read_kept_plan
from vesu.campaign.preflight import preflight_plan
from vesu.campaign.process import run_to_its_end, wait_until_free
from vesu.campaign.record import RunRecord, examine, forget_record, keep_record, settled
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.errors import DataError, FileError, VesuError
from vesu.report import MissingExtraError
from vesu.run.checkpoint import CHECKPOINTS, CheckpointStore
from vesu.run.events import EventLog
from vesu.run.folder import locked
from vesu.run.interrupts import StopRequested, Stops, stop_on_signals

__all__ = ["compare_campaign", "run_campaign", "run_part"]

MARK = ".vesu-campaign"
RUNS, CACHE = "runs", "cache"

Announce = Callable[[str], None]


def run_campaign(
    matrix: str | Path | Matrix,
    data: str | Path | None = None,
    out: str | Path = "campaign",
    *,
    cache: str | Path | None = None,
    settings: Sequence[str] = (),
    announce: Announce | None = None,
) -> Comparison:
    """Run every variant with every seed, score them on volumes that none learned from, and compare them.

    Parameters
    ----------
    matrix : path or Matrix
        See :func:`vesu.campaign.load_matrix`.
    data : path, optional
        Folder in the competition's layout; default: found as :func:`vesu.discover` does.
    out : path
        The campaign's folder, made if missing. A campaign that was interrupted goes on: finished runs are checked and
        kept, an unfinished one goes on from its checkpoint, a failed one is tried again.
    cache : path, optional
        Folder of decoded volumes and features that all runs share, default ``out/cache``.
    settings : sequence of str
        ``"key=value"`` for all runs, such as ``"n_threads=1"``.
    announce : callable, optional
        Gets a line for each run.

    Returns
    -------
    Comparison
        Also where runs failed: they are in its ``failed``. ``out`` holds it as ``comparison.json``, ``.md``, ``.html``.

    Raises
    ------
    ArgumentError
        The matrix, or a run's configuration.
    DataError, PreflightError
        Nothing usable was found, or preflight found something that blocks a run: then none is begun.
    ResumeIncompatible
        ``out`` holds a campaign with other data, or other settings under a run's id.
    KeyboardInterrupt, SystemExit
        SIGINT or SIGTERM came; the run at work has saved its state.
    VesuError
        Anything else that stops the campaign; a run that fails does not.

    Notes
    -----
    Requirements R26, R43. Labels of the scoring volumes are given to no run. ``out/events.jsonl`` is the campaign's own
    log; the runs' logs lie in their folders.

    Examples
    --------
    >>> run_campaign("examples/campaigns/nx46_v75.toml", "scroll", "campaign").standing  # doctest: +SKIP
    'q985-b78-z2'
    """
    plan, where = plan_campaign(_matrix(matrix), data, settings=settings), Path(out)
    room = Path(cache) if cache is not None else where / CACHE
    preflight_plan(plan, where, room).raise_if_blocked()
    keep_plan(plan, where)
    with _log(where, "events.jsonl", MARK) as (log, stops):
        _run_all(_Campaign(plan, where, room, log, stops, announce or _silent), plan.runs)
        return _compared(plan.matrix, where, log)


def run_part(
    matrix: str | Path | Matrix,
    data: str | Path | None = None,
    out: str | Path = "campaign",
    *,
    num_parts: int,
    part_id: int,
    cache: str | Path | None = None,
    settings: Sequence[str] = (),
    announce: Announce | None = None,
) -> tuple[RunRecord, ...]:
    """One machine's share of a campaign's runs; :func:`compare_campaign` puts all shares together.

    Parameters
    ----------
    matrix, data, out, cache, settings, announce
        As for :func:`run_campaign`. ``out`` is a folder that all machines share, or one that is copied together later.
    num_parts, part_id : int
        In how many parts the runs are divided, and which this is, from 0.

    Returns
    -------
    tuple of RunRecord
        Of the runs that fall to this part.

    Raises
    ------
    VesuError
        As :func:`run_campaign` does.

    Notes
    -----
    Requirement R43. The log is ``events-part-K.jsonl``.

    Examples
    --------
    >>> records = run_part("matrix.toml", "scroll", "campaign", num_parts=2, part_id=0)  # doctest: +SKIP
    """
    plan, where = plan_campaign(_matrix(matrix), data, settings=settings), Path(out)
    runs, room = plan.part(num_parts, part_id), Path(cache) if cache is not None else where / CACHE
    preflight_plan(plan, where, room).raise_if_blocked()
    keep_plan(plan, where)
    with _log(where, f"events-part-{part_id}.jsonl", f"{MARK}-part-{part_id}") as (log, stops):
        campaign = _Campaign(plan, where, room, log, stops, announce or _silent)
        return _run_all(campaign, runs, num_parts=num_parts, part_id=part_id)


def compare_campaign(matrix: str | Path | Matrix, out: str | Path = "campaign") -> Comparison:
    """Compare the runs that lie in a campaign's folder, whoever made them; none is made.

    Parameters
    ----------
    matrix : path or Matrix
        As it was for the runs; baseline, kind of promotion, smallest gain and confidence may differ.
    out : path
        The campaign's folder.

    Returns
    -------
    Comparison
        Written into ``out`` too. What is missing, unfinished or damaged is in its ``failed``.

    Raises
    ------
    ArgumentError
        The matrix has a run that the campaign had not planned.
    DataError
        ``out`` holds no campaign.
    VesuError
        Its plan or log cannot be read.

    Notes
    -----
    Requirement R43.

    Examples
    --------
    >>> compare_campaign("matrix.toml", "campaign").standing  # doctest: +SKIP
    'q985'
    """
    found, where = _matrix(matrix), Path(out)
    read_kept_plan(where)  # before a log is begun in a folder that is none
    with _log(where, "events.jsonl", MARK) as (log, _):
        return _compared(found, where, log)


@dataclass(frozen=True)
class _Campaign:
    plan: CampaignPlan
    out: Path
    cache: Path
    log: EventLog
    stops: Stops
    announce: Announce

    def folder(self, run: PlannedRun) -> Path:
        return self.out / RUNS / run.key


def _run_all(
    campaign: _Campaign, runs: Sequence[PlannedRun], *, num_parts: int = 1, part_id: int = 0
) -> tuple[RunRecord, ...]:
    """Every run in turn; one that fails does not stop the others."""
    plan, log = campaign.plan, campaign.log
    link_data(plan.holdout, campaign.out)
    log.emit(
        "CAMPAIGN_START",
        name=plan.matrix.name,
        matrix=plan.matrix.to_json(),
        settings=list(plan.settings),
        data=plan.holdout.to_json(),
        runs=[run.key for run in runs],
        num_parts=num_parts,
        part_id=part_id,
    )
    records = []
    for done, run in enumerate(runs, start=1):
        record = _one(campaign, run)
        records.append(record)
        campaign.announce(f"{done}/{len(runs)} {run.variant.id}, seed {run.seed}: {_told(record)}")
    return tuple(records)


def _one(campaign: _Campaign, run: PlannedRun) -> RunRecord:
    """Make a run, or keep the one that is there; scored, and told in the log."""
    key, ids = (run.variant.id, run.seed), campaign.plan.holdout.ids
    folder = campaign.folder(run)
    before = found = examine(folder, key, run.decides, ids)
    if before.state == "foreign":
        found = RunRecord(*key, "failed", f"{folder} holds another run: {before.reason}; accepted: another id")
    elif not before.finished:
        try:
            found = _made(campaign, run, before)
        except VesuError as error:  # of this run's folder: the others need not care
            found = RunRecord(*key, "failed", str(error))
    archive, labels = folder / "submission.zip", campaign.out / LABELS
    record = settled(campaign.out, found, archive, labels, run.config.n_threads)
    if record.finished:
        campaign.log.emit("CAMPAIGN_RUN_DONE", kept=before.finished, **record.to_json())
    else:
        keep_record(campaign.out, record)
        campaign.log.emit("CAMPAIGN_RUN_FAILED", **record.to_json())
    return record


def _made(campaign: _Campaign, run: PlannedRun, before: RunRecord) -> RunRecord:
    """Run it to its end in a process of its own, and read from its folder what came of it."""
    folder, out, key = campaign.folder(run), campaign.out, (run.variant.id, run.seed)
    wait_until_free(folder)
    goes_on = before.state != "damaged" and CheckpointStore(folder / CHECKPOINTS).latest() is not None
    how = ["--resume-from-checkpoint"] if goes_on else ["--restart"]
    campaign.log.emit(
        "CAMPAIGN_RUN_START",
        run=run.variant.id,
        seed=run.seed,
        tags=list(run.variant.tags),
        settings=dict(run.variant.settings),
        found=before.state,
        why=before.reason,
        resumed=goes_on,
    )
    forget_record(out, *key)
    make_folder(folder.parent)
    words = ["run", out / DATA, "--out", folder, "--cache", campaign.cache, "--config", out / BASE, "--quiet", *how]
    for override in campaign.plan.overrides(run):
        words += ["--set", override]
    ended = run_to_its_end([str(word) for word in words], campaign.stops)
    found = examine(folder, key, run.decides, campaign.plan.holdout.ids)
    if found.finished:  # whatever the exit code: a verdict against the run has one of its own
        return found
    reason = str(ended) if found.state != "foreign" else f"{ended}; {found.reason}"
    return RunRecord(*key, "failed", reason)


def _compared(matrix: Matrix, out: Path, log: EventLog) -> Comparison:
    """From the folders alone: every run examined anew, decisions told, files written."""
    kept = read_kept_plan(out)
    ids = tuple(kept["data"]["scored"])
    records = []
    for seed in matrix.seeds:
        for variant in matrix.variants:
            key = f"{variant.id}/seed-{seed}"
            if key not in kept["runs"]:
                raise DataError(f"run {key}: is not in the campaign of {out}; accepted: {', '.join(kept['runs'])}")
            folder = out / RUNS / key
            found = examine(folder, (variant.id, seed), kept["runs"][key], ids)
            records.append(settled(out, found, folder / "submission.zip", out / LABELS))
    comparison = compare(matrix, records, ids, emit=lambda name, fields: log.emit(name, **fields))
    _write(comparison, out)
    log.emit(
        "CAMPAIGN_DONE",
        runs=comparison.n_runs,
        finished=comparison.n_runs - len(comparison.failed),
        failed=[f"{each.id}/seed-{each.seed}" for each in comparison.failed],
        promoted=[each.variant for each in comparison.promotions if each.promoted],
        standing=comparison.standing,
    )
    return comparison


def _write(comparison: Comparison, out: Path) -> None:
    write_json_atomic(out / "comparison.json", comparison.to_json())
    write_bytes_atomic(out / "comparison.md", markdown(comparison).encode("utf-8", "replace"))
    _write_page(comparison, out)


def _write_page(comparison: Comparison, out: Path) -> None:
    page = out / "comparison.html"
    page.unlink(missing_ok=True)  # rather none than that of an earlier comparison
    try:
        from vesu.campaign.page import render

        write_bytes_atomic(page, render(comparison, out).encode("utf-8", "replace"))
    except MissingExtraError:
        pass  # the other two hold everything but the pictures


@contextmanager
def _log(out: Path, name: str, mark: str) -> Iterator[tuple[EventLog, Stops]]:
    """The campaign's own log, and the folder to itself; a request to stop is told and goes on.

    Raises
    ------
    KeyboardInterrupt, SystemExit
        After SIGINT, SIGTERM.
    """
    try:
        with locked(out, mark), EventLog(out / name, run_id=out.name or "campaign") as log:
            try:
                with stop_on_signals(emit=log.emit) as stops:
                    yield log, stops
            except StopRequested as stop:
                log.emit("CAMPAIGN_STOPPED", reason=stop.reason)
                if stop.reason == "SIGINT":
                    raise KeyboardInterrupt from None
                raise SystemExit(143) from None
            except VesuError as error:
                log.emit("CAMPAIGN_FAILED", error=type(error).__name__, message=str(error))
                raise
    except VesuError:
        raise
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), error.filename or str(out)) from error


def _matrix(matrix: str | Path | Matrix) -> Matrix:
    return matrix if isinstance(matrix, Matrix) else load_matrix(matrix)


def _told(record: RunRecord) -> str:
    if not record.finished:
        return f"{record.state}: {record.reason}"
    return f"score {record.mean('score'):.4f}, density {record.mean('density'):.4f}, {record.seconds:.1f} s"


def _silent(_: str) -> None:
    """Nobody listens."""
