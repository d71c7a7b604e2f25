"""From a loaded run to one page of HTML."""

import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from vesu.report import figures, text, verdicts
from vesu.report.autotune import tuning_charts
from vesu.report.contact import contact_sheet, spread
from vesu.report.extras import optional
from vesu.report.glance import glance
from vesu.report.guided import draw_guided_views, read_guided_views, swatches
from vesu.report.limits import MAX_PAGE_BYTES, Limits
from vesu.report.loader import Run
from vesu.report.nonces import PICTURED as NONCES_PICTURED
from vesu.report.nonces import draw_nonces, read_nonces
from vesu.report.pictures import PROBABILITY_MAP, UNCERTAINTY_MAP, gradient, make_gallery
from vesu.report.scores import DIMENSIONS, VolumeScore
from vesu.report.steps import draw_steps, read_step_slices
from vesu.report.student import PICTURED as STUDENT_PICTURED
from vesu.report.student import draw_student_views, read_student_views, student_charts
from vesu.report.summary import Validation
from vesu.report.unmatched import BOTH, MARKS, OURS, PICTURED, THEIRS, draw_marked, read_marked
from vesu.report.views import read_views
from vesu.report.volumes import Volume

SCORE_COLUMNS = (
    ("score", "Score"),
    ("f1", "F1"),
    ("f_beta", "F-beta 0.5"),
    ("iou", "IoU"),
    ("precision", "Precision"),
    ("recall", "Recall"),
)


def render(run: Run, limits: Limits | None = None) -> str:
    """The whole page, below :data:`MAX_PAGE_BYTES`.

    Parameters
    ----------
    run
        From :func:`vesu.report.loader.load_run`.
    limits
        How much to show; less of it where the page would be too large.

    Returns
    -------
    str
        HTML with its style and pictures inside; it loads nothing and runs no script.
    """
    limits = limits or Limits()
    page = _render(run, limits)
    while len(page.encode("utf-8", "replace")) > MAX_PAGE_BYTES and not limits.tightest:
        limits = limits.tightened()
        page = _render(run, limits)
    return page


def _render(run: Run, limits: Limits) -> str:
    safe = optional("markupsafe").Markup
    style = safe(resources.files("vesu.report").joinpath("style.css").read_text(encoding="utf-8"))
    optional("jinja2")  # asked each time, whatever is kept of an earlier page
    template = _environment(limits).get_template("page.html.j2")
    page: str = template.render(style=style, limits=limits, **_context(run, limits, safe))
    return page


@functools.lru_cache(maxsize=4)
def _environment(limits: Limits) -> Any:
    """The templates, compiled once for all pages of a process."""
    jinja2, markup = optional("jinja2"), optional("markupsafe").Markup
    files = resources.files("vesu.report").joinpath("templates")

    def visible(value: Any) -> Any:
        return text.visible(value, limits.text) if isinstance(value, str) and not isinstance(value, markup) else value

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
        loader=jinja2.FunctionLoader(lambda name: files.joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters.update(text.FILTERS | {"few": limits.few})
    return environment


def _context(run: Run, limits: Limits, safe: Any) -> dict[str, Any]:
    """What the templates show, section by section."""
    pictures = _pictures(run, limits, safe)  # first: a malformed file of views ends it before any chart is drawn
    summary = run.summary
    return {
        "run": run,
        "summary": summary,
        "validation": summary.validation if summary else None,
        "untrained": summary is not None and summary.untrained,
        "submission": run.submission,
        "mask_density": run.submission.density if run.submission else None,
        "charts": _charts(run, safe),
        "chart_titles": [name for name in figures.chart_names() if name != "loss"],
        "glance": _glance(run, safe),
        "weights": {phase.name: phase.weight for phase in summary.phases} if summary else {},
        **_judgements(run),
        **pictures,
        **_scores(run),
        **_input(run),
        "student": _student(run, safe),
        "guided": _guided(run),
        "tuning_charts": {name: safe(svg) for name, svg in tuning_charts(run.tuning).items()},
        "nonces": _nonces(run),
    }


def _judgements(run: Run) -> dict[str, Any]:
    return {
        "headline": verdicts.headline(run),
        "ending": verdicts.ending(run),
        "go_no_go": verdicts.gates(run.gates),
        "gate_rows": verdicts.gate_rows(run.gates),
        "baseline_notes": verdicts.against_baselines(run.summary.validation if run.summary else None),
        "submission_verdict": verdicts.submission(run.submission),
        "contents": verdicts.contents(run.submission),
        "ledger_verdict": verdicts.ledger(run),
    }


def _scores(run: Run) -> dict[str, Any]:
    """The tables of scores, and the pictures of what has no partner."""
    validation = run.summary.validation if run.summary else None
    pipeline = (run.summary.pipeline if run.summary else None) or "vesu"
    paths = run.marked_paths[:PICTURED]
    marked = draw_marked([(path.stem, read_marked(path)) for path in paths])
    return {
        "score_table": _score_table(validation, pipeline),
        "volume_scores": _volume_scores(validation, pipeline),
        "marked": list(zip((path.stem for path in paths), marked, strict=True)),
        "mark_swatches": _mark_swatches(),
    }


def _score_table(validation: Validation | None, pipeline: str) -> dict[str, Any] | None:
    if validation is None:
        return None
    rows: list[tuple[str, Mapping[str, float]]] = [(pipeline, validation.scores), *validation.baselines.items()]
    columns = [(key, words) for key, words in SCORE_COLUMNS if any(key in scores for _, scores in rows)]
    best = {key: max((scores[key] for _, scores in rows if key in scores), default=None) for key, _ in columns}
    return {"rows": rows, "columns": columns, "best": best}


def _volume_scores(validation: Validation | None, pipeline: str) -> list[tuple[str, list[tuple[str, VolumeScore]]]]:
    """For each validation volume its rows, who scored what; of several volumes, the means first."""
    rows: dict[str, list[tuple[str, VolumeScore]]] = {}
    for name, found in validation.by_volume.items() if validation else ():
        for each in found:
            rows.setdefault(each.volume_id, []).append((text.title(name) if name else pipeline, each))
    if validation is None or len(rows) < 2:
        return list(rows.items())
    means = [(pipeline, validation.scores), *((text.title(k), v) for k, v in validation.baselines.items())]
    mean_rows = [(who, VolumeScore("Mean", dict(terms), (None, None, None))) for who, terms in means]
    return [("Mean", mean_rows), *rows.items()]


def _mark_swatches() -> list[tuple[str, str]]:
    """What the colours of the marked slices mean: colour, words; and of the marks."""
    areas = zip((BOTH, OURS, THEIRS), ("both masks", "prediction only", "label only"), strict=True)
    marks = zip(MARKS, (f"unmatched {each}" for each in DIMENSIONS), strict=True)
    return [("#{:02x}{:02x}{:02x}".format(*colour), words) for colour, words in (*areas, *marks)]


def _charts(run: Run, safe: Any) -> dict[str, Any]:
    """Every chart that the recorded values allow, by name."""
    drawn: dict[str, str | None] = {}
    validation = run.summary.validation if run.summary else None
    if run.summary and any(phase.seconds is not None for phase in run.summary.phases):
        drawn["phases"] = figures.phases_chart(run.summary.phases)
    if validation and validation.calibration:
        drawn["reliability"] = figures.reliability_chart(validation.calibration)
        drawn["uncertainty"] = figures.uncertainty_chart(validation.calibration)
    if run.leaderboard:
        drawn["heat"] = figures.heat_map(run.leaderboard)
    densities = [each.ink_ratio_global for each in run.volumes if each.ink_ratio_global is not None]
    drawn["densities"] = figures.densities_chart(densities, validation.density_label if validation else None)
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
    """Teachers and student: figures, charts, pictures."""
    found = run.summary.student if run.summary else None
    charts = student_charts(found, run.events.student if run.events else None)
    paths = run.student_paths[:STUDENT_PICTURED]
    drawn = draw_student_views([(path.stem, read_student_views(path)) for path in paths])
    return {
        "found": found,
        "charts": {name: safe(svg) for name, svg in charts.items()},
        "pictures": list(zip((path.stem for path in paths), drawn, strict=True)),
        "n_pictured": len(run.student_paths),
    }


def _guided(run: Run) -> dict[str, Any]:
    """The guided phase: figures and slices."""
    found = run.guided
    rows = () if found is None else draw_guided_views(found.volume_id, read_guided_views(run.folder, found.volume_id))
    return {"found": found, "rows": rows, "swatches": swatches()}


def _nonces(run: Run) -> dict[str, Any]:
    """The golden nonces: how many of each volume, and of some the slices."""
    volumes = [read_nonces(path) for path in run.nonce_paths]
    events = run.events.counts.get("GOLDEN_NONCE_FOUND", 0) if run.events else None
    return {"volumes": volumes, "events": events, "drawn": draw_nonces(volumes[:NONCES_PICTURED])}


def _pictures(run: Run, limits: Limits, safe: Any) -> dict[str, Any]:
    """The volumes: some in full, and where there are more, all of them as a contact sheet."""
    shown = spread(run.volumes, limits.pictured)
    gallery = make_gallery([(volume.volume_id, read_views(volume.views_path)) for volume in shown])
    steps = draw_steps(
        [
            (volume.volume_id, [text.title(step.name) for step in volume.steps], read_step_slices(volume.steps_path))
            for volume in shown
        ]
    )
    parts = zip(shown, gallery.rows, gallery.uncertainty_top, steps, strict=True)
    return {
        "cards": [
            {
                "volume": volume,
                "rows": rows,
                "uncertainty_top": top,
                "steps": panels,
                "density": _density(n, volume, safe),
            }
            for n, (volume, rows, top, panels) in enumerate(parts)
        ],
        "scale": gallery.scale,
        "sheet": contact_sheet(run.volumes) if len(run.volumes) > limits.opened else (),
        "places": {volume.volume_id: f"volume-{n}" for n, volume in enumerate(shown)},
        "percentiles": _percentile_names(run.volumes),
        "gradients": {"probability": gradient(PROBABILITY_MAP), "uncertainty": gradient(UNCERTAINTY_MAP)},
    }


def _density(number: int, volume: Volume, safe: Any) -> Any:
    if not volume.ink_ratio_by_slice:
        return None
    return safe(
        figures.density_chart(f"density{number}", volume.volume_id, volume.ink_ratio_by_slice, volume.ink_ratio_global)
    )


def _percentile_names(volumes: Iterable[Volume]) -> list[str]:
    names = {name for volume in volumes for name in volume.percentiles}
    return sorted(names, key=lambda name: (not name.replace(".", "", 1).isdecimal(), len(name.split(".")[0]), name))


def _input(run: Run) -> dict[str, Any]:
    """Inventory and configuration."""
    return {
        "config_json": _pretty(run.config),
        "inventory_json": _pretty(run.inventory),
        "tallies": _tallies(run.inventory),
        "problems": _problems(run.inventory),
    }


def _tallies(inventory: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The counts in the inventory: how many files of each shape, type and compression."""
    names = ("shapes", "dtypes", "compressions")
    found = [(name, (inventory or {}).get(name)) for name in names]
    return [(name, list(value.items())) for name, value in found if isinstance(value, dict) and value]


def _problems(inventory: Mapping[str, Any] | None) -> list[str]:
    """Files that discovery could not use, and orphans, one line each."""
    lines = []
    for key, words in (("problems", ""), ("orphan_images", "no label: "), ("orphan_labels", "no image: ")):
        entries = (inventory or {}).get(key)
        for entry in entries if isinstance(entries, list) else []:
            shown = f"{entry.get('path')}: {entry.get('message')}" if isinstance(entry, dict) else str(entry)
            lines.append(words + shown)
    return lines


def _pretty(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)
