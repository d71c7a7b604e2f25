"""What auto-tuning decided (``v3_autotune_trace.json``): a table, and how objective and parameters went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesu.report.canvas import ACCENT, INK, SECOND, SOFT, as_svg, drawing
from vesu.report.jsonfile import Node

__all__ = ["TRACE", "Decided", "Tuning", "read_tuning", "tuning_charts"]

TRACE = "v3_autotune_trace.json"
MARKS = {"raise": "^", "lower": "v", "rollback": "x"}
COLOURS = (ACCENT, SECOND, INK, SOFT)


@dataclass(frozen=True)
class Decided:
    """One entry of the trace."""

    parameter: str
    epoch: int
    action: str
    before: float | None
    after: float | None
    reason: str
    stage: str

    @property
    def acted(self) -> bool:
        """Whether it changed something, or ended a trial."""
        return self.action in (*MARKS, "accept", "refuse")


@dataclass(frozen=True)
class Tuning:
    """The whole trace; an objective is None where an epoch had none."""

    objectives: tuple[float | None, ...]
    decisions: tuple[Decided, ...]

    @property
    def shown(self) -> tuple[Decided, ...]:
        """The decisions by which something happened."""
        return tuple(each for each in self.decisions if each.acted)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Those that were tuned, in the order in which they were first decided on."""
        return tuple(dict.fromkeys(each.parameter for each in self.decisions))


def read_tuning(path: Path) -> Tuning | None:
    """The trace; None where there is no such file.

    Raises
    ------
    FormatError
        Malformed JSON, or a field of the wrong type; the message names file and field.
    """
    node = Node.read(path)
    if node is None:
        return None
    objectives = Node({str(n): value for n, value in enumerate(node.values.get("objectives") or [])}, str(path))
    return Tuning(
        tuple(objectives.number(name) for name in objectives.values),
        tuple(_decided(each) for each in node.children("decisions")),
    )


def tuning_charts(tuning: Tuning | None) -> dict[str, str]:
    """SVG by name: the objective with the changes on it, and every parameter that moved, against its start."""
    if tuning is None:
        return {}
    charts = {}
    if sum(each is not None for each in tuning.objectives) > 1:
        charts["objective"] = _objective_chart(tuning)
    if courses := _courses(tuning):
        charts["parameters"] = _parameter_chart(courses, len(tuning.objectives))
    return charts


def _decided(node: Node) -> Decided:
    return Decided(
        parameter=node.text("parameter") or "",
        epoch=node.integer("epoch") or 0,
        action=node.text("action") or "",
        before=node.number("before"),
        after=node.number("after"),
        reason=node.text("reason") or "",
        stage=node.text("stage") or "",
    )


def _objective_chart(tuning: Tuning) -> str:
    at = [epoch for epoch, each in enumerate(tuning.objectives) if each is not None]
    values = [each for each in tuning.objectives if each is not None]
    with drawing(180) as (figure, axes):
        axes.plot(at, values, color=ACCENT, linewidth=1.4)
        between = [each for each in tuning.decisions if each.stage != "calibration" and each.epoch in at]
        for action, mark in MARKS.items():
            on = [each.epoch for each in between if each.action == action]
            if on:
                heights = [values[at.index(epoch)] for epoch in on]
                axes.plot(on, heights, mark, color=SECOND, markersize=7, label=action, linestyle="none")
        axes.set(xlabel="epoch", ylabel="validation objective")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
        words = f"Validation objective of {len(values)} epochs, from {values[0]:.4g} to {values[-1]:.4g}"
        return as_svg(figure, "tuning-objective", words)


def _courses(tuning: Tuning) -> dict[str, list[tuple[int, float]]]:
    """Of every parameter that moved between epochs: epoch and value after its decisions, over the start."""
    courses = {}
    for name in tuning.parameters:
        own = [each for each in tuning.decisions if each.parameter == name and each.stage != "calibration"]
        values = [(each.epoch, each.after) for each in own if each.after is not None]
        start = own[0].before if own else None
        if start and len({value for _, value in values} | {start}) > 1:
            courses[name] = [(0, 1.0), *((epoch + 1, value / start) for epoch, value in values)]
    return courses


def _parameter_chart(courses: Mapping[str, Sequence[tuple[int, float]]], n_epochs: int) -> str:
    with drawing(180) as (figure, axes):
        for (name, course), colour in zip(courses.items(), COLOURS, strict=False):
            epochs, values = zip(*course, strict=True)
            axes.step(epochs, values, where="post", color=colour, linewidth=1.4, label=name)
        axes.set(xlabel="epoch", ylabel="value over its start", xlim=(0, max(1, n_epochs)))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best")
        return as_svg(figure, "tuning-parameters", f"Course of {', '.join(courses)} over the epochs")
