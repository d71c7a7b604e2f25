"""SIGKILL at random moments of the real ``vesu run``, resumed until it ends: always the same bits (R37).

    python tests/kill_run.py --kills 200 --out kills.json

A chain is one run: started, killed, resumed, killed ... and at last left alone. Moments are uniform over the time that
an uninterrupted run takes, from its first instruction (the interpreter's own start) to its last.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cuts import result_of
from vesu.data.phantom import write_dataset
from vesu.ledger import verify

KILLS_A_CHAIN = 4
SETTINGS = ("sampling.voxels_per_volume=1500", "segment.dust.min_voxels=30", "search.supervised_epochs=2")


def command(data: Path, out: Path, cache: Path, *more: str) -> list[str]:
    """The command line of a session, as a user would type it."""
    words = [sys.executable, "-m", "vesu", "run", str(data), "--out", str(out), "--cache", str(cache), "--quiet"]
    for setting in SETTINGS:
        words += ["--set", setting]
    return [*words, *more]


def session(data: Path, out: Path, cache: Path, kill_after_s: float | None) -> bool:
    """One session, killed after so many seconds; whether it ended by itself."""
    begun = any((out / "checkpoints").glob("ckpt-*"))
    words = command(data, out, cache, *(["--resume-from-checkpoint"] if begun else []))
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ))
    try:
        _, errors = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode != 0:
        raise AssertionError(f"a session ended with {process.returncode}: {errors.decode()}")
    return True


def campaign(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill so many times; raises AssertionError at the first run that ends otherwise than the uninterrupted one."""
    data = write_dataset(folder / "set", n_train=3, n_test=2, shape=(48, 48, 48), seed=3)
    cache = folder / "cache"
    session(data, folder / "warm", cache, None)
    start = time.monotonic()
    session(data, folder / "whole", cache, None)
    whole_s = time.monotonic() - start
    expected, moments = result_of(folder / "whole"), random.Random(seed)
    done, sessions, phases = 0, 0, dict[str, int]()
    while done < kills:
        out, left = folder / "run", min(KILLS_A_CHAIN, kills - done)
        while left:
            ended = session(data, out, cache, moments.uniform(0.0, whole_s))
            sessions += 1
            if ended:
                break
            done, left = done + 1, left - 1
            phase = _phase(out)
            phases[phase] = phases.get(phase, 0) + 1
        session(data, out, cache, None)
        sessions += 1
        assert result_of(out) == expected, f"after {done} kills (seed {seed})"
        verify(out / "events.jsonl")
        shutil.rmtree(out)
    return {
        "kills": done,
        "sessions": sessions,
        "by_phase": phases,
        "whole_run_s": whole_s,
        "seconds": time.monotonic() - start,
        "seed": seed,
    }


def _phase(out: Path) -> str:
    """Where the newest checkpoint stands."""
    newest = max((out / "checkpoints").glob("ckpt-????????"), default=None)
    if newest is None:
        return "before the first checkpoint"
    return str(json.loads((newest / "ckpt_manifest.json").read_bytes())["phase"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(arguments.kills, arguments.seed, Path(folder))
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
