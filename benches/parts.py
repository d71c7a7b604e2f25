"""One run made by 1, 2 and 4 processes on this machine: the same final hashes, and what each phase took.

    python benches/parts.py --out build/parts

Every process has one thread, so that the figures show what splitting gives and not what threads give; with fewer
cores than processes there is nothing to gain, and the table says how many cores there were. The first row is the run
in one piece (`vesu run`), with one thread too; its phases are those of its log, without the start of the processes, and
"segment" has the calibration in it, which parts leave to "search". Exits with 1 if any hash differs.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vesu.data.phantom import write_dataset

RESULTS = ("model.npz", "model.json", "submission.zip")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/parts"))
    parser.add_argument("--size", type=int, default=96, help="voxels along each axis (default: 96)")
    parser.add_argument("--train", type=int, default=8)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--voxels", type=int, default=4000, help="voxels drawn from each volume (default: 4000)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    words = parser.parse_args()
    if words.out.exists():
        shutil.rmtree(words.out)
    data = write_dataset(words.out / "data", n_train=words.train, n_test=words.test, shape=(words.size,) * 3)
    settings = ["--set", "n_threads=1", "--set", f"sampling.voxels_per_volume={words.voxels}"]
    settings += ["--set", "time.fallback=empty"]

    start = time.perf_counter()
    whole = words.out / "whole"
    run([["run", data, "--out", whole, "--quiet", *settings]])
    total_s = time.perf_counter() - start
    logged = {phase["name"]: phase["seconds"] for phase in json.loads((whole / "summary.json").read_text())["phases"]}
    times = {
        "features": logged["load"] + logged["features"],
        "search": logged["train_data"] + logged["fit"],
        "segment": logged["segment"],
    }
    rows = [{"processes": "one piece", "total_s": total_s, **times, **hashes(whole)}]
    rows += [in_parts(n, data, words.out / str(n), settings) for n in words.processes]
    equal = all(row[name] == rows[0][name] for row in rows for name in (*RESULTS, "masks"))
    found = {"cores": os.cpu_count(), "size": words.size, "train": words.train, "test": words.test, "rows": rows}
    (words.out / "parts.json").write_text(json.dumps({**found, "same_hashes": equal}, indent=2))
    print(table(rows))
    print(f"\n{os.cpu_count()} cores; {words.train} + {words.test} volumes of {words.size}^3; one thread a process.")
    print("Same model, masks and zip in every row." if equal else "THE HASHES DIFFER")
    return 0 if equal else 1


def in_parts(n: int, data: Path, folder: Path, settings: Sequence[str]) -> dict[str, object]:
    """The whole chain with so many processes at a time."""

    def parts(phase: str, *more: object) -> tuple[float, list[Path]]:
        folders = [folder / f"{phase}-{k}" for k in range(n)]
        division = [["--phase", phase, "--num-parts", n, "--part-id", k, "--out", folders[k]] for k in range(n)]
        return run([["run", data, *each, *more, "--quiet", *settings] for each in division]), folders

    searched, gathered, merged = folder / "run", folder / "gathered", folder / "merged"
    features_s, sampled = parts("features")
    gather_s = run([["merge", *sampled, "--out", gathered]])
    search = ["run", data, "--out", searched, "--cache", gathered / "cache", "--phase", "search", "--quiet"]
    search_s = run([[*search, *settings]])
    segment_s, segmented = parts("segment", "--model", searched)
    merge_s = run([["merge", *segmented, "--out", merged]])
    times = {"features": features_s, "merge 1": gather_s, "search": search_s, "segment": segment_s, "merge 2": merge_s}
    return {"processes": n, "total_s": sum(times.values()), **times, **hashes(merged)}


def run(commands: Sequence[Sequence[object]]) -> float:
    """All of them at once; seconds until the last one is done."""
    start = time.perf_counter()
    started = [
        subprocess.Popen([sys.executable, "-m", "vesu", *map(str, words)], stdout=subprocess.DEVNULL)
        for words in commands
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"a command failed: exit codes {codes}")
    return time.perf_counter() - start


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves; of all masks together."""
    found = {name: sha256([folder / name]) for name in RESULTS}
    return {**found, "masks": sha256(sorted((folder / "masks").glob("*.tif")))}


def sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def table(rows: Sequence[dict[str, object]]) -> str:
    names = ("processes", "features", "search", "segment", "merge 1", "merge 2", "total_s", "submission.zip")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        shown = [f"{cell:.1f}" if isinstance(cell, float) else str(cell)[:16] for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
