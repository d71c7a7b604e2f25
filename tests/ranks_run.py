"""Whole runs with a student in 1, 2 and 3 processes under torchrun: the same model, student, masks and zip (R11, R19).

    python tests/ranks_run.py --ranks 1 2 3

Exit code 0 where all hashes agree.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from student_case import STUDENT, small_set, write_teachers

SETTINGS = [
    "sampling.voxels_per_volume=12000",  # more than one task of the search
    "segment.dust.min_voxels=30",
    "student.accumulate=6",
    "student.fusion=0.5",
    *STUDENT,
]
FILES = ("model.npz", "leaderboard.json", "student/student.safetensors", "submission.zip")


def run(folder: Path, world: int) -> tuple[float, dict[str, str]]:
    """Seconds of a run, and the SHA-256 of what it leaves."""
    out = folder / f"run-{world}"
    command = ["-m", "vesu", "run", folder / "set", "--out", out, "--teachers", folder / "teachers", "--quiet"]
    command += ["--config", folder / "settings.toml"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(world)] if world > 1 else []
    start = time.monotonic()
    subprocess.run(
        [sys.executable, *launcher, *map(str, command)], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
    )
    return time.monotonic() - start, {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_set(folder)
        write_teachers(folder / "teachers")
        (folder / "settings.toml").write_text("\n".join(SETTINGS) + "\n")
        for world in parser.parse_args().ranks:
            seconds, found[world] = run(folder, world)
            print(f"{world} processes, {seconds:.0f} s: {found[world]}", flush=True)
    if any(hashes != found[min(found)] for hashes in found.values()):
        sys.exit("the files differ")


if __name__ == "__main__":
    main()
