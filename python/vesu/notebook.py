"""How results look in a notebook: plain HTML without script or colours of its own, so that it suits light and dark."""

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["counted", "facts", "instant", "sparkline", "table"]

MOST_ROWS = 12
_LEFT, _RIGHT = (f' style="text-align:{side};padding:0.1em 0.6em"' for side in ("left", "right"))
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_POINTS = 240, 28, 240


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    notes: Sequence[str] = (),
    most: int = MOST_ROWS,
) -> str:
    """A titled table; texts stand left, numbers right, what is None is a dash.

    Parameters
    ----------
    title : str
    columns : sequence of str
        Headings.
    rows : iterable of sequences
        One value a column. Everything is escaped.
    notes : sequence of str
        A line each, below the table; empty ones are left out.
    most : int
        Rows shown; how many are left out is said.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> shown = table("Scores", ["volume", "score"], [("a<b", 0.25), ("c", None)])
    >>> "a&lt;b" in shown, ">0.25</td>" in shown
    (True, True)
    """
    listed = list(rows)
    shown = listed[:most]
    numeric = [any(_is_number(row[i]) for row in shown) for i in range(len(columns))]
    sides = [_RIGHT if each else _LEFT for each in numeric]
    head = "".join(f"<th{side}>{html.escape(name)}</th>" for name, side in zip(columns, sides, strict=True))
    body = "".join(_row(row, sides) for row in shown)
    left_out = [f"and {len(listed) - most} more"] if len(listed) > most else []
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if listed else ""
    return f"<div><strong>{html.escape(title)}</strong>{grid}{_notes([*left_out, *notes])}</div>"


def facts(title: str, entries: Mapping[str, Any], *, notes: Sequence[str] = ()) -> str:
    """A titled table of two columns: what, and its value.

    Examples
    --------
    >>> "<td" in facts("Log", {"entries": 12345}), "12,345" in facts("Log", {"entries": 12345})
    (True, True)
    """
    body = "".join(
        f"<tr><th{_LEFT}>{html.escape(name)}</th><td{_LEFT}>{_text(value)}</td></tr>" for name, value in entries.items()
    )
    return f"<div><strong>{html.escape(title)}</strong><table><tbody>{body}</tbody></table>{_notes(notes)}</div>"


def sparkline(values: Sequence[float], title: str) -> str:
    """A line of values from 0 up as a small picture, with its text alternative.

    Parameters
    ----------
    values : sequence of float
        Not negative, in their order; means of neighbours where there are more than 240.
    title : str
        What it shows.

    Returns
    -------
    str
        HTML; empty without values.

    Examples
    --------
    >>> sparkline([0.0, 1.0], "density").count("<polyline")
    1
    """
    data = np.nan_to_num(np.asarray(values, np.float64))
    if data.size == 0:
        return ""
    groups = np.array_split(data, min(data.size, _SPARK_POINTS))
    heights = np.array([group.mean() for group in groups])
    x = np.linspace(1, _SPARK_WIDTH - 1, len(heights))
    y = _SPARK_HEIGHT - 2 - (_SPARK_HEIGHT - 4) * heights / (heights.max() or 1.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<div>{html.escape(title)}<br/><svg role="img" aria-label="{html.escape(title, quote=True)}" '
        f'width="{_SPARK_WIDTH}" height="{_SPARK_HEIGHT}" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.3"/></svg></div>'
    )


def counted(number: int, thing: str) -> str:
    """So many things.

    Examples
    --------
    >>> counted(1, "mask"), counted(2000, "mask")
    ('1 mask', '2,000 masks')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def instant(ns: int | None) -> str | None:
    """Nanoseconds since 1970 as a UTC date and time; None of None.

    Examples
    --------
    >>> instant(1_700_000_000_000_000_000)
    '2023-11-14 22:13:20 UTC'
    """
    return None if ns is None else datetime.fromtimestamp(ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _row(row: Sequence[Any], sides: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td{side}>{_text(value)}</td>' for value, side in zip(row, sides, strict=True))}</tr>"


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<div style="opacity:0.75">{html.escape(note)}</div>' for note in notes if note)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """A value as HTML text."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Path):
        return f"<code>{html.escape(str(value))}</code>"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return html.escape(str(value))
