"""A campaign's comparison as one self-contained page of HTML, in the style of a run's report."""

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from vesu.campaign.charts import charts
from vesu.campaign.compare import Comparison, Spread
from vesu.campaign.markdown import varied
from vesu.campaign.pictures import LEGEND, pictures
from vesu.report import text
from vesu.report.extras import optional
from vesu.report.limits import Limits

__all__ = ["render"]

TEMPLATE = "campaign.html.j2"


def render(comparison: Comparison, out: Path) -> str:
    """The whole page.

    Parameters
    ----------
    comparison : Comparison
    out : Path
        The campaign's folder, which has the volumes to picture.

    Returns
    -------
    str
        HTML with its style and pictures inside; it loads nothing and runs no script.

    Raises
    ------
    MissingExtraError
        matplotlib or Jinja2 is not installed.
    """
    safe = optional("markupsafe").Markup
    style = resources.files("vesu.report").joinpath("style.css").read_text(encoding="utf-8")
    page: str = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            style=safe(style),
            comparison=comparison,
            matrix=comparison.matrix,
            headline=_headline(comparison),
            keys=varied(comparison),
            charts={name: safe(svg) for name, svg in charts(comparison).items()},
            pictures=pictures(comparison, out),
            legend=LEGEND,
            matrix_json=json.dumps(comparison.matrix.to_json(), indent=2, ensure_ascii=False),
        )
    )
    return page


def _headline(comparison: Comparison) -> dict[str, str]:
    """The outcome in one line, and its tone."""
    n_failed = len(comparison.failed)
    if n_failed:
        words = f"{n_failed} of {comparison.n_runs} runs have no score"
        return {"tone": "warn", "words": f"{words}; {comparison.standing} stands"}
    if any(each.promoted for each in comparison.promotions):
        return {"tone": "good", "words": f"{comparison.standing} stands: its gain is stable"}
    return {"tone": "", "words": f"{comparison.standing} stands: no gain over it is stable"}


def _figure(spread: Spread | None, digits: int = 4) -> str:
    """Mean and deviation over the seeds."""
    if spread is None:
        return "–"
    return f"{spread.mean:.{digits}f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}")


@functools.lru_cache(maxsize=1)
def _environment() -> Any:
    jinja2, markup = optional("jinja2"), optional("markupsafe").Markup
    own, shared = resources.files("vesu.campaign"), resources.files("vesu.report").joinpath("templates")

    most = Limits().text  # a picture is one text too

    def visible(value: Any) -> Any:
        return text.visible(value, most) if isinstance(value, str) and not isinstance(value, markup) else value

    def load(name: str) -> str:
        return (own if name == TEMPLATE else shared).joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
        loader=jinja2.FunctionLoader(load),
    )
    environment.filters.update(text.FILTERS | {"figure": _figure})
    return environment
