"""Turn a pytest-benchmark JSON into ratios to the peers, print them, and hold them against stored ones (R46).

Within a benchmark group, tests named ``test_vesu...`` are ours and those named ``test_peer...`` the peers'. A ratio
is the peer's median over ours, both from the same run, so it survives a change of machine where seconds do not.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 0.35
"""A ratio may fall by this share of its stored value before the check fails: shared machines swing by a fifth."""

PATHS = ("scalar", "neon", "avx2", "avx512")
"""Kernel paths named in a benchmark's id: not every machine has each."""


def ratios(benchmark: dict[str, Any]) -> dict[str, float]:
    """``{"group: peer": peer median / vesu median}`` for every group with both, one for each of ours."""
    groups: dict[str, dict[str, float]] = {}
    for entry in benchmark["benchmarks"]:
        groups.setdefault(entry["group"] or entry["fullname"], {})[entry["name"]] = entry["stats"]["median"]
    found = {}
    for group, medians in sorted(groups.items()):
        ours = {name: median for name, median in medians.items() if "vesu" in name.split("[")[0]}
        for name, median in sorted(medians.items()):
            if "peer" in name.split("[")[0]:
                for own, own_median in ours.items():
                    against = f" / {own.removeprefix('test_')}" if len(ours) > 1 else ""
                    found[f"{group}: {name.removeprefix('test_')}{against}"] = median / own_median
    return found


def show(now: dict[str, float], benchmark: dict[str, Any]) -> None:
    machine = benchmark["machine_info"]
    cpu = machine.get("cpu", {})
    print(f"{cpu.get('brand_raw', machine.get('processor'))}, {cpu.get('count')} cores, {benchmark['datetime'][:10]}")
    width = max(map(len, now), default=0)
    for name, ratio in now.items():
        print(f"{name:{width}}  {ratio:8.2f} x")


def check(now: dict[str, float], stored: dict[str, float]) -> list[str]:
    """One line for each ratio that is gone or fell beyond the tolerance."""
    problems = []
    for name, reference in stored.items():
        if name not in now and any(f"{path}-" in name or f"-{path}" in name for path in PATHS):
            print(f"skipped: {name} needs another instruction set")
        elif name not in now and " real " in f" {name}":
            print(f"skipped: {name} needs the research volumes (VESU_DATA)")
        elif name not in now:
            problems.append(f"{name}: stored {reference:.2f} x, not measured now")
        elif now[name] < reference * (1 - TOLERANCE):
            problems.append(f"{name}: {now[name]:.2f} x, stored {reference:.2f} x, tolerance {TOLERANCE:.0%}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["print", "store", "check"])
    parser.add_argument("benchmark", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("ratios", type=Path, nargs="?", default=Path(__file__).with_name("ratios.json"))
    arguments = parser.parse_args()
    benchmark = json.loads(arguments.benchmark.read_text(encoding="utf-8"))
    now = ratios(benchmark)
    if not now:
        print("no group holds both a vesu and a peer benchmark", file=sys.stderr)
        return 1
    show(now, benchmark)
    if arguments.action == "store":
        rounded = {name: round(ratio, 3) for name, ratio in now.items()}
        arguments.ratios.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")
    if arguments.action == "check":
        problems = check(now, json.loads(arguments.ratios.read_text(encoding="utf-8")))
        for problem in problems:
            print(f"SLOWER  {problem}", file=sys.stderr)
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
