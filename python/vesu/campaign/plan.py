"""What a campaign will do, decided and checked before its first run."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vesu.campaign.holdout import Holdout, hold_out
from vesu.campaign.matrix import Matrix, Variant
from vesu.config import RunConfig, load_config
from vesu.data.discover import discover
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.errors import MISPLACED, ArgumentError, DataError, FileError, FormatError, ResumeIncompatible
from vesu.ledger import canonical_json
from vesu.run.checkpoint import compare_compat
from vesu.run.compatibility import BENIGN

__all__ = ["CampaignPlan", "PlannedRun", "plan_campaign", "read_kept_plan"]

PLAN, BASE = "campaign.json", "base.toml"
PLAN_FORMAT = "vesu-campaign-plan/1"
OUTPUTS = ("events.jsonl", "runs", "records", "comparison.json", "comparison.md", "comparison.html")

NAMED = 3
"""Differences that a message names."""


@dataclass(frozen=True)
class PlannedRun:
    """One variant with one seed."""

    variant: Variant
    seed: int
    config: RunConfig

    @property
    def key(self) -> str:
        """Its name, and its folder below the campaign's ``runs``."""
        return f"{self.variant.id}/seed-{self.seed}"

    @cached_property
    def decides(self) -> dict[str, Any]:
        """Settings that its result depends on, as a log gives them back."""
        return deciding(self.config.to_json())


@dataclass(frozen=True)
class CampaignPlan:
    """Every run of a campaign, in their order, and the data that they learn from and are scored on."""

    matrix: Matrix
    runs: tuple[PlannedRun, ...]
    """All variants with the first seed, then all with the next: an interrupted campaign has whole pairs."""
    holdout: Holdout
    settings: tuple[str, ...] = ()
    """Given beside the matrix, for all runs: ``"key=value"``."""

    def part(self, num_parts: int, part_id: int) -> tuple[PlannedRun, ...]:
        """The runs that fall to one of several machines.

        Raises
        ------
        ArgumentError
            No such part.
        """
        good = isinstance(num_parts, int) and not isinstance(num_parts, bool) and num_parts >= 1
        if not good:
            raise ArgumentError(f"num_parts: got {num_parts!r}; accepted: an integer, 1 or more")
        if isinstance(part_id, bool) or not isinstance(part_id, int) or not 0 <= part_id < num_parts:
            raise ArgumentError(f"part_id: got {part_id!r}; accepted: an integer, 0 to {num_parts - 1}")
        return self.runs[part_id::num_parts]

    def overrides(self, run: PlannedRun) -> list[str]:
        """What ``vesu run --set`` is given beside the file of :func:`keep_plan`."""
        return _overrides(self.settings, run.variant, run.seed)


def plan_campaign(matrix: Matrix, data: str | Path | None = None, *, settings: Sequence[str] = ()) -> CampaignPlan:
    """Make every run's configuration, find the data, and set the scoring volumes aside.

    Parameters
    ----------
    matrix : Matrix
    data : path, optional
        As for :func:`vesu.run`.
    settings : sequence of str
        ``"key=value"`` for all runs.

    Returns
    -------
    CampaignPlan

    Raises
    ------
    ArgumentError
        A configuration key or value that is not accepted, by the run's name; ids that have no label.
    DataError, FileError
        See :func:`vesu.discover`.

    Notes
    -----
    Requirement R43. Later sources win: the matrix's ``config``, the environment, `settings`, the run's own values.

    Examples
    --------
    >>> plan = plan_campaign(load_matrix("matrix.toml"), "scroll")  # doctest: +SKIP
    >>> [run.key for run in plan.part(2, 0)]  # doctest: +SKIP
    ['q985/seed-0', 'q985/seed-1', 'q985/seed-2']
    """
    runs = _planned(matrix, tuple(settings))
    return CampaignPlan(matrix, runs, hold_out(discover(data), matrix), tuple(settings))


def keep_plan(plan: CampaignPlan, out: Path) -> None:
    """Write the plan into the campaign's folder, or refuse a folder that holds another campaign's runs.

    Raises
    ------
    DataError
        Outputs that no campaign wrote.
    ResumeIncompatible
        A campaign with other data, other scoring volumes, or other settings under the same run's id.
    FormatError, FileError
        A plan that cannot be read.
    """
    make_folder(out)
    now = {
        "format": PLAN_FORMAT,
        "matrix": plan.matrix.to_json(),
        "settings": list(plan.settings),
        "data": plan.holdout.to_json(),
        "runs": {run.key: run.decides for run in plan.runs},
    }
    if (out / PLAN).exists():
        _require_same(read_kept_plan(out), now, out)
    elif found := [name for name in OUTPUTS if (out / name).exists()]:
        accepted = "a new or empty folder, or a campaign's"
        raise DataError(f"out: got {out}, which holds {', '.join(found)} that no campaign wrote; accepted: {accepted}")
    write_json_atomic(out / PLAN, now)
    write_bytes_atomic(out / BASE, _toml(plan.matrix.base))


def read_kept_plan(out: Path) -> dict[str, Any]:
    """What :func:`keep_plan` wrote.

    Raises
    ------
    DataError
        The folder holds no campaign.
    FormatError, FileError
        Its plan cannot be read.
    """
    path = out / PLAN
    try:
        found = json.loads(path.read_bytes())
        format_, _ = found["format"], (found["data"]["scored"], found["data"]["learned"], found["runs"])
    except FileNotFoundError:
        raise DataError(f"out: got {out}, which holds no {PLAN}; accepted: the folder of a campaign") from None
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except MISPLACED as error:
        raise FormatError(f"{path}: no campaign's plan ({error!r})") from error
    if format_ != PLAN_FORMAT:
        raise FormatError(f"{path}: format {format_!r}; accepted: {PLAN_FORMAT!r}")
    return dict(found)


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration what a result depends on: not where and how fast a run goes. Numbers are as a log has them."""
    kept = {key: value for key, value in config.items() if key not in BENIGN}
    return dict(json.loads(canonical_json(kept)))


def differences(planned: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """In words, in which settings two runs differ."""
    return [
        f"{each.field}: {each.old!r:.80} was planned, {each.new!r:.80} found"
        for each in compare_compat(planned, found)[:NAMED]
    ]


def _planned(matrix: Matrix, settings: Sequence[str]) -> tuple[PlannedRun, ...]:
    for text in settings:
        if text.partition("=")[0].strip() == "seed":
            raise ArgumentError(
                f"settings: got {text!r}; accepted: no seed, for the matrix gives every run the same ones"
            )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, BASE)
        write_bytes_atomic(base, _toml(matrix.base))
        runs = []
        for seed in matrix.seeds:
            for variant in matrix.variants:
                try:
                    config = load_config(base, overrides=_overrides(settings, variant, seed))
                except ArgumentError as error:
                    raise ArgumentError(f"run {variant.id!r}: {error}".replace(str(base), "config")) from None
                runs.append(PlannedRun(variant, seed, config))
    return tuple(runs)


def _overrides(settings: Sequence[str], variant: Variant, seed: int) -> list[str]:
    """A run's settings; the tag says whose it is, and no variant's score is a mark that another must not miss."""
    own = _lines({"gates.best_recorded": "none", "tag": variant.id, **variant.settings, "seed": seed})
    return [*own[:2], *settings, *own[2:]]


def _lines(settings: Mapping[str, Any]) -> list[str]:
    """Each as ``key=value``, which is both an override and a line of TOML."""
    return [
        f"{key}={json.dumps('none' if value is None else value, ensure_ascii=False)}" for key, value in settings.items()
    ]


def _toml(settings: Mapping[str, Any]) -> bytes:
    return "".join(f"{line}\n" for line in _lines(settings)).encode("utf-8")


def _require_same(kept: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    for part, words in (("scored", "scoring volumes"), ("learned", "labelled volumes")):
        if kept["data"][part] != now["data"][part]:
            changed = sorted(
                name
                for name in kept["data"][part].keys() | now["data"][part].keys()
                if kept["data"][part].get(name) != now["data"][part].get(name)
            )
            raise ResumeIncompatible(
                f"{out}: a campaign with other {words} ({', '.join(changed[:5])} differ); accepted: the same, "
                "or another folder"
            )
    for key in kept["runs"].keys() & now["runs"].keys():
        if found := differences(kept["runs"][key], now["runs"][key]):
            raise ResumeIncompatible(f"{out}: run {key}: {'; '.join(found)}; accepted: another id, or another folder")
