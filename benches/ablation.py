"""What feature groups, ladder steps and teachers are worth: the figures of docs/measured.md, section 'Ablations'.

    python benches/ablation.py --out build/ablate                                 # on generated scrolls
    python benches/ablation.py --out build/ablate --data dressed --only features  # on real labels dressed as CT

Each study is `vesu ablate` as it stands: three seeds, the whole grid, volumes that chose nothing. On real labels the
models learn from cubes of one label and are judged on cubes of the other. The same command goes on where it was cut.
Nothing that `dressed` writes may be redistributed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import vesu
from dressed_labels import HELD_OUT_SCAN, STUDENTS_SCAN, cubes, write_layout
from real_input import research_data
from vesu.data.phantom import write_dataset
from vesu.run.ablations import AblationReport, ablate_features, ablate_steps, ablate_teachers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

STUDENT = [
    "student.preset=P1",
    "student.channels=[4,8]",
    "student.patch=[16,16,16]",
    "student.steps=80",
    "student.tuning_steps=10",
    "student.validate_every=80",
    "student.overlap=0.25",
    "student.flips=false",
    "student.device=cpu",
    "teachers.overlap=0.25",
    "teachers.flips=false",
]
"""Small and short: a dozen students are taught."""
N_TEACHERS = 3
TEACHERS_SEED = 900
"""Teachers saw other scrolls than the data set's."""


DUST = "segment.dust.min_voxels=200"
"""In small cubes whole sheets are smaller than the default."""


def settings(voxels: int, *more: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=[f"sampling.voxels_per_volume={voxels}", DUST, *more], environment={})


def generated(out: Path, side: int, n_volumes: int) -> Path:
    return write_dataset(out / "generated", n_train=n_volumes, n_test=1, shape=(side,) * 3, seed=3)


def dressed(out: Path, side: int) -> tuple[Path, list[str]]:
    """Six corners of one real label to learn from, the eight of the other to be judged on."""
    first, second = sorted((research_data() / "labels").glob("*.tif"))
    ours = cubes(first, STUDENTS_SCAN, out / "dressings", side)[:6]
    judged = cubes(second, HELD_OUT_SCAN, out / "dressings", side)
    folder = out / "dressed"
    if not (folder / "train_labels").exists():
        write_layout(folder, [*ours, *judged], judged[:1])
    return folder, [volume.volume_id for volume in judged]


def teachers(out: Path, side: int) -> Path:
    """Small networks that learned from other generated scrolls."""
    from teacher_factory import make_teachers, phantom_volumes, recipes

    folder = out / "teachers"
    if not folder.exists():
        few = recipes(steps=2.0)[:N_TEACHERS]
        make_teachers(folder, phantom_volumes(4, side=side, seed=TEACHERS_SEED), recipes=few, patch=(32,) * 3)
    return folder


def study(name: str, make: Callable[..., AblationReport], folder: Path, **how: Any) -> None:
    """One study, with its wall and CPU seconds."""
    wall, cpu = time.monotonic(), time.process_time()

    def on_score(done: int, total: int, fields: Mapping[str, Any]) -> None:
        print(f"[{name}] {done}/{total} after {time.monotonic() - wall:.0f} s", flush=True)

    report = make(out=folder, on_score=on_score, **how)
    seconds = f"{time.monotonic() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU"
    print(f"\n{name}: {seconds}; {report.facts['ledger']['entries']} events, {folder / 'ablation.html'}\n{report}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/ablate"))
    parser.add_argument(
        "--data", choices=("generated", "dressed"), nargs="+", default=["generated"], help="dressed: VESU_DATA"
    )
    parser.add_argument("--only", choices=("features", "steps", "teachers"), nargs="+")
    parser.add_argument("--side", type=int, default=64, help="voxels of a generated cube")
    parser.add_argument("--volumes", type=int, default=9, help="generated volumes; a third of them is judged")
    parser.add_argument("--real-side", type=int, default=64, help="voxels of a cube of a real label")
    parser.add_argument("--voxels", type=int, default=4000, help="drawn from each volume")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    asked, seeds = set(given.only or ("features", "steps", "teachers")), tuple(range(given.seeds))
    threads = [] if given.threads is None else [f"n_threads={given.threads}"]
    config = settings(given.voxels, *threads)
    sets: dict[str, dict[str, Any]] = {}
    if "generated" in given.data:
        sets["generated"] = {"data": generated(given.out, given.side, given.volumes)}
    if "dressed" in given.data:
        folder, judged = dressed(given.out, given.real_side)
        sets["dressed"] = {"data": folder, "judged": judged}
    for name, data in sets.items():
        common = {**data, "seeds": seeds, "config": config, "cache": given.out / "cache"}
        if "features" in asked:
            study(f"features, {name}", ablate_features, given.out / f"{name}-features", **common)
        if "steps" in asked:
            study(f"steps, {name}", ablate_steps, given.out / f"{name}-steps", **common)
    if "teachers" in asked and "generated" in sets:
        where = f"teachers.folder='{teachers(given.out, given.side)}'"
        taught = settings(given.voxels, *threads, *STUDENT, where)
        how = {**sets["generated"], "seeds": seeds, "config": taught, "cache": given.out / "cache"}
        study("teachers, generated", ablate_teachers, given.out / "generated-teachers", **how)


if __name__ == "__main__":
    main()
