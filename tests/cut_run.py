"""A mini run cut at every checkpoint, one after each iteration: every resumed run must end with the same bits (R37).

    python tests/cut_run.py --seeds 3 --out cuts.json

Checkpoints are written after every iteration of every epoch and at the end of every phase and volume, and all are kept;
then a run goes on from each of them, in a folder of its own. Two processes share the work.
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import vesu
from cuts import result_of
from vesu.data.phantom import write_dataset
from vesu.run import ending

SETTINGS = ("sampling.voxels_per_volume=1000", "segment.dust.min_voxels=30", "search.supervised_epochs=2")
WORKERS = 2


def config_of(seed: int) -> vesu.RunConfig:
    """The mini run: the whole grid and all its iterations, few voxels."""
    config = vesu.load_config(overrides=[*SETTINGS, f"seed={seed}"], environment={})
    checkpoint = dataclasses.replace(config.checkpoint, every_iterations=1, keep=10_000)
    return dataclasses.replace(config, checkpoint=checkpoint, n_threads=1)


def ran(data: Path, out: Path, cache: Path, seed: int, checkpoint: Path | None = None) -> dict[str, str]:
    """A run, from a checkpoint where one is given; without the HTML report, which no result depends on."""
    ending._report = lambda *_: (None, "left out")
    vesu.run(data, out, config=config_of(seed), display="none", cache=cache, resume=checkpoint)
    return result_of(out)


def resumed(data: Path, cache: Path, seed: int, checkpoint: Path, expected: dict[str, str]) -> str | None:
    """The cut's name if it ended with other bits."""
    with tempfile.TemporaryDirectory() as folder:
        found = ran(data, Path(folder) / "run", cache, seed, checkpoint)
    return None if found == expected else checkpoint.name


def campaign(seeds: int, folder: Path, every: int = 1) -> dict[str, Any]:
    """Cut at every checkpoint (or each ``every``-th), for each seed."""
    start, cuts, wrong = time.monotonic(), 0, []
    data = write_dataset(folder / "set", n_train=2, n_test=1, shape=(48, 48, 48), seed=3)
    for seed in range(seeds):
        out, cache = folder / f"run{seed}", folder / "cache"
        expected = ran(data, out, cache, seed)
        checkpoints = sorted((out / "checkpoints").glob("ckpt-????????"))[::every]
        with ProcessPoolExecutor(WORKERS) as pool:
            count = len(checkpoints)
            answers = pool.map(
                resumed, [data] * count, [cache] * count, [seed] * count, checkpoints, [expected] * count
            )
            wrong += [f"seed {seed}: {name}" for name in answers if name]
        cuts += count
        shutil.rmtree(out)
    return {"seeds": seeds, "cuts": cuts, "wrong": wrong, "seconds": time.monotonic() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="cut at each so many-th checkpoint only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(arguments.seeds, Path(folder), arguments.every)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    raise SystemExit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
