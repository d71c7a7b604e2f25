"""Where progress is shown: a tqdm bar in a terminal or notebook, or nothing."""

import sys
import warnings
from typing import Any, Literal, Protocol

from vesu.errors import ArgumentError

__all__ = ["Display", "make_display"]


class Display(Protocol):
    """Shows a percentage and says what it shows."""

    def show(self, percent: float, postfix: str) -> None: ...

    def shown(self) -> float: ...

    def close(self) -> None: ...


class Hidden:
    """No display: what is logged is what is shown."""

    def __init__(self) -> None:
        self._percent = 0.0

    def show(self, percent: float, postfix: str) -> None:
        self._percent = percent

    def shown(self) -> float:
        return self._percent

    def close(self) -> None:
        pass


class Bar:
    """A tqdm bar whose ``n`` is the percentage."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, percent: float, postfix: str) -> None:
        self._bar.n = percent
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.refresh()

    def shown(self) -> float:
        return float(self._bar.n)

    def close(self) -> None:
        self._bar.close()


def make_display(kind: Literal["auto", "tqdm", "none"]) -> tuple[Display, str | None]:
    """The display of this kind, and why ``auto`` had to do without one, if it had to.

    Raises
    ------
    ArgumentError
        An unknown kind; ``tqdm`` asked for and not installed.
    """
    if kind == "none":
        return Hidden(), None
    if kind not in ("auto", "tqdm"):
        raise ArgumentError(f"display: got {kind!r}; accepted: 'auto', 'tqdm', 'none'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets the bar is of text, which tqdm regrets at length
            from tqdm.auto import tqdm

        # `disable=None` hides the bar where standard error is no terminal (a notebook's never is).
        disable = None if kind == "auto" and not _in_notebook() else False
        bar_format = "{percentage:6.2f}%|{bar}| {elapsed}{postfix}"
        bar = tqdm(total=100.0, disable=disable, bar_format=bar_format, dynamic_ncols=True)
    except ImportError as error:  # the notebook's bar wants ipywidgets, and says so only when made
        if kind == "tqdm":
            raise ArgumentError(
                f"display: got 'tqdm', which cannot be used ({error}); accepted: 'none', or pip install vesu[progress]"
            ) from error
        return Hidden(), f"{error}; pip install vesu[progress]"
    return (Hidden() if bar.disable else Bar(bar)), None


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this, without importing IPython where it is not in use."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
