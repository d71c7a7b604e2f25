"""The table as one page of HTML that loads nothing and runs no script, in the report's style."""

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from vesu.ablation import AblationRow, AblationTable

__all__ = ["page"]

TONES = {"pays": "good", "neutral": "", "harms": "bad"}
INKS = {"pays": "var(--good)", "neutral": "var(--soft)", "harms": "var(--bad)"}

WIDTH, ROW, LABELS, EDGE = 760, 30, 170, 16
"""Of the chart: its width, a row's height, room for names, room at the right edge."""


def page(table: AblationTable, facts: Mapping[str, Any], words: str) -> str:
    """The whole page.

    Parameters
    ----------
    table : AblationTable
    facts : mapping
        What was measured on what.
    words : str
        The same in words, for below the table.
    """
    style = resources.files("vesu.report").joinpath("style.css").read_text(encoding="utf-8")
    n_pays, n_harms = len(table.kept), len(table.harmful)
    headline = f"{table.title}: {n_pays} of {len(table.rows)} pay" + (f", {n_harms} harm" if n_harms else "")
    table_and_words = f'{_table(table.columns(), table.cells())}<p class="note under">{html.escape(words)}</p>'
    legend = "Disc: the mean loss; line: its interval; rings: each seed. Right of the middle: it pays to have it."
    body = (
        _card("What leaving it out costs", f'{_chart(table)}<p class="note under">{legend}</p>')
        + _card("In figures", table_and_words)
        + _card("What was measured", _facts(facts))
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(headline)}</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n<header>"
        f'<p class="kicker">vesu ablate</p><h1>{html.escape(headline)}</h1></header>\n<main>{body}</main>\n'
        "<footer>Written by <code>vesu ablate</code>. This page loads nothing from the network and runs no "
        "script.</footer>\n</body>\n</html>\n"
    )


def _card(title: str, content: str) -> str:
    return f'<section class="card next"><h3>{html.escape(title)}</h3>{content}</section>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:-1])
        + f'<td><span class="badge {TONES[row[-1]]}">{html.escape(row[-1])}</span></td></tr>'
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(facts: Mapping[str, Any]) -> str:
    entries = "".join(
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(_said(value))}</dd>"
        for name, value in facts.items()
    )
    return f"<dl>{entries}</dl>"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_said(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _chart(table: AblationTable) -> str:
    """Each row's loss: interval, mean and seeds, along one axis with zero in the middle."""
    reach = max(
        (abs(figure) for row in table.rows for figure in (*row.gain.by_seed, row.gain.low, row.gain.high)), default=0
    )
    scale = (WIDTH - LABELS - EDGE) / 2 / (1.05 * reach or 1.0)
    zero, height = LABELS + (WIDTH - LABELS - EDGE) / 2, ROW * len(table.rows) + 34
    marks = "".join(_row(row, zero, scale, ROW * (place + 0.5)) for place, row in enumerate(table.rows))
    ticks = "".join(
        f'<text x="{zero + figure * scale:.1f}" y="{height - 8}" text-anchor="middle" font-size="12" '
        f'fill="var(--soft)">{f"{figure:+.4f}" if figure else "0"}</text>'
        for figure in ((-reach, 0.0, reach) if reach else (0.0,))
    )
    return (
        f'<svg class="chart" role="img" aria-label="Loss without each {html.escape(table.words)}" '
        f'style="max-width:{WIDTH}px" viewBox="0 0 {WIDTH} {height}"><line x1="{zero}" x2="{zero}" y1="4" '
        f'y2="{height - 26}" stroke="var(--line)"/>{marks}{ticks}</svg>'
    )


def _row(row: AblationRow, zero: float, scale: float, y: float) -> str:
    ink, gain = INKS[row.verdict], row.gain
    name = row.name if len(row.name) <= 22 else row.name[:21] + "…"
    rings = "".join(
        f'<circle cx="{zero + figure * scale:.1f}" cy="{y}" r="3" fill="none" stroke="{ink}"/>'
        for figure in gain.by_seed
    )
    return (
        f'<text x="0" y="{y + 4}" font-size="13" fill="var(--ink)">{html.escape(name)}</text>'
        f'<line x1="{zero + gain.low * scale:.1f}" x2="{zero + gain.high * scale:.1f}" y1="{y}" y2="{y}" '
        f'stroke="{ink}" stroke-width="2"/>{rings}'
        f'<circle cx="{zero + gain.mean * scale:.1f}" cy="{y}" r="5" fill="{ink}"/>'
    )
