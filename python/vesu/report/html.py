"""From a loaded run to one page of HTML."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from vesu.report import figures, text
from vesu.report.extras import optional
from vesu.report.glance import glance
from vesu.report.loader import Run, Submission, Validation, Volume
from vesu.report.pictures import PROBABILITY_MAP, UNCERTAINTY_MAP, Gallery, gradient, make_gallery
from vesu.report.scores import DIMENSIONS, VolumeScore
from vesu.report.steps import draw_steps, read_step_slices
from vesu.report.student import PICTURED as STUDENT_PICTURED
from vesu.report.student import draw_student_views, read_student_views, student_charts
from vesu.report.unmatched import BOTH, MARKS, OURS, PICTURED, THEIRS, draw_marked, read_marked
from vesu.report.views import read_views

PICTURED_VOLUMES = 12
OPEN_VOLUMES = 2
TOP_CANDIDATES = 20
# Far beyond any run so far; a page stays a page. What is cut is said, and the file named.
MAX_CANDIDATES, MAX_ROWS, MAX_JSON = 4000, 2000, 200_000
SCORE_COLUMNS = (
    ("f1", "F1"),
    ("f_beta", "F-beta 0.5"),
    ("iou", "IoU"),
    ("precision", "Precision"),
    ("recall", "Recall"),
    ("score", "Score"),
)
JUDGED = (("score", "Score"), ("f1", "F1"))
"""What is said in words of how it stands against the trivial baselines."""


@dataclass(frozen=True)
class Verdict:
    """A short judgement with its tone: good, warn, bad or plain."""

    tone: str
    words: str


def render(run: Run) -> str:
    """The whole page.

    Parameters
    ----------
    run
        From :func:`vesu.report.loader.load_run`.

    Returns
    -------
    str
        HTML with its style and pictures inside; it loads nothing and runs no script.
    """
    jinja2 = optional("jinja2")
    files = resources.files("vesu.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(text.FILTERS)
    template = environment.from_string(files.joinpath("template.html.j2").read_text(encoding="utf-8"))
    safe = optional("markupsafe").Markup
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    page: str = template.render(style=safe(style), **_context(run, safe))
    return page


def _context(run: Run, safe: Any) -> dict[str, Any]:
    pictured = _pictured(run.volumes, safe)  # first: a malformed file of views ends it before any chart is drawn
    marked_paths = run.marked_paths[:PICTURED]
    marked = draw_marked([(path.stem, read_marked(path)) for path in marked_paths])
    summary = run.summary
    validation = summary.validation if summary else None
    return {
        "run": run,
        "summary": summary,
        "status": _status(run),
        "untrained": summary is not None
        and summary.pipeline not in (None, "vesu")
        and not (summary.student and summary.student.teachers),
        "validation": validation,
        "baseline_notes": [_against_baselines(validation, key, words) for key, words in JUDGED],
        "score_table": _score_table(validation, (summary.pipeline if summary else None) or "vesu"),
        "volume_scores": _volume_scores(validation, (summary.pipeline if summary else None) or "vesu"),
        "submission": summary.submission if summary else None,
        "submission_verdict": _submission_verdict(summary.submission if summary else None),
        "ledger_verdict": _ledger_verdict(run),
        "charts": _charts(run, safe),
        "glance": _glance(run, safe),
        "chart_titles": [name for name in figures.chart_names() if name != "loss"],
        "percentiles": _percentile_names(run.volumes),
        "limits": {"top": TOP_CANDIDATES, "candidates": MAX_CANDIDATES, "rows": MAX_ROWS, "open": OPEN_VOLUMES},
        "config_json": _pretty(run.config),
        "inventory_json": _pretty(run.inventory),
        "tallies": _tallies(run.inventory),
        "problems": _problems(run.inventory),
        "gradients": {"probability": gradient(PROBABILITY_MAP), "uncertainty": gradient(UNCERTAINTY_MAP)},
        "marked": list(zip((path.stem for path in marked_paths), marked, strict=True)),
        "mark_swatches": _mark_swatches(),
        "student": _student(run, safe),
        **pictured,
    }


def _status(run: Run) -> Verdict:
    if run.failure is not None:
        return Verdict("bad", "failed")
    if run.summary is None or run.summary.status is None:
        return Verdict("warn", "status not recorded")
    return Verdict("good" if run.summary.status == "finished" else "warn", run.summary.status)


def _against_baselines(validation: Validation | None, key: str, words: str) -> Verdict | None:
    """How a score stands against that of the best trivial baseline; said plainly when it loses."""
    if validation is None or key not in validation.scores:
        return None
    rivals = {name: scores[key] for name, scores in validation.baselines.items() if key in scores}
    if not rivals:
        return None
    name = max(rivals, key=lambda each: rivals[each])
    gap = validation.scores[key] - rivals[name]
    rival = f"best trivial baseline ({text.title(name).lower()}, {rivals[name]:.3f})"
    if gap > 0:
        return Verdict("good", f"{words} {gap:.3f} above the {rival}")
    return Verdict("bad", f"{words} {-gap:.3f} below the {rival}" if gap < 0 else f"{words} no better than the {rival}")


def _score_table(validation: Validation | None, pipeline: str) -> dict[str, Any] | None:
    if validation is None:
        return None
    rows: list[tuple[str, Mapping[str, float]]] = [(pipeline, validation.scores), *validation.baselines.items()]
    columns = [(key, words) for key, words in SCORE_COLUMNS if any(key in scores for _, scores in rows)]
    best = {key: max((scores[key] for _, scores in rows if key in scores), default=None) for key, _ in columns}
    return {"rows": rows, "columns": columns, "best": best}


def _volume_scores(validation: Validation | None, pipeline: str) -> list[tuple[str, list[tuple[str, VolumeScore]]]]:
    """For each validation volume its rows, who scored what; of several volumes, the means last."""
    rows: dict[str, list[tuple[str, VolumeScore]]] = {}
    for name, found in validation.by_volume.items() if validation else ():
        for each in found[:MAX_ROWS]:
            rows.setdefault(each.volume_id, []).append((text.title(name) if name else pipeline, each))
    groups = list(rows.items())[:MAX_ROWS]
    if validation is None or len(rows) < 2:
        return groups
    means = [(pipeline, validation.scores), *((text.title(k), v) for k, v in validation.baselines.items())]
    mean_rows = [(who, VolumeScore("Mean", dict(terms), (None, None, None))) for who, terms in means]
    return [*groups, ("Mean", mean_rows)]


def _mark_swatches() -> list[tuple[str, str]]:
    """What the colours of the marked slices mean: colour, words; and of the marks."""
    areas = zip((BOTH, OURS, THEIRS), ("both masks", "prediction only", "label only"), strict=True)
    marks = zip(MARKS, (f"unmatched {each}" for each in DIMENSIONS), strict=True)
    return [("#{:02x}{:02x}{:02x}".format(*colour), words) for colour, words in (*areas, *marks)]


def _submission_verdict(submission: Submission | None) -> Verdict:
    if submission is None:
        return Verdict("warn", "no submission recorded")
    if submission.sha256_now is None:
        return Verdict("warn", f"recorded; {submission.name} is not in this folder")
    if submission.sha256 is None:
        return Verdict("warn", "present; no digest recorded")
    if submission.sha256_now != submission.sha256:
        return Verdict("bad", f"{submission.name} differs from the recorded digest")
    return Verdict("good", "valid when written, and unchanged since: the digest matches")


def _ledger_verdict(run: Run) -> Verdict:
    """What this report itself found when it verified the ledger, against what the summary recorded."""
    check = run.ledger
    if check is None:
        return Verdict("warn", "no events.jsonl in this folder")
    if check.problem is not None:
        return Verdict("bad", f"does not verify: {check.problem}")
    recorded = run.summary.ledger if run.summary else None
    if recorded is None or recorded.root is None:
        return Verdict("warn", "verifies; no root recorded to compare with")
    if check.entries == recorded.entries and check.root != recorded.root:
        return Verdict("bad", "verifies, but its root is not the recorded one")
    if check.entries != recorded.entries:
        return Verdict("warn", f"verifies, with {check.entries} entries where {recorded.entries} are recorded")
    return Verdict("good", "verifies, and its root is the recorded one")


def _charts(run: Run, safe: Any) -> dict[str, Any]:
    """Every chart that the recorded values allow, by name."""
    drawn: dict[str, str | None] = {}
    if run.summary and any(phase.seconds is not None for phase in run.summary.phases):
        drawn["phases"] = figures.phases_chart(run.summary.phases)
    calibration = run.summary.validation.calibration if run.summary and run.summary.validation else None
    if calibration:
        drawn["reliability"] = figures.reliability_chart(calibration)
        drawn["uncertainty"] = figures.uncertainty_chart(calibration)
    if run.leaderboard:
        drawn["heat"] = figures.heat_map(run.leaderboard)
    training = run.events.training if run.events else None
    if training:
        winner = run.leaderboard[0].candidate if run.leaderboard else None
        for name, (title, log) in figures.chart_names().items():
            if name in training.curves:
                drawn[name] = figures.training_chart(name, training.curves[name], title, winner=winner, log=log)
    return {name: safe(svg) for name, svg in drawn.items() if svg}


def _glance(run: Run, safe: Any) -> dict[str, Any]:
    """The dashboard."""
    validation = run.summary.validation if run.summary else None
    shown = glance(run.dashboard, run.events.timeline if run.events else None, validation.scores if validation else {})
    return shown | {"charts": {name: safe(svg) for name, svg in shown["charts"].items()}}


def _student(run: Run, safe: Any) -> dict[str, Any]:
    """Teachers and student: verdict, figures, charts, pictures."""
    found = run.summary.student if run.summary else None
    charts = student_charts(found, run.events.student if run.events else None)
    paths = run.student_paths[:STUDENT_PICTURED]
    drawn = draw_student_views([(path.stem, read_student_views(path)) for path in paths])
    tone = {"GO": "good", "NO_GO_SUBMISSION": "bad"}
    return {
        "found": found,
        "verdict": Verdict(tone.get(found.verdict, "warn"), found.verdict) if found and found.verdict else None,
        "charts": {name: safe(svg) for name, svg in charts.items()},
        "pictures": list(zip((path.stem for path in paths), drawn, strict=True)),
        "n_pictured": len(run.student_paths),
    }


def _pictured(volumes: Sequence[Volume], safe: Any) -> dict[str, Any]:
    first = volumes[:PICTURED_VOLUMES]
    gallery: Gallery = make_gallery([(volume.volume_id, read_views(volume.views_path)) for volume in first])
    steps = draw_steps(
        [
            (volume.volume_id, [text.title(step.name) for step in volume.steps], read_step_slices(volume.steps_path))
            for volume in first
        ]
    )
    cards = []
    parts = zip(first, gallery.rows, gallery.uncertainty_top, steps, strict=True)
    for number, (volume, rows, top, step_panels) in enumerate(parts):
        chart = None
        if volume.ink_ratio_by_slice:
            svg = figures.density_chart(
                f"density{number}", volume.volume_id, volume.ink_ratio_by_slice, volume.ink_ratio_global
            )
            chart = safe(svg)
        cards.append({"volume": volume, "rows": rows, "uncertainty_top": top, "density": chart, "steps": step_panels})
    return {"cards": cards, "reduction": gallery.reduction}


def _percentile_names(volumes: Iterable[Volume]) -> list[str]:
    names = {name for volume in volumes for name in volume.percentiles}
    return sorted(names, key=lambda name: (not name.replace(".", "", 1).isdecimal(), len(name.split(".")[0]), name))


def _tallies(inventory: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The counts in the inventory: how many files of each shape, type and compression."""
    names = ("counts", "shapes", "dtypes", "compressions")
    found = [(name, (inventory or {}).get(name)) for name in names]
    return [(name, list(value.items())[:MAX_ROWS]) for name, value in found if isinstance(value, dict) and value]


def _problems(inventory: Mapping[str, Any] | None) -> list[str]:
    """Files that discovery could not use, and orphans, one line each."""
    lines = []
    for key, words in (("problems", ""), ("orphan_images", "no label: "), ("orphan_labels", "no image: ")):
        entries = (inventory or {}).get(key)
        for entry in entries if isinstance(entries, list) else []:
            shown = f"{entry.get('path')}: {entry.get('message')}" if isinstance(entry, dict) else str(entry)
            lines.append(words + shown)
    return lines[:MAX_ROWS]


def _pretty(values: Mapping[str, Any] | None) -> str | None:
    if values is None:
        return None
    whole = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
    return whole if len(whole) <= MAX_JSON else whole[:MAX_JSON] + "\n… cut here; the file holds the rest"
