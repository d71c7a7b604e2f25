"""What became of a campaign's runs: read from their folders' own evidence, scored on labels that no run saw."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from vesu.campaign.plan import deciding, differences
from vesu.data.storage import make_folder, write_json_atomic
from vesu.data.volumes import read_volume
from vesu.errors import MISPLACED, EvidenceError, FileError, VesuError
from vesu.ledger import iter_events, verify
from vesu.scoring import score_many
from vesu.submission import check_submission

__all__ = ["RunRecord", "State", "examine", "forget_record", "keep_record", "settled"]

State: TypeAlias = Literal["finished", "missing", "unfinished", "failed", "damaged", "foreign"]
"""'unfinished': a session ended before its work, or was killed; 'damaged': its evidence does not hold together;
'foreign': a finished run, but not the planned one."""

RECORDS = "records"
RECORD_FORMAT = "vesu-campaign-run/1"
FIGURES = ("score", "topology", "surface", "voi", "density", "label_density")
"""What is kept of each scoring volume. Density is the share of surface voxels; the label's, among its labelled ones."""


@dataclass(frozen=True)
class RunRecord:
    """One variant with one seed: how it ended, and what it is worth.

    Attributes
    ----------
    id : str
        The variant's.
    seed : int
    state : str
        Only a finished run has figures.
    reason : str
        Why it is not finished.
    volumes : mapping of str to mapping of str to float
        By scoring volume: ``score``, ``topology``, ``surface``, ``voi``, ``density``, ``label_density``.
    seconds : float
        Of the run, all of its sessions.
    entries, root : int, str
        Its log's number of records, and the log's Merkle tree head.
    submission_sha256 : str
        Of the zip that was scored; the log says the same.
    verdict : str
        The run's own: ``GO`` or ``NO_GO_SUBMISSION``.
    """

    id: str
    seed: int
    state: State
    reason: str = ""
    volumes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = math.nan
    entries: int = 0
    root: str = ""
    submission_sha256: str = ""
    verdict: str = ""

    @property
    def finished(self) -> bool:
        """Whether it has figures."""
        return self.state == "finished"

    def mean(self, figure: str) -> float:
        """Mean of a figure over the scoring volumes."""
        return math.fsum(each[figure] for each in self.volumes.values()) / len(self.volumes)

    def by_volume(self, figure: str) -> dict[str, float]:
        """A figure by volume."""
        return {name: figures[figure] for name, figures in self.volumes.items()}

    def to_json(self) -> dict[str, Any]:
        """JSON types; a run without figures has none of them."""
        found = {"run": self.id, "seed": self.seed, "state": self.state, "reason": self.reason}
        if not self.finished:
            return found
        return {
            **found,
            "seconds": self.seconds,
            "entries": self.entries,
            "root": self.root,
            "submission_sha256": self.submission_sha256,
            "verdict": self.verdict,
            "means": {figure: self.mean(figure) for figure in FIGURES},
            "volumes": {name: dict(figures) for name, figures in self.volumes.items()},
        }


def examine(folder: Path, key: tuple[str, int], planned: Mapping[str, Any], scored: tuple[str, ...]) -> RunRecord:
    """How a run stands, by what its folder proves; without its score.

    Parameters
    ----------
    folder : Path
        The run's.
    key : (str, int)
        Variant and seed.
    planned : mapping
        The settings that decide its result.
    scored : tuple of str
        Ids of the scoring volumes, which must be the zip's members.

    Returns
    -------
    RunRecord
        Finished only if its log verifies and agrees with the summary, the settings in the log are the planned ones,
        and the zip is the one that the log sealed, with a mask of each scoring volume.
    """
    if not (folder / "events.jsonl").exists():
        return RunRecord(*key, "missing", "not begun")
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        status, sealed = str(summary["status"]), summary.get("ledger")
    except FileNotFoundError:
        return _without_an_end(folder, key)
    except (OSError, *MISPLACED) as error:
        return RunRecord(*key, "damaged", f"summary.json: {error!r}")
    if status == "failed":
        return _without_an_end(folder, key)
    if status != "finished":
        return RunRecord(*key, "unfinished", "its session's time was over before its work")
    try:
        return _finished(folder, key, summary, sealed, planned, scored)
    except (EvidenceError, FileError) as error:
        return RunRecord(*key, "damaged", str(error))
    except MISPLACED as error:
        return RunRecord(*key, "damaged", f"{error!r}")


def _without_an_end(folder: Path, key: tuple[str, int]) -> RunRecord:
    try:
        failure = json.loads((folder / "failure.json").read_bytes())
        return RunRecord(*key, "failed", f"{failure['error']}: {failure['message']}")
    except (OSError, *MISPLACED):
        return RunRecord(*key, "unfinished", "it wrote no end: interrupted, killed, or still at work")


def _finished(
    folder: Path,
    key: tuple[str, int],
    summary: Mapping[str, Any],
    sealed: Any,
    planned: Mapping[str, Any],
    scored: tuple[str, ...],
) -> RunRecord:
    log = folder / "events.jsonl"
    checked = verify(log)
    if sealed != {"entries": checked.entries, "root": checked.root}:
        raise EvidenceError(f"{log}: is not the log that summary.json sealed")
    config, sha256 = _logged(log)
    if found := differences(planned, deciding(config)):
        return RunRecord(*key, "foreign", "; ".join(found))
    archive = folder / "submission.zip"
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise EvidenceError(f"{archive}: is not the zip that the log sealed")
    members = sorted(Path(member["name"]).stem for member in summary["submission"]["members"])
    if members != sorted(scored):
        return RunRecord(*key, "foreign", f"masks of {', '.join(members[:5])}; planned: {', '.join(scored[:5])}")
    return RunRecord(
        *key,
        "finished",
        seconds=float(summary["elapsed_s"]),
        entries=checked.entries,
        root=checked.root,
        submission_sha256=sha256,
        verdict=str(summary.get("go_no_go", {}).get("verdict", "")),
    )


def _logged(log: Path) -> tuple[Mapping[str, Any], str]:
    """The settings that a run says it had, from its verified log, and the digest of the zip that it sealed."""
    config: Mapping[str, Any] | None = None
    sha256 = ""
    for event in iter_events(log):
        if event["event"] in ("RUN_START", "RUN_RESUMED"):
            config = event["config"]
        elif event["event"] == "RUN_END":
            sha256 = event["submission_sha256"]
    if config is None or not sha256:
        raise EvidenceError(f"{log}: holds no beginning or no end of a run")
    return config, sha256


def score_run(archive: Path, labels: Path, n_threads: int | None = None) -> dict[str, dict[str, float]]:
    """The competition's score of each mask in a run's zip, and its density.

    Raises
    ------
    VesuError
        A label or mask that cannot be read, or is of another shape.
    """
    scores = score_many(archive, labels, n_threads=n_threads).reports
    densities = {each.volume_id: each.ink_ratio for each in check_submission(archive, n_threads=n_threads).members}
    return {
        name: {
            "score": report.score,
            **report.terms,
            "density": densities[name],
            "label_density": _label_density(labels / f"{name}.tif", n_threads),
        }
        for name, report in scores.items()
    }


def _label_density(path: Path, n_threads: int | None) -> float:
    counts = np.bincount(read_volume(path, n_threads=n_threads).ravel(), minlength=2)
    return float(counts[1] / max(counts[0] + counts[1], 1))


def keep_record(out: Path, record: RunRecord) -> None:
    """Keep a run's score, or why it has none, in the campaign's folder.

    Raises
    ------
    FileError
        The system refuses.
    """
    path = _path(out, record.id, record.seed)
    make_folder(path.parent)
    write_json_atomic(path, {"format": RECORD_FORMAT, **record.to_json()})


def forget_record(out: Path, name: str, seed: int) -> None:
    """Drop what an earlier session said of a run that begins again."""
    _path(out, name, seed).unlink(missing_ok=True)


def kept_record(out: Path, found: RunRecord) -> RunRecord | None:
    """With the score that an earlier session kept of this very zip; None where there is none.

    Of a run that is not finished: with the reason that was kept, which knows of a kill or an exit code.
    """
    try:
        kept = json.loads(_path(out, found.id, found.seed).read_bytes())
        if kept["format"] != RECORD_FORMAT:
            return None
        if not found.finished:
            same = kept["state"] == "failed" and found.state in ("failed", "unfinished", "missing")
            return RunRecord(found.id, found.seed, "failed", str(kept["reason"])) if same else None
        if (kept["submission_sha256"], kept["root"]) != (found.submission_sha256, found.root):
            return None
        volumes = {
            str(name): {figure: float(figures[figure]) for figure in FIGURES}
            for name, figures in kept["volumes"].items()
        }
    except (OSError, *MISPLACED):
        return None  # it is made again from the run's folder
    return with_volumes(found, volumes)


def with_volumes(found: RunRecord, volumes: Mapping[str, Mapping[str, float]]) -> RunRecord:
    """The record with its figures."""
    return RunRecord(**{**vars(found), "volumes": volumes})


def settled(out: Path, found: RunRecord, archive: Path, labels: Path, n_threads: int | None = None) -> RunRecord:
    """A finished run's record with its score, kept or taken now; a run whose masks cannot be scored failed."""
    if (kept := kept_record(out, found)) is not None:
        return kept
    if not found.finished:
        return found
    try:
        record = with_volumes(found, score_run(archive, labels, n_threads))
    except VesuError as error:
        return RunRecord(found.id, found.seed, "failed", f"its masks cannot be scored: {error}")
    keep_record(out, record)
    return record


def _path(out: Path, name: str, seed: int) -> Path:
    return out / RECORDS / name / f"seed-{seed}.json"
