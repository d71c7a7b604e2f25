"""What each step of the post-processing ladder is worth: the table of docs/measured.md, section 'The ladder'.

Each map is a real label's surface, damaged in a known way (`degraded_labels`), or a trained model's own answer on
a dressed label. Steps are tuned one after the other on one label, a step staying off unless it pays there, and
measured on the other label; then the other way round. The score is the competition's, at full resolution.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import vesu
from degraded_labels import KINDS, STRENGTHS, degraded
from real_input import research_data
from vesu.calibration import ThresholdRule
from vesu.segmentation import (
    Closing,
    Dust,
    Fill,
    Median,
    Opening,
    Patch,
    Plug,
    SegmentConfig,
    SmoothZ,
    Step,
    Threshold,
)

Steps = tuple[Step, ...]

THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
LOW_FACTORS = (0.8, 0.6, 0.4)
RUNGS: dict[str, tuple[Step, ...]] = {
    "dust": tuple(Dust(min_voxels=n) for n in (100, 1000, 5000)),
    "median": (Median(),),
    "opening": (Opening(radius=1),),
    "plug": (Plug(),),
    "closing": tuple(Closing(radius=r) for r in (1, 2, 3, (2, 1, 1))),
    "patch": (Patch(),),
    "fill": (Fill(),),
}
"""The settings tried for each step after the threshold, in the ladder's order."""
PAYS = 0.0005
"""A step stays off on the tuning label unless its best setting gains more than this."""


@dataclass(frozen=True)
class Case:
    """One map and its truth."""

    name: str
    probability: NDArray[np.float32]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class Outcome:
    """The mean of the score and its terms over some cases."""

    score: float
    topology: float
    surface: float
    voi: float
    by_case: dict[str, float]


def measure(cases: Sequence[Case], steps: Steps) -> Outcome:
    """The ladder's mean score over the cases."""
    config = SegmentConfig(steps=steps)
    reports = [vesu.score(vesu.segment(case.probability, config).mask, case.label) for case in cases]
    terms = np.array([(r.score, r.topology.score, r.surface.score, r.voi.score) for r in reports])
    by_case = {case.name: report.score for case, report in zip(cases, reports, strict=True)}
    return Outcome(*terms.mean(axis=0).tolist(), by_case)


def tune(cases: Sequence[Case]) -> Iterator[tuple[str, Steps]]:
    """Climb the ladder on labelled maps; yields each rung's name and the steps so far (unchanged where it lost)."""
    steps, best = _best([(_threshold(value),) for value in THRESHOLDS], cases, None)
    yield "threshold", steps
    steps, best = _best([(SmoothZ(radius=radius), *steps) for radius in (1, 2)], cases, (steps, best))
    yield "smooth_z", steps
    plain = steps[-1]
    assert isinstance(plain, Threshold)
    pairs = [(value, low) for value in (plain.rule.value, plain.rule.value + 0.2) for low in LOW_FACTORS]
    options = [(*steps[:-1], _threshold(value, low)) for value, low in pairs if value < 1]
    steps, best = _best(options, cases, (steps, best))
    yield "hysteresis", steps
    for name, settings in RUNGS.items():
        steps, best = _best([(*steps, step) for step in settings], cases, (steps, best))
        yield name, steps


def _threshold(value: float, low_factor: float = 1.0) -> Threshold:
    return Threshold(rule=ThresholdRule("fixed", round(value, 6), low_factor=low_factor))


def _best(options: list[Steps], cases: Sequence[Case], present: tuple[Steps, float] | None) -> tuple[Steps, float]:
    scored = [(steps, measure(cases, steps).score) for steps in options]
    for steps, score in scored:
        print(f"    {score:.4f}  {describe(steps[-1:]) if present else describe(steps)}", flush=True)
    steps, score = max(scored, key=lambda pair: pair[1])
    if present is not None and score <= present[1] + PAYS:
        return present
    return steps, score


def describe(steps: Steps) -> str:
    return " > ".join(map(repr, steps))


def degraded_cases(label: Path) -> list[Case]:
    """Every kind of damage at every strength."""
    truth = vesu.read_volume(label)
    return [
        Case(f"{kind} {strength}", degraded(truth, kind, strength, seed=0), truth)
        for kind in KINDS
        for strength in STRENGTHS
    ]


def cropped(cases: Sequence[Case], side: int) -> list[Case]:
    """The central cube of each map: enough to tune on, and five times quicker."""

    def cut(volume: NDArray[np.generic]) -> NDArray[np.generic]:
        low = [max(0, (n - side) // 2) for n in volume.shape]
        return np.ascontiguousarray(volume[tuple(slice(start, start + side) for start in low)])

    return [Case(case.name, cut(case.probability), cut(case.label)) for case in cases]


def model_cases(folder: Path) -> list[Case]:
    """The held-out answers of a model that `real_input.py` trained, in ``folder/run``."""
    model = vesu.SurfaceModel.load(folder / "run")
    cases = []
    for path in sorted((folder / "data" / "truth").glob("*.tif")):
        image = vesu.read_volume(folder / "data" / "test_images" / path.name)
        cases.append(Case(f"search {path.stem}", model.predict(image).probability, vesu.read_volume(path)))
    return cases


def climb(tuning: Sequence[Case], held_out: Sequence[Case]) -> list[dict[str, object]]:
    """Rows: each rung, whether it stayed, and the held-out score after it."""
    rows: list[dict[str, object]] = []
    before: Steps = ()
    outcome: Outcome | None = None
    for name, steps in tune(tuning):
        kept = steps != before
        if kept or outcome is None:
            outcome = measure(held_out, steps)
        row: dict[str, object] = {"rung": name, "kept": kept, "steps": describe(steps), **vars(outcome)}
        print(
            f"{name:10} {'kept' if kept else 'off ':4} held out {outcome.score:.4f} topology {outcome.topology:.4f} "
            f"surface {outcome.surface:.4f} voi {outcome.voi:.4f}",
            flush=True,
        )
        rows.append(row)
        before = steps
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/ladder.json"))
    parser.add_argument("--real", type=Path, default=Path("build/real"), help="what benches/real_input.py left")
    parser.add_argument("--crop", type=int, default=192, help="side of the cube that the steps are tuned on")
    parser.add_argument("--only", choices=("degraded", "search"), help="one of the two experiments")
    arguments = parser.parse_args()
    data = research_data()
    if not (data / "labels").is_dir():
        sys.exit(f"no research volumes in {data}: set VESU_DATA to their folder")
    labels = sorted((data / "labels").glob("*.tif"))
    results: dict[str, object] = {}
    maps = {} if arguments.only == "search" else {label: degraded_cases(label) for label in labels}
    # A model trained on one label answers for the other.
    folders = {label: arguments.real / f"train_{other.stem}" for label, other in zip(labels, labels[::-1], strict=True)}
    answered = arguments.only != "degraded" and all((path / "run" / "model.json").exists() for path in folders.values())
    answers = {label: model_cases(path) for label, path in folders.items()} if answered else {}
    for tuning, held_out in (labels, labels[::-1]):
        for name, cases in (("degraded", maps), ("search", answers)):
            if cases:
                print(f"{name} maps: tuned on {tuning.stem}, measured on {held_out.stem}", flush=True)
                rows = climb(cropped(cases[tuning], arguments.crop), cases[held_out])
                results[f"{name} {held_out.stem}"] = rows
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
