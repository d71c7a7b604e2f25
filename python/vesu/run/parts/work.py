"""Making a part: :func:`make_part`, from the command's words to a sealed folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from vesu.config import RunConfig
from vesu.data.discover import Inventory, Pair, TestVolume, discover
from vesu.data.preflight import preflight
from vesu.errors import ArgumentError, DataError, VesuError
from vesu.features import FeatureSpec
from vesu.run import compatibility, evidence
from vesu.run.events import EventLog
from vesu.run.interrupts import StopRequested, stop_on_signals
from vesu.run.outputs import printable
from vesu.run.parts import features, masks
from vesu.run.parts.place import OnVolume, Place, claimed, run_id_of
from vesu.run.parts.plan import Phase, Plan, made_by, volumes_of
from vesu.run.parts.record import EVENTS, PART, PartReport, kept_record, read_part, write_part
from vesu.run.plan import configured_split
from vesu.run.teaching import DistillationPlan, hard_fail, plan_distillation

__all__ = ["make_part"]


def make_part(
    data: str | Path | None,
    out: str | Path,
    *,
    phase: Phase,
    num_parts: int = 1,
    part_id: int = 0,
    config: RunConfig | None = None,
    model: str | Path | None = None,
    restart: bool = False,
    on_volume: OnVolume | None = None,
) -> PartReport:
    """Do one part of a phase, or go on with it, and seal the folder.

    Parameters
    ----------
    data : path, optional
        The whole data set, as :func:`vesu.run` takes it: every machine sees all of it and works on its part.
    out : path
        The part's own folder. Where an earlier session of this very part was killed, it goes on.
    phase : {"features", "segment"}
        ``"features"``: the training and validation volumes are loaded and their voxels sampled, for every epoch that
        may come; where a student is due, the teachers answer too. ``"segment"``: masks of the test volumes.
    num_parts, part_id : int
        How many parts there are, and which one this is, from 0.
    config : RunConfig, optional
        The run's; the same for all parts. Threads and room may differ.
    model : path, optional
        For ``"segment"``: the folder of the run whose model segments. A historical scorer needs none.
    restart : bool
        Give up what another part left in ``out``, or what this one did so far.
    on_volume : callable, optional
        Called as ``on_volume(volume_id, done, total)`` after each volume.

    Returns
    -------
    PartReport
        Read back from the folder and verified.

    Raises
    ------
    ArgumentError
        An argument out of range, or one that does not go with another; the message names it.
    DataError, PreflightError
        Nothing to work on; ``out`` holds another part; preflight found something that blocks.
    DistillationNotExecuted
        A student is due, and its teachers cannot answer here.
    KeyboardInterrupt, SystemExit
        SIGINT or SIGTERM came; the volumes that are done stay done.
    VesuError
        Anything else that went wrong, with the file named.

    Notes
    -----
    Requirements R09, R38, R53. Which volumes fall to a part is decided by their ids and sizes alone
    (:func:`vesu.run.parts.assign`), so no machine needs to know another. What a volume gives does not depend on the
    part that it is in: a run made of parts has the model, masks and zip of a run in one process, bit for bit.

    Examples
    --------
    >>> from vesu.run.parts import make_part
    >>> part = make_part("data", "part-0", phase="features", num_parts=2, part_id=0)  # doctest: +SKIP
    >>> print(part)  # doctest: +SKIP
    """
    config = config or RunConfig()
    _check(phase, num_parts, part_id, config, model)
    inventory = discover(data)
    teaching = _teaching(phase, config, inventory)
    items = _items(phase, config, inventory)
    plan = Plan(
        phase=phase,
        num_parts=num_parts,
        part_id=part_id,
        volumes=volumes_of(inventory, items),
        config=compatibility.config_fields(config, student=teaching.due),
        made_by=made_by(),
        model={} if model is None else masks.model_files(Path(model)),
        teachers={teacher.name: teacher.digest for teacher in teaching.teachers},
    )
    own = [item for item in items if item.volume_id in set(plan.assigned)]
    with claimed(Path(out), plan, restart=restart) as folder:
        if (whole := _whole(folder)) is not None:
            return whole
        log_path = folder / EVENTS
        with EventLog(log_path, run_id=run_id_of(log_path)) as log, stop_on_signals(emit=log.emit) as stops:
            place = Place(folder, plan, config, log, stops, on_volume or (lambda *_: None))
            try:
                _begin(place)
                with place.watched():
                    _work(place, inventory, own, teaching, model)
            except StopRequested as stop:
                log.emit("PART_STOPPED", reason=stop.reason, done=len(place.records))
                raise (KeyboardInterrupt() if stop.reason == "SIGINT" else SystemExit(143)) from None
            except VesuError as error:
                log.emit("PART_FAILED", error=type(error).__name__, message=str(error))
                raise
            log.emit("PART_END", volumes=sorted(place.records))
        write_part(folder, plan, [place.records[name] for name in plan.assigned], log.run_id)
        return read_part(folder)


def _check(phase: Phase, num_parts: int, part_id: int, config: RunConfig, model: str | Path | None) -> None:
    if config.dry_run:
        raise ArgumentError("config.dry_run: got True for a part; accepted: for a run in one piece")
    if phase not in get_args(Phase):
        raise ArgumentError(f"phase: got {phase!r}; accepted: one of {get_args(Phase)}")
    for name, value, low in (("num_parts", num_parts, 1), ("part_id", part_id, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ArgumentError(f"{name}: got {value!r}; accepted: an integer, {low} or more")
    if part_id >= num_parts:
        raise ArgumentError(f"part_id: got {part_id} of num_parts {num_parts}; accepted: 0 to {num_parts - 1}")
    if phase == "features":
        if config.pipeline != "vesu":
            raise ArgumentError(f"phase: got 'features' with pipeline {config.pipeline!r}, which learns nothing")
        if model is not None:
            raise ArgumentError("model: got one for the phase 'features'; accepted: only with 'segment'")
    elif config.pipeline != "vesu":
        if model is not None:
            raise ArgumentError(f"model: got one beside pipeline {config.pipeline!r}; accepted: the one or the other")
        if config.student.use == "on":
            raise ArgumentError(
                "student.use: got 'on' beside a historical scorer, whose part in the fusion is chosen on labelled "
                "volumes; accepted: a run in one piece, or student.use=off"
            )
    elif model is None:
        raise ArgumentError("model: got none for the phase 'segment'; accepted: the folder of the run that made it")


def _teaching(phase: Phase, config: RunConfig, inventory: Inventory) -> DistillationPlan:
    if phase != "features":
        return DistillationPlan(False, "masks are made with a finished model")
    teaching = plan_distillation(config, inventory.root)
    if teaching.problem is not None:
        raise hard_fail(teaching.problem)
    return teaching


def _items(phase: Phase, config: RunConfig, inventory: Inventory) -> Sequence[Pair | TestVolume]:
    """The volumes of the whole phase, sorted by id."""
    if phase == "segment":
        if not inventory.tests:
            raise DataError(f"{inventory.root}: holds no test volume; accepted: test_images/ID.tif to segment")
        return inventory.tests
    split = configured_split(inventory.pairs, config)
    return sorted((*split.train, *split.validation), key=lambda pair: pair.volume_id)


def _whole(folder: Path) -> PartReport | None:
    """The part, if an earlier session finished it and nothing happened to it since."""
    try:
        return read_part(folder)
    except VesuError:
        (folder / PART).unlink(missing_ok=True)  # what is whole of it is kept, volume by volume
        return None


def _begin(place: Place) -> None:
    place.log.emit(
        "PART_START" if place.log.size == 0 else "PART_RESUMED",
        plan=place.plan.to_json(),
        assigned=list(place.plan.assigned),
        git_sha=evidence.git_sha(),
        machine=evidence.machine(),
    )
    for use in place.config.aliases_used:
        place.log.emit("CONFIG_ALIAS_USED", **use.to_json())


def _work(
    place: Place,
    inventory: Inventory,
    own: Sequence[Pair | TestVolume],
    teaching: DistillationPlan,
    model: str | Path | None,
) -> None:
    _preflight(place, inventory, own)
    left: list[Pair | TestVolume] = []
    for item in own:
        place.stops.poll()
        sources = features.sources(item)
        record = kept_record(place.folder, item.volume_id, sources)
        if record is None:
            left.append(item)
        else:
            place.kept(record)
    if place.plan.phase == "features":
        pairs = [item for item in left if isinstance(item, Pair)]
        split = configured_split(inventory.pairs, place.config)
        features.sample(place, pairs, split, FeatureSpec(scales=place.config.features.scales), teaching)
    else:
        masks.make(place, [item for item in left if isinstance(item, TestVolume)], model)


def _preflight(place: Place, inventory: Inventory, own: Sequence[Pair | TestVolume]) -> None:
    """R02 on the part's own volumes."""
    pairs = tuple(item for item in own if isinstance(item, Pair))
    tests = tuple(item for item in own if isinstance(item, TestVolume))
    if not own:
        return
    report = preflight(
        dataclasses.replace(inventory, pairs=pairs, tests=tests),
        work_dir=place.folder,
        seed=place.config.seed,
        n_threads=place.config.n_threads,
    )
    for finding in report.findings:
        place.log.emit(
            "PREFLIGHT_FINDING",
            code=finding.code,
            severity=finding.severity,
            path=None if finding.path is None else printable(finding.path),
            message=finding.message,
        )
    report.raise_if_blocked()
