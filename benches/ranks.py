"""A search on 1, 2, 3 processes of one machine: seconds and bytes an iteration; the bits must be the same (R11).

    python benches/ranks.py --samples 500000 --features 27 --ranks 1 2 --threads 1

Every process has the same number of threads, so that N processes have N times as many; the machine's cores bound what
that can bring.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from vesu.config import RunConfig
from vesu.grid_search import AnySamples, ElasticNetLogisticGrid, IterationRecord, Samples, SharedSamples
from vesu.run.ranks import Ranks, joined

PIECE = 40_000
"""Rows of a volume."""


def pieces(arguments: argparse.Namespace) -> Iterator[tuple[Any, Any, Any]]:
    """Generated rows, volume by volume."""
    rng = np.random.default_rng(0)
    for start in range(0, arguments.samples, PIECE):
        shape = (min(PIECE, arguments.samples - start), arguments.features)
        x = rng.standard_normal(shape, np.float32)
        g = np.abs(rng.standard_normal(shape, np.float32))
        yield x, (x[:, 0] + g[:, -1] + rng.standard_normal(shape[0], np.float32) > 0.5).astype(np.uint8), g


def samples(arguments: argparse.Namespace, ranks: Ranks | None) -> AnySamples:
    if ranks is None:
        x, y, g = (np.concatenate(parts) for parts in zip(*pieces(arguments), strict=True))
        return Samples(x, y, g)
    shared = SharedSamples(ranks, "train", arguments.samples, arguments.features, has_gradient=True)
    for x, y, g in pieces(arguments):
        shared.put(x, y, g)
    return shared


def measure(arguments: argparse.Namespace, ranks: Ranks | None) -> dict[str, Any]:
    """Median seconds and bytes of an iteration, the first one left out."""
    start = time.perf_counter()
    train = samples(arguments, ranks)
    given_s = time.perf_counter() - start
    moments: list[tuple[float, int]] = []

    def moment(_: IterationRecord) -> None:
        exchanged = 0 if ranks is None else ranks.link.bytes_sent + ranks.link.bytes_received
        moments.append((time.perf_counter(), exchanged))

    grid = ElasticNetLogisticGrid(max_iter=arguments.iterations + 1, n_threads=arguments.threads)
    grid.fit_samples(lambda epoch: train, on_iteration=moment)
    seconds, exchanged = np.diff(np.array(moments), axis=0).T
    found = hashlib.sha256(grid.coef_.tobytes() + grid.leaderboard_.tobytes()).hexdigest()
    return {
        "iteration_s": float(np.median(seconds)),
        "bytes": int(np.median(exchanged)),
        "samples_s": given_s,
        "bits": found[:16],
    }


def started(arguments: argparse.Namespace, world: int) -> dict[str, Any]:
    """The first process' measures, of as many processes as asked for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, __file__, *sys.argv[1:], "--inside"]
    others = [subprocess.Popen(command, env=os.environ | where | _place(rank)) for rank in range(1, world)]
    first = subprocess.run(command, env=os.environ | where | _place(0), stdout=subprocess.PIPE, text=True, check=True)
    for process in others:
        process.wait(60)
    found: dict[str, Any] = json.loads(first.stdout)
    return found


def _place(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500_000)
    parser.add_argument("--features", type=int, default=27)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        with joined(RunConfig()) as ranks:
            if ranks is not None and not ranks.is_first:
                ranks.serve({})
                return
            with nullcontext() if ranks is None else ranks.leading():
                print(json.dumps(measure(arguments, ranks)))
        return
    print(f"{arguments.samples} samples x {arguments.features} features, 135 candidates, {os.cpu_count()} cores")
    print("| processes | s an iteration | MB exchanged an iteration | s to hand out the samples | bits |")
    print("|---|---|---|---|---|")
    bits = set()
    for world in arguments.ranks:
        found = started(arguments, world)
        bits.add(found["bits"])
        row = f"{found['iteration_s']:.3f} | {found['bytes'] / 1e6:.2f} | {found['samples_s']:.1f} | {found['bits']}"
        print(f"| {world} | {row} |", flush=True)
    if len(bits) > 1:
        sys.exit("the bits differ")


if __name__ == "__main__":
    main()
