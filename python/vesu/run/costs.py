"""What earlier runs on this machine really cost, so that the next one's plan is honest from its start (R34)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.data.storage import write_json_atomic
from vesu.errors import MISPLACED
from vesu.run.weights import DEFAULT_SPREAD

__all__ = ["COSTS_NAME", "Costs"]

COSTS_NAME = "costs.json"
"""The file's name, in the cache folder: what is learned there serves every run that shares the cache."""

FORMAT = 1

#: Inputs remembered, so that a run on the same ones is known to find its cache warm.
KEPT_INPUTS = 64

#: Runs remembered of each kind of work.
KEPT = 8

#: The last run counts twice as much as the one before it, and so on.
AGEING = 0.5

#: Before runs have shown how they differ, their logarithms are taken to spread by this, with the weight of one run.
PRIOR_SPREAD = 0.35

#: Seconds below which a measurement says more of the clock than of the work.
LEAST_S = 1e-3


@dataclass(frozen=True)
class _Run:
    """One measurement: what the plan's constants expected, and what it took."""

    nominal_s: float
    seconds: float


class Costs:
    """Measured seconds against the plan's, by kind of work.

    Parameters
    ----------
    path : path
        The JSON file. One that is missing, damaged or of another format is as one with nothing in it, and
        :attr:`problem` says so: costs only make a forecast better.

    Notes
    -----
    A *kind* names what costs the same: the phase with the version, the machine, the number of threads and what else
    decides (:func:`vesu.run.plan.forecast`). The unit of work is a second of the plan's constants, so that volumes of
    other sizes and numbers are comparable.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     costs = Costs(Path(folder, COSTS_NAME))
    ...     costs.record({"fit": 10.0}, {"fit": "fit on this machine"}, {"fit": 30.0})
    ...     costs.write()
    ...     expected = Costs(costs.path).expected({"fit": 20.0}, {"fit": "fit on this machine"})
    >>> round(expected["fit"], 6)
    60.0
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why the file could not be used; None where it could, or where there was none."""
        self._runs: dict[str, list[_Run]] = {}
        self._inputs: list[str] = []
        try:
            self._runs, self._inputs = _parsed(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            pass
        except (OSError, *MISPLACED) as error:
            self.problem = f"{path}: {type(error).__name__}: {error}"

    def expected(self, nominal_s: Mapping[str, float], kinds: Mapping[str, str]) -> dict[str, float]:
        """The plan's seconds of each phase, corrected by what earlier runs took.

        Parameters
        ----------
        nominal_s : mapping of str to float
            Seconds by phase from the plan's constants.
        kinds : mapping of str to str
            The kind of each phase's work.
        """
        return {phase: seconds * self._ratio(kinds.get(phase, phase))[0] for phase, seconds in nominal_s.items()}

    def spreads(self, kinds: Mapping[str, str]) -> dict[str, float]:
        """How sure these are: the standard deviation of the logarithm, by phase."""
        return {phase: self._ratio(kind)[1] for phase, kind in kinds.items()}

    def seen(self, inputs: str) -> bool:
        """Whether a run on these inputs, by any name that the caller gives them, finished with this cache."""
        return inputs in self._inputs

    def remember(self, inputs: str) -> None:
        """A run on these inputs is finished."""
        self._inputs = [*(other for other in self._inputs if other != inputs), inputs][-KEPT_INPUTS:]

    def record(self, nominal_s: Mapping[str, float], kinds: Mapping[str, str], measured_s: Mapping[str, float]) -> None:
        """Remember a run's phases; what took no time, or was not planned, says nothing."""
        for phase, seconds in measured_s.items():
            nominal = nominal_s.get(phase, 0.0)
            if nominal > 0 and seconds >= LEAST_S:
                runs = self._runs.setdefault(kinds.get(phase, phase), [])
                runs.append(_Run(nominal, seconds))
                del runs[:-KEPT]

    def write(self) -> None:
        """Keep them for the next run.

        Raises
        ------
        FileError
            The operating system refused a step; the old file stands.
        """
        kinds = {
            kind: [{"nominal_s": run.nominal_s, "seconds": run.seconds} for run in runs]
            for kind, runs in self._runs.items()
        }
        write_json_atomic(self.path, {"format": FORMAT, "kinds": kinds, "inputs": self._inputs})

    def _ratio(self, kind: str) -> tuple[float, float]:
        """Measured over nominal, and how sure that is; the newest run counts most."""
        runs = self._runs.get(kind, [])
        if not runs:
            return 1.0, DEFAULT_SPREAD
        weights = [AGEING**age for age in range(len(runs) - 1, -1, -1)]
        logs = [math.log(run.seconds / run.nominal_s) for run in runs]
        total = math.fsum(weights)
        mean = math.fsum(w * log for w, log in zip(weights, logs, strict=True)) / total
        squares = math.fsum(w * (log - mean) ** 2 for w, log in zip(weights, logs, strict=True))
        return math.exp(mean), math.sqrt((squares + PRIOR_SPREAD**2) / (total + 1.0))


def _parsed(text: Any) -> tuple[dict[str, list[_Run]], list[str]]:
    """The runs and the inputs of a file's JSON.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        It is not what :meth:`Costs.write` writes.
    """
    if text["format"] != FORMAT:
        raise ValueError(f"format {text['format']!r}")
    kinds = {kind: [_run(run) for run in runs][-KEPT:] for kind, runs in text["kinds"].items()}
    return kinds, [str(each) for each in text["inputs"]]


def _run(entry: Mapping[str, Any]) -> _Run:
    run = _Run(float(entry["nominal_s"]), float(entry["seconds"]))
    if not all(math.isfinite(value) and value > 0 for value in (run.nominal_s, run.seconds)):
        raise ValueError(f"a run of {run.seconds} s for {run.nominal_s} s")
    return run
