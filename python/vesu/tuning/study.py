"""Optuna's studies over a space, one a seed, that go on exactly where they stood (R37, R43)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.errors import VesuError
from vesu.tuning.space import Choice, Space

__all__ = ["Studies", "Trial", "need_optuna"]


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what they were worth.

    Examples
    --------
    >>> Trial({"segment.dust.min_voxels": 400}, 0.61).value
    0.61
    """

    values: Mapping[str, Any]
    """By dotted key."""
    value: float
    """The objective; higher is better."""


class Studies:
    """Studies named ``seed-0``, ``seed-1`` and so on, in one journal file that Optuna itself can load.

    Parameters
    ----------
    path : path
        The journal (Optuna's ``JournalStorage``). One that is there is made anew from `done`: the caller's log is the
        record, and what a killed process left half-written here counts for nothing.
    space : Space
    done : mapping of int to sequence of Trial
        By seed, what has been tried so far, in its order.

    Raises
    ------
    VesuError
        Optuna is not installed.

    Notes
    -----
    Requirement R37. The sampler (TPE) is seeded anew for each trial by the study's seed and the number of trials
    before it, so what comes next depends on these and on what they gave alone, not on where the process was cut.
    """

    def __init__(self, path: str | Path, space: Space, done: Mapping[int, Sequence[Trial]]) -> None:
        self._optuna = need_optuna()
        self._space = space
        path = Path(path)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of a process that is no more
        backend = self._optuna.storages.journal.JournalFileBackend(str(path))
        self._storage = self._optuna.storages.JournalStorage(backend)
        self._distributions = {key: self._distribution(each) for key, each in space.parameters.items()}
        self._studies = {seed: self._study(seed, trials) for seed, trials in done.items()}
        self._counts = {seed: len(trials) for seed, trials in done.items()}

    def add(self, seed: int, trial: Trial) -> None:
        """Tell a study of a trial that it did not ask for."""
        encoded = {key: self._encoded(key, value) for key, value in trial.values.items()}
        made = self._optuna.create_trial(params=encoded, distributions=self._distributions, value=trial.value)
        self._studies[seed].add_trial(made)
        self._counts[seed] += 1

    def ask(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """What to try next: Optuna's trial for :meth:`tell`, and the values by key."""
        study = self._studies[seed]
        study.sampler = self._optuna.samplers.TPESampler(seed=(1_000_003 * seed + self._counts[seed]) % 2**32)
        with self._quiet():
            asked = study.ask(self._distributions)
        return asked, {key: self._decoded(key, value) for key, value in asked.params.items()}

    def tell(self, seed: int, asked: Any, value: float) -> None:
        """What that was worth."""
        with self._quiet():
            self._studies[seed].tell(asked, value)
        self._counts[seed] += 1

    def _study(self, seed: int, trials: Sequence[Trial]) -> Any:
        with self._quiet():
            study = self._optuna.create_study(storage=self._storage, study_name=f"seed-{seed}", direction="maximize")
            for trial in trials:
                encoded = {key: self._encoded(key, value) for key, value in trial.values.items()}
                study.add_trial(
                    self._optuna.create_trial(params=encoded, distributions=self._distributions, value=trial.value)
                )
        return study

    def _distribution(self, parameter: Any) -> Any:
        kinds = self._optuna.distributions
        if isinstance(parameter, Choice):
            return kinds.CategoricalDistribution([_text(value) for value in parameter.values])
        kind = kinds.IntDistribution if parameter.whole else kinds.FloatDistribution
        return kind(parameter.low, parameter.high, log=parameter.log)

    def _encoded(self, key: str, value: Any) -> Any:
        return _text(value) if isinstance(self._space.parameters[key], Choice) else value

    def _decoded(self, key: str, value: Any) -> Any:
        parameter = self._space.parameters[key]
        if not isinstance(parameter, Choice):
            return value
        return next(each for each in parameter.values if _text(each) == value)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without Optuna's line a study and a trial: the caller has its own words."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(before)


def need_optuna() -> Any:
    """The package.

    Raises
    ------
    VesuError
        It is not installed, or broken; the message has the command that mends it.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise VesuError(f"optuna cannot be imported ({error}); pip install 'vesu[tune]'") from error
    return optuna


def _text(value: Any) -> str:
    """A value as Optuna keeps it: lists are none of its kinds."""
    return json.dumps(value)
