"""The guided phase on a real competitor's mask: the figures of docs/measured.md, section 'Guided phase'.

    VESU_DATA=... python benches/guided_real.py --out build/guided

The reference is a real prediction of a test chunk (`predictions/1407735_transunet.tif`), cut to a cube; no CT of that
chunk is at hand, so the cube is dressed as one. The model is trained on dressings of a real label and never sees the
reference before the phase. For each seed (of dressing, run and split): the search's ensemble alone with its threshold's
rule aligned, and with a student beside it, whose rule or whose weights are aligned. Nothing that this writes may be
redistributed. What is done is kept below --out: the same command goes on where it was cut.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vesu
from dressed_labels import STUDENTS_SCAN, TEACHERS_SCAN, write_layout
from real_input import research_data
from vesu.config import RunConfig
from vesu.data.phantom import dress
from vesu.distill.values import TrainingVolume

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

VOLUME_ID = "1407735"
TEST_SCAN = 4000
"""Seed of the test volume's dressing; the run's seed is added to it."""
N_CUBES = 4
STUDENT = (
    "student.channels=[8,16,32]",
    "student.patch=[32,32,32]",
    "student.preset=P2",
    "student.steps=300",
    "student.tuning_steps=60",
    "student.validate_every=100",
    "student.learning_rate=0.01",
    "student.overlap=0.25",
    "student.flips=false",
    "student.fusion=0.5",
    "student.device=cpu",
    "teachers.nominal=2",
    "teachers.overlap=0.25",
    "teachers.flips=false",
    "guided.learning_rate=0.002",
)
MEASURES = ("iou", "dice", "density_gap")


def dressed_cubes(label: Path, seed: int, side: int) -> list[TrainingVolume]:
    """Opposite corners of a label, each dressed by itself: a whole label takes many times as long."""
    truth, found = vesu.read_volume(label), []
    for number, corner in enumerate(((0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0))[:N_CUBES]):
        starts = [(n - side) * at_end for n, at_end in zip(truth.shape, corner, strict=True)]
        part = np.ascontiguousarray(truth[tuple(slice(start, start + side) for start in starts)])
        found.append(TrainingVolume(f"{label.stem}-{number}", dress(part, seed + number), part))
    return found


def prepare(folder: Path, data: Path, seed: int, side: int, train_side: int) -> tuple[Path, Path]:
    """A data set in the competition's layout, and the reference of its one test volume."""
    layout, reference = folder / "data", folder / f"{VOLUME_ID}_transunet.tif"
    if not reference.exists():
        label = sorted((data / "labels").glob("*.tif"))[0]
        train = dressed_cubes(label, STUDENTS_SCAN + 10 * seed, train_side)
        prediction = vesu.read_volume(data / "predictions" / f"{VOLUME_ID}_transunet.tif")
        middle = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n in prediction.shape)
        mask = np.ascontiguousarray(prediction[middle])
        test = TrainingVolume(VOLUME_ID, dress(mask, TEST_SCAN + seed), mask)
        write_layout(layout, train, [test])
        vesu.write_volume(reference, mask, compression="lzw")
    return layout, reference


def make_teachers(folder: Path, data: Path, train_side: int) -> Path:
    """Two networks that learned from another dressing of the training label."""
    from teacher_factory import make_teachers as trained
    from teacher_factory import recipes

    label = sorted((data / "labels").glob("*.tif"))[0]
    volumes = dressed_cubes(label, TEACHERS_SCAN, train_side)
    trained(folder, volumes, recipes=recipes(steps=2.0, width=6, side=32)[:2], patch=(32, 32, 32))
    return folder


def config(reference: Path, seed: int, more: Sequence[str]) -> RunConfig:
    given = [f"seed={seed}", "n_threads=1", "segment.dust.min_voxels=1000", f"guided.reference='{reference}'", *more]
    return vesu.load_config(overrides=given, environment={})


def guided(folder: Path, layout: Path, settings: RunConfig, like: Path | None) -> dict[str, Any]:
    """The report of a run's guided phase; a run that is like another one goes on with its search and student."""
    if not (folder / "summary.json").exists():
        if like is not None and not folder.exists():
            shutil.copytree(like, folder)
        unfinished = (folder / "checkpoints").exists()
        start, cpu = time.monotonic(), time.process_time()
        result = vesu.run(
            layout,
            folder,
            config=settings,
            display="none",
            cache=folder.parent / "cache",
            resume="latest" if unfinished else None,
            retrain_changed=unfinished,
        )
        took = f"{time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} s of CPU"
        print(f"{folder}: {took}, {result.submission.path} valid", flush=True)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())["guided"]
    return found


def row(seed: int, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {"seed": seed, "aligned": kind, "state": found["state"], "reason": found["reason"]}
    for moment in ("before", "after"):
        table |= {f"{name}_{moment}": found[moment][name] for name in MEASURES}
    if "student_alone" in found:
        table["iou_student_alone"] = found["student_alone"]["iou"]
    if "true_labels" in found:
        table |= {f"true_score_{moment}": found["true_labels"][moment]["score"] for moment in ("before", "after")}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/guided"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--side", type=int, default=160, help="voxels of the test cube (default: 160)")
    parser.add_argument("--train-side", type=int, default=128, help="voxels of a training cube (default: 128)")
    parser.add_argument("--no-student", action="store_true", help="the search's ensemble alone")
    arguments = parser.parse_args()
    data, out = research_data(), arguments.out.resolve()
    if not (data / "predictions").is_dir():
        sys.exit(f"no research volumes in {data}: set VESU_DATA to their folder")
    rows = []
    for with_student in (False,) if arguments.no_student else (False, True):
        for seed in arguments.seeds:
            folder = out / f"seed-{seed}"
            layout, reference = prepare(folder, data, seed, arguments.side, arguments.train_side)
            if not with_student:
                found = guided(folder / "prox", layout, config(reference, seed, ["student.use=off"]), None)
                rows.append(row(seed, "rule, ensemble alone", found))
            else:
                teachers = make_teachers(out / "teachers", data, arguments.train_side)
                options = [*STUDENT, f"teachers.folder='{teachers}'"]
                whole = guided(folder / "student", layout, config(reference, seed, options), None)
                rule = config(reference, seed, [*options, "guided.target=calibration"])
                rows.append(
                    row(seed, "rule, student beside", guided(folder / "rule", layout, rule, folder / "student"))
                )
                rows.append(row(seed, "student and rule", whole))
            print(json.dumps(rows[-1]), flush=True)
    (out / "guided.json").write_text(json.dumps(rows, indent=2) + "\n")
    columns = [name for name in rows[-1] if name != "reason"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for each in rows:
        shown = [each.get(name, "") for name in columns]
        print("| " + " | ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in shown) + " |")


if __name__ == "__main__":
    main()
