"""Tune what comes after a finished run's model: fitted on one part of its validation volumes, judged on another (R43).

The model's probabilities are computed once. A trial is a ladder and its score; every trial is a record of a log of its
own, from which an interrupted tuning goes on exactly.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np

from vesu import _core
from vesu.comparison import Promotion, promote
from vesu.config import RunConfig, SegmentSettings, config_toml
from vesu.data.cache import ArrayCache, content_id
from vesu.data.storage import make_folder, remove_tree_atomic, write_bytes_atomic, write_json_atomic
from vesu.errors import ArgumentError, EvidenceError, ResumeIncompatible
from vesu.ledger import iter_events, verify
from vesu.run import stages
from vesu.run.events import EventLog
from vesu.run.folder import locked
from vesu.run.parts.masks import model_files
from vesu.run.tuning_source import Volume, finished_run, predicted, run_id_of, validation_pairs
from vesu.scoring import score
from vesu.segmentation import SegmentConfig, confusion, segment
from vesu.tuning import Metric, Space, Studies, Trial, Tuning, changed, default_space
from vesu.tuning.result import EVENTS, JOURNAL, RESULT, TUNED
from vesu.tuning.study import need_optuna

__all__ = ["TUNING", "tune"]

TUNING = "tuning"
"""Name of the folder in the run folder."""
MIN_SEEDS = 3
OnTrial: TypeAlias = Callable[[int, int, float], object]
"""Told the seed, how many trials it has, and the value of the last one."""


def tune(
    run: str | Path,
    data: str | Path | None = None,
    *,
    trials: int = 40,
    seeds: Sequence[int] = (0, 1, 2),
    metric: Metric = "score",
    space: Space | None = None,
    max_volumes: int = 8,
    cache: str | Path | None = None,
    n_threads: int | None = None,
    restart: bool = False,
    on_trial: OnTrial | None = None,
) -> Tuning:
    """Tune the ladder of a finished run, and judge it on volumes that chose nothing of it.

    Parameters
    ----------
    run : path
        Folder of a finished run with a model.
    data : path, optional
        Its data folder; default: where the run found it.
    trials : int
        Settings that each seed tries. More than before goes on from there.
    seeds : sequence of int
        Of the sampler, a study each. The gain is judged over them: three at least, or it is not called stable.
    metric : {"score", "f_beta"}
        What is maximised, as the mean over volumes.
    space : Space, optional
        What is tuned; default :func:`vesu.tuning.default_space` of the run's ladder.
    max_volumes : int
        Validation volumes used, 2 or more. Half of them choose, the first ones; the others, taken from the end, judge.
    cache : path, optional
        Folder for the model's probabilities, default ``run/cache``.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.
    restart : bool
        Give up what an earlier tuning left.
    on_trial : callable, optional
        Called as ``on_trial(seed, n, value)`` after each trial.

    Returns
    -------
    Tuning
        ``tuned.toml``, ``tuning.json``, ``events.jsonl`` and Optuna's ``study.journal`` lie in ``run/tuning``.

    Raises
    ------
    ArgumentError
        A parameter out of range; a space of steps that the ladder does not have.
    DataError
        A run without a model or that is not finished; fewer than two validation volumes; a volume that is not the one
        that the run validated on.
    ResumeIncompatible
        An earlier tuning of something else is there, and `restart` was not said; the message names what differs.
    VesuError
        Optuna is not installed; a file cannot be read or written.

    Notes
    -----
    Requirements R43, R50, R54. The grid of the search is never in a space. A seed's tuned settings are its best
    trial's, or the run's own where none is better on the fitting volumes; the best seed on these gives ``tuned.toml``.
    The gain is that of :func:`vesu.comparison.promote` with three seeds at least, against the run's own ladder, whose
    threshold may have been fitted on the judging volumes too: the comparison leans against the tuning. The same model,
    volumes, space, seeds and number of trials give the same settings, however often it was interrupted.

    Examples
    --------
    >>> from vesu.run.tuning import tune
    >>> found = tune("run", trials=30)  # doctest: +SKIP
    >>> found.stable, found.values  # doctest: +SKIP
    """
    _check(trials, seeds, metric, max_volumes)
    need_optuna()
    run = Path(run)
    config, model = finished_run(run)
    base = dataclasses.replace(config.segment, steps=model.segment_config.steps)
    space = space or default_space(model.segment_config)
    space.require_steps(base)
    base = dataclasses.replace(base, calibration=dataclasses.replace(base.calibration, fit=space.refits))
    pairs = validation_pairs(run, data, max_volumes)
    n_fit = len(pairs) // 2
    folder = run / TUNING
    with locked(run):
        context = {
            "metric": metric,
            "space": space.to_json(),
            "ladder": model.segment_config.to_json(),
            "calibration": dataclasses.asdict(base.calibration) if space.refits else None,
            "model": model_files(run),
            "volumes": {pair.volume_id: [content_id(pair.image), content_id(pair.label)] for pair in pairs},
            "fit": [pair.volume_id for pair in pairs[:n_fit]],
            "optuna": need_optuna().__version__,
        }
        done = _claimed(folder, context, space, restart=restart)
        with EventLog(folder / EVENTS, run_id=run_id_of(run)) as log:
            log.emit(
                "TUNING_START" if log.size == 0 else "TUNING_RESUMED",
                version=_core.__version__,
                trials=trials,
                seeds=list(seeds),
                context=context,
            )
            store = ArrayCache(
                cache or run / "cache", max_bytes=int(config.cache_gib * 2**30), events=log.emit, n_threads=n_threads
            )
            volumes = [predicted(pair, model, config, context["model"], store, n_threads) for pair in pairs]
            work = _Work(config, base, space, metric, volumes[:n_fit], volumes[n_fit:], n_threads)
            found = _search(work, log, folder, done, trials, seeds, on_trial)
            return _judged(work, log, folder, found, trials)


@dataclass(frozen=True, eq=False)
class _Work:
    """From settings to scores."""

    config: RunConfig
    base: SegmentSettings
    """The run's own, its rule as it was fitted."""
    space: Space
    metric: Metric
    fit: Sequence[Volume]
    judge: Sequence[Volume]
    n_threads: int | None

    @property
    def own(self) -> SegmentConfig:
        return self.base.ladder

    def settings(self, values: Mapping[str, Any]) -> SegmentSettings:
        """The settings of a trial, with the rule that its calibration settings fit on the fitting volumes."""
        settings = changed(self.base, values)
        if not self.space.refits:
            return settings
        config = dataclasses.replace(self.config, segment=settings, n_threads=self.n_threads)
        ladder = stages.fitted_ladder(
            settings.ladder,
            config,
            {each.volume_id: each.probability for each in self.fit},
            {each.volume_id: each.label for each in self.fit},
            {each.volume_id: each.uncertainty for each in self.fit if each.uncertainty is not None},
        )
        return dataclasses.replace(settings, steps=ladder.steps)

    def scores(self, ladder: SegmentConfig, volumes: Sequence[Volume]) -> dict[str, float]:
        """The metric of a ladder's mask on each volume."""
        found = {}
        for each in volumes:
            mask = segment(each.probability, ladder, uncertainty=each.uncertainty, n_threads=self.n_threads).mask
            if self.metric == "score":
                found[each.volume_id] = score(mask, each.label, n_threads=self.n_threads).score
            else:
                found[each.volume_id] = confusion(mask, each.label).f_beta
        return found


def _search(
    work: _Work,
    log: EventLog,
    folder: Path,
    done: dict[int, list[Trial]],
    trials: int,
    seeds: Sequence[int],
    on_trial: OnTrial | None,
) -> dict[int, list[Trial]]:
    """Every seed's trials, those of earlier sessions included; the first `trials` of each."""
    done = {seed: done.get(seed, []) for seed in seeds}
    studies = Studies(folder / JOURNAL, work.space, done)
    known = {_text(trial.values): trial.value for trials_of in done.values() for trial in trials_of}

    def valued(seed: int, values: Mapping[str, Any]) -> Trial:
        repeated = (text := _text(values)) in known
        by_volume = None if repeated else work.scores(work.settings(values).ladder, work.fit)
        value = known[text] if by_volume is None else float(np.mean(list(by_volume.values())))
        known[text] = value
        log.emit(
            "TUNING_TRIAL",
            seed=seed,
            number=len(done[seed]),
            params=dict(values),
            value=value,
            by_volume=by_volume,
            repeated=repeated,  # the same settings gave this value before: nothing was computed again
        )
        done[seed].append(Trial(values, value))
        if on_trial is not None:
            on_trial(seed, len(done[seed]), value)
        return done[seed][-1]

    own = None if work.space.refits else work.space.values_of(work.base)
    for seed in seeds:
        if not done[seed] and own is not None and work.space.holds(own):
            studies.add(seed, valued(seed, own))  # the run's own settings, for the sampler to learn from
        while len(done[seed]) < trials:
            asked, values = studies.ask(seed)
            studies.tell(seed, asked, valued(seed, values).value)
        log.sync()
    return {seed: done[seed][:trials] for seed in seeds}


def _judged(work: _Work, log: EventLog, folder: Path, found: Mapping[int, Sequence[Trial]], trials: int) -> Tuning:
    """What the best of each seed is worth on the judging volumes; the files and the end of the log."""
    fit_was = float(np.mean(list(work.scores(work.own, work.fit).values())))
    judged_own = work.scores(work.own, work.judge)
    best = {seed: max(trials_of, key=lambda trial: trial.value) for seed, trials_of in found.items()}
    # Nothing better than the run's own ladder: then that is what this seed has to offer.
    chosen = {seed: work.settings(trial.values) if trial.value > fit_was else None for seed, trial in best.items()}
    judged = {
        seed: judged_own if settings is None else work.scores(settings.ladder, work.judge)
        for seed, settings in chosen.items()
    }
    names = ("the run's own ladder", "tuned")
    promotion = promote(dict.fromkeys(judged, judged_own), judged, names=names, min_seeds=MIN_SEEDS)
    log.emit("VARIANT_PROMOTION", **promotion.to_json())
    winner = max(best, key=lambda seed: best[seed].value)
    settings = chosen[winner] or work.base
    values = {} if chosen[winner] is None else dict(best[winner].values)
    text = _toml(work, settings, promotion).encode()
    write_bytes_atomic(folder / TUNED, text)
    fit_value = max(best[winner].value, fit_was)
    log.emit("TUNING_DONE", seed=winner, params=values, fit_value=fit_value, fit_was=fit_was, toml=content_id(text))
    log.sync()
    checked = verify(log.path)
    if (checked.entries, checked.root) != (log.size, log.root):
        raise EvidenceError(f"{log.path}: the file is not what this tuning wrote")
    own = work.space.values_of(work.base)
    result = Tuning(
        folder=folder,
        metric=work.metric,
        trials=trials,
        fit=tuple(each.volume_id for each in work.fit),
        judge=tuple(each.volume_id for each in work.judge),
        values=values,
        was={key: own[key] for key in values},
        fit_value=fit_value,
        fit_was=fit_was,
        promotion=promotion,
        entries=checked.entries,
        root=checked.root,
    )
    write_json_atomic(folder / RESULT, {**result.to_json(), "tree_head": log.tree_head()})
    return result


def _toml(work: _Work, settings: SegmentSettings, promotion: Promotion) -> str:
    """The run's configuration with the tuned ladder, and what is to be thought of it."""
    verdict = "a stable gain" if promotion.promoted else "NOT a stable gain"
    head = [
        f"# vesu tune: {verdict} over the run's own ladder: {promotion.reason}",
        f"# judged by {work.metric} on {', '.join(each.volume_id for each in work.judge)}, which chose nothing of it",
    ]
    config = dataclasses.replace(work.config, tag="", segment=settings)
    return "\n".join([*head, config_toml(config)])


def _check(trials: int, seeds: Sequence[int], metric: str, max_volumes: int) -> None:
    for name, value, least in (("trials", trials, 1), ("max_volumes", max_volumes, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ArgumentError(f"{name}: got {value!r}; accepted: a whole number, {least} or more")
    good = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31 for seed in seeds)
    if not seeds or not good or len(set(seeds)) != len(seeds):
        raise ArgumentError(f"seeds: got {list(seeds)!r}; accepted: distinct whole numbers, 0 or more")
    if metric not in get_args(Metric):
        raise ArgumentError(f"metric: got {metric!r}; accepted: {' or '.join(map(repr, get_args(Metric)))}")


def _claimed(folder: Path, context: Mapping[str, Any], space: Space, *, restart: bool) -> dict[int, list[Trial]]:
    """Make the folder ready; the trials of an earlier tuning of the very same thing."""
    log = folder / EVENTS
    if restart:
        remove_tree_atomic(folder)
    make_folder(folder)
    for name in (TUNED, RESULT):
        (folder / name).unlink(missing_ok=True)  # what is being made anew is not there until it is
    if not log.exists() or log.stat().st_size == 0:
        return {}
    verify(log)
    done: dict[int, list[Trial]] = {}
    for event in iter_events(log):
        if event["event"] == "TUNING_START":
            _agree(folder, event["context"], json.loads(json.dumps(context)))
        elif event["event"] == "TUNING_TRIAL":
            trial = Trial(space.normal(event["params"]), float(event["value"]))
            done.setdefault(event["seed"], []).append(trial)
    return done


def _agree(folder: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in now.items():
        if saved.get(name) != value:
            raise ResumeIncompatible(
                f"RESUME_INCOMPATIBLE: {folder} holds a tuning with {name} {saved.get(name)}, this one has {value}; "
                "accepted: the same, or --restart (restart=True), which gives that one up"
            )


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
