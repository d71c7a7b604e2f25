"""A rehearsal of the whole run at the competition's number of volumes, and what it says about their real size.

    python benches/rehearsal.py --out build/rehearsal

Four steps, each left as it is where it was done before (``--only`` names those to take):

run       786 labelled and 120 test volumes of 64^3 through ``vesu run`` as it is, in a process of its own
size      a few volumes of the real size, for the costs that grow with a volume
governor  the run with too little time: it must stop early with a valid zip, and go on to the same bits
tell      ``rehearsal.md``: every count and cost, and the extrapolation to 786 volumes of the real size

An interrupted step goes on where it was: `vesu run` resumes from its checkpoint.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rehearsal_data
import rehearsal_facts
import rehearsal_text
import vesu
from rehearsal_watch import watched
from vesu.data.phantom import write_dataset

STEPS = ("run", "size", "governor", "tell")
STOPPED = 3
"""Exit code of a run that stopped before its time was over, and can go on."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/rehearsal"))
    parser.add_argument("--train", type=int, default=786, help="labelled volumes (default: 786)")
    parser.add_argument("--test", type=int, default=120, help="test volumes (default: 120)")
    parser.add_argument("--size", type=int, default=64, help="voxels along each axis (default: 64)")
    parser.add_argument("--real-size", type=int, default=320, help="of the volumes to come (default: 320)")
    parser.add_argument("--real-data", type=Path, help="a folder with volumes of that size; default: generated ones")
    parser.add_argument("--governor-train", type=int, default=24, help="labelled volumes of that step (default: 24)")
    parser.add_argument("--limit-s", type=float, help="its first session (default: an eighth of what it needs)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every run")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    for step in words.only:
        print(f"-- {step}", flush=True)
        {"run": rehearse, "size": try_real_size, "governor": try_governor, "tell": tell}[step](words)
    return 0


def rehearse(words: argparse.Namespace) -> None:
    """The whole run on many small volumes."""
    data = cubes(words, "data", words.train, words.test)
    folder = words.out / "run"
    to_the_end(data, folder, words.set, words.out / "watch.jsonl")
    keep(words.out / "run.json", rehearsal_facts.of_run(folder, words.out / "watch.jsonl"))


def try_real_size(words: argparse.Namespace) -> None:
    """A run on a few volumes as large as the real ones."""
    data, size = words.real_data, words.real_size
    if data is None:
        data = write_dataset(words.out / "real", n_train=2, n_test=1, shape=(size,) * 3, n_workers=1)
    folder = words.out / "size"
    to_the_end(data, folder, words.set, words.out / "size.jsonl")
    keep(words.out / "size.json", rehearsal_facts.of_run(folder, words.out / "size.jsonl"))


def try_governor(words: argparse.Namespace) -> None:
    """The same run with a session that is too short for it, until it has ended, beside one with all the time."""
    data = cubes(words, "few", words.governor_train, max(1, words.governor_train // 3))
    whole, short = words.out / "whole", words.out / "short"
    settings = words.set
    if not (words.out / "governor.json").exists():
        shutil.rmtree(short, ignore_errors=True)  # an interrupted step would leave its stops uncounted
    to_the_end(data, whole, settings, words.out / "whole.jsonl")
    limit_s = words.limit_s or rehearsal_facts.seconds_of(whole) / 8
    stops: list[dict[str, Any]] = []
    while not done(short):
        limits = [f"time.limit_s={limit_s}", f"time.margin_s={limit_s / 20}"]
        limits += [f"time.accelerate_eta_s={limit_s / 10}", "time.heartbeat_s=0.1", "n_threads=1"]
        code = session(data, short, [*settings, *limits], words.out / "short.jsonl")
        if code not in (0, STOPPED):
            raise SystemExit(f"{short}: a session ended with {code}")
        if code == STOPPED:
            check = vesu.check_submission(short / "submission.zip", vesu.discover(data).test_shapes)
            stopped = {"phase": rehearsal_facts.stopped_in(short), "members": len(check.members)}
            stops.append({"limit_s": limit_s, **stopped})
            limit_s *= 2  # so that a session gets somewhere, and another phase is cut
    found = rehearsal_facts.of_governor(short, whole)
    keep(words.out / "governor.json", {**found, "stops": stops})
    if not found["same_bits"]:
        raise SystemExit(f"{short}: its results are not those of {whole}")


def tell(words: argparse.Namespace) -> None:
    """The tables of what was measured so far."""
    found = {name: json.loads(path.read_text()) for name in STEPS if (path := words.out / f"{name}.json").exists()}
    text = rehearsal_text.document(found, n_train=786, n_test=120, size=words.real_size)
    (words.out / "rehearsal.md").write_text(text)
    print(text)


# ---- runs


def cubes(words: argparse.Namespace, name: str, n_train: int, n_test: int) -> Path:
    """So many small volumes, cut out of the same few."""
    return rehearsal_data.write_cubes(
        words.out / name, n_train=n_train, n_test=n_test, size=words.size, source=words.out / "source"
    )


def to_the_end(data: Path, folder: Path, settings: list[str], samples: Path) -> None:
    """Sessions until the run is done; nothing where it is."""
    while not done(folder):
        if (code := session(data, folder, settings, samples)) not in (0, STOPPED):
            raise SystemExit(f"{folder}: vesu run ended with {code}")


def session(data: Path, folder: Path, settings: list[str], samples: Path) -> int:
    """One `vesu run` in a process of its own, resumed where an earlier one left something to go on from."""
    begun = any((folder / "checkpoints").glob("ckpt-*"))
    command: list[object] = [sys.executable, "-m", "vesu", "run", data, "--out", folder, "--quiet"]
    command += ["--resume-from-checkpoint"] if begun else []
    for setting in settings:
        command += ["--set", setting]
    return watched(command, samples)


def done(folder: Path) -> bool:
    """Whether the last session finished the run."""
    summary = folder / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["status"] == "finished"


def keep(path: Path, found: Mapping[str, Any]) -> None:
    machine = {"cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    path.write_text(json.dumps({**found, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
